//! Messages between replicas, field by field.
//!
//! ```text
//! kind                 what follows
//!  1 raft              raft kind u8 | fields u16, a bit for each that is there | those, in order:
//!                      bits 0-7: term, log term, index, commit, commit term, reject hint,
//!                      requested snapshot (u64 each), priority (i64); bit 8: reject, no bytes;
//!                      bit 9: context = length u32 | bytes; bit 10: count u32 | entries;
//!                      bit 11: snapshot. A field that is not there is 0, or empty.
//!  2 ask hello         term u64
//!  3 hello             term u64 | last index u64 | commit u64 | commit term u64
//!                      | flags u8: 1 = recovering, 2 = marred
//!  4 recover to        term u64 | index u64 | index term u64
//!  5 contradicted      term u64
//!  6 ask report        round u64
//!  7 report            round u64 | term u64 | last term u64 | last index u64 | whole u8
//!                      | leader u64 | conf index u64 | length u32 | configuration
//!  8 probe             term u64 | sequence u64
//!  9 probe's answer    term u64 | sequence u64
//! 10 committed         index u64 | index term u64
//!
//! raft kind            1 append, 2 its response, 3 request vote, 4 response, 5 request pre-vote,
//!                      6 response, 7 snapshot, 8 heartbeat, 9 response, 10 timeout now
//! entry                index u64 | term u64 | kind u8 (that of the sidecar) | base offset i64
//!                      | last offset delta u32 | length u32 | payload
//! snapshot             index u64 | term u64 | conf index u64 | offset i64
//!                      | length u32 | configuration | length u32 | producer state
//! ```
//! What a group asserts about entries is checked here, where a bad one costs a connection and no
//! partition: they follow on the message's index without a gap, their offsets are possible, and a
//! data entry is exactly one whole record batch with those offsets, that term and a good checksum.

use bytes::{BufMut, Bytes};
use riverrun_record::BatchView;
use riverrun_storage::{EntryKind, LogEntry};

use super::FrameError;
use super::reader::Reader;
use super::writer::Writer;
use crate::message::{Body, Hello, PeerMessage, RaftKind, RaftMessage, Report, SnapshotMessage};

/// Group, two replicas, two incarnations, a kind, and the shortest body: a Raft message's.
const LEAST_MESSAGE_BYTES: usize = 5 * 8 + 1 + 3;
const ENTRY_BYTES: usize = 8 + 8 + 1 + 8 + 4 + 4;

const REJECT: u16 = 1 << 8;
const CONTEXT: u16 = 1 << 9;
const ENTRIES: u16 = 1 << 10;
const SNAPSHOT: u16 = 1 << 11;
const KNOWN_FIELDS: u16 = (1 << 12) - 1;

pub(super) const RAFT_KINDS: [RaftKind; 10] = [
    RaftKind::Append,
    RaftKind::AppendResponse,
    RaftKind::RequestVote,
    RaftKind::RequestVoteResponse,
    RaftKind::RequestPreVote,
    RaftKind::RequestPreVoteResponse,
    RaftKind::Snapshot,
    RaftKind::Heartbeat,
    RaftKind::HeartbeatResponse,
    RaftKind::TimeoutNow,
];

/// About what a message takes in a frame; never less than it does.
#[must_use]
pub fn message_bytes(message: &PeerMessage) -> usize {
    const FIXED: usize = 5 * 8 + 1 + 3 + 8 * 8 + 2 * 4;
    let body = match &message.body {
        Body::Raft(raft) => {
            let entries: usize = raft
                .entries
                .iter()
                .map(|entry| ENTRY_BYTES + entry.payload.len())
                .sum();
            let snapshot = raft
                .snapshot
                .as_ref()
                .map_or(0, |s| 4 * 8 + 2 * 4 + s.conf.len() + s.producers.len());
            raft.context.len() + entries + snapshot
        }
        Body::Report(report) => report.conf.len(),
        _ => 0,
    };
    FIXED + body
}

