//! What leaders tell over the ordered links between nodes (L6), and what a node makes of another that
//! does not live.
//!
//! A link is one connection: what is told arrives in order or the connection breaks, and the next one
//! begins with all of it again. Messages of groups travel beside them, lost and reordered as the
//! plan has it.

use std::collections::BTreeMap;

use bytes::Bytes;
use riverrun_replication::leaders::{announce, by_own_replica, newest};
use riverrun_replication::shard::Input;
use riverrun_replication::{PartitionHandle, Role};

use crate::boot::node_id;
use crate::clock::MS;
use crate::invariants::leaders_known;
use crate::rng::Rng;
use crate::world::{Event, World};

/// A connection from one node to another.
#[derive(Debug, Clone, Copy)]
struct Connection {
    number: u64,
    lives: (u64, u64),
    /// Nothing arrives before what was sent before it.
    free_at_us: u64,
}

/// Every connection that is up.
#[derive(Debug)]
pub struct Links {
    /// Draws of its own: what is announced changes nothing else of a run.
    rng: Rng,
    up: BTreeMap<(usize, usize), Connection>,
    number: u64,
}

impl Links {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            up: BTreeMap::new(),
            number: 0,
        }
    }
}

/// Of 1000 looks at a connection, how many find that it broke for no reason that anybody knows.
const BROKEN_PERMILLE: u64 = 20;
/// Milliseconds within which others learn that a process was killed: its connections are closed.
const NOTICED_MS: (u64, u64) = (1, 20);
/// Of 1000 looks, how many find somebody who takes a living node for dead.
const WRONG_PERMILLE: u64 = 10;

impl World {
    fn lives_of(&self, from: usize, to: usize) -> Option<(u64, u64)> {
        let life = |node: usize| {
            let host = self.hosts.get(node)?;
            host.process.as_ref().map(|_| host.life)
        };
        Some((life(from)?, life(to)?))
    }

    fn is_cut_off(&self, from: usize, to: usize) -> bool {
        self.network.is_cut(from, to) || self.network.is_cut(to, from)
    }

