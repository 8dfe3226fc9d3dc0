//! Clients that nobody here wrote. Each produces the same keyed records with headers, nulls and
//! every compression, and reads them back from the start, the middle, a timestamp and the end;
//! everything is compared byte for byte with what was produced, and once more as librdkafka
//! reads it.

pub(crate) mod java;
mod kafka_python;
mod kcat;
mod rdkafka;
mod scripted;

use crate::event::{Event, Stored, offset_at};
use crate::node::SharedNode;
use crate::trial::trial;
use anyhow::Result;
use libtest_mimic::Trial;
use std::sync::Arc;

pub(crate) const COMPRESSIONS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// librdkafka compresses with lz4 only for a broker that advertises FindCoordinator, and sends such
/// batches as they are to any other: where it does not, that is not ours to judge.
pub(crate) const LIBRDKAFKA_SENDS_PLAIN: &str = "lz4";
/// What a client does with brokers.
pub(crate) type Body = fn(&str) -> Result<()>;

/// What each client does with records, whatever brokers there are.
pub(crate) const RECORDS_BY: [(&str, Body); 5] = [
    ("kcat", kcat::records),
    ("rdkafka", rdkafka::records),
    ("java", java::records_alone),
    ("java_producer_performance", java::producer_performance),
    ("kafka_python", kafka_python::records),
];
const PARTITIONS: usize = 3;
const RECORDS: usize = 300;
/// A moment in 2023: a broker must keep what its producers say.
const BASE_MS: i64 = 1_700_000_000_000;

pub(crate) fn trials() -> Vec<Trial> {
    let node = Arc::new(SharedNode::default());
    let shared = |name: &str, body: Body| {
        let node = Arc::clone(&node);
        trial(format!("clients::{name}"), move || {
            let result = node.brokers().and_then(|brokers| body(&brokers));
            node.explain(result)
        })
    };
    vec![
        shared("java::records", java::records),
        shared("java::producer_performance", java::producer_performance),
        shared("kafka_python::records", kafka_python::records),
        shared("kcat::records", kcat::records),
        shared(
            "kcat::creates_a_topic_by_producing_to_it",
            kcat::creates_a_topic,
        ),
        shared("kcat::lists_topics_and_partitions", kcat::lists),
        shared("rdkafka::records", rdkafka::records),
        shared("rdkafka::topic_administration", rdkafka::administration),
    ]
}

/// What every client that can choose partition and timestamp produces, and what must come of it.
struct Plan {
    /// In the order of production, with the partition.
    events: Vec<(usize, Event)>,
    /// By partition, as they must stand there.
    logs: Vec<Vec<Stored>>,
    /// By partition, where consumers begin.
    places: Vec<Place>,
    /// One more for each partition, produced while a consumer stands at the end.
    extras: Vec<Stored>,
}

/// Where consumers of one partition begin, apart from the start and the end.
struct Place {
    middle: i64,
    timestamp_ms: i64,
    /// The offset of the first record that is not older than the timestamp.
    timestamp_offset: i64,
}

/// `every_null` is false for a client that sends neither a header without a value nor a record
/// without both key and value: those are empty then.
fn plan(every_null: bool) -> Plan {
    let mut events: Vec<(usize, Event)> =
        (0..RECORDS).map(|n| (n % PARTITIONS, event(n))).collect();
    if !every_null {
        for (_, event) in &mut events {
            for (_, value) in &mut event.headers {
                value.get_or_insert_default();
            }
            if event.key.is_none() {
                event.value.get_or_insert_default();
            }
        }
    }
    let mut logs = vec![Vec::new(); PARTITIONS];
    for (partition, event) in &events {
        let offset = logs[*partition].len() as i64;
        logs[*partition].push(Stored {
            offset,
            event: event.clone(),
        });
    }
    let places = logs.iter().map(|log| place(log)).collect();
    let extras = logs.iter().map(|log| extra(log.len() as i64)).collect();
    Plan {
        events,
        logs,
        places,
        extras,
    }
}

fn place(log: &[Stored]) -> Place {
    // Between two timestamps, so that the answer is a record after the moment that was asked for.
    let timestamp_ms = log[log.len() * 2 / 3].event.timestamp_ms - 500;
    Place {
        middle: log.len() as i64 / 2,
        timestamp_ms,
        timestamp_offset: offset_at(log, timestamp_ms).unwrap(),
    }
}

fn extra(offset: i64) -> Stored {
    let event = Event {
        timestamp_ms: BASE_MS + 1_000_000,
        key: Some(b"end".to_vec()),
        value: Some(format!("what came after offset {offset}").into_bytes()),
        headers: vec![("late".to_owned(), Some(b"yes".to_vec()))],
    };
    Stored { offset, event }
}

/// Every shape a record can have: null, empty and binary keys and values, one value much larger
/// than a batch, headers with null and empty values and the same name twice, a timestamp that
/// steps back.
fn event(n: usize) -> Event {
    let key = match n % 7 {
        3 => None,
        5 => Some(Vec::new()),
        6 => Some(vec![0, 0xff, n as u8, 0x80, b'\n']),
        _ => Some(format!("key-{}", n % 16).into_bytes()),
    };
    let value = match n % 11 {
        4 => None,
        9 => Some(Vec::new()),
        _ if n == RECORDS / 2 => Some(noise(n, 100 * 1024)),
        5 => Some(noise(n, n * 5)),
        _ => Some(format!("value {n} ").repeat(1 + n % 40).into_bytes()),
    };
    let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
    let headers = match n % 5 {
        1 => vec![header("one", Some(b"1"))],
        2 => vec![header("null", None), header("after", Some(b"null"))],
        3 => vec![header("twice", Some(b"")), header("twice", Some(b"again"))],
        4 => vec![
            header("", Some(b"no name")),
            header("\u{43a}\u{43b}\u{44e}\u{447}", Some(&[0, 0xfe, 0xff])),
        ],
        _ => Vec::new(),
    };
    let step_back = if n % 50 == 49 { 10_000 } else { 0 };
    Event {
        timestamp_ms: BASE_MS + 1000 * n as i64 - step_back,
        key,
        value,
        headers,
    }
}

/// Bytes that no codec makes smaller, the same for the same number.
fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = seed as u64 + 0x9e37_79b9_7f4a_7c15;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
