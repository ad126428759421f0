//! People who sign in: through the real command, with an issuer over TLS, at a real control plane.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    api::{Api, check_refusal},
    certificates::Authority,
    command::{Outcome, User},
    control_plane::ControlPlane,
    document::{fleet, listener, resource},
    issuer::{CLIENT_ID, Issuer, USER_CODE},
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};

const ADA: &str = "oidc:ada@example.com";

fn team(name: &str) -> Value {
    resource("Team", name, json!({ "hosts": [format!("*.{name}.example.com")] }))
}

fn route_of(team: &str, name: &str) -> Value {
    let rules = json!([{ "respond": { "status": 200, "body": name } }]);
    let host = format!("{name}.{team}.example.com");
    let mut route = resource("Route", name, json!({ "listeners": ["edge/web"], "hosts": [host], "rules": rules }));
    route["team"] = team.into();
    route
}

fn ada(groups: &[&str]) -> Value {
    json!({ "email": "ada@example.com", "email_verified": true, "groups": groups })
}

/// A control plane that trusts `issuer`, where `developers` own `pay` and `everybody` sees all.
async fn trusting(folder: &Path, authority: &Authority, issuer: &Issuer) -> Result<ControlPlane> {
    let settings = folder.join("settings.toml");
    let ca = authority.file();
    let text = format!(
        r#"
        [oidc]
        issuer = "{url}"
        audience = ["{CLIENT_ID}"]
        ca_file = "{ca}"
        [[oidc.grants]]
        group = "developers"
        role = "owner"
        teams = ["pay"]
        [[oidc.grants]]
        group = "everybody"
        role = "viewer"
        "#,
        url = issuer.url,
        ca = ca.display(),
    );
    fs::write(&settings, text)?;
    let database = format!("sqlite://{}", folder.join("chancery.db").display());
    let settings = settings.to_str().context("a path is text")?;
    ControlPlane::start_with(folder, "control-plane", &database, authority, &["--config", settings]).await
}

/// Runs `chancery login`, while the person does something in their browser.
async fn login(
    user: &User,
    authority: &Authority,
    issuer: &Issuer,
    person: impl Future<Output = ()>,
) -> Result<Outcome> {
    issuer.forget().await;
    let command = format!("login --issuer-ca {}", authority.file().display());
    let confirmed = async {
        let asked = async || {
            ensure!(issuer.polls().await > 0, "nobody has asked");
            Ok(())
        };
        until("the command waits for the person", PATIENCE, asked).await?;
        person.await;
        Ok(())
    };
    let (outcome, confirmed) = tokio::join!(user.runs(&command, ""), confirmed);
    confirmed.and(outcome)
}

