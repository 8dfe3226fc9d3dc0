//! Shards behind their mailboxes and the node under them: what the server drives.
//!
//! No thread lives here. Whoever posts runs the shard ([`Runtime::run`]); one flusher thread of the
//! server loops over [`Runtime::flush_once`]; a ticker calls [`Runtime::tick`]. Effects are carried
//! out in turn order while the shard's lock is held, and never start a turn: what they lead to is
//! taken by the next round of the same holder (M3). A group whose writes are slow has them carried
//! out by a writer thread instead ([`Runtime::write_once`]), in the same order, until they are quick.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use riverrun_storage::format::aside::Reason;
use riverrun_storage::node::{NodeError, WalDamage};
use riverrun_storage::{Disk, EntryKind, LogEntry, LogError, LogIdentity};
use uuid::Uuid;

use crate::api::{CommittedBatch, Produce, ProduceError, ProduceOutcome, Published, Ticket, Word};
use crate::config::GroupSettings;
use crate::controller::Found;
use crate::mailbox::{Mailbox, Ran};
use crate::members::Members;
use crate::message::PeerMessage;
use crate::node::mend::Mended;
use crate::node::{CONTROLLER_GROUP, GroupOrder, Node, NodeSettings, OpenError, Unopened};
use crate::partition::PartitionHandle;
use crate::shard::{Effect, Input, Shard};

/// Rounds of turn and effects in one hold of a shard's lock.
const MAX_ROUNDS_IN_HOLD: usize = 8;

/// The server's side of the runtime. Calls come from whichever thread completes the work, with a
/// shard's lock held: an implementation must not block and must not call back into the shard.
pub trait Host: Send + Sync {
    /// A produce is answered.
    fn produced(&self, ticket: Ticket, outcome: ProduceOutcome);
    /// A confirmation of leadership is answered (L5).
    fn confirmed(&self, ticket: Ticket, result: Result<Published, ProduceError>);
    /// A leader's word on its group is there, or why there is none (R9).
    fn word(&self, ticket: Ticket, result: Result<Word, ProduceError>);
    /// What is published of a partition changed: look at its parked fetches.
    fn advanced(&self, partition: &PartitionHandle);
    /// Who leads a partition, or who is in sync with this leader, changed.
    fn led(&self, partition: &PartitionHandle);
    /// An image of the controller was found beside group 0's log; what follows it is committed.
    fn restored(&self, found: Found);
    /// A command batch of the controller's group is committed.
    fn committed(&self, batch: CommittedBatch);
    /// The flusher has work.
    fn flush_wanted(&self);
    /// Run this shard again from a task of its own: its holder has done its share.
    fn run_later(&self, shard: usize);
    /// Call [`Runtime::write_once`] for the group until it has no more, on a thread that may block:
    /// its writes are slow.
    fn write_later(&self, group: u64);
    /// The time since some fixed moment, of a clock that never goes back: how long a write took, and how long
    /// what it wrote has waited for its flush.
    fn now(&self) -> Duration;
    /// A message for another node's replica.
    fn send(&self, message: PeerMessage);
    /// A partition is out of service on this node.
    fn fenced(&self, group: u64, why: &str);
    /// A replica must be set aside and replaced under a new id (R2b).
    fn contradicted(&self, group: u64);
    /// A turn panicked outside of any group: what it decided is lost in part, so the process must end.
    fn turn_panicked(&self);
}

/// A node's groups, running.
#[derive(Debug)]
pub struct Runtime<H> {
    node: Node,
    shards: Vec<Mailbox<Input, Shard>>,
    host: Arc<H>,
    flusher_idle: AtomicBool,
    flusher_wakes: AtomicU64,
    /// Held by the flusher from taking work until what came of it is posted. A removal waits for it,
    /// or what was taken for one replica could meet the files, or the group, of the next.
    flushing: Mutex<()>,
}

