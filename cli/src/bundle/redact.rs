//! What must not leave a host: taken out of everything that goes into a bundle. Pure.
//!
//! Three nets, since each has holes: fields whose name says that they hold a secret, at any depth; texts whose form says so, wherever
//! they stand; and secrets that are known here, as they are and as a URL writes them. Rather too much is taken out than too little: who
//! reads a bundle needs to know that there is a password, and not which.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "[hidden]";

/// Parts of names of fields that hold secrets, in lower case without separators.
const SECRET_NAMES: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "token",
    "privatekey",
    "apikey",
    "authorization",
    "credential",
    "inlinebytes",
    "inlinestring",
    "cookie",
    "signature",
    "passphrase",
];

/// Names of fields that hold headers: their values may be what an upstream asks for.
const HEADER_NAMES: &[&str] =
    &["header", "headers", "setheaders", "addheaders", "requestheaderstoadd", "responseheaderstoadd"];

/// Names that look like secrets and are none.
const HARMLESS_NAMES: &[&str] = &["tokenbucket", "tokensperfill", "maxtokens", "signatures", "tokenserial"];

/// The shortest secret that is looked for by itself: a shorter one would be found in words.
const SHORTEST: usize = 6;

/// Forms that only secrets have, with what is left of them. In ASCII: the tables of Unicode are not compiled in.
static FORMS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let forms = [
        // PEM: keys of all kinds, whole, or cut off before their end.
        (
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)",
            "[hidden private key]",
        ),
        // A JSON Web Token: two parts that begin as an object does in base64, and a signature that may be missing.
        (r"eyJ[A-Za-z0-9_-]{5,}\.eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?", "[hidden JWT]"),
        // Our own tokens.
        (r"(?-u:\b)ch[a-z]_[A-Za-z0-9_-]{8,}", "[hidden token]"),
        // Schemes of Authorization.
        (r"(?-u:\b)((?i-u:bearer|basic|digest|negotiate))([ \t]+)[A-Za-z0-9._~+/=-]{6,}", "$1$2[hidden]"),
        // User and password in a URL.
        (r#"(?-u:\b)([A-Za-z][A-Za-z0-9+.-]*://)[^ \t\r\n/@"']*@"#, "$1[hidden]@"),
        // name=value and name: value, as in queries, connection strings and logs.
        (
            // Also in quotes, and in those of JSON that is a text within JSON.
            r#"((?i-u:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key)[\\"']*[ \t]*[=:][ \t]*)(?:\\?"(?:[^"\\]|\\[^"])*|'[^']*|[^ \t\r\n,;&"'\\]{3,})"#,
            "$1[hidden]",
        ),
    ];
    // Better no bundle than one with a net that is missing.
    forms.map(|(form, left)| (Regex::new(form).expect("every form is a regular expression"), left)).into()
});

/// Takes secrets out.
#[derive(Clone, Debug, Default)]
pub(super) struct Redactor {
    /// Those that are known, the longest first.
    known: Vec<String>,
}

impl Redactor {
    /// Also takes out these, wherever they stand.
    pub(super) fn knowing(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut known: Vec<String> = secrets
            .into_iter()
            .flat_map(|secret| {
                let decoded = percent_decoded(&secret);
                [crate::client::encoded(&decoded), decoded, secret]
            })
            .filter(|secret| secret.len() >= SHORTEST)
            .collect();
        known.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        known.dedup();
        Self { known }
    }

    /// `text` without secrets.
    pub(super) fn text(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for secret in &self.known {
            if clean.contains(secret.as_str()) {
                clean = clean.replace(secret.as_str(), HIDDEN);
            }
        }
        for (form, left) in FORMS.iter() {
            if form.is_match(&clean) {
                clean = form.replace_all(&clean, |found: &Captures<'_>| expanded(left, found)).into_owned();
            }
        }
        clean
    }

    /// `value` without secrets, names of fields included.
    pub(super) fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.value(item)).collect()),
            Value::Object(fields) => {
                // A header of Envoy's: {"key": …, "value": …}, or with the bytes in `raw_value`.
                let is_header = fields.contains_key("key")
                    && fields.keys().all(|name| ["key", "value", "raw_value", "rawValue"].contains(&name.as_str()));
                let field = |(name, value): (String, Value)| {
                    let plain = normal(&name);
                    let value = match () {
                        () if is_header && name != "key" => hidden(&value),
                        () if is_secret(&plain) => hidden(&value),
                        () if HEADER_NAMES.contains(&plain.as_str()) => self.headers(value),
                        () => self.value(value),
                    };
                    (self.text(&name), value)
                };
                Value::Object(fields.into_iter().map(field).collect())
            }
            other => other,
        }
    }

    /// Headers keep their names: `{name: value}` in a map, `{name, exact}` and the like in lists.
    fn headers(&self, value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let field = |(name, value): (String, Value)| {
                    let value = match name.as_str() {
                        "name" | "key" | "present" | "append_action" | "appendAction" => self.value(value),
                        _ if value.is_string() => hidden(&value),
                        _ => self.headers(value),
                    };
                    (self.text(&name), value)
                };
                Value::Object(fields.into_iter().map(field).collect())
            }
            Value::Array(items) => {
                let item = |item: Value| if item.is_string() { hidden(&item) } else { self.headers(item) };
                Value::Array(items.into_iter().map(item).collect())
            }
            other => self.value(other),
        }
    }
}

