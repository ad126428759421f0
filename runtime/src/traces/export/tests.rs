use std::sync::Arc;

use opentelemetry::trace::SpanKind;
use parking_lot::Mutex;

use super::{
    super::{Arrived, Traces, traces},
    *,
};

/// A collector that takes spans, refuses them, or never answers.
#[derive(Clone, Debug, Default)]
struct Collector(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    /// How large each batch was.
    batches: Vec<usize>,
    asked: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Mood {
    #[default]
    Takes,
    Refuses,
    Hangs,
}

impl Collector {
    fn is(&self, mood: Mood) {
        self.0.lock().mood = mood;
    }

    fn taken(&self) -> usize {
        self.0.lock().batches.iter().sum()
    }
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().asked += 1;
        let mood = self.0.lock().mood;
        match mood {
            Mood::Takes => self.0.lock().batches.push(batch.len()),
            Mood::Refuses => return Err(OTelSdkError::InternalFailure("refused".to_owned())),
            Mood::Hangs => std::future::pending().await,
        }
        Ok(())
    }
}

fn end_spans(traces: &Traces, number: usize) {
    (0..number).for_each(|_| drop(traces.begin("GET", SpanKind::Server, &Arrived::default())));
}

/// Spans on their way to a collector; and what ends that.
fn exporting() -> (Traces, Collector, CancellationToken, tokio::task::JoinHandle<()>) {
    let (traces, spans) = traces(1.0);
    let (collector, stop) = (Collector::default(), CancellationToken::new());
    let (exporter, token) = (collector.clone(), stop.clone());
    let task = tokio::spawn(async move { spans.export_with(&exporter, token).await });
    (traces, collector, stop, task)
}

#[tokio::test(start_paused = true)]
async fn spans_wait_for_a_moment_to_be_exported_together() {
    let (traces, collector, ..) = exporting();
    end_spans(&traces, 3);
    sleep(LINGER / 2).await;
    end_spans(&traces, 2);
    assert_eq!(collector.taken(), 0);
    sleep(LINGER).await;
    assert_eq!(collector.0.lock().batches, [5]);
    end_spans(&traces, BATCH + 1);
    sleep(LINGER / 2).await;
    assert_eq!(collector.0.lock().batches, [5, BATCH], "a full batch does not wait");
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_exported_at_the_end() {
    let (traces, collector, stop, task) = exporting();
    end_spans(&traces, 2 * BATCH + 1);
    stop.cancel();
    task.await.unwrap();
    assert_eq!(collector.0.lock().batches, [BATCH, BATCH, 1]);
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_a_collector_that_hangs() {
    let (traces, collector, stop, task) = exporting();
    collector.is(Mood::Hangs);
    end_spans(&traces, BATCH + 1);
    let began = Instant::now();
    stop.cancel();
    task.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), FLUSH.as_secs());
    assert_eq!(collector.0.lock().asked, 1);
    // Nobody is there any more; ending a span is still no fault.
    end_spans(&traces, 1);
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_away_is_asked_now_and_then_and_has_what_comes_after() {
    let (traces, collector, ..) = exporting();
    collector.is(Mood::Refuses);
    for _ in 0..100 {
        end_spans(&traces, 1_000);
        sleep(Duration::from_millis(600)).await;
    }
    let asked = collector.0.lock().asked;
    assert!((5..=12).contains(&asked), "asked {asked} times in a minute");
    collector.is(Mood::Takes);
    sleep(PAUSE + LINGER * 20).await;
    let queued = collector.taken();
    assert!((BATCH..=QUEUE).contains(&queued), "{queued} were kept");
    end_spans(&traces, 7);
    sleep(LINGER * 2).await;
    assert_eq!(collector.taken(), queued + 7);
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_hangs_is_given_up_for_each_batch() {
    let (traces, collector, ..) = exporting();
    collector.is(Mood::Hangs);
    end_spans(&traces, 1);
    sleep(LINGER + EXPORT + Duration::from_millis(1)).await;
    collector.is(Mood::Takes);
    end_spans(&traces, 1);
    sleep(PAUSE + LINGER * 2).await;
    assert_eq!(collector.0.lock().batches, [1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = |name: &str| {
        let text = recorder.handle().render();
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next().and_then(|number| number.parse().ok())).unwrap_or(0)
    };
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (traces, spans) = traces(1.0);
    end_spans(&traces, QUEUE + 3);
    assert_eq!(counted("chancery_traces_spans_dropped_total{reason=\"queue-full\"}"), 3);

    let (collector, stop) = (Collector::default(), CancellationToken::new());
    collector.is(Mood::Refuses);
    stop.cancel();
    spans.export_with(&collector, stop).await;
    assert_eq!(counted("chancery_traces_spans_dropped_total{reason=\"export\"}"), BATCH);
    assert_eq!(counted("chancery_traces_spans_dropped_total{reason=\"end\"}"), QUEUE - BATCH);
    assert_eq!(counted(m::SPANS_EXPORTED), 0);
}
