//! Founding under crashes, emptied directories and answers of any age: a cluster is founded once, and
//! nobody votes who is not named.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test's own tables"
)]

use std::collections::BTreeMap;

use riverrun_replication::founding::{Answer, Candidate, Step, next};
use uuid::Uuid;

const LINE: &str = "1@a:1,2@b:2,3@c:3";
const VOTERS: [i32; 3] = [1, 2, 3];

/// A node: what is on its disk, and what its process knows.
#[derive(Debug, Clone)]
struct Node {
    directory: Uuid,
    /// The founders of its cluster, with a number that no other founding has.
    record: Option<(u64, Vec<Candidate>)>,
    joined: bool,
    answers: BTreeMap<i32, Answer>,
}

struct Draw(u64);

impl Draw {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

struct World {
    nodes: BTreeMap<i32, Node>,
    directories: u128,
    foundings: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            nodes: BTreeMap::new(),
            directories: 0,
            foundings: 0,
        };
        for node in VOTERS {
            let fresh = world.fresh();
            world.nodes.insert(node, fresh);
        }
        world
    }

    fn fresh(&mut self) -> Node {
        self.directories += 1;
        Node {
            directory: Uuid::from_u128(self.directories),
            record: None,
            joined: false,
            answers: BTreeMap::new(),
        }
    }

    fn me(&self, node: i32) -> Candidate {
        let directory = self.nodes[&node].directory;
        Candidate { node, directory }
    }

    fn answer(&self, node: i32) -> Answer {
        let there = &self.nodes[&node];
        match &there.record {
            Some((_, founders)) => Answer::Bound {
                founders: founders.clone(),
            },
            None if there.joined => Answer::Bound { founders: vec![] },
            None => Answer::Empty {
                directory: there.directory,
                voters: LINE.to_owned(),
            },
        }
    }

    /// A node that has not come to a cluster looks at what it was told.
    fn act(&mut self, node: i32) {
        let me = self.me(node);
        let there = &self.nodes[&node];
        if there.record.is_some() || there.joined {
            return;
        }
        match next(&me, &VOTERS, LINE, &there.answers) {
            Step::Found(founders) => {
                assert_eq!(node, 1, "the lowest founds");
                self.foundings += 1;
                let record = (self.foundings, founders);
                self.nodes.get_mut(&node).unwrap().record = Some(record);
            }
            Step::TakeOver(from) => {
                // What the answer told; it may be of a directory that was emptied since.
                let Answer::Bound { founders } = there.answers[&from].clone() else {
                    panic!("taken over from one that is empty");
                };
                assert!(founders.contains(&me));
                let number = self.numbers_of(&founders);
                self.nodes.get_mut(&node).unwrap().record = Some((number, founders));
            }
            Step::Join(at) => {
                assert!(!at.is_empty());
                self.nodes.get_mut(&node).unwrap().joined = true;
            }
            Step::OtherVoters { .. } => panic!("there is one line"),
            Step::WaitFor(_) | Step::WaitForFounder => {}
        }
    }

    /// The founding that these founders are of: they have directories that nobody else has.
    fn numbers_of(&self, founders: &[Candidate]) -> u64 {
        let records = self.nodes.values().filter_map(|node| node.record.as_ref());
        let known = records
            .filter(|(_, of)| of == founders)
            .map(|(number, _)| *number);
        known.max().unwrap_or(self.foundings)
    }

    /// The nodes that vote in a founding: they hold its record, and are named in it.
    fn voters_of(&self, number: u64) -> usize {
        let holds = |node: &&Node| node.record.as_ref().is_some_and(|(of, _)| *of == number);
        self.nodes.values().filter(holds).count()
    }
}

#[test]
fn a_cluster_is_founded_once_whatever_is_emptied_meanwhile() {
    let first: u64 = std::env::var("RIVERRUN_SEED").map_or(1, |seed| seed.parse().unwrap());
    for seed in first..first + 4_000 {
        let mut draw = Draw(seed);
        let mut world = World::new();
        let mut emptied = 0;
        for _ in 0..200 {
            let node = VOTERS[draw.next(3) as usize];
            match draw.next(40) {
                // Its process starts again.
                0 => world.nodes.get_mut(&node).unwrap().answers.clear(),
                // Its directory is emptied, by one person at a time: a minority of the voters.
                1 if emptied < 1 => {
                    emptied += 1;
                    let fresh = world.fresh();
                    world.nodes.insert(node, fresh);
                }
                2..20 => {
                    let from = VOTERS[draw.next(3) as usize];
                    if from != node {
                        let answer = world.answer(from);
                        world
                            .nodes
                            .get_mut(&node)
                            .unwrap()
                            .answers
                            .insert(from, answer);
                    }
                }
                _ => world.act(node),
            }
            for (id, node) in &world.nodes {
                if let Some((_, founders)) = &node.record {
                    let me = world.me(*id);
                    assert!(
                        founders.contains(&me),
                        "seed {seed}: {id} votes and is not named"
                    );
                }
            }
            // Two foundings can both have a majority of their voters only where one of them lost its.
            let majorities = (1..=world.foundings)
                .filter(|number| world.voters_of(*number) >= 2)
                .count();
            assert!(majorities <= 1, "seed {seed}: two clusters");
        }
        // With nothing more emptied everybody comes to the same cluster, or to none where too few of
        // its founders are left: then all that are empty wait for it.
        for _ in 0..10 {
            for node in VOTERS {
                for from in VOTERS {
                    if from != node {
                        let answer = world.answer(from);
                        world
                            .nodes
                            .get_mut(&node)
                            .unwrap()
                            .answers
                            .insert(from, answer);
                    }
                }
                world.act(node);
            }
        }
        assert!(
            world
                .nodes
                .values()
                .all(|node| node.record.is_some() || node.joined),
            "seed {seed}: {:?}",
            world.nodes
        );
    }
}