    /// Looks after the links: those that are cut, or of an earlier life, break; each that can be had
    /// and is not there begins, with all that its node has to tell.
    pub fn look_after_links(&mut self) {
        let again = self.links.rng.between(20, 80) * MS;
        self.clock.after(again, Event::Links);
        let nodes = self.hosts.len();
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| *to != from) {
                let lives = self.lives_of(from, to);
                let known = self.links.up.get(&(from, to)).map(|link| link.lives);
                let breaks = !self.calm && self.links.rng.chance(BROKEN_PERMILLE);
                if breaks || self.is_cut_off(from, to) || lives.is_none() {
                    self.links.up.remove(&(from, to));
                } else if known != lives {
                    self.connect(from, to);
                } else {
                    // A link that is up says so by itself.
                    self.is_heard(from, to);
                }
            }
        }
        if !self.calm && self.links.rng.chance(WRONG_PERMILLE) {
            let rng = &mut self.links.rng;
            let (by, gone) = (rng.index(nodes), rng.index(nodes));
            let life = self.hosts.get(by).map_or(0, |host| host.life);
            self.takes_for_dead(by, life, gone);
        }
    }

    /// A node is heard by another: what it said before counts again, unless it was started since.
    pub fn is_heard(&mut self, from: usize, to: usize) {
        let life = self.hosts.get(from).map_or(0, |host| host.life);
        let process = self.process_mut(to);
        let Some(process) = process else { return };
        if process.known_lives.insert(from, life) != Some(life) {
            process.leaders.started(node_id(from));
        }
        process.leaders.heard(node_id(from));
    }

    fn connect(&mut self, from: usize, to: usize) {
        let Some(lives) = self.lives_of(from, to) else {
            return;
        };
        self.links.number += 1;
        let link = Connection {
            number: self.links.number,
            lives,
            free_at_us: 0,
        };
        self.links.up.insert((from, to), link);
        self.is_heard(from, to);
        let handles = self.process(from).map(|process| process.node.handles());
        for announcement in announce(&handles.unwrap_or_default()) {
            self.announce_to(from, to, announcement);
        }
    }

    fn announce_to(&mut self, from: usize, to: usize, announcement: Bytes) {
        if self.is_cut_off(from, to) {
            self.links.up.remove(&(from, to));
        }
        let now = self.clock.now_us();
        let delay = self.network.link_delay(&mut self.links.rng);
        let Some(link) = self.links.up.get_mut(&(from, to)) else {
            return;
        };
        link.free_at_us = link.free_at_us.max(now + delay);
        let (after_us, link) = (link.free_at_us - now, link.number);
        let told = Event::Announced {
            from,
            to,
            link,
            announcement,
        };
        self.clock.after(after_us, told);
    }

    /// What a node says of itself arrives.
    pub fn announced(&mut self, from: usize, to: usize, link: u64, announcement: Bytes) {
        let up = self.links.up.get(&(from, to));
        if up.is_none_or(|up| up.number != link || Some(up.lives) != self.lives_of(from, to)) {
            return;
        }
        if self.is_cut_off(from, to) {
            self.links.up.remove(&(from, to));
            return;
        }
        self.summary.announcements += 1;
        if let Some(process) = self.process_mut(to) {
            process.leaders.hear(node_id(from), announcement);
        }
        self.answers_do_not_age(to);
    }

    /// Tells every other node what has changed of who leads what.
    pub fn tell_leaders(&mut self, node: usize) {
        let process = self.hosts.get_mut(node).and_then(|h| h.process.as_mut());
        let Some(process) = process.filter(|process| !process.led.is_empty()) else {
            return;
        };
        let mut say: Vec<PartitionHandle> = Vec::new();
        for group in std::mem::take(&mut process.led) {
            let Some(handle) = process.node.handle(group) else {
                process.leads.remove(&group);
                continue;
            };
            let published = handle.published();
            let at = self.routes.get(&(group, published.leader_replica));
            let at = at.map(|at| node_id(*at));
            process.leaders.know(group, &published, at);
            let leads = published.role == Role::Leader;
            let knew = if leads {
                !process.leads.insert(group)
            } else {
                process.leads.remove(&group)
            };
            if leads || knew {
                say.push(handle);
            }
        }
        self.answers_do_not_age(node);
        for announcement in announce(&say) {
            for to in (0..self.hosts.len()).filter(|to| *to != node) {
                self.announce_to(node, to, announcement.clone());
            }
        }
    }

    /// The leader of a group and its term, as a node would answer a client.
    #[must_use]
    pub fn answer_of(&self, node: usize, group: u64) -> Option<(u64, Option<i32>)> {
        let process = self.process(node)?;
        let own = process.node.handle(group).and_then(|handle| {
            let published = handle.published();
            let at = self.routes.get(&(group, published.leader_replica));
            by_own_replica(&published, node_id(node), at.map(|at| node_id(*at)))
        });
        newest(process.leaders.get(group).as_ref(), own)
    }

    fn answers_do_not_age(&mut self, node: usize) {
        let groups: Vec<u64> = self.groups.keys().copied().collect();
        for group in groups {
            let answer = self.answer_of(node, group);
            let process = self.process_mut(node);
            let Some(process) = process else { return };
            let checked = leaders_known::answers(group, node, answer, &mut process.answered);
            self.check(checked);
        }
    }

    /// The connections of a process that was killed are closed.
    pub fn is_dead(&mut self, gone: usize) {
        for by in (0..self.hosts.len()).filter(|by| *by != gone) {
            let (least, most) = NOTICED_MS;
            let after_us = self.links.rng.between(least * MS, most * MS);
            let life = self.hosts.get(by).map_or(0, |host| host.life);
            self.clock.after(after_us, Event::Gone { by, life, gone });
        }
    }

    /// A node takes another for dead, rightly or not.
    pub fn takes_for_dead(&mut self, by: usize, life: u64, gone: usize) {
        if by == gone || !self.lives(by, life) || self.is_cut_off(by, gone) {
            return;
        }
        self.summary.taken_for_dead += 1;
        let of_it = self.routes.iter().filter(|(_, on)| **on == gone);
        let inputs = of_it.map(|((group, replica), _)| {
            let (group, replica) = (*group, *replica);
            (group, Input::Gone { group, replica })
        });
        let inputs = inputs.collect();
        if let Some(process) = self.process_mut(by) {
            process.leaders.gone(node_id(gone));
        }
        self.inputs(by, inputs);
    }
}
