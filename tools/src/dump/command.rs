//! The commands of the controller's log.
//!
//! Group 0 has ordinary batches, of which each record is a command. What its fields are called here
//! is what `docs/formats/controller-commands.md` calls them.

use riverrun_record::{BatchView, Compression, Record};
use riverrun_replication::controller::{COMMAND_VERSION, Command, NewPartition, decode_command};
use riverrun_replication::node::{CONTROLLER_DIR, CONTROLLER_GROUP};
use riverrun_storage::format::SegmentFile;
use uuid::Uuid;

use super::input::{Failure, Input};
use super::line::{Line, Value};
use super::sidecar::read_header;

/// Whether a segment is one of the controller's log: its directory has that name, or the sidecar
/// beside it is of that group.
pub(super) fn is_controllers(input: &Input, base_offset: Option<i64>) -> Result<bool, Failure> {
    let Some(dir) = input.path().parent() else {
        return Ok(false);
    };
    if dir.file_name().is_some_and(|name| name == CONTROLLER_DIR) {
        return Ok(true);
    }
    let beside = base_offset.map(|base| Input::open_beside(&SegmentFile::Raft.path(dir, base)));
    let Some(Ok(Some(mut raft))) = beside else {
        return Ok(false);
    };
    let header = read_header(&mut raft)?;
    Ok(header.is_ok_and(|(header, _)| header.identity.group == CONTROLLER_GROUP))
}

/// What keeps a node from reading a batch of commands, apart from its records.
pub(super) fn fault(batch: &BatchView<'_>) -> Option<&'static str> {
    let is_plain = batch.compression() == Ok(Compression::None);
    (!is_plain).then_some("a batch of commands is compressed")
}

/// Shows a record as the command that it is, or says why it is none.
pub(super) fn show(
    record: &Record<'_>,
    offset: i64,
    show: impl FnOnce(&Line<'_>) -> Result<(), Failure>,
) -> Result<Result<(), &'static str>, Failure> {
    let command = match decode_command(record.value) {
        Ok(command) => command,
        Err(what) => return Ok(Err(what)),
    };
    let line = Line::new("command")
        .detail("offset", offset)
        .detail("version", u32::from(COMMAND_VERSION));
    show(&fields(line, &command))?;
    Ok(Ok(()))
}

fn fields<'a>(line: Line<'a>, command: &'a Command) -> Line<'a> {
    match command {
        Command::FoundCluster(found) => line
            .detail("command", "FoundCluster")
            .detail("cluster_id", id(&found.cluster_id))
            .detail(
                "founders",
                Value::List(found.founders.iter().map(|f| f.node.into()).collect()),
            ),
        Command::RegisterBroker(broker) => line
            .detail("command", "RegisterBroker")
            .detail("node", broker.node)
            .detail("directory_id", id(&broker.directory))
            .detail("incarnation", broker.incarnation)
            .detail("host", broker.host.as_str())
            .detail("port", broker.port)
            .detail("rack", broker.rack.as_str())
            .detail("peer_host", broker.peer_host.as_str())
            .detail("peer_port", broker.peer_port)
            .room(broker.room),
        Command::FenceBroker(fence) => line
            .detail("command", "FenceBroker")
            .detail("node", fence.node)
            .detail("fenced", Value::Answer(fence.fenced)),
        Command::CreateTopic(create) => line
            .detail("command", "CreateTopic")
            .detail("name", create.name.as_str())
            .detail("topic_id", id(&create.id))
            .detail("partitions", nodes(&create.partitions))
            .detail("configs", Value::Map(&create.configs)),
        Command::AddPartitions(add) => line
            .detail("command", "AddPartitions")
            .detail("topic_id", id(&add.id))
            .detail("first", add.first)
            .detail("partitions", nodes(&add.partitions)),
        Command::SetTopicConfigs(set) => line
            .detail("command", "SetTopicConfigs")
            .detail("topic_id", id(&set.id))
            .detail("set", Value::Map(&set.set))
            .detail(
                "unset",
                Value::List(set.unset.iter().map(|name| name.as_str().into()).collect()),
            ),
        Command::MarkTopicClosing(closing) => line
            .detail("command", "MarkTopicClosing")
            .detail("topic_id", id(&closing.id)),
        Command::RemoveTopic(remove) => line
            .detail("command", "RemoveTopic")
            .detail("topic_id", id(&remove.id)),
        Command::AllocateProducerIds(ids) => line
            .detail("command", "AllocateProducerIds")
            .detail("count", ids.count),
        Command::ReplaceReplica(replace) => line
            .detail("command", "ReplaceReplica")
            .detail("topic_id", id(&replace.id))
            .detail("partition", replace.partition)
            .detail("old_replica", replace.old)
            .detail("node", replace.node)
            .detail(
                "on_word_of",
                Value::List(
                    replace
                        .on_word
                        .iter()
                        .flat_map(|word| &word.others)
                        .map(|replica| (*replica).into())
                        .collect(),
                ),
            )
            .detail(
                "settled",
                replace.on_word.as_ref().is_some_and(|word| word.settled),
            ),
        Command::TopicsGone(gone) => line
            .detail("command", "TopicsGone")
            .detail("node", gone.node)
            .detail(
                "topic_ids",
                Value::List(gone.topics.iter().map(|topic| id(topic)).collect()),
            ),
    }
}

/// An id, if the bytes are one.
fn id(bytes: &[u8]) -> Value<'_> {
    Uuid::from_slice(bytes).map_or(Value::from(bytes), Value::from)
}

/// The nodes of each partition's replicas.
fn nodes(partitions: &[NewPartition]) -> Value<'static> {
    let of_one = |partition: &NewPartition| {
        Value::List(partition.nodes.iter().map(|node| (*node).into()).collect())
    };
    Value::List(partitions.iter().map(of_one).collect())
}
