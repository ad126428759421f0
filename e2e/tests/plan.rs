//! A change is seen before it is made, made as it was seen, and found again in the history; and everything moves elsewhere.

use std::fs;

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    bootstrap::Protocol,
    client::get,
    command::{Outcome, User},
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{listener, route_saying, service},
    port::free_port,
    scene::Scene,
};
use serde_json::{Value, json};

/// A route that says `body`, of the application `shop`.
fn of_shop(name: &str, host: &str, body: &str) -> Value {
    let mut route = route_saying(name, host, body);
    route["labels"] = json!({ "app": "shop" });
    route
}

fn write(scene: &Scene, file: &str, resource: &Value) -> Result<()> {
    let folder = scene.folder().join("shop");
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(file), serde_json::to_vec_pretty(resource)?)?)
}

fn user(scene: &Scene, of: &ControlPlane) -> User {
    User::in_folder(scene.folder()).of(&format!("http://{}", of.api), ADMIN_TOKEN)
}

/// The arguments of the command that a plan ends with.
fn command_of(plan: &str) -> Result<String> {
    let last = plan.lines().last().context("it says something")?;
    Ok(last.trim().strip_prefix("chancery ").with_context(|| format!("it ends with no command: {plan}"))?.to_owned())
}

/// Listeners and filter chains that drain, and updates in place.
async fn draining(scene: &Scene) -> Result<[u64; 3]> {
    let stat = async |name: &str| scene.envoy.stat(&format!("listener_manager.{name}")).await;
    Ok([
        stat("total_listeners_draining").await?,
        stat("total_filter_chains_draining").await?,
        stat("listener_in_place_updated").await?,
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_planned_is_what_is_applied() -> Result<()> {
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let user = user(&scene, &scene.control_plane);
    let before = scene.api.everything().await?;
    write(&scene, "shop.json", &of_shop("shop", "shop.example.com", "hello"))?;
    write(&scene, "old.json", &of_shop("old", "old.example.com", "old"))?;

    let plan = user.asks("plan -f shop -o json").await?;
    let edge = &plan["fleets"][0];
    assert_eq!((&edge["fleet"], &edge["proxies"], &edge["drains"]), (&json!("edge"), &json!(["envoy"]), &json!([])));
    let added = |host: &str| json!({ "type": "virtualHost", "name": format!("web/{host}"), "change": "added" });
    assert_eq!(edge["resources"], json!([added("old.example.com"), added("shop.example.com")]));
    assert_eq!(scene.api.everything().await?, before, "a plan writes nothing");

    let told = user.does("plan -f shop -o table", "").await?;
    assert!(told.contains("Fleet edge: 1 connected proxy will see it (envoy)."), "{told}");
    let command = command_of(&told)?;
    assert_eq!(command, "apply -f shop --if-revision 1");
    user.does(&format!("{command} --wait"), "").await?;
    assert_eq!(scene.fetch(get("shop.example.com", "/")).await?.text(), "hello");
    assert_eq!(draining(&scene).await?, [0; 3], "a change of routes drains nothing");

    // A route that nobody labelled is not the folder's; one that the folder no longer has is.
    scene.api.put_and_wait(&route_saying("alien", "alien.example.com", "alien")).await?;
    fs::remove_file(scene.folder().join("shop/old.json"))?;
    let told = user.does("plan -f shop --prune-label app=shop -o table", "").await?;
    assert!(told.contains("deleted  Route/old") && !told.contains("alien"), "{told}");
    scene.api.put(&service("another", &[])).await?;
    let Outcome { code, errors, .. } = user.runs(&command_of(&told)?, "").await?;
    assert_eq!(code, 1, "something else was changed since: {errors}");
    assert!(errors.contains("based on revision 3 of the catalog, which is at 4"), "{errors}");
    assert_eq!(scene.fetch(get("old.example.com", "/")).await?.text(), "old");
    let told = user.does("plan -f shop --prune-label app=shop -o table", "").await?;
    user.does(&format!("{} --wait", command_of(&told)?), "").await?;
    assert_eq!(scene.fetch(get("old.example.com", "/")).await?.status, 404);
    assert_eq!(scene.fetch(get("alien.example.com", "/")).await?.text(), "alien");
    assert_eq!(user.runs("apply -f shop --prune-label app", "").await?.code, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_drains_what_the_plan_says() -> Result<()> {
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let user = user(&scene, &scene.control_plane);
    scene.api.put_and_wait(&route_saying("shop", "shop.example.com", "hello")).await?;
    assert_eq!(draining(&scene).await?, [0; 3]);

    let mut web = listener("web", "edge", scene.web.port());
    web["spec"]["routeDelivery"] = json!("whole");
    write(&scene, "web.json", &web)?;
    let plan = user.asks("plan -f shop -o json").await?;
    let drains = json!([{ "listener": "web", "reason": "filterChains", "filterChains": ["web"] }]);
    assert_eq!(plan["fleets"][0]["drains"], drains, "{plan}");
    user.does("apply -f shop --wait", "").await?;
    scene.envoy.wait_for_stat("listener_manager.listener_in_place_updated", |updates| updates == 1).await?;
    assert_eq!(draining(&scene).await?, [0, 1, 1]);

    web["spec"]["port"] = json!(free_port());
    write(&scene, "web.json", &web)?;
    let plan = user.asks("plan -f shop -o json").await?;
    assert_eq!(plan["fleets"][0]["drains"], json!([{ "listener": "web", "reason": "moved" }]), "{plan}");
    user.does("apply -f shop --wait", "").await?;
    scene.envoy.wait_for_stat("listener_manager.total_listeners_draining", |draining| draining == 1).await?;
    assert_eq!(draining(&scene).await?[2], 1, "not in place");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_is_asked_and_everything_moves() -> Result<()> {
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let user = user(&scene, &scene.control_plane);
    for (body, message) in [("hello", "first"), ("goodbye", "second")] {
        write(&scene, "shop.json", &of_shop("shop", "shop.example.com", body))?;
        user.does(&format!("apply -f shop -m {message}"), "").await?;
    }
    let lines = user.does("diff 2 -o table", "").await?;
    let changed =
        ["--- Route/shop (revision 2)", "+++ Route/shop (revision 3)", "-      body: hello", "+      body: goodbye"];
    ensure!(changed.iter().all(|line| lines.lines().any(|told| told == *line)), "{lines}");
    let fields = user.does("diff 3 2 --fields -o table", "").await?;
    assert_eq!(fields, "updated  Route/shop\n           spec.rules[0].respond.body: \"goodbye\" -> \"hello\"\n");
    let blame = user.asks("blame route shop").await?;
    let origin = |path: &str| {
        let fields = blame["fields"].as_array().context("there are fields")?;
        let field = fields.iter().find(|field| field["path"] == path).with_context(|| format!("no {path}: {blame}"))?;
        Ok::<_, anyhow::Error>(json!([field["revision"], field["author"], field["message"]]))
    };
    assert_eq!(origin("spec.rules[0].respond.body")?, json!([3, "admin", "second"]));
    assert_eq!(origin("spec.hosts[0]")?, json!([2, "admin", "first"]));
    assert_eq!(user.runs("revert 3 --if-revision 2", "").await?.code, 1);
    user.does("revert 3 --if-revision 3", "").await?;

    let export = user.does("export", "").await?;
    let database = format!("sqlite://{}", scene.folder().join("second.db").display());
    let second = ControlPlane::start(scene.folder(), "second", &database, &scene.authority).await?;
    let there = self::user(&scene, &second);
    there.does("import -", &export).await?;
    assert_eq!(there.does("export", "").await?, export);
    let Outcome { code, errors, .. } = there.runs("import -", &export).await?;
    assert_eq!((code, errors.contains("fleets already")), (1, true), "{errors}");
    Ok(())
}
