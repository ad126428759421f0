//! Proxies tell the control plane which requests they see, and a plan says which of them a change would move: by a real Envoy, and by
//! clients that would lie.

use std::fs;

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::{Authority, Identity},
    client::request,
    command::User,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{fleet, listener, route, service},
    over_both_protocols,
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use chancery_proto::envoy::{
    access_log_data::{HttpAccessLogEntry, HttpRequestProperties},
    access_log_service::{
        StreamAccessLogsMessage, StreamAccessLogsResponse,
        access_log_service_client::AccessLogServiceClient,
        stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries},
    },
    core::{Node, RequestMethod},
};
use http::Method;
use serde_json::json;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Response, Status,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity as TlsIdentity},
};

/// A host of the routes here.
const HOST: &str = "shop.example.com";

over_both_protocols!(Delta in delta: what_a_fleet_has_seen_can_be_asked_about);

async fn what_a_fleet_has_seen_can_be_asked_about(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let mut web = listener("web", "edge", scene.web.port());
    web["spec"]["accessLogs"] = json!([{ "to": { "controlPlane": true } }]);
    let rules = |cart: &str| {
        json!([
            { "match": { "path": { "prefix": "/old" } }, "to": [{ "service": "shop" }], "rewrite": { "prefix": "/new", "host": "inner" } },
            { "match": { "path": { "exact": "/cart" } }, "to": [{ "service": cart }] },
            { "to": [{ "service": "shop" }] },
        ])
    };
    let services = [service("shop", &[upstream.address]), service("next", &[upstream.address])];
    scene.api.apply_and_wait(&[&services[..], &[web, route("shop", HOST, &rules("shop"))]].concat()).await?;
    for path in ["/cart?token=secret", "/cart?token=other", "/old/a?b=c", "/"] {
        scene.fetch(request(Method::GET, HOST, path, &[("cookie", "secret")])).await?;
    }
    let seen = until("everything is told", PATIENCE, async || {
        let seen = scene.api.read("/api/v1/traffic?fleet=edge").await?;
        ensure!(seen["requests"] == 4, "{seen}");
        Ok(seen)
    })
    .await?;
    let items = seen["items"].as_array().context("items")?;
    ensure!(!seen.to_string().contains("secret") && items.len() == 3, "{seen}");
    let of = |path: &str| {
        let item = items.iter().find(|item| item["path"] == path && item["authority"] == HOST);
        item.and_then(|item| item["count"].as_u64())
    };
    assert_eq!([of("/cart"), of("/old/a"), of("/")], [Some(2), Some(1), Some(1)], "{seen}");

    // What a change would move of it, by the API and by the command.
    let change = route("shop", HOST, &rules("next"));
    let question = json!({ "seen": { "fleet": "edge" }, "resources": [change] });
    let plan = scene.api.json(Method::POST, "/api/v1/plan/traffic", Some(&question)).await?.json()?;
    assert_eq!((&plan["requests"], &plan["movedRequests"]), (&4.into(), &2.into()), "{plan}");
    assert_eq!(plan["moved"][0]["request"]["path"], "/cart", "{plan}");
    let both = json!({ "seen": { "fleet": "edge" }, "requests": [], "resources": [] });
    assert_eq!(scene.api.json(Method::POST, "/api/v1/plan/traffic", Some(&both)).await?.status, 422);
    let user = User::in_folder(scene.folder()).of(&format!("http://{}", scene.control_plane.api), ADMIN_TOKEN);
    fs::write(scene.folder().join("change.yaml"), change.to_string())?;
    let planned = user.asks("plan -f change.yaml --seen --fleet edge -o json").await?;
    assert_eq!(planned["traffic"]["movedRequests"], 2, "{planned}");
    let shown = user.asks("traffic edge -o json").await?;
    assert_eq!(shown["requests"], 4, "{shown}");
    let nowhere = scene.api.json(Method::GET, "/api/v1/traffic?fleet=nowhere", None).await?;
    assert_eq!(nowhere.status, 404, "{}", nowhere.text());

    Ok(())
}

/// A client that tells what it likes.
struct Teller {
    messages: mpsc::Sender<StreamAccessLogsMessage>,
    ended: JoinHandle<Result<Response<StreamAccessLogsResponse>, Status>>,
}

