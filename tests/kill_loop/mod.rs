//! The kill loop: one node under an idempotent producer and a consumer, SIGKILL at random moments,
//! while it recovers too. Every acknowledged event must be there once, in order, at the offset
//! that was acknowledged, wherever a consumer begins, while writing goes on.
//!
//! Killing a process says nothing about what an fsync is worth, as the page cache survives it;
//! it says that no moment of the broker's life is one from which it cannot come back.

mod ledger;
mod writer;

use crate::kafka::{Next, PATIENCE, Reader, create_topic, unique};
use crate::node::{Node, foreign_brokers, partition_directories, partition_number};
use crate::raw::watermarks;
use crate::trial::{fresh_seed, note, skip, trial};
use anyhow::{Context, Result, ensure};
use ledger::{Ledger, PARTITIONS};
use libtest_mimic::Trial;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::topic_partition_list::Offset;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use writer::Writer;

const RANDOM_READS: usize = 100;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![trial(
        "kill_loop::acknowledged_events_survive_sigkill",
        || {
            if foreign_brokers().is_some() {
                return Err(skip(
                    "the kill loop",
                    "the broker in RIVERRUN_TEST_BROKERS is not ours to kill",
                ));
            }
            let rounds = setting("RIVERRUN_KILL_ROUNDS").unwrap_or(20);
            let seed = setting("RIVERRUN_KILL_SEED").unwrap_or_else(fresh_seed);
            note(format_args!(
                "kill loop: {rounds} rounds, RIVERRUN_KILL_SEED={seed}"
            ));
            let mut node = Node::start()?;
            let result = kill_loop(&mut node, rounds, seed);
            node.explain(result.with_context(|| format!("RIVERRUN_KILL_SEED={seed}")))
        },
    )];
    trials.extend(ledger::trials());
    trials
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Everything that goes on beside the killing.
struct Run {
    topic: String,
    brokers: String,
    ledger: Arc<Ledger>,
    directories: Vec<PathBuf>,
    reader: Reader,
}

fn kill_loop(node: &mut Node, rounds: u32, seed: u64) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let before: BTreeSet<PathBuf> = partition_directories(&node.data())?.into_iter().collect();
    let topic = unique("killed");
    // Small segments, so that many moments fall near a roll.
    create_topic(
        &node.brokers(),
        &topic,
        PARTITIONS,
        &[("segment.bytes", "1048576")],
    )?;
    let deadline = Instant::now() + PATIENCE;
    let directories = loop {
        let mut directories = partition_directories(&node.data())?;
        directories.retain(|directory| !before.contains(directory));
        if directories.len() == PARTITIONS {
            break directories;
        }
        ensure!(
            Instant::now() < deadline,
            "{PARTITIONS} partitions lie in {directories:?}"
        );
    };
    let run = Run {
        ledger: Arc::new(Ledger::new(seed)),
        reader: Reader::new(&node.brokers())?,
        brokers: node.brokers(),
        topic,
        directories,
    };
    let writer = Writer::start(&run.brokers, &run.topic, &run.ledger)?;
    let tail = Tail::start(&run)?;

    let mut ready_after = Duration::from_millis(300);
    let mut killed_recovering = 0;
    for round in 0..rounds {
        let context = || format!("in round {round}");
        run.until_progress().with_context(context)?;
        run.check_some(&mut rng).with_context(context)?;
        thread::sleep(Duration::from_millis(rng.random_range(0..500)));
        let acknowledged = run.ledger.acknowledged_in_all();
        node.kill()?;
        node.spawn()?;
        // Now and then again before it is ready, perhaps more than once.
        while rng.random_range(0..3) == 0 {
            thread::sleep(ready_after.mul_f64(rng.random_range(0.0..1.2)));
            node.kill()?;
            node.spawn()?;
            killed_recovering += 1;
        }
        ready_after = node.wait_ready().with_context(context)?;
        run.check_watermarks().with_context(|| {
            format!("after kill {round}, {acknowledged} acknowledged before it")
        })?;
        run.ledger.intact().with_context(context)?;
    }

    run.until_progress()?;
    run.check_everything(&mut rng)
        .context("after the last kill, while writing goes on")?;
    writer.finish(PATIENCE)?;
    run.ledger.intact()?;
    tail.finish()
        .context("the consumer that ran all the time")?;
    run.check_watermarks()?;
    run.check_everything(&mut rng)
        .context("after the last write")?;
    note(format_args!(
        "kill loop: {rounds} kills and {killed_recovering} more while recovering, {} events in {} segments",
        run.ledger.acknowledged_in_all(),
        run.segment_boundaries()?.len()
    ));
    Ok(())
}

impl Run {
    /// Waits until something more has been acknowledged, in every partition.
    fn until_progress(&self) -> Result<()> {
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
    fn check_watermarks(&self) -> Result<()> {
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
    fn check_some(&self, rng: &mut ChaCha8Rng) -> Result<()> {
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

    fn check_everything(&self, rng: &mut ChaCha8Rng) -> Result<()> {
        for partition in 0..PARTITIONS {
            self.check_start(partition)?;
            self.check_end(partition)?;
        }
        self.check_boundaries(&self.segment_boundaries()?)?;
        self.check_random(rng, RANDOM_READS)?;
        self.check_all()
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
    fn check_all(&self) -> Result<()> {
        for partition in 0..PARTITIONS {
            self.check_at(partition, Offset::Offset(0), 0, i64::MAX)
                .context("from the start to the end")?;
        }
        Ok(())
    }

    /// Partition and base offset of every segment there is.
    fn segment_boundaries(&self) -> Result<Vec<(usize, i64)>> {
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
        Ok(boundaries)
    }
}

/// A consumer that follows the topic from the first event to the last, through all kills.
struct Tail {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Tail {
    fn start(run: &Run) -> Result<Tail> {
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
    fn finish(self) -> Result<()> {
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
