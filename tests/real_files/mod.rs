//! Real files: Apache Kafka's own dump tool reads what the broker left on disk, and every record
//! it prints is what was produced. The tool exits with 0 on most damage, so the check reads all it
//! says, and is itself shown to fail on damaged copies.

mod dump;

use crate::clients::{COMPRESSIONS, LIBRDKAFKA_SENDS_PLAIN};
use crate::event::{Event, Stored};
use crate::fsync::requests::Connection;
use crate::installed::{Java, java};
use crate::kafka::{PATIENCE, create_topic, produce, unique};
use crate::node::{Node, foreign_brokers, partition_directories, partition_number};
use crate::trial::{fresh_seed, note, skip, trial};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use dump::check;
use libtest_mimic::Trial;
use riverrun_record::{BatchBuilder, Compression, Header};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PARTITIONS: usize = 2;
const BASE_MS: i64 = 1_700_000_000_000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "real_files::kafkas_dump_tool_reads_them_and_sees_damage",
        || {
            if foreign_brokers().is_some() {
                return Err(skip(
                    "real files",
                    "the files of the broker in RIVERRUN_TEST_BROKERS are elsewhere",
                ));
            }
            let java = java("Apache Kafka's DumpLogSegments")?;
            let mut node = Node::start()?;
            let result = read_files(&mut node, &java);
            node.explain(result)
        },
    )]
}

fn read_files(node: &mut Node, java: &Java) -> Result<()> {
    let before: BTreeSet<PathBuf> = partition_directories(&node.data())?.into_iter().collect();
    let logs = write(&node.brokers())?;
    node.stop()?;

    let mut found = 0;
    for directory in partition_directories(&node.data())? {
        if before.contains(&directory) {
            continue;
        }
        let partition = partition_number(&directory).context("a directory without a number")?;
        let log = logs
            .get(partition)
            .with_context(|| format!("a directory of partition {partition}"))?;
        let seen = check(java, &directory, log)
            .with_context(|| format!("partition {partition} in {}", directory.display()))?;
        ensure!(seen.segments > 1, "one segment only: nothing was rolled");
        let missing: Vec<&str> = COMPRESSIONS
            .into_iter()
            .filter(|kind| !seen.compressions.contains(*kind))
            .collect();
        ensure!(
            missing.is_empty(),
            "no batches of {missing:?}, only {:?}",
            seen.compressions
        );
        ensure!(
            seen.index_entries > 10 && seen.time_index_entries > 10,
            "too few index entries: {seen:?}"
        );
        note(format_args!("real files: partition {partition}: {seen:?}"));
        if partition == 0 {
            damage(java, &directory, log, &seen.first_segment)?;
        }
        found += 1;
    }
    ensure!(
        found == PARTITIONS,
        "{found} directories of {PARTITIONS} partitions"
    );
    Ok(())
}

/// Two partitions, every compression, some 3 MiB in each; what must stand there.
fn write(brokers: &str) -> Result<Vec<Vec<Stored>>> {
    let topic = &unique("files");
    create_topic(brokers, topic, PARTITIONS, &[("segment.bytes", "1048576")])?;
    let mut logs = vec![Vec::new(); PARTITIONS];
    for round in 0..3 {
        for (kind, compression) in COMPRESSIONS.into_iter().enumerate() {
            let events: Vec<Event> = (0..480)
                .map(|n| event((round * 5 + kind) * 480 + n))
                .collect();
            if compression == LIBRDKAFKA_SENDS_PLAIN {
                produce_in_batches(brokers, topic, &events, &mut logs)?;
                continue;
            }
            let settings = [("compression.type", compression), ("batch.size", "16384")];
            let sent = events
                .iter()
                .enumerate()
                .map(|(n, event)| (Some(n % PARTITIONS), event));
            let delivered = produce(brokers, topic, &settings, sent)?;
            for (event, at) in events.into_iter().zip(delivered) {
                logs[at.partition].push(Stored {
                    offset: at.offset,
                    event,
                });
            }
        }
    }
    Ok(logs)
}

/// Batches of lz4 of our own making, each answered before the next.
fn produce_in_batches(
    brokers: &str,
    topic: &str,
    events: &[Event],
    logs: &mut [Vec<Stored>],
) -> Result<()> {
    let mut connection = Connection::open(brokers)?;
    for (partition, log) in logs.iter_mut().enumerate() {
        let mine: Vec<&Event> = events.iter().skip(partition).step_by(PARTITIONS).collect();
        for events in mine.chunks(12) {
            let mut builder = BatchBuilder::new(Compression::Lz4, None);
            for event in events {
                let header = |(key, value): &'_ (String, Option<Vec<u8>>)| {
                    (Bytes::from(key.clone()), value.clone().map(Bytes::from))
                };
                let headers: Vec<_> = event.headers.iter().map(header).collect();
                let headers: Vec<Header<'_>> = headers
                    .iter()
                    .map(|(key, value)| Header {
                        key,
                        value: value.as_deref(),
                    })
                    .collect();
                builder.append(
                    event.timestamp_ms,
                    event.key.as_deref(),
                    event.value.as_deref(),
                    &headers,
                )?;
            }
            let sent = connection.send_batch(topic, i32::try_from(partition)?, builder.build()?)?;
            let error = connection.answer_within(sent, PATIENCE)?;
            ensure!(error == Some(0), "a batch of lz4 got {error:?}");
            for event in events {
                log.push(Stored {
                    offset: log.len() as i64,
                    event: (*event).clone(),
                });
            }
        }
    }
    Ok(())
}

