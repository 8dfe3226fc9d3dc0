//! Messages between replicas: who is heard, who must introduce himself first, who is contradicted.
//!
//! Every message carries both nodes' incarnations and is judged when it is stepped, not when it was
//! read (R1). A leader counts what a replica says only after the replica introduced itself in this
//! term and this life, and only if its own log agrees with what the replica holds as committed (R2b).

use riverrun_storage::planted::{self, Bug};

use crate::message::{Body, Hello, PeerMessage, RaftKind, RaftMessage};
use crate::partition::Partition;
use crate::peers::Life;
use crate::shard::Effect;

impl Partition {
    /// Steps a message of another replica and carries on.
    pub fn on_message(&mut self, message: PeerMessage, out: &mut Vec<Effect>) {
        let PeerMessage {
            from,
            to,
            from_incarnation,
            to_incarnation,
            body,
            ..
        } = message;
        if to != self.group.replica() || from == to {
            return;
        }
        let life = if planted::is(Bug::R1) {
            Life::Known
        } else {
            self.peers
                .hear(from, from_incarnation, to_incarnation, self.incarnation)
        };
        if let Life::New | Life::Mistaken { new: true } = life {
            self.group.unreachable(from);
            self.greet(from, out);
        }
        match life {
            Life::Over => return,
            Life::Mistaken { .. } => {
                // A learner campaigns never and would not be heard of otherwise: any word of this
                // life makes the other one ask for an introduction.
                return self.say_hello(from, 0, out);
            }
            Life::Known | Life::New => {}
        }
        match body {
            Body::Raft(raft) => self.on_raft(from, raft),
            Body::AskHello { term } => self.on_ask_hello(from, term, out),
            Body::Hello(hello) => self.on_hello(from, hello, out),
            Body::RecoverTo {
                term,
                index,
                index_term,
            } => {
                self.on_recover_to(from, term, index, index_term, out);
            }
            Body::Contradicted { term } => {
                if term >= self.group.term() {
                    out.push(Effect::Contradicted { group: self.id() });
                }
            }
            Body::Committed { index, index_term } => self.group.learn_commit(index, index_term),
            Body::AskReport { round } => self.on_ask_report(from, round, out),
            Body::Report(report) => self.on_report(from, report),
            Body::Probe { term, sequence } => {
                if term >= self.group.term() {
                    self.send(from, Body::ProbeOk { term, sequence }, out);
                }
            }
            Body::ProbeOk { term, sequence } => self.on_probe_ok(from, term, sequence, out),
        }
        self.pump(out);
    }

    fn on_raft(&mut self, from: u64, message: RaftMessage) {
        if !self.may_step(from, message.kind) {
            return;
        }
        if message.kind == RaftKind::AppendResponse
            && self.group.is_leader()
            && message.term == self.group.term()
        {
            let peer = self.peers.get(from);
            if peer.contradicted
                || (peer.greeted_term != self.group.term() && !planted::is(Bug::R2b))
            {
                return;
            }
        }
        self.recovering.heard_of_leader |= matches!(
            message.kind,
            RaftKind::Append | RaftKind::Heartbeat | RaftKind::Snapshot
        ) && message.term >= self.group.term();
        self.step_raft(from, message);
    }

    /// Asks a replica to introduce itself, where this one leads.
    pub(crate) fn greet(&mut self, to: u64, out: &mut Vec<Effect>) {
        if self.group.is_leader() {
            self.send(
                to,
                Body::AskHello {
                    term: self.group.term(),
                },
                out,
            );
        }
    }

    /// A new leader asks everybody.
    pub(crate) fn greet_all(&mut self, out: &mut Vec<Effect>) {
        for to in crate::conf::members(self.group.conf().1) {
            if to != self.group.replica() {
                self.greet(to, out);
            }
        }
    }

    fn on_ask_hello(&mut self, from: u64, term: u64, out: &mut Vec<Effect>) {
        if term >= self.group.term() && !self.group.is_leader() {
            self.say_hello(from, term, out);
        }
    }

    pub(crate) fn say_hello(&mut self, to: u64, term: u64, out: &mut Vec<Effect>) {
        let commit = self.group.commit();
        let hello = Hello {
            term,
            last_index: self.group.persisted(),
            commit,
            commit_term: self.group.log().term_of(commit).unwrap_or(0),
            recovering: self.recovering.is_on(),
            marred: self.is_marred(),
        };
        self.send(to, Body::Hello(hello), out);
    }

