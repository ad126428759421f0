//! Who did what: one chain for several replicas, in which nothing can be changed, and nothing goes missing, without being seen.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use chancery_control_plane::store::{self, Action, NewEntry};
use chancery_e2e::{
    api::Api,
    certificates::Authority,
    command::User,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::service,
    postgres::Postgres,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqliteConnection};

/// Writes of each replica.
const WRITES: usize = 15;

async fn replica(folder: &Path, name: &str, database: &str) -> Result<ControlPlane> {
    let authority = Authority::create(folder, &format!("authority-{name}"))?;
    ControlPlane::start(folder, name, database, &authority).await
}

fn user(folder: &Path, control_plane: &ControlPlane) -> User {
    User::in_folder(folder).of(&format!("http://{}", control_plane.api), ADMIN_TOKEN)
}

async fn write_many(api: Api, of: &str) -> Result<()> {
    for number in 0..WRITES {
        api.put(&service(&format!("{of}-{number}"), &["10.0.0.1:80".parse()?])).await?;
    }
    Ok(())
}

/// What the log says is wrong, by what the API says of it.
async fn findings(api: &Api) -> Result<Vec<String>> {
    let verdict = api.read("/api/v1/audit/verify").await?;
    let findings = verdict["findings"].as_array().context("no findings")?;
    ensure!(verdict["whole"] == findings.is_empty(), "{verdict}");
    Ok(findings.iter().map(|finding| finding["problem"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Entries that the query leaves, once there are some.
async fn some(api: &Api, query: &str) -> Result<Vec<Value>> {
    until(&format!("an entry by {query}"), PATIENCE, async || {
        let found = api.read(&format!("/api/v1/audit?{query}")).await?;
        let items = found["items"].as_array().cloned().unwrap_or_default();
        ensure!(!items.is_empty(), "{found}");
        Ok(items)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_write_at_once_make_one_chain_and_what_is_changed_is_named() -> Result<()> {
    let Some(postgres) = Postgres::start().await? else { return Ok(()) };
    let database = postgres.create_database().await?;
    let folder = tempfile::tempdir()?;
    let left = replica(folder.path(), "left", &database).await?;
    let right = replica(folder.path(), "right", &database).await?;
    let (api, other) = (left.caller(), right.caller());
    let refused = async |caller: Api| {
        for _ in 0..20 {
            let answer = caller.json(Method::PUT, "/api/v1/services/x", Some(&json!({ "spec": { "no": 1 } }))).await?;
            ensure!(answer.status == 422, "{}", answer.text());
        }
        Ok(())
    };
    tokio::try_join!(
        write_many(api.clone(), "left"),
        write_many(other.clone(), "right"),
        refused(api.clone()),
        refused(other.clone()),
    )?;
    assert_eq!(findings(&api).await?, [""; 0]);
    let writes = some(&other, "action=write&outcome=done&limit=1000").await?;
    assert_eq!(writes.len(), 2 * WRITES);
    assert_eq!((&writes[0]["actor"], &writes[0]["address"]), (&json!("admin"), &json!("127.0.0.1")));
    // Twenty refusals of each replica are an entry or two.
    let alike = some(&api, "outcome=refused&action=write&kind=Service&name=x").await?;
    assert!(alike.len() <= 4, "{alike:?}");
    assert!(alike[0]["detail"].as_str().is_some_and(|detail| detail.starts_with("invalid")), "{alike:?}");

    let mut sql = PgConnection::connect(&database).await?;
    for statement in ["UPDATE audit SET actor = 'eve'", "DELETE FROM audit", "TRUNCATE audit"] {
        let refusal = sqlx::raw_sql(statement).execute(&mut sql).await.err().context(statement)?.to_string();
        assert!(refusal.contains("append-only"), "{statement}: {refusal}");
    }
    // Whoever owns the database can take the triggers away, and is seen.
    sqlx::raw_sql("ALTER TABLE audit DISABLE TRIGGER USER").execute(&mut sql).await?;
    let first = &writes[5]["sequence"];
    for (change, undo, named) in [
        (
            format!("UPDATE audit SET actor = 'eve' WHERE sequence = {first}"),
            format!("UPDATE audit SET actor = 'admin' WHERE sequence = {first}"),
            format!("entry {first} was changed: it has another hash than it says"),
        ),
        (
            "UPDATE changes SET after = replace(after::text, '10.0.0.1', '10.6.6.6')::json WHERE revision = 3"
                .to_owned(),
            "UPDATE changes SET after = replace(after::text, '10.6.6.6', '10.0.0.1')::json WHERE revision = 3"
                .to_owned(),
            "revision 3 was changed: it has another hash than entry".to_owned(),
        ),
        (
            "UPDATE revisions SET author = 'eve' WHERE number = 4".to_owned(),
            "UPDATE revisions SET author = 'admin' WHERE number = 4".to_owned(),
            "revision 4 was changed".to_owned(),
        ),
        (
            format!("DELETE FROM audit WHERE sequence = {first}"),
            String::new(),
            format!("from {first} to {first} are missing"),
        ),
    ] {
        sqlx::raw_sql(AssertSqlSafe(change.clone())).execute(&mut sql).await?;
        let found = findings(&other).await?;
        assert!(found.iter().any(|problem| problem.contains(&named)), "{change}: {found:?}");
        if !undo.is_empty() {
            sqlx::raw_sql(AssertSqlSafe(undo.clone())).execute(&mut sql).await?;
            assert_eq!(findings(&api).await?, [""; 0], "{undo}");
        }
    }
    let told = user(folder.path(), &left).runs("audit verify", "").await?;
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.errors.contains("are missing"), "{told:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_refusals_and_sign_ins_are_there_and_no_secret_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let database = format!("sqlite://{}", folder.path().join("chancery.db").display());
    let mut control_plane = replica(folder.path(), "alone", &database).await?;
    let api = control_plane.caller();
    let body = json!({ "name": "reader", "role": "viewer" });
    let made = api.json(Method::POST, "/api/v1/tokens", Some(&body)).await?.json()?;
    let (id, first) = (made["id"].as_str().context("no id")?, made["token"].as_str().context("no token")?);
    let reader = Api::new(control_plane.api, first);
    api.put(&service("shop", &["10.0.0.1:80".parse()?])).await?;
    reader.read("/api/v1/services").await?;
    let forbidden = reader.json(Method::DELETE, "/api/v1/services/shop", None).await?;
    assert_eq!(forbidden.status, 403);
    assert_eq!(reader.json(Method::GET, "/api/v1/audit", None).await?.status, 403, "it is for operators");
    let rotated = api.json(Method::POST, &format!("/api/v1/tokens/{id}/rotate?grace=1h"), None).await?.json()?;
    let second = rotated["token"].as_str().context("no token")?;
    api.json(Method::DELETE, &format!("/api/v1/tokens/{id}"), None).await?;
    assert_eq!(reader.json(Method::GET, "/api/v1/services", None).await?.status, 401);
    let stranger = "chy_this-was-never-given-to-anybody-at-all-000";
    assert_eq!(Api::new(control_plane.api, stranger).json(Method::GET, "/api/v1/services", None).await?.status, 401);

    for (query, detail) in [
        ("actor=reader&action=sign-in&outcome=done", ""),
        ("actor=admin&action=sign-in&outcome=done", ""),
        ("actor=reader&outcome=refused&action=write&kind=Service&name=shop", "forbidden: needs role owner"),
        ("actor=reader&outcome=refused&action=read", "forbidden: needs role operator"),
        ("actor=reader&outcome=refused&action=sign-in", "the bearer token is not valid"),
        ("actor=&outcome=refused&action=sign-in", "the bearer token is not valid"),
        ("actor=admin&action=token.create&kind=Token&name=reader", ""),
        ("actor=admin&action=token.rotate&kind=Token&name=reader", ""),
        ("actor=admin&action=token.revoke&kind=Token&name=reader", ""),
        ("actor=admin&action=write&kind=Service&name=shop", ""),
    ] {
        let found = some(&api, query).await?;
        assert_eq!((found.len(), &found[0]["detail"]), (1, &json!(detail)), "{query}: {found:?}");
        assert_eq!(found[0]["address"], "127.0.0.1", "{query}");
    }
    let user = user(folder.path(), &control_plane);
    let listed = user.does("audit list --actor reader --outcome refused -o table", "").await?;
    assert!(listed.contains("Service/shop") && listed.contains("127.0.0.1"), "{listed}");
    let write = some(&api, "action=write&outcome=done").await?;
    let shown = user.asks(&format!("audit show {} -o json", write[0]["sequence"])).await?;
    assert_eq!(shown["revision"]["changes"][0]["name"], "shop", "{shown}");

    // A head that is kept, and an export, hold what comes later to account.
    let head = user.asks("audit verify").await?["head"].clone();
    let kept = format!("{}:{}", head["sequence"], head["hash"].as_str().context("no hash")?);
    let export = user.does("audit export", "").await?;
    let file = folder.path().join("export");
    std::fs::write(&file, &export)?;
    user.does(&format!("audit verify --file export --head {kept}"), "").await?;
    std::fs::write(&file, export.replace("\"actor\":\"reader\"", "\"actor\":\"admin\""))?;
    let changed = user.runs("audit verify --file export", "").await?;
    assert!(changed.code == 1 && changed.errors.contains("was changed"), "{changed:?}");
    user.does(&format!("audit verify --head {kept}"), "").await?;
    let other = user.runs(&format!("audit verify --head {}:ab", head["sequence"]), "").await?;
    assert!(other.code == 1 && other.errors.contains("written anew"), "{other:?}");

    // What waited is written down in the end.
    api.json(Method::PUT, "/api/v1/services/last", Some(&json!({ "spec": { "no": 1 } }))).await?;
    control_plane.terminate().await?;
    let mut sql = SqliteConnection::connect(&database).await?;
    let rows = sqlx::raw_sql("SELECT * FROM audit ORDER BY sequence").fetch_all(&mut sql).await?;
    let mut text = String::new();
    for row in &rows {
        for column in 0..row.len() {
            // Numbers hold no secret.
            text += row.try_get::<Option<String>, _>(column).ok().flatten().unwrap_or_default().as_str();
            text.push('\n');
        }
    }
    assert!(text.contains("\nlast\n"), "the refusal before the end is missing:\n{text}");
    for secret in [ADMIN_TOKEN, first, second, stranger] {
        assert!(!text.contains(secret), "a secret is in the log");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_entries_go_and_the_chain_holds() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let database = format!("sqlite://{}", folder.path().join("chancery.db").display());
    let mut control_plane = replica(folder.path(), "alone", &database).await?;
    control_plane.terminate().await?;
    let now = time::OffsetDateTime::now_utc();
    let entry = |days: i64| NewEntry::done(Action::Promote, "ada", "", now - time::Duration::days(days));
    let old = store::open(&database).await?;
    old.append_audit(vec![entry(9), entry(8), entry(0)]).await?;
    old.close().await;
    control_plane.start_again_with(&["--audit-retention", "2d"]).await?;
    let api = control_plane.caller();
    let retention = some(&api, "action=retention").await?;
    assert_eq!(retention[0]["name"], "2", "{retention:?}");
    let ada = some(&api, "actor=ada").await?;
    assert_eq!((ada.len(), &ada[0]["sequence"]), (1, &json!(3)));
    assert_eq!(findings(&api).await?, [""; 0]);
    Ok(())
}
