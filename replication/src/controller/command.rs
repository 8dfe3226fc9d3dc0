//! The commands, and how they lie in the log of group 0.
//!
//! ```text
//! record value  version u8 = 1 | one prost message, `CommandRecord`
//! ```
//! A batch holds one record for each command, without keys, headers or compression. Everything else
//! about it is an ordinary record batch, so that group 0's files are read by the same tools.

use std::collections::BTreeMap;

use bytes::BytesMut;
use prost::{Message, Oneof};
use riverrun_record::{
    BatchBuilder, BatchError, BatchView, Compression, NO_TIMESTAMP, increment_sequence,
};

/// The first byte of a record's value.
pub const COMMAND_VERSION: u8 = 1;
/// Longest command that is taken: a topic of 10,000 partitions with 15 brokers each is below it.
const MAX_COMMAND_BYTES: usize = 4 << 20;

/// A change of the cluster's state.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Command {
    /// The cluster gets its id.
    #[prost(message, tag = "1")]
    FoundCluster(FoundCluster),
    /// A broker has started.
    #[prost(message, tag = "2")]
    RegisterBroker(RegisterBroker),
    /// A broker goes out of service, or comes back.
    #[prost(message, tag = "3")]
    FenceBroker(FenceBroker),
    /// A topic is created.
    #[prost(message, tag = "4")]
    CreateTopic(CreateTopic),
    /// A topic gets more partitions.
    #[prost(message, tag = "5")]
    AddPartitions(AddPartitions),
    /// Settings of a topic change.
    #[prost(message, tag = "6")]
    SetTopicConfigs(SetTopicConfigs),
    /// A topic is being deleted.
    #[prost(message, tag = "7")]
    MarkTopicClosing(MarkTopicClosing),
    /// A topic is gone.
    #[prost(message, tag = "8")]
    RemoveTopic(RemoveTopic),
    /// Producer ids are set aside.
    #[prost(message, tag = "9")]
    AllocateProducerIds(AllocateProducerIds),
    /// A replica is replaced by a new one.
    #[prost(message, tag = "10")]
    ReplaceReplica(ReplaceReplica),
    /// A node has nothing left of topics that were removed.
    #[prost(message, tag = "26")]
    TopicsGone(TopicsGone),
}

#[derive(Clone, PartialEq, Message)]
struct CommandRecord {
    #[prost(oneof = "Command", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 26")]
    command: Option<Command>,
}

/// See [`Command::FoundCluster`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FoundCluster {
    /// The 16 bytes of the id.
    #[prost(bytes = "vec", tag = "1")]
    pub cluster_id: Vec<u8>,
    /// The nodes that founded it, each with a voter of group 0.
    #[prost(message, repeated, tag = "2")]
    pub founders: Vec<Founder>,
}

/// A node that founded the cluster.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Founder {
    /// Its `node.id`.
    #[prost(int32, tag = "1")]
    pub node: i32,
    /// The 16 bytes of its data directory's id.
    #[prost(bytes = "vec", tag = "2")]
    pub directory: Vec<u8>,
    /// Its replica of group 0.
    #[prost(uint64, tag = "3")]
    pub replica: u64,
}

/// See [`Command::RegisterBroker`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegisterBroker {
    /// Its `node.id`.
    #[prost(int32, tag = "1")]
    pub node: i32,
    /// The 16 bytes of its data directory's id.
    #[prost(bytes = "vec", tag = "2")]
    pub directory: Vec<u8>,
    /// How often it has started on that directory.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// Where clients find it.
    #[prost(string, tag = "4")]
    pub host: String,
    /// Where clients find it.
    #[prost(uint32, tag = "5")]
    pub port: u32,
    /// Its rack, empty where it has none.
    #[prost(string, tag = "6")]
    pub rack: String,
    /// Where other nodes find it.
    #[prost(string, tag = "7")]
    pub peer_host: String,
    /// Where other nodes find it.
    #[prost(uint32, tag = "8")]
    pub peer_port: u32,
    /// What was drawn at the start of this incarnation.
    #[prost(fixed64, tag = "9")]
    pub token: u64,
    /// The 16 bytes of the id of the node's data directory that this one takes the place of, none of it
    /// where whoever registers knows of no other: another one is not displaced. Not there in logs of
    /// versions that did not ask.
    #[prost(bytes = "vec", optional, tag = "10")]
    pub replaces: Option<Vec<u8>>,
    /// What it has room for. Not there in logs of versions that did not say, and where nothing limits it.
    #[prost(message, optional, tag = "15")]
    pub room: Option<Room>,
}

