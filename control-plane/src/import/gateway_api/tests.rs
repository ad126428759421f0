//! The Gateway API, imported.

use serde_json::json;

use super::*;
use crate::import::tests::{catalog, documents, survives, told, unmatched};

fn import_yaml(yaml: &str) -> Import {
    import(&documents(yaml), &Options::default())
}

/// A Gateway `edge` with one listener, and routes in front of it.
fn behind_edge(listener: &str, routes: &[(&str, &str, &str)]) -> Import {
    let mut yaml = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{ name: edge }}\nspec: {{ listeners: [{listener}] }}\n"
    );
    for (metadata, hostnames, rules) in routes {
        yaml += &format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ {metadata} }}\n\
             spec: {{ parentRefs: [{{ name: edge }}], hostnames: [{hostnames}], rules: [{rules}] }}\n"
        );
    }
    import_yaml(&yaml)
}

const HTTP: &str = "{ name: web, port: 80, protocol: HTTP }";

fn routes(import: &Import) -> Vec<&Value> {
    import.resources.iter().filter(|resource| resource["kind"] == "Route").collect()
}

/// Host by host, where its rules send to, or what they answer.
fn outcome(import: &Import) -> Vec<String> {
    let outcome = |route: &&Value| {
        let rules = route["spec"]["rules"].as_array().unwrap().iter().map(|rule| {
            let to = rule["to"][0]["service"].as_str().unwrap_or("500");
            let path = rule["match"]["path"].as_object().unwrap();
            let (of, path) = path.iter().next().unwrap();
            format!("{}{}>{to}", &of[..1], path.as_str().unwrap())
        });
        format!("{} {}", route["spec"]["hosts"], rules.collect::<Vec<_>>().join(" "))
    };
    routes(import).iter().map(outcome).collect()
}

#[test]
fn a_shop() {
    let import = import_yaml(include_str!("shop.yaml"));
    insta::assert_snapshot!(told(&import));
    catalog(&import.resources);
}

#[test]
fn rules_of_all_routes_of_a_host_stand_in_the_order_of_the_gateway_api() {
    let to = |path: &str, to: &str| format!("{{ matches: [{path}], backendRefs: [{{ name: {to}, port: 1 }}] }}");
    let first = [
        to("{ path: { value: / } }", "root"),
        to("{ path: { value: /a } }", "short"),
        to("{ path: { value: /a/b }, headers: [{ name: x, value: y }] }", "header"),
        to("{ path: { value: /a/b }, queryParams: [{ name: x, value: y }] }", "query"),
        to("{ path: { type: RegularExpression, value: '/a/.*' } }", "regex"),
    ];
    let second = [
        to("{ path: { value: /a/b }, method: GET }", "method"),
        to("{ path: { value: /a/b }, headers: [{ name: x, value: y }, { name: z, value: y }] }", "headers"),
        to("{ path: { value: /a/b } }", "long"),
        to("{ path: { type: Exact, value: /a/b } }", "exact"),
    ];
    let (first, second) = (first.join(", "), second.join(", "));
    let import = behind_edge(HTTP, &[("name: b", "a.example.com", &first), ("name: a", "a.example.com", &second)]);
    let order: Vec<&str> = routes(&import)[0]["spec"]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["to"][0]["service"].as_str().unwrap().trim_end_matches("-1"))
        .collect();
    let mut once = order.clone();
    once.dedup();
    assert_eq!(once, ["exact", "regex", "method", "headers", "header", "query", "long", "short", "root"]);
    catalog(&import.resources);
}

