//! Who may do what, as a caller sees it.

use axum::http::Method;
use serde_json::{Value, json};

use super::{super::openapi, fixture::Fixture};

fn team(name: &str) -> Value {
    let hosts = [format!("*.{name}.example.com")];
    json!({ "kind": "Team", "name": name, "spec": { "hosts": hosts, "quotas": { "services": 3 } } })
}

fn service(name: &str, team: Option<&str>) -> Value {
    json!({ "kind": "Service", "name": name, "team": team, "spec": { "registered": true } })
}

/// Teams `a` and `b` with a service each, and one of nobody's.
async fn with_teams() -> Fixture {
    let admin = Fixture::start().await;
    admin.apply(&[team("a"), team("b")], "teams").await;
    for (name, team) in [("ours", Some("a")), ("theirs", Some("b")), ("shared", None)] {
        admin.apply(&[service(name, team)], name).await;
    }
    admin
}

impl Fixture {
    async fn apply(&self, resources: &[Value], message: &str) {
        let body = json!({ "message": message, "resources": resources });
        let answer = self.json(Method::POST, "/api/v1/apply", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// Makes a token, and says its id and the API as it is to whoever has it.
    async fn token(&self, request: Value) -> (String, Self) {
        let answer = self.json(Method::POST, "/api/v1/tokens", request).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        (answer.body["id"].as_str().unwrap().to_owned(), self.with(answer.body["token"].as_str().unwrap()))
    }

    async fn owner(&self, team: &str) -> Self {
        self.token(json!({ "name": format!("{team}-ci"), "role": "owner", "teams": [team] })).await.1
    }

    async fn get(&self, path: &str) -> super::fixture::Answer {
        self.ask(Method::GET, path, &[]).await
    }

    /// The names in a list.
    async fn names(&self, path: &str) -> Vec<String> {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let items = answer.body["items"].as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().or(item["message"].as_str()).unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn what_belongs_to_another_team_is_not_there() {
    let admin = with_teams().await;
    let ours = admin.owner("a").await;
    assert_eq!(ours.names("/api/v1/services").await, ["ours", "shared"]);
    assert_eq!(ours.names("/api/v1/teams").await, ["a"]);
    for path in ["services/theirs", "teams/b", "services/theirs/load", "services/theirs/endpoints"] {
        let hidden = ours.get(&format!("/api/v1/{path}")).await;
        let gone = ours.get(&format!("/api/v1/{}", path.replace("theirs", "none").replace("/b", "/none"))).await;
        let expected = gone.text.replace("none", if path.starts_with("teams") { "b" } else { "theirs" });
        assert_eq!((hidden.status.as_u16(), hidden.text), (404, expected), "{path}");
        assert_eq!(admin.get(&format!("/api/v1/{path}")).await.status, 200, "{path}");
    }
    let path = "/api/v1/services/theirs";
    ours.ask(Method::DELETE, path, &[]).await.problem(404, "not-found");
    ours.json(Method::PATCH, path, json!({ "team": "a" })).await.problem(404, "not-found");
    ours.json(Method::PUT, &format!("{path}/endpoints/x"), json!({ "address": "10.0.0.1", "port": 80 }))
        .await
        .problem(404, "not-found");
    ours.ask(Method::DELETE, &format!("{path}/endpoints/x"), &[]).await.problem(404, "not-found");
    let taken = ours.json(Method::PUT, path, service("theirs", Some("a"))).await;
    let missing = json!(["another name (this one is taken by a resource of another team)"]);
    assert_eq!(taken.problem(403, "forbidden")["missing"], missing);
    assert_eq!(admin.get(path).await.body["team"], "b");
}

#[tokio::test]
async fn a_change_is_refused_whole_and_says_all_that_is_missing() {
    let admin = with_teams().await;
    let scoped = json!({ "name": "bot", "role": "owner", "teams": ["a"], "scopes": ["services:write", "*:read"] });
    let bot = admin.token(scoped).await.1;
    let limit =
        json!({ "kind": "RateLimit", "name": "l", "team": "a", "spec": { "limit": { "requests": 1, "per": "1s" } } });
    let fleet = json!({ "kind": "Fleet", "name": "edge", "spec": {} });
    let resources =
        [service("mine", Some("a")), service("wrong", Some("b")), service("shared", Some("a")), limit, fleet];
    for path in ["/api/v1/apply", "/api/v1/plan"] {
        let answer = bot.json(Method::POST, path, json!({ "resources": resources })).await;
        answer.problem(403, "forbidden");
        assert_eq!(
            answer.problems(),
            [
                "Service/wrong#: needs team b",
                "Service/shared#: needs a team (what belongs to none is written by operators)",
                "RateLimit/l#: needs scope rate-limits:write",
                "Fleet/edge#: needs role operator",
            ]
        );
        assert_eq!(answer.body["missing"].as_array().unwrap().len(), 4);
    }
    assert_eq!(admin.names("/api/v1/services").await, ["ours", "shared", "theirs"], "nothing of it was made");
    let alone = bot.json(Method::PUT, "/api/v1/services/mine", service("mine", Some("a"))).await;
    assert_eq!(alone.status, 201, "{}", alone.text);
    assert_eq!(admin.get("/api/v1/services/mine").await.body["updatedBy"], "bot");
    // What stands already is not changed, whoever says so.
    bot.apply(&[service("mine", Some("a")), service("shared", None)], "again").await;
    let refused = bot.json(Method::PUT, "/api/v1/fleets/edge", json!({ "spec": {} })).await;
    assert_eq!(refused.problem(403, "forbidden")["detail"], "this is not allowed: needs role operator");
    let quota = ["x", "y"].map(|name| service(name, Some("a")));
    let answer = bot.json(Method::POST, "/api/v1/apply", json!({ "resources": quota })).await;
    answer.problem(422, "invalid");
    assert_eq!(answer.problems(), ["Service/x#team: is a, which would have 4 services; its quota is 3"]);
}

#[tokio::test]
async fn the_history_is_that_of_what_is_seen() {
    let admin = with_teams().await;
    admin.apply(&[service("ours-2", Some("a")), service("theirs-2", Some("b"))], "both").await;
    let ours = admin.owner("a").await;
    assert_eq!(ours.names("/api/v1/revisions").await, ["both", "shared", "ours", "teams"]);
    assert_eq!(ours.names("/api/v1/revisions?kind=Service&name=theirs").await, Vec::<String>::new());
    assert_eq!(ours.names("/api/v1/revisions?kind=Service&name=ours").await, ["ours"]);
    let both = ours.get("/api/v1/revisions/5").await.body;
    assert_eq!((&both["changeCount"], both["changes"].as_array().unwrap().len()), (&json!(1), 1), "{both}");
    assert_eq!(both["changes"][0]["name"], "ours-2");
    ours.get("/api/v1/revisions/3").await.problem(404, "not-found");
    let revert = async |number: u64| ours.ask(Method::POST, &format!("/api/v1/revisions/{number}/revert"), &[]).await;
    revert(3).await.problem(404, "not-found");
    assert_eq!(revert(5).await.problem(403, "forbidden")["missing"], json!(["role operator"]));
    assert_eq!(revert(2).await.status, 200);
    let page = ours.get("/api/v1/revisions?limit=1&cursor=4").await.body;
    assert_eq!(
        (&page["items"], &page["nextCursor"]),
        (&json!([]), &json!("3")),
        "the page looked at one it may not show"
    );
}

#[tokio::test]
async fn a_token_is_shown_once_rotated_and_revoked() {
    let admin = with_teams().await;
    let (id, ci) = admin.token(json!({ "name": "ci", "role": "viewer", "scopes": ["services:read"] })).await;
    let me = ci.get("/api/v1/whoami").await.body;
    let grant = json!({ "role": "viewer", "teams": [], "scopes": ["services:read"] });
    assert_eq!((&me["name"], &me["role"], &me["grants"]), (&json!("ci"), &json!("viewer"), &json!([grant])));
    assert!(me["expiresAt"].is_string() && admin.get("/api/v1/whoami").await.body["expiresAt"].is_null(), "{me}");
    assert_eq!(ci.names("/api/v1/services").await.len(), 3, "a viewer without teams sees all");
    assert_eq!(ci.get("/api/v1/fleets").await.problem(403, "forbidden")["missing"], json!(["scope fleets:read"]));
    assert_eq!(ci.get("/api/v1/tokens").await.problem(403, "forbidden")["missing"], json!(["role admin"]));

    let listed = admin.get("/api/v1/tokens").await;
    let token = &listed.body["items"][0];
    assert_eq!(
        (&token["name"], &token["state"], &token["createdBy"]),
        (&json!("ci"), &json!("active"), &json!("admin"))
    );
    assert!(token["lastUsedAt"].is_string() && !listed.text.contains("chy_"), "{}", listed.text);

    let rotated = admin.ask(Method::POST, &format!("/api/v1/tokens/{id}/rotate?grace=0s"), &[]).await;
    let new = admin.with(rotated.body["token"].as_str().unwrap());
    assert_eq!(ci.get("/api/v1/whoami").await.problem(401, "unauthorized")["detail"], "the bearer token has expired");
    assert_eq!(new.get("/api/v1/whoami").await.body["name"], "ci");

    let revoked = admin.ask(Method::DELETE, &format!("/api/v1/tokens/{id}"), &[]).await;
    assert_eq!((revoked.status.as_u16(), &revoked.body["state"]), (200, &json!("revoked")));
    new.get("/api/v1/whoami").await.problem(401, "unauthorized");
    for (method, path) in
        [(Method::DELETE, id.clone()), (Method::POST, format!("{id}/rotate")), (Method::DELETE, "x".into())]
    {
        admin.ask(method, &format!("/api/v1/tokens/{path}"), &[]).await.problem(404, "not-found");
    }
}

#[tokio::test]
async fn a_token_that_makes_no_sense_is_not_made() {
    let admin = with_teams().await;
    let many: Vec<_> = (0..65).map(|n| format!("t{n}")).collect();
    for (request, expected) in [
        (json!({ "name": "Ci", "role": "viewer" }), "#name: must consist of"),
        (json!({ "name": "ci", "role": "boss" }), "#role: unknown variant `boss`"),
        (json!({ "name": "ci", "role": "viewer", "team": "a" }), "#team: unknown field"),
        (json!({ "name": "ci", "role": "viewer", "scopes": ["routes"] }), "#scopes[0]: \"routes\" is not a scope"),
        (json!({ "name": "admin", "role": "viewer" }), "#name: is that of the admin's token"),
        (json!({ "name": "ci", "role": "owner" }), "#teams: needs one at least"),
        (json!({ "name": "ci", "role": "operator", "teams": ["a"] }), "#teams: must be empty: role operator"),
        (json!({ "name": "ci", "role": "owner", "teams": ["c"] }), "#teams[0]: Team/c does not exist"),
        (json!({ "name": "ci", "role": "owner", "teams": ["a", "a"] }), "#teams[1]: is the same as [0]"),
        (json!({ "name": "ci", "role": "viewer", "teams": many }), "#teams: must have at most 64 entries, not 65"),
        (json!({ "name": "ci", "role": "viewer", "expiresIn": "never" }), "#expiresIn: must be a duration"),
        (json!({ "name": "ci", "role": "viewer", "expiresIn": "2y" }), "#expiresIn: must be between 1m and"),
        (json!({ "role": "viewer" }), "#: missing field `name`"),
    ] {
        let answer = admin.json(Method::POST, "/api/v1/tokens", request.clone()).await;
        answer.problem(422, "invalid");
        assert!(answer.problems()[0].starts_with(expected), "{request}: {:?}", answer.problems());
    }
    admin.token(json!({ "name": "ci", "role": "viewer" })).await;
    admin.json(Method::POST, "/api/v1/tokens", json!({ "name": "ci", "role": "viewer" })).await.problem(409, "exists");

    let keys = json!({ "name": "keys", "role": "admin", "scopes": ["tokens:write"] });
    let (_, keys) = admin.token(keys).await;
    let all = keys.json(Method::POST, "/api/v1/tokens", json!({ "name": "more", "role": "admin" })).await;
    assert_eq!(all.problem(403, "forbidden")["missing"], json!(["scope *:write"]));
    let (ci, _) = admin.token(json!({ "name": "all", "role": "admin" })).await;
    let stolen = keys.ask(Method::POST, &format!("/api/v1/tokens/{ci}/rotate"), &[]).await;
    assert_eq!(stolen.problem(403, "forbidden")["missing"], json!(["scope *:write"]));
}

/// A rule that the middleware did not apply would let something else through than 403.
#[tokio::test]
async fn a_token_that_allows_nothing_is_refused_by_every_operation() {
    let admin = with_teams().await;
    let (_, nobody) = admin.token(json!({ "name": "nobody", "role": "viewer", "scopes": ["load:write"] })).await;
    let description = serde_json::to_value(openapi()).unwrap();
    let mut asked = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let filled = path.replace("{name}", "ours").replace("{id}", "x").replace("{number}", "1");
            let answer = nobody.json(method.to_uppercase().parse().unwrap(), &filled, json!({})).await;
            let open = ["/api/v1/whoami", "/api/v1/sign-in", "/api/v1/enrol", "/api/v1/traffic"];
            let allowed = open.contains(&path.as_str()) || path.ends_with("/load");
            assert_eq!(answer.status == 403, !allowed, "{method} {path}: {}", answer.text);
            asked += 1;
        }
    }
    assert!(asked > 60, "{asked}");
}