/// What a node has room for.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Room {
    /// Files and sockets that its process may have open (`ulimit -n`).
    #[prost(uint64, tag = "1")]
    pub descriptors: u64,
    /// Replicas that it can have open at once with that, beside the one of group 0.
    #[prost(uint32, tag = "2")]
    pub replicas: u32,
}

/// See [`Command::FenceBroker`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct FenceBroker {
    /// Its `node.id`.
    #[prost(int32, tag = "1")]
    pub node: i32,
    /// Whether it is out of service from now on.
    #[prost(bool, tag = "2")]
    pub fenced: bool,
}

/// See [`Command::CreateTopic`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateTopic {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The 16 bytes of its id.
    #[prost(bytes = "vec", tag = "2")]
    pub id: Vec<u8>,
    /// Its partitions. They get their group and replica ids when the command is applied.
    #[prost(message, repeated, tag = "3")]
    pub partitions: Vec<NewPartition>,
    /// The settings that differ from the defaults.
    #[prost(btree_map = "string, string", tag = "4")]
    pub configs: BTreeMap<String, String>,
}

/// A partition to be made.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NewPartition {
    /// The nodes of its replicas, the preferred leader first. Each replica is bound to the data
    /// directory that the node has when the command is applied.
    #[prost(int32, repeated, tag = "1")]
    pub nodes: Vec<i32>,
}

/// See [`Command::AddPartitions`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AddPartitions {
    /// The 16 bytes of the topic's id.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// The number of the first new one; any other than the topic's next number is refused, so that
    /// a repeated command adds nothing.
    #[prost(uint32, tag = "2")]
    pub first: u32,
    /// The new ones.
    #[prost(message, repeated, tag = "3")]
    pub partitions: Vec<NewPartition>,
}

/// See [`Command::SetTopicConfigs`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SetTopicConfigs {
    /// The 16 bytes of the topic's id.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Settings that get a value.
    #[prost(btree_map = "string, string", tag = "2")]
    pub set: BTreeMap<String, String>,
    /// Settings that get their default back.
    #[prost(string, repeated, tag = "3")]
    pub unset: Vec<String>,
}

/// See [`Command::MarkTopicClosing`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MarkTopicClosing {
    /// The 16 bytes of the topic's id.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
}

/// See [`Command::RemoveTopic`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RemoveTopic {
    /// The 16 bytes of the topic's id.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
}

/// See [`Command::AllocateProducerIds`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct AllocateProducerIds {
    /// How many.
    #[prost(uint32, tag = "1")]
    pub count: u32,
}

/// See [`Command::ReplaceReplica`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReplaceReplica {
    /// The 16 bytes of the topic's id.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// The partition's number.
    #[prost(uint32, tag = "2")]
    pub partition: u32,
    /// The replica that goes.
    #[prost(uint64, tag = "3")]
    pub old: u64,
    /// The node that gets the new one.
    #[prost(int32, tag = "4")]
    pub node: i32,
    /// The replicas on whose word the old one is lost and may go; the command changes nothing where the
    /// partition has others by then (R9). Not there where a sound replica moves and nobody was asked.
    #[prost(message, optional, tag = "5")]
    pub on_word: Option<OnWord>,
}

/// The replicas of a partition that a word was given of.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OnWord {
    /// Their ids.
    #[prost(uint64, repeated, tag = "1")]
    pub others: Vec<u64>,
    /// Whether the group had exactly the partition's replicas for voters, the one that goes among them, and
    /// no change of them was under way.
    #[prost(bool, tag = "2")]
    pub settled: bool,
}

/// See [`Command::TopicsGone`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TopicsGone {
    /// The node's `node.id`.
    #[prost(int32, tag = "1")]
    pub node: i32,
    /// The 16 bytes of each topic's id.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub topics: Vec<Vec<u8>>,
}

