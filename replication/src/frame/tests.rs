#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod random;

use std::path::Path;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use riverrun_storage::{EntryKind, LogEntry};
use uuid::Uuid;

use super::*;
use crate::message::{Body, RaftKind, RaftMessage, SnapshotMessage};
use random::{BODIES, FRAMES, Random, batch, frame, hello, message};

fn join(segments: &[Bytes]) -> BytesMut {
    segments
        .iter()
        .flat_map(|segment| segment.iter())
        .copied()
        .collect()
}

fn encoded(frame: &Frame) -> BytesMut {
    join(&frame.encode().unwrap())
}

/// Makes length and checksum fit again, so that what was changed is read.
fn seal(bytes: &mut BytesMut) {
    if bytes.len() > HEADER_BYTES {
        let length = (bytes.len() - HEADER_BYTES) as u32;
        let crc = crc32fast::hash(&bytes[HEADER_BYTES..]);
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

/// What a decoded frame holds in memory of its own, at least.
fn held_bytes(frame: &Frame) -> usize {
    let Frame::Messages(messages) = frame else {
        return 0;
    };
    let of = |message: &PeerMessage| match &message.body {
        Body::Raft(raft) => {
            let payloads: usize = raft.entries.iter().map(|e| e.payload.len() + 64).sum();
            raft.entries.capacity() * size_of::<LogEntry>() + payloads + raft.context.len() + 64
        }
        Body::Report(report) => report.conf.len() + 64,
        _ => 0,
    };
    messages.capacity() * size_of::<PeerMessage>() + messages.iter().map(of).sum::<usize>()
}

fn decode_anything(bytes: BytesMut) {
    let input = bytes.len();
    if let Ok(frame) = Frame::decode(bytes.freeze()) {
        assert!(held_bytes(&frame) <= (64 << 10) + 64 * input);
        assert_eq!(Frame::decode(encoded(&frame).freeze()), Ok(frame));
    }
}

proptest! {
    #[test]
    fn every_frame_survives_its_encoding(seed: u64, which in 0..FRAMES) {
        let frame = frame(&mut Random(seed), which);
        let bytes = encoded(&frame);
        prop_assert_eq!(Frame::decode(bytes.freeze()), Ok(frame));
    }

    #[test]
    fn every_message_survives_its_encoding_and_is_no_longer_than_was_said(
        seed: u64,
        which in 0..BODIES,
    ) {
        let message = message(&mut Random(seed), which);
        let bytes = join(&encode_messages([&message]).unwrap());
        prop_assert!(bytes.len() <= HEADER_BYTES + 1 + 4 + message_bytes(&message));
        prop_assert_eq!(Frame::decode(bytes.freeze()), Ok(Frame::Messages(vec![message])));
    }

    #[test]
    fn random_bytes_are_an_answer_and_not_a_panic(seed: u64, kind in 0..9_u8) {
        let mut random = Random(seed);
        let mut bytes = BytesMut::zeroed(HEADER_BYTES);
        bytes.extend_from_slice(&[kind]);
        bytes.extend_from_slice(&random.bytes(400));
        decode_anything(bytes.clone());
        seal(&mut bytes);
        decode_anything(bytes);
    }

    #[test]
    fn mutated_bytes_are_an_answer_and_not_a_panic(seed: u64, which in 0..FRAMES) {
        let mut random = Random(seed);
        let mut bytes = encoded(&frame(&mut random, which));
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(5) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                3 => bytes.truncate(at + 1),
                _ => {
                    let end = (at + 4).min(bytes.len());
                    bytes[at..end].fill(0xff);
                }
            }
        }
        decode_anything(bytes.clone());
        seal(&mut bytes);
        decode_anything(bytes);
    }
}

#[test]
fn a_changed_byte_never_passes_the_checksum() {
    let bytes = encoded(&Frame::Announce(Bytes::from_static(b"who leads what")));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        assert!(Frame::decode(changed.freeze()).is_err(), "byte {at}");
    }
}

fn data(index: u64, base_offset: i64, value: &[u8]) -> LogEntry {
    LogEntry {
        index,
        term: 3,
        kind: EntryKind::Data,
        base_offset,
        last_offset_delta: 0,
        payload: batch(base_offset, 3, 1, value),
    }
}

