//! What a node serves of a topic: by the codes of its answers which offsets it refuses, and by librdkafka what
//! the others hold.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::topic_partition_list::Offset;
use riverrun_record::batches;
use riverrun_wire::api::FetchRequest;
use riverrun_wire::api::fetch::{FetchPartition, FetchTopic};

use crate::cluster::events::Kept;
use crate::damage::Outcome;
use crate::event::compare;
use crate::fsync::requests::Connection;
use crate::kafka::Reader;

const FETCH_VERSION: i16 = 12;
const CORRUPT_MESSAGE: i16 = 2;
/// How long a partition may refuse everything before it counts as out of service.
const REFUSES: Duration = Duration::from_secs(4);

/// What a node serves of a partition.
struct Served {
    /// Offsets from and to, the last one not included.
    ranges: Vec<(usize, usize)>,
    /// The code by which all is refused.
    refused: Option<i16>,
}

/// What one node serves of a topic, partition by partition. An error is something that is served and wrong.
pub(super) fn served(broker: &str, kept: &Kept) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (partition, log) in kept.logs.iter().enumerate() {
        let served = scan(broker, &kept.topic, partition, log.len())?;
        if served.refused.is_some() {
            outcomes.push(Outcome::Partition);
            continue;
        }
        let reader = Reader::without_checksums(broker)?;
        for (from, to) in &served.ranges {
            let place = Offset::Offset(i64::try_from(*from)?);
            let read = reader.take(&kept.topic, partition, place, to - from)?;
            let what = format!("partition {partition} from offset {from}");
            compare(
                &what,
                &log[*from..*to],
                read.get(..to - from).context("too few")?,
            )?;
        }
        outcomes.push(if served.ranges == [(0, log.len())] {
            Outcome::Whole
        } else {
            Outcome::Range
        });
    }
    Ok(outcomes)
}

/// Asks for offset after offset which of them a node gives.
fn scan(broker: &str, topic: &str, partition: usize, end: usize) -> Result<Served> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    let (mut at, mut since) = (0, Instant::now());
    while at < end {
        match fetch(broker, topic, partition, at)? {
            Ok(next) if next > at => {
                match ranges.last_mut() {
                    Some((_, to)) if *to == at => *to = next.min(end),
                    _ => ranges.push((at, next.min(end))),
                }
                (at, since) = (next, Instant::now());
            }
            Err(CORRUPT_MESSAGE) => (at, since) = (at + 1, Instant::now()),
            Err(code) if since.elapsed() > REFUSES => {
                ensure!(ranges.is_empty(), "offset {at} is refused by {code}");
                let refused = Some(code);
                return Ok(Served { ranges, refused });
            }
            Ok(_) if since.elapsed() > REFUSES => bail!("nothing is there at offset {at} of {end}"),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    let refused = None;
    Ok(Served { ranges, refused })
}

/// The offset behind what a fetch gives, or the code of its refusal.
fn fetch(broker: &str, topic: &str, partition: usize, at: usize) -> Result<Result<usize, i16>> {
    let mut connection = Connection::open(broker)?;
    let request = FetchRequest {
        max_wait_ms: 50,
        min_bytes: 1,
        max_bytes: 128 << 10,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                partition: i32::try_from(partition)?,
                fetch_offset: i64::try_from(at)?,
                partition_max_bytes: 128 << 10,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let answer = connection.call(&request, FETCH_VERSION)?;
    let mut partitions = answer.responses.into_iter().flat_map(|t| t.partitions);
    let answer = partitions.next().context("no partition in the answer")?;
    if answer.error_code != 0 {
        return Ok(Err(answer.error_code));
    }
    let bytes = answer.records.map(|records| records.into_bytes());
    let mut next = at;
    for batch in batches(&bytes.unwrap_or_default()).map_while(Result::ok) {
        ensure!(batch.crc_is_valid(), "a bad batch is served at {at}");
        next = usize::try_from(batch.next_offset())?;
    }
    Ok(Ok(next))
}
