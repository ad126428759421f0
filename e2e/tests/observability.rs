//! What operators watch: every metric and label that a rule or a dashboard uses is exported, every metric says what it means, every
//! alert fires when it should and has a page that says what to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::Authority,
    client::{fetch, get},
    control_plane::ControlPlane,
    dev::{Dev, free_offset},
    document::{fleet, listener, route_saying},
    limiter::Limiter,
    postgres::Postgres,
    redis::Redis,
    required,
    wait::until,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// How long it may take until what is looked at every ten seconds has been.
const MEASURED: Duration = Duration::from_secs(40);

/// Labels that a scrape adds.
const OF_SCRAPES: [&str; 2] = ["instance", "job"];

/// Metrics that have no series before something happens that does not happen here, with the labels they have then.
const ONLY_WHEN: [(&str, &[&str]); 7] = [
    ("chancery_sidecar_retries_not_made_total", &["cluster", "reason"]),
    ("chancery_sidecar_retries_total", &["cluster", "reason"]),
    ("chancery_sidecar_route_requests_total", &["cluster", "outcome", "route"]),
    ("chancery_sidecar_tcp_connections_open", &["cluster"]),
    ("chancery_sidecar_tcp_failures_total", &["cluster", "reason"]),
    ("chancery_sidecar_tcp_bytes_total", &["cluster", "direction"]),
    ("chancery_xds_streams_refused_total", &["reason"]),
];

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// The labels of every series, by name.
type Exported = BTreeMap<String, BTreeSet<String>>;

/// Adds what a program exports, and checks that each metric says what it means.
fn read(program: &str, text: &str, exported: &mut Exported) -> Result<()> {
    let meant: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap_or_default();
        ensure!(meant.contains(name), "{program}: {name} does not say what it means");
    }
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let labels = exported.entry(name.to_owned()).or_default();
        if let Some((_, rest)) = line.split_once('{') {
            labels.extend(labels_in(rest));
        }
    }
    Ok(())
}

/// The names before each `="`, `=~"` and so on, up to the closing brace.
fn labels_in(selector: &str) -> Vec<String> {
    let mut labels = Vec::new();
    let mut rest = selector;
    while let Some(end) = rest.find(['=', '!', '}']) {
        if rest[end..].starts_with('}') {
            break;
        }
        labels.push(rest[..end].trim_matches([',', ' ']).to_owned());
        // Over the value, in which a quote may be escaped.
        let Some(open) = rest[end..].find('"') else { break };
        let mut value = rest[end + open + 1..].char_indices();
        let mut escaped = false;
        let close = value.find(|(_, c)| {
            let closes = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            closes
        });
        let Some((close, _)) = close else { break };
        rest = &rest[end + open + 1 + close + 1..];
    }
    labels
}

/// What an expression uses: metrics with the labels that select of them, and labels that it groups by.
fn used(expression: &str) -> (Vec<(String, Vec<String>)>, Vec<String>) {
    let mut metrics = Vec::new();
    for (at, _) in expression.match_indices("chancery_") {
        let rest = &expression[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let selector = rest[end..].strip_prefix('{').map(labels_in).unwrap_or_default();
        metrics.push((rest[..end].to_owned(), selector));
    }
    let groups = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    (metrics, groups.flat_map(|names| names.split(',')).map(|name| name.trim().to_owned()).collect())
}

/// Whether everything in an expression is exported.
fn check(place: &str, expression: &str, exported: &Exported, missing: &mut BTreeSet<String>) {
    let (metrics, groups) = used(expression);
    let mut all = BTreeSet::new();
    for (metric, labels) in &metrics {
        let Some(known) = exported.get(metric) else {
            missing.insert(format!("{place}: {metric}"));
            continue;
        };
        all.extend(known.iter().map(String::as_str));
        for label in labels {
            if !known.contains(label) && !OF_SCRAPES.contains(&label.as_str()) {
                missing.insert(format!("{place}: {metric} has no label {label}"));
            }
        }
    }
    for label in groups {
        if !all.contains(label.as_str()) && !OF_SCRAPES.contains(&label.as_str()) {
            missing.insert(format!("{place}: groups by {label}: {expression}"));
        }
    }
}

/// Every text that is an expression in a dashboard, with the labels that the legend shows.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            if let Some(expression) = text("expr").or_else(|| text("query").filter(|query| query.contains("chancery_")))
            {
                // A label in a legend has to be one that the expression leaves.
                let shown = text("legendFormat").unwrap_or_default().split("{{").skip(1);
                let shown: Vec<&str> = shown.filter_map(|rest| rest.split("}}").next()).collect();
                found.push(format!("{expression} by ({})", shown.join(", ")).replace(" by ()", ""));
            }
            fields.values().for_each(|field| expressions(field, found));
        }
        _ => {}
    }
}

