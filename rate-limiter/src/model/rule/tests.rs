//! Whose rule a descriptor falls under, and what is refused when rules are built.

use std::time::Duration;

use super::*;
use crate::model::limit::{Algorithm, Limit};

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn spec(key: &str, value: &str) -> DescriptorSpec {
    DescriptorSpec { key: key.into(), value: value.into(), ..DescriptorSpec::default() }
}

fn limit(requests: u32) -> LimitSpec {
    let limit = Limit::new(requests, Duration::from_secs(60), None, Algorithm::TokenBucket).unwrap();
    LimitSpec {
        amount: Amount::Limited(limit),
        name: String::new(),
        replaces: Vec::new(),
        policy: Policy::default(),
        body: None,
    }
}

impl DescriptorSpec {
    fn limited(mut self, requests: u32) -> Self {
        self.limit = Some(limit(requests));
        self
    }

    fn unlimited(mut self) -> Self {
        self.limit = Some(LimitSpec { amount: Amount::Unlimited, ..limit(1) });
        self
    }

    fn shared(mut self) -> Self {
        self.share_threshold = true;
        self
    }

    fn metric(mut self) -> Self {
        self.value_to_metric = true;
        self
    }

    fn detailed(mut self) -> Self {
        self.detailed_metric = true;
        self
    }

    fn over(mut self, below: impl IntoIterator<Item = Self>) -> Self {
        self.descriptors.extend(below);
        self
    }
}

fn domain(name: &str, descriptors: impl IntoIterator<Item = DescriptorSpec>) -> DomainSpec {
    DomainSpec {
        name: name.into(),
        descriptors: descriptors.into_iter().collect(),
        fleets: None,
        origin: format!("{name}.yaml"),
    }
}

fn entries<'a>(pairs: Pairs<'a>) -> Vec<Entry<'a>> {
    pairs.iter().map(|&(key, value)| Entry { key, value }).collect()
}

/// Every structure of the examples in envoyproxy/ratelimit's documentation and tests.
fn examples() -> Rules {
    Rules::build(&[
        domain("db", [spec("pool", "users").limited(500), spec("pool", "orders").limited(400)]),
        domain("mail", [spec("kind", "advert").over([spec("to", "").limited(5)]), spec("to", "").limited(100)]),
        domain("edge", [spec("address", "").limited(10), spec("address", "192.0.2.5").limited(0)]),
        domain("deep", [spec("a", "1").limited(300), spec("b", "1").over([spec("c", "").limited(301)])]),
        domain("inner", [spec("ldap", "").unlimited(), spec("cloud", "").limited(100)]),
        domain(
            "wild",
            [
                spec("k", "val*").limited(1),
                spec("k", "value*").limited(2),
                spec("k", "value1").limited(3),
                spec("k", "").limited(4),
                spec("mid", "x*y").limited(5),
                spec("outer", "o").over([spec("inner", "i*").limited(6)]),
                spec("any", "*").limited(7),
                spec("any", "").limited(8),
                spec("api*", "").limited(9),
                spec("api-v2", "x*").limited(10),
                spec("api-v3", "").limited(11),
                spec("apj", "x*").limited(12),
                spec("ap*", "").limited(13),
            ],
        ),
        domain(
            "paths",
            [
                spec("k", "v").over([spec("s", "x").limited(1)]),
                spec("k", "").over([spec("s", "y").limited(2)]),
                spec("free", "").limited(3),
                spec("free", "yes"),
                spec("both", "b").limited(4).over([spec("s", "").limited(5)]),
                spec("a_b", "").limited(6),
                spec("a", "b_c").limited(7),
                spec("a_b", "c").limited(8),
                spec("ü", "ß*").limited(9),
            ],
        ),
    ])
    .unwrap()
}

