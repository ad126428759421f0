//! The REST API as a caller sees it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request, header};
use serde_json::{Value, json};

use crate::client::{Response, fetch};

/// How long a write waits for the proxies to have applied it.
const WAIT: &str = "wait=applied&timeout=10s";

/// A caller with a token.
#[derive(Clone, Debug)]
pub struct Api {
    address: SocketAddr,
    token: String,
}

impl Api {
    /// A caller of the API at `address`.
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: token.to_owned() }
    }

    /// A caller of the same API with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self::new(self.address, token)
    }

    /// `GET`, which has to succeed.
    pub async fn read(&self, path: &str) -> Result<Value> {
        good(&format!("GET {path}"), &self.json(Method::GET, path, None).await?)
    }

    /// The items of all pages of a list.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut page = self.read(&format!("{path}?limit=1000{cursor}")).await?;
            items.append(page["items"].as_array_mut().context("a list has items")?);
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// `PUT` of one resource, without waiting for proxies.
    pub async fn put(&self, resource: &Value) -> Result<Value> {
        let path = path_of(resource)?;
        good(&format!("PUT {path}"), &self.json(Method::PUT, &path, Some(resource)).await?)
    }

    /// `PUT` of one resource; returns when every connected proxy has applied it.
    pub async fn put_and_wait(&self, resource: &Value) -> Result<Value> {
        let path = format!("{}?{WAIT}", path_of(resource)?);
        applied(good(&format!("PUT {path}"), &self.json(Method::PUT, &path, Some(resource)).await?)?)
    }

    /// `DELETE` of one resource, without waiting for proxies.
    pub async fn delete(&self, kind: &str, name: &str) -> Result<Value> {
        let path = path(kind, name)?;
        good(&format!("DELETE {path}"), &self.json(Method::DELETE, &path, None).await?)
    }

    /// `DELETE` of one resource; returns when every connected proxy has applied it.
    pub async fn delete_and_wait(&self, kind: &str, name: &str) -> Result<Value> {
        let path = format!("{}?{WAIT}", path(kind, name)?);
        applied(good(&format!("DELETE {path}"), &self.json(Method::DELETE, &path, None).await?)?)
    }

    /// `POST /apply`: one transaction, one revision.
    pub async fn apply(&self, resources: &[Value]) -> Result<Value> {
        let body = json!({ "resources": resources });
        good("apply", &self.json(Method::POST, "/api/v1/apply", Some(&body)).await?)
    }

    /// As [`Api::apply`]; returns when every connected proxy has applied it.
    pub async fn apply_and_wait(&self, resources: &[Value]) -> Result<Value> {
        let body = json!({ "resources": resources });
        let path = format!("/api/v1/apply?{WAIT}");
        applied(good("apply", &self.json(Method::POST, &path, Some(&body)).await?)?)
    }

    /// The status of one proxy; `null` when it was never seen.
    pub async fn proxy(&self, id: &str) -> Result<Value> {
        let items = self.list("/api/v1/proxies").await?;
        Ok(items.iter().find(|proxy| proxy["id"] == id).cloned().unwrap_or_default())
    }

    /// Everything that is stored, and its history: to see that nothing of it changed.
    pub async fn everything(&self) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for collection in ["fleets", "listeners", "services", "routes", "revisions"] {
            all.push(self.read(&format!("/api/v1/{collection}")).await?);
        }
        Ok(all)
    }

    /// Any request with a JSON body, whatever comes of it.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response> {
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        self.send(method, path, &[("content-type", "application/json")], body).await
    }

    /// Any request, whatever comes of it.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response> {
        let authorization = format!("Bearer {}", self.token);
        let start = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, authorization);
        let builder = headers.iter().fold(start, |builder, (name, value)| builder.header(*name, *value));
        fetch(self.address, builder.body(body.into())?).await
    }
}

/// Checks that `answer` is a refusal in the form that every refusal has (RFC 9457), and returns that.
pub fn check_refusal(label: &str, answer: &Response) -> Result<Value> {
    ensure!((400..500).contains(&answer.status), "{label}: {} {}", answer.status, answer.text());
    ensure!(answer.header("content-type").starts_with("application/problem+json"), "{label}: {:?}", answer.headers);
    let problem = answer.json()?;
    ensure!(problem["status"] == answer.status, "{label}: {problem}");
    for field in ["type", "title", "detail"] {
        ensure!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{label}: no {field}: {problem}");
    }
    Ok(problem)
}

/// The path of a resource.
pub fn path(kind: &str, name: &str) -> Result<String> {
    let collection = match kind {
        "Fleet" => "fleets",
        "Listener" => "listeners",
        "Team" => "teams",
        "Service" => "services",
        "RateLimit" => "rate-limits",
        "Route" => "routes",
        "EnvoyPatch" => "envoy-patches",
        _ => anyhow::bail!("no collection is known for kind {kind:?}"),
    };
    Ok(format!("/api/v1/{collection}/{name}"))
}

fn path_of(resource: &Value) -> Result<String> {
    let text = |field: &str| resource[field].as_str().with_context(|| format!("the resource has no {field}"));
    path(text("kind")?, text("name")?)
}

fn good(what: &str, response: &Response) -> Result<Value> {
    ensure!((200..300).contains(&response.status), "{what}: {} {}", response.status, response.text());
    if response.body.is_empty() { Ok(Value::Null) } else { response.json() }
}

/// The answer of a write that waited, if every proxy took it.
fn applied(answer: Value) -> Result<Value> {
    let report = &answer["applied"];
    let refused = report["refused"].as_array().is_some_and(|all| !all.is_empty());
    ensure!(report.is_object() && !refused && report["timedOut"] == false, "not every proxy applied it: {answer}");
    Ok(answer)
}
