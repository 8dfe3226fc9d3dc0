//! A disk that is really full: a small file system of the broker's own, in a mount namespace.

use super::fsync::requests::Connection;
use super::kafka::PATIENCE;
use super::node::{Node, foreign_brokers};
use super::raw::watermarks;
use super::trial::{note, skip, trial};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use riverrun_wire::ErrorCode;
use riverrun_wire::api::FetchRequest;
use riverrun_wire::api::fetch::{FetchPartition, FetchTopic};
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Room for the node's WAL of 64 MiB and little else.
const MOUNT: &str = "mount -t tmpfs -o size=84m tmpfs \"$RIVERRUN_TEST_DIRECTORY\" \
    && head -c 8388608 /dev/zero > \"$RIVERRUN_TEST_DIRECTORY/filler\" \
    && exec \"$@\"";
const BATCH_BYTES: usize = 400_000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "full_disk::a_partition_without_room_says_so_and_goes_on_when_there_is_some",
        || {
            if foreign_brokers().is_some() || std::env::var_os("RIVERRUN_TEST_NODE").is_some() {
                return Err(skip("a full disk", "the broker is not ours"));
            }
            let may_mount = Command::new("unshare")
                .args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
                .stderr(Stdio::null())
                .status();
            if !may_mount.is_ok_and(|status| status.success()) {
                return Err(skip(
                    "a full disk",
                    "a file system cannot be mounted here; run it where `unshare -rm` works",
                ));
            }
            let command = ["unshare", "-rm", "sh", "-c", MOUNT, "sh"];
            let command = command.iter().map(OsString::from).collect();
            let node = Node::start_under(command, Vec::new())?;
            let result = fill(&node);
            node.explain(result)
        },
    )]
}

fn fill(node: &Node) -> Result<()> {
    let brokers = node.brokers();
    let mut connection = Connection::open(&brokers)?;
    connection.timeout_ms = 1000;
    connection.create_topic("fills", &[("segment.bytes", "1048576")])?;
    connection.create_topic("other", &[])?;
    ensure!(connection.produce("other", 100)? == 0, "the first produce");
    let mut acknowledged = 0;
    let first = loop {
        match connection.produce("fills", BATCH_BYTES)? {
            0 => acknowledged += 1,
            error => break error,
        }
        ensure!(
            acknowledged < 100,
            "40 MB went to a disk without room for them"
        );
    };
    // What was taken before the disk said so may be written yet; nothing more is taken.
    let answers = [ErrorCode::RequestTimedOut, ErrorCode::KafkaStorageError];
    ensure!(
        answers.iter().any(|code| code.number() == first),
        "the first refusal is {first}"
    );
    for _ in 0..3 {
        let error = connection.produce("fills", 100)?;
        ensure!(
            error == ErrorCode::KafkaStorageError.number(),
            "on a full disk it got {error}"
        );
    }
    // Small batches of others fit into the WAL, which has its room, and reading goes on.
    ensure!(
        connection.produce("other", 100)? == 0,
        "the other partition takes nothing either"
    );
    for offset in [0, acknowledged - 1] {
        ensure!(
            read_at(&mut connection, offset)? >= BATCH_BYTES,
            "offset {offset} cannot be read"
        );
    }
    std::fs::remove_file(node.inside()?.join("filler"))?;
    let deadline = Instant::now() + PATIENCE;
    while connection.produce("fills", 100)? != 0 {
        ensure!(
            Instant::now() < deadline,
            "it takes nothing although there is room"
        );
        thread::sleep(Duration::from_millis(20));
    }
    let (low, high) = watermarks(&brokers, "fills", 0)?;
    ensure!(
        low == 0 && high > acknowledged,
        "{acknowledged} were acknowledged and one since, and it holds {low} to {high}"
    );
    for offset in 0..high {
        ensure!(
            read_at(&mut connection, offset)? > 0,
            "offset {offset} is not there"
        );
    }
    let log = node.log();
    ensure!(
        log.contains("no space left"),
        "it does not say that its disk is full"
    );
    ensure!(!log.contains("panicked"), "something panicked");
    note(format_args!(
        "full disk: {acknowledged} batches of {BATCH_BYTES} bytes fitted"
    ));
    Ok(())
}

/// Bytes of the batch at an offset.
fn read_at(connection: &mut Connection, fetch_offset: i64) -> Result<usize> {
    let request = FetchRequest {
        max_wait_ms: 1000,
        min_bytes: 1,
        max_bytes: 1,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: "fills".to_owned(),
            partitions: vec![FetchPartition {
                fetch_offset,
                partition_max_bytes: 1,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let response = connection.call(&request, 12)?;
    let row = response
        .responses
        .into_iter()
        .flat_map(|topic| topic.partitions)
        .next()
        .context("no partition in the answer")?;
    ensure!(
        row.error_code == 0,
        "the fetch got error {}",
        row.error_code
    );
    let bytes = row.records.map(|records| records.into_bytes());
    let bytes = bytes.unwrap_or_default();
    let first = riverrun_record::batches(&bytes)
        .next()
        .context("no batch")??;
    ensure!(
        (first.base_offset()..=first.last_offset()).contains(&fetch_offset) && first.crc_is_valid(),
        "another batch than that of offset {fetch_offset}"
    );
    Ok(bytes.len())
}
