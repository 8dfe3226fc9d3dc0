//! Between our entries and messages and the Raft library's in-memory structs.
//!
//! A data entry's batch is the library's `data`, untouched and not copied. What the library must not
//! read (configuration changes in our encoding, commands, holes) travels in `context`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use riverrun_record::BatchView;
use riverrun_storage::{BadSnapshot, EntryKind, LogEntry, LogError, ProducerState};

use crate::conf;
use crate::message::{RaftKind, RaftMessage, SnapshotMessage};

const COMMAND: u8 = b'c';
const HOLE: u8 = b'h';

/// An entry that cannot be one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} of term {term} is not one record batch, command or change")]
pub struct BadEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// The library's form of an entry.
#[must_use]
pub fn to_raft(entry: &LogEntry) -> Entry {
    let mut out = Entry {
        term: entry.term,
        index: entry.index,
        ..Entry::default()
    };
    match entry.kind {
        EntryKind::Data => out.data = entry.payload.clone(),
        EntryKind::Noop => {}
        EntryKind::Conf => {
            out.set_entry_type(EntryType::EntryConfChangeV2);
            out.context = entry.payload.clone();
        }
        EntryKind::Command => {
            out.data = entry.payload.clone();
            out.context = Bytes::from_static(&[COMMAND]);
        }
        EntryKind::Hole => {
            let mut context = BytesMut::with_capacity(13);
            context.put_u8(HOLE);
            context.put_i64_le(entry.base_offset);
            context.put_u32_le(entry.last_offset_delta);
            out.context = context.freeze();
        }
    }
    out
}

/// Our form of an entry that stands where the log's next Kafka offset is `next_offset`.
///
/// # Errors
/// [`BadEntry`] for a data entry that is not exactly one record batch.
pub fn from_raft(entry: &Entry, next_offset: i64) -> Result<LogEntry, BadEntry> {
    let bad = BadEntry {
        index: entry.index,
        term: entry.term,
    };
    let plain = |kind, payload| LogEntry {
        index: entry.index,
        term: entry.term,
        kind,
        base_offset: next_offset,
        last_offset_delta: 0,
        payload,
    };
    if entry.get_entry_type() != EntryType::EntryNormal {
        return Ok(plain(EntryKind::Conf, entry.context.clone()));
    }
    match entry.context.first() {
        Some(&COMMAND) => Ok(plain(EntryKind::Command, entry.data.clone())),
        Some(&HOLE) => {
            let mut context = entry.context.clone();
            if context.len() != 13 {
                return Err(bad);
            }
            context.advance(1);
            Ok(LogEntry {
                base_offset: context.get_i64_le(),
                last_offset_delta: context.get_u32_le(),
                ..plain(EntryKind::Hole, Bytes::new())
            })
        }
        Some(_) => Err(bad),
        None if entry.data.is_empty() => Ok(plain(EntryKind::Noop, Bytes::new())),
        None => {
            let view = BatchView::parse(&entry.data).map_err(|_| bad)?;
            let delta = u32::try_from(view.last_offset_delta()).map_err(|_| bad)?;
            if view.total_len() != entry.data.len() {
                return Err(bad);
            }
            Ok(LogEntry {
                base_offset: view.base_offset(),
                last_offset_delta: delta,
                ..plain(EntryKind::Data, entry.data.clone())
            })
        }
    }
}

/// The kind of an outgoing message, `None` for those that never travel (proposals and reads are not
/// forwarded: a forwarded batch would carry a stale offset).
fn kind_of(kind: MessageType) -> Option<RaftKind> {
    Some(match kind {
        MessageType::MsgAppend => RaftKind::Append,
        MessageType::MsgAppendResponse => RaftKind::AppendResponse,
        MessageType::MsgRequestVote => RaftKind::RequestVote,
        MessageType::MsgRequestVoteResponse => RaftKind::RequestVoteResponse,
        MessageType::MsgRequestPreVote => RaftKind::RequestPreVote,
        MessageType::MsgRequestPreVoteResponse => RaftKind::RequestPreVoteResponse,
        MessageType::MsgSnapshot => RaftKind::Snapshot,
        MessageType::MsgHeartbeat => RaftKind::Heartbeat,
        MessageType::MsgHeartbeatResponse => RaftKind::HeartbeatResponse,
        MessageType::MsgTimeoutNow => RaftKind::TimeoutNow,
        _ => return None,
    })
}