pub(super) fn write<'a>(messages: impl IntoIterator<Item = &'a PeerMessage>, out: &mut Writer) {
    let at = out.head().len();
    out.head().put_u32_le(0);
    let mut count = 0_u32;
    for message in messages {
        write_one(message, out);
        count = count.saturating_add(1);
    }
    if let Some(mut place) = out.head().get_mut(at..at + 4) {
        place.put_u32_le(count);
    }
}

fn write_one(message: &PeerMessage, out: &mut Writer) {
    let head = out.head();
    for id in [
        message.group,
        message.from,
        message.to,
        message.from_incarnation,
        message.to_incarnation,
    ] {
        head.put_u64_le(id);
    }
    match &message.body {
        Body::Raft(raft) => {
            head.put_u8(1);
            write_raft(raft, out);
        }
        Body::AskHello { term } => numbers(out, 2, &[*term]),
        Body::Hello(h) => {
            numbers(out, 3, &[h.term, h.last_index, h.commit, h.commit_term]);
            let recovering = if h.recovering { HELLO_RECOVERING } else { 0 };
            let marred = if h.marred { HELLO_MARRED } else { 0 };
            out.head().put_u8(recovering | marred);
        }
        Body::RecoverTo {
            term,
            index,
            index_term,
        } => numbers(out, 4, &[*term, *index, *index_term]),
        Body::Contradicted { term } => numbers(out, 5, &[*term]),
        Body::AskReport { round } => numbers(out, 6, &[*round]),
        Body::Report(report) => write_report(report, out),
        Body::Probe { term, sequence } => numbers(out, 8, &[*term, *sequence]),
        Body::ProbeOk { term, sequence } => numbers(out, 9, &[*term, *sequence]),
        Body::Committed { index, index_term } => numbers(out, 10, &[*index, *index_term]),
    }
}

/// Bits of a hello's last byte.
const HELLO_RECOVERING: u8 = 1;
const HELLO_MARRED: u8 = 2;

fn read_hello(input: &mut Reader) -> Result<Hello, FrameError> {
    let mut number = || input.u64("message");
    let [term, last_index, commit, commit_term] = [number()?, number()?, number()?, number()?];
    let flags = input.u8("flags")?;
    if flags & !(HELLO_RECOVERING | HELLO_MARRED) != 0 {
        return Err(FrameError::Value("flags"));
    }
    Ok(Hello {
        term,
        last_index,
        commit,
        commit_term,
        recovering: flags & HELLO_RECOVERING != 0,
        marred: flags & HELLO_MARRED != 0,
    })
}

fn numbers(out: &mut Writer, kind: u8, numbers: &[u64]) {
    let head = out.head();
    head.put_u8(kind);
    for number in numbers {
        head.put_u64_le(*number);
    }
}

fn write_report(report: &Report, out: &mut Writer) {
    numbers(
        out,
        7,
        &[
            report.round,
            report.term,
            report.last_term,
            report.last_index,
        ],
    );
    let head = out.head();
    head.put_u8(u8::from(report.whole));
    head.put_u64_le(report.leader);
    head.put_u64_le(report.conf_index);
    out.payload(&report.conf);
}

