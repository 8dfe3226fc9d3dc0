//! A partition on one node: what a produce is answered, what is visible, who waits. Pure.
//!
//! INVARIANTS held here
//! * **I11, L1, L4**: before an entry of the leader's own term is applied, nothing is answered:
//!   produces are parked, `ready` is false.
//! * **L2**: whoever waits, waits for an index of a term; all fail when the role or term changes.
//! * **I9**: the watermarks are published as one value and never move back.

mod produce;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use riverrun_record::BatchView;
use riverrun_storage::planted::{self, Bug};
use riverrun_storage::{EntryKind, LogEntry, LogReader, LogStart, ProducerState};
use uuid::Uuid;

use crate::api::{
    CommittedBatch, Produce, ProduceError, ProduceOutcome, Produced, Progress, Published, Role,
    Ticket,
};
use crate::conf;
use crate::config::GroupSettings;
use crate::group::{Group, Op, Out};
use crate::members::Members;
use crate::message::{Body, PeerMessage, RaftMessage};
use crate::peers::Peers;
use crate::producers::Overlay;
use crate::recovering::Recovering;
use crate::refused::{Numbers, Refused};
use crate::shard::Effect;
use crate::word::AskedWord;

/// A partition of this node as everybody else sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PartitionHandle {
    inner: Arc<HandleInner>,
}

#[derive(Debug)]
struct HandleInner {
    group: u64,
    replica: u64,
    topic_id: Uuid,
    partition: i32,
    shard: usize,
    published: RwLock<Published>,
    in_sync: RwLock<Arc<[u64]>>,
    progress: RwLock<Arc<[Progress]>>,
    /// Last index that is committed, and durable here.
    settled: AtomicU64,
    /// Whether more is to be known of producers than is ([`Partition::is_blind`]).
    blind: AtomicBool,
    reader: LogReader,
}

impl PartitionHandle {
    pub(crate) fn new(
        identity: &riverrun_storage::LogIdentity,
        shard: usize,
        reader: LogReader,
        published: Published,
    ) -> Self {
        Self {
            inner: Arc::new(HandleInner {
                group: identity.group,
                replica: identity.replica,
                topic_id: identity.topic_id,
                partition: identity.partition,
                shard,
                published: RwLock::new(published),
                in_sync: RwLock::new(Arc::default()),
                progress: RwLock::new(Arc::default()),
                settled: AtomicU64::new(0),
                blind: AtomicBool::new(false),
                reader,
            }),
        }
    }

    /// The Raft group.
    #[must_use]
    pub fn group(&self) -> u64 {
        self.inner.group
    }

    /// The replica on this node.
    #[must_use]
    pub fn replica(&self) -> u64 {
        self.inner.replica
    }

    /// The topic.
    #[must_use]
    pub fn topic_id(&self) -> Uuid {
        self.inner.topic_id
    }

    /// The partition of the topic.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.inner.partition
    }

    /// Whether the replica waits for what bad batches would tell of producers.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.inner.blind.load(Ordering::Acquire)
    }

    /// The shard that the group belongs to.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.inner.shard
    }

    /// What may be seen of it now, as one value.
    #[must_use]
    pub fn published(&self) -> Published {
        *self.inner.published.read()
    }

    /// The last index that is committed and that a power cut would leave here: what lies above may still be
    /// replaced.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.inner.settled.load(Ordering::Acquire)
    }

    /// Reads of its log. Nothing at or above the published watermark may be read for a client.
    #[must_use]
    pub fn reader(&self) -> &LogReader {
        &self.inner.reader
    }

    /// The replicas that hold, or lately held, all that this leader has; empty where it does not lead.
    #[must_use]
    pub fn in_sync(&self) -> Arc<[u64]> {
        Arc::clone(&self.inner.in_sync.read())
    }

    /// How far the members of the controller's group were at the last tick; empty where this replica does
    /// not lead it, and for every other group.
    #[must_use]
    pub fn progress(&self) -> Arc<[Progress]> {
        Arc::clone(&self.inner.progress.read())
    }

    pub(crate) fn publish(&self, value: Published) {
        *self.inner.published.write() = value;
    }
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    index: u64,
    /// Of the first record; `None` of a batch that is there, so far back that nobody knows where.
    base_offset: Option<i64>,
    numbers: Option<Numbers>,
}

