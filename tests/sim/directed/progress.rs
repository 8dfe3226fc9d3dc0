//! How things go on: ticks, flush rounds, elections.

use riverrun_replication::message::RaftKind;
use riverrun_replication::shard::Input;
use riverrun_replication::{Acks, Role};

use super::cluster::{BESIDE, Cluster};
use super::machine::SMALL_ROUND_BYTES;
use super::wire::Sent;

impl Cluster {
    /// A tick of a node's clock, where its process runs.
    pub(super) fn tick(&mut self, at: u64) {
        if self.runs(at) {
            self.turn(at, vec![Input::Tick]);
        }
    }

    /// One flush round of a node, with the blocking work before it.
    pub(super) fn flush(&mut self, at: u64) {
        if self.great_rounds.contains(&at) {
            let great = "x".repeat(2 * SMALL_ROUND_BYTES as usize);
            self.produce_to(at, BESIDE, Acks::All, None, &great);
        }
        let inputs = self.machine(at).round();
        if !self.has_stopped(at) {
            self.turn(at, inputs);
        }
    }

    /// Until its power goes every round of a node is bulk: another partition's great batch is in each,
    /// and the next one begins as soon as anybody wants it.
    pub(super) fn make_rounds_great(&mut self, at: u64) {
        self.create_beside(at);
        self.great_rounds.insert(at);
    }

    /// Lets messages between these nodes arrive and their flushers work until nothing moves.
    pub(super) fn run(&mut self, among: &[u64]) {
        self.run_only(among, |_| true);
    }

    /// The same for messages that fit; the others stay on their way.
    pub(super) fn run_only(&mut self, among: &[u64], fits: impl Fn(&Sent) -> bool) {
        for _ in 0..10_000 {
            let within = |sent: &Sent| among.contains(&sent.from) && among.contains(&sent.to);
            let mut moved = self.deliver(|sent| within(sent) && fits(sent)) > 0;
            for at in among {
                let great = self.great_rounds.contains(at);
                let machine = self.machine(*at);
                let runs = machine.process.is_some();
                if runs && (machine.wants_round() || (!great && machine.wants_any())) {
                    self.flush(*at);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
        for sent in &self.wire {
            eprintln!("{} to {}: {:?}", sent.from, sent.to, sent.message);
        }
        panic!("nodes {among:?} never come to rest");
    }

    /// Ticks these nodes, with all that follows between them.
    pub(super) fn pass(&mut self, among: &[u64], ticks: u32) {
        for _ in 0..ticks {
            for at in among {
                self.tick(*at);
            }
            self.run(among);
        }
    }

    /// The leader tells these nodes what is committed.
    pub(super) fn spread(&mut self, leader: u64, among: &[u64]) {
        self.run(among);
        for _ in 0..3 {
            self.tick(leader);
            self.run(among);
        }
    }

    /// Lets a node win an election among these, and nothing else happen: what it sends as a leader
    /// is on its way.
    pub(super) fn win(&mut self, to: u64, among: &[u64]) {
        for _ in 0..60 {
            self.ballot(to, among);
            if self.published(to).role == Role::Leader {
                return;
            }
        }
        panic!("node {to} is not elected");
    }

    /// Time passes, in which only this node campaigns; says whether it leads in the end.
    pub(super) fn tries(&mut self, to: u64, among: &[u64], ticks: u32) -> bool {
        for _ in 0..ticks {
            self.ballot(to, among);
            self.run(among);
        }
        self.published(to).role == Role::Leader
    }

    fn ballot(&mut self, to: u64, among: &[u64]) {
        for at in among {
            self.tick(*at);
        }
        self.lose(|sent| {
            sent.from != to
                && matches!(
                    sent.raft(),
                    Some(RaftKind::RequestPreVote | RaftKind::RequestVote)
                )
        });
        self.run_only(among, Sent::is_of_election);
    }

    /// Lets a node win an election among these and become ready to answer.
    pub(super) fn elect(&mut self, to: u64, among: &[u64]) {
        self.win(to, among);
        self.spread(to, among);
        assert!(self.published(to).ready, "node {to} leads and is not ready");
    }
}
