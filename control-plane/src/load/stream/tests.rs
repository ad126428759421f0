use chancery_proto::envoy::endpoint::cluster_stats::DroppedRequests;
use proptest::prelude::*;

use super::*;
use crate::load::testing::stats;

const INTERVAL: Duration = Duration::from_secs(10);

/// Everything that is a name is a service, but `other`.
fn known(cluster: &str) -> Option<Name> {
    cluster.parse().ok().filter(|name: &Name| name.as_str() != "other")
}

struct Desk {
    start: Instant,
    load: StreamLoad,
}

impl Desk {
    fn new() -> Self {
        let start = Instant::now();
        Self { start, load: StreamLoad::new(start) }
    }

    fn report(&mut self, second: u64, report: &[ClusterStats]) {
        self.load.report(report, self.start + Duration::from_secs(second), INTERVAL, usize::MAX, known);
    }

    fn counts(&self, service: &str) -> (u64, u64, u64) {
        let Seen { counts, in_progress } = self.load.of(service);
        (counts.successes, counts.errors, in_progress)
    }
}

#[test]
fn reports_add_up_for_a_minute_and_then_go() {
    let mut desk = Desk::new();
    desk.report(10, &[stats("a", 5, 1, 2), stats("b", 1, 0, 0)]);
    desk.report(20, &[stats("a", 7, 0, 3), stats("b", 0, 0, 0)]);
    assert_eq!((desk.counts("a"), desk.counts("b")), ((12, 1, 3), (1, 0, 0)));
    desk.report(70, &[stats("a", 1, 0, 0)]);
    assert_eq!((desk.counts("a"), desk.counts("b")), ((8, 0, 0), (0, 0, 0)), "that of 10 s is a minute old");
    desk.report(200, &[]);
    assert_eq!((desk.counts("a"), desk.load.len()), ((0, 0, 0), 0));
}

#[test]
fn what_a_report_does_not_mention_is_not_in_progress() {
    let mut desk = Desk::new();
    desk.report(10, &[stats("a", 0, 0, 4)]);
    assert_eq!(desk.counts("a"), (0, 0, 4));
    desk.report(20, &[stats("b", 1, 0, 0)]);
    assert_eq!((desk.counts("a"), desk.load.len()), ((0, 0, 0), 1));
}

#[test]
fn localities_are_one_and_drops_are_counted_once() {
    let mut desk = Desk::new();
    let mut report = stats("a", 2, 1, 1);
    report.upstream_locality_stats.push(report.upstream_locality_stats[0].clone());
    report.total_dropped_requests = 5;
    report.dropped_requests = vec![DroppedRequests { category: "overload".into(), dropped_count: 3 }];
    desk.report(10, &[report]);
    assert_eq!((desk.counts("a"), desk.load.of("a").counts.dropped), ((4, 2, 2), 5));
}

