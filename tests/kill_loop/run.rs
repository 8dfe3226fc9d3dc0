//! One topic under an idempotent producer, and what must be true of it at any time.

use super::ledger::{Ledger, PARTITIONS};
use crate::event::Stored;
use crate::kafka::{PATIENCE, Reader, create_topic, unique};
use crate::node::{partition_directories, partition_number};
use crate::raw::watermarks;
use anyhow::{Context, Result, ensure};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rdkafka::topic_partition_list::Offset;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const RANDOM_READS: usize = 100;

/// Reads so many records of one partition from a place on.
pub(crate) trait Take {
    fn take(
        &self,
        topic: &str,
        partition: usize,
        from: Offset,
        count: usize,
    ) -> Result<Vec<Stored>>;
}

impl Take for Reader {
    fn take(
        &self,
        topic: &str,
        partition: usize,
        from: Offset,
        count: usize,
    ) -> Result<Vec<Stored>> {
        Reader::take(self, topic, partition, from, count)
    }
}

/// Everything that goes on beside the killing.
pub(crate) struct Run {
    pub(crate) topic: String,
    pub(crate) brokers: String,
    pub(crate) ledger: Arc<Ledger>,
    /// Of the partitions, on every node that has them.
    directories: Vec<PathBuf>,
    reader: Box<dyn Take>,
}

impl Run {
    /// Creates a topic with small segments, so that many moments fall near a roll. `data` are the
    /// directories of the nodes that will each have a replica of every partition.
    pub(crate) fn begin(
        brokers: String,
        data: &[PathBuf],
        seed: u64,
        reader: impl Take + 'static,
    ) -> Result<Run> {
        let all = || -> Result<BTreeSet<PathBuf>> {
            let mut found = BTreeSet::new();
            for data in data {
                found.extend(partition_directories(data)?);
            }
            Ok(found)
        };
        let before = all()?;
        let topic = unique("killed");
        create_topic(
            &brokers,
            &topic,
            PARTITIONS,
            &[("segment.bytes", "1048576")],
        )?;
        let due = PARTITIONS * data.len();
        let deadline = Instant::now() + PATIENCE;
        let directories = loop {
            let directories: Vec<_> = all()?.difference(&before).cloned().collect();
            if directories.len() == due {
                break directories;
            }
            ensure!(
                Instant::now() < deadline,
                "{due} replicas lie in {directories:?}"
            );
            thread::sleep(Duration::from_millis(2));
        };
        Ok(Run {
            ledger: Arc::new(Ledger::new(seed)),
            brokers,
            topic,
            directories,
            reader: Box::new(reader),
        })
    }

