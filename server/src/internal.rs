//! Requests of the broker to its own groups, and who waits for them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use riverrun_replication::{ProduceError, ProduceOutcome, Published, Ticket, Word};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot::{self, error::RecvError};

/// The connection number of tickets that belong to no connection.
pub(crate) const INTERNAL: u64 = u64::MAX - 1;

type Confirmation = Result<Published, ProduceError>;
type Said = Result<Word, ProduceError>;

/// Those who wait for one kind of answer, by the request of their ticket.
type Waiters<T> = Arc<Mutex<FxHashMap<u64, oneshot::Sender<T>>>>;

/// The waiters.
#[derive(Debug, Default)]
pub(crate) struct Internal {
    next: AtomicU64,
    produces: Waiters<ProduceOutcome>,
    confirms: Waiters<Confirmation>,
    words: Waiters<Said>,
}

/// An answer to come. Whoever drops it is not waited for any more.
#[derive(Debug)]
pub(crate) struct Expected<T> {
    waiters: Waiters<T>,
    request: u64,
    answer: oneshot::Receiver<T>,
}

impl<T> Future for Expected<T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context)
    }
}

impl<T> Drop for Expected<T> {
    fn drop(&mut self) {
        self.waiters.lock().remove(&self.request);
    }
}

impl Internal {
    fn expect<T>(&self, waiters: &Waiters<T>) -> (Ticket, Expected<T>) {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket {
            connection: INTERNAL,
            request,
            slot: 0,
        };
        let (sender, answer) = oneshot::channel();
        waiters.lock().insert(request, sender);
        let waiters = Arc::clone(waiters);
        let expected = Expected {
            waiters,
            request,
            answer,
        };
        (ticket, expected)
    }

    /// A ticket for a produce and its answer.
    pub(crate) fn expect_produce(&self) -> (Ticket, Expected<ProduceOutcome>) {
        self.expect(&self.produces)
    }

    /// A ticket for the question whether a partition is still led here, and its answer.
    pub(crate) fn expect_confirm(&self) -> (Ticket, Expected<Confirmation>) {
        self.expect(&self.confirms)
    }

    /// A ticket for a leader's word on its group, and its answer.
    pub(crate) fn expect_word(&self) -> (Ticket, Expected<Said>) {
        self.expect(&self.words)
    }

    pub(crate) fn said(&self, ticket: Ticket, result: Said) {
        tell(&self.words, ticket, result);
    }

    pub(crate) fn produced(&self, ticket: Ticket, outcome: ProduceOutcome) {
        tell(&self.produces, ticket, outcome);
    }

    pub(crate) fn confirmed(&self, ticket: Ticket, result: Confirmation) {
        tell(&self.confirms, ticket, result);
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.produces.lock().len() + self.confirms.lock().len() + self.words.lock().len()
    }
}

fn tell<T>(waiters: &Waiters<T>, ticket: Ticket, answer: T) {
    let waiter = waiters.lock().remove(&ticket.request);
    if let Some(waiter) = waiter {
        // Whoever gave up waiting does not want to know.
        let _ = waiter.send(answer);
    }
}
