//! Who clients are by the tokens that they bring, seen at a real Envoy.

use std::time::SystemTime;

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chancery_e2e::{
    client::request,
    document::{route, service},
    over_both_protocols,
    scene::Scene,
    upstream::{Echo, Upstream},
};
use http::Method;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

/// A host of the routes here.
const HOST: &str = "shop.example.com";

over_both_protocols!(Delta in delta: tokens_decide_and_tell_who_it_is, keys_come_from_a_service);

/// Whoever signs tokens.
struct Issuer {
    name: &'static str,
    key: KeyPair,
}

impl Issuer {
    fn new(name: &'static str) -> Result<Self> {
        Ok(Self { name, key: KeyPair::generate_for(&PKCS_ED25519)? })
    }

    fn keys(&self) -> Value {
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(self.key.der_bytes()) }] })
    }

    fn provider(&self, more: Value) -> Value {
        let mut provider = more;
        provider["name"] = self.name.into();
        provider["issuer"] = format!("https://{}.example.com", self.name).into();
        provider
    }

    /// A token that says this besides its issuer; `lasts` may be over.
    fn token(&self, more: Value, lasts: i64) -> Result<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let mut claims = more;
        claims["iss"] = format!("https://{}.example.com", self.name).into();
        claims["exp"] = now.saturating_add_signed(lasts).into();
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "alg": "EdDSA", "typ": "JWT" })), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes())?);
        Ok(format!("{signed}.{signature}"))
    }
}

fn rule(path: &str, jwt: &Value) -> Value {
    json!({ "match": { "path": { "exact": path } }, "to": [{ "service": "shop" }], "jwt": jwt })
}

async fn tokens_decide_and_tell_who_it_is(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let [people, robots] = [Issuer::new("people")?, Issuer::new("robots")?];
    let rules = json!([
        rule("/people", &json!({ "any": ["people"] })),
        rule("/any", &json!({ "any": ["people", "robots"] })),
        rule("/maybe", &json!({ "any": ["people"], "allowMissing": true })),
        rule("/both", &json!({ "all": ["people", "robots"] })),
        { "match": { "path": { "exact": "/open" } }, "to": [{ "service": "shop" }] },
    ]);
    let inline = |issuer: &Issuer| json!({ "inline": issuer.keys().to_string() });
    let claims = json!([{ "claim": "sub", "header": "x-user" }]);
    let mut shop = route("shop", HOST, &rules);
    shop["spec"]["jwtProviders"] = json!([
        people.provider(json!({ "keys": inline(&people), "audiences": ["shop"], "claims": claims })),
        robots.provider(json!({ "keys": inline(&robots), "header": "x-token", "forward": true })),
    ]);
    scene.api.apply_and_wait(&[service("shop", &[upstream.address]), shop]).await?;
    let hour = 3600;
    let bearer = |token: String| format!("Bearer {token}");
    let ann = bearer(people.token(json!({ "sub": "ann", "aud": "shop" }), hour)?);
    let late = bearer(people.token(json!({ "sub": "ann", "aud": "shop" }), -hour)?);
    let elsewhere = bearer(people.token(json!({ "sub": "ann", "aud": "bank" }), hour)?);
    let forged = bearer(Issuer::new("people")?.token(json!({ "sub": "ann", "aud": "shop" }), hour)?);
    let robot = robots.token(json!({ "sub": "r2" }), hour)?;
    let (person, token) = (("authorization", ann.as_str()), ("x-token", robot.as_str()));
    for (path, headers, wanted) in [
        ("/people", vec![person], 200),
        ("/people", vec![("authorization", late.as_str())], 401),
        ("/people", vec![("authorization", elsewhere.as_str())], 403),
        ("/people", vec![("authorization", forged.as_str())], 401),
        ("/people", vec![token], 401),
        ("/people", vec![], 401),
        ("/any", vec![person], 200),
        ("/any", vec![token], 200),
        ("/any", vec![], 401),
        ("/maybe", vec![person], 200),
        ("/maybe", vec![], 200),
        ("/maybe", vec![("authorization", forged.as_str())], 401),
        ("/both", vec![person, token], 200),
        ("/both", vec![person], 401),
        ("/both", vec![token], 401),
        ("/open", vec![("authorization", late.as_str())], 200),
    ] {
        let before = upstream.requests();
        let answer = scene.fetch(request(Method::GET, HOST, path, &headers)).await?;
        assert_eq!(answer.status, wanted, "{path} {headers:?} {}", answer.text());
        assert_eq!(upstream.requests() - before, u64::from(wanted == 200), "{path}");
    }
    let seen = async |path: &str, headers: &[(&str, &str)]| {
        let answer = scene.fetch(request(Method::GET, HOST, path, headers)).await?;
        Ok::<Echo, anyhow::Error>(serde_json::from_slice(&answer.body)?)
    };
    let told = seen("/both", &[person, token, ("x-user", "root")]).await?.headers;
    assert_eq!((told["x-user"].as_str(), told.get("authorization")), ("ann", None));
    assert_eq!(told["x-token"], robot, "what is to go on does");
    let claimed = seen("/maybe", &[("x-user", "root")]).await?.headers;
    assert_eq!(claimed.get("x-user"), None, "nobody can say who they are without a token");
    Ok(())
}

async fn keys_come_from_a_service(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let people = Issuer::new("people")?;
    // The listener itself plays the service that has the keys.
    let keys = json!([{ "respond": { "status": 200, "body": people.keys().to_string() } }]);
    let rules = json!([rule("/people", &json!({ "any": ["people"] }))]);
    let mut shop = route("shop", HOST, &rules);
    let source = json!({ "service": "keys", "host": "keys.example.com", "path": "/jwks.json" });
    shop["spec"]["jwtProviders"] = json!([people.provider(json!({ "keys": source }))]);
    let problem = scene.api.json(Method::PUT, "/api/v1/routes/shop", Some(&shop)).await?.json()?;
    assert_eq!(problem["problems"][0]["path"], "spec.jwtProviders[0].keys.service", "{problem}");
    let resources = [
        service("keys", &[scene.web]),
        service("shop", &[upstream.address]),
        route("keys", "keys.example.com", &keys),
        shop,
    ];
    scene.api.apply_and_wait(&resources).await?;
    let token = format!("Bearer {}", people.token(json!({ "sub": "ann" }), 3600)?);
    let ask = |headers: &[(&str, &str)]| request(Method::GET, HOST, "/people", headers);
    scene.fetch_until("the keys are there", ask(&[("authorization", &token)]), |answer| answer.status == 200).await?;
    let forged = format!("Bearer {}", Issuer::new("people")?.token(json!({ "sub": "ann" }), 3600)?);
    assert_eq!(scene.fetch(ask(&[("authorization", &forged)])).await?.status, 401);
    let deleted = scene.api.json(Method::DELETE, "/api/v1/services/keys", None).await?;
    assert_eq!(deleted.status, 422, "a service that is asked for keys is in use");
    Ok(())
}
