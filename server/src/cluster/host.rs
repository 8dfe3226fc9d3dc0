//! The broker, as its links see it: whom it lets in, what it makes of what comes, and its answers to
//! other nodes' questions.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use riverrun_replication::controller::{
    Command, Controller, Numbers, Rejection, decode_batch, encode_numbered_batch,
};
use riverrun_replication::founding::Known;
use riverrun_replication::frame::{Hello, Purpose, Refusal, RefusalCode, Start};
use riverrun_replication::lives::{Life, judge};
use riverrun_replication::message::PeerMessage;
use rustc_hash::FxHashMap;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::founding;
use super::protocol::{Closed, Join, Noted, Propose, Proposed, Question, Refused, Reply};
use super::replacement;
use crate::broker::Broker;
use crate::catalog::ChangeError;
use crate::net::burst;
use crate::net::memory::Budget;
use crate::peers::PeerHost;
use crate::repair;

/// A node that was heard so lately is not to be displaced by another one with its number.
const ALIVE: Duration = Duration::from_secs(2);

/// See the module. Weak, because the broker owns the links that own this.
#[derive(Debug)]
pub(crate) struct NodeHost {
    broker: Weak<Broker>,
    memory: Arc<Budget>,
    /// The latest start seen of every data directory (R3).
    seen: Mutex<FxHashMap<Uuid, Start>>,
}

impl NodeHost {
    pub(crate) fn new(broker: &Arc<Broker>) -> Self {
        Self {
            broker: Arc::downgrade(broker),
            memory: Arc::clone(broker.budget()),
            seen: Mutex::default(),
        }
    }

    fn broker(&self) -> Option<Arc<Broker>> {
        self.broker.upgrade().filter(|broker| broker.is_open())
    }
}

impl PeerHost for NodeHost {
    fn local(&self) -> Hello {
        let mut hello = Hello {
            purpose: Purpose::Link,
            cluster_id: Uuid::nil(),
            node: -1,
            directory_id: Uuid::nil(),
            incarnation: 0,
            meant: -1,
            starts: Vec::new(),
        };
        if let Some(broker) = self.broker() {
            let node = broker.runtime().node();
            hello.cluster_id = broker.cluster_uuid();
            hello.node = broker.config().node_id;
            hello.directory_id = node.directory_id();
            hello.incarnation = node.incarnation();
            hello.starts = node.starts();
        }
        hello
    }

    fn memory(&self) -> &Budget {
        &self.memory
    }

    fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        let Some(broker) = self.broker() else {
            return Err(Refusal::new(RefusalCode::Busy, "the node is starting"));
        };
        if hello.node == broker.config().node_id {
            let text = format!("two nodes have node.id {}", hello.node);
            return Err(Refusal::new(RefusalCode::Node, &text));
        }
        let Some(start) = hello.starts.last().copied() else {
            return Err(Refusal::new(RefusalCode::Other, "no start is named"));
        };
        let registered = broker.catalog().read(|image| {
            let known = image.directories.get(&hello.directory_id)?;
            Some(Start {
                incarnation: known.incarnation,
                token: known.token,
            })
        });
        let mut seen = self.seen.lock();
        let heard = seen.get(&hello.directory_id).copied();
        for known in registered.into_iter().chain(heard) {
            if let Life::Restored(why) = judge(known, &hello.starts) {
                let text = format!(
                    "the data directory of node {} is a copy of an older one: {why}; empty it, and the \
                     node joins as a new one",
                    hello.node
                );
                return Err(Refusal::new(RefusalCode::Restored, &text));
            }
        }
        let is_new = seen.insert(hello.directory_id, start) != Some(start);
        // Who belongs to no cluster yet may have a number that is another one's.
        if is_new && !hello.cluster_id.is_nil() {
            broker.leaders().started(hello.node);
        }
        Ok(())
    }

    fn messages(&self, from: i32, messages: Vec<PeerMessage>) {
        let Some(broker) = self.broker() else { return };
        broker.routes().learn(from, &messages);
        burst::run(&broker, || {
            for message in messages {
                if let Some(shard) = broker.runtime().message(message) {
                    burst::touch(&broker, shard);
                }
            }
        });
    }

    fn announced(&self, from: i32, announcement: Bytes) {
        if let Some(broker) = self.broker()
            && broker.leaders().hear(from, announcement)
        {
            broker.tell_led();
        }
    }

    fn unreachable(&self, targets: Vec<(u64, u64)>) {
        let Some(broker) = self.broker() else { return };
        burst::run(&broker, || {
            for (group, replica) in targets {
                if let Some(shard) = broker.runtime().unreachable(group, replica) {
                    burst::touch(&broker, shard);
                }
            }
        });
    }

    fn link_up(&self, node: i32, _incarnation: u64) {
        if let Some(broker) = self.broker() {
            broker.leaders().link_up(node);
        }
    }

    fn peer_heard(&self, node: i32, incarnation: u64) {
        info!(node, incarnation, "a node is heard");
        if let Some(broker) = self.broker() {
            broker.leaders().heard(node);
            broker.tell_led();
            broker.duties().look();
        }
    }

    fn peer_gone(&self, node: i32) {
        warn!(node, "a node is not heard any more");
        let Some(broker) = self.broker() else { return };
        broker.leaders().gone(node);
        let replicas = broker.routes().on_node(node);
        burst::run(&broker, || {
            for (group, replica) in replicas {
                if let Some(shard) = broker.runtime().gone(group, replica) {
                    burst::touch(&broker, shard);
                }
            }
        });
    }

    fn refused(&self, node: i32, refusal: &Refusal) {
        if refusal.code == RefusalCode::Restored
            && let Some(broker) = self.broker()
        {
            return broker.fail(&refusal.text);
        }
        warn!(node, %refusal, "a node does not want this one");
    }

    async fn call(&self, from: Hello, body: Bytes) -> Bytes {
        let reply = match (self.broker(), Question::from_bytes(body)) {
            (None, _) => Refused::other("the node is starting"),
            (Some(_), None) => Refused::other("a question that this version does not know"),
            (Some(broker), Some(question)) => answer(&broker, &from, question).await,
        };
        reply.into_bytes()
    }
}

