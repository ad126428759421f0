//! Programs from outside that a test needs: absent, they fail it in CI, and skip it loudly elsewhere.

use std::{
    env,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// The Envoy series these tests are about.
const ENVOY_SERIES: &str = "/1.40.";

/// `found`, or `None` after saying so, which asks the test to return at once.
///
/// # Panics
/// When nothing was found and this is CI (`CI` is set): a test that did not run must not count as passed there.
pub fn required<T>(what: &str, found: Option<T>) -> Option<T> {
    if found.is_none() {
        let message = format!("{what} is not on this machine; `scripts/setup test` gets it");
        assert!(!in_ci(), "{message}");
        skip(&message);
    }
    found
}

/// As [`required`], for what `scripts/setup test` gets in some places only: absent, it skips the test in CI as well.
pub fn offered<T>(what: &str, place: &str, found: Option<T>) -> Option<T> {
    if found.is_none() {
        skip(&format!("{what} is not on this machine; `scripts/setup test` gets it {place}"));
    }
    found
}

fn skip(message: &str) {
    // Not `eprintln!`, whose output of a passing test is not shown. Nothing helps if this cannot be written.
    let _ = writeln!(io::stderr(), "SKIPPED: {message}");
}

/// A real Envoy: `CHANCERY_ENVOY`, `PATH`, then `.dev/envoy` of this repository.
pub fn envoy() -> Option<PathBuf> {
    let named = env::var_os("CHANCERY_ENVOY").map(PathBuf::from);
    let on_path = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("envoy"))
        .find(|path| path.is_file());
    let found = [named, on_path, own("envoy/bin/envoy")].into_iter().flatten().find(|path| is_wanted_envoy(path));
    required("Envoy 1.40", found)
}

/// A Python that has gRPC (`grpcio`): in `.dev/grpc` of this repository, or on `PATH`.
pub fn python_with_grpc() -> Option<PathBuf> {
    let own = own("grpc/bin/python");
    let found = own.into_iter().chain([PathBuf::from("python3")]).find(|python| {
        let imports = Command::new(python).args(["-c", "import grpc"]).output();
        imports.is_ok_and(|output| output.status.success())
    });
    required("Python with grpcio", found)
}

/// `promtool` and `amtool`, which know what Prometheus and its Alertmanager take: in `.dev/prometheus` of this repository, or on `PATH`.
pub fn prometheus_tools() -> Option<[PathBuf; 2]> {
    let tool = |name: &str| {
        let own = own(&format!("prometheus/usr/bin/{name}")).filter(|path| path.is_file());
        let found = own
            .into_iter()
            .chain([PathBuf::from(name)])
            .find(|tool| Command::new(tool).arg("--version").output().is_ok());
        required(name, found)
    };
    Some([tool("promtool")?, tool("amtool")?])
}

/// A server of Prometheus' Debian packages, `prometheus` or `prometheus-alertmanager`, found as [`prometheus_tools`] are.
pub fn prometheus_server(name: &str) -> Option<PathBuf> {
    let own = own(&format!("prometheus/usr/bin/{name}")).filter(|path| path.is_file());
    let mut found = own.into_iter().chain([PathBuf::from(name)]);
    required(name, found.find(|server| Command::new(server).arg("--version").output().is_ok()))
}

/// What `scripts/setup test` gets to check what is deployed: `helm`, and from PyPI `hadolint`, `yamllint`, `check-jsonschema`,
/// `kubernetes-validate` and `docker-compose`.
pub fn deploy_tool(name: &str) -> Option<PathBuf> {
    let folder = if name == "helm" { "helm" } else { "deploy/bin" };
    let own = own(&format!("{folder}/{name}")).filter(|path| path.is_file());
    let mut found = own.into_iter().chain([PathBuf::from(name)]);
    let found = found.find(|tool| Command::new(tool).arg("--help").output().is_ok());
    if name == "helm" { offered(name, "where there is Go", found) } else { required(name, found) }
}

/// The program `schemathesis`: in `.dev/schemathesis` of this repository.
pub fn schemathesis() -> Option<PathBuf> {
    required("Schemathesis", own("schemathesis/bin/schemathesis").filter(|path| path.is_file()))
}

/// A Python that has `jsonschema_rs`, a validator that Schemathesis brings.
pub fn python_with_json_schema() -> Option<PathBuf> {
    required("Python with jsonschema_rs", own("schemathesis/bin/python").filter(|path| path.is_file()))
}

/// What `scripts/setup` put into `.dev`.
fn own(path: &str) -> Option<PathBuf> {
    Some(Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.join(".dev").join(path))
}

fn is_wanted_envoy(path: &Path) -> bool {
    Command::new(path)
        .arg("--version")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(ENVOY_SERIES))
}

fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| !["", "0", "false"].contains(&value.as_str()))
}
