//! Bits that flip at rest, on all replicas at once: as long as one whole copy of each event is left on any of
//! them, all is served, and every copy is whole again.

use super::events::Kept;
use super::trio::{Trio, until};
use anyhow::{Context, Result, ensure};
use riverrun_record::batches;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const PARTITIONS: usize = 2;

/// The first segments of a node's partitions, by their directories' names.
fn segments(data: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(data)? {
        let dir = entry?;
        let name = dir.file_name().to_string_lossy().into_owned();
        let log = dir.path().join(format!("{:020}.log", 0));
        if log.exists() && !name.starts_with("__") {
            found.insert(name, log);
        }
    }
    Ok(found)
}

/// Flips a bit in the records of a batch, counted from the first.
fn flip(log: &Path, which: usize) -> Result<()> {
    let mut bytes = fs::read(log)?;
    let mut end = 0;
    for batch in batches(&bytes).take(which + 1) {
        end += batch?.total_len();
    }
    let byte = bytes.get_mut(end - 3).context("no such batch")?;
    *byte ^= 0x10;
    fs::write(log, bytes)?;
    Ok(())
}

fn stop_all(trio: &mut Trio) -> Result<()> {
    for id in trio.ids() {
        trio.node(id)?.stop()?;
    }
    Ok(())
}

/// Different batches of both partitions are bad on each of three nodes.
pub(super) fn bad_bytes_are_put_right() -> Result<()> {
    let mut trio = Trio::start()?;
    let result = put_right(&mut trio);
    trio.explain(result)
}

fn put_right(trio: &mut Trio) -> Result<()> {
    let mut kept = Kept::create(&trio.brokers(), PARTITIONS)?;
    for _ in 0..12 {
        kept.add(&trio.brokers(), 20)?;
    }
    trio.in_sync(&kept.topic, 3)?;
    // A start takes what the node WAL still has of the batches from there: the next lives find them in the
    // segments alone.
    for _ in 0..2 {
        stop_all(trio)?;
        trio.start_all()?;
        trio.in_sync(&kept.topic, 3)?;
        kept.add(&trio.brokers(), 20)?;
    }
    stop_all(trio)?;
    let mut before = Vec::new();
    for (n, data) in trio.data().iter().enumerate() {
        for (name, log) in segments(data)? {
            before.push((name, log.clone(), fs::read(&log)?));
            flip(&log, 2 + 3 * n)?;
        }
    }
    ensure!(before.len() == 3 * PARTITIONS, "segments: {}", before.len());
    trio.start_all()?;
    trio.in_sync(&kept.topic, 3)?;
    kept.check(&trio.brokers())?;
    kept.add(&trio.brokers(), 20)?;
    // Each node leads, and so reads, in its turn.
    for id in trio.ids() {
        let others: Vec<i32> = trio
            .ids()
            .into_iter()
            .filter(|other| *other != id)
            .collect();
        for other in others {
            trio.kill(other)?;
            trio.in_sync(&kept.topic, 2)?;
            kept.check(&trio.brokers())?;
            trio.spawn(other)?;
            trio.wait_ready()?;
            trio.in_sync(&kept.topic, 3)?;
        }
    }
    until("every segment is what it was", || {
        for (_, log, bytes) in &before {
            if !fs::read(log)?.starts_with(bytes) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    let mut said = 0;
    for id in trio.ids() {
        let log = trio.node(id)?.log();
        said += log
            .matches("put right entries that were bad at rest")
            .count();
        ensure!(
            !log.contains("set a replica aside") && !log.contains("is not open"),
            "node {id} gave a replica up"
        );
    }
    ensure!(said > 0, "no node says that it put anything right");
    Ok(())
}