async fn answer(broker: &Arc<Broker>, from: &Hello, question: Question) -> Reply {
    match question {
        Question::Founding(_) => founding::answer(broker, from),
        // What follows changes the cluster, or is told only within it.
        Question::Join(join) => take_in(broker, from, join).await,
        _ if from.cluster_id != broker.cluster_uuid() || from.cluster_id.is_nil() => {
            Refused::other("the asking node is not of this cluster")
        }
        Question::Propose(propose) => write(broker, propose).await,
        Question::Closed(closed) => note(broker, &closed),
        Question::Quorum(_) => Reply::Quorum(broker.led_quorum()),
        Question::Words(asked) => replacement::reply(broker, &asked).await,
        Question::Entry(asked) => repair::reply(broker, asked).await,
    }
}

async fn write(broker: &Arc<Broker>, propose: Propose) -> Reply {
    if !broker.leads_controller() {
        return Refused::not_leader();
    }
    // What no node could read would stop all of them.
    let commands = match decode_batch(&propose.batch) {
        Ok(commands) if !commands.is_empty() => commands,
        Ok(_) => return Refused::other("no command is in it"),
        Err(error) => return Refused::other(error),
    };
    let batch = match encode_numbered_batch(&commands, Numbers::of_batch(&propose.batch)) {
        Ok(batch) => batch,
        Err(error) => return Refused::other(error),
    };
    match broker.catalog().write(broker, batch).await {
        Ok(base_offset) => Reply::Proposed(Proposed { base_offset }),
        Err(error) if error.is_unknown() => Refused::reply(Refused::LOST, error),
        Err(error) => Refused::other(error),
    }
}

/// Registers a node that has no replica of group 0 yet, and orders it to create one.
async fn take_in(broker: &Arc<Broker>, from: &Hello, join: Join) -> Reply {
    let registration = match decode_batch(&join.registration).as_deref() {
        Ok([Command::RegisterBroker(registration)]) => registration.clone(),
        Ok(_) => return Refused::other("a node registers itself and no more"),
        Err(error) => return Refused::other(error),
    };
    if registration.node != from.node
        || registration.directory != from.directory_id.as_bytes()
        || registration.peer_host.is_empty()
    {
        return Refused::other("a node registers itself, with the address where others find it");
    }
    if let Some(alive) = displaced(broker, from) {
        return Refused::other(format!(
            "two nodes have node.id {}: one is there already, on the data directory {alive}",
            from.node
        ));
    }
    // Changes wait for a leader, in turn; whoever asks is to hear sooner what he waits for.
    if broker.controller_node() < 0 {
        let why = "nobody leads the controller's group; a majority of its voters is needed";
        return Refused::other(why);
    }
    let plan = |controller: &Controller| {
        if controller.image().cluster_id.is_nil() {
            return Ok(Vec::new());
        }
        controller
            .plan_register_broker(registration.clone())
            .map(|command| vec![command])
    };
    match broker.catalog().change(broker, plan).await {
        Ok(_) => {}
        Err(ChangeError::Rejected(Rejection::OtherDirectory { directory, .. })) => {
            return Reply::Refused(Refused {
                code: Refused::OTHER_DIRECTORY,
                why: format!("it is there on the data directory {directory}"),
                directory: directory.as_bytes().to_vec(),
            });
        }
        Err(error) => return Refused::other(error),
    }
    if join.lost != 0
        && let Err(why) = replacement::replace_controller(broker, from.node, join.lost).await
    {
        return Refused::other(format!("its replica of group 0 is not replaced yet: {why}"));
    }
    let catalog = broker.catalog();
    match catalog.read(|image| Known::joined(image, from.node, from.directory_id)) {
        Some(known) => {
            info!(node = from.node, "a node joins the cluster");
            Reply::Joined(known)
        }
        None => Refused::other("the cluster is not founded yet"),
    }
}

/// The directory of a node that is heard, and whose number another one wants to have.
fn displaced(broker: &Broker, from: &Hello) -> Option<Uuid> {
    let directory = broker.catalog().read(|image| {
        let known = image.brokers.get(&from.node)?;
        (known.directory != from.directory_id).then_some(known.directory)
    })?;
    let is_heard = from.node == broker.config().node_id
        || broker
            .peers()
            .last_heard(from.node)
            .is_some_and(|ago| ago < ALIVE);
    is_heard.then_some(directory)
}

fn note(broker: &Arc<Broker>, closed: &Closed) -> Reply {
    if !broker.leads_controller() {
        return Refused::not_leader();
    }
    for topic in &closed.topics {
        match Uuid::from_slice(topic) {
            Ok(topic) => broker.duties().closed(topic, closed.node),
            Err(error) => error!(%error, "a node names a topic that can be none"),
        }
    }
    Reply::Noted(Noted {})
}
