//! Names that nobody resolves any more, clocks that jump, processes that stand still.

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use chancery_e2e::{
    bootstrap::{Protocol, Proxy, dynamic},
    certificates::Authority,
    client::{fetch, get},
    clock::Clock,
    control_plane::ControlPlane,
    document::{dns_service, fleet, listener, route_saying, route_to, service},
    envoy::Envoy,
    estate::{Estate, Plan, Table},
    load::Load,
    names::{Answers, NameServer},
    port::free_port,
    required,
    upstream::Upstream,
    wait::{PATIENCE, until},
};

use super::tables;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_jump_and_processes_stand_still() -> Result<()> {
    let Some(mut estate) = Estate::start(Plan::default()).await? else { return Ok(()) };
    let Some(clock) = Clock::right(estate.folder())? else { return Ok(()) };
    estate.control_planes[0].start_again_by(&clock).await?;
    estate.limiters[0].start_again_by(&clock).await?;
    estate.well().await?;
    let mut table = Table::default();
    for to in ["+1h", "-1h"] {
        let fault = format!("the wall clock of a control plane and a limiter jumps to {to}");
        let seen = estate
            .observe(&fault, async |_, meanwhile| {
                clock.jump(to)?;
                meanwhile.goes_on().await?;
                clock.jump("+0")?;
                meanwhile.goes_on().await
            })
            .await?;
        seen.nothing_lost()?;
        ensure!(seen.edits_refused + seen.edits_unanswered == 0, "{seen:?}");
        table.add(seen);
    }
    let seen = estate
        .observe("a limiter stands still and goes on", async |estate, meanwhile| {
            estate.limiters[1].freeze()?;
            meanwhile.goes_on().await?;
            estate.limiters[1].thaw()
        })
        .await?;
    seen.nothing_lost()?;
    ensure!(seen.edits_refused + seen.edits_unanswered == 0, "edits do not need it: {seen:?}");
    table.add(seen);
    let seen = estate
        .observe("Redis stands still and goes on", async |estate, meanwhile| {
            if let Some((redis, _)) = &estate.redis {
                redis.freeze()?;
                meanwhile.goes_on().await?;
                redis.thaw()?;
            }
            Ok(())
        })
        .await?;
    seen.nothing_lost()?;
    ensure!(seen.edits_refused + seen.edits_unanswered == 0, "edits do not need it: {seen:?}");
    table.add(seen);
    table.write(&tables()?, "clocks")
}

/// The proxy asks a name server of ours here. A silent one says nothing new; one that says that there is no such name is believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_nobody_resolves_is_what_it_was_and_one_that_is_gone_is_gone() -> Result<()> {
    let Some(program) = required::envoy() else { return Ok(()) };
    let own = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if required::offered("a name space of mounts", "for root on Linux", own.then_some(())).is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let names = NameServer::start().await?;
    let resolver = folder.path().join("resolv.conf");
    fs::write(&resolver, format!("nameserver {}\noptions timeout:1 attempts:1\n", names.address))?;
    let authority = Authority::create(folder.path(), "authority")?;
    let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    let (api, upstream) = (control_plane.caller(), Upstream::start("shop").await?);
    let web = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let resources = [
        fleet("edge"),
        listener("web", "edge", web.port()),
        dns_service("shop", "shop.internal", upstream.address.port()),
        route_to("shop", "shop.example.com", "shop"),
        service("other", &[upstream.address]),
        route_to("other", "other.example.com", "other"),
    ];
    api.apply(&resources).await?;
    let xds = control_plane.xds;
    let proxy = Proxy { fleet: "edge", id: "envoy", protocol: Protocol::Delta, xds, authority: &authority };
    let mut command = Command::new("unshare");
    let mount = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    command.args(["--mount", "sh", "-c", mount]).arg(&resolver).arg(program).args(["--concurrency", "2"]);
    let envoy = Envoy::launch(command, folder.path(), "envoy", &dynamic(&proxy)?).await?;
    envoy.live().await?;
    let load = |host| Load::start_paced(web, 1, Duration::from_millis(10), move || get(host, "/"));
    let (shop, other) = (load("shop.example.com"), load("other.example.com"));
    shop.goes_on_for(50).await?;
    let resolved = async |is_resolved: &str, wanted: u64| {
        let begun = Instant::now();
        envoy.wait_for_stat("cluster.shop.membership_total", |total| total == wanted).await?;
        println!("{is_resolved} after {:?}", begun.elapsed());
        anyhow::Ok(())
    };

    names.answer(Answers::Nothing);
    let asked = names.asked();
    until("nobody answers the proxy", PATIENCE, async || {
        ensure!(names.asked() >= asked + 2, "{} questions", names.asked() - asked);
        Ok(())
    })
    .await?;
    // It is edited as ever, and what was known of the name goes on to be used.
    api.put_and_wait(&route_saying("news", "news.example.com", "still here")).await?;
    shop.goes_on_for(100).await?;
    let tally = shop.stop().await?;
    ensure!(tally.failed() == 0, "{tally}");

    names.answer(Answers::Address);
    let known = envoy.stat("cluster.shop.update_success").await?;
    let begun = Instant::now();
    until("the name is resolved again", 3 * PATIENCE, async || {
        let now = envoy.stat("cluster.shop.update_success").await?;
        ensure!(now > known, "not yet");
        Ok(())
    })
    .await?;
    println!("resolved again after {:?}", begun.elapsed());
    names.answer(Answers::NoSuchName);
    resolved("the name is gone", 0).await?;
    ensure!(fetch(web, get("shop.example.com", "/")).await?.status == 503, "nobody is there");
    other.goes_on_for(100).await?;
    names.answer(Answers::Address);
    resolved("the name is back", 1).await?;
    ensure!(fetch(web, get("shop.example.com", "/")).await?.status == 200, "it serves again");
    let tally = other.stop().await?;
    ensure!(tally.failed() == 0, "{tally}");
    Ok(())
}
