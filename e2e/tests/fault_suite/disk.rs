//! The disk of the database is full. With SQLite the folder for data and the log of the control plane lie on it, too; of Postgres all
//! that it writes.

use std::{
    fs::{self, File},
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use chancery_e2e::{
    api::path,
    bootstrap::{Protocol, Proxy},
    certificates::Authority,
    client::{fetch, get},
    control_plane::ControlPlane,
    document::{fleet, listener, route_saying, route_to, service},
    envoy::Envoy,
    load::Load,
    port::free_port,
    postgres::Postgres,
    required,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use http::Method;
use tempfile::TempDir;

/// A small disk.
struct Disk(TempDir);

impl Disk {
    fn mount(megabytes: u32) -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path()).status();
        let mounted = mounted.is_ok_and(|status| status.success()).then_some(Self(folder));
        Ok(required::offered("a disk of one's own", "for root on Linux", mounted))
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.ballast())?;
        while ballast.write_all(&[1; 4096]).is_ok() {}
        Ok(())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A file that is still open holds it up otherwise.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_sqlite_stops_writes_only() -> Result<()> {
    let Some(disk) = Disk::mount(16)? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let control_plane = ControlPlane::start_alone(disk.path(), &authority).await?;
    writes_stop_and_nothing_else(&disk, control_plane, &authority, folder.path()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_postgres_stops_writes_only() -> Result<()> {
    // Its log alone takes three files of 16 MB.
    let Some(disk) = Disk::mount(160)? else { return Ok(()) };
    let Some(postgres) = Postgres::start_on(disk.path()).await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let database = postgres.create_database().await?;
    let control_plane = ControlPlane::start(folder.path(), "control-plane", &database, &authority).await?;
    writes_stop_and_nothing_else(&disk, control_plane, &authority, folder.path()).await
}

async fn writes_stop_and_nothing_else(
    disk: &Disk,
    mut control_plane: ControlPlane,
    authority: &Authority,
    folder: &Path,
) -> Result<()> {
    let Some(program) = required::envoy() else { return Ok(()) };
    let (api, upstream) = (control_plane.caller(), Upstream::start("shop").await?);
    let web = SocketAddr::from(([127, 0, 0, 1], free_port()));
    api.apply(&[fleet("edge"), listener("web", "edge", web.port()), service("shop", &[upstream.address])]).await?;
    let proxy = Proxy { fleet: "edge", id: "envoy", protocol: Protocol::Delta, xds: control_plane.xds, authority };
    let _envoy = Envoy::of(&program, folder, &proxy).await?;
    api.put_and_wait(&route_to("shop", "shop.example.com", "shop")).await?;
    let load = Load::start_paced(web, 2, Duration::from_millis(10), || get("shop.example.com", "/"));
    load.goes_on_for(50).await?;

    disk.fill()?;
    let edit = async |number: u64| {
        let route = route_saying("news", "news.example.com", &text(number));
        let answer = api.json(Method::PUT, &path("Route", "news")?, Some(&route)).await?;
        ensure!([200, 201, 503].contains(&answer.status), "{} {}", answer.status, answer.text());
        Ok(answer.status < 300)
    };
    let (mut last, mut number) = (None, 0);
    while edit(number).await? {
        last = Some(number);
        number += 1;
        ensure!(number < 5000, "the disk does not fill up");
    }
    let stored = async || -> Result<String> { Ok(api.read("/api/v1/routes/news").await?.to_string()) };
    if let Some(last) = last {
        ensure!(stored().await?.contains(&text(last)), "edit {last} was acknowledged");
    }
    load.goes_on_for(100).await?;
    let alive = fetch(control_plane.admin, get("admin", "/livez")).await?;
    ensure!(alive.status == 200, "it lives: {}", alive.status);

    fs::remove_file(disk.ballast())?;
    let begun = Instant::now();
    until("edits are stored again", PATIENCE, async || {
        ensure!(edit(number).await?, "not yet");
        Ok(())
    })
    .await?;
    println!("{number} edits on a full disk; well again after {:?}", begun.elapsed());
    control_plane.kill();
    control_plane.start_again().await?;
    ensure!(stored().await?.contains(&text(number)), "the edit after that is there");
    let tally = load.stop().await?;
    ensure!(tally.failed() == 0, "{tally}");
    Ok(())
}

/// What an edit writes: so large that a few of them need more than what a database has set aside, and of digits that no
/// database makes smaller.
fn text(number: u64) -> String {
    let digits =
        (0..190_u64).map(|place| format!("{:016x}", (number * 1_000 + place).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    format!("{number} {}", digits.collect::<String>())
}
