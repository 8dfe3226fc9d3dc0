//! librdkafka's consumer, which follows a topic through every kill.

use super::beside::{Beside, Followed};
use super::ledger::{Ledger, PARTITIONS};
use super::run::Run;
use crate::kafka::{Next, Reader};
use anyhow::Result;
use rdkafka::topic_partition_list::Offset;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// A consumer that follows the topic from the first event to the last, through all kills.
pub(crate) struct Tail(Beside);

impl Tail {
    pub(crate) fn start(run: &Run) -> Result<Tail> {
        let reader = Reader::new(&run.brokers)?;
        let places: Vec<_> = (0..PARTITIONS)
            .map(|partition| (partition, Offset::Offset(0)))
            .collect();
        reader.assign(&run.topic, &places)?;
        let who = "the consumer that runs all the time";
        Ok(Tail(Beside::start(
            &run.ledger,
            who,
            move |ledger, stopped| follow(&reader, ledger, stopped),
        )))
    }

    /// Waits until it has read everything that was sent.
    pub(crate) fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

fn follow(reader: &Reader, ledger: &Ledger, stopped: &AtomicBool) -> Result<()> {
    let mut followed = Followed::default();
    while !followed.is_done(ledger, stopped)? {
        if let Some(Next::Record(partition, stored)) = reader.next(Duration::from_millis(20))? {
            followed.read(ledger, partition, &stored)?;
        }
    }
    Ok(())
}
