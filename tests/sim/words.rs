//! Replicas that cannot go on (R9-R11): each node asks the leaders of their groups, as the server does, and
//! what follows is decided by production code. What is held against it here is what only the simulator
//! knows: who holds which committed entry, and which topics were removed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use riverrun_record::BatchView;
use riverrun_replication::asides::{Aside, may_go};
use riverrun_replication::controller::{Command, Image, OnWord, Outcome, decode_batch};
use riverrun_replication::replacement::{Wanted, others_whole};
use riverrun_replication::shard::Input;
use riverrun_replication::{ProduceError, Ticket, Word};
use riverrun_storage::LogIdentity;
use riverrun_storage::format::aside::Reason;
use riverrun_storage::planted::{self, Bug};
use uuid::Uuid;

use crate::boot::node_id;
use crate::clock::{MS, SECOND};
use crate::host::{Flusher, Process, data_dir};
use crate::invariants::Violation;
use crate::network::Fate;
use crate::operator::Question;
use crate::world::{CONTROLLER, Event, World};

/// Tickets of words carry this connection.
pub const WORD: u64 = u64::MAX - 3;
/// A leader is asked again after so long.
const ASK_EVERY_US: u64 = 700 * MS;
/// A word is of use to nobody for longer.
const WORD_AGE_US: u64 = 3 * SECOND;

/// What a node knows of the leaders' words.
#[derive(Debug, Default)]
pub struct Words {
    asked_us: BTreeMap<u64, u64>,
    told: BTreeMap<u64, (u64, Word)>,
    looked_us: u64,
}

