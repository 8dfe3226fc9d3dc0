//! One record of the node WAL.
//!
//! ```text
//! little endian
//!  0  length u32, header and body      4  crc32 u32, over bytes 8..length, begun with the WAL's salt
//!  8  crc of the record before u32    12  kind u8    13  flags u8: 1 = last of its round
//! 14  zero u16                        16  lap u32    20  boot generation u32
//! 24  flush round u64                 32  group u64  40  replica u64
//! 48  sequence number in the group u64
//! 56  body:
//!   0 nothing      -
//!   1 hard state   term u64, vote u64, commit u64
//!   2 entry        index u64, term u64, base offset i64, last offset delta u32, kind u8, zero 3, payload
//!   3 cut          first index dropped u64, durable index behind the cut u64
//!   4 cut done     -
//!   5 conf         index u64, bytes
//!   6 durable      index u64
//!   7 creation     topic id 16, partition i32, zero u32, previous index u64, previous term u64, offset i64
//!   8 reset        previous index u64, previous term u64, offset i64
//!   9 removal      -
//!  10 flags        u32: 1 = may be short, 2 = recovering
//!  11 state        topic id 16, partition i32, flags u32 (as above, 4 = a cut is unfinished),
//!                  previous index u64, previous term u64, offset i64, term u64, vote u64, commit u64,
//!                  durable index u64, unfinished cut u64, side file u64, conf index u64, conf bytes
//!  12 file trust   u32: 0 = sound, 1 = suspect, 2 = poisoned
//! ```

use bytes::{Buf, BufMut, Bytes};
use uuid::Uuid;

use crate::entry::{EntryKind, LogEntry};
use crate::recovered::{FileTrust, HardState, LogIdentity, LogStart, StoredConf};

/// Bytes of a record before its body.
pub(in crate::node) const RECORD_HEADER_BYTES: usize = 56;
/// The last record of its round.
pub(in crate::node) const FLAG_LAST: u8 = 1;
/// Bytes of an entry's body before its payload.
pub(in crate::node) const ENTRY_BODY_BYTES: usize = 32;
/// Bytes of a state's body before the configuration.
pub(in crate::node) const STATE_BODY_BYTES: usize = 104;

const BIT_MAY_BE_SHORT: u32 = 1;
const BIT_RECOVERING: u32 = 2;
const BIT_CUT: u32 = 4;

/// What is known of a replica's completeness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// Entries may have been acknowledged from memory (R2).
    pub may_be_short: bool,
    /// The replica neither votes nor leads until it is refilled (R1).
    pub recovering: bool,
}

impl Flags {
    fn bits(self) -> u32 {
        u32::from(self.may_be_short) * BIT_MAY_BE_SHORT
            + u32::from(self.recovering) * BIT_RECOVERING
    }

    fn from_bits(bits: u32) -> Self {
        Self {
            may_be_short: bits & BIT_MAY_BE_SHORT != 0,
            recovering: bits & BIT_RECOVERING != 0,
        }
    }
}

/// All of a group's state but its entries, as a checkpoint writes it forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateBody {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// Where the log was created or last reset.
    pub start: LogStart,
    /// Term, vote, commit.
    pub hard_state: HardState,
    /// The applied configuration.
    pub conf: StoredConf,
    /// Everything at or below is durable.
    pub durable_index: u64,
    /// Completeness.
    pub flags: Flags,
    /// A cut whose files may not have been cut; 0 is a reset.
    pub unfinished_cut: Option<u64>,
    /// Number of the side file that holds the entries of before this record; 0 is none (W6).
    pub side_file: u64,
}

