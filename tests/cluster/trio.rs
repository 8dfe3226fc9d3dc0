//! Nodes of one cluster, each a process with a directory and ports of its own, which are killed,
//! wiped and started again by their numbers.

use super::view::{Quorum, View, controller, view};
use crate::kafka::PATIENCE;
use crate::node::{Node, foreign_brokers};
use crate::trial::{Skip, skip};
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// What every node gets in its environment beside the others'.
pub(crate) type Environment = Vec<(&'static str, OsString)>;

/// Nodes 1, 2, 3 and so on. Those that a test has not started yet exist with their addresses.
pub(crate) struct Trio {
    nodes: Vec<Node>,
}

impl Trio {
    /// Three nodes that have founded a cluster together and answer.
    pub(crate) fn start() -> Result<Trio> {
        Trio::start_with(|_| Vec::new())
    }

    /// The same, each with more in its environment.
    pub(crate) fn start_with(environment: impl FnMut(i32) -> Environment) -> Result<Trio> {
        let mut trio = Trio::prepare(3, environment)?;
        trio.vote()?;
        let started = trio.start_all();
        trio.explained(started)
    }

    /// So many nodes on empty directories, none of them started and none of them told of others.
    pub(crate) fn prepare(
        count: i32,
        mut environment: impl FnMut(i32) -> Environment,
    ) -> Result<Trio> {
        if foreign_brokers().is_some() || std::env::var_os("RIVERRUN_TEST_NODE").is_some() {
            return Err(skip("several nodes", "the nodes are not ours"));
        }
        let nodes = (1..=count).map(|id| Node::of_cluster(environment(id)));
        let mut trio = Trio {
            nodes: nodes.collect::<Result<_>>()?,
        };
        for id in trio.ids() {
            trio.configure(id, [])?;
        }
        Ok(trio)
    }

    /// Tells each node that all of them found a cluster together.
    pub(crate) fn vote(&mut self) -> Result<()> {
        let voters = format!("controller.quorum.voters={}", self.voters());
        for id in self.ids() {
            self.configure(id, [voters.clone()])?;
        }
        Ok(())
    }

    /// What a node's later lives are started with, beside its number.
    pub(crate) fn configure(
        &mut self,
        id: i32,
        settings: impl IntoIterator<Item = String>,
    ) -> Result<()> {
        // Kafka's default is made for clusters whose nodes are far apart.
        let own = [
            format!("node.id={id}"),
            "broker.session.timeout.ms=3000".to_owned(),
        ];
        self.node(id)?.set(own.into_iter().chain(settings));
        Ok(())
    }

    /// The voters' line, which is the same on each node.
    pub(crate) fn voters(&self) -> String {
        let voters = self.ids().into_iter().zip(&self.nodes);
        let voters: Vec<String> = voters
            .map(|(id, node)| format!("{id}@{}", node.for_nodes()))
            .collect();
        voters.join(",")
    }

    pub(crate) fn start_all(&mut self) -> Result<()> {
        for id in self.ids() {
            self.node(id)?.spawn()?;
        }
        self.wait_ready()
    }

    /// Waits until every node that was started answers.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        for id in self.started() {
            self.node(id)?.wait_ready().with_context(|| name(id))?;
        }
        Ok(())
    }

    pub(crate) fn ids(&self) -> Vec<i32> {
        (1..).take(self.nodes.len()).collect()
    }

    /// The nodes that were started and not killed since.
    pub(crate) fn started(&self) -> Vec<i32> {
        let all = self.ids().into_iter().zip(&self.nodes);
        all.filter(|(_, node)| node.is_started())
            .map(|(id, _)| id)
            .collect()
    }

    pub(crate) fn node(&mut self, id: i32) -> Result<&mut Node> {
        let index = usize::try_from(id - 1)?;
        self.nodes.get_mut(index).with_context(|| name(id))
    }

    pub(crate) fn address(&self, id: i32) -> Result<String> {
        let index = usize::try_from(id - 1)?;
        Ok(self.nodes.get(index).with_context(|| name(id))?.brokers())
    }

    /// All of them, for clients.
    pub(crate) fn brokers(&self) -> String {
        let all: Vec<String> = self.nodes.iter().map(Node::brokers).collect();
        all.join(",")
    }

    /// The data directories of all of them.
    pub(crate) fn data(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(Node::data).collect()
    }

    pub(crate) fn kill(&mut self, id: i32) -> Result<()> {
        self.node(id)?.kill().with_context(|| name(id))
    }

    pub(crate) fn spawn(&mut self, id: i32) -> Result<()> {
        self.node(id)?.spawn().with_context(|| name(id))
    }

    /// Empties the directory of a node that is not running.
    pub(crate) fn wipe(&mut self, id: i32) -> Result<()> {
        let node = self.node(id)?;
        ensure!(!node.is_started(), "node {id} is running");
        std::fs::remove_dir_all(node.data())?;
        Ok(())
    }

    /// Waits for a line in what a node has written since a place in it.
    pub(crate) fn until_says(&mut self, id: i32, since: usize, what: &str) -> Result<()> {
        let node = self.node(id)?;
        until(&format!("node {id} says {what:?}"), || {
            let log = node.log();
            let new = log.get(since..).unwrap_or_default();
            Ok(new.contains(what).then_some(()))
        })
    }

    /// The node that leads group 0, by the word of that node itself.
    pub(crate) fn controller(&self) -> Result<i32> {
        let started = self.started();
        until("the controller's group is led", || {
            for id in &started {
                if controller(&self.address(*id)?).is_ok_and(|leader| leader == *id) {
                    return Ok(Some(*id));
                }
            }
            Ok(None)
        })
    }

    /// The node that leads a partition, by the word of that node itself.
    pub(crate) fn leader(&self, topic: &str, partition: usize) -> Result<i32> {
        let started = self.started();
        until(&format!("{topic}/{partition} is led"), || {
            for id in &started {
                let own = view(&self.address(*id)?, topic);
                if own.is_ok_and(|own| own.leader(partition) == Some(*id)) {
                    return Ok(Some(*id));
                }
            }
            Ok(None)
        })
    }

    /// Waits until every started node shows the same leaders of a topic, each of them started.
    pub(crate) fn agree(&self, topic: &str) -> Result<View> {
        let started = self.started();
        until(
            &format!("all nodes show the same leaders of {topic}"),
            || {
                let mut views = Vec::new();
                for id in &started {
                    let Ok(view) = view(&self.address(*id)?, topic) else {
                        return Ok(None);
                    };
                    views.push(view);
                }
                let first = views.first().cloned().context("no node is started")?;
                let is_led = first.is_led_by(&started);
                let all = views.iter().all(|view| view.leaders() == first.leaders());
                Ok((is_led && all).then_some(first))
            },
        )
    }

    /// Waits until every replica of a topic is in sync, as the leaders see it.
    pub(crate) fn in_sync(&self, topic: &str, replicas: usize) -> Result<View> {
        until(
            &format!("{replicas} replicas of every partition of {topic} are in sync"),
            || {
                let view = self.agree(topic)?;
                let mut complete = true;
                for partition in 0..view.partitions() {
                    let Some(leader) = view.leader(partition) else {
                        return Ok(None);
                    };
                    let own = super::view::view(&self.address(leader)?, topic);
                    complete &= own.is_ok_and(|own| own.in_sync(partition) == replicas);
                }
                Ok(complete.then_some(view))
            },
        )
    }

    /// Waits until the nodes that vote in group 0 are these, by the word of one of them.
    pub(crate) fn until_voters(&self, asked: i32, nodes: &[i32]) -> Result<Quorum> {
        let broker = self.address(asked)?;
        until(&format!("the voters of group 0 are {nodes:?}"), || {
            let quorum = Quorum::ask(&broker).ok();
            Ok(quorum.filter(|quorum| quorum.voting_nodes() == nodes))
        })
    }

    /// Adds to an error what the nodes wrote, and keeps their directories.
    pub(crate) fn explain<T>(&mut self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            if error.downcast_ref::<Skip>().is_some() {
                return error;
            }
            let mut text = format!("{error:#}");
            for (id, node) in (1..).zip(&mut self.nodes) {
                text.push_str(&format!("\n\nnode {id}{}", node.keep()));
            }
            anyhow::anyhow!("{text}")
        })
    }

    fn explained(mut self, result: Result<()>) -> Result<Trio> {
        self.explain(result)?;
        Ok(self)
    }
}

fn name(id: i32) -> String {
    format!("node {id}")
}

/// Asks again until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        if let Some(answer) = ask().with_context(|| format!("waiting: {what}"))? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("waited in vain: {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
