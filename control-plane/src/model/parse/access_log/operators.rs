//! Which command operators a format may have.
//!
//! Envoy drains a listener for a log, so one that it refuses must not get so far. What reads files, secrets or variables of the
//! machine (`%ENVIRONMENT(…)%` and the like) is left out.

use super::text;
use crate::model::problem::Quoted;

/// The longest format.
const MAX_FORMAT: usize = 4096;

/// The longest argument.
const MAX_ARGUMENT: usize = 256;

/// What stands between the brackets behind a name.
#[derive(Clone, Copy)]
enum Argument {
    /// No brackets.
    None,
    /// How a time is written, or no brackets.
    Time,
    /// A header and perhaps another in its place, `X-ENVOY-ORIGINAL-PATH?:PATH`; and behind them how much of it, `:12`.
    Header,
    /// Which path, and with the query or without, or no brackets; and how much of it.
    Path,
    /// A parameter of the query; and how much of it.
    Parameter,
    /// Where in the metadata; and how much of it.
    Metadata,
    /// No brackets; how much of it.
    Length,
}

use Argument::{Header, Length, Metadata, None as Nothing, Parameter, Path, Time};

/// Every operator that may be used, as of Envoy 1.40.
const OPERATORS: &[(&str, Argument)] = &[
    ("ACCESS_LOG_TYPE", Nothing),
    ("BYTES_RECEIVED", Nothing),
    ("BYTES_SENT", Nothing),
    ("CONNECTION_ID", Nothing),
    ("CONNECTION_TERMINATION_DETAILS", Nothing),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", Nothing),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Nothing),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Nothing),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", Nothing),
    ("DOWNSTREAM_HANDSHAKE_DURATION", Nothing),
    ("DOWNSTREAM_HEADER_BYTES_RECEIVED", Nothing),
    ("DOWNSTREAM_HEADER_BYTES_SENT", Nothing),
    ("DOWNSTREAM_LOCAL_ADDRESS", Nothing),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Nothing),
    ("DOWNSTREAM_LOCAL_DNS_SAN", Nothing),
    ("DOWNSTREAM_LOCAL_PORT", Nothing),
    ("DOWNSTREAM_LOCAL_SUBJECT", Nothing),
    ("DOWNSTREAM_LOCAL_URI_SAN", Nothing),
    ("DOWNSTREAM_PEER_CERT", Nothing),
    ("DOWNSTREAM_PEER_CERT_V_END", Time),
    ("DOWNSTREAM_PEER_CERT_V_START", Time),
    ("DOWNSTREAM_PEER_DNS_SAN", Nothing),
    ("DOWNSTREAM_PEER_EMAIL_SAN", Nothing),
    ("DOWNSTREAM_PEER_FINGERPRINT_1", Nothing),
    ("DOWNSTREAM_PEER_FINGERPRINT_256", Nothing),
    ("DOWNSTREAM_PEER_IP_SAN", Nothing),
    ("DOWNSTREAM_PEER_ISSUER", Nothing),
    ("DOWNSTREAM_PEER_SERIAL", Nothing),
    ("DOWNSTREAM_PEER_SUBJECT", Nothing),
    ("DOWNSTREAM_PEER_URI_SAN", Nothing),
    ("DOWNSTREAM_REMOTE_ADDRESS", Nothing),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Nothing),
    ("DOWNSTREAM_REMOTE_PORT", Nothing),
    ("DOWNSTREAM_TLS_CIPHER", Nothing),
    ("DOWNSTREAM_TLS_SESSION_ID", Nothing),
    ("DOWNSTREAM_TLS_VERSION", Nothing),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", Nothing),
    ("DOWNSTREAM_WIRE_BYTES_RECEIVED", Nothing),
    ("DOWNSTREAM_WIRE_BYTES_SENT", Nothing),
    ("DURATION", Nothing),
    ("DYNAMIC_METADATA", Metadata),
    ("EMIT_TIME", Time),
    ("EMIT_TIME_LOCAL", Time),
    ("FILTER_CHAIN_NAME", Nothing),
    ("GRPC_STATUS", Nothing),
    ("GRPC_STATUS_NUMBER", Nothing),
    ("HOSTNAME", Nothing),
    ("LOCAL_REPLY_BODY", Nothing),
    ("PATH", Path),
    ("PROTOCOL", Nothing),
    ("QUERY_PARAM", Parameter),
    ("QUERY_PARAMS", Length),
    ("REQ", Header),
    ("REQUESTED_SERVER_NAME", Nothing),
    ("REQUEST_DURATION", Nothing),
    ("REQUEST_HEADER", Header),
    ("REQUEST_HEADERS_BYTES", Nothing),
    ("REQUEST_TX_DURATION", Nothing),
    ("RESP", Header),
    ("RESPONSE_CODE", Nothing),
    ("RESPONSE_CODE_DETAILS", Nothing),
    ("RESPONSE_DURATION", Nothing),
    ("RESPONSE_FLAGS", Nothing),
    ("RESPONSE_FLAGS_LONG", Nothing),
    ("RESPONSE_HEADER", Header),
    ("RESPONSE_HEADERS_BYTES", Nothing),
    ("RESPONSE_TRAILER", Header),
    ("RESPONSE_TRAILERS_BYTES", Nothing),
    ("RESPONSE_TX_DURATION", Nothing),
    ("ROUNDTRIP_DURATION", Nothing),
    ("ROUTE_NAME", Nothing),
    ("SPAN_ID", Nothing),
    ("START_TIME", Time),
    ("START_TIME_LOCAL", Time),
    ("STREAM_ID", Nothing),
    ("TLS_JA3_FINGERPRINT", Nothing),
    ("TLS_JA4_FINGERPRINT", Nothing),
    ("TRACE_ID", Nothing),
    ("TRAILER", Header),
    ("UNIQUE_ID", Nothing),
    ("UPSTREAM_CLUSTER", Nothing),
    ("UPSTREAM_CONNECTION_ID", Nothing),
    ("UPSTREAM_HEADER_BYTES_RECEIVED", Nothing),
    ("UPSTREAM_HEADER_BYTES_SENT", Nothing),
    ("UPSTREAM_HOST", Nothing),
    ("UPSTREAM_HOST_NAME", Nothing),
    ("UPSTREAM_LOCAL_ADDRESS", Nothing),
    ("UPSTREAM_LOCAL_PORT", Nothing),
    ("UPSTREAM_PEER_ISSUER", Nothing),
    ("UPSTREAM_PEER_SUBJECT", Nothing),
    ("UPSTREAM_PEER_URI_SAN", Nothing),
    ("UPSTREAM_PROTOCOL", Nothing),
    ("UPSTREAM_REMOTE_ADDRESS", Nothing),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Nothing),
    ("UPSTREAM_REMOTE_PORT", Nothing),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Nothing),
    ("UPSTREAM_TLS_CIPHER", Nothing),
    ("UPSTREAM_TLS_SESSION_ID", Nothing),
    ("UPSTREAM_TLS_VERSION", Nothing),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Nothing),
    ("UPSTREAM_WIRE_BYTES_RECEIVED", Nothing),
    ("UPSTREAM_WIRE_BYTES_SENT", Nothing),
    ("VIRTUAL_CLUSTER_NAME", Nothing),
];

