//! Bytes at rest that are bad are asked of the other replicas, and put right in place (R8). A replica that has
//! some keeps its vote and goes on: nobody is replaced for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use riverrun_replication::PartitionHandle;
use riverrun_replication::mending::{MOST_PLACES, Pace};
use riverrun_replication::node::CONTROLLER_GROUP;
use riverrun_replication::retry::Backoff;
use riverrun_storage::{BadEntry, EntryKind, LogEntry, LogError};
use riverrun_wire::ErrorCode;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::broker::Broker;
use crate::cluster::protocol::{AskEntry, Entry, Question, Refused, Reply};
use crate::error;
use crate::net::burst;
use crate::peers::Callee;
use crate::watched::Kind;

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long another replica may take to answer.
const ENTRY_WAIT: Duration = Duration::from_secs(5);
/// Entries of one place that are put right together, and their bytes.
const MOST_ENTRIES: usize = 1024;
const MOST_BYTES: usize = 32 << 20;
/// How long a client is to wait for a bad batch to be put right.
const REPAIR_WAIT: Duration = Duration::from_secs(2);
/// Bytes of an entry in one answer.
const PIECE_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
struct State {
    pace: Pace,
    began: Option<Instant>,
    /// What was said of a group.
    said: BTreeMap<u64, String>,
    /// The groups of which was said that they do not know all producers.
    said_lost: BTreeMap<u64, String>,
    /// When a group that could not be put right is tried again.
    later: BTreeMap<u64, (Backoff, Instant)>,
    /// When an entry of a group is tried again that the disk refused to give.
    refused: BTreeMap<u64, (Backoff, Instant)>,
}

impl State {
    fn now(&mut self) -> Duration {
        let now = Instant::now();
        now.saturating_duration_since(*self.began.get_or_insert(now))
    }

    /// Says once that what a group's dropped head said of producers is not known.
    fn say_lost(&mut self, group: u64, why: String) {
        if self.said_lost.get(&group) != Some(&why) {
            warn!(
                group,
                why, "a replica does not know the producers of what was dropped"
            );
            self.said_lost.insert(group, why);
        }
    }

    /// Says something of a group, once.
    fn say(&mut self, group: u64, what: String) {
        if self.said.get(&group) != Some(&what) {
            warn!(group, what, "a replica has bytes at rest that are bad");
            self.said.insert(group, what);
        }
    }
}

