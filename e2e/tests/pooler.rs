//! Control planes on a Postgres behind a real PgBouncer, configured as the guide has it.

use std::{fs, os::unix::fs::chown, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::Authority,
    control_plane::ControlPlane,
    document::{fleet, listener, route_saying},
    guide::blocks_in,
    port::free_port,
    postgres::Postgres,
    process::Process,
    required::required,
    wait::{PATIENCE, until},
};

/// What PgBouncer is told in `docs/operations/scale.md`.
fn in_the_guide() -> Result<String> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/scale.md");
    let guide = fs::read_to_string(guide)?;
    blocks_in("ini", &guide).into_iter().next().context("the guide does not say how PgBouncer is configured")
}

#[tokio::test]
async fn two_control_planes_share_a_database_behind_a_pooler() -> Result<()> {
    let there = Command::new("pgbouncer").arg("--version").output().is_ok_and(|output| output.status.success());
    let (Some(()), Some(postgres)) = (required("pgbouncer", there.then_some(())), Postgres::start().await?) else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let direct = postgres.create_database().await?;
    let database = direct.rsplit('/').next().context("a URL without a database")?;
    let port = free_port();
    let guide = in_the_guide()?;
    let place = "host=10.0.0.5 port=5432 dbname=chancery";
    ensure!(guide.contains(place), "the guide names another place: {guide}");
    let settings = guide.replace(place, &format!("host=127.0.0.1 port={} dbname={database}", postgres.port()))
        + &format!(
            "\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\nauth_file = {}\n",
            folder.path().join("users").display(),
        );
    let file = folder.path().join("pgbouncer.ini");
    fs::write(&file, settings.replace("dbname=", "user=postgres dbname="))?;
    fs::write(folder.path().join("users"), "\"postgres\" \"\"\n")?;
    let mut command = Command::new("pgbouncer");
    command.arg(&file);
    // It does not run as root. The folder is 0700, so that it is given to whom it runs as.
    if fs::metadata("/proc/self").is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0) {
        command.args(["-u", "nobody"]);
        for path in [folder.path().to_owned(), file.clone(), folder.path().join("users")] {
            chown(path, Some(65_534), None)?;
        }
    }
    let pooler = Process::spawn("pgbouncer", command, folder.path())?;
    let pooled = format!("postgres://postgres@127.0.0.1:{port}/chancery");

    let authority = Authority::create(folder.path(), "authority")?;
    let first = ControlPlane::start(folder.path(), "first", &pooled, &authority).await.with_context(|| pooler.log())?;
    let second = ControlPlane::start(folder.path(), "second", &pooled, &authority).await?;
    first.caller().apply(&[fleet("edge"), listener("web", "edge", 10_000)]).await?;
    for number in 0..20 {
        let name = format!("r{number}");
        let (writer, reader) = if number % 2 == 0 { (&first, &second) } else { (&second, &first) };
        writer.caller().apply(&[route_saying(&name, &format!("{name}.example.com"), "hello")]).await?;
        until("the other one has the edit", PATIENCE, async || {
            reader.caller().read(&format!("/api/v1/routes/{name}")).await.map(drop)
        })
        .await?;
    }
    // Not one of them goes past the pooler, and they keep within what the guide reckons with.
    let sessions = postgres.sessions(database).await?;
    ensure!((1..=18).contains(&sessions), "{sessions} sessions of two control planes");
    let deaf = "not hearing of other control planes";
    ensure!(!first.log().contains(deaf) && !second.log().contains(deaf), "{}", first.log());
    Ok(())
}
