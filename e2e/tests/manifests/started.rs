//! What is started of our image, by compose and in Kubernetes: whether the program takes it, is where others look for it, and
//! answers what it is asked.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use chancery_e2e::{
    compose::{Compose, documents, read},
    process::own_program,
    required::deploy_tool,
};
use serde_json::Value;

use crate::{IMAGE, containers, deploy, items, pods, runs, text, texts};

/// The ports of DESIGN: program, setting, port. The last of each program is where it is asked how it is.
pub(crate) const PORTS: [(&str, &str, u16); 8] = [
    ("chancery-control-plane", "api_addr", 8080),
    ("chancery-control-plane", "xds_addr", 18000),
    ("chancery-control-plane", "admin_addr", 9900),
    ("chancery-rate-limiter", "grpc_addr", 8081),
    ("chancery-rate-limiter", "http_addr", 6070),
    ("chancery-sidecar", "inbound_addr", 15006),
    ("chancery-sidecar", "outbound_addr", 15001),
    ("chancery-sidecar", "admin_addr", 15020),
];

/// A container of our image, wherever it is written.
#[derive(Debug)]
pub(crate) struct Started {
    place: String,
    command: Vec<String>,
    environment: BTreeMap<String, String>,
    /// Files that it sees, and where they are here.
    files: BTreeMap<String, PathBuf>,
    /// Ports that it is said to have.
    ports: Vec<u64>,
    /// Port and path by which it is asked how it is.
    probes: Vec<(u64, String)>,
}

impl Started {
    /// Whether this is the program.
    fn runs(&self, program: &str) -> bool {
        self.command.first().is_some_and(|name| name == program)
    }

    /// What the program makes of it: each setting.
    fn settings(&self) -> Result<BTreeMap<String, String>> {
        let here = |argument: &String| self.files.get(argument).cloned().unwrap_or_else(|| argument.into());
        let mut command = Command::new(own_program(&self.command[0])?);
        let output = command
            .args(self.command[1..].iter().map(here))
            .envs(&self.environment)
            .arg("--print-settings")
            .output()?;
        ensure!(output.status.success(), "{}: {}", self.place, String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout)?;
        let lines = printed.lines().filter_map(|line| line.split_once(" = "));
        Ok(lines.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect())
    }

    /// Checks that the program takes what it is started with, is where others look for it, and answers what it is asked.
    pub(crate) fn check(&self, known_variables: &str) -> Result<()> {
        let Self { place, command, .. } = self;
        for name in self.environment.keys().filter(|name| name.starts_with("CHANCERY_")) {
            let known = known_variables.contains(&format!("`{name}`")) || name == "CHANCERY_LOG";
            ensure!(known, "{place}: there is no {name}");
        }
        let ours: Vec<(&str, u16)> =
            PORTS.iter().filter(|(program, ..)| program == &command[0]).map(|&(_, key, port)| (key, port)).collect();
        if ours.is_empty() {
            return self.check_command();
        }
        let settings = self.settings()?;
        for (key, port) in &ours {
            let address = settings.get(*key).with_context(|| format!("{place}: no {key}"))?;
            ensure!(address.ends_with(&format!(":{port}")), "{place}: {key} is {address}, not at {port}");
        }
        for port in &self.ports {
            ensure!(ours.iter().any(|(_, ours)| u64::from(*ours) == *port), "{place} has no port {port}");
        }
        ensure!(!self.probes.is_empty(), "{place} is not asked how it is");
        let asked = u64::from(ours.last().context("no ports")?.1);
        for (port, path) in &self.probes {
            ensure!(*port == asked && ["/livez", "/readyz"].contains(&path.as_str()), "{place}: {port}{path}");
        }
        Ok(())
    }

    /// Of `chancery`: that its command has these flags.
    fn check_command(&self) -> Result<()> {
        let [program, command, arguments @ ..] = &self.command[..] else { bail!("{}: {:?}", self.place, self.command) };
        let help = runs(&own_program(program)?, &[command, "--help"])?;
        for flag in arguments.iter().filter(|argument| argument.starts_with("--")) {
            ensure!(help.contains(&format!("{flag} ")), "{}: {command} has no {flag}", self.place);
        }
        for (port, _) in &self.probes {
            ensure!(arguments.iter().any(|argument| argument.ends_with(&format!(":{port}"))), "{}: {port}", self.place);
        }
        Ok(())
    }
}

