//! What is where: `dev.json` for programs, a summary for people.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr, path::Path, path::PathBuf};

use anyhow::{Context as _, Result};
use chancery_runtime::{SecretString, file};
use serde::{Serialize, Serializer};

use super::chaos::{self, Endpoint};

/// Everything that a test or script needs to use a running `chancery dev`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Facts {
    pub(super) ready: bool,
    pub(super) api_url: String,
    /// The file is for its owner only, and without the token it would be of no use.
    #[serde(serialize_with = "exposed")]
    pub(super) admin_token: SecretString,
    pub(super) admin_url: String,
    pub(super) xds_address: SocketAddr,
    pub(super) ca_file: PathBuf,
    pub(super) client_cert_file: PathBuf,
    pub(super) client_key_file: PathBuf,
    pub(super) fleet: String,
    pub(super) proxy_id: String,
    pub(super) envoy_listener: Option<SocketAddr>,
    pub(super) envoy_admin: Option<SocketAddr>,
    pub(super) envoy_version: Option<String>,
    pub(super) rate_limiter_grpc: SocketAddr,
    pub(super) rate_limiter_http: SocketAddr,
    pub(super) sidecar_inbound: SocketAddr,
    pub(super) sidecar_outbound: SocketAddr,
    pub(super) sidecar_admin: SocketAddr,
    pub(super) upstreams: Vec<SocketAddr>,
    /// Those of `--chaos`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) chaos: Vec<Endpoint>,
    pub(super) pids: BTreeMap<String, u32>,
}

fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// The addresses of the ready line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Addresses {
    api: String,
    xds: SocketAddr,
    admin: String,
    rate_limiter_grpc: SocketAddr,
    rate_limiter_http: SocketAddr,
    sidecar_inbound: SocketAddr,
    sidecar_outbound: SocketAddr,
    sidecar_admin: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    envoy: Option<SocketAddr>,
}

impl Facts {
    /// Writes `dev.json` in one step, for its owner only.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut contents = serde_json::to_vec_pretty(self)?;
        contents.push(b'\n');
        file::replace(path, &contents, file::PRIVATE).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What the ready line says. No token: stdout is kept by whoever collects it.
    pub(super) fn addresses(&self) -> Addresses {
        let address = |url: &str| url.trim_start_matches("http://").to_owned();
        Addresses {
            api: address(&self.api_url),
            xds: self.xds_address,
            admin: address(&self.admin_url),
            rate_limiter_grpc: self.rate_limiter_grpc,
            rate_limiter_http: self.rate_limiter_http,
            sidecar_inbound: self.sidecar_inbound,
            sidecar_outbound: self.sidecar_outbound,
            sidecar_admin: self.sidecar_admin,
            envoy: self.envoy_listener,
        }
    }

    /// The same for people, with something to try; `program` is how they called us.
    pub(super) fn summary(&self, data: &Path, program: &str) -> String {
        let mut text = String::from("\nChancery is ready.\n\n");
        let mut line = |what: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {what:<13}{value}");
        };
        line("API", format!("{}  (documentation: {}/docs)", self.api_url, self.api_url));
        line("admin token", self.admin_token.expose().clone());
        if let (Some(listener), Some(admin), Some(version)) =
            (self.envoy_listener, self.envoy_admin, &self.envoy_version)
        {
            let proxy = format!("{}/{}", self.fleet, self.proxy_id);
            line("Envoy", format!("http://{listener}  ({version}, proxy {proxy}, its admin page: http://{admin})"));
        }
        let limits =
            format!("{} (mutual TLS), limits: http://{}/limits", self.rate_limiter_grpc, self.rate_limiter_http);
        line("rate limiter", limits);
        let sidecar = format!(
            "before demo-a: {} (mutual TLS), for its own calls: http://{}, its pages: http://{}/clusters",
            self.sidecar_inbound, self.sidecar_outbound, self.sidecar_admin
        );
        line("sidecar", sidecar);
        line("xDS", format!("{}  (mutual TLS)", self.xds_address));
        line("health", format!("{}/readyz, /metrics", self.admin_url));
        if let [a, b] = self.upstreams.as_slice() {
            line("upstreams", format!("demo-a http://{a}, demo-b http://{b}"));
        }
        for Endpoint { name, address, control } in &self.chaos {
            line("chaos", format!("{name} http://{address}, its faults: http://{control}/chaos"));
        }
        line("data", data.display().to_string());

