//! The mailbox over loom's locks: every interleaving of two or three threads.
//!
//! M1: nothing that was posted is left lying when everybody has gone. M2: what one thread posts is
//! done in its order. M3: turns never overlap.

#![expect(clippy::unwrap_used, reason = "tests")]

use loom::sync::Arc;
use loom::thread;

#[expect(dead_code, unreachable_pub, reason = "as the crate has it")]
#[path = "../src/mailbox.rs"]
mod mailbox;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};

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

        pub(crate) fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

use mailbox::{Mailbox, Ran};

type Done = Vec<(u8, u8)>;

/// Posts `count` pieces one by one, running after each; gives whether a hand-over was asked for.
fn bring(mailbox: &Mailbox<(u8, u8), Done>, who: u8, count: u8) -> bool {
    let mut handed_over = false;
    for n in 0..count {
        mailbox.post((who, n));
        handed_over |= mailbox.run(|done, work| done.extend(work)) == Ran::HandOver;
    }
    handed_over
}

fn check(mailbox: &Mailbox<(u8, u8), Done>, posted: usize, handed_over: bool) {
    mailbox.with(|done| {
        assert!(
            !handed_over,
            "so little work is done within the round limit"
        );
        assert_eq!(done.len(), posted, "M1: {done:?}");
        for who in 0..3 {
            let order: Vec<u8> = done.iter().filter(|d| d.0 == who).map(|d| d.1).collect();
            assert!(order.is_sorted(), "M2: {done:?}");
        }
    });
}

#[test]
fn no_wake_up_is_lost_and_no_order_is_changed_between_two() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new(Done::new()));
        let other = {
            let mailbox = mailbox.clone();
            thread::spawn(move || bring(&mailbox, 1, 2))
        };
        let mut handed_over = bring(&mailbox, 0, 1);
        handed_over |= other.join().unwrap();
        check(&mailbox, 3, handed_over);
    });
}

#[test]
fn no_wake_up_is_lost_among_three() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let mailbox = Arc::new(Mailbox::new(Done::new()));
        let others: Vec<_> = (1..3)
            .map(|who| {
                let mailbox = mailbox.clone();
                thread::spawn(move || bring(&mailbox, who, 1))
            })
            .collect();
        let mut handed_over = bring(&mailbox, 0, 1);
        for other in others {
            handed_over |= other.join().unwrap();
        }
        check(&mailbox, 3, handed_over);
    });
}

#[test]
fn what_was_posted_before_settling_is_done_when_it_returns() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new(Done::new()));
        let other = {
            let mailbox = mailbox.clone();
            thread::spawn(move || bring(&mailbox, 1, 2))
        };
        mailbox.post((0, 0));
        let mut handed_over = mailbox.settle(|done, work| done.extend(work)) == Ran::HandOver;
        mailbox.with(|done| assert!(done.contains(&(0, 0)), "{done:?}"));
        // Whoever met the lock taken for the look.
        handed_over |= mailbox.run(|done, work| done.extend(work)) == Ran::HandOver;
        handed_over |= other.join().unwrap();
        check(&mailbox, 3, handed_over);
    });
}
