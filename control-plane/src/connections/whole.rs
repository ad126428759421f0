//! A connection and everything that runs on it, in one task.
//!
//! hyper would have a task for each call that sends its response, and the stream would have one more: to send a response, and to read
//! its acknowledgement, three tasks would wake each other, on whichever core is free. Here a wake-up is a flag,
//! each part is polled when it was rung for, and what a stream has to say is on the wire before the task goes to sleep.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake as _, Waker, ready},
};

use chancery_runtime::Bell;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use hyper::rt::Executor;
use parking_lot::Mutex;

/// How often its parts may wake each other before other tasks get their turn.
const MOST_TURNS: usize = 8;

/// What runs on a connection beside it: one that is handed in runs until it ends, or the [`Whole`] is dropped.
#[derive(Clone, Default)]
pub(super) struct Beside(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    /// What has just been handed in.
    new: Mutex<Vec<BoxFuture<'static, ()>>>,
    bell: Arc<Bell>,
}

impl Beside {
    /// Has it run in the task of the connection.
    pub(super) fn run(&self, future: BoxFuture<'static, ()>) {
        self.0.new.lock().push(future);
        self.0.bell.wake_by_ref();
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Beside {
    fn execute(&self, future: F) {
        self.run(Box::pin(future));
    }
}

/// The connection with what runs beside it. Ends when the connection does; what is left is to be [waited for](Self::end).
pub(super) struct Whole<C> {
    connection: Pin<Box<C>>,
    bell: Arc<Bell>,
    waker: Waker,
    beside: Beside,
    beside_waker: Waker,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<C: Future> Whole<C> {
    /// `connection` hands what belongs to it to `beside`.
    pub(super) fn new(connection: C, beside: Beside) -> Self {
        let bell = Arc::<Bell>::default();
        // Nothing has been polled yet.
        bell.wake_by_ref();
        let waker = Waker::from(bell.clone());
        let beside_waker = Waker::from(beside.0.bell.clone());
        Self { connection: Box::pin(connection), bell, waker, beside, beside_waker, running: FuturesUnordered::new() }
    }

    /// The connection, which is polled next.
    pub(super) fn connection(&mut self) -> Pin<&mut C> {
        self.bell.wake_by_ref();
        self.connection.as_mut()
    }

    /// Drops the connection, and waits until what ran beside it has noticed and ended.
    pub(super) async fn end(self) {
        let Self { connection, beside, mut running, .. } = self;
        drop(connection);
        running.extend(std::mem::take(&mut *beside.0.new.lock()));
        while let Some(()) = running.next().await {}
    }

    fn turn(&mut self) -> Poll<C::Output> {
        if self.beside.0.bell.forget() {
            self.running.extend(std::mem::take(&mut *self.beside.0.new.lock()));
            let context = &mut Context::from_waker(&self.beside_waker);
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(context) {}
        }
        if !self.bell.forget() {
            return Poll::Pending;
        }
        self.connection.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}

impl<C: Future> Future for Whole<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        let bells = [this.bell.clone(), this.beside.0.bell.clone()];
        bells.iter().for_each(|bell| bell.hold(context.waker()));
        let mut ended = Poll::Pending;
        for _ in 0..MOST_TURNS {
            ended = this.turn();
            if ended.is_ready() || !bells.iter().any(|bell| bell.is_rung()) {
                break;
            }
        }
        bells.iter().for_each(|bell| bell.release());
        Poll::Ready(ready!(ended))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{sync::mpsc, task::yield_now, time::timeout};

    use super::*;

    /// Long enough for anything here.
    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn what_runs_beside_it_is_woken_by_it_and_from_elsewhere() {
        let beside = Beside::default();
        let (to_it, mut said) = mpsc::channel::<u32>(1);
        let (from_it, mut answers) = mpsc::channel::<u32>(1);
        // It answers what comes from elsewhere; the connection ends when it has passed on three answers.
        let within = beside.clone();
        let connection = async move {
            within.run(Box::pin(async move {
                while let Some(number) = said.recv().await {
                    from_it.send(number + 1).await.unwrap();
                }
            }));
            let mut sum = 0;
            for _ in 0..3 {
                sum += answers.recv().await.unwrap();
            }
            sum
        };
        let mut whole = Whole::new(connection, beside);
        let elsewhere = tokio::spawn(async move {
            for number in 1..=3 {
                yield_now().await;
                to_it.send(number).await.unwrap();
            }
        });
        assert_eq!(timeout(DEADLINE, &mut whole).await.unwrap(), 9);
        elsewhere.await.unwrap();
        timeout(DEADLINE, whole.end()).await.expect("what ran beside it has nothing to wait for");
    }

    #[tokio::test]
    async fn parts_that_keep_waking_each_other_let_others_have_their_turn() {
        let beside = Beside::default();
        let restless = || {
            poll_fn(|context| {
                context.waker().wake_by_ref();
                Poll::<()>::Pending
            })
        };
        beside.run(Box::pin(restless()));
        let mut whole = Whole::new(restless(), beside);
        let mut turns = 0;
        // On the only thread: it would never get here.
        while turns < 3 {
            tokio::select! {
                biased;
                () = &mut whole => unreachable!("it never ends"),
                () = yield_now() => turns += 1,
            }
        }
    }
}