/// What opening found, beside the runtime.
#[derive(Debug)]
pub struct OpenReport {
    /// Replicas whose logs could not be opened.
    pub unopened: Vec<Unopened>,
    /// Damage in the node WAL that this start has met.
    pub wal_damage: Option<WalDamage>,
    /// The machine stopped hard since the last start.
    pub unclean_power_loss: bool,
    /// The data directory was empty.
    pub founded: bool,
    /// The cluster, once the node belongs to one.
    pub cluster_id: Option<Uuid>,
}

impl<H: Host> Runtime<H> {
    /// Opens a data directory. The controller's newest image and the committed commands behind it are
    /// given to the host before the settings of other groups are asked for; nothing else is.
    ///
    /// # Errors
    /// Where the node store cannot be opened.
    pub fn open(
        disk: Arc<dyn Disk>,
        data: &Path,
        settings: NodeSettings,
        group_settings: impl Fn(&LogIdentity) -> GroupSettings,
        host: Arc<H>,
    ) -> Result<(Self, OpenReport), OpenError> {
        let shard_count = settings.shards.max(1);
        let replay = |node: &Node, handle: &PartitionHandle| replay(node, handle, &*host);
        let (node, opened) = Node::open_after(disk, data, settings, group_settings, replay)?;
        let runtime = Self {
            node,
            shards: (0..shard_count)
                .map(|_| Mailbox::new(Shard::default()))
                .collect(),
            host,
            flusher_idle: AtomicBool::new(true),
            flusher_wakes: AtomicU64::new(0),
            flushing: Mutex::new(()),
        };
        for partition in opened.partitions {
            runtime.add(partition);
        }
        let report = OpenReport {
            unopened: opened.unopened,
            wal_damage: opened.wal_damage,
            unclean_power_loss: opened.unclean_power_loss,
            founded: opened.founded,
            cluster_id: opened.cluster_id,
        };
        Ok((runtime, report))
    }

    fn add(&self, partition: crate::partition::Partition) {
        let shard = partition.handle.shard();
        self.post(shard, Input::Add(Box::new(partition)));
    }

    /// The node under the shards.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Arc<H> {
        &self.host
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// How often the flusher was woken.
    #[must_use]
    pub fn flusher_wakes(&self) -> u64 {
        self.flusher_wakes.load(Ordering::Relaxed)
    }

    /// Creates a replica by the controller's order, durably. Blocks; then runs its shard.
    ///
    /// # Errors
    /// Where it exists already or the disk refuses.
    pub fn create_group(&self, order: &GroupOrder) -> Result<PartitionHandle, OpenError> {
        let partition = self.node.create_group(order)?;
        let handle = partition.handle.clone();
        self.add(partition);
        self.run(handle.shard());
        Ok(handle)
    }

    /// Takes a replica out of service for good and sets its files aside, once nothing of it is under way any
    /// more. Blocks.
    ///
    /// # Errors
    /// Where the disk refuses; the next call goes on.
    pub fn set_aside(&self, group: u64, reason: Reason) -> Result<(), OpenError> {
        if let Some(handle) = self.node.handle(group) {
            self.post(handle.shard(), Input::Remove { group });
            self.settle(handle.shard());
        }
        let _nothing_taken = self.flushing.lock();
        self.node.finish_writes_of(group);
        self.node.set_aside(group, reason)
    }

    /// Tries again to open the replicas that were unavailable (R16), and takes those that are open into their
    /// shards. True where one of them is. Blocks.
    ///
    /// # Errors
    /// Where the committed commands of group 0 cannot be read.
    pub fn retry_unavailable(
        &self,
        group_settings: impl Fn(&LogIdentity) -> GroupSettings,
    ) -> Result<bool, OpenError> {
        let opened = self.node.retry_unavailable(group_settings);
        let any = !opened.is_empty();
        for partition in opened {
            if partition.id() == CONTROLLER_GROUP {
                replay(&self.node, &partition.handle, &*self.host)?;
            }
            let shard = partition.handle.shard();
            self.add(partition);
            self.run(shard);
        }
        Ok(any)
    }