/// Every operator as it may be used, with all that may stand in it.
pub fn examples() -> impl Iterator<Item = String> {
    OPERATORS.iter().map(|(name, takes)| match takes {
        Nothing => format!("%{name}%"),
        Time => format!("%{name}(%Y-%m-%dT%H:%M:%S.%3fZ)%"),
        Header => format!("%{name}(X-A?:PATH):8%"),
        Path => format!("%{name}(NQ:ORIG_OR_PATH):8%"),
        Parameter => format!("%{name}(version):8%"),
        Metadata => format!("%{name}(space:key):8%"),
        Length => format!("%{name}:8%"),
    })
}

/// Whether Envoy takes `format`.
///
/// # Errors
/// What is wrong first, and at which character.
pub(super) fn check(format: &str) -> Result<(), String> {
    if format.is_empty() || format.len() > MAX_FORMAT || format.contains(char::is_control) {
        return Err(format!("must have 1 to {MAX_FORMAT} bytes and no control characters"));
    }
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        let from = &rest[start..];
        rest = match from.strip_prefix("%%") {
            Some(rest) => rest,
            None => operator(from).map_err(|reason| {
                let character = format[..format.len() - from.len()].chars().count() + 1;
                format!("{reason} (at character {character})")
            })?,
        };
    }
    Ok(())
}

/// What stands behind the operator that `text` begins with.
fn operator(text: &str) -> Result<&str, String> {
    let shape = || format!("{} begins no operator such as %DURATION%; a percent sign is written %%", Quoted(text));
    let inner = &text[1..];
    let is_name = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_';
    let (name, rest) = inner.split_at(inner.bytes().take_while(is_name).count());
    let (argument, rest) = match rest.strip_prefix('(') {
        Some(open) => open.split_once(')').map(|(argument, rest)| (Some(argument), rest)).ok_or_else(shape)?,
        None => (None, rest),
    };
    let (length, rest) = match rest.strip_prefix(':') {
        Some(open) => {
            let (digits, rest) = open.split_at(open.bytes().take_while(u8::is_ascii_digit).count());
            (Some(digits), rest)
        }
        None => (None, rest),
    };
    let rest = rest.strip_prefix('%').filter(|_| !name.is_empty()).ok_or_else(shape)?;
    let known = OPERATORS.iter().find(|(known, _)| *known == name);
    let (_, takes) = known.ok_or_else(|| format!("%{name}% is not one of Envoy's operators that may be used"))?;
    let has_length = matches!(takes, Header | Path | Parameter | Metadata | Length);
    match length {
        Some(_) if !has_length => return Err(format!("%{name}% is not cut to a length")),
        Some(digits) if !digits.parse::<u32>().is_ok_and(|length| (1..=65_536).contains(&length)) => {
            return Err(format!("%{name}% is cut to 1 to 65536 characters, not {}", Quoted(digits)));
        }
        _ => {}
    }
    check_argument(name, *takes, argument)?;
    Ok(rest)
}

