//! What is in `deploy/` for containers: linters find nothing, plain manifests are what the chart makes, and what is written there is
//! true of the programs: their flags and settings, ports, probes, images, secrets and resources.

#[path = "manifests/image.rs"]
mod image;
#[path = "manifests/started.rs"]
mod started;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::Authority,
    command::User,
    compose::{Compose, documents, read},
    control_plane::{ADMIN_TOKEN, ControlPlane},
    guide::blocks_in,
    process::own_program,
    required::{deploy_tool, offered},
};
use serde_json::{Value, json};

use self::started::{of_compose, of_kubernetes};

/// The one image, by the version of the workspace.
const IMAGE: &str = concat!("ghcr.io/chancery/chancery:", env!("CARGO_PKG_VERSION"));

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn deploy(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}

/// Runs a tool from the root of the repository, which has to succeed, and returns what it said.
fn runs(tool: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(tool)
        .args(arguments)
        .current_dir(repository())
        .env("CHANCERY", own_program("chancery")?)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} {}: {said}", tool.display(), arguments.join(" "));
    Ok(said.into_owned())
}

/// The plain manifests, in the order of their files.
fn manifests() -> Result<Vec<Value>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(deploy("kubernetes"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit()));
    files.sort();
    let all = files.iter().map(|file| documents(&fs::read_to_string(file)?)).collect::<Result<Vec<_>>>()?;
    ensure!(all.len() == 11, "{files:?}");
    Ok(all.into_iter().flatten().collect())
}

/// Each pod: the workload's name, and its spec.
fn pods(manifests: &[Value]) -> Vec<(&str, &Value)> {
    let workloads = manifests.iter().filter(|object| object["spec"]["template"]["spec"].is_object());
    workloads.map(|object| (text(&object["metadata"]["name"]), &object["spec"]["template"]["spec"])).collect()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| items(&pod[list]))
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(list: &Value) -> Vec<String> {
    items(list).iter().map(|item| text(item).to_owned()).collect()
}

#[test]
fn linters_find_nothing() -> Result<()> {
    let tool = deploy_tool;
    let (Some(hadolint), Some(yamllint), Some(schemas)) =
        (tool("hadolint"), tool("yamllint"), tool("check-jsonschema"))
    else {
        return Ok(());
    };
    runs(&hadolint, &["deploy/docker/Dockerfile"])?;
    runs(&yamllint, &["--strict", "--config-file", "deploy/.yamllint.yaml", "deploy"])?;
    let compose = ["deploy/compose/compose.yaml", "deploy/compose/compose.production.yaml"];
    runs(&schemas, &[["--builtin-schema", "vendor.compose-spec"], compose].concat())?;
    // Compose itself reads them, alone and on top of each other; files of variables are only there after `prepare`.
    let Some(composes) = tool("docker-compose") else { return Ok(()) };
    for files in [&compose[..1], &compose[..]] {
        let files = files.iter().flat_map(|file| ["--file", file]);
        let arguments: Vec<&str> = files.chain(["config", "--quiet", "--no-env-resolution"]).collect();
        runs(&composes, &arguments)?;
    }
    let chart = "deploy/helm/chancery";
    let (schema, values) = (format!("{chart}/values.schema.json"), format!("{chart}/values.yaml"));
    runs(&schemas, &["--schemafile", &schema, &values])?;
    Ok(())
}