fn expanded(left: &str, found: &Captures<'_>) -> String {
    let mut text = String::new();
    found.expand(left, &mut text);
    text
}

fn normal(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | '.')).map(|c| c.to_ascii_lowercase()).collect()
}

fn is_secret(name: &str) -> bool {
    SECRET_NAMES.iter().any(|secret| name.contains(secret)) && !HARMLESS_NAMES.contains(&name)
}

/// What is left of a secret: whether there was one.
fn hidden(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::String(text) if text.is_empty() => value.clone(),
        _ => HIDDEN.into(),
    }
}

/// The user and the password in a URL, as they stand there and as they are meant.
pub(super) fn credentials(url: &str) -> Vec<String> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let Some((credentials, _)) = authority.rsplit_once('@') else { return Vec::new() };
    let password = credentials.split_once(':').map(|(_, password)| password.to_owned());
    let parameters = url.split_once('?').map_or("", |(_, query)| query);
    let named = parameters.split('&').filter_map(|pair| Some(pair.split_once("password=")?.1.to_owned()));
    password.into_iter().chain(named).collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%') {
            Some(decoded) => (bytes.push(decoded), rest = &after[2..]),
            None => (bytes.push(byte), rest = after),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_forms_of_secrets_are_known() {
        let clean = |text: &str| Redactor::default().text(text);
        for (text, expected) in [
            ("a -----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY----- b", "a [hidden private key] b"),
            ("cut -----BEGIN PRIVATE KEY-----\nMHc", "cut [hidden private key]"),
            ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl!", "jwt [hidden JWT]!"),
            ("chy_Zm9vYmFyYmF6 made it", "[hidden token] made it"),
            ("Authorization: Bearer abcdef123", "Authorization: Bearer [hidden]"),
            ("postgres://u:p%40ss@db/chancery?x=1", "postgres://[hidden]@db/chancery?x=1"),
            ("rediss://:hunter2@r:6379", "rediss://[hidden]@r:6379"),
            ("host=db password=hunter2 user=a", "host=db password=[hidden] user=a"),
            ("password=\"hunter two\" user=a", "password=[hidden]\" user=a"),
            ("passphrase = 'hunter two' a", "passphrase = [hidden]' a"),
            (r#"{"password":"hunter, 2","b":1}"#, r#"{"password":[hidden]","b":1}"#),
            (r#"{\"secret\":\"hunter2\"}"#, r#"{\"secret\":[hidden]\"}"#),
            ("/?api_key=abc123&x=1", "/?api_key=[hidden]&x=1"),
            ("nothing to hide at http://a:80/b and a@b.c", "nothing to hide at http://a:80/b and a@b.c"),
        ] {
            assert_eq!(clean(text), expected);
        }
    }

    #[test]
    fn what_is_known_is_found_in_every_spelling() {
        let redactor = Redactor::knowing(credentials("postgres://u:p%40ss%2Fword@db/chancery"));
        for text in ["p%40ss%2Fword", "p@ss/word", "x p@ss/word x"] {
            assert!(!redactor.text(text).contains("word"), "{text}");
        }
        assert_eq!(credentials("redis://:hunter2@h:1/0"), ["hunter2"]);
        assert_eq!(credentials("postgres://u@h/d?password=hunter2"), ["hunter2"]);
        assert!(credentials("redis://h:1").is_empty());
        assert_eq!(Redactor::knowing(["abc".to_owned()]).text("abc"), "abc", "too short to be looked for");
    }

    #[test]
    fn fields_are_hidden_by_their_names_and_headers_lose_their_values() {
        let value = json!({
            "database": "postgres://u:hunter2@h/d",
            "adminToken": "t", "private_key": { "inline_string": "k" }, "tokenBucket": { "maxTokens": 5 }, "secret": "", "token": null,
            "request_headers_to_add": [{ "header": { "key": "x-a", "value": "hunter2" }, "append_action": "ADD" }],
            "headers": [{ "name": "x-b", "exact": "hunter2" }], "setHeaders": { "x-c": "hunter2" },
            "deep": [{ "apiKey": "hunter2" }, { "key": "x-d", "raw_value": "aHVudGVyMg==" }],
        });
        let clean = Redactor::default().value(value);
        assert!(!clean.to_string().contains("hunter2") && !clean.to_string().contains("aHVudGVyMg"), "{clean}");
        assert_eq!(clean["tokenBucket"]["maxTokens"], 5);
        assert_eq!((clean["adminToken"].as_str(), &clean["token"]), (Some(HIDDEN), &Value::Null));
        assert_eq!(clean["headers"][0]["name"], "x-b");
        assert_eq!(clean["request_headers_to_add"][0]["header"]["key"], "x-a");
    }
}
