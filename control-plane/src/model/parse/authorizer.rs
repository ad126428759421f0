//! Who is asked whether requests may pass, and what rules say to that.

use std::time::Duration;

use chancery_proto::envoy::types::StatusCode;

use super::{document::check_labels, path, text};
use crate::model::{
    authorizer::{Authorizer, AuthorizerProtocol, RuleAuthorization, ToldBody},
    fleet::OnFailure,
    problem::Problems,
    wire::{
        AuthorizationBodySpec, AuthorizationHeadersSpec, AuthorizerProtocolSpec, ExternalAuthorizationSpec,
        OnFailureSpec, RuleAuthorizationSpec,
    },
};

const TIMEOUT: Duration = Duration::from_secs(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// What somebody is told who nobody has vouched for.
const FORBIDDEN: u16 = 403;

pub(super) fn authorizer(spec: &ExternalAuthorizationSpec, problems: &mut Problems) -> Option<Authorizer> {
    let ExternalAuthorizationSpec {
        service,
        protocol,
        path_prefix,
        timeout,
        on_failure,
        status_on_error,
        body,
        headers,
    } = spec;
    let service = problems.at("service").ok(text::name(service));
    let on_failure = match on_failure {
        None | Some(OnFailureSpec::Deny) => OnFailure::Deny,
        Some(OnFailureSpec::Allow) => OnFailure::Allow,
    };
    if let Some(status) = status_on_error {
        let mut problems = problems.at("statusOnError");
        if on_failure == OnFailure::Allow {
            problems.report("does not go with onFailure: allow");
        }
        if StatusCode::try_from(i32::from(*status)).is_err() {
            problems.report(format!("{status} is not a status that Envoy answers with"));
        }
    }
    let timeout =
        text::optional_duration(timeout.as_ref(), MAX_TIMEOUT, &mut problems.at("timeout")).unwrap_or(TIMEOUT);
    let path_prefix = path_prefix.as_ref().map(|path| problems.at("pathPrefix").ok(path::plain(path)));
    let body = body.as_ref().map(|body| told_body(body, &mut problems.at("body")));
    let AuthorizationHeadersSpec { to_authorizer, to_service, to_client } = headers.clone().unwrap_or_default();
    let mut named = |field: &str, names: &Option<Vec<String>>| {
        let names = names.as_ref()?;
        let mut problems = problems.at("headers");
        Some(text::distinct(names, &mut problems.at(field), text::header_name))
    };
    let names = [named("toAuthorizer", &to_authorizer), named("toService", &to_service), named("toClient", &to_client)];
    let [headers, to_service, to_client] = names;
    let protocol = match protocol {
        None | Some(AuthorizerProtocolSpec::Grpc) => {
            if path_prefix.is_some() {
                problems.at("pathPrefix").report(HTTP_ONLY);
            }
            for (field, given) in [("toService", to_service.is_some()), ("toClient", to_client.is_some())] {
                if given {
                    problems.at("headers").at(field).report(HTTP_ONLY);
                }
            }
            AuthorizerProtocol::Grpc
        }
        Some(AuthorizerProtocolSpec::Http) => AuthorizerProtocol::Http {
            path_prefix: path_prefix.flatten().unwrap_or_default(),
            to_service: to_service.flatten().unwrap_or_default(),
            to_client: to_client.flatten(),
        },
    };
    Some(Authorizer {
        service: service?,
        protocol,
        timeout,
        on_failure,
        status_on_error: status_on_error.unwrap_or(FORBIDDEN),
        body: body.flatten(),
        headers: headers.flatten(),
    })
}

/// What is said of what an authorizer over gRPC decides by itself.
const HTTP_ONLY: &str = "goes with protocol http only";

fn told_body(spec: &AuthorizationBodySpec, problems: &mut Problems) -> Option<ToldBody> {
    let AuthorizationBodySpec { max_size, partial } = spec;
    let partial = partial.unwrap_or(false);
    // Only a body that is told whole makes Envoy keep more of it than its buffers hold.
    let most = if partial { "32KiB" } else { "1MiB" };
    let max_size = problems.at("maxSize").ok(text::size(max_size, "1B", most))?;
    Some(ToldBody { max_size, partial })
}

/// What a rule says to whoever is asked.
pub(super) fn of_rule(spec: &RuleAuthorizationSpec, problems: &mut Problems) -> Option<RuleAuthorization> {
    let RuleAuthorizationSpec { off, context } = spec;
    let mut given = Vec::new();
    if let Some(off) = off {
        given.push(text::only_true(*off, &mut problems.at("off")).map(|()| RuleAuthorization::Off));
    }
    if let Some(context) = context {
        let mut problems = problems.at("context");
        if context.is_empty() {
            problems.report("must not be empty");
        }
        check_labels(context, &mut problems);
        given.push(Some(RuleAuthorization::Context(context.clone())));
    }
    problems.only_one(given, "off and context")
}
