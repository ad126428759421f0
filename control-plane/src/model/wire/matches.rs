//! Which requests a rule is for, as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

/// Which requests a rule is for: all parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MatchSpec {
    /// A condition on the path; every path if it is not given.
    pub path: Option<PathMatchSpec>,
    /// The methods, in upper case; every method if it is not given.
    #[schema(min_items = 1, max_items = 20, examples(json!(["GET", "POST"])))]
    pub methods: Option<Vec<String>>,
    /// Conditions on headers.
    #[schema(max_items = 30)]
    pub headers: Option<Vec<HeaderMatchSpec>>,
    /// Conditions on query parameters.
    #[schema(max_items = 30)]
    pub query: Option<Vec<QueryMatchSpec>>,
    /// Conditions on cookies.
    #[schema(max_items = 30)]
    pub cookies: Option<Vec<CookieMatchSpec>>,
    /// Only calls of gRPC, and which; not with `path`.
    pub grpc: Option<GrpcMatchSpec>,
    /// `true`: only CONNECT, which asks for a tunnel and has no path; no other rule is for it. Not with `path`, `grpc`, `methods` and
    /// `query`. What becomes of the tunnel, `connect` of the rule says.
    pub connect: Option<bool>,
}

/// A condition on the path, without the query: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathMatchSpec {
    /// The whole path.
    #[schema(examples("/cart"))]
    pub exact: Option<String>,
    /// The start of the path: `/api` is for `/apix` too.
    #[schema(examples("/api"))]
    pub prefix: Option<String>,
    /// A path, and all below it: `/api` is for `/api` and `/api/x`, not for `/apix`. Without a slash at its end.
    #[schema(examples("/api"))]
    pub path_prefix: Option<String>,
    /// A regular expression (RE2) for the whole path.
    #[schema(examples("/v[0-9]+/ping"))]
    pub regex: Option<String>,
    /// The whole path, with a variable in the place of a segment (`{id}`), or at the end of all that is left (`{rest=**}`); at
    /// most 5.
    #[schema(examples("/users/{id}/posts/{post}"))]
    pub template: Option<String>,
}

/// A condition on a header: exactly one of `exact`, `prefix`, `suffix`, `contains`, `regex` and `present`.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderMatchSpec {
    /// The name of the header.
    #[schema(examples("x-beta"))]
    pub name: String,
    /// The whole value.
    pub exact: Option<String>,
    /// The start of the value.
    pub prefix: Option<String>,
    /// The end of the value.
    pub suffix: Option<String>,
    /// A part of the value.
    pub contains: Option<String>,
    /// A regular expression (RE2) for the whole value.
    pub regex: Option<String>,
    /// `true`: it is there, with any value.
    pub present: Option<bool>,
    /// Whether the condition must not hold.
    #[schema(default = false)]
    pub invert: Option<bool>,
}

/// A condition on a query parameter: exactly one of `exact`, `prefix`, `suffix`, `contains`, `regex` and `present`.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueryMatchSpec {
    /// The name of the parameter.
    #[schema(examples("version"))]
    pub name: String,
    /// The whole value.
    pub exact: Option<String>,
    /// The start of the value.
    pub prefix: Option<String>,
    /// The end of the value.
    pub suffix: Option<String>,
    /// A part of the value.
    pub contains: Option<String>,
    /// A regular expression (RE2) for the whole value.
    pub regex: Option<String>,
    /// `true`: it is there, with any value.
    pub present: Option<bool>,
}

/// A condition on a cookie: exactly one of `exact`, `prefix`, `suffix`, `contains`, `regex` and `present`.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CookieMatchSpec {
    /// The name of the cookie.
    #[schema(examples("session"))]
    pub name: String,
    /// The whole value.
    pub exact: Option<String>,
    /// The start of the value.
    pub prefix: Option<String>,
    /// The end of the value.
    pub suffix: Option<String>,
    /// A part of the value.
    pub contains: Option<String>,
    /// A regular expression (RE2) for the whole value.
    pub regex: Option<String>,
    /// `true`: it is there, with any value.
    pub present: Option<bool>,
    /// Whether the condition must not hold.
    #[schema(default = false)]
    pub invert: Option<bool>,
}

/// Calls of gRPC, by their content type: those of a method, of a service, or all.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatchSpec {
    /// The service with its package; every service if it is not given.
    #[schema(examples("shop.v1.Checkout"))]
    pub service: Option<String>,
    /// The method; only with `service`; every method of it if it is not given.
    #[schema(examples("Place"))]
    pub method: Option<String>,
}