/// A membership change that somebody waits for.
#[derive(Debug)]
pub(crate) struct ChangeWaiter {
    ticket: Ticket,
    index: u64,
}

/// One partition: its group, its producers, its waiters.
#[derive(Debug)]
pub struct Partition {
    pub(crate) group: Group,
    pub(crate) handle: PartitionHandle,
    pub(crate) incarnation: u64,
    pub(crate) peers: Peers,
    pub(crate) recovering: Recovering,
    /// Its own bad batches would tell more of producers than it knows: it must not lead before they are put
    /// right, or it would take a duplicate (R7).
    pub(crate) blind: bool,
    settings: GroupSettings,
    deliver: bool,
    /// Committed batches whose commit is not durable here yet. Who acts on one must find it committed
    /// after a restart too: an order that was carried out and forgotten would be carried out twice, on
    /// a replica that is no more (I12).
    undelivered: VecDeque<CommittedBatch>,
    /// The state of exactly the applied log.
    producers: ProducerState,
    /// The state of the leader's unapplied tail above it.
    overlay: Overlay,
    /// Last index whose batch is in `producers`.
    applied: u64,
    high_watermark: i64,
    /// The next offset to stamp, while proposals wait in the library.
    next_offset: i64,
    /// The term and role that waiters are keyed by.
    led_term: u64,
    ready: bool,
    written_waiters: VecDeque<Waiter>,
    commit_waiters: VecDeque<Waiter>,
    change_waiters: Vec<ChangeWaiter>,
    parked: Vec<Produce>,
    refused: Refused,
    pub(crate) confirms: Confirms,
    /// Base offsets of segments that were begun and whose producer state is not written yet.
    rolled: BTreeSet<i64>,
    unflushed_records: u64,
    /// Ticks since this replica, no voter, last knew of a leader.
    pub(crate) leaderless_ticks: usize,
    /// What the leader of a term was told of bad bytes here, and the ticks since.
    pub(crate) marred_told: ((u64, u64, bool), usize),
    /// The disk has no room for what was appended last.
    full: bool,
    /// The members that the controller wants.
    pub(crate) wanted: Option<Members>,
    /// (index, offset) of a snapshot: the watermark goes there when the log has begun again.
    after_reset: Option<(u64, i64)>,
}

#[derive(Debug, Default)]
pub(crate) struct Confirms {
    pub(crate) sequence: u64,
    waiting: Vec<(u64, Ticket)>,
    pub(crate) answered: BTreeMap<u64, u64>,
    /// Those who want the leader's word on its group (R9).
    pub(crate) words: Vec<AskedWord>,
}

/// Bytes of lately applied batches that are read at once for what they say of producers.
const SIGHT_BYTES: usize = 1 << 20;
/// What Kafka shows for an offset that is not known.
const UNKNOWN_OFFSET: i64 = -1;

/// What recovery hands to a partition besides its group.
#[derive(Debug)]
pub struct PartitionBoot {
    /// The group, booted.
    pub group: Group,
    /// How it is seen.
    pub handle: PartitionHandle,
    /// This node's incarnation.
    pub incarnation: u64,
    /// The producer state of the log up to the group's commit index.
    pub producers: ProducerState,
    /// Bad batches would tell more of producers than is known.
    pub blind: bool,
    /// The topic's settings.
    pub settings: GroupSettings,
    /// Committed batches go to the host (the controller's group).
    pub deliver: bool,
    /// The replica may have lost acknowledged entries.
    pub recovering: bool,
}

