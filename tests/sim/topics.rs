//! Topics that are deleted, and their namesakes (L8): who asks for it, what a node does of it, and what
//! it tells the leader of the controller's group.

use std::collections::{BTreeMap, BTreeSet};

use riverrun_replication::controller::{Command, Controller, CreateTopicRequest};
use riverrun_storage::format::aside::Reason;
use riverrun_storage::planted::{self, Bug};
use uuid::Uuid;

use crate::boot::node_id;
use crate::clock::{MS, SECOND};
use crate::host::Flusher;
use crate::network::Fate;
use crate::plan::Plan;
use crate::world::{CONTROLLER, Event, World};

/// The first topic of a place in the plan has this id, and its namesakes the same in their low half.
const IDS: u128 = 0x5100_0000;
/// A client may go on for as long with a topic whose name another one has.
const LATE_US: u64 = 3 * SECOND;

/// A topic that a node's image has shown.
#[derive(Debug, Clone)]
struct Seen {
    place: usize,
    groups: Vec<u64>,
    gone: bool,
}

/// Every topic that there ever was.
#[derive(Debug)]
pub struct Topics {
    seen: BTreeMap<Uuid, Seen>,
    /// Those that somebody wants deleted.
    unwanted: BTreeSet<Uuid>,
    next_us: Option<u64>,
}

impl Topics {
    /// None yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            seen: BTreeMap::new(),
            unwanted: BTreeSet::new(),
            next_us: plan.delete_every_us.map(|every| 3 * SECOND + every),
        }
    }

    /// Whether somebody wants a topic deleted.
    #[must_use]
    pub fn is_unwanted(&self, topic: &Uuid) -> bool {
        self.unwanted.contains(topic)
    }

    /// Whether nothing waits to be deleted.
    #[must_use]
    pub fn are_as_wanted(&self) -> bool {
        self.unwanted.iter().all(|topic| self.is_gone(topic))
    }

    /// Whether a topic is no more.
    #[must_use]
    pub fn is_gone(&self, topic: &Uuid) -> bool {
        self.seen.get(topic).is_some_and(|seen| seen.gone)
    }
}

/// The topic of a place in the plan, after so many that had its name.
#[must_use]
pub fn topic_of(place: usize, before: usize) -> Uuid {
    Uuid::from_u128(IDS + place as u128 + ((before as u128) << 64))
}

/// The place of a topic in the plan.
#[must_use]
pub fn place_of(topic: Uuid) -> Option<usize> {
    let low = u128::from(u64::MAX) & topic.as_u128();
    usize::try_from(low.checked_sub(IDS)?).ok()
}

impl World {
    /// A topic of the plan that is not there is created, not before all of its brokers are known.
    pub fn creation(&self, controller: &Controller) -> Option<Command> {
        self.plan
            .groups
            .iter()
            .enumerate()
            .find_map(|(place, group)| {
                let nodes = group.voters.iter().map(|node| node_id(*node)).collect();
                let seen = self.topics.seen.values();
                let before = seen.filter(|seen| seen.place == place && seen.gone).count();
                let request = CreateTopicRequest {
                    name: format!("topic-{place}"),
                    id: topic_of(place, before),
                    assignments: Some(vec![nodes]),
                    ..CreateTopicRequest::default()
                };
                controller.plan_create_topic(request).ok()
            })
    }

    /// Somebody deletes a topic now and then, and asks until the image shows it.
    pub fn deletion(&mut self, controller: &Controller) -> Option<Command> {
        let now = self.clock.now_us();
        if let (Some(at), Some(every)) = (self.topics.next_us, self.plan.delete_every_us)
            && now >= at
            && !self.calm
        {
            self.topics.next_us = Some(now + self.rng.around(every));
            let ids: Vec<Uuid> = controller.image().topics.keys().copied().collect();
            self.topics.unwanted.extend(self.rng.pick(&ids));
        }
        let unwanted = self.topics.unwanted.iter();
        let open = |id: &&Uuid| {
            controller
                .image()
                .topics
                .get(*id)
                .is_some_and(|t| !t.closing)
        };
        let first = unwanted.copied().find(|id| open(&id))?;
        controller.plan_delete_topic(&first).ok()
    }

