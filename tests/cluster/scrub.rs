//! A bit flips in a segment that nobody reads: it is found all the same, and the file is what it was.

use super::events::Kept;
use super::trio::{Trio, until};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A second is the shortest turn that there is, of three.
const INTERVAL_MS: u32 = 3000;

/// The files of a partition's first segment but its name, by their suffix.
fn first_segment(data: &Path, suffix: &str) -> Result<PathBuf> {
    let name = format!("{:020}.{suffix}", 0);
    let mut dirs = fs::read_dir(data)?.filter_map(Result::ok);
    let found = dirs.find_map(|dir| {
        let is_data = !dir.file_name().to_string_lossy().starts_with("__");
        Some(dir.path().join(&name)).filter(|path| is_data && path.exists())
    });
    found.context("a partition has a first segment")
}

/// Flips a bit of a file that a process has open.
fn flip(path: &Path, at: u64) -> Result<Vec<u8>> {
    let before = fs::read(path)?;
    let file = fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 0x10], at)?;
    file.sync_all()?;
    Ok(before)
}

/// Bits of a batch, of a sidecar's record and of an index are flipped on three nodes.
pub(super) fn what_nobody_reads_is_looked_at() -> Result<()> {
    let mut trio = Trio::prepare(3, |_| Vec::new())?;
    let voters = format!("controller.quorum.voters={}", trio.voters());
    for id in trio.ids() {
        let settings = [
            voters.clone(),
            format!("log.scrub.interval.ms={INTERVAL_MS}"),
            "log.segment.bytes=16384".to_owned(),
        ];
        trio.configure(id, settings)?;
    }
    let started = trio.start_all();
    trio.explain(started)?;
    let result = looked_at(&mut trio);
    trio.explain(result)
}

fn looked_at(trio: &mut Trio) -> Result<()> {
    let mut kept = Kept::create(&trio.brokers(), 1)?;
    for _ in 0..40 {
        kept.add(&trio.brokers(), 20)?;
    }
    trio.in_sync(&kept.topic, 3)?;
    let mut before = Vec::new();
    for (data, suffix) in trio.data().iter().zip(["log", "raft", "index"]) {
        let path = first_segment(data, suffix)?;
        let len = fs::metadata(&path)?.len();
        ensure!(len > 0, "{} is empty", path.display());
        let bytes = flip(&path, len - 5)?;
        before.push((path, bytes));
    }
    until("every file is what it was", || {
        let mut whole = true;
        for (path, bytes) in &before {
            whole &= fs::read(path)? == *bytes;
        }
        Ok(whole.then_some(()))
    })?;
    kept.check(&trio.brokers())?;
    kept.add(&trio.brokers(), 20)?;
    let (mut found, mut mended, mut anew) = (0, 0, 0);
    for id in trio.ids() {
        let log = trio.node(id)?.log();
        found += log
            .matches("a scrub found bytes at rest that are bad")
            .count();
        mended += log
            .matches("put right entries that were bad at rest")
            .count();
        anew += log.matches("it is made anew from the log").count();
        ensure!(!log.contains("is not open"), "node {id} gave a replica up");
    }
    ensure!(
        found >= 2 && mended >= 2 && anew >= 1,
        "found {found}, put right {mended}, made anew {anew}"
    );
    Ok(())
}
