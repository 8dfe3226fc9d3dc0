//! A replica that may have lost acknowledged entries: it neither votes nor leads until it is whole.
//!
//! Out of it lead two ways only. R1: a leader that has applied an entry of its own term after this
//! replica introduced itself names the last entry of its log, and the replica has persisted it. R2:
//! fewer than a majority of the voters are whole; then the greatest log of **all** voters leads.
//!
//! Whose reports R2 waits for is decided by the newest configuration that anybody has applied: in an
//! older one may stand a replica that was removed and deleted since, and nobody would ever hear of it.

use std::collections::{BTreeMap, BTreeSet};

use raft::eraftpb::ConfState;
use riverrun_storage::planted::{self, Bug};

use crate::conf;
use crate::message::{Body, RaftKind, Report};
use crate::partition::Partition;
use crate::shard::Effect;

/// The state of recovering.
#[derive(Debug, Default)]
pub struct Recovering {
    on: bool,
    /// (leader's term, index, term of that entry): what a leader said must be held (R1).
    target: Option<(u64, u64, u64)>,
    /// Who asked for a vote and was not heard: it is asked what it holds. This replica's own
    /// configuration may be so old that nobody in it is left.
    candidates: BTreeSet<u64>,
    /// The current round of questions and its answers (R2).
    round: u64,
    reports: BTreeMap<u64, Report>,
    /// The newest configuration that a report has named, where it is newer than this replica's.
    newest: Option<(u64, ConfState)>,
    /// The only voter that may be voted for, by the reports of this round.
    greatest: Option<u64>,
    /// A leader was heard of since the last tick that looked.
    pub(crate) heard_of_leader: bool,
    quiet_ticks: u32,
}

/// Most candidates that are remembered; no group has more members.
const MOST_CANDIDATES: usize = 64;

/// Ticks without a leader after which a recovering replica asks what the others hold.
const QUIET_TICKS: u32 = 20;

impl Recovering {
    pub(crate) fn new(on: bool) -> Self {
        Self {
            on,
            ..Self::default()
        }
    }

    /// Whether the replica may be short.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    fn off(&mut self) {
        *self = Self {
            round: self.round,
            ..Self::default()
        };
    }
}

impl Partition {
    /// Whether this replica may be ticked towards an election.
    pub(crate) fn may_campaign(&self) -> bool {
        !self.blind
            && (!self.recovering.on || self.recovering.greatest == Some(self.group.replica()))
    }

    /// Whether a message may be stepped: a recovering replica takes no part in elections but those
    /// that R2 allows. Who asked for a vote that it may not give is asked in turn.
    pub(crate) fn may_step(&mut self, from: u64, kind: RaftKind) -> bool {
        if self.blind && kind == RaftKind::TimeoutNow {
            return false;
        }
        if !self.recovering.on {
            return true;
        }
        match kind {
            RaftKind::RequestVote | RaftKind::RequestPreVote => {
                let may = self.recovering.greatest == Some(from);
                if !may && self.recovering.candidates.len() < MOST_CANDIDATES {
                    self.recovering.candidates.insert(from);
                }
                may
            }
            RaftKind::TimeoutNow => false,
            _ => true,
        }
    }

    /// A leader's word on what this replica must hold. The first of a term counts: a later one would
    /// only move the goal.
    pub(crate) fn on_recover_to(
        &mut self,
        from: u64,
        term: u64,
        index: u64,
        index_term: u64,
        out: &mut Vec<Effect>,
    ) {
        if term < self.group.term() {
            return;
        }
        if !self.recovering.on {
            self.say_hello(from, term, out);
        } else if self
            .recovering
            .target
            .is_none_or(|(known, ..)| known < term)
        {
            self.recovering.target = Some((term, index, index_term));
        }
    }

    /// A leader tells the recovering replicas what to hold; it must have applied an entry of its own
    /// term by now, and they must have introduced themselves.
    pub(crate) fn tell_recovering(&mut self, out: &mut Vec<Effect>) {
        if !self.group.is_leader() || !(self.is_ready() || planted::is(Bug::R1)) {
            return;
        }
        let term = self.group.term();
        let log = self.group.log();
        let index = if planted::is(Bug::R1) {
            self.group.commit()
        } else {
            log.last()
        };
        let index_term = log.term_of(index).unwrap_or(0);
        for to in conf::members(self.group.conf().1) {
            let peer = self.peers.get(to);
            if peer.recovering && peer.greeted_term == term {
                self.send(
                    to,
                    Body::RecoverTo {
                        term,
                        index,
                        index_term,
                    },
                    out,
                );
            }
        }
    }

