//! Routes and requests from a seed: all that a rule can look at and do, requests that fit a rule, and such that fit nearly.

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value, json};

use chancery_e2e::document::resource;

/// The services that rules send to, and the versions of which each has an endpoint.
pub(crate) const SERVICES: [&str; 3] = ["red", "green", "blue"];
pub(crate) const VERSIONS: [&str; 2] = ["v1", "v2"];

const HOSTS: [&str; 7] =
    ["a.example.com", "b.example.com", "*.example.com", "*.b.example.com", "*.com", "*", "10.0.0.1"];
const PATHS: [&str; 8] = ["/", "/a", "/api", "/api/", "/api/v1", "/a.b", "/users", "/shop.v1.Checkout/Place"];
const PATTERNS: [(&str, &str); 5] = [
    ("/v[0-9]+/ping", "/v12/ping"),
    ("/(a|api)/.*", "/api/x"),
    ("(?i)/API/x", "/Api/X"),
    ("/users/[^/]+", "/users/7"),
    (r"/a\.b(/.*)?", "/a.b/c"),
];
const TEMPLATES: [(&str, &str, &str); 4] = [
    ("/users/{user}", "/users/7", "/of/{user}"),
    ("/users/{user}/posts/{post}", "/users/7/posts/a%20b", "/{post}/of-{user}"),
    ("/files/{rest=**}", "/files/css/a.css", "/static/{rest}"),
    ("/api/{version}/{rest=**}", "/api/v1/", "/{version}:{rest}"),
];
const VALUE_PATTERNS: [(&str, &str); 4] = [("[0-9]+", "42"), ("a.*c|b", "abc"), ("(?i)beta", "BETA"), (".{2}", "xy")];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "OPTIONS"];
/// Some are no client's to say, or the proxy's to change.
const HEADERS: [&str; 7] = ["x-beta", "X-Team", "x-envoy-max-retries", "x-forwarded-proto", "te", "host", "user-agent"];
const PARAMETERS: [&str; 3] = ["debug", "page", "a%20b"];
const COOKIES: [&str; 3] = ["tier", "id", "Tier"];
const VALUES: [&str; 5] = ["1", "10", "beta", "a b", "gold"];
const ORIGINS: [&str; 3] = ["https://shop.example.com", "https://a.example.org", "https://evil.test"];

/// Hosts as clients may write them.
const OTHER_HOSTS: [&str; 6] =
    ["a.example.com", "A.Example.COM:8080", "b.example.com.", "x.b.example.com.:80", "example.com", "x.test"];
/// Ends of paths that a proxy changes, or should not.
const ENDS: [&str; 13] =
    ["/", "x", "/..", "/../api", "/./x", "//x", "/%2e%2e/a", "/b%2Fc", "%5c", "/[x]", "/\"{|}", "/..;/x", "/%41"];

/// A route, with its rules and what would match each.
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) document: Value,
    hosts: Vec<&'static str>,
    fits: Vec<Request>,
}

/// A request: what a rule wants, or what is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: Vec<String>,
    pub(crate) headers: Vec<(String, String)>,
}

fn pick<T: Copy>(from: &[T], random: &mut StdRng) -> T {
    *from.choose(random).expect("there is something to choose from")
}

/// A route on `edge/web`. Another with the same match may be there already; then the control plane refuses it.
pub(crate) fn route(number: usize, random: &mut StdRng) -> Route {
    let name = format!("r{number}");
    let mut hosts: Vec<&'static str> = (0..random.random_range(1..3)).map(|_| pick(&HOSTS, random)).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let count = random.random_range(2..6);
    let (mut rules, mut fits) = (Vec::new(), Vec::new());
    for index in 0..count {
        let (rule, fit) = rule(&format!("{name}/{index}"), random);
        rules.push(rule);
        fits.push(fit);
    }
    let spec = json!({ "listeners": ["edge/web"], "hosts": hosts, "rules": rules });
    Route { document: resource("Route", &name, spec), name, hosts, fits }
}

