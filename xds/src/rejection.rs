//! What a client says when it rejects a response, and which resources it means. Pure.
//!
//! The words are the client's, so they are cut before anything else is done with them: they are kept, logged and
//! searched for every name in the response. Envoy's stand for themselves: `Error adding/updating cluster(s) shop: …`.
//! A name counts only where it cannot be prose: a resource may be called `error`.

/// How many bytes of a rejection are kept.
pub(crate) const MOST_WORDS: usize = 4096;

/// `words`, cut to what is kept.
pub(crate) fn cut(mut words: String) -> String {
    words.truncate(words.floor_char_boundary(MOST_WORDS));
    words.shrink_to_fit();
    words
}

/// Whether all that the client said is there.
pub(crate) fn is_whole(words: &str) -> bool {
    // A cut may have gone back to the start of a character.
    words.len() + char::MAX.len_utf8() <= MOST_WORDS
}

/// Whether `words` are about the resource called `name`: it stands there in quotes, or not as a part of a longer name
/// and, if it could be a word, at the head of an item of a list, followed by a colon.
pub(crate) fn mentions(words: &str, name: &str) -> bool {
    let is_word = name.chars().all(char::is_alphabetic);
    !name.is_empty()
        && words.match_indices(name).any(|(at, _)| {
            let (before, after) = (&words[..at], &words[at + name.len()..]);
            let quoted = before.chars().next_back().filter(|c| "'\"`".contains(*c));
            let heads =
                || after.starts_with(':') && (before.is_empty() || [") ", ", "].iter().any(|s| before.ends_with(s)));
            match quoted {
                Some(quote) => after.starts_with(quote),
                None if is_word => heads(),
                None => !before.ends_with(in_name) && !goes_on(after),
            }
        })
}

/// Whether a name goes on with `after`. A full stop ends a sentence, or stands in a name.
fn goes_on(after: &str) -> bool {
    let mut rest = after.chars();
    match rest.next() {
        Some('.') => rest.next().is_some_and(in_name),
        next => next.is_some_and(in_name),
    }
}

fn in_name(c: char) -> bool {
    c.is_alphanumeric() || "-_./".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_where_it_cannot_be_a_part_of_another_or_a_word() {
        for (words, name) in [
            ("Error adding/updating listener(s) web-2: bad port", "web-2"),
            ("Error adding/updating cluster(s) shop: bad, cart: error, worse", "shop"),
            ("Error adding/updating cluster(s) shop: bad, cart: error, worse", "cart"),
            ("shop: bad", "shop"),
            ("unknown cluster 'error'", "error"),
            ("two of \"a b\" are one too many", "a b"),
            ("it is web-2.", "web-2"),
            ("(edge/web)", "edge/web"),
        ] {
            assert!(mentions(words, name), "{name:?} in {words:?}");
        }
        for (words, name) in [
            ("Error adding/updating cluster(s) web-2: parse error: bad", "error"),
            ("error", "error"),
            ("an error: bad", "error"),
            ("Error adding/updating listener(s) web-2: bad port", "web"),
            ("web-2.example.com: bad", "web-2"),
            ("edge/web-2: bad", "web-2"),
            ("'shop-2'", "shop"),
            ("anything", ""),
        ] {
            assert!(!mentions(words, name), "{name:?} in {words:?}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_stays_text() {
        for unit in ["x", "ü", "語", "🦀"] {
            let long = format!("-{}", unit.repeat(MOST_WORDS));
            let kept = cut(long.clone());
            assert!(kept.len() <= MOST_WORDS && kept.len() > MOST_WORDS - 4 && long.starts_with(&kept));
            assert!(!is_whole(&kept));
        }
        assert!(is_whole(&cut("bad".into())));
    }
}