#[test]
fn manifests_are_what_the_chart_makes() -> Result<()> {
    let (Some(helm), Some(validate)) = (deploy_tool("helm"), deploy_tool("kubernetes-validate")) else { return Ok(()) };
    runs(&helm, &["lint", "--strict", "--kube-version", "1.34", "deploy/helm/chancery"])?;
    runs(&repository().join("scripts/render-kubernetes"), &["--check"])?;
    let files: Vec<String> = fs::read_dir(deploy("kubernetes"))?
        .filter_map(|entry| Some(entry.ok()?.path().display().to_string()).filter(|file| file.ends_with(".yaml")))
        .filter(|file| !file.ends_with("/values.yaml") && !file.ends_with("/resources.yaml"))
        .collect();
    let arguments: Vec<&str> =
        ["--strict", "--kubernetes-version", "1.34"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let said = runs(&validate, &arguments)?;
    ensure!(said.contains("passed for resource deployment/chancery-control-plane"), "{said}");
    // The chart as it is, and as Terraform takes it, is rendered as well.
    for values in ["deploy/helm/chancery/values.yaml", "deploy/terraform/values.yaml"] {
        runs(&helm, &["template", "edge", "deploy/helm/chancery", "--kube-version", "1.34", "--values", values])?;
    }
    let refused = runs(
        &helm,
        &["template", "edge", "deploy/helm/chancery", "--kube-version", "1.34", "--set", "envoi.replicas=1"],
    );
    ensure!(refused.is_err_and(|error| error.to_string().contains("envoi")), "a value that there is not is taken");
    Ok(())
}

#[test]
fn variables_of_terraform_are_what_they_may_be() -> Result<()> {
    let terraform = Command::new("terraform").arg("version").output().ok().filter(|output| output.status.success());
    if offered("terraform", "nowhere: put it on PATH", terraform).is_none() {
        return Ok(());
    }
    let terraform = Path::new("terraform");
    runs(terraform, &["-chdir=deploy/terraform", "fmt", "-check"])?;
    // Variables alone need no provider, so their rules are tried without one.
    let folder = tempfile::tempdir()?;
    let at = format!("-chdir={}", folder.path().display());
    fs::copy(deploy("terraform/variables.tf"), folder.path().join("variables.tf"))?;
    fs::write(folder.path().join("global-bundle.pem"), "")?;
    let example = fs::read_to_string(deploy("terraform/terraform.tfvars.example"))?;
    let plan = |variables: &str| -> Result<String> {
        fs::write(folder.path().join("terraform.tfvars"), variables)?;
        runs(terraform, &[&at, "plan", "-input=false", "-no-color"])
    };
    runs(terraform, &[&at, "init", "-input=false"])?;
    plan(&example)?;
    for (good, bad, rule) in [
        ("eu-central-1", "Frankfurt", "A region is written"),
        ("\"subnet-0fedcba9876543210\"", "", "Two subnets"),
        ("backup_days = 30", "backup_days = 0", "Backups are kept"),
        ("\"global-bundle.pem\"", "\"none.pem\"", "no such file"),
    ] {
        ensure!(example.contains(good), "{good}");
        let refused = plan(&example.replace(good, bad));
        ensure!(refused.is_err_and(|error| error.to_string().contains(rule)), "{bad} is taken");
    }
    Ok(())
}

#[test]
fn programs_take_what_they_are_started_with() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let known = fs::read_to_string(repository().join("docs/reference/settings.md"))?
        + &fs::read_to_string(repository().join("docs/reference/cli.md"))?;
    for mode in ["development", "production"] {
        let secrets = folder.path().join(mode);
        runs(&deploy("compose/prepare"), &[mode, &secrets.display().to_string()])?;
        let started = of_compose(&secrets)?;
        ensure!(started.len() == 7, "{started:?}");
        started.iter().try_for_each(|started| started.check(&known))?;
    }
    let started = of_kubernetes(&manifests()?, folder.path())?;
    ensure!(started.len() == 4, "{started:?}");
    started.iter().try_for_each(|started| started.check(&known))
}