/// Sees to it until the broker is gone.
pub(crate) async fn follow(broker: Weak<Broker>) {
    let mut state = State::default();
    loop {
        {
            let Some(broker) = broker.upgrade().filter(|broker| !broker.is_stopping()) else {
                return;
            };
            look(&broker, &mut state).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Puts one place right at most: one at a time on a node.
async fn look(broker: &Arc<Broker>, state: &mut State) {
    for handle in broker.runtime().handles() {
        let group = handle.group();
        try_again(broker, &handle, state).await;
        remember(broker, &handle).await;
        if let Some(why) = handle.reader().lost_producers() {
            state.say_lost(group, why);
        }
        let bad = handle.reader().bad_entries();
        let Some(first) = bad.first() else {
            state.said.remove(&group);
            state.later.remove(&group);
            continue;
        };
        let others = others(broker, group);
        let tried = state.later.get(&group);
        if tried.is_some_and(|(_, again)| Instant::now() < *again) {
            continue;
        }
        let now = state.now();
        if !state.pace.may(now) {
            let what = format!(
                "{}; {MOST_PLACES} places were put right within an hour, so memory or the disk's \
                 controller is in doubt and no more are: replace this node's disk or the node",
                places(&bad)
            );
            state.say(group, what);
            continue;
        }
        if !others.is_empty() {
            state.say(group, places(&bad));
        }
        match put_right(broker, &handle, &others, first.index).await {
            Ok(0) => {}
            Ok(count) => {
                state.pace.note(now);
                state.later.remove(&group);
                info!(
                    group,
                    count,
                    index = first.index,
                    "put right entries that were bad at rest"
                );
                return;
            }
            Err(why) => {
                let (backoff, again) = state
                    .later
                    .entry(group)
                    .or_insert_with(|| (Backoff::default(), Instant::now()));
                *again = Instant::now() + backoff.next(broker.seed());
                let what = if others.is_empty() {
                    "it is the only replica: what lies before and behind is served".to_owned()
                } else {
                    format!("not put right yet: {why}")
                };
                state.say(group, format!("{}; {what}", places(&bad)));
            }
        }
    }
}

/// Tries what the disk refused to give.
async fn try_again(broker: &Arc<Broker>, handle: &PartitionHandle, state: &mut State) {
    let group = handle.group();
    let Some((index, _)) = handle.reader().unreadable_entries().first().copied() else {
        state.refused.remove(&group);
        return;
    };
    let now = Instant::now();
    let tried = state.refused.get(&group);
    if tried.is_some_and(|(_, again)| now < *again) {
        return;
    }
    let (backoff, again) = state
        .refused
        .entry(group)
        .or_insert_with(|| (Backoff::default(), now));
    *again = now + backoff.next(broker.seed());
    let on_thread = Arc::clone(broker);
    let tried = broker.blocking(Kind::Files, move || {
        on_thread.runtime().node().try_again(group, index)
    });
    if let Ok(Err(error)) = tried.await {
        debug!(group, index, %error, "an entry cannot be read");
    }
}

/// Writes down what is bad, where that has changed.
async fn remember(broker: &Arc<Broker>, handle: &PartitionHandle) {
    if handle.reader().remembers_bad() {
        return;
    }
    let (on_thread, group) = (Arc::clone(broker), handle.group());
    let written = broker.blocking(Kind::Files, move || {
        on_thread.runtime().node().remember_bad(group)
    });
    if let Ok(Err(error)) = written.await {
        debug!(group, %error, "which entries are bad cannot be written down");
    }
}

fn places(bad: &[BadEntry]) -> String {
    let of = |entry: &BadEntry| {
        let last = (entry.next_offset - 1).max(entry.first_offset);
        format!("offsets {} to {last}", entry.first_offset)
    };
    match bad {
        [] => String::new(),
        [one] => of(one),
        [one, rest @ ..] => format!("{} and {} more places", of(one), rest.len()),
    }
}

/// What a read that met an error is answered. Where another replica may have what is bad here, the client
/// tries again for a moment.
pub(crate) fn of_read(broker: &Broker, handle: &PartitionHandle, error: &LogError) -> ErrorCode {
    if let LogError::BadBatch { index, .. } = error
        && handle
            .reader()
            .bad_for(*index)
            .is_none_or(|age| age < REPAIR_WAIT)
        && !others(broker, handle.group()).is_empty()
    {
        return ErrorCode::KafkaStorageError;
    }
    error::of_read(error)
}

/// The nodes that have the other replicas of a group.
pub(crate) fn others(broker: &Broker, group: u64) -> Vec<i32> {
    let own = broker.config().node_id;
    let mut nodes: Vec<i32> = broker.catalog().read(|image| {
        if group == CONTROLLER_GROUP {
            let replicas = image.quorum.replicas.iter();
            return replicas.map(|replica| replica.at.node).collect();
        }
        let replicas = image.partition_of_group(group).map(|of| &of.replicas);
        replicas.into_iter().flatten().map(|at| at.node).collect()
    });
    nodes.retain(|node| *node != own);
    nodes
}

/// Puts the entries of one place right; gives how many they were.
async fn put_right(
    broker: &Arc<Broker>,
    handle: &PartitionHandle,
    others: &[i32],
    first: u64,
) -> Result<usize, String> {
    let reader = handle.reader().clone();
    let run = broker.blocking(Kind::Files, move || reader.bad_run(first, MOST_ENTRIES));
    let run = run.await.map_err(|error| error.to_string())?;
    let run = run.map_err(|error| error.to_string())?;
    let mut entries: Vec<LogEntry> = Vec::new();
    let mut bytes = 0;
    for index in run {
        let Some(term) = handle.reader().term(index) else {
            break;
        };
        let own = own(broker, handle, (index, term)).await;
        let entry = match own {
            Some(entry) => Some(entry),
            None => ask(broker, others, handle.group(), (index, term)).await,
        };
        let Some(entry) = entry else {
            if entries.is_empty() {
                return Err(format!("no other replica gives entry {index}"));
            }
            break;
        };
        bytes += entry.payload.len();
        entries.push(entry);
        if bytes > MOST_BYTES {
            break;
        }
    }
    if entries.is_empty() {
        return Ok(0);
    }
    let (on_thread, group) = (Arc::clone(broker), handle.group());
    let mended = broker.blocking(Kind::Files, move || {
        let mended = on_thread.runtime().mend(group, &entries);
        if let Some(handle) = on_thread.runtime().handle(group) {
            burst::run(&on_thread, || on_thread.run_shard(handle.shard()));
        }
        mended.map(|done| if done { entries.len() } else { 0 })
    });
    let mended = mended.await.map_err(|error| error.to_string())?;
    mended.map_err(|error| error.to_string())
}

/// An entry as this node's page cache still has it: what went bad may be on the disk alone.
async fn own(
    broker: &Arc<Broker>,
    handle: &PartitionHandle,
    (index, term): (u64, u64),
) -> Option<LogEntry> {
    let reader = handle.reader().clone();
    let read = broker.blocking(Kind::Files, move || {
        reader.entries(index, index + 1, u64::MAX)
    });
    let entry = read.await.ok()?.ok()?.pop()?;
    (entry.term == term).then_some(entry)
}

/// An entry as another replica has it.
async fn ask(
    broker: &Arc<Broker>,
    others: &[i32],
    group: u64,
    (index, term): (u64, u64),
) -> Option<LogEntry> {
    for node in others {
        match ask_node(broker, *node, group, (index, term)).await {
            Ok(entry) => return Some(entry),
            Err(why) => debug!(node, group, index, why, "a replica does not give an entry"),
        }
    }
    None
}

async fn ask_node(
    broker: &Arc<Broker>,
    node: i32,
    group: u64,
    (index, term): (u64, u64),
) -> Result<LogEntry, String> {
    let mut payload = BytesMut::new();
    loop {
        let question = Question::Entry(AskEntry {
            group,
            index,
            term,
            from: payload.len() as u64,
        });
        let asked = broker
            .peers()
            .call(Callee::Node(node), question.into_bytes(), ENTRY_WAIT);
        let reply = asked.await.map_err(|error| error.to_string())?;
        let entry = match Reply::from_bytes(reply) {
            Some(Reply::Entry(entry)) => entry,
            Some(Reply::Refused(refused)) => return Err(refused.why),
            _ => return Err("an answer to another question".to_owned()),
        };
        let len = usize::try_from(entry.len).unwrap_or(usize::MAX);
        payload.extend_from_slice(&entry.piece);
        if payload.len() > len || (payload.len() < len && entry.piece.is_empty()) {
            return Err("pieces that do not fit".to_owned());
        }
        if payload.len() == len {
            let kind = u8::try_from(entry.kind).ok().and_then(EntryKind::from_u8);
            return Ok(LogEntry {
                index,
                term,
                kind: kind.ok_or("an unknown kind of entry")?,
                base_offset: entry.base_offset,
                last_offset_delta: entry.last_offset_delta,
                payload: payload.freeze(),
            });
        }
        if len > MOST_BYTES.saturating_mul(4) {
            return Err("an entry that is too long".to_owned());
        }
    }
}

/// What this node's replica has at an index of a term: verified bytes, or a refusal.
pub(crate) async fn reply(broker: &Arc<Broker>, asked: AskEntry) -> Reply {
    let Some(handle) = broker.runtime().handle(asked.group) else {
        return Refused::other("the group has no open replica here");
    };
    if handle.reader().term(asked.index) != Some(asked.term) {
        return Refused::other("the replica has no entry of that index and term");
    }
    let read = broker.blocking(Kind::Files, move || {
        let reader = handle.reader();
        let entries = reader.entries(asked.index, asked.index + 1, u64::MAX);
        (entries, asked)
    });
    let (entries, asked) = match read.await {
        Ok(read) => read,
        Err(error) => return Refused::other(error),
    };
    let entry = match entries.map(|mut entries| entries.pop()) {
        Ok(Some(entry)) if entry.term == asked.term => entry,
        Ok(_) => return Refused::other("the entry was replaced meanwhile"),
        Err(error) => {
            tracing::error!(group = asked.group, %error, "an entry that another replica needs cannot be read");
            return Refused::other(error);
        }
    };
    let from = usize::try_from(asked.from).unwrap_or(usize::MAX);
    let to = from.saturating_add(PIECE_BYTES).min(entry.payload.len());
    let piece = if from < to {
        entry.payload.slice(from..to)
    } else {
        Bytes::new()
    };
    Reply::Entry(Entry {
        kind: u32::from(entry.kind as u8),
        base_offset: entry.base_offset,
        last_offset_delta: entry.last_offset_delta,
        len: entry.payload.len() as u64,
        piece,
    })
}
