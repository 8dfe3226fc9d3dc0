//! Requests of the broker to its own groups, and who waits for them.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use riverrun_replication::{ProduceError, ProduceOutcome, Published, Ticket, Word};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

/// The connection number of tickets that belong to no connection.
pub(crate) const INTERNAL: u64 = u64::MAX - 1;

type Confirmation = Result<Published, ProduceError>;

/// The waiters.
#[derive(Debug, Default)]
pub(crate) struct Internal {
    next: AtomicU64,
    produces: Mutex<FxHashMap<u64, oneshot::Sender<ProduceOutcome>>>,
    confirms: Mutex<FxHashMap<u64, oneshot::Sender<Confirmation>>>,
    words: Mutex<FxHashMap<u64, oneshot::Sender<Result<Word, ProduceError>>>>,
}

impl Internal {
    fn ticket(&self) -> Ticket {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        Ticket {
            connection: INTERNAL,
            request,
            slot: 0,
        }
    }

    /// A ticket for a produce and its answer.
    pub(crate) fn expect_produce(&self) -> (Ticket, oneshot::Receiver<ProduceOutcome>) {
        let ticket = self.ticket();
        let (sender, receiver) = oneshot::channel();
        self.produces.lock().insert(ticket.request, sender);
        (ticket, receiver)
    }

    /// A ticket for the question whether a partition is still led here, and its answer.
    pub(crate) fn expect_confirm(&self) -> (Ticket, oneshot::Receiver<Confirmation>) {
        let ticket = self.ticket();
        let (sender, receiver) = oneshot::channel();
        self.confirms.lock().insert(ticket.request, sender);
        (ticket, receiver)
    }

    /// A ticket for a leader's word on its group, and its answer.
    pub(crate) fn expect_word(&self) -> (Ticket, oneshot::Receiver<Result<Word, ProduceError>>) {
        let ticket = self.ticket();
        let (sender, receiver) = oneshot::channel();
        self.words.lock().insert(ticket.request, sender);
        (ticket, receiver)
    }

    pub(crate) fn said(&self, ticket: Ticket, result: Result<Word, ProduceError>) {
        if let Some(waiter) = self.words.lock().remove(&ticket.request) {
            let _ = waiter.send(result);
        }
    }

    pub(crate) fn produced(&self, ticket: Ticket, outcome: ProduceOutcome) {
        if let Some(waiter) = self.produces.lock().remove(&ticket.request) {
            // Whoever gave up waiting does not want to know.
            let _ = waiter.send(outcome);
        }
    }

    pub(crate) fn confirmed(&self, ticket: Ticket, result: Confirmation) {
        if let Some(waiter) = self.confirms.lock().remove(&ticket.request) {
            let _ = waiter.send(result);
        }
    }
}