#[test]
fn precedence_is_exact_then_wildcard_then_bare_key() {
    let rules = examples();
    let table: &[(&str, Pairs<'_>, Option<&str>)] = &[
        ("db", &[("pool", "users")], Some("db.pool_users")),
        ("db", &[("pool", "orders")], Some("db.pool_orders")),
        ("db", &[("pool", "none")], None),
        ("db", &[("pool", "")], None),
        ("db", &[("Pool", "users")], None),
        ("db", &[], None),
        ("mail", &[("kind", "advert"), ("to", "1")], Some("mail.kind_advert.to")),
        ("mail", &[("to", "1")], Some("mail.to")),
        ("mail", &[("kind", "news"), ("to", "1")], None),
        ("mail", &[("to", "1"), ("kind", "advert")], None),
        ("edge", &[("address", "192.0.2.1")], Some("edge.address")),
        ("edge", &[("address", "192.0.2.5")], Some("edge.address_192.0.2.5")),
        ("edge", &[("address", "")], Some("edge.address")),
        // As deep as the rule, neither more nor less.
        ("deep", &[("a", "1")], Some("deep.a_1")),
        ("deep", &[("a", "1"), ("c", "2")], None),
        ("deep", &[("b", "1"), ("c", "2")], Some("deep.b_1.c")),
        ("deep", &[("b", "1")], None),
        ("deep", &[("b", "1"), ("c", "2"), ("d", "3")], None),
        ("inner", &[("ldap", "x")], Some("inner.ldap")),
        // Wildcards: the first in the file, though a later one says more.
        ("wild", &[("k", "value1")], Some("wild.k_value1")),
        ("wild", &[("k", "value2")], Some("wild.k_val*")),
        ("wild", &[("k", "val")], Some("wild.k_val*")),
        ("wild", &[("k", "va")], Some("wild.k")),
        ("wild", &[("mid", "x*y")], Some("wild.mid_x*y")),
        ("wild", &[("mid", "xzy")], None),
        ("wild", &[("outer", "o"), ("inner", "i7")], Some("wild.outer_o.inner_i*")),
        ("wild", &[("outer", "o"), ("inner", "j")], None),
        ("wild", &[("any", "")], Some("wild.any_*")),
        ("wild", &[("any", "x")], Some("wild.any_*")),
        // Wildcards of keys stand in the same order as those of values, and before bare keys.
        ("wild", &[("api", "x")], Some("wild.api*")),
        ("wild", &[("api-v2", "x")], Some("wild.api*")),
        ("wild", &[("api-v3", "x")], Some("wild.api*")),
        ("wild", &[("apj", "x")], Some("wild.apj_x*")),
        ("wild", &[("apj", "y")], Some("wild.ap*")),
        // What was chosen is kept.
        ("paths", &[("k", "v"), ("s", "x")], Some("paths.k_v.s_x")),
        ("paths", &[("k", "v"), ("s", "y")], None),
        ("paths", &[("k", "w"), ("s", "y")], Some("paths.k.s_y")),
        ("paths", &[("free", "no")], Some("paths.free")),
        ("paths", &[("free", "yes")], None),
        ("paths", &[("both", "b")], Some("paths.both_b")),
        ("paths", &[("both", "b"), ("s", "1")], Some("paths.both_b.s")),
        // Key and value are compared apart, not joined.
        ("paths", &[("a_b", "c")], Some("paths.a_b_c")),
        ("paths", &[("a", "b_c")], Some("paths.a_b_c")),
        ("paths", &[("a", "b")], None),
        ("paths", &[("ü", "ßx")], Some("paths.ü_ß*")),
    ];
    for (domain, pairs, expected) in table {
        let found = rules.domain(domain).unwrap().find(&entries(pairs));
        assert_eq!(found.map(|rule| &*rule.path), *expected, "{domain} {pairs:?}");
    }
    assert!(rules.domain("nowhere").is_none());
}

#[test]
fn ambiguous_joins_are_rules_of_their_own() {
    let rules = examples();
    let paths = rules.domain("paths").unwrap();
    let amounts = [[("a", "b_c")], [("a_b", "c")]].map(|pairs| paths.find(&entries(&pairs)).unwrap().amount);
    assert_eq!(amounts, [limit(7).amount, limit(8).amount]);
}

#[test]
fn rules_are_numbered_as_they_are_written() {
    let rules = examples();
    assert!(rules.all().iter().enumerate().all(|(place, rule)| rule.index == place));
    assert_eq!(rules.all()[2].path, "mail.kind_advert.to");
}

#[test]
fn shared_values_are_one_cell_and_others_are_not() {
    let rules = Rules::build(&[domain(
        "d",
        [
            spec("f", "one").limited(1),
            spec("f", "files/*").shared().limited(1),
            spec("g", "files/*").limited(1),
            spec("u", "user/*").shared().over([
                spec("r", "res/*").shared().over([spec("act", "").limited(1)]),
                spec("q", "res/*").over([spec("act", "").limited(1)]),
            ]),
        ],
    )])
    .unwrap();
    let cell = |pairs: Pairs<'_>| {
        let entries = entries(pairs);
        let rule = rules.domain("d").unwrap().find(&entries).unwrap();
        rule.cell(&entries).map(|entry| format!("{}={}", entry.key, entry.value)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(cell(&[("f", "files/a")]), "f=files/*");
    assert_eq!(cell(&[("f", "files/b")]), "f=files/*");
    assert_eq!(cell(&[("f", "one")]), "f=one");
    assert_eq!(cell(&[("g", "files/a")]), "g=files/a");
    assert_eq!(cell(&[("u", "user/1"), ("r", "res/2"), ("act", "get")]), "u=user/* r=res/* act=get");
    assert_eq!(cell(&[("u", "user/1"), ("q", "res/2"), ("act", "get")]), "u=user/* q=res/2 act=get");
}

#[test]
fn metrics_name_values_where_asked() {
    let rules = Rules::build(&[domain(
        "d",
        [
            spec("plain", "").limited(1),
            spec("all", "").detailed().limited(1),
            spec("route", "").metric().over([
                spec("method", "").metric().over([spec("id", "").limited(1)]),
                spec("act", "read*").metric().over([spec("id", "").limited(1)]),
                spec("raw", "read*").over([spec("id", "").limited(1)]),
            ]),
            spec("api", "v/*").shared().metric().over([spec("m", "").limited(1), spec("n", "").detailed().limited(1)]),
            spec("fixed", "x").metric().limited(1),
        ],
    )])
    .unwrap();
    let table: &[(Pairs<'_>, Option<&str>)] = &[
        (&[("plain", "x")], None),
        (&[("all", "x")], Some("d.all_x")),
        (&[("all", "")], Some("d.all")),
        (&[("route", "r"), ("method", "GET"), ("id", "7")], Some("d.route_r.method_GET.id")),
        (&[("route", "r"), ("act", "readfile"), ("id", "7")], Some("d.route_r.act_readfile.id")),
        (&[("route", "r"), ("raw", "readfile"), ("id", "7")], Some("d.route_r.raw_read*.id")),
        (&[("api", "v/1"), ("m", "GET")], None),
        (&[("api", "v/1"), ("n", "GET")], Some("d.api_v/*.n_GET")),
        (&[("fixed", "x")], None),
    ];
    for (pairs, expected) in table {
        let entries = entries(pairs);
        let rule = rules.domain("d").unwrap().find(&entries).unwrap();
        assert_eq!(rule.series(&entries).as_deref(), *expected, "{pairs:?}");
    }
}

#[test]
fn every_problem_is_reported_with_its_place() {
    let mut replacing = spec("r", "").limited(1);
    replacing.limit = Some(LimitSpec {
        name: "self".into(),
        replaces: vec!["other".into(), String::new(), "self".into()],
        ..limit(1)
    });
    let problems = Rules::build(&[
        domain("", [spec("", "")]),
        domain("one", [spec("k", "v"), spec("k", "").over([spec("", "x"), replacing]), spec("k", "v")]),
        DomainSpec { origin: "two.yaml".into(), ..domain("one", [spec("k", "v").shared()]) },
        domain("fine", [spec("k", "v*").shared(), spec("k*", "").shared()]),
    ])
    .unwrap_err();
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            ".yaml: domain: the domain must not be empty",
            ".yaml: descriptors[0]: the key must not be empty",
            "one.yaml: descriptors[1].descriptors[0]: the key must not be empty",
            "one.yaml: descriptors[1].descriptors[1].rate_limit.replaces[1]: the name must not be empty",
            "one.yaml: descriptors[1].descriptors[1].rate_limit.replaces[2]: a limit cannot replace itself",
            "one.yaml: descriptors[2]: has the same key and value as descriptors[0] beside it",
            "two.yaml: domain: domain \"one\" is already in one.yaml",
            "two.yaml: descriptors[0]: share_threshold needs a value that ends in *",
        ]
    );
}

#[test]
fn depth_and_number_are_bounded() {
    let nested = |depth: usize| {
        let innermost = spec("k", "").limited(1);
        domain("d", [(1..depth).fold(innermost, |below, _| spec("k", "").over([below]))])
    };
    let rules = Rules::build(&[nested(MAX_DEPTH)]).unwrap();
    assert!(rules.domain("d").unwrap().find(&entries(&[("k", "v"); MAX_DEPTH])).is_some());
    let problems = Rules::build(&[nested(MAX_DEPTH + 1)]).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].reason.contains("32 deep"), "{}", problems[0]);

    let two = || spec("k", "").over([spec("k", ""), spec("k", "2")]);
    assert!(build::compile(&[domain("d", [two()]), domain("e", [two()])], 6).is_ok());
    let problems = build::compile(&[domain("d", [two()]), domain("e", [two()])], 5).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "e.yaml: descriptors[0].descriptors[1]: there are more than 5 descriptors in all"
    );
}

#[test]
fn a_domain_with_fleets_is_theirs_alone() {
    let fleets = Some(BTreeSet::from(["edge".to_owned()]));
    let rules = Rules::build(&[DomainSpec { fleets, ..domain("edge", []) }, domain("open", [])]).unwrap();
    let admits = |name: &str, fleet| rules.domain(name).unwrap().admits(fleet);
    assert!(admits("edge", Some("edge")) && !admits("edge", Some("inner")) && !admits("edge", None));
    assert!(admits("open", Some("inner")) && admits("open", None));
}