    /// The partitions of this node.
    #[must_use]
    pub fn handles(&self) -> Vec<PartitionHandle> {
        self.node.handles()
    }

    /// The partition of a group.
    #[must_use]
    pub fn handle(&self, group: u64) -> Option<PartitionHandle> {
        self.node.handle(group)
    }

    /// Changes a topic's settings for one of its groups.
    pub fn set_settings(&self, partition: &PartitionHandle, settings: GroupSettings) {
        self.node
            .set_log_config(partition.group(), settings.log.clone());
        self.post(
            partition.shard(),
            Input::Settings {
                group: partition.group(),
                settings,
            },
        );
        self.run(partition.shard());
    }

    fn post(&self, shard: usize, input: Input) {
        if let Some(mailbox) = self.shards.get(shard) {
            mailbox.post(input);
        }
    }

    /// Posts a batch to append; [`Runtime::run`] does the work.
    pub fn produce(&self, partition: &PartitionHandle, produce: Produce) {
        self.post(
            partition.shard(),
            Input::Produce {
                group: partition.group(),
                produce,
            },
        );
    }

    /// Posts the question whether this node still leads the partition (L5).
    pub fn confirm(&self, partition: &PartitionHandle, ticket: Ticket) {
        self.post(
            partition.shard(),
            Input::Confirm {
                group: partition.group(),
                ticket,
            },
        );
    }

    /// Posts the question what this node's leader says of its group (R9).
    pub fn ask_word(&self, partition: &PartitionHandle, ticket: Ticket) {
        let group = partition.group();
        self.post(partition.shard(), Input::Word { group, ticket });
    }

    /// The members that a partition is to have, by the controller's image.
    pub fn set_members(&self, partition: &PartitionHandle, members: Members) {
        let group = partition.group();
        self.post(partition.shard(), Input::Members { group, members });
    }

    /// Puts entries of a group right that are bad at rest, with those of another replica ([`Node::mend`]);
    /// whether that was done. The shard is to be run. Blocks.
    ///
    /// # Errors
    /// As [`Node::mend`].
    pub fn mend(&self, group: u64, entries: &[LogEntry]) -> Result<bool, LogError> {
        match self.node.mend(group, entries)? {
            Mended::Gone => Ok(false),
            Mended::Done => Ok(true),
            Mended::Sighted(input) => {
                self.post_to(group, *input);
                Ok(true)
            }
        }
    }

    /// Messages to a replica were lost on their way. The shard to be run, if the group is here.
    pub fn unreachable(&self, group: u64, replica: u64) -> Option<usize> {
        self.post_to(group, Input::Unreachable { group, replica })
    }

    /// A node does not live: its replica of a group leads it no more. The shard to be run, if there is
    /// one.
    pub fn gone(&self, group: u64, replica: u64) -> Option<usize> {
        self.post_to(group, Input::Gone { group, replica })
    }

    /// Posts a message of another node. The shard to be run, if the group is here.
    pub fn message(&self, message: PeerMessage) -> Option<usize> {
        self.post_to(message.group, Input::Message(message))
    }

    fn post_to(&self, group: u64, input: Input) -> Option<usize> {
        let shard = self.node.handle(group)?.shard();
        self.post(shard, input);
        Some(shard)
    }

    /// Does the posted work of a shard, unless somebody else is at it and will.
    pub fn run(&self, shard: usize) {
        let Some(mailbox) = self.shards.get(shard) else {
            return;
        };
        let ran = mailbox.run(|state, work| self.hold(mailbox, state, work));
        if ran == Ran::HandOver {
            self.host.run_later(shard);
        }
    }