/// A batch of group 0 that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadCommand {
    /// It is no sound record batch.
    #[error("a batch of commands is damaged")]
    Batch(#[from] BatchError),
    /// A record is no command.
    #[error("record {record} of a batch of commands: {what}")]
    Record {
        /// Which record of the batch, from 0.
        record: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A decoded batch.
pub(super) struct DecodedBatch {
    pub(super) commands: Vec<Command>,
    pub(super) next_offset: i64,
}

/// Encodes commands as one record batch, not stamped with an offset yet. Its records carry no time.
///
/// # Errors
/// [`BadCommand`] where there is no command, or one that would be refused when it is read.
pub fn encode_batch(commands: &[Command]) -> Result<BytesMut, BadCommand> {
    encode_numbered_batch(commands, None)
}

/// The same with the numbers of an idempotent producer, so that a batch of which nobody knows whether
/// it was written can be written again.
///
/// # Errors
/// As [`encode_batch`].
pub fn encode_numbered_batch(
    commands: &[Command],
    numbers: Option<Numbers>,
) -> Result<BytesMut, BadCommand> {
    let mut builder = BatchBuilder::new(Compression::None, None);
    if let Some(of) = numbers {
        builder = builder.producer(of.producer_id, of.epoch, of.base_sequence);
    }
    for (number, command) in commands.iter().enumerate() {
        let record = CommandRecord {
            command: Some(command.clone()),
        };
        let mut value = Vec::with_capacity(1 + record.encoded_len());
        value.push(COMMAND_VERSION);
        value.extend_from_slice(&record.encode_to_vec());
        if value.len() > MAX_COMMAND_BYTES {
            return Err(BadCommand::Record {
                record: number,
                what: "it is too long",
            });
        }
        builder.append(NO_TIMESTAMP, None, Some(&value), &[])?;
    }
    Ok(builder.build_mut()?)
}

/// The numbers that the log knows a batch by (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Who writes it: a number of a node's start, of nothing else.
    pub producer_id: i64,
    /// Raised where nobody knows what became of an earlier batch, which then cannot be written any more.
    pub epoch: i16,
    /// How many commands he has written before in this epoch.
    pub base_sequence: i32,
}

impl Numbers {
    /// The numbers of a batch, where it has any.
    #[must_use]
    pub fn of_batch(batch: &[u8]) -> Option<Self> {
        let view = BatchView::parse(batch).ok()?;
        (view.producer_id() >= 0).then(|| Self {
            producer_id: view.producer_id(),
            epoch: view.producer_epoch(),
            base_sequence: view.base_sequence(),
        })
    }

    /// Those behind a batch of so many commands.
    #[must_use]
    pub fn after(self, commands: usize) -> Self {
        let commands = i32::try_from(commands).unwrap_or(i32::MAX);
        Self {
            base_sequence: increment_sequence(self.base_sequence, commands),
            ..self
        }
    }

    /// Those of the next epoch, with which everything of this one is out of date.
    #[must_use]
    pub fn next_epoch(self) -> Self {
        let (producer_id, epoch) = match self.epoch.checked_add(1) {
            Some(epoch) => (self.producer_id, epoch),
            None => (self.producer_id.wrapping_add(1) & i64::MAX, 0),
        };
        Self {
            producer_id,
            epoch,
            base_sequence: 0,
        }
    }
}

/// Decodes the commands of one record batch.
///
/// # Errors
/// [`BadCommand`] where the bytes are anything but commands that this version knows.
pub fn decode_batch(batch: &[u8]) -> Result<Vec<Command>, BadCommand> {
    decode_batch_at(batch).map(|decoded| decoded.commands)
}

pub(super) fn decode_batch_at(batch: &[u8]) -> Result<DecodedBatch, BadCommand> {
    let view = BatchView::parse(batch)?;
    view.check_stored()?;
    let bad = |record, what| Err(BadCommand::Record { record, what });
    let Some(records) = view.plain_records() else {
        return bad(0, "batches of commands are not compressed");
    };
    let mut commands = Vec::new();
    for (number, record) in records.enumerate() {
        match decode_command(record?.value) {
            Ok(command) => commands.push(command),
            Err(what) => return bad(number, what),
        }
    }
    Ok(DecodedBatch {
        commands,
        next_offset: view.next_offset(),
    })
}

/// Decodes the value of one record.
///
/// # Errors
/// What is wrong with it: it is anything but a command that this version knows.
pub fn decode_command(value: Option<&[u8]>) -> Result<Command, &'static str> {
    let value = value.ok_or("it has no value")?;
    if value.len() > MAX_COMMAND_BYTES {
        return Err("it is too long");
    }
    let Some((&COMMAND_VERSION, message)) = value.split_first() else {
        return Err("it is of a version that this program does not know");
    };
    let record = CommandRecord::decode(message).map_err(|_| "it cannot be decoded")?;
    record
        .command
        .ok_or("it is a command that this program does not know")
}