fn write_raft(raft: &RaftMessage, out: &mut Writer) {
    let numbers = [
        raft.term,
        raft.log_term,
        raft.index,
        raft.commit,
        raft.commit_term,
        raft.reject_hint,
        raft.request_snapshot,
        raft.priority.cast_unsigned(),
    ];
    let mut fields = 0;
    for (bit, number) in numbers.iter().enumerate() {
        fields |= u16::from(*number != 0) << bit;
    }
    fields |= if raft.reject { REJECT } else { 0 };
    fields |= if raft.context.is_empty() { 0 } else { CONTEXT };
    fields |= if raft.entries.is_empty() { 0 } else { ENTRIES };
    fields |= if raft.snapshot.is_none() { 0 } else { SNAPSHOT };
    let head = out.head();
    head.put_u8(raft_kind_number(raft.kind));
    head.put_u16_le(fields);
    for number in numbers.into_iter().filter(|number| *number != 0) {
        head.put_u64_le(number);
    }
    if fields & CONTEXT != 0 {
        out.payload(&raft.context);
    }
    if fields & ENTRIES != 0 {
        let count = u32::try_from(raft.entries.len()).unwrap_or(u32::MAX);
        out.head().put_u32_le(count);
        for entry in &raft.entries {
            write_entry(entry, out);
        }
    }
    if let Some(snapshot) = &raft.snapshot {
        let head = out.head();
        head.put_u64_le(snapshot.index);
        head.put_u64_le(snapshot.term);
        head.put_u64_le(snapshot.conf_index);
        head.put_i64_le(snapshot.offset);
        out.payload(&snapshot.conf);
        out.payload(&snapshot.producers);
    }
}

fn raft_kind_number(kind: RaftKind) -> u8 {
    match kind {
        RaftKind::Append => 1,
        RaftKind::AppendResponse => 2,
        RaftKind::RequestVote => 3,
        RaftKind::RequestVoteResponse => 4,
        RaftKind::RequestPreVote => 5,
        RaftKind::RequestPreVoteResponse => 6,
        RaftKind::Snapshot => 7,
        RaftKind::Heartbeat => 8,
        RaftKind::HeartbeatResponse => 9,
        RaftKind::TimeoutNow => 10,
    }
}

fn write_entry(entry: &LogEntry, out: &mut Writer) {
    let head = out.head();
    head.put_u64_le(entry.index);
    head.put_u64_le(entry.term);
    head.put_u8(entry.kind as u8);
    head.put_i64_le(entry.base_offset);
    head.put_u32_le(entry.last_offset_delta);
    out.payload(&entry.payload);
}

pub(super) fn read(input: &mut Reader) -> Result<Vec<PeerMessage>, FrameError> {
    let count = input.count(LEAST_MESSAGE_BYTES, "number of messages")?;
    let mut messages = Vec::with_capacity(count);
    for _ in 0..count {
        messages.push(read_one(input)?);
    }
    Ok(messages)
}

fn read_one(input: &mut Reader) -> Result<PeerMessage, FrameError> {
    let mut id = || input.u64("message");
    let [group, from, to, from_incarnation, to_incarnation] = [id()?, id()?, id()?, id()?, id()?];
    let body = match input.u8("message")? {
        1 => Body::Raft(read_raft(input)?),
        2 => Body::AskHello {
            term: input.u64("message")?,
        },
        3 => Body::Hello(read_hello(input)?),
        4 => Body::RecoverTo {
            term: input.u64("message")?,
            index: input.u64("message")?,
            index_term: input.u64("message")?,
        },
        5 => Body::Contradicted {
            term: input.u64("message")?,
        },
        6 => Body::AskReport {
            round: input.u64("message")?,
        },
        7 => Body::Report(Report {
            round: input.u64("message")?,
            term: input.u64("message")?,
            last_term: input.u64("message")?,
            last_index: input.u64("message")?,
            whole: input.bool("whole")?,
            leader: input.u64("message")?,
            conf_index: input.u64("message")?,
            conf: input.payload("configuration")?,
        }),
        8 => Body::Probe {
            term: input.u64("message")?,
            sequence: input.u64("message")?,
        },
        9 => Body::ProbeOk {
            term: input.u64("message")?,
            sequence: input.u64("message")?,
        },
        10 => Body::Committed {
            index: input.u64("message")?,
            index_term: input.u64("message")?,
        },
        _ => return Err(FrameError::Value("message")),
    };
    Ok(PeerMessage {
        group,
        from,
        to,
        from_incarnation,
        to_incarnation,
        body,
    })
}

