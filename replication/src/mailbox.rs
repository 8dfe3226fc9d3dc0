//! A state machine behind a lock that nobody waits for.
//!
//! Whoever brings work posts it, then tries the lock. Got it: drain and turn. Taken: go on, the
//! holder looks at the mailbox again after it lets go. INVARIANTS (docs/safety.md, M1 to M4):
//!
//! * work is always posted before the lock is tried, and the mailbox is looked at once more after
//!   every unlocking, so no posted work is left lying (M1);
//! * work is taken only under the lock and in the order it was posted (M2);
//! * a holder turns at most [`MAX_ROUNDS`] times and then says that somebody else must go on.

use super::sync::{AtomicBool, Mutex, Ordering};

/// Turns after which a holder hands over.
pub const MAX_ROUNDS: usize = 32;

/// How an attempt to run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Ran {
    /// The mailbox was empty after the lock was let go.
    Done,
    /// Somebody else holds the lock and will see what was posted.
    Busy,
    /// The round limit was reached with work left: run again from a task of its own.
    HandOver,
}

/// A state `S` and the work `T` that waits for it.
#[derive(Debug)]
pub struct Mailbox<T, S> {
    state: Mutex<S>,
    posted: Mutex<Vec<T>>,
    /// Whether `posted` may hold something; lets an idle look cost no lock.
    any: AtomicBool,
}

impl<T, S> Mailbox<T, S> {
    /// An empty mailbox in front of a state.
    pub fn new(state: S) -> Self {
        Self {
            state: Mutex::new(state),
            posted: Mutex::new(Vec::new()),
            any: AtomicBool::new(false),
        }
    }

    /// Posts work. It is done by the next [`Mailbox::run`], by whomever.
    pub fn post(&self, work: T) {
        let mut posted = self.posted.lock();
        posted.push(work);
        self.any.store(true, Ordering::SeqCst);
    }

    /// Posts several pieces of work that stay together and in order.
    pub fn post_all(&self, work: impl IntoIterator<Item = T>) {
        let mut posted = self.posted.lock();
        posted.extend(work);
        if !posted.is_empty() {
            self.any.store(true, Ordering::SeqCst);
        }
    }

    fn take(&self) -> Vec<T> {
        let mut posted = self.posted.lock();
        self.any.store(false, Ordering::SeqCst);
        std::mem::take(&mut *posted)
    }

    /// Tries the lock; while there is work, calls `turn` with all of it.
    pub fn run(&self, mut turn: impl FnMut(&mut S, Vec<T>)) -> Ran {
        for _ in 0..MAX_ROUNDS {
            {
                let Some(mut state) = self.state.try_lock() else {
                    return Ran::Busy;
                };
                let work = self.take();
                if !work.is_empty() {
                    turn(&mut state, work);
                }
            }
            if !self.any.load(Ordering::SeqCst) {
                return Ran::Done;
            }
        }
        Ran::HandOver
    }

    /// Waits for the lock, then runs as [`Mailbox::run`] does. When this returns, all that was posted
    /// before the call is done, by whomever.
    pub fn settle(&self, mut turn: impl FnMut(&mut S, Vec<T>)) -> Ran {
        {
            // Whoever took work has done it before it let the lock go.
            let mut state = self.state.lock();
            let work = self.take();
            if !work.is_empty() {
                turn(&mut state, work);
            }
        }
        self.run(turn)
    }

    /// Waits for the lock: only for opening, closing and tests.
    pub fn with<R>(&self, f: impl FnOnce(&mut S) -> R) -> R {
        f(&mut self.state.lock())
    }
}
