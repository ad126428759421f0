//! Who may use a rule from pages of other origins.

use std::time::Duration;

use super::super::{host, text};
use crate::model::{
    cors::{Cors, Origin},
    problem::{Problems, Quoted},
    re2,
    route::HostPattern,
    wire::{CorsSpec, MatchSpec},
};

/// Methods of a rule for all of them.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn cors(spec: &CorsSpec, matches: Option<&MatchSpec>, problems: &mut Problems) -> Option<Cors> {
    let CorsSpec { origins, methods, headers, expose_headers, max_age, credentials } = spec;
    let origins = self::origins(origins, &mut problems.at("origins"));
    let credentials = credentials.unwrap_or(false);
    if credentials && origins.iter().flatten().any(|origin| *origin == Origin::Any) {
        problems.at("credentials").report("would let every page act as its user; it does not go with the origin *");
    }
    let own = matches.and_then(|matches| matches.methods.clone());
    let methods = match methods {
        Some(methods) => problems.at("methods").each(methods, |method, problems| problems.ok(text::method(method))),
        None => Some(own.unwrap_or_else(|| METHODS.map(str::to_owned).into())),
    };
    let mut names = |field: &str, names: &Option<Vec<String>>| {
        let names = names.as_deref().unwrap_or_default();
        problems.at(field).each(names, |name, problems| problems.ok(text::header_name(name)))
    };
    let headers = names("headers", headers);
    let expose_headers = names("exposeHeaders", expose_headers);
    let max_age = max_age.as_ref().and_then(|age| {
        let mut problems = problems.at("maxAge");
        let age = problems.ok(text::duration(age, text::DAY))?;
        if age < SECOND || age.subsec_nanos() != 0 {
            problems.report("must be whole seconds");
        }
        Some(age)
    });
    Some(Cors {
        origins: origins?,
        methods: methods?,
        headers: headers?,
        expose_headers: expose_headers?,
        max_age,
        credentials,
    })
}

fn origins(texts: &[String], problems: &mut Problems) -> Option<Vec<Origin>> {
    let origins = problems.each(texts, |text, problems| problems.ok(origin(text)))?;
    problems.each_once(&origins);
    Some(origins)
}

/// `scheme://host[:port]`, as browsers send it.
fn origin(text: &str) -> Result<Origin, String> {
    if text == "*" {
        return Ok(Origin::Any);
    }
    let is_not = |why: &str| format!("{} is not an origin: {why}", Quoted(text));
    let (scheme, rest) = text.split_once("://").ok_or_else(|| is_not("it is of the form https://shop.example.com"))?;
    let usual = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return Err(is_not("its scheme must be http or https")),
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let port = match port.map(str::parse::<u16>) {
        None => String::new(),
        Some(Ok(port)) if port == usual => return Err(is_not("leave out the usual port of the scheme")),
        Some(Ok(port)) if port > 0 => format!(":{port}"),
        Some(_) => return Err(is_not("its port must be between 1 and 65535")),
    };
    match host::pattern(host)? {
        HostPattern::Any => Err(is_not("write * alone for every origin")),
        HostPattern::Exact(host) => Ok(Origin::Exact(format!("{scheme}://{host}{port}"))),
        HostPattern::Suffix(domain) => {
            // A label has no slash and no colon, so neither a path nor a port can play the host.
            let pattern = format!("{scheme}://[^/:]+\\.{}{port}", regex_syntax::escape(&domain));
            re2::check(&pattern).map_err(|error| error.to_string())?;
            Ok(Origin::Pattern(pattern))
        }
    }
}
