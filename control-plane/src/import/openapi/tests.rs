use serde_json::json;

use super::*;
use crate::import::tests::{catalog, documents, survives, told, unmatched};

fn options() -> Options {
    Options { listener: "edge/web".into(), service: None, team: None, server: 0, host: None, endpoint: None }
}

/// With what routes refer to.
fn checked(import: &Import) {
    let fleet = json!({ "kind": "Fleet", "name": "edge", "spec": {} });
    let listener =
        json!({ "kind": "Listener", "name": "web", "spec": { "fleet": "edge", "port": 80, "protocol": "http" } });
    catalog(&[vec![fleet, listener], import.resources.clone()].concat());
}

fn described(servers: &Value, paths: &Value) -> Value {
    json!({ "openapi": "3.0.3", "info": { "title": "x", "version": "1" }, "servers": servers, "paths": paths })
}

#[test]
fn a_library() {
    let import = import(&documents(include_str!("library.yaml")), &options());
    insta::assert_snapshot!(told(&import));
    checked(&import);
}

#[test]
fn paths_without_variables_win_then_text_over_variables() {
    let operation = json!({ "get": {} });
    let paths: Value = ["/{a}/b", "/a/{b}/c", "/a/b", "/{a}/{b}", "/a/{b}", "/{a}", "/z", "/a.{b}", "/a/b/{c}"]
        .into_iter()
        .map(|path| (path.to_owned(), operation.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let import = import(&[described(&json!([{ "url": "http://x.com" }]), &paths)], &options());
    let rules = import.resources[1]["spec"]["rules"].as_array().unwrap();
    let order: Vec<&str> = rules
        .iter()
        .map(|rule| rule["match"]["path"].as_object().unwrap().values().next().unwrap().as_str().unwrap())
        .collect();
    assert_eq!(order, ["/a/b", "/z", "/a/b/{c}", "/a/{b}", "/a/{b}/c", "/a\\.[^/]+", "/{a}", "/{a}/b", "/{a}/{b}"]);
    checked(&import);
}

#[test]
fn a_server_is_a_host_and_an_endpoint() {
    let paths = json!({ "/a": { "get": {} } });
    let made = |url: &str, options: &Options| {
        let import = import(&[described(&json!([{ "url": url }]), &paths)], options);
        checked(&import);
        let [service, route] = import.resources.as_slice() else { return unmatched(&import) };
        let (endpoint, route) = (&service["spec"]["endpoints"][0], &route["spec"]);
        let tls = if service["spec"]["tls"].is_null() { "" } else { " tls" };
        let path = route["rules"][0]["match"]["path"]["exact"].as_str().unwrap();
        format!("{} {path} -> {}:{}{tls}", route["hosts"][0], endpoint["address"], endpoint["port"])
    };
    for (url, wanted) in [
        ("https://a.com", r#""a.com" /a -> "a.com":443 tls"#),
        ("http://a.com:8080/v1/", r#""a.com" /v1/a -> "a.com":8080"#),
        ("http://10.0.0.1/x?y=z", r#""10.0.0.1" /x/a -> "10.0.0.1":80"#),
        ("http://[2001:db8::1]:81", r#""[2001:db8::1]" /a -> "2001:db8::1":81"#),
    ] {
        assert_eq!(made(url, &options()), wanted, "{url}");
    }
    for (url, why) in [
        ("/v1", "say it by --host and --endpoint"),
        ("ftp://a.com", "is not called over HTTP"),
        ("http://a.com:0", "say it by --host"),
        ("https://10.0.0.1", "makes a Service that is refused"),
        ("http://a b", "makes a Service that is refused"),
    ] {
        assert!(made(url, &options()).contains(why), "{url}: {}", made(url, &options()));
    }
    let elsewhere = Options { host: Some("b.com".into()), endpoint: Some("books.internal:8080".into()), ..options() };
    for url in ["/v1", "https://a.com/v1"] {
        assert_eq!(made(url, &elsewhere), r#""b.com" /v1/a -> "books.internal":8080"#, "{url}");
    }
}

#[test]
fn many_paths_are_several_routes() {
    let paths = (0..1100).map(|path| (format!("/p{path}"), json!({ "get": {} })));
    let paths: Value = paths.collect::<serde_json::Map<_, _>>().into();
    let import = import(&[described(&json!([{ "url": "http://x.com" }]), &paths)], &options());
    let names: Vec<&str> = import.resources.iter().map(|resource| resource["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["x", "x", "x-2", "x-3"]);
    checked(&import);
}

#[test]
fn other_versions_are_not_guessed_at() {
    for text in ["swagger: '2.0'", "openapi: 4.0.0", "openapi: 3.10.0", "kind: Route", "7", "[]"] {
        let import = import(&documents(text), &options());
        assert_eq!((import.resources.len(), import.unmatched.len()), (0, 1), "{text}");
    }
}

#[test]
fn anything_may_stand_anywhere() {
    survives(&documents(include_str!("library.yaml")), |documents| import(documents, &options()));
}
