//! fsync is real: what acks=all promises is held against the calls that the process makes, by a
//! small library that is preloaded into it. (Killing a process proves nothing here: the page cache
//! survives it.)

mod cold_reads;
pub(crate) mod requests;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;

use super::installed::target_dir;
use super::node::{Node, foreign_brokers};
use super::trial::{skip, trial};
use requests::Connection;

/// How long the absence of an answer is watched. An answer that is wrongly given comes within
/// microseconds of the write.
pub(crate) const ABSENCE: Duration = Duration::from_millis(700);
const KAFKA_STORAGE_ERROR: i16 = 56;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "fsync::a_read_from_the_disk_holds_back_nobody_else",
            cold_reads::hold_back_nobody,
        ),
        trial("fsync::acks_all_waits_until_fdatasync_returns", waits),
        trial(
            "fsync::no_acks_all_is_answered_when_the_wal_cannot_be_synced",
            wal_fails,
        ),
        trial(
            "fsync::a_partition_that_cannot_be_synced_is_out_and_the_others_serve",
            log_fails,
        ),
        trial(
            "fsync::every_name_is_followed_by_an_fsync_of_its_directory",
            names,
        ),
        trial(
            "fsync::the_judge_of_names_sees_one_that_is_not_synced_in_time",
            judge_is_no_rubber_stamp,
        ),
    ]
}

/// The shim of one process.
pub(crate) struct Shim {
    library: PathBuf,
    control: PathBuf,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl Shim {
    pub(crate) fn new() -> Result<Self> {
        let tmp = target_dir()?.join("tmp");
        let directory = tempfile::tempdir_in(tmp).or_else(|_| tempfile::tempdir())?;
        let library = directory.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fsync/shim.c");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(&source)
            .arg("-ldl")
            .status()
            .context("cc")?;
        ensure!(status.success(), "the shim does not compile: {status}");
        let control = directory.path().join("control");
        let log = directory.path().join("calls");
        std::fs::write(&control, "p")?;
        std::fs::write(&log, "")?;
        Ok(Self {
            library,
            control,
            log,
            _directory: directory,
        })
    }

    /// What puts it into a process.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", self.library.clone().into_os_string()),
            (
                "RIVERRUN_SHIM_CONTROL",
                self.control.clone().into_os_string(),
            ),
            ("RIVERRUN_SHIM_LOG", self.log.clone().into_os_string()),
        ]
    }

    pub(crate) fn set(&self, mode: &str) -> Result<()> {
        // Renamed into place: the shim must never read an empty file.
        let aside = self.control.with_extension("new");
        std::fs::write(&aside, mode)?;
        std::fs::rename(aside, &self.control)?;
        Ok(())
    }
}

/// A broker with the shim in it.
struct Shimmed {
    node: Node,
    shim: Shim,
}

impl Shimmed {
    fn start() -> Result<Self> {
        if foreign_brokers().is_some() {
            return Err(skip(
                "fsync under a preloaded library",
                "the broker is not ours",
            ));
        }
        let shim = Shim::new()?;
        let node = Node::start_with(shim.environment())?;
        Ok(Self { node, shim })
    }

    fn set(&self, mode: &str) -> Result<()> {
        self.shim.set(mode)
    }

    /// A line of ours among those of the shim.
    fn mark(&self, what: &str) -> Result<()> {
        let mut log = OpenOptions::new().append(true).open(&self.shim.log)?;
        log.write_all(format!("mark {what}\n").as_bytes())?;
        Ok(())
    }

    fn connect(&self) -> Result<Connection> {
        Connection::open(&self.node.brokers())
    }
}

fn waits() -> Result<()> {
    let shimmed = Shimmed::start()?;
    let result = (|| {
        let mut connection = shimmed.connect()?;
        connection.create_topic("held", &[])?;
        ensure!(connection.produce("held", 100)? == 0, "the first produce");
        for bytes in [100, 400_000] {
            shimmed.set("b")?;
            let sent = connection.send_produce("held", bytes)?;
            ensure!(
                connection.answer_within(sent, ABSENCE)?.is_none(),
                "I5: acks=all of {bytes} bytes was answered while fdatasync was blocked"
            );
            shimmed.set("p")?;
            let error = connection
                .answer_within(sent, Duration::from_secs(20))?
                .context("no answer after fdatasync was let go")?;
            ensure!(error == 0, "the produce got error {error}");
        }
        // A topic that opted out is answered all the same.
        connection.create_topic("cached", &[("write.caching", "true")])?;
        ensure!(
            connection.produce("cached", 100)? == 0,
            "the first cached produce"
        );
        shimmed.set("b")?;
        let sent = connection.send_produce("cached", 100)?;
        let answer = connection.answer_within(sent, Duration::from_secs(20))?;
        shimmed.set("p")?;
        ensure!(
            answer == Some(0),
            "write.caching=true does not wait for the disk, got {answer:?}"
        );
        Ok(())
    })();
    shimmed.set("p")?;
    shimmed.node.explain(result)
}

