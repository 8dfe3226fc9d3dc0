//! A group's lane over loom's locks: every interleaving of a turn, the flusher's work on the same
//! files, and the writers that they start.
//!
//! M3: one piece of work at a time, writes in the order of their turns, and nothing left lying.

#![expect(clippy::unwrap_used, reason = "tests")]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

#[expect(dead_code, unreachable_pub, reason = "as the crate has it")]
#[path = "../src/lane.rs"]
mod lane;

mod sync {
    /// loom's mutex with parking_lot's surface.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

use lane::{Entered, Lane, Work};

/// The files: what was done to them, and whether somebody is at it.
struct Files {
    lane: Lane<u8, u8>,
    busy: AtomicBool,
    done: sync::Mutex<Vec<u8>>,
}

impl Files {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lane: Lane::default(),
            busy: AtomicBool::new(false),
            done: sync::Mutex::new(Vec::new()),
        })
    }

    fn carry_out(&self, work: u8) {
        assert!(!self.busy.swap(true, Ordering::SeqCst), "M3: two at once");
        self.done.lock().push(work);
        self.busy.store(false, Ordering::SeqCst);
    }

    /// A turn's write; gives whether a writer is wanted.
    fn write(&self, write: u8, slow: bool) -> bool {
        match self.lane.enter(write) {
            Entered::Now(write) => {
                self.carry_out(write);
                self.lane.note_speed(slow);
                self.lane.leave()
            }
            Entered::Writer => true,
            Entered::Queued => false,
        }
    }

    /// The flusher's work; gives whether a writer is wanted.
    fn aside(&self, work: u8) -> bool {
        match self.lane.enter_aside(work) {
            Entered::Now(work) => {
                self.carry_out(work);
                self.lane.leave()
            }
            Entered::Writer => true,
            Entered::Queued => false,
        }
    }

    fn writer(&self) {
        while let Some(work) = self.lane.next() {
            match work {
                Work::Write(write) => {
                    self.carry_out(write);
                    self.lane.note_speed(false);
                }
                Work::Aside(work) => self.carry_out(work),
            }
        }
    }
}

/// Writes 1, 2 and 3 of three turns, of which the first may be slow, beside work 9 of the flusher.
fn turns_and_flusher(first_is_slow: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let files = Files::new();
        let flusher = {
            let files = files.clone();
            thread::spawn(move || {
                if files.aside(9) {
                    files.writer();
                }
            })
        };
        let mut writers = Vec::new();
        for write in 1..=3 {
            if files.write(write, first_is_slow && write == 1) {
                let files = files.clone();
                writers.push(thread::spawn(move || files.writer()));
            }
        }
        flusher.join().unwrap();
        for writer in writers {
            writer.join().unwrap();
        }
        let done = files.done.lock().clone();
        let writes: Vec<u8> = done.iter().copied().filter(|work| *work != 9).collect();
        assert_eq!(writes, [1, 2, 3], "M3: {done:?}");
        assert_eq!(done.len(), 4, "left lying: {done:?}");
        assert!(files.lane.is_idle());
    });
}

#[test]
fn writes_keep_their_order_and_none_is_left_lying_while_the_disk_is_quick() {
    turns_and_flusher(false);
}

#[test]
fn writes_keep_their_order_and_none_is_left_lying_when_one_was_slow() {
    turns_and_flusher(true);
}

#[test]
fn what_found_no_room_is_tried_again_before_all_others() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let files = Files::new();
        let Entered::Now(first) = files.lane.enter(1) else {
            panic!("the lane is empty");
        };
        files.lane.put_back(first);
        assert!(!files.lane.leave(), "it waits for room");
        let ticker = {
            let files = files.clone();
            thread::spawn(move || {
                if files.lane.retry() {
                    files.writer();
                }
            })
        };
        if files.write(2, false) {
            files.writer();
        }
        ticker.join().unwrap();
        assert_eq!(*files.done.lock(), [1, 2], "M3");
        assert!(files.lane.is_idle());
    });
}
