use serde_json::json;

use super::*;
use crate::{
    access::Role,
    oidc::testing::{AUDIENCE, ISSUER, Signer, settings},
};

/// When these tests are.
const NOW: i64 = 1_900_000_000;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW).unwrap()
}

fn rules() -> Rules {
    settings(ISSUER).rules().unwrap().unwrap()
}

fn keys(signers: &[&Signer]) -> Keys {
    let keys: Vec<_> = signers.iter().map(|signer| signer.public()).collect();
    Keys::read(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

/// An issuer with one key, and who is asked.
struct Scene {
    signer: Signer,
    keys: Keys,
    rules: Rules,
}

impl Scene {
    fn new() -> Self {
        let signer = Signer::new("ES256", "one");
        Self { keys: keys(&[&signer]), signer, rules: rules() }
    }

    fn judge(&self, token: &str) -> Result<Person, Refused> {
        self.rules.judge(token, Some(&self.keys), now())
    }

    fn says(&self, more: Value) -> Result<Person, Refused> {
        self.judge(&self.signer.token(NOW, more))
    }

    fn refuses(&self, more: Value) -> String {
        self.says(more).unwrap_err().to_string()
    }
}

fn name(person: Result<Person, Refused>) -> String {
    person.unwrap().principal.name
}

#[test]
fn a_good_token_says_who_it_is_and_what_they_may_do() {
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
        let signer = Signer::new(algorithm, "one");
        let token = signer.token(NOW, json!({ "groups": ["payments", "others", "platform"] }));
        assert!(is_of_an_issuer(&token));
        let person = rules().judge(&token, Some(&keys(&[&signer])), now()).unwrap();
        assert_eq!((person.principal.name.as_str(), person.subject.as_str()), ("oidc:ada@example.com", "42"));
        assert_eq!(person.until.unix_timestamp(), NOW + 600);
        let roles: Vec<_> = person.principal.grants().iter().map(|grant| grant.role).collect();
        assert_eq!(roles, [Role::Operator, Role::Owner], "{algorithm}");
    }
    assert!(!is_of_an_issuer("chy_abc") && !is_of_an_issuer("a.b") && !is_of_an_issuer("a.b.c.d"));
}

#[test]
fn whom_and_which_time_it_is_for_is_looked_at() {
    let scene = Scene::new();
    for good in [
        json!({ "aud": ["other", AUDIENCE] }),
        json!({ "exp": NOW - 59 }),
        json!({ "nbf": NOW + 60, "iat": NOW + 60 }),
        json!({ "exp": NOW as f64 + 0.5, "iat": null }),
        json!({ "groups": "payments" }),
    ] {
        assert!(scene.says(good.clone()).is_ok(), "{good}");
    }
    for (more, reason) in [
        (
            json!({ "iss": "https://evil.example.com" }),
            "the token is of issuer \"https://evil.example.com\", not of https://login.example.com",
        ),
        (
            json!({ "iss": format!("{ISSUER}/") }),
            "the token is of issuer \"https://login.example.com/\", not of https://login.example.com",
        ),
        (json!({ "iss": null }), "the token is of issuer \"\", not of https://login.example.com"),
        (json!({ "aud": "other" }), "the token is for \"other\", not for chancery"),
        (json!({ "aud": null }), "the token is for \"\", not for chancery"),
        (json!({ "aud": [] }), "the token is for \"\", not for chancery"),
        (json!({ "exp": NOW - 60 }), "the token has expired 1 min ago; sign in again: chancery login"),
        (json!({ "exp": NOW - 7200 }), "the token has expired 2 h ago; sign in again: chancery login"),
        (json!({ "exp": null }), "the token cannot be read: it does not say when it expires"),
        (json!({ "exp": "tomorrow" }), "the token cannot be read: one of exp, nbf and iat is no time"),
        (json!({ "exp": 1e300 }), "the token cannot be read: one of exp, nbf and iat is no time"),
        (json!({ "sub": null }), "the token does not say whose it is: it has no claim sub"),
    ] {
        assert_eq!(scene.refuses(more.clone()), reason, "{more}");
    }
    assert_eq!(claimed_end(&scene.signer.token(NOW, json!({}))).unwrap().unix_timestamp(), NOW + 600);
    assert!(claimed_end(&scene.signer.token(NOW, json!({ "exp": null }))).is_err());
    for late in ["nbf", "iat"] {
        assert_eq!(scene.says(json!({ late: NOW + 61 })), Err(Refused::NotYet), "{late}");
    }
}

#[test]
fn a_signature_must_be_by_a_key_of_the_issuer() {
    let scene = Scene::new();
    let good = scene.signer.token(NOW, json!({}));
    let forged = Signer::new("ES256", "one").token(NOW, json!({}));
    assert_eq!(scene.judge(&forged), Err(Refused::Signature));
    let unknown = Signer::new("ES256", "two").token(NOW, json!({}));
    assert_eq!(scene.judge(&unknown), Err(Refused::UnknownKey(Shown::of("two"))));
    assert_eq!(scene.rules.judge(&good, None, now()), Err(Refused::NoKeys));
    // Claims of one token with the signature of another.
    let other = scene.signer.token(NOW, json!({ "groups": ["platform"] }));
    let (message, _) = other.rsplit_once('.').unwrap();
    let (_, signature) = good.rsplit_once('.').unwrap();
    assert_eq!(scene.judge(&format!("{message}.{signature}")), Err(Refused::Signature));
    assert_eq!(scene.judge(&format!("{message}.")), Err(Refused::Signature));
}

#[test]
fn no_token_chooses_how_it_is_verified() {
    let signer = Signer::new("RS256", "one");
    let keys = keys(&[&signer]);
    let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "42", "exp": NOW + 60, "groups": ["platform"] });
    let judge = |header: Value| rules().judge(&signer.signed(&header, &claims), Some(&keys), now());
    assert!(judge(json!({ "alg": "RS256", "kid": "one" })).is_ok());
    assert!(judge(json!({ "alg": "RS256" })).is_ok(), "there is one key only");
    for algorithm in ["none", "None", "", "HS256", "HS512", "RS512", "RS1", "ES384"] {
        let refused = judge(json!({ "alg": algorithm, "kid": "one" }));
        assert_eq!(refused, Err(Refused::Algorithm(Shown::of(algorithm))), "{algorithm}");
    }
    for algorithm in ["PS256", "ES256", "EdDSA"] {
        let refused = judge(json!({ "alg": algorithm, "kid": "one" }));
        assert_eq!(refused, Err(Refused::UnknownKey(Shown::of("one"))), "the key is for RS256, not {algorithm}");
    }
    for (header, refused) in [
        (
            json!({ "alg": "RS256", "kid": "one", "crit": ["b64"], "b64": false }),
            "it has critical extensions, none of which is known here",
        ),
        (json!({ "kid": "one" }), "its header is not one of a JWT"),
    ] {
        assert_eq!(judge(header), Err(Refused::Malformed(refused)));
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        assert!(judge(json!({ "alg": "RS256", "kid": "one", "typ": typ })).is_ok(), "{typ}");
    }
    let logout = judge(json!({ "alg": "RS256", "kid": "one", "typ": "logout+jwt" }));
    assert_eq!(logout, Err(Refused::Type(Shown::of("logout+jwt"))));
}

