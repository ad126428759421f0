//! The queue between those who make spans and the collector.
//!
//! The SDK has such a queue, but does not say how much it drops, waits on a thread of its own, and tells of every batch that fails.
//! Here everything that is lost is counted, one task does the work on the runtime of whoever spawns it, and an outage is logged
//! once when it begins and once when it is over.
//!
//! A batch that the collector does not take within its deadline is lost: what is kept for longer would only delay the spans after it. After one
//! that was lost there is a pause, so that a collector that is away costs next to nothing.

use std::{pin::pin, time::Duration};

use opentelemetry::Context;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as Otlp, WithTonicConfig as _};
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    trace::{Span, SpanData, SpanExporter, SpanProcessor},
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Settings;
use crate::metrics as m;

/// Spans that wait.
const QUEUE: usize = 4_096;
/// Spans that are exported together.
const BATCH: usize = 512;
/// How long a span waits for others to be exported with.
const LINGER: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch, repetitions included.
const EXPORT: Duration = Duration::from_secs(10);
/// How long nothing is exported after a batch was lost.
const PAUSE: Duration = Duration::from_secs(5);
/// How long what is left may take at the end. To be added to the time that a program gets to end.
pub const FLUSH: Duration = Duration::from_secs(3);

/// Where spans go in when they end.
#[derive(Debug)]
pub(super) struct Queue(mpsc::Sender<SpanData>);

/// Spans that have ended, on their way to a collector.
#[derive(Debug)]
pub struct Spans {
    queue: mpsc::Receiver<SpanData>,
    /// To be exported next.
    batch: Vec<SpanData>,
    /// How many are being exported.
    under_way: usize,
}

pub(super) fn queue() -> (Queue, Spans) {
    let (sender, queue) = mpsc::channel(QUEUE);
    (Queue(sender), Spans { queue, batch: Vec::new(), under_way: 0 })
}

/// Takes spans to a collector.
#[derive(Debug)]
pub struct Export(pub(super) Option<(Spans, Settings)>);

impl Export {
    /// Does so until `stop`, and then, for at most [`FLUSH`], with those that are left. Returns at once if there is no collector.
    ///
    /// # Errors
    /// The environment asks for what the exporter does not know, such as a compression.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ExporterBuildError> {
        let Some((spans, settings)) = self.0 else { return Ok(()) };
        let channel = settings.collector.connect_lazy();
        let mut exporter = Otlp::builder().with_tonic().with_channel(channel).build()?;
        exporter.set_resource(&settings.resource);
        spans.export_with(&exporter, stop).await;
        Ok(())
    }
}

fn dropped(reason: &'static str, spans: usize) {
    metrics::counter!(m::SPANS_DROPPED, "reason" => reason).increment(spans as u64);
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        match self.0.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => dropped("queue-full", 1),
            Err(TrySendError::Closed(_)) => dropped("end", 1),
        }
    }

    /// Whoever empties the queue does that at the end.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Spans {
    /// The next one, for those who look at spans themselves.
    pub async fn next(&mut self) -> Option<SpanData> {
        self.queue.recv().await
    }

    async fn export_with(mut self, exporter: &impl SpanExporter, stop: CancellationToken) {
        let end = pin!(async {
            stop.cancelled().await;
            sleep(FLUSH).await;
        });
        tokio::select! {
            biased;
            () = self.work(exporter, &stop) => {}
            () = end => {}
        }
        self.queue.close();
        dropped("end", self.under_way + self.batch.len() + self.queue.len());
    }

    /// Exports until there is nothing more to come: after `stop`, what is there and no more.
    async fn work(&mut self, exporter: &impl SpanExporter, stop: &CancellationToken) {
        let mut away_since: Option<Instant> = None;
        loop {
            self.collect(stop).await;
            self.under_way = self.batch.len();
            if self.under_way == 0 {
                return;
            }
            let exported = timeout(EXPORT, exporter.export(std::mem::take(&mut self.batch))).await;
            let spans = std::mem::take(&mut self.under_way);
            match exported.unwrap_or(Err(OTelSdkError::Timeout(EXPORT))) {
                Ok(()) => {
                    metrics::counter!(m::SPANS_EXPORTED).increment(spans as u64);
                    if let Some(since) = away_since.take() {
                        info!(elapsed = ?since.elapsed(), "the collector takes traces again");
                    }
                }
                Err(error) => {
                    dropped("export", spans);
                    if away_since.is_none() {
                        warn!(%error, "the collector takes no traces; they are lost until it does");
                    }
                    away_since.get_or_insert_with(Instant::now);
                    if stop.is_cancelled() {
                        return;
                    }
                    tokio::select! {
                        () = sleep(PAUSE) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        }
    }

    /// Fills the batch: with what is there, and what comes while the first waits. None comes any more if it is empty then.
    async fn collect(&mut self, stop: &CancellationToken) {
        let (queue, batch) = (&mut self.queue, &mut self.batch);
        let fill = async {
            if queue.recv_many(batch, BATCH).await == 0 {
                return;
            }
            let until = Instant::now() + LINGER;
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                if timeout_at(until, queue.recv_many(batch, room)).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = fill => return,
        }
        while self.batch.len() < BATCH
            && let Ok(span) = self.queue.try_recv()
        {
            self.batch.push(span);
        }
    }
}

#[cfg(test)]
mod tests;