    /// Waits until all that was posted to a shard is done, with what it led to.
    fn settle(&self, shard: usize) {
        let Some(mailbox) = self.shards.get(shard) else {
            return;
        };
        let ran = mailbox.settle(|state, work| self.hold(mailbox, state, work));
        if ran == Ran::HandOver {
            self.host.run_later(shard);
        }
    }

    /// Does the posted work of every shard.
    pub fn run_all(&self) {
        for shard in 0..self.shards.len() {
            self.run(shard);
        }
    }

    /// Turns with what was posted, and with what its effects lead to.
    fn hold(&self, mailbox: &Mailbox<Input, Shard>, state: &mut Shard, work: Vec<Input>) {
        let _noticed = Noticed(&*self.host);
        let mut work = work;
        let mut effects = Vec::new();
        for _ in 0..MAX_ROUNDS_IN_HOLD {
            state.turn(self.host.now(), work, &mut effects);
            work = self.carry_out(effects.drain(..));
            if work.is_empty() {
                return;
            }
        }
        mailbox.post_all(work);
    }

    /// Carries effects out in order; gives what they lead to.
    fn carry_out(&self, effects: impl Iterator<Item = Effect>) -> Vec<Input> {
        let mut inputs = Vec::new();
        let mut flush = false;
        for effect in effects {
            match effect {
                Effect::Write { group, entries } => {
                    let now = || self.host.now();
                    let write = || self.node.write_timed(group, entries, now);
                    let wrote = catch_unwind(AssertUnwindSafe(write))
                        .unwrap_or_else(|_| write_panicked(group).into());
                    inputs.extend(wrote.input);
                    if wrote.writer {
                        self.host.write_later(group);
                    }
                }
                Effect::Flush(item) => {
                    self.node.want_flush(item);
                    flush = true;
                }
                Effect::Op { group, op } => {
                    self.node.want_op(group, op);
                    flush = true;
                }
                Effect::Send(message) => self.host.send(message),
                Effect::Produced { ticket, outcome } => self.host.produced(ticket, outcome),
                Effect::Confirmed { ticket, result } => self.host.confirmed(ticket, result),
                Effect::Word { ticket, result } => self.host.word(ticket, result),
                Effect::Advanced { group } => {
                    if let Some(handle) = self.node.handle(group) {
                        self.host.advanced(&handle);
                    }
                }
                Effect::Led { group } => {
                    if let Some(handle) = self.node.handle(group) {
                        self.host.led(&handle);
                    }
                }
                Effect::Committed(batch) => self.host.committed(batch),
                Effect::Contradicted { group } => self.host.contradicted(group),
                Effect::Fenced { group, why } => {
                    self.node.fence(group);
                    self.host.fenced(group, &why);
                }
            }
        }
        if flush && self.flusher_idle.swap(false, Ordering::SeqCst) {
            self.flusher_wakes.fetch_add(1, Ordering::Relaxed);
            self.host.flush_wanted();
        }
        inputs
    }

    /// A tick of time for every group.
    pub fn tick(&self) {
        for group in self.node.retry_full() {
            self.host.write_later(group);
        }
        for shard in 0..self.shards.len() {
            self.post(shard, Input::Tick);
            self.run(shard);
        }
    }

    /// The flusher's loop body: false where it may sleep until [`Host::flush_wanted`]. Blocks.
    ///
    /// # Errors
    /// Where the WAL fails: the process must end (I10).
    pub fn flush_once(&self) -> Result<bool, NodeError> {
        let any = {
            let _flushing = self.flushing.lock();
            let mut inputs = Vec::new();
            let mut writers = Vec::new();
            let any = self.node.flush_once(&mut inputs, &mut writers)?;
            for group in writers {
                self.host.write_later(group);
            }
            if !inputs.is_empty() {
                self.deliver(inputs);
            }
            any
        };
        if any {
            return Ok(true);
        }
        self.flusher_idle.store(true, Ordering::SeqCst);
        // Somebody may have wanted a flush between the look and the store.
        if self.node.wants() && self.flusher_idle.swap(false, Ordering::SeqCst) {
            return Ok(true);
        }
        Ok(false)
    }