fn check_argument(name: &str, takes: Argument, argument: Option<&str>) -> Result<(), String> {
    let Some(argument) = argument else {
        return match takes {
            Header => Err(format!("%{name}% needs a header, %{name}(USER-AGENT)%")),
            Parameter => Err(format!("%{name}% needs a parameter, %{name}(version)%")),
            Metadata => Err(format!("%{name}% needs a place, %{name}(NAMESPACE:KEY)%")),
            Nothing | Time | Path | Length => Ok(()),
        };
    };
    if argument.is_empty() || argument.len() > MAX_ARGUMENT {
        return Err(format!("%{name}% needs something of at most {MAX_ARGUMENT} bytes in its brackets, or none"));
    }
    match takes {
        Nothing | Length => Err(format!("%{name}% takes nothing in brackets")),
        Time if has_newline(argument) => Err(format!("%{name}% would break the line; leave out %n")),
        Time | Metadata => Ok(()),
        Header => {
            let (first, other) =
                argument.split_once('?').map_or((argument, None), |(first, other)| (first, Some(other)));
            for header in [Some(first), other].into_iter().flatten() {
                text::header_name(header.strip_prefix(':').unwrap_or(header))?;
            }
            Ok(())
        }
        Path => {
            let (query, which) = argument.split_once(':').unwrap_or((argument, "PATH"));
            let is_known = ["WQ", "NQ"].contains(&query) && ["PATH", "ORIG", "ORIG_OR_PATH"].contains(&which);
            let expected = "WQ or NQ, and perhaps :ORIG, :PATH or :ORIG_OR_PATH";
            if is_known { Ok(()) } else { Err(format!("%{name}% takes {expected}, not {}", Quoted(argument))) }
        }
        Parameter => text::parameter_name(argument).map(drop),
    }
}

/// Whether a format of times, as that of strftime, has the directive for a line break, with whatever flags and width.
fn has_newline(format: &str) -> bool {
    let directives = format.split('%').skip(1);
    directives
        .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || "_-0^#:EO+".contains(c)))
        .any(|rest| rest.starts_with('n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::access_log::Format;

    #[test]
    fn what_envoy_takes() {
        for format in [
            Format::DEFAULT,
            "plain, 100%%",
            "%%%PROTOCOL%%%",
            "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH):20% %TRAILER(grpc-status)%",
            "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%|%START_TIME%",
            "%PATH% %PATH(NQ)% %PATH(WQ:ORIG):5% %QUERY_PARAM(a)% %QUERY_PARAMS:7%",
        ] {
            assert_eq!(check(format), Ok(()), "{format}");
        }
    }

    #[test]
    fn every_operator_can_be_used() {
        assert!(examples().all(|example| check(&example) == Ok(())));
        assert!(OPERATORS.is_sorted_by(|(a, _), (b, _)| a < b), "sorted, each once");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (format, expected) in [
            ("", "must have 1 to 4096 bytes"),
            ("a\nb", "no control characters"),
            ("50%", "\"%\" begins no operator such as %DURATION%; a percent sign is written %% (at character 3)"),
            ("ü %DURATION", "begins no operator such as %DURATION%; a percent sign is written %% (at character 3)"),
            ("%REQ(a%", "begins no operator"),
            ("%duration%", "begins no operator"),
            ("%PROTOCOL%%", "(at character 11)"),
            ("%NONSENSE%", "%NONSENSE% is not one of Envoy's operators that may be used (at character 1)"),
            ("%ENVIRONMENT(HOME)%", "is not one of"),
            ("%REQ%", "%REQ% needs a header, %REQ(USER-AGENT)% (at character 1)"),
            ("%REQ()%", "needs something"),
            ("%REQ(a b)%", "is not the name of a header"),
            ("%REQ(a?b?c)%", "is not the name of a header"),
            ("%REQ(a):0%", "is cut to 1 to 65536 characters, not \"0\""),
            ("%REQ(a):99999999999%", "is cut to"),
            ("%REQ(a):%", "is cut to"),
            ("%DURATION:5%", "%DURATION% is not cut to a length"),
            ("%DURATION(a)%", "%DURATION% takes nothing in brackets"),
            ("%PATH(QQ)%", "takes WQ or NQ"),
            ("%QUERY_PARAM(a=b)%", "is not the name of a parameter"),
            ("%DYNAMIC_METADATA%", "needs a place"),
            ("%START_TIME(%n)%", "%START_TIME% would break the line; leave out %n"),
            ("%DOWNSTREAM_PEER_CERT_V_START(%Y%_2n)%", "would break the line"),
        ] {
            let said = check(format).expect_err(format);
            assert!(said.contains(expected), "{format}: {said}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(format in "[%A-Z_():?ü0-9]{0,40}") {
            let _ = check(&format);
        }
    }
}