impl Partition {
    /// A partition from what recovery found.
    #[must_use]
    pub fn boot(boot: PartitionBoot) -> Self {
        let applied = boot.group.commit();
        let offset = boot.group.offset_in_memory(applied);
        let next_offset = boot.group.log().next_offset();
        let replica = boot.group.replica();
        // With one voter there is nobody to be filled from: it leads with what it has (R2).
        let alone = boot.group.conf().1.get_voters() == [replica]
            && boot.group.conf().1.get_voters_outgoing().is_empty();
        if boot.recovering && alone {
            tracing::warn!(
                group = boot.group.id(),
                end_offset = next_offset,
                "the machine stopped hard: events acknowledged from memory behind this offset are lost"
            );
        }
        let mut group = boot.group;
        let recovering = Recovering::new(boot.recovering && !alone);
        // With one replica nobody has what the bad batches say, and the rest is served (R7).
        let blind = boot.blind && !alone;
        boot.handle.inner.blind.store(blind, Ordering::Release);
        group.set_recovering(recovering.is_on());
        if boot.deliver {
            group.store_commits();
        }
        if alone {
            group.campaign();
        } else {
            group.hasten();
        }
        Self {
            group,
            handle: boot.handle,
            incarnation: boot.incarnation,
            peers: Peers::default(),
            recovering,
            blind,
            settings: boot.settings,
            deliver: boot.deliver,
            undelivered: VecDeque::new(),
            producers: boot.producers,
            overlay: Overlay::default(),
            applied,
            high_watermark: offset,
            next_offset,
            led_term: 0,
            ready: false,
            written_waiters: VecDeque::new(),
            commit_waiters: VecDeque::new(),
            change_waiters: Vec::new(),
            parked: Vec::new(),
            refused: Refused::default(),
            confirms: Confirms::default(),
            rolled: BTreeSet::new(),
            unflushed_records: 0,
            leaderless_ticks: 0,
            marred_told: ((0, 0, false), 0),
            full: false,
            wanted: None,
            after_reset: None,
        }
    }

