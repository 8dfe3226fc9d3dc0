//! A link's outbox under loom: every interleaving of threads that queue and write. Nothing is lost,
//! nothing overtakes, nobody waits for the writer.
//!
//! The same source file that the broker runs is compiled here against loom's locks, so plain
//! `cargo test` runs the model: `cargo test -p riverrun-server --test outbox_model`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod sync {
    use loom::sync::MutexGuard;

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

#[path = "../src/peers/outbox.rs"]
#[allow(dead_code, reason = "the model uses a part of it")]
mod outbox;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use outbox::{Outbox, Pumped, Sink, Waiting, Wrote};

#[derive(Debug, Default)]
struct Queue(Vec<u64>);

impl Waiting for Queue {
    type Batch = Vec<u64>;

    fn take(&mut self) -> Option<Vec<u64>> {
        (!self.0.is_empty()).then(|| std::mem::take(&mut self.0))
    }

    fn any(&self) -> bool {
        !self.0.is_empty()
    }
}

/// A socket that takes one number a call for the first `slow` calls, and everything afterwards.
#[derive(Debug)]
struct Socket {
    slow: usize,
    left: Vec<u64>,
    written: Vec<u64>,
    /// Touched while it writes, so that others run meanwhile: letting go of a lock is no point where
    /// the model changes threads.
    calls: AtomicUsize,
}

impl Sink<Vec<u64>> for Socket {
    fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    fn write(&mut self, batch: Option<Vec<u64>>) -> Wrote {
        assert!(batch.is_none() || self.left.is_empty(), "it was not done");
        self.left.extend(batch.unwrap_or_default());
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.slow > 0 && !self.left.is_empty() {
            self.slow -= 1;
            self.written.push(self.left.remove(0));
            return Wrote::Blocked;
        }
        self.written.append(&mut self.left);
        Wrote::All
    }
}

/// Two threads queue three numbers and flush after each; what is left over is a third one's, as the
/// link's task would do it.
fn model(slow: usize) {
    loom::model(move || {
        let socket = Socket {
            slow,
            left: Vec::new(),
            written: Vec::new(),
            calls: AtomicUsize::new(0),
        };
        let outbox = Arc::new(Outbox::new(Queue::default(), socket));
        let attention = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = [(10, 2), (20, 1)]
            .map(|(first, count)| {
                let outbox = Arc::clone(&outbox);
                let attention = Arc::clone(&attention);
                thread::spawn(move || {
                    for number in first..first + count {
                        outbox.post(|queue| queue.0.push(number));
                        if outbox.pump() == Pumped::Left {
                            attention.store(true, Ordering::SeqCst);
                        }
                    }
                })
            })
            .into();
        for thread in threads {
            thread.join().unwrap();
        }
        if attention.load(Ordering::SeqCst) {
            while outbox.pump() == Pumped::Left {}
        }
        outbox.with_both(|queue, socket| {
            assert!(queue.0.is_empty(), "queued and left lying: {:?}", queue.0);
            let mut written = socket.written.clone();
            let at = |n| written.iter().position(|w| *w == n).expect("written");
            assert!(at(10) < at(11), "overtaken in {written:?}");
            written.sort_unstable();
            assert_eq!(written, [10, 11, 20]);
        });
    });
}

#[test]
fn what_is_queued_is_written_once_and_in_order() {
    model(0);
}

#[test]
fn what_a_slow_socket_leaves_is_left_to_the_task() {
    model(1);
}
