//! A leader's word on its group: who of its voters is whole (R9).
//!
//! Whether a replica may be replaced is nobody's guess: the image of the controller is not the group's
//! configuration, and what a node last heard may have been true. So the ready leader of the group is asked;
//! it asks its voters in turn, answers when a majority has said that it leads still and the others have had
//! their time, and counts only who has answered after the question.

use crate::api::{ProduceError, Ticket, VoterWord, Word};
use crate::conf;
use crate::partition::Partition;
use crate::shard::Effect;

/// A word that is waited for.
#[derive(Debug)]
pub(crate) struct AskedWord {
    ticket: Ticket,
    /// The probe that was sent for it.
    sequence: u64,
    /// What the leader had committed at the question, and the last entry of its log.
    commit: u64,
    last: u64,
    /// Ticks that the voters have had to answer.
    ticks: usize,
}

impl Partition {
    /// Asks for this leader's word on its group.
    pub fn ask_word(&mut self, ticket: Ticket, out: &mut Vec<Effect>) {
        if !self.group.is_leader() || !self.is_ready() {
            out.push(Effect::Word {
                ticket,
                result: Err(ProduceError::NotLeader),
            });
            return;
        }
        self.confirms.sequence += 1;
        self.confirms.words.push(AskedWord {
            ticket,
            sequence: self.confirms.sequence,
            commit: self.group.commit(),
            last: self.group.log().last(),
            ticks: 0,
        });
        self.probe(out);
    }

    pub(crate) fn tick_words(&mut self) {
        for asked in &mut self.confirms.words {
            asked.ticks += 1;
        }
    }

    /// Answers those whose voters have all answered, or have had an election's time while a majority did.
    pub(crate) fn answer_words(&mut self, out: &mut Vec<Effect>) {
        if self.confirms.words.is_empty() || !self.is_ready() {
            return;
        }
        let patience = self.group.election_ticks();
        for asked in std::mem::take(&mut self.confirms.words) {
            let answered = |id: u64| self.has_answered(id, asked.sequence);
            let conf = self.group.conf().1;
            let all = conf::voters(conf).into_iter().all(answered);
            if conf::majority(conf, answered) && (all || asked.ticks >= patience) {
                out.push(Effect::Word {
                    ticket: asked.ticket,
                    result: Ok(self.word(&asked)),
                });
            } else {
                self.confirms.words.push(asked);
            }
        }
    }

    pub(crate) fn refuse_words(&mut self, why: ProduceError, out: &mut Vec<Effect>) {
        for asked in std::mem::take(&mut self.confirms.words) {
            out.push(Effect::Word {
                ticket: asked.ticket,
                result: Err(why),
            });
        }
    }

    fn has_answered(&self, id: u64, sequence: u64) -> bool {
        let answered = self.confirms.answered.get(&id);
        id == self.group.replica() || answered.is_some_and(|answered| *answered >= sequence)
    }

    fn word(&self, asked: &AskedWord) -> Word {
        let conf = self.group.conf().1;
        let own = self.group.replica();
        let term = self.group.term();
        let voter = |replica: u64| {
            let (sound, persisted) = if replica == own {
                let sound = !self.is_recovering() && !self.is_marred();
                (sound, self.group.durable())
            } else {
                let peer = self.peers.get(replica);
                let sound = peer.greeted_term == term
                    && !peer.contradicted
                    && !peer.recovering
                    && !peer.marred
                    && self.has_answered(replica, asked.sequence);
                (sound, self.group.matched(replica))
            };
            VoterWord {
                replica,
                whole: sound && persisted >= asked.commit,
                has_all: sound && persisted >= asked.last,
            }
        };
        Word {
            group: self.id(),
            term,
            changing: !conf.get_voters_outgoing().is_empty() || self.group.has_pending_change(),
            voters: conf.get_voters().iter().map(|id| voter(*id)).collect(),
            learners: conf.get_learners().to_vec(),
            high_watermark: self.handle.published().high_watermark,
        }
    }
}
