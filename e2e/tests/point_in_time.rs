//! Postgres loses its disk, and comes back from a base backup and the archive of its log as it was at a moment: what was acknowledged
//! until then is there, and what was done by mistake after it is not.

use std::time::Instant;

use anyhow::{Result, ensure};
use chancery_e2e::{
    certificates::Authority,
    control_plane::ControlPlane,
    document::{fleet, listener, route_saying},
    postgres::Postgres,
};

/// Writes after the base backup that were acknowledged.
const WRITES: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_until_a_moment_comes_back() -> Result<()> {
    let Some(mut postgres) = Postgres::start_archiving().await? else { return Ok(()) };
    let database = postgres.create_database().await?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let mut control_plane = ControlPlane::start(folder.path(), "before", &database, &authority).await?;
    let api = control_plane.caller();
    api.apply(&[fleet("edge"), listener("web", "edge", 1), route_saying("news", "news.example.com", "old")]).await?;
    postgres.base_backup()?;
    for number in 0..WRITES {
        api.put(&route_saying("news", "news.example.com", &format!("write {number}"))).await?;
    }
    let moment = postgres.now().await?;
    api.delete("Route", "news").await?;
    postgres.archived().await?;
    control_plane.kill();

    let lost = Instant::now();
    postgres.lose_and_recover(&moment).await?;
    let control_plane = ControlPlane::start(folder.path(), "after", &database, &authority).await?;
    eprintln!(
        "point in time: {:.1} s from the loss of the disk to a control plane that serves",
        lost.elapsed().as_secs_f64()
    );
    let api = control_plane.caller();
    let news = api.read("/api/v1/routes/news").await?;
    let last = format!("write {}", WRITES - 1);
    ensure!(news["spec"]["rules"][0]["respond"]["body"] == last.as_str(), "{news}");
    let verdict = api.read("/api/v1/audit/verify").await?;
    ensure!(verdict["whole"] == true, "{verdict}");
    let next = api.put(&route_saying("news", "news.example.com", "new")).await?;
    ensure!(next["revision"] == WRITES + 2, "{next}");
    Ok(())
}
