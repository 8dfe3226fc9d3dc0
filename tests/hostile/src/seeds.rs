//! Good bytes for every target: golden files where there are some.

use bytes::BytesMut;
use riverrun_record::{BatchBuilder, Compression, Header, compress};
use riverrun_wire::ApiKey;

const MESSAGES: &str = include_str!("../../../server/wire/tests/data/kafka-4.4-golden.txt");

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        vec![$( include_bytes!(concat!("../../../", $path)).to_vec() ),*]
    };
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// The golden bodies whose names end so, each with its API and version.
fn bodies(kind: &str) -> impl Iterator<Item = (ApiKey, u8, Vec<u8>)> {
    MESSAGES.lines().filter_map(move |line| {
        let mut words = line.split(' ');
        let name = words.next()?.strip_suffix(kind)?;
        let api = ApiKey::ALL.iter().find(|api| api.name() == name)?;
        let version = words.next()?.parse().ok()?;
        Some((*api, version, from_hex(words.next_back()?)))
    })
}

pub(crate) fn requests() -> Vec<Vec<u8>> {
    let frame = |(api, version, body): (ApiKey, u8, Vec<u8>)| {
        let mut frame = api.number().to_be_bytes().to_vec();
        frame.extend([0, version, 0, 0, 0, 1, 0, 1, b'c']);
        if api.request_header_version(version.into()) >= 2 {
            frame.push(0);
        }
        frame.extend(body);
        frame
    };
    bodies("Request").map(frame).collect()
}

pub(crate) fn responses() -> Vec<Vec<u8>> {
    let frame = |(api, version, body): (ApiKey, u8, Vec<u8>)| {
        let mut frame = vec![u8::try_from(api.number()).unwrap_or_default(), version];
        frame.extend([0, 0, 0, 1]);
        if api.response_header_version(version.into()) >= 1 {
            frame.push(0);
        }
        frame.extend(body);
        frame
    };
    bodies("Response").map(frame).collect()
}

pub(crate) fn batches() -> Vec<Vec<u8>> {
    let mut headers = BatchBuilder::new(Compression::None, None);
    for (timestamp, value) in [
        (1_700_000_000_000, Some(&b"v"[..])),
        (1_700_000_000_005, None),
    ] {
        let header = |key, value| Header { key, value };
        let pairs = [header(&b"h"[..], Some(&b"w"[..])), header(b"n", None)];
        let appended = headers.append(timestamp, Some(b"k"), value, &pairs);
        appended.expect("it fits");
    }
    let mut all = files![
        "storage/record/fixtures/batch/v2/kafka-abort.bin",
        "storage/record/fixtures/batch/v2/kafka-gzip.bin",
        "storage/record/fixtures/batch/v2/kafka-leader-change.bin",
        "storage/record/fixtures/batch/v2/kafka-lz4.bin",
        "storage/record/fixtures/batch/v2/kafka-none.bin",
        "storage/record/fixtures/batch/v2/kafka-snappy.bin",
        "storage/record/fixtures/batch/v2/kafka-zstd.bin",
        "storage/record/fixtures/batch/v2/riverrun-gzip.bin",
        "storage/record/fixtures/batch/v2/riverrun-lz4.bin",
        "storage/record/fixtures/batch/v2/riverrun-snappy.bin",
        "storage/record/fixtures/batch/v2/riverrun-zstd.bin",
    ];
    all.push(headers.build().expect("it fits").to_vec());
    all
}

fn compressed(compression: Compression) -> Vec<Vec<u8>> {
    let repeated = b"to be or not to be, ".repeat(40);
    let mixed: Vec<u8> = (0..2000_u32).flat_map(|n| (n * n).to_le_bytes()).collect();
    let inputs = [&b""[..], b"x", &repeated, &mixed];
    let pack = |input: &&[u8]| {
        let mut out = BytesMut::new();
        compress(compression, None, input, &mut out).expect("it can be compressed");
        out.to_vec()
    };
    inputs.iter().map(pack).collect()
}

