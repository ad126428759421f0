//! A route of Envoy as a rule. What it has beside is found afterwards, by what is made of the rule.

use serde_json::{Map, Value, json};

use super::{
    filters,
    message::{duration, items, text},
};
use crate::import::draft;

/// The rule for `route`, whose clusters are services.
pub(super) fn rule(route: &Value, service: &impl Fn(&str) -> Option<String>) -> Option<Value> {
    let mut rule = Map::new();
    rule.insert("match".to_owned(), matches(&route["match"]));
    if let Some(action) = route.get("route") {
        forward(action, service, &mut rule)?;
    } else if let Some(redirect) = route.get("redirect") {
        rule.insert("redirect".to_owned(), self::redirect(redirect));
    } else {
        let respond = route.get("direct_response")?;
        let respond = json!({ "status": respond["status"], "body": text(respond, "/body/inline_string") });
        rule.insert("respond".to_owned(), respond);
    }
    let headers = json!({ "request": headers(route, "request"), "response": headers(route, "response") });
    rule.insert("headers".to_owned(), draft::given(headers).unwrap_or_default());
    filters::fields(route, &mut rule);
    Some(draft::dense(Value::Object(rule)))
}

/// The clusters that a route sends to, copies included.
pub(super) fn clusters(route: &Value) -> Vec<&str> {
    let Some(action) = route.get("route") else { return Vec::new() };
    let weighted = items(action, "/weighted_clusters/clusters").iter().filter_map(|target| text(target, "/name"));
    let copies = items(action, "/request_mirror_policies").iter().filter_map(|policy| text(policy, "/cluster"));
    text(action, "/cluster").into_iter().chain(weighted).chain(copies).collect()
}

fn matches(matched: &Value) -> Value {
    let is_call = matched.get("grpc").is_some();
    let path = json!({
        "exact": matched["path"],
        "prefix": matched["prefix"],
        "pathPrefix": matched["path_separated_prefix"],
        "regex": text(matched, "/safe_regex/regex"),
        "template": text(matched, "/path_match_policy/typed_config/path_template"),
    });
    let mut methods = Vec::new();
    let mut headers = Vec::new();
    for header in items(matched, "/headers") {
        if text(header, "/name") == Some(":method") {
            let one = text(header, "/string_match/exact").into_iter();
            let several = text(header, "/string_match/safe_regex/regex").into_iter().flat_map(|text| text.split('|'));
            methods.extend(one.chain(several).map(|method| method.replace('\\', "")));
        } else {
            let mut condition = condition(header);
            condition["invert"] = header["invert_match"].clone();
            headers.push(condition);
        }
    }
    let query: Vec<Value> = items(matched, "/query_parameters").iter().map(condition).collect();
    let cookies = items(matched, "/cookies").iter().map(|cookie| {
        let mut condition = condition(cookie);
        condition["invert"] = cookie["invert_match"].clone();
        // Envoy has no condition on a cookie that is merely there; this is how ours is written.
        if condition["regex"] == ".*" {
            condition["regex"] = Value::Null;
            condition["present"] = true.into();
        }
        condition
    });
    let cookies: Vec<Value> = cookies.collect();
    let connect = matched.get("connect_matcher").map(|_| true);
    let some = |list: Vec<Value>| (!list.is_empty()).then_some(list);
    json!({
        "path": (!is_call && connect.is_none()).then_some(path),
        "grpc": is_call.then(|| call(matched)),
        "connect": connect,
        "methods": (!methods.is_empty()).then_some(methods),
        "headers": some(headers),
        "query": some(query),
        "cookies": some(cookies),
    })
}

/// Which calls of gRPC a path means.
fn call(matched: &Value) -> Value {
    let exact = text(matched, "/path").and_then(|path| path.strip_prefix('/')?.split_once('/'));
    let service = text(matched, "/prefix").and_then(|path| path.strip_prefix('/')?.strip_suffix('/'));
    match (exact, service) {
        (Some((service, method)), _) => json!({ "service": service, "method": method }),
        (None, Some(service)) => json!({ "service": service }),
        (None, None) => json!({}),
    }
}

fn condition(condition: &Value) -> Value {
    let matched = &condition["string_match"];
    json!({
        "name": condition["name"],
        "exact": matched["exact"],
        "prefix": matched["prefix"],
        "suffix": matched["suffix"],
        "contains": matched["contains"],
        "regex": text(matched, "/safe_regex/regex"),
        "present": condition["present_match"],
    })
}