/// Applies `resource` as a user does.
async fn apply(user: &User, folder: &Path, resource: &Value) -> Result<Outcome> {
    let file = folder.join("resource.json");
    fs::write(&file, resource.to_string())?;
    user.runs(&format!("apply -f {}", file.display()), "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_sign_in_and_do_what_their_groups_may() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let issuer = Issuer::start(&authority).await?;
    let mut control_plane = trusting(folder.path(), &authority, &issuer).await?;
    let admin = control_plane.caller();
    let listener = listener("web", "edge", 10000);
    admin.apply(&[fleet("edge"), listener, team("pay"), team("shop"), route_of("shop", "shop")]).await?;
    let user = User::in_folder(folder.path()).at(&format!("http://{}", control_plane.api));
    let stranger = user.runs("whoami", "").await?;
    ensure!(stranger.code == 3 && stranger.errors.contains("sign in with `chancery login`"), "{stranger:?}");

    // Good for less than it takes to use it: the next command needs another.
    issuer.give_for(20).await;
    let signed_in = login(&user, &authority, &issuer, issuer.confirm(ada(&["developers", "everybody"]))).await?;
    ensure!(signed_in.code == 0, "{signed_in:?}");
    ensure!(signed_in.errors.contains(USER_CODE) && signed_in.errors.contains(ADA), "{signed_in:?}");
    let mut kept: Vec<_> = fs::read_dir(folder.path().join("config/chancery/sign-ins"))?.collect::<Result<_, _>>()?;
    // What keeps two commands apart holds nothing.
    kept.retain(|file| file.path().extension().is_some_and(|ending| ending == "json"));
    let [kept] = &kept[..] else { anyhow::bail!("{kept:?}") };
    ensure!(kept.metadata()?.permissions().mode() & 0o777 == 0o600, "{kept:?}");

    a_refresh_token_is_used_once_even_by_two(&user, &issuer).await?;
    let me = user.asks("whoami -o json").await?;
    ensure!(me["name"] == ADA && me["role"] == "owner" && me["grants"][1]["role"] == "viewer", "{me}");

    let made = apply(&user, folder.path(), &route_of("pay", "mine")).await?;
    ensure!(made.code == 0, "{made:?}");
    ensure!(admin.read("/api/v1/routes/mine").await?["updatedBy"] == ADA);
    let refused = apply(&user, folder.path(), &route_of("shop", "theirs")).await?;
    ensure!(refused.code == 1 && refused.errors.contains("needs team shop"), "{refused:?}");
    user.asks("get route shop -o json").await?;

    // The issuer signs with another key from now on; the token that there is ends.
    issuer.rotate().await?;
    let signed_in = login(&user, &authority, &issuer, issuer.confirm(ada(&["developers"]))).await?;
    ensure!(signed_in.code == 0, "{signed_in:?}");
    ensure!(user.runs("get route shop -o json", "").await?.code == 1, "she is not in everybody any more");

    drop(issuer);
    let me = user.asks("whoami -o json").await?;
    ensure!(me["name"] == ADA, "the issuer need not be there: {me}");
    the_audit_log_tells_of_it(&admin).await?;
    without_the_issuer_it_starts_and_takes_other_tokens(&mut control_plane, &user).await?;
    ensure!(user.runs("logout", "").await?.errors.contains("signed out"));
    ensure!(user.runs("whoami", "").await?.code == 3);
    Ok(())
}

async fn a_refresh_token_is_used_once_even_by_two(user: &User, issuer: &Issuer) -> Result<()> {
    issuer.give_for(3600).await;
    let (one, other) = tokio::join!(user.asks("whoami -o json"), user.asks("whoami -o json"));
    ensure!(one?["name"] == ADA && other?["name"] == ADA);
    ensure!(issuer.refreshes().await == 1, "{} refreshes", issuer.refreshes().await);
    Ok(())
}

async fn the_audit_log_tells_of_it(admin: &Api) -> Result<()> {
    let told = async || {
        let done = admin.read(&format!("/api/v1/audit?actor={ADA}&outcome=done")).await?;
        let done = done["items"].as_array().context("a list")?.clone();
        let sign_in = done.iter().find(|entry| entry["action"] == "sign-in").context("no sign-in")?;
        ensure!(sign_in["after"].as_str().is_some_and(|after| after.contains(r#""subject":"42""#)), "{sign_in}");
        ensure!(done.iter().any(|entry| entry["action"] == "write"), "no write");
        let refused = admin.read(&format!("/api/v1/audit?actor={ADA}&outcome=refused&action=write")).await?;
        let detail = refused["items"][0]["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains("needs team shop"), "{refused}");
        Ok(())
    };
    until("the audit log tells of it", PATIENCE, told).await
}

async fn without_the_issuer_it_starts_and_takes_other_tokens(
    control_plane: &mut ControlPlane,
    user: &User,
) -> Result<()> {
    control_plane.kill();
    control_plane.start_again().await?;
    let refused = user.runs("whoami", "").await?;
    ensure!(refused.code == 3 && refused.errors.contains("the keys of the issuer are not there yet"), "{refused:?}");
    control_plane.caller().read("/api/v1/whoami").await?;
    ensure!(control_plane.log().contains("the issuer does not give its keys"), "{}", control_plane.log());
    ensure!(control_plane.metric("chancery_oidc_issuer_available").await? == 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_refuses_or_is_in_no_group_is_not_signed_in() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let issuer = Issuer::start(&authority).await?;
    let control_plane = trusting(folder.path(), &authority, &issuer).await?;
    let user = User::in_folder(folder.path()).at(&format!("http://{}", control_plane.api));
    let denied = login(&user, &authority, &issuer, issuer.deny()).await?;
    ensure!(denied.code == 3 && denied.errors.contains("the sign-in was refused in the browser"), "{denied:?}");
    let nobody = login(&user, &authority, &issuer, issuer.confirm(ada(&["visitors"]))).await?;
    ensure!(nobody.code == 1, "{nobody:?}");
    ensure!(nobody.errors.contains("none of the groups of oidc:ada@example.com is granted"), "{nobody:?}");
    ensure!(nobody.errors.contains("visitors"), "{nobody:?}");
    ensure!(user.runs("whoami", "").await?.code == 3, "nothing is kept");
    // Whom the system does not trust is not asked.
    let untrusted = user.runs("login", "").await?;
    ensure!(untrusted.code == 3 && untrusted.errors.contains("cannot reach the issuer"), "{untrusted:?}");
    // A token that is none of the issuer's.
    let forged = Api::new(control_plane.api, "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.");
    let answer = forged.json(Method::GET, "/api/v1/whoami", None).await?;
    ensure!(answer.status == 401, "{}", answer.text());
    let detail = check_refusal("forged", &answer)?["detail"].clone();
    ensure!(detail.as_str().is_some_and(|detail| detail.contains("signed with \"none\"")), "{detail}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_make_no_sense_stop_the_start_and_all_are_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let database = format!("sqlite://{}", folder.path().join("chancery.db").display());
    let arguments = ["--oidc-issuer", "http://login.example.com", "--oidc-grant", "boss=x"];
    let started = ControlPlane::start_with(folder.path(), "control-plane", &database, &authority, &arguments).await;
    let error = format!("{:#}", started.err().context("it started")?);
    for problem in ["oidc.issuer: ", "oidc.audience is empty", "oidc.grants[0]: role \"boss\""] {
        ensure!(error.contains(problem), "{problem} is not named: {error}");
    }
    Ok(())
}
