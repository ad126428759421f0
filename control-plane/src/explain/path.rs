//! The path of a request as routes and services see it.
//!
//! What a listener of ours has Envoy do, in this order, seen with 1.40: slashes that were hidden by encoding are shown (and then the
//! client is asked to come back with the plain path); dots are followed; what never needs encoding is decoded and what always
//! does is encoded; several slashes become one. The query stays as it is.

/// Why there is no such path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusual {
    /// It has a fragment.
    Fragment,
    /// It does not start with a slash.
    Relative,
    /// It has an encoded zero.
    Zero,
}

/// A path and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Normalized {
    pub(super) path: String,
    /// It had encoded slashes: the client is sent to the path above.
    pub(super) had_hidden_slashes: bool,
}

/// `path`, without its query, as routes see it.
pub(super) fn normalize(path: &str) -> Result<Normalized, Unusual> {
    if path.contains('#') {
        return Err(Unusual::Fragment);
    }
    if !path.starts_with('/') {
        return Err(Unusual::Relative);
    }
    let shown = show_slashes(path);
    let had_hidden_slashes = shown.len() != path.len();
    let canonical = canonical(&without_parameters_of_dots(&shown))?;
    Ok(Normalized { path: merge_slashes(&canonical), had_hidden_slashes })
}

fn show_slashes(path: &str) -> String {
    ["%2F", "%2f"]
        .into_iter()
        .fold(path.to_owned(), |path, hidden| path.replace(hidden, "/"))
        .replace("%5C", "\\")
        .replace("%5c", "\\")
}

/// `..;a=b` is `..` to some servers, so it is to Envoy.
fn without_parameters_of_dots(path: &str) -> String {
    let segment = |segment| match segment {
        segment if str::starts_with(segment, "..;") => "..",
        segment if str::starts_with(segment, ".;") => ".",
        segment => segment,
    };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// Follows dots and settles what is encoded, as browsers do (the URL standard), which treat `\` as `/`.
fn canonical(path: &str) -> Result<String, Unusual> {
    let bytes = path.as_bytes();
    let mut output = String::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if let Some(dot) = dot(&bytes[at..]) {
            if output.ends_with('/') {
                match after_dot(&bytes[at + dot..]) {
                    Some((Dots::Stay, consumed)) => at += dot + consumed,
                    Some((Dots::Up, consumed)) => {
                        up(&mut output);
                        at += dot + consumed;
                    }
                    None => {
                        output.push('.');
                        at += dot;
                    }
                }
            } else {
                output.push('.');
                at += dot;
            }
            continue;
        }
        at += 1;
        match byte {
            b'\\' => output.push('/'),
            b'%' => match encoded(&bytes[at..]) {
                Some(0) => return Err(Unusual::Zero),
                Some(plain) if plain.is_ascii_alphanumeric() || b"-_~".contains(&plain) => {
                    output.push(char::from(plain));
                    at += 2;
                }
                _ => output.push('%'),
            },
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => output += &format!("%{byte:02X}"),
            _ => output.push(char::from(byte)),
        }
    }
    Ok(output)
}

/// The length of a dot at the start, which may be encoded.
fn dot(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b'.', ..] => Some(1),
        [b'%', b'2', b'e' | b'E', ..] => Some(3),
        _ => None,
    }
}

enum Dots {
    Stay,
    Up,
}

/// What a dot after a slash means by what follows, and how much of that belongs to it; `None` if it is a part of a name.
fn after_dot(rest: &[u8]) -> Option<(Dots, usize)> {
    let end = |rest: &[u8]| match rest.first() {
        None => Some(0),
        Some(b'/' | b'\\') => Some(1),
        Some(_) => None,
    };
    if let Some(consumed) = end(rest) {
        return Some((Dots::Stay, consumed));
    }
    let second = dot(rest)?;
    end(&rest[second..]).map(|consumed| (Dots::Up, second + consumed))
}

/// Takes the last segment away; `output` ends with a slash, and still does.
fn up(output: &mut String) {
    let above = output[..output.len() - 1].rfind('/').unwrap_or(0);
    output.truncate(above + 1);
}

/// The byte that two hexadecimal digits at the start stand for.
fn encoded(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits.get(..2)?).ok()?;
    text.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

fn merge_slashes(path: &str) -> String {
    // Of nothing but slashes Envoy keeps the first and the last.
    if path.len() > 1 && path.bytes().all(|b| b == b'/') {
        return "//".to_owned();
    }
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

/// `text` with everything decoded that is encoded, for what counts by a parameter.
pub(super) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match encoded(&bytes[at..]).filter(|_| byte == b'%') {
            Some(plain) => {
                decoded.push(plain);
                at += 2;
            }
            None => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each as Envoy 1.40 has answered it.
    #[test]
    fn a_path_becomes_what_envoy_makes_of_it() {
        for (path, wanted) in [
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.b", "/a/.b"),
            ("/a/..b", "/a/..b"),
            ("/a/b/...", "/a/b/..."),
            ("/a/b/..;/c", "/a/c"),
            ("/a/.;x/c", "/a/c"),
            ("/a;p=1/../b", "/b"),
            ("//a//b/", "/a/b/"),
            ("/a/..//b", "/b"),
            ("///", "//"),
            ("/\\", "//"),
            ("/a\\b", "/a/b"),
            ("/a%20b", "/a%20b"),
            ("/z%41%7e%2Dz", "/zA~-z"),
            ("/z%3cz%3Cz", "/z%3cz%3Cz"),
            ("/z%zz", "/z%zz"),
            ("/z%4", "/z%4"),
            ("/z{|}<\">^`z", "/z%7B%7C%7D%3C%22%3E%5E%60z"),
            ("/a[b]!$&'()*+,;=:@", "/a[b]!$&'()*+,;=:@"),
        ] {
            let wanted = Normalized { path: wanted.to_owned(), had_hidden_slashes: false };
            assert_eq!(normalize(path), Ok(wanted), "{path}");
        }
        for (path, wanted) in [("/a%2Fb", "/a/b"), ("/a%5cb", "/a/b"), ("/a%2F..%2Fb", "/b"), ("/a/%2f/b", "/a/b")] {
            let wanted = Normalized { path: wanted.to_owned(), had_hidden_slashes: true };
            assert_eq!(normalize(path), Ok(wanted), "{path}");
        }
        assert_eq!(normalize("/a#b"), Err(Unusual::Fragment));
        assert_eq!(normalize("a"), Err(Unusual::Relative));
        assert_eq!(normalize("/a%00"), Err(Unusual::Zero));
    }

    #[test]
    fn a_parameter_is_decoded() {
        assert_eq!(decode("a%20b%2Fc+d%zz%4"), "a b/c+d%zz%4");
    }
}