#[test]
fn services_policies_and_images_fit_the_pods() -> Result<()> {
    let manifests = manifests()?;
    let of_part = |part: &Value| -> Vec<&Value> {
        let chosen =
            |object: &&Value| object["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == *part;
        let workloads = manifests.iter().filter(|object| object["spec"]["template"].is_object()).filter(chosen);
        workloads
            .flat_map(|object| containers(&object["spec"]["template"]["spec"]))
            .flat_map(|container| items(&container["ports"]))
            .collect()
    };
    for object in &manifests {
        let spec = &object["spec"];
        let part = |labels: &Value| labels["app.kubernetes.io/component"].clone();
        match text(&object["kind"]) {
            "Service" => {
                let ports = of_part(&part(&spec["selector"]));
                for port in items(&spec["ports"]) {
                    let found = ports.iter().find(|open| open["name"] == port["targetPort"]);
                    ensure!(found.is_some_and(|open| open["containerPort"] == port["port"]), "{object}");
                }
            }
            "NetworkPolicy" => {
                let ports = of_part(&part(&spec["podSelector"]["matchLabels"]));
                for port in items(&spec["ingress"]).iter().flat_map(|rule| items(&rule["ports"])) {
                    ensure!(ports.iter().any(|open| open["containerPort"] == port["port"]), "{object}");
                }
            }
            "PodMonitor" => {
                let ports = of_part(&part(&spec["selector"]["matchLabels"]));
                let asked = &spec["podMetricsEndpoints"][0];
                ensure!(
                    ports.iter().any(|open| open["name"] == asked["port"]) && asked["path"] == "/metrics",
                    "{object}"
                );
            }
            _ => {}
        }
    }
    // One version of each image everywhere; ours is that of the workspace, Envoy's the one that tests run.
    let compose: Compose = read(&deploy("compose/compose.yaml"))?;
    let images = compose.services.values().map(|service| service.image.as_str());
    let images: BTreeSet<&str> = images
        .chain(pods(&manifests).iter().flat_map(|(_, pod)| containers(pod)).map(|one| text(&one["image"])))
        .collect();
    let names: BTreeSet<&str> = images.iter().filter_map(|image| image.split(':').next()).collect();
    ensure!(names.len() == images.len() && images.contains(IMAGE), "{images:?}");
    let setup = fs::read_to_string(repository().join("scripts/setup"))?;
    let envoy = setup.lines().find_map(|line| line.strip_prefix("readonly envoy_version=")).context("no Envoy")?;
    ensure!(images.contains(format!("envoyproxy/envoy:v{envoy}").as_str()), "{images:?}");
    for file in ["secrets.sh", "kubernetes/kind.sh", "docker/Dockerfile"] {
        ensure!(fs::read_to_string(deploy(file))?.contains(IMAGE), "{file}");
    }
    let version = format!("ARG VERSION={}\n", env!("CARGO_PKG_VERSION"));
    ensure!(fs::read_to_string(deploy("docker/Dockerfile"))?.contains(&version), "the version of the image");
    Ok(())
}

#[test]
fn pods_and_containers_may_do_little() -> Result<()> {
    let manifests = manifests()?;
    let pods = pods(&manifests);
    ensure!(pods.len() == 6, "{pods:?}");
    for (name, pod) in pods {
        let of_pod = &pod["securityContext"];
        let nobody = of_pod["runAsNonRoot"] == true && of_pod["seccompProfile"]["type"] == "RuntimeDefault";
        ensure!(nobody && pod["automountServiceAccountToken"] == false, "{name}: {of_pod}");
        for container in containers(pod) {
            let expected = json!({
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
            });
            ensure!(container["securityContext"] == expected, "{name}: {container}");
            ensure!(container["resources"]["limits"]["memory"].is_string(), "{name}: {container}");
        }
    }
    let base: Compose = read(&deploy("compose/compose.yaml"))?;
    let production: Compose = read(&deploy("compose/compose.production.yaml"))?;
    assert_eq!(base.services.keys().collect::<Vec<_>>(), production.services.keys().collect::<Vec<_>>());
    for (name, service) in &production.services {
        let says = |key: &str| service.rest.get(key).cloned().unwrap_or_default();
        ensure!(says("read_only") == true && says("cap_drop") == json!(["ALL"]), "{name}");
        ensure!(says("security_opt") == json!(["no-new-privileges:true"]) && says("restart").is_string(), "{name}");
        let limits = &says("deploy")["resources"]["limits"];
        ensure!(["cpus", "memory", "pids"].iter().all(|limit| !limits[limit].is_null()), "{name}: {limits}");
    }
    for (name, service) in &base.services {
        let logging = service.rest.get("logging").cloned().unwrap_or_default();
        ensure!(logging["options"]["max-size"].is_string() && logging["options"]["max-file"].is_string(), "{name}");
        let networks = service.networks.as_array().cloned().unwrap_or_default();
        ensure!(networks.iter().all(|network| base.networks.contains_key(text(network))), "{name}: {networks:?}");
    }
    Ok(())
}

#[test]
fn secrets_that_are_named_are_made() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let made = runs(&deploy("kubernetes/secrets"), &[&folder.path().display().to_string()])?;
    let made: BTreeMap<String, Value> = documents(&made)?
        .into_iter()
        .map(|secret| (text(&secret["metadata"]["name"]).to_owned(), secret["data"].clone()))
        .collect();
    let has = |name: &Value, key: &str| {
        made.get(text(name)).is_some_and(|keys| keys[key].as_str().is_some_and(|value| !value.is_empty()))
    };
    let manifests = manifests()?;
    let mut named = BTreeSet::new();
    for (pod, spec) in pods(&manifests) {
        for secret in items(&spec["volumes"]).iter().map(|volume| &volume["secret"]).filter(|secret| secret.is_object())
        {
            let keys = items(&secret["items"]).iter().map(|item| text(&item["key"]));
            let keys = if secret["items"].is_array() { keys.collect() } else { vec!["tls.crt", "tls.key", "ca.crt"] };
            ensure!(keys.iter().all(|key| has(&secret["secretName"], key)), "{pod}: {secret}");
            named.insert(text(&secret["secretName"]).to_owned());
        }
        for variable in containers(spec).flat_map(|container| items(&container["env"])) {
            let secret = &variable["valueFrom"]["secretKeyRef"];
            ensure!(secret.is_null() || has(&secret["name"], text(&secret["key"])), "{pod}: {variable}");
            named.extend(secret["name"].as_str().map(str::to_owned));
        }
    }
    assert_eq!(named, made.into_keys().collect());
    Ok(())
}

