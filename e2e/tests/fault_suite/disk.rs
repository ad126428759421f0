//! The disk of a control plane with SQLite is full: database, folder for data and log lie on it.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
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
    required,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use http::Method;
use tempfile::TempDir;

/// A disk with room for 16 MB.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "none"]).arg(folder.path()).status();
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
async fn a_full_disk_stops_writes_only() -> Result<()> {
    let Some(program) = required::envoy() else { return Ok(()) };
    let Some(disk) = Disk::mount()? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let mut control_plane = ControlPlane::start_alone(disk.path(), &authority).await?;
    let (api, upstream) = (control_plane.caller(), Upstream::start("shop").await?);
    let web = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    api.apply(&[fleet("edge"), listener("web", "edge", web.port()), service("shop", &[upstream.address])]).await?;
    let xds = control_plane.xds;
    let proxy = Proxy { fleet: "edge", id: "envoy", protocol: Protocol::Delta, xds, authority: &authority };
    let _envoy = Envoy::of(&program, folder.path(), &proxy).await?;
    api.put_and_wait(&route_to("shop", "shop.example.com", "shop")).await?;
    let load = Load::start_paced(web, 2, std::time::Duration::from_millis(10), || get("shop.example.com", "/"));
    load.goes_on_for(50).await?;

    disk.fill()?;
    let edit = async |number: usize| {
        // Large enough that a few of them need more than what SQLite has set aside.
        let route = route_saying("news", "news.example.com", &format!("{number} {}", "x".repeat(3000)));
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
        ensure!(stored().await?.contains(&format!("{last} xxx")), "edit {last} was acknowledged");
    }
    load.goes_on_for(100).await?;
    let metrics = fetch(control_plane.admin, get("admin", "/livez")).await?;
    ensure!(metrics.status == 200, "it lives: {}", metrics.status);

    fs::remove_file(disk.ballast())?;
    let begun = std::time::Instant::now();
    until("edits are stored again", PATIENCE, async || {
        ensure!(edit(number).await?, "not yet");
        Ok(())
    })
    .await?;
    println!("{number} edits on a full disk; well again after {:?}", begun.elapsed());
    control_plane.kill();
    control_plane.start_again().await?;
    ensure!(stored().await?.contains(&format!("{number} xxx")), "the edit after that is there");
    let tally = load.stop().await?;
    ensure!(tally.failed() == 0, "{tally}");
    Ok(())
}
