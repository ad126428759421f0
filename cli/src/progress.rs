//! The bar that shows, while a write waits, how many proxies have applied what they were sent.
//!
//! The bar is a look from beside: the answer of the write alone says how it ended.

use std::{io::IsTerminal as _, time::Duration};

use http::Method;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    answer::{Page, Proxy},
    client::{Call, Client},
    failure::Failure,
};

const INTERVAL: Duration = Duration::from_millis(150);

/// Shows the bar until `write` has its answer; nothing where stderr is not a terminal.
pub(crate) async fn beside<T>(client: &Client, write: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    if !std::io::stderr().is_terminal() {
        return write.await;
    }
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of {len} proxies up to date {msg}") {
        bar.set_style(style);
    }
    let following = follow(client, &bar);
    tokio::pin!(write, following);
    let answer = tokio::select! {
        answer = &mut write => answer,
        () = &mut following => write.await,
    };
    bar.finish_and_clear();
    answer
}

/// Moves the bar for as long as proxies can be listed.
async fn follow(client: &Client, bar: &ProgressBar) {
    while let Ok(Page { items, .. }) =
        client.list::<Page<Proxy>>(Call::new(Method::GET, "/api/v1/proxies").query("here", &true)).await
    {
        let connected: Vec<_> = items.iter().filter(|proxy| proxy.connected).collect();
        let waiting: Vec<_> = connected.iter().filter(|proxy| !proxy.synced()).map(|proxy| proxy.id.as_str()).collect();
        bar.set_length(connected.len() as u64);
        bar.set_position((connected.len() - waiting.len()) as u64);
        bar.set_message(match waiting.as_slice() {
            [] => String::new(),
            [one] => format!("(waiting for {one})"),
            [one, rest @ ..] => format!("(waiting for {one} and {} more)", rest.len()),
        });
        tokio::time::sleep(INTERVAL).await;
    }
}