impl World {
    /// Whether a replica waits for its successor.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        (0..self.hosts.len()).any(|node| {
            self.process(node).is_some_and(|process| {
                let unopened = process.node.unopened();
                !process.contradicted.is_empty()
                    || unopened
                        .iter()
                        .any(|of| process.cannot_go_on(of.identity.group))
            })
        })
    }

    /// Every node looks for replicas of its own that have to be replaced, and for what was set aside.
    pub fn look_for_lost(&mut self) {
        if planted::is(Bug::R3) {
            return;
        }
        for node in 0..self.hosts.len() {
            for group in self.lost_on(node) {
                self.ask_word(node, group);
            }
            self.look_at_asides(node);
        }
    }

    /// The groups of which a node's replica is lost, here or in a data directory before.
    fn lost_on(&self, node: usize) -> Vec<u64> {
        let (Some(process), Some(me)) = (self.process(node), self.me(node)) else {
            return Vec::new();
        };
        let image = process.controller.image();
        let open = image.topics.values().filter(|topic| !topic.closing);
        let partitions = open.flat_map(|topic| &topic.partitions);
        let lost = partitions.filter(|partition| {
            partition.replicas.iter().any(|at| {
                at.node == me.node
                    && (at.directory != me.directory || process.cannot_go_on(partition.group))
            })
        });
        lost.map(|partition| partition.group).collect()
    }

    /// Asks whoever leads a group for his word, but not too often.
    fn ask_word(&mut self, node: usize, group: u64) {
        let now = self.clock.now_us();
        let leader = self.answer_of(node, group).and_then(|(_, leader)| leader);
        let Some(to) = leader.and_then(|leader| usize::try_from(leader - 1).ok()) else {
            return;
        };
        let life = self.hosts.get(node).map_or(0, |host| host.life);
        let Some(process) = self.process_mut(node) else {
            return;
        };
        let asked = process.words.asked_us.entry(group).or_default();
        if now < *asked + ASK_EVERY_US {
            return;
        }
        *asked = now;
        if let Fate::Arrives { delay_us, .. } = self.network.send(node, to, now) {
            let from = node;
            let asked = Event::AskedWord {
                from,
                life,
                to,
                group,
            };
            self.clock.after(delay_us, asked);
        }
    }

    /// A node is asked for its word on a group.
    pub fn asked_word(&mut self, from: usize, life: u64, to: usize, group: u64) {
        if !self.network.is_cut(from, to) {
            let log = self.invariants.committed.log(group);
            let ticket = Ticket {
                connection: WORD,
                request: self.operator.asked.len() as u64,
                slot: 0,
            };
            self.operator.asked.push(Question {
                from,
                life,
                committed: log.map_or(0, |log| log.last_index()),
            });
            self.inputs(to, vec![(group, Input::Word { group, ticket })]);
        }
    }

    /// A leader gives its word, or none.
    pub fn word_is_given(
        &mut self,
        node: usize,
        process: &Process,
        ticket: Ticket,
        result: Result<Word, ProduceError>,
    ) {
        let Ok(word) = result else { return };
        let place = usize::try_from(ticket.request).unwrap_or(usize::MAX);
        let Some(question) = self.operator.asked.get(place).copied() else {
            return;
        };
        // A leader counts what has become durable with it, and nothing need move for that.
        if let Some(own) = process.partition(word.group) {
            let own = own.group();
            let counted = self.counted.entry((word.group, own.replica()));
            let counted = counted.or_default();
            *counted = (*counted).max(own.durable());
        }
        let to = question.from;
        if let Fate::Arrives { delay_us, .. } = self.network.send(node, to, self.clock.now_us()) {
            let told = Event::ToldWord {
                node: to,
                life: question.life,
                committed: question.committed,
                word: Box::new(word),
            };
            self.clock.after(delay_us, told);
        }
    }

    /// A word has come: where it says so, a lost replica gets a successor. `committed` is the last entry that was
    /// committed at the question.
    pub fn told_word(&mut self, node: usize, committed: u64, word: &Word) {
        let now = self.clock.now_us();
        if let Some(process) = self.process_mut(node) {
            process.words.told.insert(word.group, (now, word.clone()));
        }
        if !self.lost_on(node).contains(&word.group) {
            return;
        }
        let Some(process) = self.process(node) else {
            return;
        };
        let controller = &process.controller;
        let members = self.members_by(controller.image(), word.group);
        let wanted = members.map(|members| Wanted {
            voters: members.voters,
            learners: members.learners,
        });
        let mut found = None;
        for topic in controller
            .image()
            .topics
            .values()
            .filter(|topic| !topic.closing)
        {
            for (number, partition) in topic.partitions.iter().enumerate() {
                if partition.group == word.group {
                    found = Some((topic.id, number, partition));
                }
            }
        }
        let (Some((topic, number, partition)), Some(wanted)) = (found, wanted) else {
            return;
        };
        let mine = partition
            .replicas
            .iter()
            .find(|at| at.node == node_id(node));
        let Some(old) = mine.map(|at| at.replica) else {
            return;
        };
        let Ok(mut others) = others_whole(word, &wanted, old) else {
            return;
        };
        // The order names replicas of the partition; the learner of the plan is none.
        others.retain(|id| partition.replicas.iter().any(|at| at.replica == *id));
        let settled = wanted.is_of(word);
        let own = node_id(node);
        let on_word = Some(OnWord { others, settled });
        let planned = controller.plan_replace_replica(&topic, number, old, own, on_word);
        if let Ok(command) = planned {
            let ordered = &mut self.operator.ordered;
            ordered.entry((word.group, old)).or_insert(committed);
            let late_us = self.order_is_held(word.group);
            self.propose(node, command, late_us);
        }
    }

    /// A node has a command written by whoever leads group 0, as far as it knows. It may be lost on its way.
    fn propose(&mut self, node: usize, command: Command, late_us: u64) {
        let leader = self
            .answer_of(node, CONTROLLER)
            .and_then(|(_, leader)| leader);
        let Some(to) = leader.and_then(|leader| usize::try_from(leader - 1).ok()) else {
            return;
        };
        if let Fate::Arrives { delay_us, .. } = self.network.send(node, to, self.clock.now_us()) {
            let command = Box::new(command);
            self.clock
                .after(late_us + delay_us, Event::Proposed { to, command });
        }
    }

    /// Commands were applied: a replica may be replaced only where every entry that was committed when the
    /// leader was asked lies on a majority of all voters without it. What lies aside does not count. What
    /// was committed since may rest on an acknowledgement that the replica sent before it was lost; no order
    /// changes anything about that.
    pub fn look_at_replaced(&mut self, image: &Image, outcomes: &[Outcome], batch: &[u8]) {
        let replaced = outcomes
            .iter()
            .enumerate()
            .filter_map(|(at, outcome)| match outcome {
                Outcome::Replaced { group, old, new } if *group != CONTROLLER => {
                    Some((at, *group, *old, *new))
                }
                _ => None,
            });
        let replaced: Vec<(usize, u64, u64, u64)> = replaced.collect();
        if replaced.is_empty() {
            return;
        }
        let Ok(commands) = decode_batch(batch) else {
            return;
        };
        // The same order is applied on every node; what holds when the first one does it counts.
        let at_offset = BatchView::parse(batch).map_or(0, |view| view.base_offset());
        if at_offset < self.operator.judged_to {
            return;
        }
        self.operator.judged_to = at_offset + 1;
        for (at, group, old, new) in replaced {
            let Some(Command::ReplaceReplica(replace)) = commands.get(at) else {
                continue;
            };
            // A sound replica that moves stays until its successor is there.
            if replace.on_word.is_none() {
                continue;
            }
            // What was acknowledged from memory may be gone within the promise.
            if self
                .short
                .get(&group)
                .is_some_and(|short| !short.is_empty())
            {
                continue;
            }
            let log = self.invariants.committed.log(group);
            let last = log.map_or(0, |log| log.last_index());
            let asked = self.operator.ordered.get(&(group, old)).copied();
            let last = last.min(asked.unwrap_or(u64::MAX));
            let holds = |replica: &&u64| self.holds(group, **replica, last);
            // Whoever the order names: these are left.
            let left = image.partition_of_group(group).map(|partition| {
                let ids = partition.replicas.iter().map(|at| at.replica);
                ids.filter(|id| *id != new).collect::<Vec<u64>>()
            });
            let left = left.unwrap_or_default();
            let holders = left.iter().filter(holds).count();
            if holders * 2 <= left.len() + 1 {
                let detail = format!(
                    "group {group}: replica {old} is replaced while {holders} of {left:?} hold entry {last}"
                );
                let name = "successors_stand_on_a_majority";
                self.check(Err(Violation::new(name, detail)));
            }
        }
    }

    /// Whether a replica has said, or counts for itself, that an entry is persisted with it.
    fn holds(&self, group: u64, replica: u64, index: u64) -> bool {
        self.held(group, replica) >= index
    }

    /// The last entry of which that is so.
    pub fn held(&self, group: u64, replica: u64) -> u64 {
        let counted = self.counted.get(&(group, replica)).copied().unwrap_or(0);
        counted.max(self.invariants.promises.acknowledged(group, replica))
    }

    /// A replica was set aside: its files are there, under another name.
    pub fn check_aside(&mut self, node: usize, identity: &LogIdentity) {
        let asides = self.unrefused(node, |world| {
            let process = world.process(node);
            process.and_then(|process| process.node.asides().ok())
        });
        let Some(asides) = asides else {
            return;
        };
        let is_of = |aside: &Aside| {
            let note = aside.note.as_ref();
            note.is_some_and(|note| note.identity.replica == identity.replica)
        };
        let aside = asides.iter().find(|aside| is_of(aside));
        if let Some(aside) = aside {
            let dir = data_dir().join(&aside.name);
            let durable = self.hosts.get(node).map(|host| host.disk.durable_files());
            let is_there = |(path, _): &(PathBuf, u64)| path.starts_with(&dir);
            if !durable.unwrap_or_default().iter().any(is_there) {
                let detail = format!("node {node}: the power takes its name from {}", aside.name);
                let name = "what_is_aside_stays_aside";
                self.check(Err(Violation::new(name, detail)));
            }
        }
        if aside.is_none() {
            let detail = format!("node {node}: nothing is left of {identity:?}");
            let name = "nothing_is_deleted_unproven";
            self.check(Err(Violation::new(name, detail)));
        }
    }

    /// What was set aside goes when its reason allows it.
    fn look_at_asides(&mut self, node: usize) {
        let now = self.clock.now_us();
        let Some(process) = self.process_mut(node) else {
            return;
        };
        if now < process.words.looked_us + SECOND || !matches!(process.flusher, Flusher::Idle) {
            return;
        }
        process.words.looked_us = now;
        let _ = process.node.name_strays();
        let asides = process.node.asides().unwrap_or_default();
        let removed: Vec<Uuid> = {
            let removed = process.controller.image().removed.iter();
            let mine = removed.filter(|(_, nodes)| nodes.contains(&node_id(node)));
            mine.map(|(id, _)| *id).collect()
        };
        if asides.is_empty() && removed.is_empty() {
            return;
        }
        self.ask_word(node, CONTROLLER);
        for aside in &asides {
            if let Some(note) = &aside.note {
                self.ask_word(node, note.identity.group);
            }
        }
        let Some(process) = self.process(node) else {
            return;
        };
        let image = process.controller.image();
        let word = |group: u64| {
            let told = process.words.told.get(&group);
            told.filter(|(at, _)| now <= at + WORD_AGE_US)
                .map(|(_, word)| word)
        };
        let confirmed =
            word(CONTROLLER).is_some_and(|word| word.high_watermark >= image.next_offset);
        let goes: Vec<Aside> = asides
            .into_iter()
            .filter(|aside| {
                let group = aside.note.as_ref().map(|note| note.identity.group);
                let word = group.and_then(&word);
                may_go(aside, image, node_id(node), confirmed, word)
            })
            .collect();
        for aside in goes {
            self.judge_deletion(node, &aside);
            let Some(process) = self.process(node) else {
                return;
            };
            if let Err(error) = process.node.delete_aside(&aside.name) {
                return self.order_failed(node, &error);
            }
        }
        if self.is_blown(node) {
            return self.crash_inside(node);
        }
        if confirmed && !removed.is_empty() {
            self.say_gone(node, &removed);
        }
    }

    fn say_gone(&mut self, node: usize, removed: &[Uuid]) {
        let Some(process) = self.process(node) else {
            return;
        };
        let open = process
            .node
            .handles()
            .into_iter()
            .map(|handle| handle.topic_id());
        let unopened = process.node.unopened().into_iter();
        let here: Vec<Uuid> = open
            .chain(unopened.map(|of| of.identity.topic_id))
            .collect();
        let gone: Vec<Uuid> = removed
            .iter()
            .copied()
            .filter(|id| !here.contains(id))
            .collect();
        let planned = process.controller.plan_topics_gone(node_id(node), &gone);
        if let Ok(command) = planned {
            self.propose(node, command, 0);
        }
    }

    /// What is deleted for good is nobody's last copy: its topic was removed, or every voter of its group holds
    /// all that is committed.
    fn judge_deletion(&mut self, node: usize, aside: &Aside) {
        if aside
            .topic()
            .is_some_and(|topic| self.topics.is_gone(&topic))
        {
            return;
        }
        let note = aside
            .note
            .as_ref()
            .filter(|note| note.reason == Reason::Replaced);
        let proven = note.is_some_and(|note| {
            let group = note.identity.group;
            let log = self.invariants.committed.log(group);
            // What was written since it was set aside is nothing that it could have.
            let last = log.map_or(0, |log| log.last_index());
            let last = last.min(self.held(group, note.identity.replica));
            // All of them did at the question. Meanwhile one may have been lost in its turn, but no majority.
            let image = self.process(node).map(|process| process.controller.image());
            let wanted = image.and_then(|image| self.members_by(image, group));
            wanted.is_some_and(|wanted| {
                let holds = |id: &&u64| self.holds(group, **id, last);
                wanted.voters.iter().filter(holds).count() * 2 > wanted.voters.len()
            })
        });
        if !proven {
            let detail = format!("node {node} deletes {aside:?}");
            let name = "nothing_is_deleted_unproven";
            self.check(Err(Violation::new(name, detail)));
        }
    }
}
