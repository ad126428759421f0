//! Each part is killed (SIGKILL) and started again, as by whoever supervises it.

use anyhow::{Result, ensure};
use chancery_e2e::{
    client::{fetch, get},
    estate::{EDITED, Estate, OPEN, Plan, Table},
    postgres::Stop,
    wait::{PATIENCE, until},
};

use super::tables;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_part_in_turn() -> Result<()> {
    let Some(mut estate) = Estate::start(Plan { sidecar: true, ..Plan::default() }).await? else { return Ok(()) };
    let mut table = Table::default();
    for number in 0..2 {
        let what = ["the first control plane is killed", "the second control plane is killed"][number];
        let seen = estate
            .observe(what, async |estate, meanwhile| {
                estate.control_planes[number].kill();
                meanwhile.goes_on().await?;
                estate.control_planes[number].start_again().await
            })
            .await?;
        seen.nothing_lost()?;
        seen.nothing_lost_by_the_sidecar()?;
        table.add(seen);
    }

    let seen = estate
        .observe("both control planes are killed", async |estate, meanwhile| {
            estate.control_planes.iter_mut().for_each(|replica| replica.kill());
            meanwhile.goes_on().await?;
            for replica in &mut estate.control_planes {
                replica.start_again().await?;
            }
            Ok(())
        })
        .await?;
    seen.nothing_lost()?;
    seen.nothing_lost_by_the_sidecar()?;
    ensure!(seen.edits_unanswered > 0, "edits without a control plane: {seen:?}");
    table.add(seen);

    let seen = estate
        .observe("a limiter is killed", async |estate, meanwhile| {
            estate.limiters[0].kill();
            meanwhile.goes_on().await?;
            estate.limiters[0].start_again().await
        })
        .await?;
    seen.nothing_lost()?;
    ensure!(seen.edits_refused + seen.edits_unanswered == 0, "edits do not need it: {seen:?}");
    table.add(seen);

    let seen = estate
        .observe("Redis is killed", async |estate, meanwhile| {
            if let Some((redis, _)) = &mut estate.redis {
                redis.kill();
                meanwhile.goes_on().await?;
                redis.start_again().await?;
            }
            Ok(())
        })
        .await?;
    seen.nothing_lost()?;
    ensure!(seen.edits_refused + seen.edits_unanswered == 0, "edits do not need it: {seen:?}");
    table.add(seen);

    let seen = estate
        .observe("Postgres is killed", async |estate, meanwhile| {
            estate.postgres.stop(Stop::Immediate).await?;
            meanwhile.goes_on().await?;
            let told = meanwhile.told();
            ensure!(told.refused.keys().all(|status| *status == 503), "{:?}", told.refused);
            estate.postgres.start_again().await
        })
        .await?;
    seen.nothing_lost()?;
    seen.nothing_lost_by_the_sidecar()?;
    ensure!(seen.edits_refused > 0 && seen.edits_unanswered == 0, "every edit is answered: {seen:?}");
    table.add(seen);

    let seen = estate
        .observe("an endpoint of a service is killed", async |estate, meanwhile| {
            estate.kill_upstream(0);
            meanwhile.goes_on().await?;
            estate.start_upstream(0).await
        })
        .await?;
    seen.nothing_lost()?;
    table.add(seen);

    let seen = estate
        .observe("the sidecar is killed", async |estate, meanwhile| {
            if let Some(sidecar) = &mut estate.sidecar {
                sidecar.start_again().await?;
                sidecar.ready().await?;
                let outbound = sidecar.outbound;
                ensure!(fetch(outbound, get(OPEN, "/")).await?.status == 200, "it serves");
            }
            meanwhile.edits_go_on().await
        })
        .await?;
    seen.nothing_lost()?;
    table.add(seen);

    // Nobody else can answer for a proxy; what is asked is that it comes back with all that was edited meanwhile.
    let seen = estate
        .observe("the proxy is killed", async |estate, meanwhile| {
            estate.envoys.clear();
            meanwhile.edits_go_on().await?;
            let last = meanwhile.told().acknowledged.values().next_back().copied().unwrap_or_default();
            estate.start_envoy("envoy-0").await?;
            until("it has what was edited", PATIENCE, async || {
                let told = fetch(estate.web, get(EDITED, "/")).await?.text();
                ensure!(told >= chancery_e2e::scripted::script::edit_text(last), "{told}");
                Ok(())
            })
            .await
        })
        .await?;
    ensure!(seen.edits_refused + seen.edits_unanswered == 0, "edits do not need it: {seen:?}");
    table.add(seen);
    table.write(&tables()?, "killed")
}
