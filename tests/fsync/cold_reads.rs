//! A fetch of what is not in memory waits for the disk on a thread of its own: the reads are held,
//! and everybody else is served.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, fadvise};

use super::{ABSENCE, Shimmed};

const BATCH_BYTES: usize = 400_000;
const BATCHES: usize = 8;
/// More than the broker has threads that serve connections.
const COLD_FETCHES: usize = 12;
/// What an answer may take that nothing holds back, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(10);

pub(super) fn hold_back_nobody() -> Result<()> {
    let shimmed = Shimmed::start()?;
    let result = held(&shimmed);
    shimmed.set("p")?;
    shimmed.node.explain(result)
}

fn held(shimmed: &Shimmed) -> Result<()> {
    let mut connection = shimmed.connect()?;
    connection.create_topic("cold", &[("segment.bytes", "1048576")])?;
    connection.create_topic("hot", &[])?;
    for _ in 0..BATCHES {
        ensure!(
            connection.produce("cold", BATCH_BYTES)? == 0,
            "a produce to the cold topic"
        );
    }
    ensure!(connection.produce("hot", 100)? == 0, "the first produce");
    evict(&shimmed.node.data())?;
    shimmed.set("c")?;
    let mut cold = Vec::new();
    for _ in 0..COLD_FETCHES {
        let mut connection = shimmed.connect()?;
        let sent = connection.send_fetch("cold", 0, 600_000)?;
        cold.push((connection, sent));
    }
    // The first that the broker looked at is held, and those that came before the kernel had read
    // ahead for it. Whoever came later finds in memory what the kernel has read, and is answered.
    let mut limit = ABSENCE;
    let mut held = Vec::new();
    for (mut connection, sent) in cold {
        match connection.batches_within(sent, limit)? {
            Some(batches) => is_first(&batches)?,
            None => held.push((connection, sent)),
        }
        limit = Duration::from_millis(1);
    }
    let cold = held;
    ensure!(
        !cold.is_empty(),
        "every fetch was answered while its bytes could not be read"
    );
    for n in 0..20 {
        let began = Instant::now();
        let mut other = shimmed.connect()?;
        ensure!(
            other.produce("hot", 100)? == 0,
            "a produce to the hot topic"
        );
        let sent = other.send_fetch("hot", n, 1000)?;
        let batches = other.batches_within(sent, SOON)?;
        let batches = batches.context("a hot fetch waits for the disk of cold ones")?;
        ensure!(!batches.is_empty(), "a hot fetch brought nothing");
        ensure!(began.elapsed() < SOON, "the others are held back");
    }
    // By now whoever was only late has its answer.
    let mut held = Vec::new();
    for (mut connection, sent) in cold {
        match connection.batches_within(sent, Duration::from_millis(100))? {
            Some(batches) => is_first(&batches)?,
            None => held.push((connection, sent)),
        }
    }
    let mut cold = held;
    // What comes behind a cold fetch on its own connection keeps its place.
    let (first, sent) = cold.first_mut().context("there are fetches")?;
    let behind = first.send_fetch("hot", 0, 1000)?;
    ensure!(
        first
            .batches_within(*sent, Duration::from_millis(100))?
            .is_none(),
        "an answer came out of order"
    );
    shimmed.set("p")?;
    for (connection, sent) in &mut cold {
        let batches = connection.batches_within(*sent, SOON)?;
        let batches = batches.context("no answer though the disk reads again")?;
        is_first(&batches)?;
    }
    let (first, _) = cold.first_mut().context("there are fetches")?;
    let batches = first.batches_within(behind, SOON)?;
    ensure!(
        batches.is_some_and(|batches| !batches.is_empty()),
        "no answer to the request behind"
    );
    Ok(())
}

fn is_first(batches: &[u8]) -> Result<()> {
    let batch = riverrun_record::batches(batches).next();
    let batch = batch.context("no batch")??;
    ensure!(
        batch.base_offset() == 0 && batch.crc_is_valid(),
        "another batch came"
    );
    Ok(())
}

/// Drops from memory what no map has touched: all that was produced and never fetched.
fn evict(data: &Path) -> Result<()> {
    for topic in std::fs::read_dir(data)? {
        let topic = topic?.path();
        if !topic.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(topic)? {
            let path = file?.path();
            if path.extension().is_some_and(|e| e == "log" || e == "index") {
                let file = File::open(path)?;
                file.sync_all()?;
                fadvise(&file, 0, None, Advice::DontNeed)?;
            }
        }
    }
    Ok(())
}
