//! The schemas of documents, as an editor fetches them.

use axum::http::Method;

use super::fixture::Fixture;
use crate::{api::schemas::text, model::Kind};

#[tokio::test]
async fn an_editor_reads_schemas_without_a_token() {
    let api = Fixture::start().await;
    let index = api.bare(Method::GET, "/api/schemas", &[], "").await;
    assert_eq!(index.status, 200, "{}", index.text);
    let listed = index.body["items"].as_array().unwrap();
    assert_eq!(listed.len(), Kind::ALL.len());
    let of_kinds = listed.iter().map(|item| (item["kind"].as_str().unwrap().parse().ok(), &item["schema"]));
    for (kind, path) in of_kinds.chain([(None, &index.body["all"])]) {
        let path = path.as_str().unwrap();
        let file = api.bare(Method::GET, path, &[], "").await;
        assert_eq!((file.status.as_u16(), file.header("content-type")), (200, "application/schema+json"), "{path}");
        assert_eq!(file.text, text(kind), "{path}");
        assert_eq!(file.body["$id"].as_str().unwrap().rsplit('/').next(), path.rsplit('/').next());
    }
}

#[tokio::test]
async fn a_schema_that_a_reader_has_is_not_sent_again() {
    let api = Fixture::start().await;
    let path = "/api/schemas/Route.json";
    let tag = api.bare(Method::GET, path, &[], "").await.header("etag").to_owned();
    assert_ne!(tag, api.bare(Method::GET, "/api/schemas/all.json", &[], "").await.header("etag"));
    for (had, status) in
        [(tag.clone(), 304), (format!("W/{tag}"), 304), (format!("\"a\", {tag}"), 304), ("\"a\"".to_owned(), 200)]
    {
        let answer = api.bare(Method::GET, path, &[("if-none-match", &had)], "").await;
        assert_eq!((answer.status.as_u16(), answer.header("etag")), (status, tag.as_str()), "{had}");
        assert_eq!(answer.header("cache-control"), "public, max-age=300");
        assert_eq!(answer.text.is_empty(), status == 304);
    }
}

#[tokio::test]
async fn nothing_else_is_open_beside_the_schemas() {
    let api = Fixture::start().await;
    api.bare(Method::GET, "/api/schemas/Moon.json", &[], "").await.problem(404, "not-found");
    api.bare(Method::POST, "/api/schemas/all.json", &[], "").await.problem(405, "method-not-allowed");
    for path in ["/api/schemas-of-others", "/api/v1/routes"] {
        api.bare(Method::GET, path, &[], "").await.problem(401, "unauthorized");
    }
}
