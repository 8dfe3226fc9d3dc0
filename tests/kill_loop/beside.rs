//! What goes on beside the killing, on a thread of its own until it is told to come to an end.

use super::ledger::{Ledger, PARTITIONS};
use crate::event::Stored;
use crate::kafka::PATIENCE;
use anyhow::{Result, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

/// A producer or a consumer on its thread.
pub(crate) struct Beside {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Beside {
    /// Runs `body` until it sees that it is to end; an error of `who` is noted in the ledger at once.
    pub(crate) fn start(
        ledger: &Arc<Ledger>,
        who: &'static str,
        body: impl FnOnce(&Arc<Ledger>, &AtomicBool) -> Result<()> + Send + 'static,
    ) -> Beside {
        let stop = Arc::new(AtomicBool::new(false));
        let (ledger, stopped) = (Arc::clone(ledger), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let done = body(&ledger, &stopped);
            if let Err(error) = &done {
                ledger.violated(format!("{who}: {error:#}"));
            }
            done
        });
        Beside { stop, thread }
    }

    /// Tells it to end, and waits until it has.
    pub(crate) fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// How far a consumer is that follows the topic from the first event to the last.
#[derive(Default)]
pub(crate) struct Followed {
    next: [i64; PARTITIONS],
    deadline: Option<Instant>,
}

impl Followed {
    /// Whether it is to end and has read everything that was sent; it has a while for the rest.
    pub(crate) fn is_done(&mut self, ledger: &Ledger, stopped: &AtomicBool) -> Result<bool> {
        if !stopped.load(Ordering::Relaxed) {
            return Ok(false);
        }
        if ledger.sent() == self.next {
            return Ok(true);
        }
        let deadline = *self
            .deadline
            .get_or_insert_with(|| Instant::now() + PATIENCE);
        ensure!(
            Instant::now() < deadline,
            "it stands at {:?} of {:?}",
            self.next,
            ledger.sent()
        );
        Ok(false)
    }

    /// Takes in the next event of a partition.
    pub(crate) fn read(
        &mut self,
        ledger: &Ledger,
        partition: usize,
        stored: &Stored,
    ) -> Result<()> {
        let next = &mut self.next[partition];
        ensure!(
            stored.offset == *next,
            "partition {partition}: offset {} follows {}",
            stored.offset,
            *next - 1
        );
        ledger.read(partition, stored)?;
        *next += 1;
        Ok(())
    }
}