/// The body of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordBody {
    /// A round that had nothing to say.
    Nothing,
    /// Term, vote and commit.
    HardState(HardState),
    /// A log entry, whole.
    Entry(LogEntry),
    /// Kills the group's earlier entries at or above `first` (W2).
    Cut {
        /// First index dropped.
        first: u64,
        /// The durable index behind the cut.
        durable_index: u64,
    },
    /// The files have been cut.
    CutDone,
    /// The applied configuration.
    Conf(StoredConf),
    /// Everything at or below the index was durable in the files or here before this round (I6).
    Durable(u64),
    /// The replica came to be (I12).
    Creation {
        /// The topic.
        topic_id: Uuid,
        /// The partition.
        partition: i32,
        /// Where its log begins.
        start: LogStart,
    },
    /// A metadata-only snapshot replaced the log: a cut of everything, and a new start.
    Reset(LogStart),
    /// The replica is no more.
    Removal,
    /// Completeness.
    Flags(Flags),
    /// All but the entries, written by a checkpoint.
    State(Box<StateBody>),
    /// What a failed flush has left of the group's files (W8).
    FileTrust(FileTrust),
    /// The sidecars were synced up to this index when a checkpoint began (R13).
    SidecarSynced(u64),
}

impl RecordBody {
    /// The kind's number in the file.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::HardState(_) => 1,
            Self::Entry(_) => 2,
            Self::Cut { .. } => 3,
            Self::CutDone => 4,
            Self::Conf(_) => 5,
            Self::Durable(_) => 6,
            Self::Creation { .. } => 7,
            Self::Reset(_) => 8,
            Self::Removal => 9,
            Self::Flags(_) => 10,
            Self::State(_) => 11,
            Self::FileTrust(_) => 12,
            Self::SidecarSynced(_) => 13,
        }
    }

    /// The kind's name, for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::HardState(_) => "hard-state",
            Self::Entry(_) => "entry",
            Self::Cut { .. } => "cut",
            Self::CutDone => "cut-done",
            Self::Conf(_) => "conf",
            Self::Durable(_) => "durable",
            Self::Creation { .. } => "creation",
            Self::Reset(_) => "reset",
            Self::Removal => "removal",
            Self::Flags(_) => "flags",
            Self::State(_) => "state",
            Self::FileTrust(_) => "file-trust",
            Self::SidecarSynced(_) => "sidecar-synced",
        }
    }

    /// Bytes of the whole record.
    pub(in crate::node) fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES
            + match self {
                Self::Nothing | Self::CutDone | Self::Removal => 0,
                Self::HardState(_) | Self::Reset(_) => 24,
                Self::Entry(entry) => ENTRY_BODY_BYTES + entry.payload.len(),
                Self::Cut { .. } => 16,
                Self::Conf(conf) => 8 + conf.bytes.len(),
                Self::Durable(_) | Self::SidecarSynced(_) => 8,
                Self::Creation { .. } => 48,
                Self::Flags(_) | Self::FileTrust(_) => 4,
                Self::State(state) => STATE_BODY_BYTES + state.conf.bytes.len(),
            }
    }

    /// Appends the body without the payload, configuration or other trailing bytes, which are
    /// returned so that they need not be copied.
    pub(in crate::node) fn encode<'a>(&'a self, out: &mut Vec<u8>) -> &'a [u8] {
        match self {
            Self::Nothing | Self::CutDone | Self::Removal => {}
            Self::HardState(hard_state) => put_hard_state(out, hard_state),
            Self::Entry(entry) => {
                encode_entry(entry, out);
                return &entry.payload;
            }
            Self::Cut {
                first,
                durable_index,
            } => {
                out.put_u64_le(*first);
                out.put_u64_le(*durable_index);
            }
            Self::Conf(conf) => {
                out.put_u64_le(conf.index);
                return &conf.bytes;
            }
            Self::Durable(index) | Self::SidecarSynced(index) => out.put_u64_le(*index),
            Self::Creation {
                topic_id,
                partition,
                start,
            } => {
                out.put_slice(topic_id.as_bytes());
                out.put_i32_le(*partition);
                out.put_u32_le(0);
                put_start(out, start);
            }
            Self::Reset(start) => put_start(out, start),
            Self::Flags(flags) => out.put_u32_le(flags.bits()),
            Self::FileTrust(trust) => out.put_u32_le(*trust as u32),
            Self::State(state) => {
                out.put_slice(state.topic_id.as_bytes());
                out.put_i32_le(state.partition);
                let cut = if state.unfinished_cut.is_some() {
                    BIT_CUT
                } else {
                    0
                };
                out.put_u32_le(state.flags.bits() | cut);
                put_start(out, &state.start);
                put_hard_state(out, &state.hard_state);
                out.put_u64_le(state.durable_index);
                out.put_u64_le(state.unfinished_cut.unwrap_or(0));
                out.put_u64_le(state.side_file);
                out.put_u64_le(state.conf.index);
                return &state.conf.bytes;
            }
        }
        &[]
    }

    /// Reads a body whose checksum was good; `None` is an unknown kind or a wrong length.
    pub(in crate::node) fn decode(kind: u8, body: Bytes) -> Option<Self> {
        let mut rest = body;
        let decoded = match kind {
            0 => Self::Nothing,
            1 => Self::HardState(get_hard_state(&mut rest)?),
            2 => return Some(Self::Entry(decode_entry(rest)?)),
            3 => Self::Cut {
                first: rest.try_get_u64_le().ok()?,
                durable_index: rest.try_get_u64_le().ok()?,
            },
            4 => Self::CutDone,
            5 => {
                let index = rest.try_get_u64_le().ok()?;
                return Some(Self::Conf(StoredConf { index, bytes: rest }));
            }
            6 => Self::Durable(rest.try_get_u64_le().ok()?),
            7 => {
                let topic_id = get_uuid(&mut rest)?;
                let partition = rest.try_get_i32_le().ok()?;
                rest.try_get_u32_le().ok()?;
                Self::Creation {
                    topic_id,
                    partition,
                    start: get_start(&mut rest)?,
                }
            }
            8 => Self::Reset(get_start(&mut rest)?),
            9 => Self::Removal,
            10 => Self::Flags(Flags::from_bits(rest.try_get_u32_le().ok()?)),
            11 => {
                let topic_id = get_uuid(&mut rest)?;
                let partition = rest.try_get_i32_le().ok()?;
                let bits = rest.try_get_u32_le().ok()?;
                let start = get_start(&mut rest)?;
                let hard_state = get_hard_state(&mut rest)?;
                let durable_index = rest.try_get_u64_le().ok()?;
                let cut = rest.try_get_u64_le().ok()?;
                let side_file = rest.try_get_u64_le().ok()?;
                let conf_index = rest.try_get_u64_le().ok()?;
                return Some(Self::State(Box::new(StateBody {
                    topic_id,
                    partition,
                    start,
                    hard_state,
                    conf: StoredConf {
                        index: conf_index,
                        bytes: rest,
                    },
                    durable_index,
                    flags: Flags::from_bits(bits),
                    unfinished_cut: (bits & BIT_CUT != 0).then_some(cut),
                    side_file,
                })));
            }
            12 => Self::FileTrust(match rest.try_get_u32_le().ok()? {
                0 => FileTrust::Sound,
                1 => FileTrust::Suspect,
                2 => FileTrust::Poisoned,
                _ => return None,
            }),
            13 => Self::SidecarSynced(rest.try_get_u64_le().ok()?),
            _ => return None,
        };
        rest.is_empty().then_some(decoded)
    }
}