impl Teller {
    async fn open(
        control_plane: &ControlPlane,
        authority: &Authority,
        identity: &Identity,
        node: Option<(&str, &str)>,
    ) -> Result<Self> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(fs::read(authority.file())?))
            .identity(TlsIdentity::from_pem(fs::read(&identity.certificate)?, fs::read(&identity.key)?))
            .domain_name("localhost");
        let channel = Endpoint::new(format!("https://{}", control_plane.xds))?.tls_config(tls)?.connect().await?;
        let (messages, receiver) = mpsc::channel(4);
        let node = node.map(|(cluster, id)| Node { id: id.into(), cluster: cluster.into(), ..Node::default() });
        let identifier = Some(Identifier { node, log_name: "any".into() });
        messages.send(StreamAccessLogsMessage { identifier, log_entries: None }).await?;
        let mut client = AccessLogServiceClient::new(channel);
        let ended = tokio::spawn(async move { client.stream_access_logs(ReceiverStream::new(receiver)).await });
        Ok(Self { messages, ended })
    }

    async fn tell(&self, requests: impl IntoIterator<Item = (i32, String)>) -> Result<()> {
        let entry = |(request_method, path)| HttpAccessLogEntry {
            request: Some(HttpRequestProperties {
                request_method,
                authority: HOST.into(),
                path,
                ..HttpRequestProperties::default()
            }),
            ..HttpAccessLogEntry::default()
        };
        let log_entry = requests.into_iter().map(entry).collect();
        let log_entries = Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry }));
        Ok(self.messages.send(StreamAccessLogsMessage { identifier: None, log_entries }).await?)
    }

    /// Why it was ended.
    async fn ended(self) -> Result<Status> {
        let ended = tokio::time::timeout(PATIENCE, self.ended).await.context("it goes on")??;
        ended.err().context("it was taken")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_tells_of_its_own_fleet_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    let api = control_plane.caller();
    api.apply(&[fleet("edge"), fleet("inner")]).await?;
    let (inner, limiter) = (authority.proxy("inner", "one")?, authority.rate_limiter("one")?);
    let ghost = authority.proxy("ghost", "one")?;
    for (identity, node, code) in [
        (&inner, Some(("edge", "one")), Code::PermissionDenied),
        (&inner, Some(("inner", "two")), Code::PermissionDenied),
        (&limiter, Some(("rate-limiter", "one")), Code::PermissionDenied),
        (&ghost, Some(("ghost", "one")), Code::PermissionDenied),
        (&inner, None, Code::InvalidArgument),
    ] {
        let refused = Teller::open(&control_plane, &authority, identity, node).await?.ended().await?;
        assert_eq!(refused.code(), code, "{node:?}: {refused:?}");
    }

    // One that is let in tells more than is kept, and what is none.
    let get = i32::from(RequestMethod::Get);
    let own = Teller::open(&control_plane, &authority, &inner, Some(("inner", "one"))).await?;
    own.tell((0..3000).map(|number| (get, format!("/{number}")))).await?;
    own.tell([(99, "/".into()), (-1, "/".into()), (get, String::new()), (get, "/".repeat(60_000))]).await?;
    let seen = until("all of it is told", PATIENCE, async || {
        let seen = api.read("/api/v1/traffic?fleet=inner").await?;
        ensure!(seen["requests"] == 3004, "{}", seen["requests"]);
        Ok(seen)
    })
    .await?;
    assert_eq!((&seen["leftOut"], seen["items"].as_array().map(Vec::len)), (&4.into(), Some(1000)));
    assert_eq!(seen["items"][0]["path"], "/2999");
    assert_eq!(api.read("/api/v1/traffic?fleet=edge").await?["requests"], 0);
    own.tell([(get, "/".repeat(2 << 20))]).await?;
    let refused = own.ended().await?;
    ensure!(
        matches!(refused.code(), Code::ResourceExhausted | Code::OutOfRange | Code::InvalidArgument),
        "{refused:?}"
    );

    // With the fleet goes what it has seen, and who tells of it.
    let last = Teller::open(&control_plane, &authority, &inner, Some(("inner", "one"))).await?;
    last.tell([(get, "/last".into())]).await?;
    until("it is told", PATIENCE, async || {
        let seen = api.read("/api/v1/traffic?fleet=inner").await?;
        ensure!(seen["requests"] == 3005, "{}", seen["requests"]);
        Ok(())
    })
    .await?;
    api.delete("Fleet", "inner").await?;
    assert_eq!(last.ended().await?.code(), Code::Unavailable);
    api.apply(&[fleet("inner")]).await?;
    assert_eq!(api.read("/api/v1/traffic?fleet=inner").await?["requests"], 0);
    Ok(())
}