/// Containers of our image in the compose file, with what was prepared.
pub(crate) fn of_compose(secrets: &Path) -> Result<Vec<Started>> {
    let compose: Compose = read(&deploy("compose/compose.yaml"))?;
    let ours = compose.services.iter().filter(|(_, service)| service.image == IMAGE);
    ours.map(|(name, service)| {
        let secret = |name: &String| (format!("/run/secrets/{name}"), secrets.join(name));
        let mounted = |(source, target): (&str, &str)| (target.to_owned(), deploy("compose").join(source));
        let probe = service.health_url().map(|url| {
            let rest = url.strip_prefix("http://127.0.0.1:").context("not of itself")?;
            let (port, path) = rest.split_once('/').context("no path")?;
            anyhow::Ok((port.parse()?, format!("/{path}")))
        });
        Ok(Started {
            place: format!("compose: {name}"),
            command: service.command.clone(),
            environment: service.environment.clone(),
            files: service.secrets.iter().map(secret).chain(service.mounts().map(mounted)).collect(),
            ports: service.ports.iter().filter_map(|port| port.rsplit(':').next()?.parse().ok()).collect(),
            probes: probe.transpose().with_context(|| name.clone())?.into_iter().collect(),
        })
    })
    .collect()
}

/// Containers of our image in the plain manifests; their settings files are written to `folder`.
pub(crate) fn of_kubernetes(manifests: &[Value], folder: &Path) -> Result<Vec<Started>> {
    let config =
        manifests.iter().find(|object| object["kind"] == "ConfigMap" && object["data"]["sidecar.toml"].is_string());
    for (name, content) in config.context("no settings")?["data"].as_object().into_iter().flatten() {
        fs::write(folder.join(name), text(content))?;
    }
    let mut started = Vec::new();
    for (name, pod) in pods(manifests) {
        for container in containers(pod).filter(|container| container["image"] == IMAGE) {
            let place = format!("kubernetes: {name}/{}", text(&container["name"]));
            let port = |named: &Value| -> Result<u64> {
                let found = items(&container["ports"]).iter().find(|port| port["name"] == *named);
                found
                    .and_then(|port| port["containerPort"].as_u64())
                    .with_context(|| format!("{place}: no port {named}"))
            };
            let probes = ["startupProbe", "livenessProbe", "readinessProbe"]
                .into_iter()
                .map(|probe| &container[probe]["httpGet"]);
            let probes = probes.filter(|probe| probe.is_object());
            let variable = |variable: &Value| {
                let secret = text(&variable["valueFrom"]["secretKeyRef"]["name"]);
                let value = match secret {
                    "chancery-database" => "postgres://chancery@db/chancery",
                    "chancery-store" => "redis://redis:6379",
                    _ => variable["value"].as_str().unwrap_or("name"),
                };
                (text(&variable["name"]).to_owned(), value.to_owned())
            };
            let file =
                |mount: &Value| Some((text(&mount["mountPath"]).to_owned(), folder.join(mount["subPath"].as_str()?)));
            started.push(Started {
                command: texts(&container["args"]),
                environment: items(&container["env"]).iter().map(variable).collect(),
                files: items(&container["volumeMounts"]).iter().filter_map(file).collect(),
                ports: items(&container["ports"]).iter().filter_map(|port| port["containerPort"].as_u64()).collect(),
                probes: probes
                    .map(|probe| Ok((port(&probe["port"])?, text(&probe["path"]).to_owned())))
                    .collect::<Result<_>>()?,
                place: place.clone(),
            });
        }
    }
    Ok(started)
}

/// Settings that are given to the chart come to the programs as they are.
#[test]
fn settings_of_the_chart_reach_the_programs() -> Result<()> {
    let Some(helm) = deploy_tool("helm") else { return Ok(()) };
    let given = [
        "controlPlane.settings.api_token_rate=7",
        "controlPlane.settings.audit_retention=48h",
        "controlPlane.trustedProxies={10.0.0.0/8,::1}",
        "rateLimiter.settings.leases=false",
        "trustDomain=example.org",
    ];
    let arguments: Vec<&str> = ["template", "edge", "deploy/helm/chancery", "--kube-version", "1.34"]
        .into_iter()
        .chain(given.iter().flat_map(|given| ["--set", given]))
        .collect();
    // After what it renders, on standard error, Helm tells of links.
    let rendered = runs(&helm, &arguments)?;
    let objects = documents(&rendered[..rendered.find("walk.go").unwrap_or(rendered.len())])?;
    let folder = tempfile::tempdir()?;
    let started = of_kubernetes(&objects, folder.path())?;
    let settings = |program: &str| -> Result<BTreeMap<String, String>> {
        started.iter().find(|one| one.runs(program)).context("not started")?.settings()
    };
    let control_plane = settings("chancery-control-plane")?;
    for (key, value) in
        [("api_token_rate", "7"), ("audit_retention", "2days"), ("trusted_proxies", "10.0.0.0/8,::1/128")]
    {
        ensure!(control_plane.get(key).is_some_and(|given| given == value), "{key}: {control_plane:?}");
    }
    let limiter = settings("chancery-rate-limiter")?;
    for (key, value) in [("leases", "false"), ("trust_domain", "example.org"), ("xds", "edge-control-plane:18000")] {
        ensure!(limiter.get(key).is_some_and(|given| given == value), "{key}: {limiter:?}");
    }
    Ok(())
}
