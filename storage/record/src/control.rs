//! Control batches: records that brokers write for brokers, one in a batch.
//!
//! ```text
//! key     version i16 = 0, type i16 (0 abort, 1 commit, 2 leader change, 3.. others)
//! value   abort, commit:  version i16 = 0, coordinator epoch i32
//!         leader change:  version i16, leader i32, voters, granting voters, tags
//!                         voters: count + 1 as unsigned varint; each: id i32,
//!                                 directory id (16 bytes, from version 1), tags
//! ```
//!
//! Readers take a newer version for the newest they know, as Kafka's do: fields are only added.

use bytes::{Buf, BufMut, Bytes};

use crate::batch::{BatchView, TimestampType};
use crate::builder::BatchBuilder;
use crate::compression::Compression;
use crate::error::BatchError;
use crate::layout::NO_SEQUENCE;
use crate::varint;

const KEY_VERSION: i16 = 0;
const TYPE_ABORT: i16 = 0;
const TYPE_COMMIT: i16 = 1;
const TYPE_LEADER_CHANGE: i16 = 2;
const END_TXN_VERSION: i16 = 0;

/// What a control batch says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlRecord {
    /// A producer's transaction ended in this partition.
    EndTxn(EndTxnMarker),
    /// A leader was elected.
    LeaderChange(LeaderChange),
    /// A type that means nothing here; readers pass over it.
    Other {
        /// The type in its key.
        type_id: i16,
    },
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTxnMarker {
    /// Committed, or else aborted.
    pub is_commit: bool,
    /// Epoch of the coordinator that ended it.
    pub coordinator_epoch: i32,
}

/// An election's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaderChange {
    /// The node that leads.
    pub leader_id: i32,
    /// All who may vote.
    pub voters: Vec<Voter>,
    /// Those who voted for the leader.
    pub granting_voters: Vec<Voter>,
}

/// A voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voter {
    /// Its node id.
    pub id: i32,
    /// The id of its directory; version 1 is written when any voter has one.
    pub directory_id: Option<[u8; 16]>,
}

impl ControlRecord {
    /// Reads the record of a control batch.
    ///
    /// # Errors
    /// `InvalidBatch` when it is no control batch or has no record; `InvalidRecord` when key or
    /// value are not as the type wants them.
    pub fn of_batch(batch: &BatchView<'_>) -> Result<Self, BatchError> {
        if !batch.is_control() {
            return Err(BatchError::InvalidBatch {
                what: "it is not a control batch",
            });
        }
        let mut records = batch.plain_records().ok_or(BatchError::InvalidBatch {
            what: "it is a compressed control batch",
        })?;
        let record = records.next().ok_or(BatchError::InvalidBatch {
            what: "it has no records",
        })??;
        Self::decode(
            record.key.unwrap_or_default(),
            record.value.unwrap_or_default(),
        )
    }

    /// Reads the key and value of a control record.
    ///
    /// # Errors
    /// `InvalidRecord` when they are not as the type wants them.
    pub fn decode(mut key: &[u8], value: &[u8]) -> Result<Self, BatchError> {
        let bad_key = BatchError::record(0, "its control key is damaged");
        let version = key.try_get_i16().map_err(|_| bad_key.clone())?;
        let type_id = key.try_get_i16().map_err(|_| bad_key.clone())?;
        if version < 0 {
            return Err(bad_key);
        }
        match type_id {
            TYPE_ABORT | TYPE_COMMIT => decode_end_txn(type_id == TYPE_COMMIT, value)
                .map(Self::EndTxn)
                .ok_or(BatchError::record(0, "its transaction marker is damaged")),
            TYPE_LEADER_CHANGE => decode_leader_change(value)
                .map(Self::LeaderChange)
                .ok_or(BatchError::record(0, "its leader change is damaged")),
            type_id => Ok(Self::Other { type_id }),
        }
    }
}

