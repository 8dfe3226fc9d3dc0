//! The answer slots of a connection under loom: every interleaving of the threads that complete
//! requests. Nothing is lost, nothing overtakes, nobody waits for the writer, and a writer stops.
//!
//! The same source file that the broker runs is compiled here against loom's locks, so plain
//! `cargo test` runs the model: `cargo test -p riverrun-server --test answer_slots_model`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

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

#[path = "../src/net/answers.rs"]
#[allow(dead_code, reason = "the model uses a part of it")]
mod answers;

use std::collections::VecDeque;
use std::sync::Mutex as Unmodelled;

use answers::{Answers, Pumped, Sink, Wrote};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

/// A socket that takes one answer a call for the first `slow` calls, and everything afterwards.
struct Socket {
    written: Unmodelled<(Vec<u64>, usize)>,
}

impl Socket {
    fn new(slow: usize) -> Self {
        Self {
            written: Unmodelled::new((Vec::new(), slow)),
        }
    }

    fn written(&self) -> Vec<u64> {
        self.written.lock().unwrap().0.clone()
    }
}

impl Sink<u64> for &Socket {
    fn write(&self, answers: &mut VecDeque<u64>) -> Wrote {
        // Not a lock of the model: two writers at once are a defect, not a wait.
        let mut written = self.written.try_lock().expect("two writers at once");
        thread::yield_now();
        if written.1 > 0 {
            written.1 -= 1;
            let first = answers.pop_front().unwrap();
            written.0.push(first);
            return if answers.is_empty() {
                Wrote::All
            } else {
                Wrote::Blocked
            };
        }
        written.0.extend(answers.drain(..));
        Wrote::All
    }
}

struct Model {
    answers: Answers<(), u64>,
    socket: Socket,
    attention: AtomicBool,
}

impl Model {
    fn new(slow: usize) -> Arc<Self> {
        Arc::new(Self {
            answers: Answers::new(8, 8),
            socket: Socket::new(slow),
            attention: AtomicBool::new(false),
        })
    }

    /// What a thread does that completes a request.
    fn complete(&self, request: u64) {
        if self.answers.post(request, |()| Some(request)) {
            let (pumped, _) = self.answers.pump(&&self.socket);
            if pumped == Pumped::Left {
                self.attention.store(true, Ordering::SeqCst);
            }
        }
    }

    /// What the connection's task does when its attention was asked for.
    fn attend(&self) {
        while self.attention.swap(false, Ordering::SeqCst) {
            if self.answers.pump(&&self.socket).0 == Pumped::Left {
                self.attention.store(true, Ordering::SeqCst);
            }
        }
    }
}

fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

#[test]
fn two_completers_lose_nothing_and_keep_the_order() {
    model(4, || {
        let model = Model::new(0);
        model.answers.open((), 1);
        model.answers.open((), 1);
        let other = Arc::clone(&model);
        let thread = thread::spawn(move || other.complete(1));
        model.complete(0);
        thread.join().unwrap();
        assert_eq!(model.socket.written(), [0, 1]);
        assert!(!model.attention.load(Ordering::SeqCst));
    });
}

#[test]
fn three_completers_lose_nothing_and_keep_the_order() {
    model(3, || {
        let model = Model::new(0);
        for _ in 0..3 {
            model.answers.open((), 1);
        }
        let threads = [2, 0].map(|request| {
            let model = Arc::clone(&model);
            thread::spawn(move || model.complete(request))
        });
        model.complete(1);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(model.socket.written(), [0, 1, 2]);
    });
}

#[test]
fn what_a_slow_socket_leaves_is_written_by_the_task() {
    model(3, || {
        let model = Model::new(1);
        for _ in 0..3 {
            model.answers.open((), 1);
        }
        let threads = [1, 2].map(|request| {
            let model = Arc::clone(&model);
            thread::spawn(move || model.complete(request))
        });
        model.complete(0);
        for thread in threads {
            thread.join().unwrap();
        }
        model.attend();
        assert_eq!(model.socket.written(), [0, 1, 2]);
    });
}

#[test]
fn slots_are_opened_while_others_complete() {
    model(4, || {
        let model = Model::new(0);
        let first = model.answers.open((), 1);
        let other = Arc::clone(&model);
        let thread = thread::spawn(move || other.complete(first));
        let second = model.answers.open((), 1);
        model.complete(second);
        thread.join().unwrap();
        assert_eq!(model.socket.written(), [0, 1]);
    });
}

/// A sink that always finds one more answer ready when it has written: the worst case for a
/// writer that looks again. Not a model; one thread is enough.
#[test]
fn a_writer_stops_after_a_bounded_number_of_rounds() {
    loom::model(|| {
        struct Endless(std::sync::Weak<Answers<(), u64>>, std::cell::Cell<u32>);
        impl Sink<u64> for Endless {
            fn write(&self, answers: &mut VecDeque<u64>) -> Wrote {
                answers.clear();
                self.1.set(self.1.get() + 1);
                let slots = self.0.upgrade().unwrap();
                let next = slots.open((), 1);
                slots.post(next, |()| Some(next));
                Wrote::All
            }
        }
        let slots = std::sync::Arc::new(Answers::new(8, 8));
        let sink = Endless(std::sync::Arc::downgrade(&slots), std::cell::Cell::new(0));
        let first = slots.open((), 1);
        assert!(slots.post(first, |()| Some(first)));
        assert_eq!(slots.pump(&sink).0, Pumped::Left);
        assert!(sink.1.get() <= 8);
    });
}
