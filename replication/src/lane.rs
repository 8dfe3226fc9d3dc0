//! The way of one group's writes to its files: in the turn while the disk is quick, through a queue
//! that a writer thread empties while it is not.
//!
//! Whoever brings work enters it. Nobody is at it: the caller carries it out now, or, where the last
//! write was slow, asks for a writer. Somebody is: it is queued, and whoever is at it looks at the
//! queue when it leaves. INVARIANTS (docs/safety.md, M3):
//!
//! * one piece of work is carried out at a time;
//! * writes are carried out in the order in which they were entered: none passes one that waits;
//! * no queued work is left lying, but behind a write that found no room: that one waits to be
//!   tried again;
//! * nobody waits here: the lock is held for a few moves of a queue.
//!
//! Other work on the files goes before writes that wait. It never matters to them (the files are
//! cut only when no write is under way), and it may be what makes room.

use std::collections::VecDeque;

use super::sync::Mutex;

/// The lane of one group: writes `W`, and other work `A` on the same files.
#[derive(Debug)]
pub struct Lane<W, A> {
    inner: Mutex<Inner<W, A>>,
}

#[derive(Debug)]
struct Inner<W, A> {
    writes: VecDeque<W>,
    aside: VecDeque<A>,
    /// Somebody is at a piece of work, or was asked to come.
    taken: bool,
    /// The last write was slow: the next one leaves its turn.
    slow: bool,
    /// The first write that waits found no room.
    full: bool,
}

/// What becomes of work that was entered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Entered<T> {
    /// The caller carries it out now, and then leaves.
    Now(T),
    /// It is queued, and nobody is at it: a writer has to be started.
    Writer,
    /// It is queued, and somebody will see it.
    Queued,
}

/// What a writer does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work<W, A> {
    /// A write.
    Write(W),
    /// Other work on the files.
    Aside(A),
}

impl<W, A> Default for Lane<W, A> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                writes: VecDeque::new(),
                aside: VecDeque::new(),
                taken: false,
                slow: false,
                full: false,
            }),
        }
    }
}

impl<W, A> Lane<W, A> {
    /// Enters a write.
    pub fn enter(&self, write: W) -> Entered<W> {
        let mut inner = self.inner.lock();
        if !inner.taken && !inner.full && !inner.slow {
            inner.taken = true;
            return Entered::Now(write);
        }
        inner.writes.push_back(write);
        if inner.taken || inner.full {
            return Entered::Queued;
        }
        inner.taken = true;
        Entered::Writer
    }

    /// Enters other work.
    pub fn enter_aside(&self, work: A) -> Entered<A> {
        let mut inner = self.inner.lock();
        if inner.taken {
            inner.aside.push_back(work);
            return Entered::Queued;
        }
        inner.taken = true;
        Entered::Now(work)
    }

    /// Says how long a write took: where it was slow, the next ones leave their turns.
    pub fn note_speed(&self, slow: bool) {
        self.inner.lock().slow = slow;
    }

    /// Puts back a write that found no room, before all others.
    pub fn put_back(&self, write: W) {
        let mut inner = self.inner.lock();
        inner.writes.push_front(write);
        inner.full = true;
    }

    /// Ends what [`Entered::Now`] began; true where a writer has to be started for what was entered
    /// meanwhile.
    #[must_use]
    pub fn leave(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.taken = !inner.aside.is_empty() || (!inner.writes.is_empty() && !inner.full);
        inner.taken
    }

    /// The next piece of work of the writer that was started; none ends its work.
    pub fn next(&self) -> Option<Work<W, A>> {
        let mut inner = self.inner.lock();
        if let Some(aside) = inner.aside.pop_front() {
            return Some(Work::Aside(aside));
        }
        if !inner.full
            && let Some(write) = inner.writes.pop_front()
        {
            return Some(Work::Write(write));
        }
        inner.taken = false;
        None
    }

    /// Lets a write that found no room be tried again; true where a writer has to be started.
    #[must_use]
    pub fn retry(&self) -> bool {
        let mut inner = self.inner.lock();
        let start = inner.full && !inner.taken;
        inner.full = false;
        inner.taken |= start;
        start
    }

    /// Forgets what waits.
    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.writes.clear();
        inner.aside.clear();
        inner.full = false;
    }

    /// Whether nobody is at anything and nothing waits, or waits for room only.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.inner.lock().taken
    }
}
