//! From the end of the faults to the end of the run: progress is demanded, then everything is
//! compared.

use riverrun_record::batches;
use riverrun_replication::Role;

use crate::boot::node_id;
use crate::clock::{MS, SECOND};
use crate::invariants::acknowledged_is_never_lost as never_lost;
use crate::invariants::no_group_stuck::{self, Standing};
use crate::invariants::producer_state_rebuilt_equals_kept as producers;
use crate::invariants::{Checked, Violation, leaders_known, one_value_at_one_offset as one_value};
use crate::world::{CONTROLLER, Event, World};

impl World {
    /// Looks at the whole, twice a second.
    pub fn look_around(&mut self) {
        self.clock.after(500 * MS, Event::Look);
        self.forget_short();
        self.compare_producers();
        self.scrub();
        let now = self.clock.now_us() - SECOND;
        if !self.calm && now >= self.plan.fault_us {
            self.calm_down();
            let from = self.history.next_id();
            for client in &mut self.clients {
                client.counting_from = Some(from);
            }
        }
    }

    /// Whether the run is over: all is well, or the time for it has passed.
    pub fn is_over(&mut self) -> bool {
        if self.violation.is_some() {
            return true;
        }
        if !self.calm {
            return false;
        }
        let stopped = self.clients.iter().all(|client| client.stopped);
        if !stopped && self.all_progressed() {
            self.clients
                .iter_mut()
                .for_each(|client| client.stopped = true);
        }
        if stopped && self.is_quiet() {
            self.compare_at_the_end();
            return true;
        }
        let end = SECOND + self.plan.fault_us + self.plan.settle_us;
        if self.clock.now_us() >= end {
            self.say_what_is_stuck();
            return true;
        }
        false
    }

    fn all_progressed(&self) -> bool {
        self.groups.len() == self.plan.groups.len()
            && self.topics.are_as_wanted()
            && self.groups.keys().all(|group| self.progressed(*group))
    }

    fn progressed(&self, group: u64) -> bool {
        self.clients
            .iter()
            .any(|client| client.group == Some(group) && client.progress > 0)
    }

    fn is_quiet(&self) -> bool {
        self.clients.iter().all(|client| client.open() == 0)
            && !self.is_busy()
            && self.all_have_come()
            && self.is_rot_mended()
            && self.groups.keys().chain([&CONTROLLER]).all(|group| {
                self.is_settled(*group)
                    && no_group_stuck::check(&self.standing(*group)).is_ok()
                    && self.all_know_the_leader(*group).is_ok()
            })
    }

    /// Whether every node names the node that leads a group.
    fn all_know_the_leader(&self, group: u64) -> Checked {
        let leader = self.leader_of(group).map_or(-1, node_id);
        let nodes = 0..self.hosts.len();
        let answers: Vec<_> = nodes.map(|node| self.answer_of(node, group)).collect();
        leaders_known::at_the_end(group, leader, &answers)
    }

    fn standing(&self, group: u64) -> Standing {
        let members: Vec<(u64, usize)> = self.expected_members(group);
        let replicas = members
            .iter()
            .map(|(replica, node)| {
                let handle = self
                    .process(*node)
                    .and_then(|process| process.node.handle(group));
                let shown = handle
                    .filter(|handle| handle.replica() == *replica)
                    .map(|handle| handle.published())
                    .filter(|published| published.role != Role::Fenced);
                (*node, shown.map(|published| published.high_watermark))
            })
            .collect();
        Standing {
            group,
            progressed: group == CONTROLLER || self.progressed(group),
            replicas,
            detail: String::new(),
        }
    }

    fn say_what_is_stuck(&mut self) {
        let groups: Vec<u64> = [CONTROLLER]
            .into_iter()
            .chain(self.groups.keys().copied())
            .collect();
        self.look_for_rot();
        // What makes no progress comes first: a replica that is one entry behind may only have been
        // looked at in the wrong moment.
        let mut standings: Vec<Standing> = groups.into_iter().map(|g| self.standing(g)).collect();
        standings.sort_by_key(|standing| standing.progressed);
        let mut checked = Ok(());
        for mut standing in standings {
            let group = standing.group;
            standing.detail = self.describe(group);
            checked = checked.and_then(|()| no_group_stuck::check(&standing));
            checked = checked.and_then(|()| {
                self.all_know_the_leader(group).map_err(|mut violation| {
                    violation.detail.push_str("; ");
                    violation.detail.push_str(&self.describe(group));
                    violation
                })
            });
        }
        if checked.is_ok() {
            let open: usize = self.clients.iter().map(crate::workload::Client::open).sum();
            checked = Err(Violation::new(
                "no_group_stuck",
                format!(
                    "{} of {} groups exist, {open} batches are open, all nodes have come: {}, topics are as \
                     wanted: {}, contradicted, starved and unopened: {:?}, groups without progress: {:?}, \
                     not settled: {:?}",
                    self.groups.len(),
                    self.plan.groups.len(),
                    self.all_have_come(),
                    self.topics.are_as_wanted(),
                    (0..self.hosts.len())
                        .filter_map(|node| self.process(node))
                        .map(|process| (
                            &process.contradicted,
                            process.starved,
                            process
                                .node
                                .unopened()
                                .into_iter()
                                .map(|of| (of.identity, of.standing))
                                .collect::<Vec<_>>()
                        ))
                        .collect::<Vec<_>>(),
                    self.groups
                        .keys()
                        .filter(|group| !self.progressed(**group))
                        .collect::<Vec<_>>(),
                    self.groups
                        .keys()
                        .chain([&CONTROLLER])
                        .filter(|group| !self.is_settled(**group))
                        .collect::<Vec<_>>(),
                ),
            ));
        }
        self.check(checked);
    }