fn event(n: usize) -> Event {
    let mut state = n as u64 + 1;
    let mut letters = (0..400 + n % 3000).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let value = match n % 13 {
        5 => None,
        6 => Some(Vec::new()),
        7 => Some(b"the same again and again ".repeat(100)),
        _ => Some(letters.by_ref().collect()),
    };
    let key = match n % 5 {
        1 => None,
        2 => Some(Vec::new()),
        3 => Some(vec![0, n as u8, 0xff]),
        _ => Some(format!("key-{n}").into_bytes()),
    };
    let headers = match n % 3 {
        0 => Vec::new(),
        1 => vec![("a".to_owned(), Some(b"1".to_vec()))],
        _ => vec![("a".to_owned(), None), ("b".to_owned(), Some(Vec::new()))],
    };
    Event {
        timestamp_ms: BASE_MS + 10 * n as i64,
        key,
        value,
        headers,
    }
}

/// What is known of a segment that has a successor, from the tool's own reading of it.
#[derive(Debug)]
struct Segment {
    name: String,
    /// Position and length of each batch.
    batches: Vec<(usize, usize)>,
}

/// The check must fail on each of these.
fn damage(java: &Java, directory: &Path, log: &[Stored], segment: &Segment) -> Result<()> {
    let middle = segment.batches.len() / 2;
    let (position, length) = *segment
        .batches
        .get(middle)
        .context("a segment without batches")?;
    let log_file = format!("{}.log", segment.name);
    let bits = segment
        .batches
        .iter()
        .map(|(_, length)| length * 8)
        .sum::<usize>();
    let somewhere = fresh_seed() as usize % bits;

    // What fails below fails for the damage, not for being a copy.
    let copy = tempfile::tempdir()?;
    check(java, &copied(directory, copy.path())?, log).context("an undamaged copy")?;
    must_fail(
        java,
        directory,
        log,
        "one flipped bit in a batch's records",
        &log_file,
        |bytes| {
            bytes[position + 61 + (length - 61) / 2] ^= 0x10;
        },
    )?;
    must_fail(
        java,
        directory,
        log,
        &format!("bit {somewhere} flipped"),
        &log_file,
        |bytes| {
            bytes[somewhere / 8] ^= 1 << (somewhere % 8);
        },
    )?;
    must_fail(
        java,
        directory,
        log,
        "one removed batch",
        &log_file,
        |bytes| {
            drop(bytes.drain(position..position + length));
        },
    )?;
    // An entry of the offset index is the relative offset and the position, 4 bytes each.
    must_fail(
        java,
        directory,
        log,
        "one index entry shifted by an offset",
        &format!("{}.index", segment.name),
        |bytes| {
            shift(&mut bytes[8 * 3 + 3]);
        },
    )?;
    must_fail(
        java,
        directory,
        log,
        "one index entry shifted by a byte",
        &format!("{}.index", segment.name),
        |bytes| {
            shift(&mut bytes[8 * 4 + 7]);
        },
    )?;
    // An entry of the time index is the timestamp in 8 bytes and the relative offset in 4.
    must_fail(
        java,
        directory,
        log,
        "one time index entry shifted",
        &format!("{}.timeindex", segment.name),
        |bytes| {
            shift(&mut bytes[12 * 3 + 7]);
        },
    )
}

fn shift(byte: &mut u8) {
    *byte = if *byte == 0xff { 0xfe } else { *byte + 1 };
}

/// A copy of a partition's directory. The tool knows a partition by its directory's name.
fn copied(directory: &Path, to: &Path) -> Result<PathBuf> {
    let copied = to.join("damaged-0");
    fs::create_dir(&copied)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        fs::copy(entry.path(), copied.join(entry.file_name()))?;
    }
    Ok(copied)
}

fn must_fail(
    java: &Java,
    directory: &Path,
    log: &[Stored],
    what: &str,
    file: &str,
    change: impl FnOnce(&mut Vec<u8>),
) -> Result<()> {
    let copy = tempfile::tempdir()?;
    let copied = copied(directory, copy.path())?;
    let path = copied.join(file);
    let mut bytes = fs::read(&path).with_context(|| format!("reading {file}"))?;
    change(&mut bytes);
    fs::write(&path, bytes)?;
    match check(java, &copied, log) {
        Ok(_) => bail!("the check did not notice {what} in {file}"),
        Err(error) => {
            let text = format!("{error:#}");
            note(format_args!(
                "real files: {what}: noticed ({})",
                text.lines().next().unwrap_or_default()
            ));
            Ok(())
        }
    }
}
