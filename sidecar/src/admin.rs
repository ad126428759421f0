//! The admin port: health and metrics as in all programs, and what the sidecar is doing, for people.
//!
//! - `GET /config_dump`: every resource in force with its version, and the fields of it that are not looked at.
//! - `GET /clusters`: endpoints, who of them is out, and what is under way; JSON, or a table with `?format=text`.
//! - `GET /listeners`: the ports of TCP, and why one is not open.
//! - `POST /drain`: begins to drain, as a stop would, but stays.

mod clusters;

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use axum::{
    Json, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, post},
};
use chancery_proto::{
    describe::{json, types::Type},
    type_url::{self, short_name},
};
use chancery_runtime::admin::{self, Admin};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{held::Held, tcp::TcpPort},
    proxy::{
        tcp::ports::{self, Ports},
        world::World,
    },
};

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// Health and metrics.
    pub admin: Admin,
    /// What is in force.
    pub held: Arc<ArcSwap<Held>>,
    /// What has become of it.
    pub world: Arc<ArcSwap<World>>,
    /// The ports of TCP.
    pub ports: Arc<Ports>,
    /// To be cancelled to begin to drain.
    pub drain: CancellationToken,
}

/// Serves the pages until `stop`.
///
/// # Errors
/// The listener failed.
pub async fn serve(listener: TcpListener, pages: Pages, stop: CancellationToken) -> io::Result<()> {
    let own = Router::new()
        .route("/config_dump", get(config_dump))
        .route("/clusters", get(clusters::clusters))
        .route("/listeners", get(listeners))
        .route("/drain", post(drain))
        .with_state(pages.clone());
    let router = admin::router(pages.admin).merge(own);
    let stopped = stop.clone();
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await }) => served,
        () = async { stop.cancelled().await; tokio::time::sleep(admin::GRACE).await } => Ok(()),
    }
}

async fn config_dump(State(pages): State<Pages>) -> impl IntoResponse {
    let held = pages.held.load_full();
    let resources = held.resources().map(|(kind, name, loaded)| {
        let content = shown(kind, &loaded.body);
        json!({
            "type": short_name(kind),
            "name": &**name,
            "version": loaded.version,
            "ignored": loaded.ignored,
            "content": content,
        })
    });
    Json(json!({ "resources": resources.collect::<Vec<_>>() }))
}

/// A message as JSON, but for what may hold a key; of a secret, nothing.
fn shown(kind: &str, body: &[u8]) -> Value {
    if kind == type_url::SECRET {
        return "hidden".into();
    }
    let mut content = Type::of_url(kind).and_then(|of| json::decode(of, body).ok()).unwrap_or_default();
    hide(&mut content);
    content
}

/// Takes away what may hold a key.
fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "transport_socket" | "private_key" | "inline_bytes" => *value = "hidden".into(),
                    _ => hide(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide),
        _ => {}
    }
}

async fn listeners(State(pages): State<Pages>) -> impl IntoResponse {
    let shown = |(port, standing): (TcpPort, ports::Standing)| {
        let (standing, at, reason) = match standing {
            ports::Standing::Absent => ("absent", None, None),
            ports::Standing::Open { at, .. } => ("open", Some(at), None),
            ports::Standing::Failed { at, reason } => ("failed", Some(at), Some(reason)),
        };
        json!({ "name": &*port.listener, "address": at, "standing": standing, "reason": reason })
    };
    Json(json!({ "listeners": pages.ports.shown().into_iter().map(shown).collect::<Vec<_>>() }))
}

async fn drain(State(pages): State<Pages>) -> &'static str {
    pages.drain.cancel();
    "draining\n"
}

#[cfg(test)]
mod tests {
    use chancery_proto::{Message as _, envoy::tls::Secret};

    use super::*;

    #[test]
    fn keys_are_not_shown() {
        let mut value = json!({ "a": [{ "transport_socket": { "b": 1 } }], "private_key": "x", "c": "d" });
        hide(&mut value);
        assert_eq!(value, json!({ "a": [{ "transport_socket": "hidden" }], "private_key": "hidden", "c": "d" }));
        let secret = Secret { name: "own".to_owned(), ..Secret::default() };
        assert_eq!(shown(type_url::SECRET, &secret.encode_to_vec()), "hidden");
    }
}