fn wal_fails() -> Result<()> {
    let mut shimmed = Shimmed::start()?;
    let mut connection = shimmed.connect()?;
    connection.create_topic("doomed", &[])?;
    ensure!(connection.produce("doomed", 100)? == 0, "the first produce");
    shimmed.set("f")?;
    let sent = connection.send_produce("doomed", 100)?;
    match connection.answer_within(sent, Duration::from_secs(20)) {
        Ok(Some(0)) => bail!("I10: acks=all was answered though fdatasync failed"),
        Ok(Some(_)) | Err(_) => {}
        Ok(None) => bail!("neither an answer nor an end within 20 s"),
    }
    let status = shimmed.node.wait_end()?;
    ensure!(
        !status.success(),
        "a failed flush of the WAL must end the process as a failure"
    );
    Ok(())
}

fn log_fails() -> Result<()> {
    let shimmed = Shimmed::start()?;
    let result = (|| {
        let mut connection = shimmed.connect()?;
        for topic in ["broken", "whole"] {
            connection.create_topic(topic, &[])?;
            ensure!(
                connection.produce(topic, 100)? == 0,
                "the first produce to {topic}"
            );
        }
        shimmed.set("l")?;
        // So much goes to the segment itself, whose fdatasync fails.
        let error = connection.produce("broken", 900_000)?;
        ensure!(
            error == KAFKA_STORAGE_ERROR,
            "I10: a failed fdatasync was answered with {error}"
        );
        let error = connection.produce("broken", 100)?;
        ensure!(
            error == KAFKA_STORAGE_ERROR,
            "I10: the partition took another batch: {error}"
        );
        // Small batches go through the WAL, which is whole.
        let error = connection.produce("whole", 100)?;
        ensure!(error == 0, "the other partition got error {error}");
        Ok(())
    })();
    shimmed.node.explain(result)
}

fn names() -> Result<()> {
    let mut shimmed = Shimmed::start()?;
    let result = names_of(&mut shimmed);
    shimmed.node.explain(result)
}

fn names_of(shimmed: &mut Shimmed) -> Result<()> {
    let mut connection = shimmed.connect()?;
    connection.create_topic("named", &[("segment.bytes", "1048576")])?;
    shimmed.mark("acknowledged the topic")?;
    // Enough to begin several segments. So much of a batch goes to the segment itself.
    for n in 0..8 {
        ensure!(connection.produce("named", 400_000)? == 0, "a produce");
        shimmed.mark(&format!("acknowledged batch {n}"))?;
    }
    let status = shimmed.node.stop()?;
    ensure!(status.success(), "it ended with {status}");
    shimmed.mark("stopped")?;
    let calls = std::fs::read_to_string(&shimmed.shim.log)?;
    let named = judge_names(&calls, &shimmed.node.data())?;
    ensure!(named >= 20, "the shim saw only {named} names:\n{calls}");
    Ok(())
}

/// Demands that whatever was acknowledged has its names on the disk; at the end every name must be
/// there. Says how many names there were.
fn judge_names(calls: &str, data: &Path) -> Result<usize> {
    let mut unsynced: BTreeSet<PathBuf> = BTreeSet::new();
    let mut named = 0;
    for line in calls.lines() {
        let (what, rest) = line.split_once(' ').context("a line of the shim")?;
        let path = Path::new(rest);
        match what {
            "name" | "directory" if path.starts_with(data) && !is_passing(path) => {
                named += 1;
                unsynced.insert(path.to_owned());
            }
            "fsync" => unsynced.retain(|name| name.parent() != Some(path)),
            "mark" => {
                let is_end = rest == "stopped";
                let lost: Vec<&PathBuf> = unsynced
                    .iter()
                    .filter(|name| is_end || !can_be_made_again(name))
                    .collect();
                ensure!(
                    lost.is_empty(),
                    "{rest}, and a power cut may take these names: {lost:?}\n{calls}"
                );
            }
            _ => {}
        }
    }
    Ok(named)
}

/// Names of files that are renamed when they are whole, and of the lock.
fn is_passing(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == "lock" || name.ends_with(".tmp") || name.ends_with(".new")
}

/// What recovery makes again from the log, so that no acknowledgement waits for it.
fn can_be_made_again(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    [
        ".index",
        ".timeindex",
        ".snapshot",
        "leader-epoch-checkpoint",
    ]
    .iter()
    .any(|end| name.ends_with(end))
}

fn judge_is_no_rubber_stamp() -> Result<()> {
    let data = Path::new("/d");
    for (calls, is_sound) in [
        ("name /d/p/0.log\nfsync /d/p\nmark acknowledged", true),
        ("name /d/p/0.log\nmark acknowledged\nfsync /d/p", false),
        ("directory /d/p\nfsync /d/p\nmark acknowledged", false),
        ("directory /d/p\nfsync /d\nmark acknowledged", true),
        ("name /d/p/0.log.tmp\nmark acknowledged", true),
        (
            "name /d/p/0.index\nmark acknowledged\nfsync /d/p\nmark stopped",
            true,
        ),
        ("name /d/p/0.index\nmark acknowledged\nmark stopped", false),
        ("fsync /d/p\nname /d/p/log-start\nmark acknowledged", false),
        ("directory /d\nmark acknowledged", false),
    ] {
        ensure!(judge_names(calls, data).is_ok() == is_sound, "{calls}");
    }
    Ok(())
}