    /// Nothing of what this replica says counts any more, and it is told so.
    fn contradict(&mut self, replica: u64, term: u64, out: &mut Vec<Effect>) {
        self.peers.entry(replica).contradicted = true;
        self.send(replica, Body::Contradicted { term }, out);
    }

    fn on_hello(&mut self, from: u64, hello: Hello, out: &mut Vec<Effect>) {
        if !self.group.is_leader() || hello.term != self.group.term() {
            return;
        }
        let log = self.group.log();
        // Below the log's first entry everything is committed for everybody.
        let agrees = hello.commit <= log.start().prev_index
            || log.term_of(hello.commit) == Some(hello.commit_term);
        if !agrees && !planted::is(Bug::R2b) {
            tracing::error!(
                group = self.id(),
                replica = from,
                commit = hello.commit,
                "a replica holds as committed what this log does not: it must be replaced"
            );
            self.contradict(from, hello.term, out);
            return;
        }
        // R14: in this term it has acknowledged more, from its disk, and does not know that it may lack it.
        let counted = self.group.matched(from);
        let is_new = self.peers.get(from).greeted_term != self.group.term();
        let forgot = is_new && !hello.recovering && hello.last_index < counted;
        if forgot && !self.group.acknowledges_from_memory() {
            tracing::error!(
                group = self.id(),
                replica = from,
                last_index = hello.last_index,
                counted,
                "a replica has forgotten what it acknowledged, as if an older copy of its files had been put \
                 back: it must be replaced"
            );
            self.contradict(from, hello.term, out);
            return;
        }
        let term = self.group.term();
        let peer = self.peers.entry(from);
        let first = peer.greeted_term != term;
        peer.greeted_term = term;
        peer.recovering = hello.recovering;
        peer.marred = hello.marred;
        if first {
            self.group.reset_progress(from, hello.last_index);
        }
        if hello.recovering {
            self.tell_recovering(out);
        }
    }

    /// Who has left the voters and hears of no leader says what is committed. The change that it left
    /// by may be known to it alone: the others, who hold the entry and may not count it, would wait for
    /// its vote, and it may not campaign.
    fn tick_commit(&mut self, out: &mut Vec<Effect>) {
        let voters = self.voters();
        if self.group.leader() != 0 || voters.contains(&self.group.replica()) {
            self.leaderless_ticks = 0;
            return;
        }
        self.leaderless_ticks += 1;
        if !self
            .leaderless_ticks
            .is_multiple_of(self.group.election_ticks())
        {
            return;
        }
        let index = self.group.commit();
        let Some(index_term) = self.group.log().term_of(index) else {
            return;
        };
        for to in voters {
            self.send(to, Body::Committed { index, index_term }, out);
        }
    }

    /// Tells the leader when bytes of this replica turn out to be bad after it introduced itself, and when they
    /// are right again: its word on the group rests on that (R6). It is told a few times, as nobody answers.
    fn tick_marred(&mut self, out: &mut Vec<Effect>) {
        let leader = self.group.leader();
        let now = (leader, self.group.term(), self.is_marred());
        if self.marred_told.0 != now {
            let was_marred = self.marred_told.0.2;
            self.marred_told = (now, 0);
            // Whoever leads anew asks by himself.
            if !now.2 && !was_marred {
                self.marred_told.1 = usize::MAX;
            }
        }
        let (_, ticks) = self.marred_told;
        if leader == 0 || ticks > 3 * self.group.election_ticks() {
            return;
        }
        self.marred_told.1 = ticks + 1;
        if ticks.is_multiple_of(self.group.election_ticks()) {
            self.say_hello(leader, self.group.term(), out);
        }
    }

    /// Repeats, every tick, what has not been answered.
    pub(crate) fn tick_handshakes(&mut self, out: &mut Vec<Effect>) {
        self.tick_recovering(out);
        self.tick_commit(out);
        if !self.group.is_leader() {
            self.tick_marred(out);
            return;
        }
        let term = self.group.term();
        for to in crate::conf::members(self.group.conf().1) {
            let peer = self.peers.get(to);
            if to != self.group.replica() && peer.greeted_term != term {
                if peer.contradicted {
                    self.send(to, Body::Contradicted { term }, out);
                } else {
                    self.greet(to, out);
                }
            }
        }
        self.tell_recovering(out);
    }
}
