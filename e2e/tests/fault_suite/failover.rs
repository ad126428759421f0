//! A database or a counter dies for good, and another takes its place.

use anyhow::{Result, ensure};
use chancery_e2e::{
    estate::{Estate, Plan, Table},
    postgres::Stop,
    redis::{Cluster, Sentinels},
};

use super::tables;

/// The address of the database leads to its replica from then on, as a name or a virtual address does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_postgres_takes_over() -> Result<()> {
    let Some(mut estate) = Estate::start(Plan::default()).await? else { return Ok(()) };
    let replica = estate.postgres.replica().await?;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], replica.port()));
    let mut table = Table::default();
    let seen = estate
        .observe("Postgres is killed and its replica promoted", async |estate, meanwhile| {
            estate.postgres.stop(Stop::Immediate).await?;
            meanwhile.goes_on().await?;
            // Not yet promoted, it can be read and not written to: that is an outage and no mistake.
            estate.to_database.point_at(&[address]);
            meanwhile.goes_on().await?;
            let told = meanwhile.told();
            ensure!(told.refused.keys().all(|status| *status == 503), "{:?}", told.refused);
            replica.promote()
        })
        .await?;
    seen.nothing_lost()?;
    ensure!(seen.edits_unanswered == 0 && seen.edits_refused > 0, "{seen:?}");
    table.add(seen);
    table.write(&tables()?, "postgres-failover")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_make_a_replica_of_redis_the_master() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(mut sentinels) = Sentinels::start(folder.path()).await? else { return Ok(()) };
    let Some(mut estate) = Estate::start_counting(folder, &sentinels.url(), Plan::default()).await? else {
        return Ok(());
    };
    let mut table = Table::default();
    let seen = estate
        .observe("the master of Redis is killed (sentinels)", async |_, _| {
            sentinels.kill_the_master();
            Ok(())
        })
        .await?;
    seen.nothing_lost()?;
    ensure!(seen.edits_refused + seen.edits_unanswered == 0, "edits do not need it: {seen:?}");
    table.add(seen);
    table.write(&tables()?, "redis-sentinels")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_redis_cluster_is_replaced() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(mut cluster) = Cluster::start(folder.path()).await? else { return Ok(()) };
    let url = cluster.url().replace("redis://", "redis+cluster://");
    let Some(mut estate) = Estate::start_counting(folder, &url, Plan::default()).await? else { return Ok(()) };
    let mut table = Table::default();
    let seen = estate
        .observe("a primary of the Redis cluster is killed", async |_, _| {
            cluster.kill_a_primary()?;
            Ok(())
        })
        .await?;
    seen.nothing_lost()?;
    ensure!(seen.edits_refused + seen.edits_unanswered == 0, "edits do not need it: {seen:?}");
    table.add(seen);
    table.write(&tables()?, "redis-cluster")
}
