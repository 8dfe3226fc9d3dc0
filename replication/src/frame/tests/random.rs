//! Random frames, one for each seed.

use bytes::Bytes;
use riverrun_record::{BatchBuilder, Compression, NO_TIMESTAMP};
use riverrun_storage::{EntryKind, LogEntry};
use uuid::Uuid;

use crate::frame::{
    Answered, Frame, Hello, Purpose, Refusal, RefusalCode, Start, hello as greeting, messages,
};
use crate::message::{
    Body, Hello as Introduction, PeerMessage, RaftKind, RaftMessage, Report, SnapshotMessage,
};

/// A small generator, so that one seed names one frame.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn bool(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Small, zero and large numbers alike.
    pub(super) fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => self.next(),
            _ => self.next() % 1000,
        }
    }

    pub(super) fn bytes(&mut self, most: usize) -> Bytes {
        let len = self.below(most + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }

    pub(super) fn uuid(&mut self) -> Uuid {
        if self.bool() {
            Uuid::nil()
        } else {
            Uuid::from_u64_pair(self.next(), self.next())
        }
    }
}

/// A batch as it stands in a log.
pub(super) fn batch(base_offset: i64, epoch: i32, records: usize, value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None)
        .base_offset(base_offset)
        .leader_epoch(epoch);
    for _ in 0..records {
        builder
            .append(NO_TIMESTAMP, None, Some(value), &[])
            .unwrap();
    }
    builder.build().unwrap()
}

pub(super) fn entry(random: &mut Random, index: u64) -> LogEntry {
    let kind = EntryKind::from_u8(random.below(5) as u8).unwrap();
    let mut entry = LogEntry {
        index,
        term: random.next() % (1 << 31),
        kind,
        base_offset: (random.next() >> 2).cast_signed(),
        last_offset_delta: 0,
        payload: Bytes::new(),
    };
    match kind {
        EntryKind::Data => {
            let records = random.below(5) + 1;
            let value = random.bytes(700);
            let epoch = i32::try_from(entry.term).unwrap();
            entry.payload = batch(entry.base_offset, epoch, records, &value);
            entry.last_offset_delta = records as u32 - 1;
        }
        EntryKind::Noop => {}
        EntryKind::Conf | EntryKind::Command => entry.payload = random.bytes(600),
        EntryKind::Hole => entry.last_offset_delta = random.next() as u32,
    }
    entry
}

pub(super) fn raft(random: &mut Random) -> RaftMessage {
    let kinds = messages::RAFT_KINDS;
    let kind = kinds[random.below(kinds.len())];
    let index = random.number() >> 1;
    let count = if kind == RaftKind::Append {
        random.below(6) as u64
    } else {
        0
    };
    let snapshot = (kind == RaftKind::Snapshot).then(|| SnapshotMessage {
        index: random.number(),
        term: random.number(),
        conf: random.bytes(60),
        conf_index: random.number(),
        offset: random.next().cast_signed(),
        producers: random.bytes(2000),
    });
    RaftMessage {
        kind,
        term: random.number(),
        log_term: random.number(),
        index,
        commit: random.number(),
        commit_term: random.number(),
        reject: random.bool(),
        reject_hint: random.number(),
        request_snapshot: random.number(),
        priority: random.number().cast_signed(),
        context: random.bytes(20),
        entries: (1..=count).map(|at| entry(random, index + at)).collect(),
        snapshot,
    }
}

/// Bodies of messages, by number.
pub(super) const BODIES: usize = 10;

pub(super) fn body(random: &mut Random, which: usize) -> Body {
    match which {
        0 => Body::Raft(raft(random)),
        1 => Body::AskHello {
            term: random.number(),
        },
        2 => Body::Hello(Introduction {
            term: random.number(),
            last_index: random.number(),
            commit: random.number(),
            commit_term: random.number(),
            recovering: random.bool(),
            // The fixtures are of before there was one.
            marred: false,
        }),
        3 => Body::RecoverTo {
            term: random.number(),
            index: random.number(),
            index_term: random.number(),
        },
        4 => Body::Contradicted {
            term: random.number(),
        },
        5 => Body::AskReport {
            round: random.number(),
        },
        6 => Body::Report(Report {
            round: random.number(),
            term: random.number(),
            last_term: random.number(),
            last_index: random.number(),
            whole: random.bool(),
            leader: random.number(),
            conf_index: random.number(),
            conf: random.bytes(100),
        }),
        7 => Body::Probe {
            term: random.number(),
            sequence: random.number(),
        },
        8 => Body::ProbeOk {
            term: random.number(),
            sequence: random.number(),
        },
        _ => Body::Committed {
            index: random.number(),
            index_term: random.number(),
        },
    }
}

pub(super) fn message(random: &mut Random, which: usize) -> PeerMessage {
    PeerMessage {
        group: random.number(),
        from: random.number(),
        to: random.number(),
        from_incarnation: random.number(),
        to_incarnation: random.number(),
        body: body(random, which),
    }
}

pub(super) fn hello(random: &mut Random) -> Hello {
    let starts = random.below(greeting::MAX_STARTS + 1);
    Hello {
        purpose: if random.bool() {
            Purpose::Link
        } else {
            Purpose::Calls
        },
        cluster_id: random.uuid(),
        node: random.next() as i32,
        directory_id: random.uuid(),
        incarnation: random.number(),
        meant: random.next() as i32,
        starts: (0..starts)
            .map(|_| Start {
                incarnation: random.number(),
                token: random.next(),
            })
            .collect(),
    }
}

pub(super) fn refusal(random: &mut Random) -> Refusal {
    let codes = [
        RefusalCode::Version,
        RefusalCode::Cluster,
        RefusalCode::Node,
        RefusalCode::Restored,
        RefusalCode::Unknown,
        RefusalCode::Busy,
        RefusalCode::Other,
    ];
    let code = codes[random.below(codes.len())];
    Refusal::new(code, "ü".repeat(random.below(257)))
}

/// Frames, by number.
pub(super) const FRAMES: usize = 7;

pub(super) fn frame(random: &mut Random, which: usize) -> Frame {
    match which {
        0 => Frame::Hello(hello(random)),
        1 => Frame::HelloAnswer(Answered {
            hello: hello(random),
            refusal: random.bool().then(|| refusal(random)),
        }),
        2 => {
            let first = random.below(BODIES);
            let count = random.below(2 * BODIES);
            let which = |at| (first + at) % BODIES;
            Frame::Messages((0..count).map(|at| message(random, which(at))).collect())
        }
        3 => Frame::Announce(random.bytes(2000)),
        4 => Frame::Call {
            request: random.next(),
            body: random.bytes(2000),
        },
        5 => Frame::Answer {
            request: random.next(),
            body: random.bytes(2000),
        },
        _ => Frame::Ping,
    }
}
