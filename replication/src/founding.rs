//! How a node with an empty directory comes to its cluster: the decision, pure, and the record of it.
//!
//! INVARIANTS (docs/safety.md, R3)
//! * A record of founding is made by the lowest voter only, and only when every other voter has
//!   answered in this process's life that its directory is empty; it is durable before anybody hears
//!   of it, and everybody who takes it over is named in it with the very directory that he has.
//! * Who is not named never votes: he joins.
//! * Who has told a voter's directory that his own is empty takes nothing over that the same voter had
//!   said on an earlier directory: what stood there is gone, and the new one may found on that answer.
//!   So no two records are ever held at once, as long as no two voters are emptied while the cluster
//!   is being founded.

mod record;

use std::collections::{BTreeMap, BTreeSet};

pub use record::{BadRecord, FILE_NAME, Known, MAGIC, MAX_BYTES, Member};
use uuid::Uuid;

/// A node that is to found the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its `node.id`.
    pub node: i32,
    /// Its data directory.
    pub directory: Uuid,
}

/// What a voter has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Its directory is empty, too.
    Empty {
        /// The voters that it was started with.
        voters: String,
    },
    /// It belongs to a cluster already, to which it came by this.
    Bound(Known),
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To ask again: these have not answered yet.
    WaitFor(Vec<i32>),
    /// To ask again: all are empty, and the lowest of them is to found.
    WaitForFounder,
    /// To found the cluster with these, in the order of their ids.
    Found(Vec<Candidate>),
    /// To take this record over.
    TakeOver(Known),
    /// To join by these: the cluster is there without this directory.
    Join(Vec<i32>),
    /// To give up: this voter was started with others.
    OtherVoters {
        /// Which.
        node: i32,
        /// Its line.
        voters: String,
    },
}

/// A voter with an empty directory, from the start of its process until it comes to a cluster.
#[derive(Debug, Clone)]
pub struct Founding {
    me: Candidate,
    voters: Vec<i32>,
    line: String,
    /// The last answer of each voter, and the directory on which it answered.
    told: BTreeMap<i32, (Uuid, Answer)>,
    /// The directory for which each voter has asked last.
    asked: BTreeMap<i32, Uuid>,
    /// Directories that others have taken the place of.
    gone: BTreeSet<Uuid>,
    decided: bool,
}

impl Founding {
    /// `me`, one of `voters`, was started with this line of voters.
    #[must_use]
    pub fn new(me: Candidate, voters: Vec<i32>, line: String) -> Self {
        Self {
            me,
            voters,
            line,
            told: BTreeMap::new(),
            asked: BTreeMap::new(),
            gone: BTreeSet::new(),
            decided: false,
        }
    }

    /// The voters that it was started with.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Another node asks. True where it may be told that this directory is empty; false where it gets
    /// no answer now: a decision has been made and is not durable yet, or the question was late.
    pub fn asked(&mut self, by: &Candidate) -> bool {
        if self.decided || self.gone.contains(&by.directory) {
            return false;
        }
        let before = self.asked.insert(by.node, by.directory);
        self.gone.extend(before.filter(|old| *old != by.directory));
        true
    }

    /// A voter has answered. A later answer of it replaces its earlier one.
    pub fn told(&mut self, by: Candidate, answer: Answer) {
        self.told.insert(by.node, (by.directory, answer));
    }

    /// The next step. From [`Step::Found`] and [`Step::TakeOver`] on nobody is told that this directory
    /// is empty.
    pub fn decide(&mut self) -> Step {
        let asked = &self.asked;
        self.told
            .retain(|node, (directory, _)| asked.get(node).is_none_or(|newer| newer == directory));
        let step = self.step();
        self.decided = matches!(step, Step::Found(_) | Step::TakeOver(_));
        step
    }

    fn step(&self) -> Step {
        let mut bound = Vec::new();
        let mut empty = BTreeMap::from([(self.me.node, self.me.clone())]);
        let mut other = None;
        for (node, (directory, answer)) in &self.told {
            let (node, directory) = (*node, *directory);
            match answer {
                Answer::Bound(known) if known.founders().contains(&self.me) => {
                    return Step::TakeOver(known.clone());
                }
                Answer::Bound(_) => bound.push(node),
                Answer::Empty { voters } if *voters == self.line => {
                    empty.insert(node, Candidate { node, directory });
                }
                Answer::Empty { voters } => other = other.or(Some((node, voters.clone()))),
            }
        }
        if !bound.is_empty() {
            return Step::Join(bound);
        }
        if let Some((node, voters)) = other {
            return Step::OtherVoters { node, voters };
        }
        let voters = self.voters.iter();
        let missing: Vec<i32> = voters.copied().filter(|v| !empty.contains_key(v)).collect();
        if !missing.is_empty() {
            Step::WaitFor(missing)
        } else if self.voters.iter().min() == Some(&self.me.node) {
            Step::Found(empty.into_values().collect())
        } else {
            Step::WaitForFounder
        }
    }
}