    /// Waits until something more has been acknowledged, in every partition.
    pub(crate) fn until_progress(&self) -> Result<()> {
        let before = self.ledger.acknowledged();
        let deadline = Instant::now() + PATIENCE;
        while self
            .ledger
            .acknowledged()
            .iter()
            .zip(&before)
            .any(|(now, before)| now == before)
        {
            self.ledger.intact()?;
            ensure!(
                Instant::now() < deadline,
                "nothing acknowledged in {PATIENCE:?} beyond {before:?} of {:?} sent",
                self.ledger.sent()
            );
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// No acknowledged event and nothing that anybody read may lie beyond the end.
    pub(crate) fn check_watermarks(&self) -> Result<()> {
        for partition in 0..PARTITIONS {
            // Noted before the question: both only ever grow.
            let due = self.ledger.due(partition);
            let (low, high) = watermarks(&self.brokers, &self.topic, partition)?;
            ensure!(low == 0, "partition {partition} begins at {low}");
            ensure!(
                high >= due,
                "partition {partition} ends at {high}, and events up to {due} were acknowledged or read"
            );
        }
        Ok(())
    }

    /// Reads at the start, the end, around a few segment boundaries, and at a few random offsets.
    pub(crate) fn check_some(&self, rng: &mut ChaCha8Rng) -> Result<()> {
        let mut boundaries = self.segment_boundaries()?;
        while boundaries.len() > 3 {
            boundaries.swap_remove(rng.random_range(0..boundaries.len()));
        }
        let partition = rng.random_range(0..PARTITIONS);
        self.check_start(partition)?;
        self.check_end(partition)?;
        self.check_boundaries(&boundaries)?;
        self.check_random(rng, 5)
    }

    pub(crate) fn check_everything(&self, rng: &mut ChaCha8Rng) -> Result<()> {
        self.check_places(rng, RANDOM_READS)?;
        self.check_all()
    }

    /// Reads at the start, the end, around every segment boundary, and at random offsets.
    pub(crate) fn check_places(&self, rng: &mut ChaCha8Rng, random: usize) -> Result<()> {
        for partition in 0..PARTITIONS {
            self.check_start(partition)?;
            self.check_end(partition)?;
        }
        self.check_boundaries(&self.segment_boundaries()?)?;
        self.check_random(rng, random)
    }

    fn check_start(&self, partition: usize) -> Result<()> {
        self.check_at(partition, Offset::Beginning, 0, 20)
            .context("from the start")
    }

    /// The last event that is there, whatever is written meanwhile.
    fn check_end(&self, partition: usize) -> Result<()> {
        let due = self.ledger.due(partition);
        let read = self
            .reader
            .take(&self.topic, partition, Offset::OffsetTail(1), 1)?;
        let [stored] = &read[..] else { return Ok(()) };
        ensure!(
            stored.offset >= due - 1,
            "the last event of partition {partition} is {}, not {}",
            stored.offset,
            due - 1
        );
        self.ledger.read(partition, stored).context("from the end")
    }

    /// Every segment of every partition: the last event before it and its first.
    fn check_boundaries(&self, boundaries: &[(usize, i64)]) -> Result<()> {
        for (partition, base) in boundaries {
            // A segment may have been begun and hold nothing yet that may be read.
            if *base < self.ledger.due(*partition) {
                let from = (base - 1).max(0);
                self.check_at(*partition, Offset::Offset(from), from, 2)
                    .with_context(|| format!("around the segment that begins at {base}"))?;
            }
        }
        Ok(())
    }

    fn check_random(&self, rng: &mut ChaCha8Rng, count: usize) -> Result<()> {
        for _ in 0..count {
            let partition = rng.random_range(0..PARTITIONS);
            let offset = rng.random_range(0..self.ledger.due(partition));
            self.check_at(partition, Offset::Offset(offset), offset, 1)
                .context("at a random offset")?;
        }
        Ok(())
    }

    /// Reads up to `count` events from a place, which must be the ones at `offset` and after.
    fn check_at(&self, partition: usize, from: Offset, offset: i64, count: i64) -> Result<()> {
        let count = count.min(self.ledger.due(partition) - offset);
        let read = self
            .reader
            .take(&self.topic, partition, from, usize::try_from(count)?)?;
        for (due, stored) in (offset..).zip(&read) {
            ensure!(
                stored.offset == due,
                "partition {partition} from {from:?}: offset {} where {due} is due",
                stored.offset
            );
            self.ledger.read(partition, stored)?;
        }
        Ok(())
    }

    /// Reads everything from offset 0 to what is acknowledged by now.
    pub(crate) fn check_all(&self) -> Result<()> {
        for partition in 0..PARTITIONS {
            self.check_at(partition, Offset::Offset(0), 0, i64::MAX)
                .context("from the start to the end")?;
        }
        Ok(())
    }

    /// Partition and base offset of every segment there is.
    pub(crate) fn segment_boundaries(&self) -> Result<Vec<(usize, i64)>> {
        let mut boundaries = Vec::new();
        for directory in &self.directories {
            let partition = partition_number(directory).context("a directory without a number")?;
            for entry in std::fs::read_dir(directory)? {
                let path = entry?.path();
                let base = path
                    .file_stem()
                    .and_then(|stem| stem.to_str()?.parse().ok());
                if let (true, Some(base)) =
                    (path.extension() == Some(Path::new("log").as_os_str()), base)
                {
                    boundaries.push((partition, base));
                }
            }
        }
        boundaries.sort_unstable();
        boundaries.dedup();
        Ok(boundaries)
    }
}