#[test]
fn what_is_no_service_counts_only_for_all_together() {
    let mut desk = Desk::new();
    desk.report(10, &[stats("other", 5, 5, 5), stats("No Name", 5, 5, 5), stats("a", 1, 0, 0)]);
    assert_eq!(desk.load.services().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(desk.load.counts_since(desk.start).unwrap().requests(), 21);
}

#[test]
fn without_room_only_the_sum_is_kept() {
    let mut desk = Desk::new();
    let both = [stats("a", 1, 0, 0), stats("b", 1, 0, 0)];
    desk.load.report(&both, desk.start, INTERVAL, 1, known);
    assert_eq!((desk.load.len(), desk.load.counts_since(desk.start).unwrap().requests()), (1, 2));
    desk.load.report(&both, desk.start, INTERVAL, 0, known);
    assert_eq!((desk.counts("a"), desk.counts("b")), ((2, 0, 0), (0, 0, 0)), "what is known goes on");
}

#[test]
fn rates_are_over_the_time_that_was_reported() {
    let mut desk = Desk::new();
    assert_eq!((desk.load.span(), desk.load.counts_since(desk.start)), (None, None));
    let seconds = |desk: &Desk| {
        let (from, to) = desk.load.span().unwrap();
        (to - from).as_secs()
    };
    desk.report(10, &[stats("a", 1, 0, 0)]);
    assert_eq!(seconds(&desk), 10);
    desk.report(20, &[]);
    assert_eq!(seconds(&desk), 20);
    desk.report(500, &[]);
    assert_eq!(seconds(&desk), 60);

    let covering = |(whole, nanos)| {
        let mut desk = Desk::new();
        let interval = Some(protobuf::Duration { seconds: whole, nanos });
        desk.report(100, &[ClusterStats { load_report_interval: interval, ..stats("a", 1, 0, 0) }]);
        seconds(&desk)
    };
    assert_eq!([(3, 0), (-1, 0), (i64::MAX, 0), (0, -5)].map(covering), [3, 10, 10, 10]);
}

#[test]
fn a_gate_hears_only_of_what_came_later() {
    let mut desk = Desk::new();
    for second in 1..=100 {
        desk.report(second * 10, &[stats("a", 1, 1, 0)]);
    }
    let since = |seconds| desk.load.counts_since(desk.start + Duration::from_secs(seconds)).unwrap().requests();
    assert_eq!([990, 991, 1000, 1001].map(since), [4, 2, 2, 0]);
    assert_eq!(since(0), 2 * 90, "fifteen minutes are remembered");
}

proptest! {
    #[test]
    fn nothing_is_counted_twice_or_lost_and_memory_is_bounded(
        reports in prop::collection::vec((0_u64..30, 0_u64..9, 0_u64..9, 0_u64..9), 1..200),
    ) {
        let mut desk = Desk::new();
        let (mut second, mut all) = (0, Vec::new());
        for (later, successes, errors, in_progress) in reports {
            second += later;
            desk.report(second, &[stats("a", successes, errors, in_progress)]);
            all.push((second, successes, errors));
            let recent = || all.iter().filter(|(at, ..)| at + 60 > second);
            let expected = (
                recent().map(|(_, successes, _)| successes).sum::<u64>(),
                recent().map(|(.., errors)| errors).sum::<u64>(),
                in_progress,
            );
            prop_assert_eq!(desk.counts("a"), expected);
            prop_assert!(desk.load.services.values().all(|load| load.minute.len() <= 60));
            prop_assert!(desk.load.all.len() <= 90);
        }
    }

    #[test]
    fn no_numbers_break_it(
        reports in prop::collection::vec(
            (any::<u64>(), prop::collection::vec(("[ab]", any::<[u64; 5]>(), any::<(i64, i32)>()), 0..6)), 0..12,
        ),
    ) {
        let mut desk = Desk::new();
        for (later, clusters) in reports {
            let report: Vec<_> = clusters.into_iter().map(|(name, [a, b, c, d, e], (seconds, nanos))| ClusterStats {
                total_dropped_requests: d,
                dropped_requests: vec![DroppedRequests { category: String::new(), dropped_count: e }; 2],
                load_report_interval: Some(protobuf::Duration { seconds, nanos }),
                ..stats(&name, a, b, c)
            }).collect();
            let at = desk.start + Duration::from_secs(later % (1 << 40));
            desk.load.report(&report, at, INTERVAL, usize::MAX, known);
            let most = 12 * 6 * u64::from(u32::MAX);
            let Seen { counts, in_progress } = desk.load.of("a");
            prop_assert!(counts.requests() <= 2 * most && counts.dropped <= most && in_progress <= most);
            prop_assert!(counts.error_rate().is_none_or(|rate| (0.0..=1.0).contains(&rate)));
            if let Some((from, to)) = desk.load.span() {
                prop_assert!(from <= to && to - from <= WINDOW);
            }
        }
    }
}
