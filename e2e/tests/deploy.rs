//! What is deployed: programs take the settings that come with their units, and units start programs that there are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::Authority,
    process::{Process, own_program},
    required::offered,
    wait::PATIENCE,
};

/// Each program, and the flag by which it is given its settings.
const PROGRAMS: [(&str, &str); 3] =
    [("control-plane", "--config"), ("rate-limiter", "--settings"), ("sidecar", "--settings")];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd")
}

#[test]
fn programs_take_their_settings() -> Result<()> {
    for (name, flag) in PROGRAMS {
        let program = own_program(&format!("chancery-{name}"))?;
        let taken = |file: &Path| -> Result<std::process::Output> {
            Ok(Command::new(&program).arg(flag).arg(file).arg("--print-settings").output()?)
        };
        let file = folder().join(format!("{name}.toml"));
        let output = taken(&file)?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        // Every key of the file is in force as the file has it.
        let printed = String::from_utf8(output.stdout)?;
        for line in fs::read_to_string(&file)?.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (key, value) = line.split_once(" = ").with_context(|| format!("{name}: {line}"))?;
            let value = value.trim_matches('"');
            let in_force = printed.lines().find(|line| line.starts_with(&format!("{key} = ")));
            ensure!(in_force.is_some_and(|line| line.contains(value)), "{name}: {line} is {in_force:?}");
        }
        let wrong = tempfile::NamedTempFile::new()?;
        fs::write(&wrong, fs::read_to_string(&file)? + "\nnot_a_setting = 1\n")?;
        ensure!(!taken(wrong.path())?.status.success(), "{name} takes what is no setting");
    }
    Ok(())
}

#[tokio::test]
async fn a_control_plane_starts_with_its_settings() -> Result<()> {
    let state = tempfile::tempdir()?;
    let authority = Authority::create(state.path(), "authority")?;
    let server = authority.server()?;
    let mut command = Command::new(own_program("chancery-control-plane")?);
    command.arg("--config").arg(folder().join("control-plane.toml")).arg("--data-dir").arg(state.path());
    for address in ["--api-addr", "--xds-addr", "--admin-addr"] {
        command.args([address, "127.0.0.1:0"]);
    }
    command.arg("--tls-cert").arg(&server.certificate).arg("--tls-key").arg(&server.key);
    command.arg("--client-ca").arg(authority.file());
    let mut process = Process::spawn("control-plane", command, state.path())?;
    let ready = process.ready(PATIENCE).await?;
    ensure!(ready["api"].is_string(), "{ready}");
    // The token is where the guide looks for it.
    ensure!(fs::read_to_string(state.path().join("admin-token"))?.starts_with("chy_"), "no token");
    ensure!(process.terminate(PATIENCE).await?.success(), "{}", process.log());
    Ok(())
}

#[test]
fn units_are_valid_and_start_what_there_is() -> Result<()> {
    let mut units = Vec::new();
    let here = tempfile::tempdir()?;
    // `verify` looks for programs where they are installed.
    let programs = own_program("chancery")?.parent().context("no folder")?.display().to_string();
    let starts = PROGRAMS.map(|(name, flag)| (name, format!("chancery-{name} {flag} /etc/chancery/{name}.toml")));
    let agent = "chancery agent --dir /var/lib/chancery-agent --xds-address ${CHANCERY_XDS_ADDRESS}".to_owned();
    for (name, starts) in starts.into_iter().chain([("agent", agent.clone())]) {
        let file = format!("chancery-{name}.service");
        let text = fs::read_to_string(folder().join(&file))?;
        let starts = format!("ExecStart=/usr/local/bin/{starts}");
        ensure!(text.lines().any(|line| line == starts), "{name} does not start as {starts}");
        let unit = here.path().join(file);
        fs::write(&unit, text.replace("/usr/local/bin/chancery", &format!("{programs}/chancery")))?;
        units.push(unit);
    }
    // The address alone, which systemd puts in, is not understood.
    let mut words = agent.split(' ');
    let output = Command::new(format!("{programs}/{}", words.next().context("no program")?)).args(words).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains("'${CHANCERY_XDS_ADDRESS}' for '--xds-address"), "{said}");
    let analyze =
        Command::new("systemd-analyze").arg("--version").output().ok().filter(|output| output.status.success());
    if offered("systemd-analyze", "where there is systemd", analyze).is_none() {
        return Ok(());
    }
    for unit in &units {
        let output = Command::new("systemd-analyze").arg("verify").arg(unit).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() && said.is_empty(), "{}: {said}", unit.display());
    }
    Ok(())
}
