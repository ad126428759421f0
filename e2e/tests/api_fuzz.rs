//! The API under requests that are made up from its own description: whatever they are, the answers are as described.
//!
//! Schemathesis makes them up, good ones and bad ones. Left out are the events, which do not end, and the export: its
//! documents are separated as YAML has it, which Schemathesis cannot read.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::Authority,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{listener, resource},
    required,
};
use serde_json::json;
use tokio::{process::Command, time::timeout};

/// For each operation, beside the examples of its description.
const EXAMPLES: &str = "10";

/// The same requests in every run.
const SEED: &str = "7";

/// Five times what it takes on two cores.
const LONGEST: Duration = Duration::from_secs(400);

/// How many requests are made up at least: a run that asks nothing finds nothing.
const FEWEST: u32 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_as_described() -> Result<()> {
    let Some(schemathesis) = required::schemathesis() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    let api = control_plane.caller();
    let cautious = json!({ "rollout": { "canary": { "percent": 10 } } });
    let rule = json!({ "to": [{ "service": "checkout" }], "rateLimits": [] });
    api.apply(&[
        resource("Fleet", "edge", cautious),
        listener("web", "edge", 10_000),
        resource("Service", "checkout", json!({ "registered": true })),
        resource("RateLimit", "checkout", json!({ "limit": { "requests": 10, "per": "1s" } })),
        resource("Route", "checkout", json!({ "listeners": ["edge/web"], "hosts": ["a.test"], "rules": [rule] })),
    ])
    .await?;

    let mut command = Command::new(schemathesis);
    command
        .env("SCHEMATHESIS_HOOKS", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api_fuzz/hooks.py"))
        .args(["run", &format!("http://{}/api/openapi.json", control_plane.api)])
        .args(["--header", &format!("Authorization: Bearer {ADMIN_TOKEN}")])
        .args(["--phases", "examples,fuzzing", "--max-examples", EXAMPLES, "--seed", SEED])
        .args(["--checks", "not_a_server_error,status_code_conformance"])
        .args(["--checks", "content_type_conformance,response_schema_conformance"])
        .args(["--exclude-path", "/api/v1/events", "--exclude-path", "/api/v1/export"])
        .args(["--generation-database", "none", "--continue-on-failure", "--request-timeout", "15"])
        .args(["--warnings", "off", "--no-color"]);
    let report = run(command, folder.path()).await?;
    ensure!(!control_plane.log().contains("panicked"), "a handler panicked: {}", control_plane.log());
    api.read("/api/v1/whoami").await?;
    let made_up = report.lines().find_map(|line| line.trim().split_once(" generated")?.0.parse::<u32>().ok());
    ensure!(made_up.is_some_and(|made_up| made_up >= FEWEST), "{made_up:?} requests were made up:\n{report}");
    Ok(())
}

/// Runs `command` in `folder`; what it says, if it found nothing.
async fn run(mut command: Command, folder: &Path) -> Result<String> {
    let child = command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LONGEST, child).await.context("the requests do not end")??;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the API answers otherwise than it describes:\n{report}\n{errors}");
    Ok(report)
}