impl StateBody {
    pub(in crate::node) fn identity(&self, group: u64, replica: u64) -> LogIdentity {
        LogIdentity {
            group,
            replica,
            topic_id: self.topic_id,
            partition: self.partition,
        }
    }
}

/// An entry's body up to its payload; also the form in a side file.
pub(in crate::node) fn encode_entry(entry: &LogEntry, out: &mut Vec<u8>) {
    out.put_u64_le(entry.index);
    out.put_u64_le(entry.term);
    out.put_i64_le(entry.base_offset);
    out.put_u32_le(entry.last_offset_delta);
    out.put_u8(entry.kind as u8);
    out.put_bytes(0, 3);
}

/// The entry of a body; what is left is its payload.
pub(in crate::node) fn decode_entry(mut body: Bytes) -> Option<LogEntry> {
    let index = body.try_get_u64_le().ok()?;
    let term = body.try_get_u64_le().ok()?;
    let base_offset = body.try_get_i64_le().ok()?;
    let last_offset_delta = body.try_get_u32_le().ok()?;
    let kind = EntryKind::from_u8(body.try_get_u8().ok()?)?;
    if body.len() < 3 {
        return None;
    }
    body.advance(3);
    Some(LogEntry {
        index,
        term,
        kind,
        base_offset,
        last_offset_delta,
        payload: body,
    })
}