    /// The group's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.group.id()
    }

    /// Its group, to be looked at.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// What this leader counts a replica to hold, and the incarnation that said so; `None` where the
    /// replica has not introduced itself in this term, or is contradicted (R2b).
    #[must_use]
    pub fn counted(&self, replica: u64) -> Option<(u64, u64)> {
        let peer = self.peers.get(replica);
        let counts =
            self.group.is_leader() && peer.greeted_term == self.group.term() && !peer.contradicted;
        counts.then(|| (self.group.matched(replica), peer.incarnation))
    }

    /// Whether some of its bytes are bad, and it is not repaired yet (R6).
    #[must_use]
    pub fn is_marred(&self) -> bool {
        self.handle.reader().is_marred()
    }

    /// Whether it may have lost acknowledged entries and is not whole again (R1).
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.recovering.is_on()
    }

    /// The producer state of the applied log.
    #[must_use]
    pub fn producers(&self) -> &ProducerState {
        &self.producers
    }

    /// Changes the topic's settings.
    pub fn set_settings(&mut self, settings: GroupSettings) {
        self.group.set_caching(settings.write_caching);
        self.settings = settings;
    }

    /// The index of an applied batch, where being committed alone does not answer it.
    fn applied_and_perhaps_not_held(&self, base_offset: i64) -> Option<u64> {
        if self.majority_is_enough() {
            return None;
        }
        let index = self.handle.reader().index_of_offset(base_offset);
        // Whoever holds all that is applied holds it too.
        index.unwrap_or_else(|error| {
            tracing::warn!(group = self.id(), %error, "where a batch lies cannot be read");
            Some(self.applied)
        })
    }

    /// What is said of a batch that is there.
    fn outcome(&self, base_offset: Option<i64>) -> ProduceOutcome {
        match base_offset {
            Some(base_offset) => Ok(self.produced(base_offset)),
            None => Err(ProduceError::DuplicateSequence),
        }
    }

    fn produced(&self, base_offset: i64) -> Produced {
        Produced {
            base_offset,
            log_start_offset: self.group.log().start().offset,
        }
    }

    /// Replicas that hold, or lately held, the leader's whole log. Who is being taken in is not among
    /// them: until the change is through, a majority of those before it is needed as well.
    fn in_sync(&self) -> impl Iterator<Item = u64> {
        let conf = self.group.conf().1;
        let before = conf.get_voters_outgoing();
        conf.get_voters().iter().copied().filter(|id| {
            *id == self.group.replica() || {
                let peer = self.peers.get(*id);
                (before.is_empty() || before.contains(id))
                    && peer.greeted_term == self.group.term()
                    && peer.lagging_ticks <= self.group.lag_ticks()
            }
        })
    }

    /// Shows who is in sync, where that has changed.
    fn publish_in_sync(&self, out: &mut Vec<Effect>) {
        let now: Arc<[u64]> = if self.ready {
            self.in_sync().collect()
        } else {
            Arc::default()
        };
        if *now != *self.handle.in_sync() {
            *self.handle.inner.in_sync.write() = now;
            out.push(Effect::Led { group: self.id() });
        }
    }

    /// Asks that a majority confirms that this replica still leads (L5).
    pub fn confirm(&mut self, ticket: Ticket, out: &mut Vec<Effect>) {
        if !self.group.is_leader() {
            out.push(Effect::Confirmed {
                ticket,
                result: Err(ProduceError::NotLeader),
            });
            return;
        }
        self.confirms.sequence += 1;
        self.confirms.waiting.push((self.confirms.sequence, ticket));
        self.probe(out);
    }

    pub(crate) fn probe(&mut self, out: &mut Vec<Effect>) {
        let nobody = self.confirms.waiting.is_empty() && self.confirms.words.is_empty();
        if nobody || !self.ready {
            return;
        }
        let body = Body::Probe {
            term: self.group.term(),
            sequence: self.confirms.sequence,
        };
        for to in self.voters() {
            if to != self.group.replica() {
                self.send(to, body.clone(), out);
            }
        }
        self.answer_confirms(out);
        self.answer_words(out);
    }

    pub(crate) fn on_probe_ok(
        &mut self,
        from: u64,
        term: u64,
        sequence: u64,
        out: &mut Vec<Effect>,
    ) {
        if self.group.is_leader() && term == self.group.term() {
            let answered = self.confirms.answered.entry(from).or_default();
            *answered = sequence.max(*answered);
            self.answer_confirms(out);
            self.answer_words(out);
        }
    }

    fn answer_confirms(&mut self, out: &mut Vec<Effect>) {
        if !self.ready {
            return;
        }
        let (_, conf) = self.group.conf();
        let own = self.group.replica();
        let confirmed = |sequence: u64| {
            conf::majority(conf, |id| {
                id == own
                    || self
                        .confirms
                        .answered
                        .get(&id)
                        .is_some_and(|s| *s >= sequence)
            })
        };
        let keep = self
            .confirms
            .waiting
            .partition_point(|(sequence, _)| confirmed(*sequence));
        let published = self.snapshot_of_published();
        for (_, ticket) in self.confirms.waiting.drain(..keep) {
            out.push(Effect::Confirmed {
                ticket,
                result: Ok(published),
            });
        }
    }

    pub(crate) fn voters(&self) -> Vec<u64> {
        conf::voters(self.group.conf().1)
    }

    /// Proposes a membership change; the ticket is answered when it is applied.
    pub fn change(&mut self, ticket: Ticket, changes: &[conf::Change], out: &mut Vec<Effect>) {
        let result = match self.group.propose_change(changes) {
            Ok(Some(index)) => {
                self.change_waiters.push(ChangeWaiter { ticket, index });
                return;
            }
            Ok(None) => Err(ProduceError::Busy),
            Err(_) => Err(ProduceError::NotLeader),
        };
        answer(out, ticket, result);
    }

    /// Deletes whole segments that end below the applied index.
    pub fn drop_head(&mut self, keep_from: u64, out: &mut Vec<Effect>) {
        let keep_from = keep_from.min(self.applied).min(self.group.durable());
        let conf = self.group.stored_conf();
        out.push(Effect::Op {
            group: self.id(),
            op: Op::DropHead { keep_from, conf },
        });
    }

    /// Whole segments were deleted.
    pub fn on_head_dropped(
        &mut self,
        start: LogStart,
        producers: bytes::Bytes,
        out: &mut Vec<Effect>,
    ) {
        self.group.on_head_dropped(start, producers);
        self.pump(out);
    }

    /// The disk has no room: nothing more is taken until what was taken is written.
    pub fn on_full(&mut self) {
        if !self.full {
            tracing::error!(
                group = self.id(),
                "no space left: the partition takes no events"
            );
        }
        self.full = true;
    }

    /// The files hold everything up to an index; segments were begun at these offsets.
    pub fn on_written(&mut self, through: u64, rolled: &[i64], out: &mut Vec<Effect>) {
        if std::mem::take(&mut self.full) {
            tracing::info!(group = self.id(), "there is space again");
        }
        if !rolled.is_empty() && planted::is(Bug::DropProducerStateOnRoll) {
            self.producers = ProducerState::default();
        }
        let applied = self.applied_offset();
        for base in rolled.iter().filter(|_| !self.blind) {
            // Where batches come one by one, all before the new segment is applied already.
            if *base == applied {
                self.snapshot_producers(applied, out);
            } else {
                self.rolled.insert(*base);
            }
        }
        self.group.on_written(through);
        self.pump(out);
    }

    /// The flush round with this group's item has ended.
    pub fn on_flushed(&mut self, out: &mut Vec<Effect>) {
        self.group.on_flushed();
        self.unflushed_records = 0;
        self.pump(out);
    }

    /// The files were cut or reset.
    pub fn on_cut(&mut self, out: &mut Vec<Effect>) {
        self.group.on_cut();
        self.pump(out);
    }

    /// The producer state of a snapshot is durable.
    pub fn on_saved(&mut self, out: &mut Vec<Effect>) {
        self.group.on_saved();
        self.pump(out);
    }

    /// What was bad has been put right, so the producers are known: those behind all batches below an
    /// offset that was applied. What was applied since is in memory, or was just written.
    pub fn on_sighted(&mut self, offset: i64, producers: ProducerState) {
        if !self.blind {
            return;
        }
        let mut producers = producers;
        let applied = self.applied_offset();
        let mut at = offset;
        while at < applied {
            let read = self.handle.reader().fetch(at, applied, SIGHT_BYTES, true);
            let Ok(fetched) = read.inspect_err(|error| {
                tracing::warn!(group = self.id(), %error, "producers are not known yet");
            }) else {
                return;
            };
            for bytes in &fetched.batches {
                for batch in riverrun_record::batches(bytes) {
                    match batch {
                        Ok(batch) => producers.apply(&batch),
                        Err(error) => {
                            tracing::warn!(group = self.id(), %error, "producers are not known yet");
                            return;
                        }
                    }
                }
            }
            if fetched.next_offset <= at {
                return;
            }
            at = fetched.next_offset;
        }
        self.producers = producers;
        self.sees();
        self.overlay = Overlay::of_tail(&self.producers, self.group.log().tail_above(self.applied));
        tracing::info!(group = self.id(), "all producers are known again");
    }

    fn sees(&mut self) {
        self.blind = false;
        self.handle.inner.blind.store(false, Ordering::Release);
    }

    /// Whether bad batches would tell more of producers than is known (R7).
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.blind
    }

    /// One tick of time.
    pub fn tick(&mut self, out: &mut Vec<Effect>) {
        self.peers.tick();
        self.refused.tick();
        let may_campaign = self.may_campaign();
        self.group.tick(may_campaign);
        self.tick_handshakes(out);
        if self.group.is_leader() {
            self.group.leave_joint();
            self.tick_members();
            self.tick_words();
            self.probe(out);
        }
        self.pump(out);
        self.publish_in_sync(out);
        if self.deliver {
            self.publish_progress();
        }
    }

    /// The next offset behind what is applied.
    fn applied_offset(&self) -> i64 {
        let of_reset = self.after_reset.map(|(_, offset)| offset);
        of_reset.map_or(self.high_watermark, |of| self.high_watermark.max(of))
    }

    fn publish_progress(&self) {
        let mut progress = Vec::new();
        if self.group.is_leader() {
            let log = self.group.log();
            for replica in conf::members(self.group.conf().1) {
                let own = replica == self.group.replica();
                let peer = self.peers.get(replica);
                let matched = if own {
                    log.last()
                } else {
                    self.group.matched(replica)
                };
                let matched = matched.clamp(log.start().prev_index, log.last());
                progress.push(Progress {
                    replica,
                    // Where its record cannot be read, it is not known; the reader has noted that.
                    end_offset: log.offset_after(matched).unwrap_or(UNKNOWN_OFFSET),
                    silent_ticks: if own { 0 } else { peer.silent_ticks },
                    lagging_ticks: if own { 0 } else { peer.lagging_ticks },
                });
            }
        }
        *self.handle.inner.progress.write() = progress.into();
    }

    pub(crate) fn send(&self, to: u64, body: Body, out: &mut Vec<Effect>) {
        out.push(Effect::Send(PeerMessage {
            group: self.id(),
            from: self.group.replica(),
            to,
            from_incarnation: self.incarnation,
            to_incarnation: self.peers.get(to).incarnation,
            body,
        }));
    }

    /// Carries the group on and turns what it wants into effects.
    pub fn pump(&mut self, out: &mut Vec<Effect>) {
        loop {
            self.group.pump();
            let did = std::mem::take(&mut self.group.out);
            self.take(did, out);
            if !self.group.is_leader() || self.group.term() != self.led_term {
                self.lose_leadership(out);
            }
            if !self.group.is_leader() {
                break;
            }
            if self.led_term != self.group.term() {
                self.led_term = self.group.term();
                self.ready = false;
                self.greet_all(out);
            }
            self.note_caught_up();
            self.next_offset = self.group.log().next_offset();
            if self.ready || self.group.log().term_of(self.applied) != Some(self.led_term) {
                break;
            }
            self.become_ready(out);
        }
        if self.settings.flush_messages <= self.unflushed_records {
            self.group.flush_now();
        }
        self.deliver(out);
        self.leave_recovering(out);
        self.answer_waiters(out);
        self.publish(out);
    }

    /// Hands over what is durably committed.
    fn deliver(&mut self, out: &mut Vec<Effect>) {
        let durable = self.group.commit_durable();
        while let Some(batch) = self
            .undelivered
            .pop_front_if(|batch| batch.index <= durable)
        {
            out.push(Effect::Committed(batch));
        }
    }

    /// An entry of the leader's own term is applied: it may answer now (I11).
    fn become_ready(&mut self, out: &mut Vec<Effect>) {
        self.ready = true;
        self.overlay = Overlay::of_tail(&self.producers, self.group.log().tail_above(self.applied));
        self.recovering_leader_is_whole();
        for produce in std::mem::take(&mut self.parked) {
            self.produce(produce, out);
        }
        self.probe(out);
        self.tell_recovering(out);
    }

    fn lose_leadership(&mut self, out: &mut Vec<Effect>) {
        if self.led_term == 0 && self.parked.is_empty() {
            return;
        }
        self.ready = false;
        self.led_term = 0;
        self.overlay = Overlay::default();
        self.confirms.answered.clear();
        for produce in std::mem::take(&mut self.parked) {
            self.refuse(&produce, ProduceError::NotLeader, out);
        }
        for (_, ticket) in std::mem::take(&mut self.confirms.waiting) {
            out.push(Effect::Confirmed {
                ticket,
                result: Err(ProduceError::NotLeader),
            });
        }
        self.refuse_words(ProduceError::NotLeader, out);
        if planted::is(Bug::L2) {
            return;
        }
        let changes = std::mem::take(&mut self.change_waiters)
            .into_iter()
            .map(|w| w.ticket);
        let waiters = self
            .written_waiters
            .drain(..)
            .chain(self.commit_waiters.drain(..));
        for waiter in waiters {
            // Whether it is there, the log of the next leader says.
            if let Some(numbers) = waiter.numbers {
                self.refused.note(numbers, ProduceError::NotLeader);
            }
            answer(out, waiter.ticket, Err(ProduceError::NotLeader));
        }
        for ticket in changes {
            answer(out, ticket, Err(ProduceError::NotLeader));
        }
    }

    /// Fails everybody who waits: the partition is out of service on this node.
    pub fn fence(&mut self, out: &mut Vec<Effect>) {
        let waiters = self
            .written_waiters
            .drain(..)
            .chain(self.commit_waiters.drain(..))
            .map(|w| w.ticket);
        let parked = std::mem::take(&mut self.parked)
            .into_iter()
            .map(|p| p.ticket);
        let changes = std::mem::take(&mut self.change_waiters)
            .into_iter()
            .map(|w| w.ticket);
        for ticket in waiters.chain(parked).chain(changes) {
            answer(out, ticket, Err(ProduceError::Storage));
        }
        for (_, ticket) in std::mem::take(&mut self.confirms.waiting) {
            out.push(Effect::Confirmed {
                ticket,
                result: Err(ProduceError::Storage),
            });
        }
        self.refuse_words(ProduceError::Storage, out);
        let fenced = Published {
            role: Role::Fenced,
            ready: false,
            ..self.handle.published()
        };
        self.handle.publish(fenced);
        out.push(Effect::Led { group: self.id() });
        out.push(Effect::Advanced { group: self.id() });
    }

    fn take(&mut self, did: Out, out: &mut Vec<Effect>) {
        let group = self.id();
        if let Some(at) = did.cut_at {
            self.overlay = Overlay::default();
            let before = at.saturating_sub(1).min(self.group.log().last());
            let offset = self.group.offset_in_memory(before);
            self.rolled.retain(|base| *base <= offset);
        }
        if let Some(snapshot) = did.reset {
            self.producers = ProducerState::decode(&snapshot.producers)
                .unwrap_or_else(|e| panic!("the producers of a snapshot that was stepped: {e}"));
            self.sees();
            self.applied = snapshot.index;
            self.after_reset = Some((snapshot.index, snapshot.offset));
            self.rolled.clear();
        }
        if !did.writes.is_empty() {
            out.push(Effect::Write {
                group,
                entries: did.writes,
            });
        }
        if let Some(item) = did.flush {
            out.push(Effect::Flush(item));
        }
        out.extend(did.ops.into_iter().map(|op| Effect::Op { group, op }));
        for (to, message) in did.messages {
            self.send(to, Body::Raft(message), out);
        }
        for entry in &did.committed {
            self.apply(entry, out);
        }
        if did.role_changed {
            let members = conf::members(self.group.conf().1);
            self.peers.retain(&members);
        }
    }

    fn apply(&mut self, entry: &LogEntry, out: &mut Vec<Effect>) {
        // R4: what raft delivers again was recovered with the partition.
        if entry.index <= self.applied {
            return;
        }
        self.applied = entry.index;
        if entry.kind == EntryKind::Data {
            let view = BatchView::parse(&entry.payload)
                .unwrap_or_else(|e| panic!("I1: entry {}: {e}", entry.index));
            self.producers.apply(&view);
            self.overlay.applied(view.producer_id(), entry.index);
            if self.deliver {
                let batch = entry.payload.clone();
                self.undelivered.push_back(CommittedBatch {
                    group: self.id(),
                    index: entry.index,
                    batch,
                });
            }
        }
        self.high_watermark = self.high_watermark.max(entry.next_offset());
        if self.rolled.remove(&entry.next_offset()) {
            self.snapshot_producers(entry.next_offset(), out);
        }
        if let Some(at) = self
            .change_waiters
            .iter()
            .position(|w| w.index == entry.index)
        {
            let waiter = self.change_waiters.swap_remove(at);
            answer(out, waiter.ticket, Ok(self.produced(entry.base_offset)));
        }
    }

    /// Has the producer state of the applied log written, which ends at this offset.
    fn snapshot_producers(&self, offset: i64, out: &mut Vec<Effect>) {
        out.push(Effect::Op {
            group: self.id(),
            op: Op::ProducerSnapshot {
                offset,
                producers: self.producers.encode(),
            },
        });
    }

    /// A replica that has everything is caught up as long as it is heard: nothing new is asked of it
    /// while nothing is produced.
    fn note_caught_up(&mut self) {
        let last = self.group.log().last();
        let heard_ticks = u32::try_from(self.group.election_ticks()).unwrap_or(u32::MAX);
        for id in self.voters() {
            if id != self.group.replica() && self.group.matched(id) >= last {
                let peer = self.peers.entry(id);
                if peer.silent_ticks <= heard_ticks {
                    peer.lagging_ticks = 0;
                }
            }
        }
    }

    fn answer_waiters(&mut self, out: &mut Vec<Effect>) {
        while self
            .written_waiters
            .front()
            .is_some_and(|w| w.index <= self.group.written())
        {
            if let Some(waiter) = self.written_waiters.pop_front() {
                answer(out, waiter.ticket, self.outcome(waiter.base_offset));
            }
        }
        while let Some(front) = self.commit_waiters.front() {
            let enough = if planted::is(Bug::L2) {
                self.high_watermark > front.base_offset.unwrap_or(0)
            } else {
                front.index <= self.applied && self.holders(front.index)
            };
            if !enough {
                break;
            }
            if let Some(waiter) = self.commit_waiters.pop_front() {
                answer(out, waiter.ticket, self.outcome(waiter.base_offset));
            }
        }
    }

    /// Whether `min.insync.replicas` asks for no more replicas than had to commit an entry.
    fn majority_is_enough(&self) -> bool {
        self.settings.min_insync_replicas as usize <= self.voters().len() / 2 + 1
    }

    /// Whether as many replicas hold the entry as `min.insync.replicas` asks for; the majority that
    /// committed it is enough where that setting is not above it.
    fn holders(&self, index: u64) -> bool {
        self.majority_is_enough()
            || self
                .voters()
                .iter()
                .filter(|id| **id == self.group.replica() || self.group.matched(**id) >= index)
                .count()
                >= self.settings.min_insync_replicas as usize
    }

    fn snapshot_of_published(&self) -> Published {
        let log = self.group.log();
        let high_watermark = if planted::is(Bug::ServeAboveWatermark) {
            log.next_offset()
        } else {
            self.high_watermark
        };
        Published {
            role: if self.group.is_leader() {
                Role::Leader
            } else {
                Role::Follower
            },
            leader_replica: self.group.leader(),
            term: self.group.term(),
            ready: self.group.is_leader() && self.ready,
            high_watermark,
            last_stable_offset: high_watermark,
            log_start_offset: log.start().offset,
            end_offset: high_watermark,
        }
    }

    fn publish(&mut self, out: &mut Vec<Effect>) {
        let settled = self.group.commit().min(self.group.durable());
        self.handle.inner.settled.store(settled, Ordering::Release);
        if let Some((index, offset)) = self.after_reset
            && self.group.applied() >= index
        {
            self.high_watermark = self.high_watermark.max(offset);
            self.after_reset = None;
        }
        let now = self.snapshot_of_published();
        let before = self.handle.published();
        if now == before {
            return;
        }
        assert!(
            now.high_watermark >= before.high_watermark || planted::is(Bug::ServeAboveWatermark),
            "I9: the watermark of group {} never moves back",
            self.id()
        );
        self.handle.publish(now);
        let led = |published: &Published| {
            (
                published.role,
                published.term,
                published.leader_replica,
                published.ready,
            )
        };
        if led(&now) != led(&before) {
            out.push(Effect::Led { group: self.id() });
        }
        out.push(Effect::Advanced { group: self.id() });
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(crate) fn step_raft(&mut self, from: u64, message: RaftMessage) {
        self.group.step(from, message);
    }
}

pub(crate) fn answer(out: &mut Vec<Effect>, ticket: Ticket, outcome: ProduceOutcome) {
    if ticket != Ticket::NONE {
        out.push(Effect::Produced { ticket, outcome });
    }
}