#[tokio::test]
async fn resources_to_begin_with_are_taken() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    let user = User::in_folder(folder.path()).of(&format!("http://{}", control_plane.api), ADMIN_TOKEN);
    let at = |path: &str| deploy(path).display().to_string();
    let compose = "compose/config/resources";
    for listener in ["development", "production"] {
        let folders = [at(&format!("{compose}/common")), at(&format!("{compose}/{listener}"))];
        user.does(&format!("apply --file {} --file {}", folders[0], folders[1]), "").await?;
    }
    user.does(&format!("apply --file {}", at("kubernetes/resources.yaml")), "").await?;
    // The names that they speak of are those of services.
    let manifests = manifests()?;
    let services: BTreeSet<&str> = manifests
        .iter()
        .filter(|object| object["kind"] == "Service")
        .map(|object| text(&object["metadata"]["name"]))
        .collect();
    for resource in documents(&fs::read_to_string(deploy("kubernetes/resources.yaml"))?)? {
        let hosts = items(&resource["spec"]["endpoints"]).iter().map(|endpoint| text(&endpoint["address"]));
        let limiters = items(&resource["spec"]["rateLimiter"]["addresses"]).iter();
        let mut hosts = hosts.chain(limiters.filter_map(|address| text(address).split(':').next()));
        ensure!(hosts.all(|host| services.contains(host)), "{resource}");
    }
    Ok(())
}