fn put_hard_state(out: &mut Vec<u8>, hard_state: &HardState) {
    out.put_u64_le(hard_state.term);
    out.put_u64_le(hard_state.vote);
    out.put_u64_le(hard_state.commit);
}

fn get_hard_state(rest: &mut Bytes) -> Option<HardState> {
    Some(HardState {
        term: rest.try_get_u64_le().ok()?,
        vote: rest.try_get_u64_le().ok()?,
        commit: rest.try_get_u64_le().ok()?,
    })
}

fn put_start(out: &mut Vec<u8>, start: &LogStart) {
    out.put_u64_le(start.prev_index);
    out.put_u64_le(start.prev_term);
    out.put_i64_le(start.offset);
}

fn get_start(rest: &mut Bytes) -> Option<LogStart> {
    Some(LogStart {
        prev_index: rest.try_get_u64_le().ok()?,
        prev_term: rest.try_get_u64_le().ok()?,
        offset: rest.try_get_i64_le().ok()?,
    })
}

fn get_uuid(rest: &mut Bytes) -> Option<Uuid> {
    let mut bytes = [0; 16];
    rest.try_copy_to_slice(&mut bytes).ok()?;
    Some(Uuid::from_bytes(bytes))
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of header and body.
    pub length: u32,
    /// Checksum of all behind it, begun with the WAL's salt.
    pub crc: u32,
    /// Checksum of the record before.
    pub prev_crc: u32,
    /// The body's kind.
    pub kind: u8,
    /// Whether it is the last of its round.
    pub last: bool,
    /// How often the ring had been filled when it was written.
    pub lap: u32,
    /// The incarnation of the process that wrote it.
    pub generation: u32,
    /// The flush round.
    pub round: u64,
    /// The group, 0 is also that of records that concern none.
    pub group: u64,
    /// The replica.
    pub replica: u64,
    /// Number of the record among those of its group, so that a gap shows whom it concerns.
    pub sequence: u64,
}

impl RecordHeader {
    /// Everything behind length and checksum.
    pub(in crate::node) fn encode_tail(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.prev_crc);
        out.put_u8(self.kind);
        out.put_u8(if self.last { FLAG_LAST } else { 0 });
        out.put_u16_le(0);
        out.put_u32_le(self.lap);
        out.put_u32_le(self.generation);
        out.put_u64_le(self.round);
        out.put_u64_le(self.group);
        out.put_u64_le(self.replica);
        out.put_u64_le(self.sequence);
    }

    pub(in crate::node) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let length = rest.try_get_u32_le().ok()?;
        let crc = rest.try_get_u32_le().ok()?;
        let prev_crc = rest.try_get_u32_le().ok()?;
        let kind = rest.try_get_u8().ok()?;
        let flags = rest.try_get_u8().ok()?;
        rest.try_get_u16_le().ok()?;
        Some(Self {
            length,
            crc,
            prev_crc,
            kind,
            last: flags & FLAG_LAST != 0,
            lap: rest.try_get_u32_le().ok()?,
            generation: rest.try_get_u32_le().ok()?,
            round: rest.try_get_u64_le().ok()?,
            group: rest.try_get_u64_le().ok()?,
            replica: rest.try_get_u64_le().ok()?,
            sequence: rest.try_get_u64_le().ok()?,
        })
    }
}