#[test]
fn a_token_that_names_no_key_is_taken_if_there_is_one_only() {
    let signers = [Signer::new("ES256", "a"), Signer::new("ES256", "b"), Signer::new("RS256", "c")];
    let keys = keys(&[&signers[0], &signers[1], &signers[2]]);
    let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "42", "exp": NOW + 60, "groups": ["platform"] });
    let judge = |signer: &Signer, algorithm: &str| {
        rules().judge(&signer.signed(&json!({ "alg": algorithm }), &claims), Some(&keys), now())
    };
    assert_eq!(judge(&signers[1], "ES256"), Err(Refused::NoKey));
    assert!(judge(&signers[2], "RS256").is_ok());
}

#[test]
fn what_is_no_token_is_refused_and_never_harmful() {
    let scene = Scene::new();
    let good = scene.signer.token(NOW, json!({}));
    let huge = scene.signer.token(NOW, json!({ "more": "x".repeat(LONGEST) }));
    assert_eq!(scene.judge(&huge), Err(Refused::TooLong));
    for text in ["", ".", "..", "a.b.c", "e30.e30.e30", "bnVsbA.bnVsbA.bnVsbA", "W10.W10.", "é.é.é"] {
        assert!(matches!(scene.judge(text), Err(Refused::Malformed(_))), "{text}");
    }
    for end in 0..good.len() {
        assert!(scene.judge(&good[..end]).is_err(), "{end}");
    }
    let header = good.split('.').next().unwrap();
    let array = format!("{header}.W10.AAAA");
    assert_eq!(scene.judge(&array), Err(Refused::Malformed("its claims are no JSON object")));
}