impl EndTxnMarker {
    /// A batch that holds this marker for a producer. Base offset and leader epoch are stamped
    /// when it is appended.
    ///
    /// # Errors
    /// As [`BatchBuilder::build`].
    pub fn to_batch(
        self,
        timestamp_ms: i64,
        producer_id: i64,
        producer_epoch: i16,
    ) -> Result<Bytes, BatchError> {
        let mut value = Vec::with_capacity(6);
        value.put_i16(END_TXN_VERSION);
        value.put_i32(self.coordinator_epoch);
        let type_id = if self.is_commit {
            TYPE_COMMIT
        } else {
            TYPE_ABORT
        };
        let builder = BatchBuilder::new(Compression::None, None)
            .producer(producer_id, producer_epoch, NO_SEQUENCE)
            .transactional(true);
        build(builder, timestamp_ms, type_id, &value)
    }
}

impl LeaderChange {
    /// A batch that holds this record.
    ///
    /// # Errors
    /// As [`BatchBuilder::build`].
    pub fn to_batch(&self, timestamp_ms: i64) -> Result<Bytes, BatchError> {
        let mut all = self.voters.iter().chain(&self.granting_voters);
        let version = i16::from(all.any(|voter| voter.directory_id.is_some()));
        let mut value = Vec::new();
        value.put_i16(version);
        value.put_i32(self.leader_id);
        put_voters(&mut value, version, &self.voters);
        put_voters(&mut value, version, &self.granting_voters);
        varint::put_u32(&mut value, 0);
        let builder = BatchBuilder::new(Compression::None, None);
        build(builder, timestamp_ms, TYPE_LEADER_CHANGE, &value)
    }
}

fn build(
    builder: BatchBuilder,
    timestamp_ms: i64,
    type_id: i16,
    value: &[u8],
) -> Result<Bytes, BatchError> {
    let mut key = Vec::with_capacity(4);
    key.put_i16(KEY_VERSION);
    key.put_i16(type_id);
    let mut builder = builder
        .control(true)
        .timestamp_type(TimestampType::CreateTime);
    builder.append(timestamp_ms, Some(&key), Some(value), &[])?;
    builder.build()
}

fn decode_end_txn(is_commit: bool, mut value: &[u8]) -> Option<EndTxnMarker> {
    let version = value.try_get_i16().ok()?;
    let coordinator_epoch = value.try_get_i32().ok()?;
    (version >= 0).then_some(EndTxnMarker {
        is_commit,
        coordinator_epoch,
    })
}

fn decode_leader_change(mut value: &[u8]) -> Option<LeaderChange> {
    let version = value.try_get_i16().ok()?;
    let leader_id = value.try_get_i32().ok()?;
    if version < 0 {
        return None;
    }
    let voters = take_voters(&mut value, version)?;
    let granting_voters = take_voters(&mut value, version)?;
    skip_tags(&mut value)?;
    Some(LeaderChange {
        leader_id,
        voters,
        granting_voters,
    })
}

fn put_voters(out: &mut Vec<u8>, version: i16, voters: &[Voter]) {
    varint::put_u32(out, u32::try_from(voters.len() + 1).unwrap_or(u32::MAX));
    for voter in voters {
        out.put_i32(voter.id);
        if version >= 1 {
            out.put_slice(&voter.directory_id.unwrap_or_default());
        }
        varint::put_u32(out, 0);
    }
}

fn take_voters(value: &mut &[u8], version: i16) -> Option<Vec<Voter>> {
    let count = varint::get_u32(value)?.checked_sub(1)?;
    // Grown as voters are found, so a hostile count costs nothing.
    let mut voters = Vec::new();
    for _ in 0..count {
        let id = value.try_get_i32().ok()?;
        let directory_id = if version >= 1 {
            let (directory_id, rest) = value.split_first_chunk::<16>()?;
            *value = rest;
            Some(*directory_id)
        } else {
            None
        };
        skip_tags(value)?;
        voters.push(Voter { id, directory_id });
    }
    Some(voters)
}

fn skip_tags(value: &mut &[u8]) -> Option<()> {
    let count = varint::get_u32(value)?;
    for _ in 0..count {
        let _tag = varint::get_u32(value)?;
        let len = usize::try_from(varint::get_u32(value)?).ok()?;
        *value = value.get(len..)?;
    }
    Some(())
}
