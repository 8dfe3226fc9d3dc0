//! A topic of which all that was acknowledged is remembered.

use super::view::metadata;
use crate::event::{Event, Stored, compare};
use crate::fsync::requests::Connection;
use crate::kafka::{Reader, create_topic, now_ms, produce, unique};
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const SUCCESS: i16 = 0;

pub(crate) struct Kept {
    pub(crate) topic: String,
    /// By partition, as they must stand there.
    pub(crate) logs: Vec<Vec<Stored>>,
}

impl Kept {
    /// Creates the topic, with as many replicas as the nodes think right.
    pub(crate) fn create(brokers: &str, partitions: usize) -> Result<Kept> {
        let topic = unique("kept");
        create_topic(brokers, &topic, partitions, &[])?;
        Ok(Kept::empty(topic, partitions))
    }

    /// A topic that is there and empty.
    pub(crate) fn empty(topic: String, partitions: usize) -> Kept {
        Kept {
            topic,
            logs: vec![Vec::new(); partitions],
        }
    }

    /// Produces so many events more, each of which must be acknowledged as the next of its partition.
    pub(crate) fn add(&mut self, brokers: &str, count: usize) -> Result<()> {
        let begin: usize = self.logs.iter().map(Vec::len).sum();
        let now = now_ms();
        let events = (begin..begin + count).map(|n| {
            let event = Event {
                timestamp_ms: now + n as i64,
                key: Some(format!("key-{}", n % 10).into_bytes()),
                value: Some(
                    format!("{} {n} ", self.topic)
                        .repeat(1 + n % 20)
                        .into_bytes(),
                ),
                headers: Vec::new(),
            };
            (n % self.logs.len(), event)
        });
        let events: Vec<(usize, Event)> = events.collect();
        let given = events
            .iter()
            .map(|(partition, event)| (Some(*partition), event));
        let delivered = produce(brokers, &self.topic, &[], given)?;
        for ((partition, event), at) in events.iter().zip(delivered) {
            let log = &mut self.logs[*partition];
            let offset = log.len() as i64;
            ensure!(
                (at.partition, at.offset) == (*partition, offset),
                "acknowledged as {at:?}, its place is {partition}/{offset}"
            );
            log.push(Stored {
                offset,
                event: event.clone(),
            });
        }
        Ok(())
    }

    /// Reads everything, from the start to the end.
    pub(crate) fn check(&self, brokers: &str) -> Result<()> {
        self.check_by(&Reader::new(brokers)?)
    }

    /// The same with another reader.
    pub(crate) fn check_by(&self, reader: &Reader) -> Result<()> {
        let read = reader.read_all(&self.topic, self.logs.len())?;
        for (partition, (log, read)) in self.logs.iter().zip(&read).enumerate() {
            compare(
                &format!("partition {partition} of {}", self.topic),
                log,
                read,
            )?;
        }
        Ok(())
    }
}

/// A node that serves refuses a produce, and names no leader it could go to.
pub(crate) fn refuses_produce(broker: &str, topic: &str) -> Result<()> {
    let mut connection = Connection::open(broker)?;
    let sent = connection.send_produce(topic, 100)?;
    let answer = connection.answer_within(sent, Duration::from_secs(5))?;
    ensure!(
        answer.is_some_and(|error| error != SUCCESS),
        "a produce was answered with {answer:?}"
    );
    Ok(())
}

/// A node that belongs to no cluster yet, or not to this one, tells clients nothing.
pub(crate) fn serves_nobody(broker: &str) -> Result<()> {
    match metadata(broker, &[]) {
        Ok(answer) => Err(anyhow::anyhow!("it serves: {answer:?}")),
        Err(_) => Ok(()),
    }
}

/// Copies a directory with all that is in it, as somebody would who keeps a copy.
pub(crate) fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .context("cp")?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}