fn rule(name: &str, random: &mut StdRng) -> (Value, Request) {
    let mut fit = Request { method: "GET".to_owned(), ..Request::default() };
    let mut matches = Map::new();
    let path = path(&mut matches, &mut fit, random);
    if random.random_bool(0.3) {
        let mut methods: Vec<&str> = (0..random.random_range(1..3)).map(|_| pick(&METHODS, random)).collect();
        methods.sort_unstable();
        methods.dedup();
        fit.method = methods[0].to_owned();
        matches.insert("methods".to_owned(), methods.into());
    }
    if random.random_bool(0.4) {
        let header = pick(&HEADERS, random);
        let (condition, value) = condition(header, true, random);
        fit.headers.extend(value.map(|value| (header.to_owned(), value)));
        matches.insert("headers".to_owned(), json!([condition]));
    }
    if random.random_bool(0.3) {
        let parameter = pick(&PARAMETERS, random);
        let (condition, value) = condition(parameter, false, random);
        let value = value.unwrap_or_default().replace(' ', "%20");
        fit.query.push(format!("{parameter}={value}"));
        matches.insert("query".to_owned(), json!([condition]));
    }
    if random.random_bool(0.25) {
        let cookie = pick(&COOKIES, random);
        let (condition, value) = condition(cookie, true, random);
        fit.headers.extend(value.map(|value| ("cookie".to_owned(), format!("other=x; {cookie}={value}"))));
        matches.insert("cookies".to_owned(), json!([condition]));
    }
    let mut rule = action(&path, random);
    rule["match"] = matches.into();
    if random.random_bool(0.25) {
        rule["externalAuthorization"] = json!({ "off": true });
    }
    rule["headers"] = json!({ "response": { "set": [{ "name": "x-rule", "value": name }] } });
    (rule, fit)
}

