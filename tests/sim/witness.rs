//! What replicas tell each other and count of each other, held against what they have.

use riverrun_replication::group::FlushItem;
use riverrun_replication::message::{Body, PeerMessage, RaftKind};
use riverrun_replication::partition::Partition;

use crate::host::Process;
use crate::invariants::promises_outlive_a_crash::Recovered;
use crate::invariants::{Checked, what_is_counted_is_held};
use crate::world::World;

impl World {
    /// A group that acknowledges from memory promises nothing that outlives a power cut.
    fn promises(&self, group: u64) -> bool {
        let plan = self
            .every_group
            .get(&group)
            .and_then(|place| self.plan.groups.get(*place));
        !plan.is_some_and(|plan| plan.caching)
    }

    /// A message leaves: the term in which it is said, and what it acknowledges, are promises.
    pub fn note_promise(&mut self, process: &Process, message: &PeerMessage) {
        let Body::Raft(raft) = &message.body else {
            return;
        };
        let (group, replica) = (message.group, message.from);
        let promises = &mut self.invariants.promises;
        // The term of a pre-vote is one that nobody is in.
        let pre = matches!(
            raft.kind,
            RaftKind::RequestPreVote | RaftKind::RequestPreVoteResponse
        );
        if !pre {
            promises.speaks(group, replica, raft.term);
        }
        if raft.kind == RaftKind::AppendResponse && !raft.reject && self.promises(group) {
            let mark = process
                .views
                .get(&group)
                .and_then(|view| view.get(raft.index));
            let term = mark.map(|mark| mark.term);
            self.invariants
                .promises
                .acknowledges(group, replica, raft.index, term);
        }
    }

    /// What a flush round is to record as cut is not promised any more.
    pub fn note_cut(&mut self, process: &Process, item: &FlushItem) {
        let from = match (&item.reset, item.cut) {
            (Some(_), _) => 0,
            (None, Some(from)) => from,
            (None, None) => return,
        };
        if let Some(handle) = process.node.handle(item.group) {
            let promises = &mut self.invariants.promises;
            promises.cuts(item.group, handle.replica(), from);
        }
    }

    /// A replica was recovered.
    pub fn promises_are_kept(&mut self, node: usize, partition: &Partition) {
        // Who may have forgotten something knows that.
        if self.nemesis.may_be_damaged(node) && partition.is_recovering() {
            return;
        }
        let log = partition.group().log();
        let recovered = Recovered {
            last_index: log.last(),
            start: log.start().prev_index,
            term: partition.group().term(),
        };
        let checked = self.invariants.promises.is_back(
            partition.id(),
            partition.group().replica(),
            recovered,
            |index| log.term_of(index),
        );
        self.check(checked);
    }

    /// A leader counts others towards its majorities.
    pub fn counts_what_is_held(&self, node: usize, leader: &Partition) -> Checked {
        let group = leader.id();
        let log = leader.group().log();
        for replica in riverrun_replication::conf::members(leader.group().conf().1) {
            let Some((matched, incarnation)) = leader.counted(replica) else {
                continue;
            };
            let Some(other) = self.routes.get(&(group, replica)).copied() else {
                continue;
            };
            let Some(process) = self.process(other) else {
                continue;
            };
            if process.node.incarnation() != incarnation || self.nemesis.may_be_damaged(other) {
                continue;
            }
            let Some(follower) = process.partition(group) else {
                continue;
            };
            // Behind a newer term it may have cut what it held in this one.
            let theirs = follower.group();
            if theirs.replica() != replica
                || theirs.term() != leader.group().term()
                || matched <= theirs.log().start().prev_index
                || matched <= log.start().prev_index
            {
                continue;
            }
            what_is_counted_is_held::counts(
                group,
                node,
                other,
                matched,
                log.term_of(matched),
                theirs.log().term_of(matched),
            )?;
        }
        Ok(())
    }
}
