//! What is on its way between the nodes: a test says what arrives and what is lost.

use std::collections::VecDeque;

use riverrun_replication::message::{Body, PeerMessage, RaftKind};
use riverrun_replication::shard::Input;

use super::cluster::Cluster;

/// A message on its way between two nodes.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) message: PeerMessage,
}

impl Sent {
    /// The kind, where it is a message of Raft.
    pub(super) fn raft(&self) -> Option<RaftKind> {
        match &self.message.body {
            Body::Raft(raft) => Some(raft.kind),
            _ => None,
        }
    }

    /// Whether it says what its sender has persisted.
    pub(super) fn is_acknowledgement(&self) -> bool {
        self.raft() == Some(RaftKind::AppendResponse)
    }

    /// Whether it belongs to an election.
    pub(super) fn is_of_election(&self) -> bool {
        matches!(
            self.raft(),
            Some(
                RaftKind::RequestPreVote
                    | RaftKind::RequestPreVoteResponse
                    | RaftKind::RequestVote
                    | RaftKind::RequestVoteResponse
                    | RaftKind::TimeoutNow
            )
        )
    }

    /// Whether it brings entries.
    pub(super) fn has_entries(&self) -> bool {
        matches!(&self.message.body, Body::Raft(raft) if !raft.entries.is_empty())
    }
}

/// What may happen to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It never arrives, and its sender learns of it.
    Lost,
    /// It arrives, and when all is over once more.
    Twice,
    /// It arrives when all is over.
    Late,
    /// Its receiver loses power before it arrives, and starts again.
    PowerCut,
    /// Its receiver's process is killed before it arrives, and starts again.
    Killed,
}

/// One message that something happens to.
#[derive(Debug)]
pub(super) struct Mishap {
    /// How many are sent before it.
    left: u64,
    fate: Fate,
    /// It, once it was sent.
    late: Option<Sent>,
    /// Its receiver has not been restarted yet.
    restart: Option<u64>,
}

impl Cluster {
    /// After so many more messages, something happens to one.
    pub(super) fn meddle(&mut self, after: u64, fate: Fate) {
        self.mishaps.push(Mishap {
            left: after,
            fate,
            late: None,
            restart: None,
        });
    }

    pub(super) fn send(&mut self, sent: Sent) {
        let mut arrives = true;
        for mishap in self.mishaps.iter_mut().filter(|m| m.late.is_none()) {
            if mishap.left > 0 {
                mishap.left -= 1;
                continue;
            }
            mishap.late = Some(sent.clone());
            arrives &= mishap.fate == Fate::Twice;
            if matches!(mishap.fate, Fate::PowerCut | Fate::Killed) {
                mishap.restart = Some(sent.to);
            }
        }
        if arrives {
            self.wire.push_back(sent);
        }
    }

    /// What happened to messages comes to its end: the sender of a lost one learns of it, a late one
    /// arrives. Says how many were met.
    pub(super) fn meddled(&mut self) -> usize {
        let mut met = 0;
        for mishap in std::mem::take(&mut self.mishaps) {
            let Some(sent) = mishap.late else { continue };
            met += 1;
            eprintln!("{:?}: {:?}", mishap.fate, sent.message);
            if matches!(mishap.fate, Fate::Twice | Fate::Late) {
                self.wire.push_back(sent);
            } else if mishap.fate == Fate::Lost && self.runs(sent.from) {
                let (group, replica) = (sent.message.group, sent.message.to);
                self.turn(sent.from, vec![Input::Unreachable { group, replica }]);
            }
        }
        met
    }

    /// Starts the receivers of messages again.
    fn restart_receivers(&mut self) {
        let due = self.mishaps.iter_mut().filter_map(|mishap| {
            let at = mishap.restart.take()?;
            Some((at, mishap.fate))
        });
        let due: Vec<_> = due.collect();
        for (at, fate) in due {
            if !self.runs(at) {
                continue;
            }
            if fate == Fate::PowerCut {
                self.power_cut(at);
            } else {
                self.kill(at);
            }
            self.start(at);
        }
    }

    /// Lets every message that fits and is on its way now arrive, in order; says how many did.
    /// Those for a node that does not run are lost.
    pub(super) fn deliver(&mut self, fits: impl Fn(&Sent) -> bool) -> usize {
        self.restart_receivers();
        let (arriving, staying) = std::mem::take(&mut self.wire)
            .into_iter()
            .partition::<VecDeque<_>, _>(fits);
        self.wire = staying;
        let count = arriving.len();
        for sent in arriving {
            if self.runs(sent.to) {
                self.turn(sent.to, vec![Input::Message(sent.message)]);
            }
        }
        count
    }

    /// Loses every message that fits; says how many there were.
    pub(super) fn lose(&mut self, fits: impl Fn(&Sent) -> bool) -> usize {
        let before = self.wire.len();
        self.wire.retain(|sent| !fits(sent));
        before - self.wire.len()
    }

    /// Loses what is on its way to and from a node.
    pub(super) fn cut_off(&mut self, at: u64) {
        self.lose(|sent| sent.from == at || sent.to == at);
    }

    /// Takes the messages that fit off the wire, to be handed in later.
    pub(super) fn hold(&mut self, fits: impl Fn(&Sent) -> bool) -> Vec<Sent> {
        let (held, staying) = std::mem::take(&mut self.wire)
            .into_iter()
            .partition::<VecDeque<_>, _>(fits);
        self.wire = staying;
        held.into()
    }

    /// A message that was held, or is repeated by the network, is on its way again.
    pub(super) fn put(&mut self, sent: Vec<Sent>) {
        self.wire.extend(sent);
    }

    /// Messages on their way.
    pub(super) fn on_the_wire(&self) -> impl Iterator<Item = &Sent> {
        self.wire.iter()
    }
}