#[test]
fn of_equal_rules_the_oldest_route_has_its_way_then_the_first_by_name() {
    let rule = |to: &str| format!("{{ backendRefs: [{{ name: {to}, port: 1 }}] }}");
    let (young, old, unknown) = (rule("young"), rule("old"), rule("unknown"));
    let dated = |name: &str, year: u32| format!("name: {name}, creationTimestamp: '{year}-01-01T00:00:00Z'");
    let (a, b) = (dated("a", 2026), dated("b", 2025));
    let import = behind_edge(HTTP, &[("name: '0'", "x.com", &unknown), (&a, "x.com", &young), (&b, "x.com", &old)]);
    assert_eq!(outcome(&import), [r#"["x.com"] p/>old-1"#]);
    assert_eq!(unmatched(&import).matches("never reached").count(), 2, "{}", unmatched(&import));
    let import = behind_edge(HTTP, &[("name: b", "x.com", &young), ("name: a", "x.com", &old)]);
    assert_eq!(outcome(&import), [r#"["x.com"] p/>old-1"#]);
}

#[test]
fn connections_are_carried_by_name_or_by_port() {
    let import = import_yaml(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: { name: edge }\nspec: { listeners: [\
         { name: sni, port: 443, protocol: TLS, tls: { mode: Passthrough } }, { name: db, port: 5432, protocol: TCP }, \
         { name: ended, port: 444, protocol: TLS, tls: { certificateRefs: [{ name: a }] } }] }\n---\n\
         apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TLSRoute\nmetadata: { name: shop }\nspec: { parentRefs: [{ name: edge }], \
         hostnames: [A.example.com, '*.b.example.com'], rules: [{ backendRefs: [{ name: shop, port: 443, weight: 3 }, { name: next, port: 443 }] }] }\n---\n\
         apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TLSRoute\nmetadata: { name: younger }\nspec: { parentRefs: [{ name: edge }], \
         hostnames: [a.example.com], rules: [{ backendRefs: [{ name: shop, port: 443 }] }, { backendRefs: [] }] }\n---\n\
         apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: { name: db }\nspec: { parentRefs: [{ name: edge, sectionName: db }], \
         rules: [{ backendRefs: [{ name: db, port: 5432 }] }] }\n",
    );
    catalog(&import.resources);
    let carried: Vec<String> = routes(&import)
        .iter()
        .map(|route| {
            format!("{} {} {}", route["spec"]["listeners"], route["spec"]["hosts"], route["spec"]["tcp"]["to"])
        })
        .collect();
    assert_eq!(
        carried,
        [
            r#"["edge/edge-db"] ["*"] [{"service":"db-5432"}]"#,
            r#"["edge/edge-sni"] ["*.b.example.com","a.example.com"] [{"service":"shop-443","weight":3},{"service":"next-443","weight":1}]"#,
        ]
    );
    let listed = unmatched(&import);
    for said in
        ["spec.listeners[2]: does not speak", "claims a.example.com of edge/edge-sni", "rules[1]: is a further rule"]
    {
        assert!(listed.contains(said), "{said}: {listed}");
    }
    assert_eq!(listed.lines().count(), 3, "{listed}");
}

#[test]
fn hosts_that_routes_share_are_routes_of_their_own() {
    let rule = |path: &str, to: &str| {
        format!(
            "{{ matches: [{{ path: {{ type: Exact, value: {path} }} }}], backendRefs: [{{ name: {to}, port: 1 }}] }}"
        )
    };
    let (a, b) = (rule("/a", "a"), rule("/b", "b"));
    let import = behind_edge(HTTP, &[("name: a", "x.com, y.com", &a), ("name: b", "y.com, z.com", &b)]);
    assert_eq!(outcome(&import), [r#"["x.com"] e/a>a-1"#, r#"["z.com"] e/b>b-1"#, r#"["y.com"] e/a>a-1 e/b>b-1"#]);
    let names: Vec<_> = routes(&import).iter().map(|route| route["name"].clone()).collect();
    assert_eq!(names, ["a", "b", "a-2"]);
    catalog(&import.resources);
}

#[test]
fn a_narrower_listener_of_a_port_keeps_its_hosts_to_itself() {
    let listeners =
        "{ name: any, port: 80, protocol: HTTP }, { name: a, port: 80, protocol: HTTP, hostname: '*.a.com' }";
    let yaml = |section: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{ name: edge }}\nspec: {{ listeners: [{listeners}] }}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: r }}\nspec: {{ parentRefs: [{{ name: edge, \
             sectionName: {section} }}], hostnames: [x.a.com, b.com], rules: [{{ backendRefs: [{{ name: s, port: 1 }}] }}] }}\n"
        )
    };
    assert_eq!(outcome(&import_yaml(&yaml("any"))), [r#"["b.com"] p/>s-1"#]);
    assert_eq!(outcome(&import_yaml(&yaml("a"))), [r#"["x.a.com"] p/>s-1"#]);
    let listeners = import_yaml(&yaml("a")).resources.iter().filter(|resource| resource["kind"] == "Listener").count();
    assert_eq!(listeners, 1);
}

#[test]
fn what_cannot_be_done_is_refused_and_never_left_out() {
    for (rule, listed) in [
        ("{ backendRefs: [] }", "has no backend"),
        ("{ backendRefs: [{ name: a, port: 1, weight: 0 }] }", "has no backend"),
        ("{ backendRefs: [{ name: a, namespace: other, port: 1 }] }", "no ReferenceGrant"),
        ("{ backendRefs: [{ name: a }] }", "has no port"),
        ("{ backendRefs: [{ group: example.com, kind: Bucket, name: a }] }", "refers to a Bucket"),
        ("{ filters: [{ type: New, new: {} }], backendRefs: [{ name: a, port: 1 }] }", "New is a filter"),
        (
            "{ filters: [{ type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: Connection, value: x }] } }], backendRefs: [{ name: a, port: 1 }] }",
            "belongs to the connection",
        ),
    ] {
        let import = behind_edge(HTTP, &[("name: r", "x.com", rule)]);
        assert_eq!(outcome(&import), [r#"["x.com"] p/>500"#], "{rule}");
        assert!(unmatched(&import).contains(listed), "{rule}: {}", unmatched(&import));
        catalog(&import.resources);
    }
}

#[test]
fn a_redirect_names_a_port_only_where_the_client_needs_it() {
    let port = |listener: &str, redirect: &str| {
        let rule = format!("{{ filters: [{{ type: RequestRedirect, requestRedirect: {{ {redirect} }} }}] }}");
        let import = behind_edge(listener, &[("name: r", "x.com", &rule)]);
        catalog(&import.resources);
        routes(&import)[0]["spec"]["rules"][0]["redirect"]["port"].clone()
    };
    let elsewhere = "{ name: web, port: 8080, protocol: HTTP }";
    for (listener, redirect, wanted) in [
        (HTTP, "scheme: https", json!(null)),
        (elsewhere, "scheme: https", json!(443)),
        (elsewhere, "scheme: https, port: 8443", json!(8443)),
        (HTTP, "hostname: y.com", json!(null)),
        (elsewhere, "hostname: y.com", json!(8080)),
        (elsewhere, "path: { type: ReplaceFullPath, replaceFullPath: /x }", json!(null)),
    ] {
        assert_eq!(port(listener, redirect), wanted, "{listener} {redirect}");
    }
}

#[test]
fn a_fleet_that_is_there_is_not_written_anew() {
    let options =
        Options { fleet: Some("edge".parse().unwrap()), team: Some("shop".parse().unwrap()), ..Options::default() };
    let import = import(&documents(include_str!("shop.yaml")), &options);
    assert!(import.resources.iter().all(|resource| resource["kind"] != "Fleet" && resource["team"] == "shop"));
    assert_eq!(import.resources[0]["spec"]["fleet"], "edge");
    let fleet = json!({ "kind": "Fleet", "name": "edge", "spec": {} });
    catalog(&[vec![fleet], import.resources].concat());
}

#[test]
fn anything_may_stand_anywhere() {
    survives(&documents(include_str!("shop.yaml")), |documents| import(documents, &Options::default()));
}
