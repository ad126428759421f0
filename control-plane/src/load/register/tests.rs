use super::*;
use crate::load::testing::stats;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

struct Desk {
    loads: Arc<Loads>,
    start: Instant,
}

impl Desk {
    fn new() -> Self {
        Self { loads: Arc::new(Loads::new(Duration::from_secs(10))), start: Instant::now() }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    fn connect(&self, fleet: &str, proxy: &str) -> Reporting {
        self.loads.connect(name(fleet), name(proxy), self.start)
    }

    fn report(&self, stream: &Reporting, second: u64, report: &[ClusterStats]) {
        stream.report(report, self.at(second), |cluster| cluster.parse().ok());
    }
}

#[test]
fn proxies_add_up_by_fleet_and_take_along_what_they_reported() {
    let desk = Desk::new();
    let (one, two, core) = (desk.connect("edge", "one"), desk.connect("edge", "two"), desk.connect("core", "one"));
    let _silent = desk.connect("edge", "silent");
    desk.report(&one, 10, &[stats("shop", 90, 10, 3)]);
    desk.report(&two, 10, &[stats("shop", 30, 10, 1)]);
    desk.report(&two, 20, &[stats("shop", 10, 0, 2)]);
    desk.report(&core, 10, &[stats("shop", 1, 0, 0)]);

    let shop = desk.loads.of_service(&name("shop"), None);
    let edge = shop[&name("edge")];
    assert_eq!(edge.counts, Counts { successes: 130, errors: 20, dropped: 0 });
    assert_eq!((edge.in_progress, edge.proxies, edge.since), (5, 2, Some(desk.start)));
    assert!((edge.requests_per_second - (10.0 + 2.5)).abs() < 1e-9, "{edge:?}");
    assert_eq!(shop[&name("core")].counts.requests(), 1);
    assert_eq!(desk.loads.of_service(&name("shop"), Some(&name("core"))).len(), 1);
    let all = desk.loads.of_services(None);
    assert_eq!(all[&(name("shop"), name("edge"))], edge);

    drop(one);
    let edge = desk.loads.of_service(&name("shop"), Some(&name("edge")))[&name("edge")];
    assert_eq!((edge.counts.requests(), edge.in_progress, edge.proxies), (50, 2, 1));
    drop((two, core));
    assert!(desk.loads.of_services(None).is_empty());
    assert_eq!(desk.loads.entries.load(Relaxed), 0, "nothing of them is left");
}

#[test]
fn a_gate_asks_for_some_of_the_proxies() {
    let desk = Desk::new();
    let (canary, other) = (desk.connect("edge", "canary"), desk.connect("edge", "other"));
    for second in [10, 20, 30, 40, 50, 60] {
        let errors = u64::from(second > 30) * 5;
        desk.report(&canary, second, &[stats("shop", 5, errors, 0), stats("cart", 5, errors, 0)]);
        desk.report(&other, second, &[stats("shop", 10, 0, 0)]);
    }
    let counted = |wanted: &[&str], second| {
        let counted = desk.loads.counts_since(&name("edge"), |id| wanted.contains(&id.as_str()), desk.at(second));
        (counted.counts.error_rate(), counted.proxies)
    };
    assert_eq!(counted(&["canary"], 30), (Some(0.5), 1), "the report that came 10 s later began before");
    assert_eq!(counted(&["other"], 30), (Some(0.0), 1));
    assert_eq!(counted(&["canary", "other"], 40), (Some(0.25 * 4.0 / 3.0), 2));
    assert_eq!((counted(&["canary"], 60), counted(&["gone"], 0)), ((None, 1), (None, 0)));
}

#[test]
fn a_proxy_has_a_few_streams_and_no_more() {
    let desk = Desk::new();
    let mut streams: Vec<_> = (0..MAX_STREAMS).map(|_| desk.connect("edge", "one")).collect();
    let replaced = |streams: &[Reporting]| -> Vec<bool> {
        streams.iter().map(|stream| stream.replaced().is_cancelled()).collect()
    };
    assert_eq!(replaced(&streams), [false; MAX_STREAMS]);
    let _other = desk.connect("edge", "two");
    streams.extend([desk.connect("edge", "one"), desk.connect("edge", "one")]);
    assert_eq!(replaced(&streams), [true, true, false, false, false, false]);
    for (stream, successes) in streams.iter().zip(1..) {
        desk.report(stream, 10, &[stats("shop", successes, 0, 0)]);
    }
    let shop = desk.loads.of_service(&name("shop"), None)[&name("edge")];
    assert_eq!((shop.counts.requests(), shop.proxies), (1 + 2 + 3 + 4 + 5 + 6, 1), "it is one proxy");
}

#[test]
fn what_is_kept_is_bounded() {
    let desk = Desk::new();
    let (one, two) = (desk.connect("edge", "one"), desk.connect("edge", "two"));
    desk.loads.entries.store(MAX_ENTRIES - 1, Relaxed);
    desk.report(&one, 10, &[stats("a", 1, 0, 0), stats("b", 1, 0, 0)]);
    desk.report(&two, 10, &[stats("a", 1, 0, 0)]);
    assert_eq!((desk.loads.of_services(None).len(), desk.loads.entries.load(Relaxed)), (1, MAX_ENTRIES));
    desk.report(&one, 100, &[]);
    desk.report(&two, 100, &[stats("b", 1, 0, 0)]);
    assert_eq!(desk.loads.of_services(None).len(), 1, "there is room again");
}