fn forward(action: &Value, service: &impl Fn(&str) -> Option<String>, rule: &mut Map<String, Value>) -> Option<()> {
    let mut to = Vec::new();
    if let Some(cluster) = text(action, "/cluster") {
        to.push(json!({ "service": service(cluster)?, "subset": subset(action) }));
    }
    for target in items(action, "/weighted_clusters/clusters") {
        let service = service(text(target, "/name")?)?;
        to.push(json!({ "service": service, "subset": subset(target), "weight": target["weight"] }));
    }
    let rewrite = json!({
        "prefix": action["prefix_rewrite"],
        "host": action["host_rewrite_literal"],
        "regex": action.get("regex_rewrite").map(|rewrite| json!({
            "pattern": rewrite["pattern"]["regex"], "substitution": text(rewrite, "/substitution").unwrap_or_default(),
        })),
        "template": text(action, "/path_rewrite_policy/typed_config/path_template_rewrite"),
    });
    let mut mirror = None;
    if let Some(policy) = items(action, "/request_mirror_policies").first() {
        let percent = policy.pointer("/runtime_fraction/default_value/numerator");
        mirror = Some(json!({ "service": service(text(policy, "/cluster")?)?, "percent": percent }));
    }
    let retry = action.get("retry_policy").map(|policy| {
        let lists = ["retriable-status-codes", "retriable-headers"];
        let on = text(policy, "/retry_on").unwrap_or_default().split(',').map(str::trim);
        let on: Vec<&str> = on.filter(|condition| !lists.contains(condition)).collect();
        let headers: Vec<Value> = items(policy, "/retriable_headers").iter().map(condition).collect();
        let some = |list: Vec<Value>| (!list.is_empty()).then_some(list);
        let backoff = policy.get("retry_back_off").map(
            |backoff| json!({ "base": duration(backoff, "/base_interval"), "max": duration(backoff, "/max_interval") }),
        );
        json!({
            "on": (!on.is_empty()).then_some(on),
            "statuses": policy["retriable_status_codes"],
            "responseHeaders": some(headers),
            "perTryIdleTimeout": duration(policy, "/per_try_idle_timeout"),
            "attempts": policy["num_retries"],
            "perTryTimeout": duration(policy, "/per_try_timeout"),
            "backoff": backoff,
        })
    });
    let mut upgrades = Vec::new();
    for upgrade in items(action, "/upgrade_configs") {
        match text(upgrade, "/upgrade_type").map(str::to_ascii_lowercase).as_deref() {
            Some("websocket") => upgrades.push("websocket"),
            Some("connect") if upgrade.get("connect_config").is_none() => {
                rule.insert("connect".to_owned(), "forward".into());
            }
            _ => {}
        }
    }
    // What is carried through a tunnel has no end that is waited for.
    let is_tunnel = rule.get("match").is_some_and(|matches| matches["connect"] == true);
    let timeout = duration(action, "/timeout").filter(|timeout| !is_tunnel || timeout != "0s");
    let time = |pointer: &str| duration(action, pointer).map(Value::from).unwrap_or_default();
    rule.insert("idleTimeout".to_owned(), time("/idle_timeout"));
    rule.insert("maxStreamDuration".to_owned(), time("/max_stream_duration/max_stream_duration"));
    rule.insert("upgrades".to_owned(), if upgrades.is_empty() { Value::Null } else { upgrades.into() });
    rule.extend([
        ("to".to_owned(), to.into()),
        ("rewrite".to_owned(), draft::given(rewrite).unwrap_or_default()),
        ("mirror".to_owned(), mirror.unwrap_or_default()),
        ("retry".to_owned(), retry.unwrap_or_default()),
        ("timeout".to_owned(), timeout.map(Value::from).unwrap_or_default()),
    ]);
    Some(())
}

/// The labels of endpoints that a route wants, or a target of it.
fn subset(of: &Value) -> Option<&Value> {
    of.pointer("/metadata_match/filter_metadata/envoy.lb")
}

fn redirect(redirect: &Value) -> Value {
    let https = redirect["https_redirect"] == true;
    let status = match text(redirect, "/response_code").unwrap_or_default() {
        "FOUND" => 302,
        "SEE_OTHER" => 303,
        "TEMPORARY_REDIRECT" => 307,
        "PERMANENT_REDIRECT" => 308,
        _ => 301,
    };
    json!({
        "scheme": redirect.get("scheme_redirect").cloned().or_else(|| https.then(|| "https".into())),
        "host": redirect["host_redirect"],
        "port": redirect["port_redirect"],
        "path": redirect["path_redirect"],
        "prefix": redirect["prefix_rewrite"],
        "stripQuery": redirect["strip_query"],
        "status": status,
    })
}

fn headers(route: &Value, of: &str) -> Option<Value> {
    let (mut set, mut add) = (Vec::new(), Vec::new());
    for option in items(route, &format!("/{of}_headers_to_add")) {
        // In a value of Envoy, % begins a variable; ours are literal.
        let value = text(option, "/header/value").unwrap_or_default().replace("%%", "%");
        let header = json!({ "name": option["header"]["key"], "value": value });
        match text(option, "/append_action") {
            Some("OVERWRITE_IF_EXISTS_OR_ADD") => set.push(header),
            _ => add.push(header),
        }
    }
    let some = |list: Vec<Value>| (!list.is_empty()).then_some(list);
    draft::given(json!({ "set": some(set), "add": some(add), "remove": route.get(format!("{of}_headers_to_remove")) }))
}