pub(crate) fn gzip() -> Vec<Vec<u8>> {
    let mut all = compressed(Compression::Gzip);
    // Two members, the second with an extra field in its header.
    if let [empty, small, ..] = all.as_slice() {
        let (head, body) = small.split_at(10);
        let mut head = head.to_vec();
        head.splice(3..4, [4]);
        all.push([empty, &head, &[3, 0, 1, 2, 3][..], body].concat());
    }
    all
}

pub(crate) fn snappy() -> Vec<Vec<u8>> {
    compressed(Compression::Snappy)
}

pub(crate) fn lz4() -> Vec<Vec<u8>> {
    compressed(Compression::Lz4)
}

pub(crate) fn zstd() -> Vec<Vec<u8>> {
    compressed(Compression::Zstd)
}

pub(crate) fn sidecars() -> Vec<Vec<u8>> {
    files![
        "storage/fixtures/log/v1/00000000000000001012.raft",
        "storage/fixtures/log/v1/00000000000000001034.raft",
        "storage/fixtures/log/v1/00000000000000001046.raft",
        "storage/fixtures/log/v1/00000000000000001012.aux",
        "storage/fixtures/log/v1/leader-epoch-checkpoint",
        "storage/fixtures/log/v1/log-start",
        "storage/fixtures/log/v1/partition.metadata",
    ]
}

pub(crate) fn indexes() -> Vec<Vec<u8>> {
    files![
        "storage/fixtures/log/v1/00000000000000001012.index",
        "storage/fixtures/log/v1/00000000000000001034.index",
        "storage/fixtures/log/v1/00000000000000001034.timeindex",
    ]
}

pub(crate) fn snapshots() -> Vec<Vec<u8>> {
    let mut lossless = vec![1, 1, 0, 0, 0];
    lossless.extend(7_i64.to_le_bytes());
    lossless.extend(3_i16.to_le_bytes());
    lossless.push(1);
    lossless.extend([0; 32]);
    let mut all = files![
        "storage/fixtures/log/v1/00000000000000001024.snapshot",
        "storage/fixtures/log/v1/00000000000000001034.snapshot",
        "storage/fixtures/log/v1/00000000000000001046.snapshot",
    ];
    all.push(lossless);
    all
}

pub(crate) fn wals() -> Vec<Vec<u8>> {
    files![
        "storage/tests/fixtures/node/v1/wal",
        "storage/tests/fixtures/node/v1/wal-poisoned",
        "storage/tests/fixtures/node/v1/wal-rounds",
        "storage/tests/fixtures/node/v1/identity",
        "storage/tests/fixtures/node/v2/identity",
        "storage/tests/fixtures/node/v1/fenced-1-1",
    ]
}

pub(crate) fn peer_frames() -> Vec<Vec<u8>> {
    files![
        "replication/tests/fixtures/frame/v1/announce.bin",
        "replication/tests/fixtures/frame/v1/answer.bin",
        "replication/tests/fixtures/frame/v1/call.bin",
        "replication/tests/fixtures/frame/v1/hello-answer.bin",
        "replication/tests/fixtures/frame/v1/hello.bin",
        "replication/tests/fixtures/frame/v1/messages.bin",
        "replication/tests/fixtures/frame/v1/ping.bin",
        "replication/tests/fixtures/frame/v1/snapshot.bin",
    ]
}

pub(crate) fn properties() -> Vec<Vec<u8>> {
    [
        "# a comment\nnode.id=1\nlisteners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\n\
         controller.quorum.voters=1@127.0.0.1:9093\nlog.dirs=/data\nnum.partitions: 3\n",
        "! another\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT,\\\n   PLAINTEXT:PLAINTEXT\n\
         log.retention.hours=-1\n\\u0061\\t=\\u00e9\\n",
        "advertised.listeners=PLAINTEXT://[::1]:9092\nlog.segment.bytes=1073741824\nunknown.name x",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

pub(crate) fn commands() -> Vec<Vec<u8>> {
    files!["replication/tests/fixtures/controller/v1/create-topic.bin"]
}

pub(crate) fn checkpoints() -> Vec<Vec<u8>> {
    files![
        "replication/tests/fixtures/controller/v1/checkpoint.bin",
        "replication/tests/fixtures/controller/v1/checkpoint-quorum.bin",
    ]
}
