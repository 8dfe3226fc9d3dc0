//! How a node with an empty directory comes to its cluster: the decision, pure.
//!
//! INVARIANTS (docs/safety.md, R3)
//! * A record of founding is made by the lowest voter only, and only when every other voter has
//!   answered in this process's life that its directory is empty; it is durable before anybody hears
//!   of it, and everybody who takes it over is named in it with the very directory that he has.
//! * Who is not named never votes: he joins.

use std::collections::BTreeMap;

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
        /// Its data directory.
        directory: Uuid,
        /// The voters that it was started with.
        voters: String,
    },
    /// It belongs to a cluster already.
    Bound {
        /// Those who founded the cluster, where it came to it by founding.
        founders: Vec<Candidate>,
    },
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
    /// To take over what this voter has.
    TakeOver(i32),
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

/// The next step of `me`, one of `voters`, whose own line is `line`, with the answers so far. Answers
/// are of this process's life; a later one of a voter replaces his earlier one.
#[must_use]
pub fn next(me: &Candidate, voters: &[i32], line: &str, answers: &BTreeMap<i32, Answer>) -> Step {
    let mut bound = Vec::new();
    let mut empty = BTreeMap::from([(me.node, me.clone())]);
    let mut other = None;
    for (node, answer) in answers {
        match answer {
            Answer::Bound { founders } if founders.contains(me) => return Step::TakeOver(*node),
            Answer::Bound { .. } => bound.push(*node),
            Answer::Empty { directory, voters } if voters == line => {
                let node = *node;
                let directory = *directory;
                empty.insert(node, Candidate { node, directory });
            }
            Answer::Empty { voters, .. } => other = other.or(Some((*node, voters.clone()))),
        }
    }
    if !bound.is_empty() {
        return Step::Join(bound);
    }
    if let Some((node, voters)) = other {
        return Step::OtherVoters { node, voters };
    }
    let missing: Vec<i32> = voters
        .iter()
        .copied()
        .filter(|voter| !empty.contains_key(voter))
        .collect();
    if !missing.is_empty() {
        Step::WaitFor(missing)
    } else if voters.iter().min() == Some(&me.node) {
        Step::Found(empty.into_values().collect())
    } else {
        Step::WaitForFounder
    }
}