/// Grafana, the collectors and Loki are not on this machine: their files name what there is, and all that they define is used.
#[test]
fn what_is_not_run_here_fits_together() -> Result<()> {
    let compose: Compose = read(&deploy("compose/compose.yaml"))?;
    let shared = |one: &str, other: &str| {
        let networks =
            |name: &str| texts(&compose.services.get(name).map(|service| service.networks.clone()).unwrap_or_default());
        networks(one).iter().any(|network| networks(other).contains(network))
    };
    let reaches = |from: &str, url: &str| -> Result<()> {
        let host = url.trim_start_matches("http://").split(':').next().unwrap_or_default();
        ensure!(shared(from, host), "{from} does not reach {url}");
        Ok(())
    };
    let sources: Value = read(&deploy("grafana/provisioning/datasources/chancery.yml"))?;
    ensure!(items(&sources["datasources"]).len() == 3, "{sources}");
    items(&sources["datasources"]).iter().try_for_each(|source| reaches("grafana", text(&source["url"])))?;
    for (service, file, pipeline) in
        [("otel-collector", "otel-collector", "traces"), ("log-agent", "log-agent", "logs")]
    {
        let config: Value = read(&deploy(&format!("compose/config/{file}.yaml")))?;
        let parts = &config["service"]["pipelines"][pipeline];
        for kind in ["receivers", "processors", "exporters", "extensions"] {
            let used = if kind == "extensions" { &config["service"][kind] } else { &parts[kind] };
            let defined: BTreeSet<String> =
                config[kind].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
            ensure!(
                !defined.is_empty() && defined == texts(used).into_iter().collect(),
                "{file}: {kind} {defined:?} {used}"
            );
        }
        for (_, exporter) in config["exporters"].as_object().into_iter().flatten() {
            reaches(service, text(&exporter["endpoint"]))?;
        }
        let mounted = format!("./config/{file}.yaml:/etc/otelcol/config.yaml:ro");
        ensure!(compose.services[service].volumes.contains(&mounted), "{service} does not have its file");
    }
    let loki: Value = read(&deploy("compose/config/loki.yaml"))?;
    ensure!(
        loki["server"]["http_listen_port"] == 3100 && loki["schema_config"]["configs"][0]["schema"] == "v13",
        "{loki}"
    );
    // What programs are told of others: spans of sidecar and Envoy go to a collector that takes them.
    let collector: Value = read(&deploy("compose/config/otel-collector.yaml"))?;
    ensure!(collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"] == "0.0.0.0:4317", "{collector}");
    reaches("demo", "http://otel-collector:4317")?;
    reaches("envoy", "otel-collector:4317")
}

/// A command of the guide: what it names is there, and programs have the flags.
#[test]
fn commands_of_the_guide_can_be_run() -> Result<()> {
    let guide = fs::read_to_string(repository().join("docs/operations/deploy.md"))?;
    let blocks = blocks_in("sh", &guide);
    let commands: Vec<&str> = blocks.iter().flat_map(|block| block.lines()).filter(|line| !line.is_empty()).collect();
    for command in &commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        // What is only there after `prepare`, or where a command before has gone, is not looked for.
        let paths = words.iter().filter(|word| ["deploy/", "scripts/"].iter().any(|folder| word.starts_with(folder)));
        for path in paths.filter(|path| !path.contains("secrets/") && !path.contains('*')) {
            ensure!(repository().join(path).exists(), "{path}: {command}");
        }
        if let ["chancery", name, rest @ ..] = &words[..] {
            let subcommand: Vec<&str> =
                rest.iter().copied().take_while(|word| *name == "cert" && *word == "issue").collect();
            let help = runs(&own_program("chancery")?, &[&[*name], &subcommand[..], &["--help"]].concat())?;
            for flag in rest.iter().filter(|word| word.starts_with("--")) {
                ensure!(help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")), "{flag}: {command}");
            }
        }
    }
    let Some(helm) = deploy_tool("helm") else { return Ok(()) };
    let install =
        commands.iter().find_map(|command| command.strip_prefix("helm upgrade --install ")).context("no chart")?;
    let bundled =
        guide.split('`').find(|text| text.starts_with("--set postgres.enabled")).context("no bundled Postgres")?;
    for more in ["", bundled] {
        let words = install.split_whitespace().chain(more.split_whitespace());
        let arguments: Vec<&str> = ["template", "--kube-version", "1.34"].into_iter().chain(words).collect();
        let rendered = runs(&helm, &arguments)?;
        ensure!(rendered.contains("name: chancery-postgres") != more.is_empty(), "{arguments:?}");
    }
    Ok(())
}