        text.push_str("\nTry, in another terminal:\n\n");
        for command in self.suggestions(program) {
            let _ = writeln!(text, "  {command}");
        }
        text.push_str("\nCtrl-C stops all of it; the data stays.\n");
        text
    }

    /// Commands to try.
    fn suggestions(&self, program: &str) -> Vec<String> {
        if let Some(endpoint) = self.chaos.last() {
            return self.watch_a_breaker(endpoint);
        }
        let routes = format!("{program} get routes");
        let called =
            format!("curl http://{}/any/path    # the same routes, as the sidecar takes them", self.sidecar_outbound);
        match self.envoy_listener {
            Some(listener) => {
                let request = format!("curl http://{listener}/any/path    # nine of ten go to demo-a");
                let limited = format!("curl -i http://{listener}/limited     # five times, then 429 for a while");
                vec![request, limited, called, routes, format!("{program} proxies")]
            }
            None => vec![called, routes, format!("{program} describe route demo"), format!("{program} history")],
        }
    }

    /// How to see the breaker of the endpoint that fails.
    fn watch_a_breaker(&self, failing: &Endpoint) -> Vec<String> {
        let Endpoint { name, control, .. } = failing;
        let ask = format!("curl -s -H 'Host: {}' http://{}", chaos::HOST, self.sidecar_outbound);
        vec![
            format!("for i in $(seq 80); do {ask} | head -n 1; sleep 0.1; done    # through the sidecar: who answers"),
            format!("curl 'http://{}/clusters?format=text'    # whose breaker is open", self.sidecar_admin),
            format!("curl -X PUT http://{control}/chaos -d '{{}}'    # {name} is well again"),
            format!("curl -X PUT http://{control}/chaos -d '{}'    # and fails again", chaos::FAULTS),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::dev::ports::Ports;

    fn facts() -> Facts {
        Facts {
            ready: true,
            api_url: "http://127.0.0.1:8080".to_owned(),
            admin_token: "chy_token".to_owned().into(),
            admin_url: "http://127.0.0.1:9900".to_owned(),
            xds_address: "127.0.0.1:18000".parse().unwrap(),
            ca_file: "/data/proxy/ca.crt".into(),
            client_cert_file: "/data/proxy/tls.crt".into(),
            client_key_file: "/data/proxy/tls.key".into(),
            fleet: "edge".to_owned(),
            proxy_id: "dev-1".to_owned(),
            envoy_listener: Some("127.0.0.1:10000".parse().unwrap()),
            envoy_admin: Some("127.0.0.1:9901".parse().unwrap()),
            envoy_version: Some("1.40.0".to_owned()),
            rate_limiter_grpc: "127.0.0.1:8081".parse().unwrap(),
            rate_limiter_http: "127.0.0.1:6070".parse().unwrap(),
            sidecar_inbound: "127.0.0.1:15006".parse().unwrap(),
            sidecar_outbound: "127.0.0.1:15001".parse().unwrap(),
            sidecar_admin: "127.0.0.1:15020".parse().unwrap(),
            upstreams: vec!["127.0.0.1:10081".parse().unwrap(), "127.0.0.1:10082".parse().unwrap()],
            chaos: Vec::new(),
            pids: [("envoy".to_owned(), 7)].into(),
        }
    }

    #[test]
    fn the_file_has_what_scripts_rely_on_and_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dev.json");
        facts().write(&path).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(
            written,
            serde_json::json!({
                "ready": true,
                "apiUrl": "http://127.0.0.1:8080",
                "adminToken": "chy_token",
                "adminUrl": "http://127.0.0.1:9900",
                "xdsAddress": "127.0.0.1:18000",
                "caFile": "/data/proxy/ca.crt",
                "clientCertFile": "/data/proxy/tls.crt",
                "clientKeyFile": "/data/proxy/tls.key",
                "fleet": "edge",
                "proxyId": "dev-1",
                "envoyListener": "127.0.0.1:10000",
                "envoyAdmin": "127.0.0.1:9901",
                "envoyVersion": "1.40.0",
                "rateLimiterGrpc": "127.0.0.1:8081",
                "rateLimiterHttp": "127.0.0.1:6070",
                "sidecarInbound": "127.0.0.1:15006",
                "sidecarOutbound": "127.0.0.1:15001",
                "sidecarAdmin": "127.0.0.1:15020",
                "upstreams": ["127.0.0.1:10081", "127.0.0.1:10082"],
                "pids": { "envoy": 7 },
            })
        );
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_ready_line_has_addresses_and_no_token() {
        let line = serde_json::to_string(&facts().addresses()).unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"api":"127.0.0.1:8080","xds":"127.0.0.1:18000","admin":"127.0.0.1:9900","#,
                r#""rateLimiterGrpc":"127.0.0.1:8081","rateLimiterHttp":"127.0.0.1:6070","#,
                r#""sidecarInbound":"127.0.0.1:15006","sidecarOutbound":"127.0.0.1:15001","sidecarAdmin":"127.0.0.1:15020","#,
                r#""envoy":"127.0.0.1:10000"}"#
            )
        );
    }

    #[test]
    fn the_summary_offers_commands_that_fit() {
        let commands = |facts: &Facts| {
            let summary = facts.summary(Path::new("/data"), "target/debug/chancery");
            let try_out = summary.split_once("Try").unwrap().1;
            try_out.lines().filter_map(|line| line.strip_prefix("  ").map(str::to_owned)).collect::<Vec<_>>()
        };
        let with_envoy = commands(&facts());
        assert_eq!(with_envoy.len(), 5);
        assert!(with_envoy[0].starts_with("curl http://127.0.0.1:10000/any/path"), "{with_envoy:?}");
        assert!(with_envoy[1].contains("http://127.0.0.1:10000/limited"), "{with_envoy:?}");
        let without = commands(&Facts { envoy_listener: None, ..facts() });
        assert_eq!(without.len(), 4);
        assert!(without[0].starts_with("curl http://127.0.0.1:15001/any/path"), "{without:?}");
        assert!(without[1..].iter().all(|command| command.starts_with("target/debug/chancery ")), "{without:?}");
    }

    #[test]
    fn with_chaos_it_says_where_the_endpoints_are_and_how_to_heal_the_one_that_fails() {
        let endpoints = chaos::endpoints(&Ports::with_offset(0));
        let with_chaos = Facts { chaos: endpoints, ..facts() };
        let written = serde_json::to_value(&with_chaos).unwrap();
        assert_eq!(
            written["chaos"][2],
            serde_json::json!({ "name": "demo-chaos-3", "address": "127.0.0.1:10085", "control": "127.0.0.1:10095" })
        );
        let summary = with_chaos.summary(Path::new("/data"), "chancery");
        for line in [
            "  chaos        demo-chaos-2 http://127.0.0.1:10084, its faults: http://127.0.0.1:10094/chaos\n",
            "do curl -s -H 'Host: chaos.example.com' http://127.0.0.1:15001 | head -n 1; sleep 0.1; done ",
            "curl 'http://127.0.0.1:15020/clusters?format=text' ",
            "curl -X PUT http://127.0.0.1:10095/chaos -d '{}' ",
            r#"curl -X PUT http://127.0.0.1:10095/chaos -d '{"faults": {"error": 1}}' "#,
        ] {
            assert!(summary.contains(line), "{line} is not in {summary}");
        }
        assert!(chaos::FAULTS.parse::<crate::demo::Chaos>().is_ok());
    }
}