    /// Leaves the state when the leader's goal is persisted.
    pub(crate) fn leave_recovering(&mut self, out: &mut Vec<Effect>) {
        let Some((term, index, index_term)) = self.recovering.target else {
            return;
        };
        if self.recovering.on
            && self.group.durable() >= index
            && self.group.log().term_of(index) == Some(index_term)
        {
            tracing::info!(group = self.id(), index, "the replica is whole again");
            self.recovering.off();
            self.group.set_recovering(false);
            let leader = self.group.leader();
            if leader != 0 && leader != self.group.replica() {
                self.say_hello(leader, term, out);
            }
        }
    }

    /// A leader that was elected by R2 is whole by definition: its log is the log.
    pub(crate) fn recovering_leader_is_whole(&mut self) {
        if self.recovering.on {
            tracing::warn!(
                group = self.id(),
                last_index = self.group.log().last(),
                "no majority was whole: the greatest log leads"
            );
            self.recovering.off();
            self.group.set_recovering(false);
        }
    }

    pub(crate) fn tick_recovering(&mut self, out: &mut Vec<Effect>) {
        if !self.recovering.on {
            return;
        }
        if std::mem::take(&mut self.recovering.heard_of_leader) {
            self.recovering.quiet_ticks = 0;
            self.recovering.greatest = None;
            return;
        }
        self.recovering.quiet_ticks += 1;
        if !self.recovering.quiet_ticks.is_multiple_of(QUIET_TICKS) {
            return;
        }
        self.recovering.round += 1;
        self.recovering.reports.clear();
        let round = self.recovering.round;
        let mut asked = self.voters();
        asked.extend(conf::voters(&self.newest_conf()));
        asked.extend(&self.recovering.candidates);
        asked.sort_unstable();
        asked.dedup();
        for to in asked {
            if to != self.group.replica() {
                self.send(to, Body::AskReport { round }, out);
            }
        }
        // It may have become the only voter since it started, and then nobody else will answer.
        self.judge_reports();
    }

    /// The newest applied configuration that is known of.
    fn newest_conf(&self) -> ConfState {
        let (index, own) = self.group.conf();
        match &self.recovering.newest {
            Some((newer, conf)) if *newer > index => conf.clone(),
            _ => own.clone(),
        }
    }

    fn report(&self, round: u64) -> Report {
        let log = self.group.log();
        let last_index = self.group.written();
        Report {
            round,
            term: self.group.term(),
            last_term: log.term_of(last_index).unwrap_or(0),
            last_index,
            whole: !self.recovering.on,
            leader: self.group.leader(),
            conf_index: self.group.conf().0,
            conf: self.group.stored_conf().bytes,
        }
    }

    pub(crate) fn on_ask_report(&mut self, from: u64, round: u64, out: &mut Vec<Effect>) {
        let report = self.report(round);
        self.send(from, Body::Report(report), out);
    }

    pub(crate) fn on_report(&mut self, from: u64, report: Report) {
        if !self.recovering.on || report.round != self.recovering.round {
            return;
        }
        let known = self
            .recovering
            .newest
            .as_ref()
            .map_or(0, |(index, _)| *index);
        if report.conf_index > known.max(self.group.conf().0) {
            match conf::decode_conf(&report.conf) {
                Ok(conf) => self.recovering.newest = Some((report.conf_index, conf)),
                // Nothing is decided on an older one.
                Err(error) => {
                    tracing::warn!(group = self.id(), from, %error, "a report cannot be read");
                    return;
                }
            }
        }
        self.recovering.reports.insert(from, report);
        self.judge_reports();
    }

    /// With the answer of every voter in hand: who may be voted for (R2).
    fn judge_reports(&mut self) {
        let own = self.group.replica();
        let mut reports = self.recovering.reports.clone();
        reports.insert(own, self.report(self.recovering.round));
        let conf = self.newest_conf();
        let voters = conf::voters(&conf);
        // One voter missing: wait.
        if !voters.iter().all(|id| reports.contains_key(id)) {
            return;
        }
        let whole = conf::majority(&conf, |id| reports.get(&id).is_some_and(|r| r.whole));
        if whole {
            self.recovering.greatest = None;
            return;
        }
        self.recovering.greatest = reports
            .iter()
            .filter(|(id, _)| voters.contains(id))
            .max_by_key(|(id, r)| (r.last_term, r.last_index, std::cmp::Reverse(**id)))
            .map(|(id, _)| *id);
        if self.recovering.greatest == Some(own) {
            self.group.campaign();
        }
    }
}
