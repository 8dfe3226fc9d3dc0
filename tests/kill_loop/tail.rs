//! librdkafka's consumer, which follows a topic through every kill.

use super::ledger::{Ledger, PARTITIONS};
use super::run::Run;
use crate::kafka::{Next, PATIENCE, Reader};
use anyhow::{Result, ensure};
use rdkafka::topic_partition_list::Offset;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A consumer that follows the topic from the first event to the last, through all kills.
pub(crate) struct Tail {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Tail {
    pub(crate) fn start(run: &Run) -> Result<Tail> {
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader::new(&run.brokers)?;
        let places: Vec<_> = (0..PARTITIONS)
            .map(|partition| (partition, Offset::Offset(0)))
            .collect();
        reader.assign(&run.topic, &places)?;
        let (ledger, stopped) = (Arc::clone(&run.ledger), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let followed = follow(&reader, &ledger, &stopped);
            if let Err(error) = &followed {
                ledger.violated(format!("the consumer that runs all the time: {error:#}"));
            }
            followed
        });
        Ok(Tail { stop, thread })
    }

    /// Waits until it has read everything that was sent.
    pub(crate) fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn follow(reader: &Reader, ledger: &Ledger, stopped: &AtomicBool) -> Result<()> {
    let mut next = [0_i64; PARTITIONS];
    let mut deadline = None;
    loop {
        if stopped.load(Ordering::Relaxed) {
            if ledger.sent() == next {
                return Ok(());
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            ensure!(
                Instant::now() < deadline,
                "it stands at {next:?} of {:?}",
                ledger.sent()
            );
        }
        if let Some(Next::Record(partition, stored)) = reader.next(Duration::from_millis(20))? {
            ensure!(
                stored.offset == next[partition],
                "partition {partition}: offset {} follows {}",
                stored.offset,
                next[partition] - 1
            );
            ledger.read(partition, &stored)?;
            next[partition] += 1;
        }
    }
}
