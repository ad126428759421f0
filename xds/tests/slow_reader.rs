//! A client that does not read costs no more with time, and has everything when it reads again.

#[path = "stream/support.rs"]
mod support;

use std::{sync::atomic::Ordering, time::Duration};

use chancery_xds::StreamSettings;
use support::{Served, until, version};
use tonic::Code;

const T: &str = "type.example/T";
const CHANGES: usize = 1000;
const SIZE: usize = 100_000;

/// A hundred megabytes of changes, of which one at a time is current.
async fn change(served: &Served) -> String {
    // The pace at which they are published; slower than the patience with an answer, so that it is
    // the connection that holds them up.
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    let mut body = String::new();
    for i in 0..CHANGES {
        pace.tick().await;
        body = "x".repeat(SIZE) + &i.to_string();
        served.set(T, "a", &body);
    }
    version(&body)
}

fn impatient() -> StreamSettings {
    StreamSettings { order_timeout: Duration::from_millis(1), ..StreamSettings::default() }
}

/// Memory of this process that is in use, in bytes, where the system says so.
fn resident() -> Option<usize> {
    let pages: usize = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[tokio::test]
async fn an_incremental_client_that_does_not_read() {
    let served = Served::start(impatient()).await;
    let mut client = served.delta().await;
    client.subscribe(T, &["*"]).await;
    client.expect_and_ack(T, &[], &[]).await;
    let before = resident();
    let last = change(&served).await;
    if let (Some(before), Some(after)) = (before, resident()) {
        let grown = after.saturating_sub(before) / SIZE;
        assert!(grown < CHANGES / 4, "it holds {grown} of {CHANGES} responses");
    }
    // It reads again, and still says nothing: the last change reaches it all the same.
    let mut responses = 0;
    while client.next().await.resources[0].version != last {
        responses += 1;
        assert!(responses < 10, "they were queued");
    }
}

/// What it asks for is remembered, and there would be no end of that.
#[tokio::test]
async fn a_client_that_does_not_read_and_asks_for_more_and_more() {
    let served = Served::start(StreamSettings { max_names: 20_000, ..impatient() }).await;
    let client = served.delta().await;
    let asks = async {
        for round in 0.. {
            let names: Vec<String> = (0..1000).map(|name| format!("{round}-{name}")).collect();
            client.subscribe(T, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
    };
    // Whoever does not read is not told that the stream has ended, and what it says then goes nowhere.
    tokio::select! {
        () = asks => {}
        () = until("the stream ends", || served.desk.statuses.lock().len() > served.desk.open.load(Ordering::SeqCst)) => {}
    }
    assert_eq!(client.end().await.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_state_of_the_world_client_that_does_not_read() {
    let served = Served::start(impatient()).await;
    let mut client = served.sotw().await;
    served.set(T, "a", "first");
    client.ask(T, &["a"]).await;
    until("the first response is sent", || served.type_status(T).sent.is_some()).await;
    let last = change(&served).await;
    let first = client.expect(T, &["first"]).await;
    client.ack(&first, &["a"]).await;
    let second = client.next().await;
    client.ack(&second, &["a"]).await;
    assert_eq!(version(std::str::from_utf8(&second.resources[0].value).unwrap()), last, "the changes are one response");
    client.expect_nothing().await;
}