/// Why a message of the library cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Unsendable {
    /// An entry in it is none of ours.
    #[error(transparent)]
    Entry(#[from] BadEntry),
    /// The snapshot in it is none of ours.
    #[error("the snapshot of index {0} is not one of ours")]
    Snapshot(u64),
    /// Which offsets its entries have cannot be read.
    #[error(transparent)]
    Unread(#[from] LogError),
}

/// Whether an entry is a record batch: those have their own offsets.
fn is_batch(entry: &Entry) -> bool {
    entry.get_entry_type() == EntryType::EntryNormal
        && entry.context.is_empty()
        && !entry.data.is_empty()
}

/// Our form of an outgoing message; `None` for one that must not leave.
///
/// `offset_before` gives the log's next Kafka offset in front of an index.
///
/// # Errors
/// Where it cannot be made.
pub fn message_from_raft(
    mut m: Message,
    offset_before: impl Fn(u64) -> Result<i64, LogError>,
) -> Result<Option<RaftMessage>, Unsendable> {
    let Some(kind) = kind_of(m.get_msg_type()) else {
        return Ok(None);
    };
    let raft_entries = std::mem::take(m.mut_entries());
    let mut entries = Vec::with_capacity(raft_entries.len());
    let mut offset = match raft_entries.first() {
        Some(first) if !is_batch(first) => offset_before(first.index)?,
        _ => 0,
    };
    for entry in &raft_entries {
        let entry = from_raft(entry, offset)?;
        offset = entry.next_offset();
        entries.push(entry);
    }
    let snapshot = if kind == RaftKind::Snapshot {
        let index = m.get_snapshot().get_metadata().index;
        let snapshot = snapshot_from_raft(m.get_snapshot());
        Some(snapshot.ok_or(Unsendable::Snapshot(index))?)
    } else {
        None
    };
    Ok(Some(RaftMessage {
        kind,
        term: m.term,
        log_term: m.log_term,
        index: m.index,
        commit: m.commit,
        commit_term: m.commit_term,
        reject: m.reject,
        reject_hint: m.reject_hint,
        request_snapshot: m.request_snapshot,
        priority: m.priority,
        context: m.context,
        entries,
        snapshot,
    }))
}

/// A snapshot of another replica that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadMessage {
    /// Its configuration.
    #[error("the configuration in a snapshot: {0}")]
    Conf(#[from] conf::BadConf),
    /// What it says of producers.
    #[error("the producers in a snapshot: {0}")]
    Producers(#[from] BadSnapshot),
}

/// The library's form of an incoming message.
///
/// # Errors
/// Where its snapshot cannot be read.
pub fn message_to_raft(from: u64, to: u64, m: RaftMessage) -> Result<Message, BadMessage> {
    let mut out = Message::default();
    out.set_msg_type(match m.kind {
        RaftKind::Append => MessageType::MsgAppend,
        RaftKind::AppendResponse => MessageType::MsgAppendResponse,
        RaftKind::RequestVote => MessageType::MsgRequestVote,
        RaftKind::RequestVoteResponse => MessageType::MsgRequestVoteResponse,
        RaftKind::RequestPreVote => MessageType::MsgRequestPreVote,
        RaftKind::RequestPreVoteResponse => MessageType::MsgRequestPreVoteResponse,
        RaftKind::Snapshot => MessageType::MsgSnapshot,
        RaftKind::Heartbeat => MessageType::MsgHeartbeat,
        RaftKind::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
        RaftKind::TimeoutNow => MessageType::MsgTimeoutNow,
    });
    out.from = from;
    out.to = to;
    out.term = m.term;
    out.log_term = m.log_term;
    out.index = m.index;
    out.commit = m.commit;
    out.commit_term = m.commit_term;
    out.reject = m.reject;
    out.reject_hint = m.reject_hint;
    out.request_snapshot = m.request_snapshot;
    out.priority = m.priority;
    out.context = m.context;
    out.set_entries(m.entries.iter().map(to_raft).collect::<Vec<_>>().into());
    if let Some(snapshot) = m.snapshot {
        ProducerState::decode(&snapshot.producers)?;
        out.set_snapshot(snapshot_to_raft(&snapshot)?);
    }
    Ok(out)
}

/// The library's form of a snapshot.
///
/// # Errors
/// Where its configuration cannot be read.
pub fn snapshot_to_raft(s: &SnapshotMessage) -> Result<Snapshot, conf::BadConf> {
    let mut out = Snapshot::default();
    let meta = out.mut_metadata();
    meta.index = s.index;
    meta.term = s.term;
    meta.set_conf_state(conf::decode_conf(&s.conf)?);
    let mut data = BytesMut::with_capacity(16 + s.producers.len());
    data.put_u64_le(s.conf_index);
    data.put_i64_le(s.offset);
    data.put_slice(&s.producers);
    out.data = data.freeze();
    Ok(out)
}

/// Our form of a snapshot; `None` where it is not one of ours.
#[must_use]
pub fn snapshot_from_raft(s: &Snapshot) -> Option<SnapshotMessage> {
    let mut data = s.data.clone();
    if data.len() < 16 {
        return None;
    }
    let conf_index = data.get_u64_le();
    let offset = data.get_i64_le();
    let meta = s.get_metadata();
    Some(SnapshotMessage {
        index: meta.index,
        term: meta.term,
        conf: conf::encode_conf(meta.get_conf_state()),
        conf_index,
        offset,
        producers: data,
    })
}