/// How a path is matched, for what goes with that only.
enum Matched {
    /// By prefix or as it is.
    Part,
    Pattern,
    /// Made anew like this.
    Template(&'static str),
    Call,
}

fn path(matches: &mut Map<String, Value>, fit: &mut Request, random: &mut StdRng) -> Matched {
    let (path, matched) = match random.random_range(0..10) {
        0..=1 => {
            fit.path = pick(&PATHS, random).to_owned();
            (json!({ "exact": fit.path }), Matched::Part)
        }
        2 => {
            let above = pick(&["/a", "/api", "/api/v1", "/a.b", "/users"], random);
            fit.path = format!("{above}{}", pick(&["", "/", "/x", "x", "/x/y"], random));
            (json!({ "pathPrefix": above }), Matched::Part)
        }
        3..=5 => {
            let prefix = pick(&PATHS, random);
            fit.path = format!("{prefix}{}", pick(&["", "/x", "x", "/x/y"], random));
            (json!({ "prefix": prefix }), Matched::Part)
        }
        6 => {
            let (pattern, sample) = pick(&PATTERNS, random);
            fit.path = sample.to_owned();
            (json!({ "regex": pattern }), Matched::Pattern)
        }
        7..=8 => {
            let (template, sample, anew) = pick(&TEMPLATES, random);
            fit.path = sample.to_owned();
            (json!({ "template": template }), Matched::Template(anew))
        }
        _ => {
            let call = [
                json!({}),
                json!({ "service": "shop.v1.Checkout" }),
                json!({ "service": "shop.v1.Checkout", "method": "Place" }),
            ];
            matches.insert("grpc".to_owned(), call.choose(random).cloned().unwrap_or_default());
            fit.path = "/shop.v1.Checkout/Place".to_owned();
            fit.headers.push((
                "content-type".to_owned(),
                pick(&["application/grpc", "application/grpc+proto"], random).to_owned(),
            ));
            return Matched::Call;
        }
    };
    matches.insert("path".to_owned(), path);
    matched
}

/// A condition on what is called `name`, and a value that fits; none if it must not be there.
fn condition(name: &str, may_invert: bool, random: &mut StdRng) -> (Value, Option<String>) {
    let value = pick(&VALUES, random);
    let (mut condition, fits) = match random.random_range(0..7) {
        0..=1 => (json!({ "exact": value }), value.to_owned()),
        2 => (json!({ "prefix": value }), format!("{value}z")),
        3 => (json!({ "suffix": value }), format!("z{value}")),
        4 => (json!({ "contains": value }), format!("z{value}z")),
        5 => {
            let (pattern, sample) = pick(&VALUE_PATTERNS, random);
            (json!({ "regex": pattern }), sample.to_owned())
        }
        _ => (json!({ "present": true }), value.to_owned()),
    };
    condition["name"] = name.into();
    if may_invert && random.random_bool(0.25) {
        condition["invert"] = true.into();
        let absent = condition["present"] == true || random.random_bool(0.5);
        return (condition, (!absent).then(|| "nothing of it".to_owned()));
    }
    (condition, Some(fits))
}

fn action(path: &Matched, random: &mut StdRng) -> Value {
    match random.random_range(0..10) {
        0..=1 => {
            json!({ "respond": { "status": pick(&[200, 201, 403, 418, 503], random), "body": pick(&["", "here"], random) } })
        }
        2..=3 => {
            let mut redirect =
                json!({ "status": pick(&[301, 302, 303, 307, 308], random), "stripQuery": random.random_bool(0.3) });
            match (random.random_range(0..6), path) {
                (0, _) => redirect["scheme"] = "https".into(),
                (1, _) => redirect["port"] = 8443.into(),
                (2, _) => redirect["path"] = "/new".into(),
                (3..=4, Matched::Part) => redirect["prefix"] = pick(&["/", "/new", "/new/"], random).into(),
                _ => redirect["host"] = "new.example.com".into(),
            }
            json!({ "redirect": redirect })
        }
        _ => {
            let first = random.random_range(0..SERVICES.len());
            let mut to = vec![json!({ "service": SERVICES[first], "weight": 3 })];
            if random.random_bool(0.3) {
                to.push(json!({ "service": SERVICES[(first + 1) % SERVICES.len()], "weight": 1 }));
            }
            for target in &mut to {
                if random.random_bool(0.3) {
                    target["subset"] = json!({ "version": pick(&VERSIONS, random) });
                }
            }
            let mut rule = json!({ "to": to });
            match (random.random_range(0..4), path) {
                (0, Matched::Part) => rule["rewrite"]["prefix"] = pick(&["/", "/new", "/new/"], random).into(),
                (0..=2, Matched::Template(anew)) => rule["rewrite"]["template"] = (*anew).into(),
                (1, _) => rule["rewrite"]["regex"] = json!({ "pattern": "/([a-z]+)", "substitution": r"/\1-\0" }),
                (2, _) => rule["rewrite"]["host"] = "inside.example.com".into(),
                _ => {}
            }
            if random.random_bool(0.4) {
                rule["cors"] = json!({ "origins": [ORIGINS[0], "https://*.example.org"] });
            }
            rule
        }
    }
}

/// A request that fits a rule of one of `routes`, or would but for a thing or two.
pub(crate) fn request(routes: &[Route], random: &mut StdRng) -> Request {
    let route = routes.choose(random).expect("there are routes");
    let mut request = route.fits.choose(random).cloned().unwrap_or_default();
    request.host = match pick(&route.hosts, random) {
        "*" => pick(&["other.test", "[::1]:80", "com", "example.com."], random).to_owned(),
        host => host.replace('*', pick(&["x", "x.y"], random)),
    };
    for _ in 0..pick(&[0, 0, 1, 1, 2, 3], random) {
        spoil(&mut request, random);
    }
    request
}

/// Changes something that may or may not matter.
fn spoil(request: &mut Request, random: &mut StdRng) {
    match random.random_range(0..12) {
        0 => pick(&METHODS, random).clone_into(&mut request.method),
        1 => request.host = pick(&OTHER_HOSTS, random).to_owned(),
        2 => request.path = pick(&PATHS, random).to_owned(),
        3 => request.path += pick(&ENDS, random),
        4 => request.path = format!("{}{}", pick(&["/x/..", "/.", "//", "/%2E/"], random), request.path),
        5 => request.path = request.path.to_uppercase(),
        6 => request
            .query
            .insert(0, pick(&["debug", "debug=2", "page=", "x=//..", "a%20b=1", "=1", "debug=1=2"], random).to_owned()),
        7 => {
            let name = pick(&HEADERS, random);
            if name != "host" {
                request.headers.push((name.to_owned(), pick(&VALUES, random).to_owned()));
            }
        }
        8 => drop(request.headers.pop()),
        9 => {
            let cookie =
                pick(&["tier=1", "tier=\"gold\"", "id", "id=10;tier=beta", "Tier = 1", "tier=a; tier=b"], random);
            request.headers.insert(0, ("cookie".to_owned(), cookie.to_owned()));
        }
        10 => {
            request.headers.push(("origin".to_owned(), pick(&ORIGINS, random).to_owned()));
            if random.random_bool(0.7) {
                request.headers.push(("access-control-request-method".to_owned(), request.method.clone()));
                "OPTIONS".clone_into(&mut request.method);
            }
        }
        _ => {
            let odd = [
                ("x_user", "1"),
                ("x-beta", "beta"),
                ("x-team", "42"),
                ("user-agent", "gold"),
                ("te", "gzip, trailers"),
                ("content-type", "application/grpc;x"),
                ("content-type", "application/grpcx"),
            ];
            let (name, value) = pick(&odd, random);
            request.headers.push((name.to_owned(), value.to_owned()));
        }
    }
}

impl Request {
    /// Path and query.
    pub(crate) fn target(&self) -> String {
        if self.query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, self.query.join("&")) }
    }
}