fn append(index: u64, entries: Vec<LogEntry>) -> PeerMessage {
    PeerMessage {
        group: 7,
        from: 11,
        to: 12,
        from_incarnation: 4,
        to_incarnation: 5,
        body: Body::Raft(RaftMessage {
            kind: RaftKind::Append,
            term: 3,
            log_term: 3,
            index,
            commit: 8,
            commit_term: 0,
            reject: false,
            reject_hint: 0,
            request_snapshot: 0,
            priority: 0,
            context: Bytes::new(),
            entries,
            snapshot: None,
        }),
    }
}

fn only_entry(frame: &Frame) -> &LogEntry {
    match frame {
        Frame::Messages(messages) => match &messages[0].body {
            Body::Raft(raft) => &raft.entries[0],
            _ => unreachable!(),
        },
        _ => unreachable!(),
    }
}

#[test]
fn a_long_payload_is_copied_on_neither_side_and_a_short_one_pins_no_frame() {
    let long = data(9, 40, &[7; 4000]);
    let segments = encode_messages([&append(8, vec![long.clone()])]).unwrap();
    assert_eq!(segments.len(), 2);
    assert_eq!(segments[1].as_ptr(), long.payload.as_ptr());

    let bytes = join(&segments).freeze();
    let range = bytes.as_ptr_range();
    let frame = Frame::decode(bytes.clone()).unwrap();
    assert_eq!(only_entry(&frame), &long);
    assert!(range.contains(&only_entry(&frame).payload.as_ptr()));

    let short = data(9, 40, &[7; 40]);
    let segments = encode_messages([&append(8, vec![short.clone()])]).unwrap();
    assert_eq!(segments.len(), 1);
    let bytes = segments[0].clone();
    let range = bytes.as_ptr_range();
    let frame = Frame::decode(bytes.clone()).unwrap();
    assert_eq!(only_entry(&frame), &short);
    assert!(!range.contains(&only_entry(&frame).payload.as_ptr()));
}

#[test]
fn an_entry_that_a_group_would_assert_about_is_refused() {
    let decode =
        |message: &PeerMessage| Frame::decode(join(&encode_messages([message]).unwrap()).freeze());
    let good = || data(9, 40, b"event");
    assert!(decode(&append(8, vec![good(), data(10, 41, b"event")])).is_ok());
    let gap = append(8, vec![good(), data(11, 41, b"event")]);
    assert_eq!(decode(&gap), Err(FrameError::Value("index")));
    let elsewhere = append(7, vec![good()]);
    assert_eq!(decode(&elsewhere), Err(FrameError::Value("index")));
    let bad: [fn(&mut LogEntry); 7] = [
        |entry| entry.base_offset = 41,
        |entry| entry.term = 4,
        |entry| entry.last_offset_delta = 1,
        |entry| entry.payload = Bytes::new(),
        |entry| entry.payload = [&entry.payload[..], &[0]].concat().into(),
        |entry| entry.kind = EntryKind::Noop,
        |entry| {
            let mut changed = entry.payload.to_vec();
            *changed.last_mut().unwrap() ^= 1;
            entry.payload = changed.into();
        },
    ];
    for (at, spoil) in bad.iter().enumerate() {
        let mut entry = good();
        spoil(&mut entry);
        let answer = decode(&append(8, vec![entry]));
        assert_eq!(answer, Err(FrameError::Value("entry")), "case {at}");
    }
    let hole = LogEntry {
        kind: EntryKind::Hole,
        base_offset: i64::MAX,
        payload: Bytes::new(),
        ..good()
    };
    assert_eq!(
        decode(&append(8, vec![hole])),
        Err(FrameError::Value("offset"))
    );
}