fn read_raft(input: &mut Reader) -> Result<RaftMessage, FrameError> {
    let kind = usize::from(input.u8("raft kind")?);
    let kind = kind.checked_sub(1).and_then(|at| RAFT_KINDS.get(at));
    let kind = *kind.ok_or(FrameError::Value("raft kind"))?;
    let fields = input.u16("fields")?;
    if fields & !KNOWN_FIELDS != 0 {
        return Err(FrameError::Value("fields"));
    }
    let mut number = |bit: u16| {
        if fields & (1 << bit) == 0 {
            Ok(0)
        } else {
            input.u64("raft message")
        }
    };
    let mut raft = RaftMessage {
        kind,
        term: number(0)?,
        log_term: number(1)?,
        index: number(2)?,
        commit: number(3)?,
        commit_term: number(4)?,
        reject: fields & REJECT != 0,
        reject_hint: number(5)?,
        request_snapshot: number(6)?,
        priority: number(7)?.cast_signed(),
        context: Bytes::new(),
        entries: Vec::new(),
        snapshot: None,
    };
    if fields & CONTEXT != 0 {
        raft.context = input.payload("context")?;
    }
    if fields & ENTRIES != 0 {
        if kind != RaftKind::Append {
            return Err(FrameError::Value("entry"));
        }
        raft.entries = read_entries(raft.index, input)?;
    }
    if (kind == RaftKind::Snapshot) != (fields & SNAPSHOT != 0) {
        return Err(FrameError::Value("snapshot"));
    }
    if fields & SNAPSHOT != 0 {
        raft.snapshot = Some(SnapshotMessage {
            index: input.u64("snapshot")?,
            term: input.u64("snapshot")?,
            conf_index: input.u64("snapshot")?,
            offset: input.i64("snapshot")?,
            conf: input.payload("configuration")?,
            producers: input.payload("producer state")?,
        });
    }
    Ok(raft)
}

/// The entries behind `index`.
fn read_entries(index: u64, input: &mut Reader) -> Result<Vec<LogEntry>, FrameError> {
    let count = input.count(ENTRY_BYTES, "number of entries")?;
    let mut entries = Vec::with_capacity(count);
    let mut before = index;
    for _ in 0..count {
        let entry = read_entry(input)?;
        if before.checked_add(1) != Some(entry.index) {
            return Err(FrameError::Value("index"));
        }
        before = entry.index;
        entries.push(entry);
    }
    Ok(entries)
}

fn read_entry(input: &mut Reader) -> Result<LogEntry, FrameError> {
    let entry = LogEntry {
        index: input.u64("entry")?,
        term: input.u64("entry")?,
        kind: EntryKind::from_u8(input.u8("entry")?).ok_or(FrameError::Value("entry"))?,
        base_offset: input.i64("entry")?,
        last_offset_delta: input.u32("entry")?,
        payload: input.payload("payload")?,
    };
    let last = i64::from(entry.last_offset_delta) + 1;
    if entry.base_offset < 0 || entry.base_offset.checked_add(last).is_none() {
        return Err(FrameError::Value("offset"));
    }
    let fits = match entry.kind {
        EntryKind::Data => is_one_batch(&entry),
        EntryKind::Noop => entry.payload.is_empty() && entry.last_offset_delta == 0,
        EntryKind::Conf | EntryKind::Command => entry.last_offset_delta == 0,
        EntryKind::Hole => entry.payload.is_empty(),
    };
    if fits {
        Ok(entry)
    } else {
        Err(FrameError::Value("entry"))
    }
}

/// Whether a data entry is what I1 says.
fn is_one_batch(entry: &LogEntry) -> bool {
    BatchView::parse(&entry.payload).is_ok_and(|view| {
        view.total_len() == entry.payload.len()
            && view.base_offset() == entry.base_offset
            && i64::from(view.last_offset_delta()) == i64::from(entry.last_offset_delta)
            && u64::try_from(view.leader_epoch()) == Ok(entry.term)
            && view.check_stored().is_ok()
    })
}
