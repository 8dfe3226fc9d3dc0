//! Futures that are dropped: at every await of theirs, before and after what they wait for has happened. The
//! same thing has to work afterwards.
//!
//! `sites` lists the places in this crate where a future is spawned, selected on, timed or kept in a set,
//! and the test that drops what is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod changes;
mod handlers;
mod lives;
mod sites;
mod wires;

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::testing::PATIENCE;

/// What comes to its end at all has come to it after so many polls.
const MOST_POLLS: usize = 300;
/// What has no end is not waited for longer before it is dropped.
const A_WHILE: Duration = Duration::from_millis(50);

/// When a future is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drops {
    /// As soon as it waits.
    Waiting,
    /// When it is woken: what it waited for has happened, and it never sees it.
    Woken,
}

/// Polls a future so often, and drops it; what it gives where it comes to its end before.
pub(crate) async fn polled<F: Future>(
    polls: usize,
    drops: Drops,
    longest: Duration,
    future: F,
) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    let poll = poll_fn(|context| {
        let Some(less) = left.checked_sub(1) else {
            return Poll::Ready(None);
        };
        left = less;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 && drops == Drops::Waiting => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    timeout(longest, poll).await.unwrap_or(None)
}

/// Drops what `make` gives after no poll, one, two, and so on, until it comes to its end; `check` looks each
/// time whether the same thing still works.
pub(crate) async fn to_its_end<F: Future, E: Debug>(
    mut make: impl FnMut() -> F,
    mut check: impl AsyncFnMut() -> Result<(), E>,
) -> Result<(), String> {
    for drops in [Drops::Waiting, Drops::Woken] {
        let mut ended = false;
        for polls in 0..MOST_POLLS {
            ended = polled(polls, drops, PATIENCE, make()).await.is_some();
            let checked = check().await;
            checked.map_err(|why| format!("{drops:?}, after {polls} polls: {why:?}"))?;
            if ended {
                break;
            }
        }
        if !ended {
            return Err("it has no end".to_owned());
        }
    }
    Ok(())
}

/// The same for what has no end, or none that is waited for here: its first awaits.
pub(crate) async fn for_a_while<F: Future, E: Debug>(
    most_polls: usize,
    mut make: impl FnMut() -> F,
    mut check: impl AsyncFnMut() -> Result<(), E>,
) {
    for drops in [Drops::Waiting, Drops::Woken] {
        for polls in 0..most_polls {
            polled(polls, drops, A_WHILE, make()).await;
            let checked = check().await;
            assert!(
                checked.is_ok(),
                "{drops:?}, after {polls} polls: {checked:?}"
            );
        }
    }
}

/// Waits until something holds that nobody tells of.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