#[test]
fn a_name_is_one_that_nobody_else_can_take() {
    let scene = Scene::new();
    for (more, expected) in [
        (json!({}), "oidc:ada@example.com"),
        (json!({ "email_verified": null }), "oidc:ada@example.com"),
        (json!({ "email_verified": false, "preferred_username": "ada" }), "oidc:ada"),
        (json!({ "email_verified": "false" }), "oidc:42"),
        (json!({ "email": null, "preferred_username": "ada" }), "oidc:ada"),
        (json!({ "email": "ada\n@example.com" }), "oidc:42"),
        (json!({ "email": "x".repeat(129) }), "oidc:42"),
        (json!({ "email": 7, "sub": "a b\u{0}c" }), "oidc:abc"),
    ] {
        assert_eq!(name(scene.says(more.clone())), expected, "{more}");
    }
    let rules = Rules { name_claim: "sub".to_owned(), ..scene.rules };
    let scene = Scene { rules, ..scene };
    assert_eq!(name(scene.says(json!({}))), "oidc:42");
}

#[test]
fn who_is_in_no_group_that_is_granted_something_may_nothing_and_is_told() {
    let scene = Scene::new();
    let many: Vec<_> = (0..12).map(|n| n.to_string()).collect();
    for (groups, reason) in [
        (json!(["x", "y\u{7}"]), "none of the groups of oidc:ada@example.com is granted anything here: \"x\", \"y\""),
        (json!([]), "none of the groups of oidc:ada@example.com is granted anything here: there are none"),
        (
            json!(many),
            "none of the groups of oidc:ada@example.com is granted anything here: \
            \"0\", \"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\", \"9\" and 2 more",
        ),
        (
            Value::Null,
            "oidc:ada@example.com is in no group: the token has no claim \"groups\", or not as a list; have the issuer put it in",
        ),
        (
            json!([1]),
            "oidc:ada@example.com is in no group: the token has no claim \"groups\", or not as a list; have the issuer put it in",
        ),
    ] {
        let refused = scene.says(json!({ "groups": groups })).unwrap_err();
        assert_eq!(refused.to_string(), reason);
        assert_eq!(refused.owner(), Some("oidc:ada@example.com"));
        assert!(!refused.is_a_guess());
    }
    let elsewhere = scene.refuses(json!({ "groups": null, "_claim_names": { "groups": "src1" } }));
    assert!(elsewhere.contains("too many for a token"), "{elsewhere}");
    assert!(scene.judge("a.b.c").unwrap_err().is_a_guess());
}

#[test]
fn ten_thousand_groups_are_looked_up_one_by_one() {
    let Scene { rules, .. } = Scene::new();
    let groups: Vec<String> = (0..9_999).map(|n| format!("group-{n}")).collect();
    let parts = |groups: Vec<String>| {
        let claims = json!({ "groups": groups }).as_object().unwrap().clone();
        Parts { algorithm: Algorithm::Es256, key_id: None, claims, message: b"", signature: Vec::new() }
    };
    let refused = rules.granted(&parts(groups.clone()), "oidc:ada").unwrap_err().to_string();
    assert!(refused.ends_with("and 9989 more") && refused.len() < 300, "{refused}");
    let with = [groups, vec!["payments".to_owned()]].concat();
    assert_eq!(rules.granted(&parts(with.clone()), "oidc:ada").unwrap().len(), 1);
    // A token with all of them is more than a request may carry.
    let scene = Scene::new();
    assert_eq!(scene.says(json!({ "groups": with })), Err(Refused::TooLong));
}

#[test]
fn groups_may_lie_deep() {
    let scene = Scene::new();
    let with = |claim: &str| Rules { groups_claim: claim.to_owned(), ..scene.rules.clone() };
    let token = scene
        .signer
        .token(NOW, json!({ "realm_access": { "roles": ["payments"] }, "https://a.example.com/groups": ["payments"] }));
    for claim in ["/realm_access/roles", "https://a.example.com/groups", "/https:~1~1a.example.com~1groups"] {
        assert!(with(claim).judge(&token, Some(&scene.keys), now()).is_ok(), "{claim}");
    }
    for claim in ["realm_access.roles", "/realm_access", "/realm_access/roles/0/x", "/"] {
        let refused = with(claim).judge(&token, Some(&scene.keys), now());
        assert!(matches!(refused, Err(Refused::NoGroups { .. })), "{claim}");
    }
}