/// What the programs export, with Postgres, Redis and a validating Envoy, after a little of everything.
async fn exported(folder: &Path) -> Result<Option<Exported>> {
    let (Some(envoy), Some(postgres), Some(redis)) =
        (required::envoy(), Postgres::shared().await?, Redis::start(folder).await?)
    else {
        return Ok(None);
    };
    let mut exported: Exported = ONLY_WHEN
        .iter()
        .map(|(name, labels)| ((*name).to_owned(), labels.iter().map(|label| (*label).to_owned()).collect()))
        .collect();

    let dev = Dev::start(folder, free_offset()?, &[]).await?;
    dev.until_refused(50).await?;
    for path in ["/any", "/limited"] {
        fetch(dev.address("sidecarOutbound")?, get("demo.localhost", path)).await?;
    }
    // Not TLS.
    let mut stranger = TcpStream::connect(dev.address("xdsAddress")?).await?;
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
    let _ = stranger.read_to_end(&mut Vec::new()).await;
    until("dev has measured everything", MEASURED, async || {
        let text = fetch(dev.address("adminUrl")?, get("admin", "/metrics")).await?.text();
        for metric in [
            "chancery_proxies",
            "chancery_store_bytes",
            "chancery_tls_handshakes_refused_total",
            "chancery_load_reports_total",
        ] {
            ensure!(text.contains(&format!("\n{metric}")), "no {metric} yet");
        }
        Ok(())
    })
    .await?;
    read("dev", &fetch(dev.address("adminUrl")?, get("admin", "/metrics")).await?.text(), &mut exported)?;

    let limits = folder.join("limits.yaml");
    fs::write(
        &limits,
        "domain: shop\ndescriptors:\n  - key: client\n    rate_limit: { unit: minute, requests_per_unit: 9 }\n",
    )?;
    let limits = limits.to_str().context("a path that is no text")?;
    let limiter = Limiter::start(folder, "limiter", &["--config", limits, "--store", &redis.url()]).await?;
    let mut client = limiter.client().await?;
    client.passes("shop", &[("client", "a")]).await?;
    until("the limiter has measured everything", MEASURED, async || {
        let text = limiter.metrics().await?;
        ensure!(text.contains("\nchancery_rate_limiter_redis_memory_used_bytes"), "nothing of Redis' memory yet");
        Ok(())
    })
    .await?;
    read("limiter", &limiter.metrics().await?, &mut exported)?;

    let authority = Authority::create(folder, "authority")?;
    let database = postgres.create_database().await?;
    let mut control_plane = ControlPlane::start(folder, "control-plane", &database, &authority).await?;
    let envoy = envoy.to_str().context("a path that is no text")?;
    // An issuer that is away is measured too.
    let issuer =
        ["--oidc-issuer", "https://127.0.0.1:9", "--oidc-audience", "chancery", "--oidc-grant", "viewer=staff"];
    control_plane.start_again_with(&[&["--envoy-validate", envoy][..], &issuer].concat()).await?;
    control_plane
        .caller()
        .apply(&[fleet("edge"), listener("web", "edge", 10_000), route_saying("hello", "a.example.com", "hello")])
        .await?;
    let read_all = async || Ok::<_, anyhow::Error>(fetch(control_plane.admin, get("admin", "/metrics")).await?.text());
    until("the control plane has measured everything", MEASURED, async || {
        ensure!(read_all().await?.contains("\nchancery_store_server_connections"), "nothing of Postgres yet");
        Ok(())
    })
    .await?;
    read("control plane", &read_all().await?, &mut exported)?;
    Ok(Some(exported))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rules_and_dashboards_use_is_exported() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(exported) = exported(folder.path()).await? else { return Ok(()) };
    let mut missing = BTreeSet::new();
    let rules = fs::read_to_string(deploy("prometheus/rules/chancery.yml"))?;
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    ensure!(!alerts.is_empty(), "there are no alerts");
    for alert in alerts {
        let (name, rest) = alert.split_once('\n').context("an alert without anything")?;
        let expression = rest.split("expr: >-").nth(1).and_then(|rest| rest.split("labels:").next());
        let expression = expression.with_context(|| format!("{name} has no expression"))?;
        check(name, &expression.split_whitespace().collect::<Vec<_>>().join(" "), &exported, &mut missing);
    }
    let mut dashboards = 0;
    for file in fs::read_dir(deploy("grafana/dashboards"))? {
        let path = file?.path();
        let mut found = Vec::new();
        expressions(&serde_json::from_slice(&fs::read(&path)?)?, &mut found);
        ensure!(!found.is_empty(), "{} asks for nothing", path.display());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.iter().for_each(|expression| check(&name, expression, &exported, &mut missing));
        dashboards += 1;
    }
    ensure!(dashboards == 5, "{dashboards} dashboards");
    ensure!(missing.is_empty(), "not exported:\n{}", missing.into_iter().collect::<Vec<_>>().join("\n"));
    Ok(())
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() -> Result<()> {
    let Some([promtool, amtool]) = required::prometheus_tools() else { return Ok(()) };
    let run = |program: &Path, arguments: &[&str], file: &str| -> Result<()> {
        let output = Command::new(program).args(arguments).arg(deploy(file)).output()?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{file}: {said}");
        Ok(())
    };
    run(&promtool, &["check", "config", "--syntax-only"], "prometheus/prometheus.yml")?;
    run(&promtool, &["check", "rules"], "prometheus/rules/chancery.yml")?;
    run(&promtool, &["test", "rules"], "prometheus/rules/chancery_test.yml")?;
    run(&amtool, &["check-config"], "alertmanager/alertmanager.yml")
}

#[test]
fn every_alert_is_tested_and_has_a_page() -> Result<()> {
    let names = |text: &str, before: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix(before));
        lines.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    let rules = fs::read_to_string(deploy("prometheus/rules/chancery.yml"))?;
    let alerts = names(&rules, "- alert: ");
    let tested = names(&fs::read_to_string(deploy("prometheus/rules/chancery_test.yml"))?, "alertname: ");
    assert_eq!(alerts, tested);
    let pages = names(&fs::read_to_string(deploy("../docs/operations/alerts.md"))?, "### ");
    assert_eq!(alerts, pages);
    for alert in &alerts {
        let page = format!(
            "runbook_url: https://github.com/chancery/chancery/blob/main/docs/operations/alerts.md#{}",
            alert.to_lowercase()
        );
        ensure!(rules.contains(&page), "{alert} does not lead to its page");
    }
    Ok(())
}

#[test]
fn expressions_are_read() {
    let (metrics, groups) =
        used("sum by (le, type) (rate(chancery_a_total{x=\"1,}\\\"\",y!~\"b\"}[5m])) / chancery_b offset 10m");
    let labels: Vec<_> = metrics.iter().map(|(name, labels)| (name.as_str(), labels.join(" "))).collect();
    assert_eq!(labels, [("chancery_a_total", "x y".to_owned()), ("chancery_b", String::new())]);
    assert_eq!(groups, ["le", "type"]);
}
