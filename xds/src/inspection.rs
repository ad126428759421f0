//! A question to a stream that goes on: how does your client stand with what it asked for?
//!
//! The stream answers between two of its own steps, out of what it keeps anyway. Questions that come together get one
//! answer; of more than a few, the rest is refused.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::{cache::Tables, resource::TypeUrl, subscription::Standing};

/// How many questions may wait for an answer.
const MOST_QUESTIONS: usize = 8;

/// How a client stands, at one moment.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// What there was then.
    pub tables: Arc<Tables>,
    /// The types that it asked for, in the order in which they are sent, and every name of each.
    pub types: Vec<(TypeUrl, Vec<Standing>)>,
}

/// Questions that wait for the stream.
#[derive(Debug)]
pub(crate) struct Questions {
    /// `None` when the stream has ended.
    waiting: Mutex<Option<Vec<oneshot::Sender<Arc<Inspection>>>>>,
    asked: Notify,
}

impl Default for Questions {
    fn default() -> Self {
        Self { waiting: Mutex::new(Some(Vec::new())), asked: Notify::new() }
    }
}

impl Questions {
    /// Asks, and waits for as long as the stream takes. None if it has ended, or too many ask.
    pub(crate) async fn ask(&self) -> Option<Arc<Inspection>> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            let waiting = waiting.as_mut()?;
            waiting.retain(|sender| !sender.is_closed());
            if waiting.len() == MOST_QUESTIONS {
                return None;
            }
            waiting.push(sender);
        }
        self.asked.notify_one();
        receiver.await.ok()
    }

    /// Returns when there is something to answer.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Answers all who have asked, if somebody still wants to know.
    pub(crate) fn answer(&self, inspect: impl FnOnce() -> Inspection) {
        let waiting = self.waiting.lock().as_mut().map(std::mem::take).unwrap_or_default();
        if waiting.iter().all(oneshot::Sender::is_closed) {
            return;
        }
        let inspection = Arc::new(inspect());
        for sender in waiting {
            // Who does not wait any more does not need it.
            let _ = sender.send(inspection.clone());
        }
    }

    /// There will be no answer any more.
    pub(crate) fn end(&self) {
        *self.waiting.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Inspection {
        Inspection { tables: Arc::default(), types: Vec::new() }
    }

    #[tokio::test]
    async fn questions_share_an_answer_and_too_many_are_refused() {
        let questions = Arc::new(Questions::default());
        questions.answer(|| panic!("nobody asks"));
        let asking: Vec<_> = (0..=MOST_QUESTIONS)
            .map(|_| {
                let questions = questions.clone();
                tokio::spawn(async move { questions.ask().await })
            })
            .collect();
        questions.asked().await;
        tokio::task::yield_now().await;
        let mut times = 0;
        questions.answer(|| {
            times += 1;
            nothing()
        });
        let mut answered = 0;
        for asked in asking {
            answered += usize::from(asked.await.unwrap().is_some());
        }
        assert_eq!((times, answered), (1, MOST_QUESTIONS));
    }

    #[tokio::test]
    async fn a_stream_that_ended_leaves_nobody_waiting() {
        let questions = Arc::new(Questions::default());
        let asking = tokio::spawn({
            let questions = questions.clone();
            async move { questions.ask().await.is_none() }
        });
        questions.asked().await;
        questions.end();
        assert!(asking.await.unwrap() && questions.ask().await.is_none());
    }
}