    /// The body of a writer's loop: one piece of the work that waits in a group's lane; false where
    /// there is none. It is reported before the next one begins, and before the lane is let go.
    /// Blocks.
    pub fn write_once(&self, group: u64) -> bool {
        let next = || self.node.write_next(group, || self.host.now());
        let input = match catch_unwind(AssertUnwindSafe(next)) {
            Ok(None) => return false,
            Ok(Some(input)) => input,
            Err(_) => Some(write_panicked(group)),
        };
        if let Some(input) = input {
            self.deliver(vec![input]);
        }
        true
    }

    /// Posts completions to their shards, then runs those.
    fn deliver(&self, inputs: Vec<Input>) {
        let mut shards: Vec<Vec<Input>> = self.shards.iter().map(|_| Vec::new()).collect();
        for input in inputs {
            let group = match &input {
                Input::Flushed { group }
                | Input::Cut { group }
                | Input::Saved { group }
                | Input::Written { group, .. }
                | Input::HeadDropped { group, .. }
                | Input::Full { group }
                | Input::Failed { group, .. } => *group,
                _ => continue,
            };
            if let Some(handle) = self.node.handle(group)
                && let Some(shard) = shards.get_mut(handle.shard())
            {
                shard.push(input);
            }
        }
        for (at, (mailbox, inputs)) in self.shards.iter().zip(shards).enumerate() {
            if !inputs.is_empty() {
                mailbox.post_all(inputs);
                self.run(at);
            }
        }
    }

    /// A clean stop: everything written is made durable and the clean mark is set. The flusher and
    /// all connections must have ended.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn close(&self) -> Result<(), NodeError> {
        self.run_all();
        self.node.finish_writes();
        while self.flush_once()? {}
        self.node.finish_writes();
        self.node.close()
    }
}

/// Notices where a turn, or what is done about it, panics: whoever ran it may go on without a word.
struct Noticed<'a, H: Host>(&'a H);

impl<H: Host> Drop for Noticed<'_, H> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.turn_panicked();
        }
    }
}

/// Gives the host what was committed before this start: the newest image, and what came after it.
fn replay<H: Host>(node: &Node, handle: &PartitionHandle, host: &H) -> Result<(), OpenError> {
    let reader = handle.reader();
    let committed = handle.published().high_watermark;
    let mut index = reader.first_index();
    let found = node
        .checkpoints()
        .load(reader)
        .map_err(|source| OpenError::Io {
            what: "list the images of the cluster's state",
            source,
        })?;
    if let Some(found) = found {
        let offset = found.controller.image().next_offset;
        // It may be newer than the stored commit index, never than the log.
        index = reader
            .index_of_offset(offset)?
            .unwrap_or(reader.last_index() + 1);
        tracing::info!(offset, "the cluster's state was read from an image");
        host.restored(found);
    }
    while index <= reader.last_index() {
        let entries = reader.entries(index, reader.last_index() + 1, 1 << 20);
        // Orders of an older image may have been taken back since: none of them is left to be carried out.
        let entries = entries.inspect_err(|_| host.restored(Found::default()))?;
        for entry in &entries {
            if entry.kind == EntryKind::Data && entry.next_offset() <= committed {
                host.committed(CommittedBatch {
                    group: handle.group(),
                    index: entry.index,
                    batch: entry.payload.clone(),
                });
            }
        }
        match entries.last() {
            Some(last) => index = last.index + 1,
            None => break,
        }
    }
    Ok(())
}

/// An assertion about the entries or the files failed: that group is out of service, no other.
fn write_panicked(group: u64) -> Input {
    Input::Failed {
        group,
        why: "a write panicked".to_owned(),
    }
}
