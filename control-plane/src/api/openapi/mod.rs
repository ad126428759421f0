//! The description of the API (OpenAPI 3.1), generated from the handlers, and the page that shows it.
//!
//! Errors come from one table, so no operation can forget one.

mod answers;
mod kinds;

use axum::Router;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Content, ContentBuilder, HttpMethod, InfoBuilder, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder,
        Schema,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_swagger_ui::{Config, SwaggerUi, Url};

use super::{
    Api, ProblemDetails,
    deprecation::{self, Deprecated},
    idempotency,
    problem::MEDIA_TYPE,
    router,
};
use crate::model::Problem;

pub(super) use kinds::of_kind;

/// Where the description is.
pub(super) const PATH: &str = "/api/openapi.json";

/// The description of the whole API.
pub fn document() -> OpenApi {
    described(deprecation::DEPRECATED)
}

/// The description of the whole API, if `deprecated` will go away.
pub(super) fn described(deprecated: &[Deprecated]) -> OpenApi {
    complete(router::routes().into_openapi(), deprecated)
}

/// The page at `/docs`.
pub(super) fn page() -> Router<Api> {
    SwaggerUi::new("/docs").config(Config::new([Url::from(PATH)])).into()
}

/// Adds what holds for every operation.
pub(super) fn complete(mut description: OpenApi, deprecated: &[Deprecated]) -> OpenApi {
    description.info = InfoBuilder::new()
        .title("Chancery")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(include_str!("introduction.md")))
        .build();
    let components = description.components.get_or_insert_default();
    components.schemas.insert(ProblemDetails::name().into_owned(), ProblemDetails::schema());
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    kinds::add_schemas(components);
    components.schemas.values_mut().for_each(answers::describe_tags);
    components.security_schemes.insert(
        "token".to_owned(),
        RefOr::T(SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build())),
    );
    description.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    for (path, item) in &mut description.paths.paths {
        for (method, operation) in operations(item) {
            answers::describe(operation, components);
            for (status, meaning) in errors(&method, path) {
                operation.responses.responses.insert(status.to_owned(), RefOr::T(problem(meaning)));
            }
            if idempotency::honoured(name(&method), path) {
                operation.parameters.get_or_insert_default().push(RefOr::T(idempotency_key()));
            }
            if deprecation::find(deprecated, name(&method), path).is_some() {
                operation.deprecated = Some(utoipa::openapi::Deprecated::True);
            }
        }
    }
    description
}

/// Which errors an operation may answer with, and what each means.
fn errors(method: &HttpMethod, path: &str) -> Vec<(&'static str, &'static str)> {
    let writes = !matches!(method, HttpMethod::Get);
    let bodiless = ["/revert", "/rotate", "/promote", "/return", "/release"];
    let takes_body = writes && !matches!(method, HttpMethod::Delete) && !bodiless.iter().any(|end| path.ends_with(end));
    let mut errors = vec![
        ("400", "The query, a header, the path or the body cannot be read"),
        ("401", "The bearer token is missing or not valid"),
        ("403", "The token does not allow it; the answer says which role, scope or team is missing"),
        ("429", "Too many requests; see Retry-After"),
        ("500", "The request failed inside the control plane"),
        ("503", "The request took too long, or the database is unavailable; see Retry-After"),
    ];
    let of_a_resource = [
        "}",
        "/revert",
        "/rotate",
        "/diff",
        "/blame",
        "/{name}/load",
        "/endpoints",
        "/explain",
        "/config",
        "/promote",
        "/return",
        "/traffic",
        "/sign-in",
    ];
    if of_a_resource.iter().any(|end| path.ends_with(end)) {
        errors.push(("404", "There is no such thing"));
    }
    if writes {
        errors.push(("409", "The change is based on what has changed since; the answer holds what is there"));
        errors.push(("422", "The change is wrong; every problem is listed with resource, path and reason"));
    }
    if takes_body {
        errors.push(("408", "The body did not arrive in time"));
        errors.push(("413", "The body is larger than 8 MiB"));
        errors.push(("415", "The body is of a media type that is not supported"));
    }
    errors
}

fn problem(meaning: &str) -> Response {
    let schema = RefOr::<Schema>::Ref(Ref::from_schema_name(ProblemDetails::name()));
    let content: Content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(meaning).content(MEDIA_TYPE, content).build()
}

fn idempotency_key() -> Parameter {
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("The same request under the same key is made once, and answered as it was for 24 hours"))
        .schema(Some(String::schema()))
        .build()
}

fn name(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "GET",
        HttpMethod::Put => "PUT",
        HttpMethod::Post => "POST",
        HttpMethod::Delete => "DELETE",
        HttpMethod::Patch => "PATCH",
        _ => "",
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [
        (HttpMethod::Get, get),
        (HttpMethod::Put, put),
        (HttpMethod::Post, post),
        (HttpMethod::Delete, delete),
        (HttpMethod::Patch, patch),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
}