#[test]
fn a_claim_is_refused_before_anything_is_read_for_it() {
    let header = |length: usize| {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&(length as u32).to_le_bytes());
        header
    };
    assert_eq!(
        Header::read(header(MAX_HELLO_BYTES), MAX_HELLO_BYTES),
        Err(FrameError::TooLong {
            length: MAX_HELLO_BYTES,
            limit: MAX_HELLO_BYTES - HEADER_BYTES
        })
    );
    assert!(Header::read(header(MAX_HELLO_BYTES - HEADER_BYTES), MAX_HELLO_BYTES).is_ok());
    assert!(Header::read(header(usize::MAX), usize::MAX).is_err());
    assert!(Header::read(header(0), MAX_FRAME_BYTES).is_err());
    // More messages than there are bytes for.
    let mut bytes = encoded(&Frame::Messages(Vec::new()));
    bytes[9..13].fill(0xff);
    seal(&mut bytes);
    assert_eq!(
        Frame::decode(bytes.freeze()),
        Err(FrameError::Length("number of messages"))
    );
    let long = Bytes::from(vec![0; MAX_FRAME_BYTES]);
    assert!(matches!(
        Frame::Announce(long).encode(),
        Err(FrameError::TooLong { .. })
    ));
}

#[test]
fn the_longest_hello_fits_and_keeps_the_newest_starts() {
    let start = |incarnation| Start {
        incarnation,
        token: !incarnation,
    };
    let mut random = Random(1);
    let sent = Hello {
        starts: (0..200).map(start).collect(),
        ..hello(&mut random)
    };
    let refusal = Refusal::new(RefusalCode::Other, "é".repeat(600));
    let bytes = encoded(&Frame::HelloAnswer(Answered {
        hello: sent,
        refusal: Some(refusal),
    }));
    assert!(bytes.len() <= MAX_HELLO_BYTES);
    let Ok(Frame::HelloAnswer(answer)) = Frame::decode(bytes.freeze()) else {
        unreachable!()
    };
    let starts: Vec<Start> = (30..200).map(start).collect();
    assert_eq!(answer.hello.starts, starts);
    assert_eq!(answer.refusal.unwrap().text, "é".repeat(256));
}

#[test]
fn another_version_is_named() {
    let mut bytes = encoded(&Frame::Hello(hello(&mut Random(5))));
    bytes[13] = 2;
    seal(&mut bytes);
    assert_eq!(Frame::decode(bytes.freeze()), Err(FrameError::Version(2)));
}

#[test]
fn golden_frames_are_read_and_written_as_ever() {
    let introduction = Hello {
        purpose: Purpose::Link,
        cluster_id: Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8888),
        node: 1,
        directory_id: Uuid::from_u128(0x9999_aaaa_bbbb_cccc_dddd_eeee_ffff_0000),
        incarnation: 6,
        meant: 2,
        starts: vec![
            Start {
                incarnation: 5,
                token: 55,
            },
            Start {
                incarnation: 6,
                token: 66,
            },
        ],
    };
    let mut every_body: Vec<PeerMessage> = (0..BODIES)
        .map(|which| message(&mut Random(which as u64), which))
        .collect();
    every_body.push(append(
        8,
        vec![data(9, 40, b"short"), data(10, 41, &[7; 600])],
    ));
    let mut snapshot = append(8, Vec::new());
    if let Body::Raft(raft) = &mut snapshot.body {
        raft.kind = RaftKind::Snapshot;
        raft.snapshot = Some(SnapshotMessage {
            index: 999,
            term: 3,
            conf: Bytes::from_static(b"configuration"),
            conf_index: 1500,
            offset: 12_000,
            producers: Bytes::from_static(b"producers"),
        });
    }
    let golden = [
        ("hello.bin", Frame::Hello(introduction.clone())),
        (
            "hello-answer.bin",
            Frame::HelloAnswer(Answered {
                hello: introduction,
                refusal: Some(Refusal::new(RefusalCode::Cluster, "another cluster")),
            }),
        ),
        ("messages.bin", Frame::Messages(every_body)),
        ("snapshot.bin", Frame::Messages(vec![snapshot])),
        (
            "announce.bin",
            Frame::Announce(Bytes::from_static(b"who leads")),
        ),
        (
            "call.bin",
            Frame::Call {
                request: 3,
                body: Bytes::from_static(b"question"),
            },
        ),
        (
            "answer.bin",
            Frame::Answer {
                request: 3,
                body: Bytes::from_static(b"answer"),
            },
        ),
        ("ping.bin", Frame::Ping),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/frame/v1");
    for (name, frame) in golden {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|_| panic!("no fixture {name}"));
        assert_eq!(
            Frame::decode(bytes.clone().into()),
            Ok(frame.clone()),
            "{name}"
        );
        assert_eq!(
            encoded(&frame),
            bytes,
            "{name} is no longer written as it was"
        );
    }
}
