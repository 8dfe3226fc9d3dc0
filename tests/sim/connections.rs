//! Connections of clients that send several batches without waiting, as librdkafka does: what is sent
//! arrives in order, is answered in order, and when something is lost the connection is broken.

use std::collections::{BTreeMap, VecDeque};

use crate::workload::{Answer, Request};
use crate::world::{Event, World};

/// A connection.
#[derive(Debug)]
struct Connection {
    number: u64,
    node: usize,
    /// The life of the node that it was made to.
    life: u64,
    /// Nothing arrives before what was sent before it, either way.
    free_at_us: [u64; 2],
    /// What the node was asked and has not answered, with the answers that wait for those before them.
    asked: VecDeque<(u64, Option<Answer>)>,
    broken: bool,
}

/// Those that clients use now, by client.
#[derive(Debug, Default)]
pub struct Connections {
    of_client: BTreeMap<usize, Connection>,
}

impl World {
    /// A request leaves its client.
    pub fn send_request(&mut self, node: usize, mut request: Request) {
        let delay = self.network.client_delay();
        let now = self.clock.now_us();
        let Some(number) = request.connection else {
            if let Some(delay) = delay {
                let request = Box::new(request);
                self.clock.after(delay, Event::Request { node, request });
            }
            return;
        };
        let life = self.hosts.get(node).map_or(0, |host| host.life);
        let made = || Connection {
            number,
            node,
            life,
            free_at_us: [0; 2],
            asked: VecDeque::new(),
            broken: false,
        };
        let of_client = &mut self.connections.of_client;
        let connection = of_client.entry(request.client).or_insert_with(made);
        if connection.number != number || connection.node != node {
            *connection = made();
        }
        let Some(delay) = delay.filter(|_| !connection.broken) else {
            connection.broken = true;
            return;
        };
        let at_us = (now + delay).max(connection.free_at_us[0]);
        connection.free_at_us[0] = at_us;
        request.life = Some(connection.life);
        let request = Box::new(request);
        self.clock
            .after(at_us - now, Event::Request { node, request });
    }

    /// Whether a request that has come is read: the process lives that its connection was made to.
    pub fn is_received(&mut self, node: usize, request: &Request) -> bool {
        let Some(life) = request.life else {
            return true;
        };
        if !self.lives(node, life) {
            return false;
        }
        let connection = self.connections.of_client.get_mut(&request.client);
        if let Some(connection) = connection.filter(|of| Some(of.number) == request.connection) {
            connection.asked.push_back((request.attempt, None));
        }
        true
    }

    /// A node answers a request.
    pub fn send_answer(&mut self, answer: Answer) {
        let client = self.clients.get(answer.client);
        if client.is_none_or(|client| !client.is_pipelined()) {
            if let Some(delay) = self.network.client_delay() {
                self.clock.after(delay, Event::Answer { answer });
            }
            return;
        }
        let now = self.clock.now_us();
        let Some(connection) = self.connections.of_client.get_mut(&answer.client) else {
            return;
        };
        // One that came over a connection before has nobody who would hear its answer.
        let asked = connection.asked.iter_mut();
        let Some(slot) = asked.into_iter().find(|of| of.0 == answer.attempt) else {
            return;
        };
        slot.1 = Some(answer);
        while let Some((_, Some(answer))) = connection.asked.front() {
            let answer = *answer;
            connection.asked.pop_front();
            match self.network.client_delay() {
                Some(delay) if !connection.broken => {
                    let at_us = (now + delay).max(connection.free_at_us[1]);
                    connection.free_at_us[1] = at_us;
                    self.clock.after(at_us - now, Event::Answer { answer });
                }
                _ => connection.broken = true,
            }
        }
    }
}
