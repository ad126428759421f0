//! Kinds as people type them: `route`, `Routes`, `rt`.

use chancery_control_plane::model::Kind;

/// The kind that `text` means.
pub(crate) fn parse(text: &str) -> Result<Kind, String> {
    let lower = text.to_ascii_lowercase();
    let named = |kind: &Kind| {
        [kind.collection(), kind.singular(), short(*kind)].contains(&lower.as_str())
            || lower == kind.as_str().to_ascii_lowercase()
    };
    Kind::ALL.into_iter().find(named).ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| format!("{} ({})", kind.collection(), short(*kind))).collect();
        format!("there are {}", known.join(", "))
    })
}

fn short(kind: Kind) -> &'static str {
    match kind {
        Kind::Fleet => "fl",
        Kind::Listener => "ln",
        Kind::Team => "tm",
        Kind::Service => "svc",
        Kind::RateLimit => "rl",
        Kind::Route => "rt",
        Kind::EnvoyPatch => "ep",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_many_names() {
        for text in ["route", "Route", "ROUTES", "rt"] {
            assert_eq!(parse(text), Ok(Kind::Route), "{text}");
        }
        for text in ["RateLimit", "rate-limit", "rate-limits", "ratelimit", "rl"] {
            assert_eq!(parse(text), Ok(Kind::RateLimit), "{text}");
        }
        for text in ["EnvoyPatch", "envoy-patch", "envoy-patches", "envoypatch", "ep"] {
            assert_eq!(parse(text), Ok(Kind::EnvoyPatch), "{text}");
        }
        assert_eq!(parse("teams"), Ok(Kind::Team));
        assert_eq!(parse("svc"), Ok(Kind::Service));
        assert!(parse("widget").is_err() && parse("").is_err());
    }
}
