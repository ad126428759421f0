//! What it means how a validating Envoy ended. Pure.

use super::search::Refusal;

/// Before these words Envoy says where it reads from, behind them what is wrong.
const REFUSES: &str = "error initializing configuration '";

/// How much of what Envoy says is told.
const MOST_WORDS: usize = 1000;

/// Beginnings of what Envoy says where it misses what only proxies have: files, and secrets of their own bootstrap.
const MISSES: [&str; 6] = [
    "Unknown static secret",
    "Invalid path",
    "unable to open file",
    "unable to read file",
    "file does not exist",
    "Environment variable doesn't exist",
];

/// Signals that a program sends itself by what it does: SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV.
const CRASHES: [i32; 5] = [4, 6, 7, 8, 11];

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Its exit code, unless a signal ended it.
    pub(super) code: Option<i32>,
    /// The signal that ended it.
    pub(super) signal: Option<i32>,
    /// What it wrote to standard error, bounded.
    pub(super) stderr: String,
}

/// What Envoy says to a bootstrap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It would take it.
    Taken,
    /// It would not.
    Refused(Refusal),
    /// It did not survive it.
    Crashed(Refusal),
}

impl Verdict {
    /// Why, if it is not taken.
    pub(super) fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Taken => None,
            Self::Refused(refusal) | Self::Crashed(refusal) => Some(refusal),
        }
    }
}

/// The verdict, or how it ended that there is none: then the program is at fault.
pub(super) fn verdict(ended: &Ended) -> Result<Verdict, String> {
    let Ended { code, signal, stderr } = ended;
    // A shell that runs the program says it so.
    let signal = signal.or_else(|| code.and_then(|code| code.checked_sub(128).filter(|signal| *signal > 0)));
    if let Some(signal) = signal {
        return match CRASHES.contains(&signal) {
            true => Ok(Verdict::Crashed(Refusal { words: format!("it crashes (signal {signal})"), is_ours: false })),
            false => Err(format!("ended by signal {signal}")),
        };
    }
    match (code, said(stderr)) {
        (Some(0), _) => Ok(Verdict::Taken),
        (_, Some(words)) => {
            let is_ours = MISSES.iter().any(|miss| words.starts_with(miss));
            Ok(Verdict::Refused(Refusal { words, is_ours }))
        }
        _ => {
            let last = stderr.trim().lines().last().unwrap_or_default();
            Err(format!("ended with code {}: {}", code.unwrap_or_default(), cut(last)))
        }
    }
}

/// What is wrong, in Envoy's words, on one line.
fn said(stderr: &str) -> Option<String> {
    let (_, rest) = stderr.split_once(REFUSES)?;
    let (_, words) = rest.split_once("': ")?;
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(cut(&words).to_owned())
}

fn cut(words: &str) -> &str {
    &words[..words.floor_char_boundary(MOST_WORDS)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: Option<i32>, signal: Option<i32>, stderr: &str) -> Result<Verdict, String> {
        verdict(&Ended { code, signal, stderr: stderr.to_owned() })
    }

    /// As Envoy 1.40 says it.
    fn refused(words: &str) -> Result<Verdict, String> {
        let before = "[2026-11-28 06:49:10.611][24877][critical][main] [source/server/config_validation/server.cc:76]";
        ended(Some(1), None, &format!("{before} error initializing configuration '1.pb': {words}\n"))
    }

    #[test]
    fn envoy_says_what_is_wrong() {
        assert_eq!(ended(Some(0), None, "[warning] deprecated"), Ok(Verdict::Taken));
        let words = "Only a single wildcard domain is permitted in route raw";
        assert_eq!(refused(words), Ok(Verdict::Refused(Refusal { words: words.to_owned(), is_ours: false })));
        let Ok(Verdict::Refused(Refusal { words, .. })) = refused(&"ü ".repeat(MOST_WORDS)) else { panic!("refused") };
        assert!(words.len() <= MOST_WORDS);
    }

    #[test]
    fn what_only_proxies_have_is_no_fault_of_the_change() {
        for words in ["Unknown static secret: s", "unable to open file '/a': No such file or directory"] {
            assert_eq!(refused(words), Ok(Verdict::Refused(Refusal { words: words.to_owned(), is_ours: true })));
        }
    }

    #[test]
    fn a_crash_is_a_verdict_and_a_broken_program_is_none() {
        for crash in [ended(None, Some(11), ""), ended(Some(139), None, "")] {
            assert!(matches!(crash, Ok(Verdict::Crashed(_))), "{crash:?}");
        }
        assert_eq!(ended(None, Some(9), ""), Err("ended by signal 9".to_owned()));
        let missing = "a\nenvoy: error while loading shared libraries: libc.so\n";
        let said = "ended with code 127: envoy: error while loading shared libraries: libc.so";
        assert_eq!(ended(Some(127), None, missing), Err(said.to_owned()));
    }
}
