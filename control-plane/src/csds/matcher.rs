//! Which clients a question is about. Pure.

use chancery_proto::envoy::matcher::{NodeMatcher, StringMatcher, string_matcher::MatchPattern};

/// More cannot be meant.
const MOST: usize = 100;

/// Clients by their ids; without any matcher, all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clients(Vec<Id>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Id {
    pattern: Pattern,
    ignores_case: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
}

/// Why a question cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotUnderstood {
    #[error("node_matchers[{0}].node_metadatas: metadata of nodes is not kept")]
    Metadata(usize),
    #[error("node_matchers[{0}].node_id: only exact, prefix, suffix and contains are understood")]
    Pattern(usize),
    #[error("node_matchers: there are more than {MOST}")]
    TooMany,
}

impl Clients {
    /// The clients that one of `matchers` matches.
    pub(super) fn read(matchers: &[NodeMatcher]) -> Result<Self, NotUnderstood> {
        if matchers.len() > MOST {
            return Err(NotUnderstood::TooMany);
        }
        let ids = matchers.iter().enumerate().map(|(index, NodeMatcher { node_id, node_metadatas })| {
            if !node_metadatas.is_empty() {
                return Err(NotUnderstood::Metadata(index));
            }
            node_id.as_ref().map_or(Ok(Id { pattern: Pattern::Any, ignores_case: false }), |id| Id::read(index, id))
        });
        ids.collect::<Result<_, _>>().map(Self)
    }

    /// Whether the client called `id` is meant.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|matcher| matcher.matches(id))
    }
}

impl Id {
    fn read(index: usize, matcher: &StringMatcher) -> Result<Self, NotUnderstood> {
        let StringMatcher { ignore_case, match_pattern } = matcher;
        let fold = |text: &str| if *ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
        let pattern = match match_pattern {
            Some(MatchPattern::Exact(text)) => Pattern::Exact(fold(text)),
            Some(MatchPattern::Prefix(text)) => Pattern::Prefix(fold(text)),
            Some(MatchPattern::Suffix(text)) => Pattern::Suffix(fold(text)),
            Some(MatchPattern::Contains(text)) => Pattern::Contains(fold(text)),
            Some(MatchPattern::SafeRegex(_) | MatchPattern::Custom(_)) | None => {
                return Err(NotUnderstood::Pattern(index));
            }
        };
        Ok(Self { pattern, ignores_case: *ignore_case })
    }

    fn matches(&self, id: &str) -> bool {
        let folded = if self.ignores_case { id.to_ascii_lowercase() } else { id.to_owned() };
        match &self.pattern {
            Pattern::Any => true,
            Pattern::Exact(text) => folded == *text,
            Pattern::Prefix(text) => folded.starts_with(text),
            Pattern::Suffix(text) => folded.ends_with(text),
            Pattern::Contains(text) => folded.contains(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use chancery_proto::envoy::matcher::{RegexMatcher, StructMatcher};

    use super::*;

    fn id(pattern: MatchPattern, ignore_case: bool) -> NodeMatcher {
        let node_id = Some(StringMatcher { ignore_case, match_pattern: Some(pattern) });
        NodeMatcher { node_id, ..NodeMatcher::default() }
    }

    #[test]
    fn ids_are_matched_by_any_of_the_matchers() {
        let matched = |matchers: &[NodeMatcher]| {
            let clients = Clients::read(matchers).unwrap();
            ["edge-1", "edge-2", "core-1"].into_iter().filter(|id| clients.contains(id)).collect::<Vec<_>>()
        };
        assert_eq!(matched(&[]), ["edge-1", "edge-2", "core-1"]);
        assert_eq!(matched(&[NodeMatcher::default()]), ["edge-1", "edge-2", "core-1"]);
        assert_eq!(matched(&[id(MatchPattern::Exact("edge-1".into()), false)]), ["edge-1"]);
        assert_eq!(matched(&[id(MatchPattern::Exact("EDGE-1".into()), false)]), Vec::<&str>::new());
        assert_eq!(matched(&[id(MatchPattern::Exact("EDGE-1".into()), true)]), ["edge-1"]);
        assert_eq!(matched(&[id(MatchPattern::Prefix("edge".into()), false)]), ["edge-1", "edge-2"]);
        assert_eq!(matched(&[id(MatchPattern::Suffix("-1".into()), false)]), ["edge-1", "core-1"]);
        assert_eq!(matched(&[id(MatchPattern::Contains("re".into()), false)]), ["core-1"]);
        let both = [id(MatchPattern::Contains("re".into()), false), id(MatchPattern::Suffix("2".into()), false)];
        assert_eq!(matched(&both), ["edge-2", "core-1"]);
    }

    #[test]
    fn what_is_not_understood_is_refused_and_not_taken_for_all() {
        let metadata = NodeMatcher { node_metadatas: vec![StructMatcher::default()], ..NodeMatcher::default() };
        let regex = id(MatchPattern::SafeRegex(RegexMatcher::default()), false);
        let empty = NodeMatcher { node_id: Some(StringMatcher::default()), ..NodeMatcher::default() };
        let good = id(MatchPattern::Exact("a".into()), false);
        assert_eq!(Clients::read(&[good.clone(), metadata]), Err(NotUnderstood::Metadata(1)));
        assert_eq!(Clients::read(&[regex]), Err(NotUnderstood::Pattern(0)));
        assert_eq!(Clients::read(&[good.clone(), empty]), Err(NotUnderstood::Pattern(1)));
        assert_eq!(Clients::read(&vec![good; MOST + 1]), Err(NotUnderstood::TooMany));
    }
}