    /// What every replica of a group says of itself.
    #[must_use]
    pub fn describe(&self, group: u64) -> String {
        let mut text = String::new();
        for node in 0..self.hosts.len() {
            let Some(process) = self.process(node) else {
                text.push_str(&format!("node {node} is down; "));
                continue;
            };
            match process.partition(group) {
                Some(partition) => {
                    let (index, conf) = partition.group().conf();
                    text.push_str(&format!(
                        "node {node} {:?}, recovering {}, voters {:?} and {:?}, learners {:?} by entry {index}; ",
                        partition.group(),
                        partition.is_recovering(),
                        conf.get_voters(),
                        conf.get_voters_outgoing(),
                        conf.get_learners(),
                    ));
                }
                None => text.push_str(&format!(
                    "node {node} has none, its image says {:?}, starved {}; ",
                    process.controller.image().partition_of_group(group),
                    process.starved
                )),
            }
        }
        text
    }

    /// What was short is whole again once it is no longer recovering.
    fn forget_short(&mut self) {
        let mut whole = Vec::new();
        for (group, nodes) in &self.short {
            for node in nodes {
                let Some(process) = self.process(*node) else {
                    continue;
                };
                let partition = process.partition(*group);
                let Some(partition) = partition else { continue };
                let replica = partition.group().replica();
                let voter = partition.group().conf().1.get_voters().contains(&replica);
                // One that leads by itself has not said yet what it lacks before it may answer.
                let said = !partition.group().is_leader()
                    || process
                        .node
                        .handle(*group)
                        .is_some_and(|h| h.published().ready);
                if voter && said && !partition.is_recovering() {
                    whole.push((*group, *node));
                }
            }
        }
        for (group, node) in whole {
            if let Some(nodes) = self.short.get_mut(&group) {
                nodes.remove(&node);
                if nodes.is_empty() {
                    self.excused.remove(&group);
                }
            }
        }
    }

    /// Replicas that have applied everything committed know the producers that it names.
    fn compare_producers(&mut self) {
        let groups: Vec<u64> = self.groups.keys().copied().collect();
        for group in groups {
            for node in 0..self.hosts.len() {
                let Some(log) = self.invariants.committed.log(group) else {
                    continue;
                };
                let Some(process) = self.process(node) else {
                    continue;
                };
                let Some(handle) = process.node.handle(group) else {
                    continue;
                };
                let partition = process.partition(group);
                let Some(partition) = partition else { continue };
                let published = handle.published();
                if published.high_watermark != log.end_offset() || log.forked_term() > 0 {
                    continue;
                }
                let checked = producers::check(group, node, partition.producers(), log.producers());
                self.check(checked);
            }
        }
    }

    fn compare_at_the_end(&mut self) {
        let mut checked = Ok(());
        for (id, batch) in self.history.batches() {
            let Some((offset, _)) = batch.acked else {
                self.summary.batches_unknown += 1;
                continue;
            };
            let log = self.invariants.committed.log(batch.group);
            if !batch.durable || log.is_some_and(|log| log.forked_term() > 0) {
                continue;
            }
            let found = log.and_then(|log| log.at_offset(offset));
            checked = checked.and_then(|()| never_lost::at_the_end(batch.group, id, offset, found));
        }
        self.check(checked);
        self.summary.duplicates_of_plain_producers = self.invariants.committed.plain_duplicates;
        let groups: Vec<u64> = self.groups.keys().copied().collect();
        for group in groups {
            for (_, node) in self.expected_members(group) {
                self.read_all(group, node);
            }
        }
    }

    /// Reads a replica's files from end to end.
    fn read_all(&mut self, group: u64, node: usize) {
        let Some(handle) = self
            .process(node)
            .and_then(|process| process.node.handle(group))
        else {
            return;
        };
        let published = handle.published();
        let Some(log) = self.invariants.committed.log(group) else {
            return;
        };
        let forked = log.forked_term() > 0;
        let mut offset = published.log_start_offset;
        let mut checked = Ok(());
        while offset < published.high_watermark && checked.is_ok() {
            let fetched =
                match handle
                    .reader()
                    .fetch(offset, published.high_watermark, 1 << 20, true)
                {
                    Ok(fetched) => fetched,
                    Err(error) => {
                        let detail = format!("group {group} on node {node} at {offset}: {error}");
                        checked = Err(Violation::new("committed_offsets_can_be_read", detail));
                        break;
                    }
                };
            let before = offset;
            for batch in fetched
                .batches
                .iter()
                .flat_map(|piece| batches(piece))
                .flatten()
            {
                let who = format!("the file of node {node}");
                let (first, id, crc) = (batch.base_offset(), batch.base_timestamp(), batch.crc());
                checked = match log.at_offset(first) {
                    _ if first != offset || !batch.crc_is_valid() => Err(Violation::new(
                        "offsets_dense",
                        format!("group {group}: {who} has offset {first}, {offset} was next"),
                    )),
                    Some(mark) => one_value::claims(group, &who, first, id, crc, mark),
                    None if forked => Ok(()),
                    None => Err(Violation::new(
                        "committed_agrees",
                        format!(
                            "group {group}: {who} has batch {id} at {first}, nobody committed it"
                        ),
                    )),
                };
                if checked.is_err() {
                    break;
                }
                offset = batch.next_offset();
            }
            if offset == before && checked.is_ok() {
                let detail = format!("group {group} on node {node}: nothing at {offset}");
                checked = Err(Violation::new("committed_offsets_can_be_read", detail));
            }
        }
        self.check(checked);
    }
}
