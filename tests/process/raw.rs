//! Questions over connections of our own: the two that are put to a broker while it comes and goes,
//! as librdkafka's blocking calls are not made for one that vanishes under them, and how batches are
//! stored, which no client tells.

use super::fsync::requests::Connection;
use super::kafka::PATIENCE;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use riverrun_wire::api::FetchRequest;
use riverrun_wire::api::fetch::{FetchPartition, FetchTopic};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const LIST_OFFSETS: i16 = 2;
const API_VERSIONS: i16 = 18;
/// The last version of Fetch in which topics have names.
const FETCH_BY_NAME: i16 = 12;
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
/// Errors that say "not yet": unknown topic, no leader, not the leader, offset not available.
const NOT_YET: [i16; 4] = [3, 5, 6, 78];
/// No answer to these two questions comes near this.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// One request with a header of version 1 and no client id; the answer's body.
fn ask(broker: &str, api: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(broker)?;
    // A broker that is starting lets connect, and answers when it serves.
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = Vec::new();
    request.extend(u32::try_from(body.len() + 10)?.to_be_bytes());
    request.extend(api.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(7_i32.to_be_bytes());
    request.extend((-1_i16).to_be_bytes());
    request.extend(body);
    stream.write_all(&request)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = u32::from_be_bytes(size) as usize;
    ensure!(
        (4..=ANSWER_MAX_BYTES).contains(&size),
        "an answer of {size} bytes"
    );
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer)?;
    let body = answer.split_off(4);
    ensure!(
        answer == 7_i32.to_be_bytes(),
        "an answer to another request: {answer:?}"
    );
    Ok(body)
}

/// How the batches at the start of a topic's partitions are stored: the names of their codecs.
pub(crate) fn stored_codecs(
    brokers: &str,
    topic: &str,
    partitions: usize,
) -> Result<BTreeSet<&'static str>> {
    let mut codecs = BTreeSet::new();
    for partition in 0..partitions {
        let first = first_batches(brokers, topic, partition)?;
        // The last may be cut off.
        for batch in riverrun_record::batches(&first).map_while(Result::ok) {
            codecs.insert(batch.compression()?.name());
        }
    }
    Ok(codecs)
}

/// The batches at the start of a partition, from the broker that leads it.
fn first_batches(brokers: &str, topic: &str, partition: usize) -> Result<Bytes> {
    let deadline = Instant::now() + PATIENCE;
    for broker in brokers.split(',').cycle() {
        match first_batches_of(broker, topic, partition) {
            Ok(Some(batches)) => return Ok(batches),
            last if Instant::now() > deadline => {
                bail!("nobody has anything of {topic}/{partition}: {last:?}")
            }
            _ => {}
        }
    }
    bail!("no broker is named")
}

/// The same from one broker; nothing where it does not lead.
fn first_batches_of(broker: &str, topic: &str, partition: usize) -> Result<Option<Bytes>> {
    let mut connection = Connection::open(broker)?;
    connection.patience = Duration::from_secs(10);
    let request = FetchRequest {
        max_wait_ms: 5000,
        min_bytes: 1,
        max_bytes: 256 << 10,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                partition: i32::try_from(partition)?,
                partition_max_bytes: 256 << 10,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let response = connection.call(&request, FETCH_BY_NAME)?;
    let mut partitions = response.responses.into_iter().flat_map(|t| t.partitions);
    let records = partitions.find_map(|partition| partition.records);
    Ok(records
        .map(|records| records.into_bytes())
        .filter(|bytes| !bytes.is_empty()))
}

/// Demands that what a client was told to compress is stored as it was told.
pub(crate) fn is_stored_as(
    brokers: &str,
    topic: &str,
    partitions: usize,
    compression: &str,
) -> Result<()> {
    let codecs = stored_codecs(brokers, topic, partitions)?;
    ensure!(
        codecs.contains(compression),
        "no batch is compressed with {compression}, only {codecs:?}"
    );
    Ok(())
}

/// Whether a broker answers ApiVersions, version 0, without an error.
pub(crate) fn answers(broker: &str) -> Result<()> {
    let body = ask(broker, API_VERSIONS, 0, &[])?;
    ensure!(
        body.starts_with(&[0, 0]),
        "an odd answer to ApiVersions: {body:?}"
    );
    Ok(())
}

/// The first offset of a partition and the one after its last, asked of each broker until the one
/// that leads answers.
pub(crate) fn watermarks(brokers: &str, topic: &str, partition: usize) -> Result<(i64, i64)> {
    let mut marks = [0; 2];
    for (mark, timestamp) in marks.iter_mut().zip([EARLIEST, LATEST]) {
        let deadline = Instant::now() + PATIENCE;
        let mut next = brokers.split(',').cycle();
        *mark = loop {
            let broker = next.next().unwrap_or_default();
            match list_offsets(broker, topic, partition, timestamp) {
                Ok(Ok(offset)) => break offset,
                Ok(Err(code)) if !NOT_YET.contains(&code) => {
                    bail!("ListOffsets of {topic}/{partition} answers error {code}")
                }
                last if Instant::now() > deadline => {
                    bail!(
                        "no answer to ListOffsets of {topic}/{partition} in {PATIENCE:?}: {last:?}"
                    )
                }
                _ => thread::sleep(Duration::from_millis(2)),
            }
        };
    }
    Ok(marks.into())
}

/// ListOffsets, version 1: an offset, or the broker's error code.
fn list_offsets(
    broker: &str,
    topic: &str,
    partition: usize,
    timestamp: i64,
) -> Result<Result<i64, i16>> {
    let mut body = Vec::new();
    body.extend((-1_i32).to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(u16::try_from(topic.len())?.to_be_bytes());
    body.extend(topic.as_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(u32::try_from(partition)?.to_be_bytes());
    body.extend(timestamp.to_be_bytes());
    let answer = ask(broker, LIST_OFFSETS, 1, &body)?;
    // Two counts, the topic's name, the partition, then what was asked for.
    let (_, rest) = answer
        .split_at_checked(14 + topic.len())
        .context("a short answer")?;
    let error = i16::from_be_bytes(rest.get(..2).context("a short answer")?.try_into()?);
    let offset = i64::from_be_bytes(rest.get(10..18).context("a short answer")?.try_into()?);
    Ok(if error == 0 { Ok(offset) } else { Err(error) })
}
