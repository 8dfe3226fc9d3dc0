//! A link's way out: whoever queued something writes it, straight to the socket, and nobody waits.
//!
//! What is queued is **posted** first; then the poster **tries** to become the writer. If another
//! thread is writing it goes on at once, and the writer looks at the queue again after it has let go:
//! a poster fails only while the writer holds `out`, the writer lets go of `out` and only then takes
//! `queue` to look. If that look came before the post, letting go came before the post too, and the
//! poster could not have failed. What the socket does not take is left to the link's task.
//!
//! This file depends on nothing but `super::sync`, so that a model checker can be put under it.

use super::sync::Mutex;

/// What waits.
pub(crate) trait Waiting {
    /// What is written as one.
    type Batch;

    /// The next batch.
    fn take(&mut self) -> Option<Self::Batch>;

    /// Whether there is one.
    fn any(&self) -> bool;
}

/// Where it goes.
pub(crate) trait Sink<B> {
    /// Whether everything that it was given is written.
    fn is_empty(&self) -> bool;

    /// Takes a batch, once it is empty, and writes as much as it can.
    fn write(&mut self, batch: Option<B>) -> Wrote;
}

/// What a [`Sink`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// Everything was taken.
    All,
    /// The socket took no more.
    Blocked,
    /// The connection is gone.
    Broken,
}

/// How a [`Outbox::pump`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// All has been written.
    Idle,
    /// Another thread writes, and will look again.
    Busy,
    /// The socket takes no more, or this call did its share: the link's task goes on.
    Left,
    /// The connection is gone.
    Broken,
}

/// Batches after which a writer leaves the rest to the link's task.
const ROUNDS: usize = 8;

/// A queue and the socket behind it.
#[derive(Debug)]
pub(crate) struct Outbox<Q, S> {
    queue: Mutex<Q>,
    /// Taken from the queue and not yet in the socket; whoever holds this is the writer.
    out: Mutex<S>,
}

impl<Q: Waiting, S: Sink<Q::Batch>> Outbox<Q, S> {
    pub(crate) fn new(queue: Q, out: S) -> Self {
        Self {
            queue: Mutex::new(queue),
            out: Mutex::new(out),
        }
    }

    /// Posts. The caller has to [`Outbox::pump`], now or at the end of its turn.
    pub(crate) fn post<R>(&self, f: impl FnOnce(&mut Q) -> R) -> R {
        f(&mut self.queue.lock())
    }

    /// Changes the connection: waits for a writer, who never waits for anything himself.
    pub(crate) fn with_both<R>(&self, f: impl FnOnce(&mut Q, &mut S) -> R) -> R {
        let mut out = self.out.lock();
        f(&mut self.queue.lock(), &mut out)
    }

    /// Tries to become the writer and writes what is there.
    pub(crate) fn pump(&self) -> Pumped {
        for _ in 0..ROUNDS {
            let Some(mut out) = self.out.try_lock() else {
                return Pumped::Busy;
            };
            let batch = if out.is_empty() {
                self.queue.lock().take()
            } else {
                None
            };
            let wrote = out.write(batch);
            drop(out);
            match wrote {
                Wrote::All => {}
                Wrote::Blocked => return Pumped::Left,
                Wrote::Broken => return Pumped::Broken,
            }
            if !self.queue.lock().any() {
                return Pumped::Idle;
            }
        }
        Pumped::Left
    }
}