    /// A node has applied commands: topics that are new in its image, and those that are not there any
    /// more.
    pub fn look_at_topics(&mut self, controller: &Controller) {
        let image = controller.image();
        for topic in image.topics.values() {
            let Some(place) = place_of(topic.id) else {
                continue;
            };
            if self.topics.seen.contains_key(&topic.id) {
                continue;
            }
            let groups = topic.partitions.iter().map(|partition| partition.group);
            let seen = Seen {
                place,
                groups: groups.collect(),
                gone: false,
            };
            self.every_group
                .extend(seen.groups.iter().map(|group| (*group, place)));
            let namesakes = self.topics.seen.values().filter(|seen| seen.place == place);
            let from = self.history.next_id();
            for group in namesakes.flat_map(|seen| &seen.groups) {
                self.invariants.replaced.is_replaced(*group, from);
            }
            self.topics.seen.insert(topic.id, seen);
        }
        for (id, seen) in &mut self.topics.seen {
            let given_out = seen.groups.iter().all(|group| *group < image.next_group);
            if seen.gone || !given_out || image.topics.contains_key(id) {
                continue;
            }
            seen.gone = true;
            self.summary.topics_deleted += 1;
            for group in &seen.groups {
                self.groups.remove(group);
                self.operator.is_deleted(seen.place);
            }
        }
    }

    /// Clients of a name learn of the topic that has it now, those that knew another one in their own
    /// time.
    pub fn tell_clients(&mut self, group: u64, place: usize) {
        for (number, client) in self.clients.iter_mut().enumerate() {
            if client.group_place() != place {
                continue;
            }
            if client.group.is_none() {
                client.group = Some(group);
                continue;
            }
            let after_us = self.rng.between(0, LATE_US);
            let client = number;
            self.clock.after(after_us, Event::Switch { client, group });
        }
    }

    /// A client goes on with another topic of the same name.
    pub fn switch(&mut self, client: usize, group: u64) {
        if let Some(client) = self.clients.get_mut(client)
            && client.group < Some(group)
        {
            client.go_on_with(group, &mut self.history);
        }
    }

    /// Takes what a node has of topics that are being deleted, and of those that were removed, out of service;
    /// false where something waits.
    pub fn close_topics(&mut self, node: usize) -> bool {
        let Some(process) = self.process(node) else {
            return true;
        };
        let image = process.controller.image();
        let goes = |topic: &Uuid| {
            image.topics.get(topic).is_some_and(|topic| topic.closing)
                || image.removed.contains_key(topic)
                || (planted::is(Bug::ForgottenImageDeletes) && !image.topics.contains_key(topic))
        };
        let open = process.node.handles().into_iter();
        let open = open.map(|handle| (handle.group(), handle.topic_id()));
        let unopened = process.node.unopened().into_iter();
        let unopened = unopened.map(|of| (of.identity.group, of.identity.topic_id));
        let here: BTreeSet<u64> = open
            .chain(unopened)
            .filter(|(group, topic)| *group != CONTROLLER && goes(topic))
            .map(|(group, _)| group)
            .collect();
        if here.is_empty() {
            return true;
        }
        if !matches!(process.flusher, Flusher::Idle) {
            return false;
        }
        for group in here {
            self.set_aside(node, group, Reason::TopicDeleted);
        }
        true
    }

    /// Each node tells the leader of group 0 which topics it has closed, as long as they are there.
    pub fn say_closed(&mut self) {
        for node in 0..self.hosts.len() {
            let Some(process) = self.process(node) else {
                continue;
            };
            let topics = process.controller.image().topics.values();
            let closed = topics.filter(|topic| {
                let mut groups = topic.partitions.iter().map(|partition| partition.group);
                topic.closing
                    && groups.all(|group| {
                        process.node.handle(group).is_none() && process.unopened(group).is_none()
                    })
            });
            let closed: Vec<Uuid> = closed.map(|topic| topic.id).collect();
            let leader = self
                .answer_of(node, CONTROLLER)
                .and_then(|(_, leader)| leader);
            let leader = leader.and_then(|leader| usize::try_from(leader - 1).ok());
            let Some(to) = leader.filter(|_| !closed.is_empty()) else {
                continue;
            };
            let from = node;
            let fate = self.network.send(from, to, self.clock.now_us());
            if let Fate::Arrives { delay_us, .. } = fate {
                let topics = closed;
                self.clock
                    .after(delay_us, Event::Closed { from, to, topics });
            }
        }
    }

    /// A node says which topics it has closed.
    pub fn is_closed(&mut self, from: usize, to: usize, topics: &[Uuid]) {
        if self.network.is_cut(from, to) {
            return;
        }
        if let Some(process) = self.process_mut(to) {
            for topic in topics {
                process.closed.closed(*topic, node_id(from));
            }
        }
    }
}

/// How often somebody deletes a topic, at least and at most.
pub const DELETE_EVERY_US: (u64, u64) = (2000 * MS, 15_000 * MS);
