//! The first start of a node, and every later one: the cluster's id, group 0, registration.
//!
//! A node comes to its cluster once, and what it learned then is durable before it has a replica of
//! group 0 (`record`):
//!
//! * *alone*: an empty directory, neither voters nor a cluster to join;
//! * *together*: every voter of one and the same line has answered that its directory is empty, too.
//!   The lowest id founds: who the founders are, and on which directories, is durable there before
//!   anybody hears of it. Each of the others takes it over from whoever has it, if it is named;
//! * *by joining*: any node of the cluster has the registration written to group 0, which gives the
//!   new node a replica, a learner at first. So does a founder whose directory was emptied: nothing
//!   that it once voted for is left, so it may not vote as if nothing had happened (R3).
//!
//! A start that was cut off goes on where it ended, since nothing had been answered.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use riverrun_replication::controller::{
    Command, Controller, RegisterBroker, Rejection, encode_batch,
};
use riverrun_replication::founding::{self, Answer, Candidate, Founding, Known, Member, Step};
use riverrun_replication::frame::{Hello, RefusalCode};
use riverrun_replication::node::{CONTROLLER_GROUP, Node, Unopened};
use riverrun_replication::reconciler;
use riverrun_replication::retry::Backoff;
use riverrun_storage::format::aside::Reason;
use tokio::time::Instant;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::protocol::{AskFounding, Founding as Standing, Join, Question, Refused, Reply};
use crate::broker::Broker;
use crate::error::StartError;
use crate::net::burst;
use crate::peers::{Address, CallError, Callee};
use crate::reopen;

/// Pause before something is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How long an answer is waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long an order to join is waited for: group 0 has to commit it.
const JOIN_WAIT: Duration = Duration::from_secs(10);
/// After so long, and then as often, it is said what is waited for.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Comes to the cluster, or back to it: when this returns the node has a replica of group 0, or had the only
/// one and serves what the newest image of the cluster's state shows (R17).
pub(crate) async fn found_or_join(broker: &Arc<Broker>) -> Result<(), StartError> {
    let controller = |error: String| StartError::Controller(error);
    let unopened = until_available(broker).await;
    let node = broker.runtime().node();
    let mut had = broker.runtime().handle(CONTROLLER_GROUP).is_some();
    let known = on_disk(broker, Node::known).await.map_err(controller)?;
    let mut known = match (known, &unopened) {
        (Some(known), _) => known,
        (None, None) if had => Known::default(),
        (None, None) if node.store().identity().cluster_id.is_none() => {
            let known = come_to_it(broker).await?;
            write_known(broker, &known).await?;
            known
        }
        (None, unopened) => return Err(cluster_unknown(broker, unopened.as_ref())),
    };
    // It is durable: whoever asks may hear it.
    broker.set_known(known.clone());
    *broker.founding().lock() = None;
    let lost = if had {
        None
    } else {
        lost_controller(broker, &known, unopened)
    };
    if let Some(lost) = lost {
        let Some(at) = others(broker, &known) else {
            return alone_without_controller(broker, &lost);
        };
        known = rejoin(broker, at, &lost).await?;
        write_known(broker, &known).await?;
        broker.set_known(known.clone());
        had = false;
    }
    if !had {
        create_group_0(broker, &known).await.map_err(controller)?;
        info!(
            cluster = broker.cluster_id(),
            node = broker.config().node_id,
            "came to the cluster"
        );
    }
    Ok(())
}

async fn write_known(broker: &Arc<Broker>, known: &Known) -> Result<(), StartError> {
    let record = known.clone();
    let written = on_disk(broker, move |node| node.write_known(&record)).await;
    written.map_err(StartError::Controller)
}

/// Waits until the replica of group 0 is open, or it is known that it cannot be: an error of the machine is
/// waited out here, not by a start after the other (R15, R16).
async fn until_available(broker: &Arc<Broker>) -> Option<Unopened> {
    let mut waiting = Waiting::new();
    let mut backoff = Backoff::default();
    loop {
        let unopened = broker.runtime().node().unopened_of(CONTROLLER_GROUP)?;
        if unopened.standing != reconciler::Standing::Unavailable {
            return Some(unopened);
        }
        waiting.say(&format!("the controller's log: {}", unopened.why));
        tokio::time::sleep(backoff.next(broker.seed())).await;
        reopen::once(broker).await;
    }
}

/// The directory belongs to a cluster, and the record that says to which is gone.
fn cluster_unknown(broker: &Broker, unopened: Option<&Unopened>) -> StartError {
    let path = broker
        .config()
        .data_dir
        .join("node")
        .join(founding::FILE_NAME);
    let also = unopened.map_or_else(String::new, |of| format!(", and {}", of.why));
    StartError::Data {
        path: broker.config().data_dir.clone(),
        what: format!(
            "{} is missing{also}: bring it back, or set the whole directory aside by `riverrun node \
             set-aside` and let the node join its cluster anew",
            path.display()
        ),
    }
}

/// The replica of group 0 that was here and is lost or damaged, if there was one.
fn lost_controller(broker: &Broker, known: &Known, unopened: Option<Unopened>) -> Option<Unopened> {
    if unopened.is_some() {
        return unopened;
    }
    // Its creation may be what the node WAL has lost (R12).
    let node = broker.runtime().node();
    node.store().damage()?;
    let settings = crate::config::TopicSettings::controller_settings();
    let order = known.order(node.directory_id(), settings)?;
    let why = "the node WAL was damaged, and has no record of the controller's log";
    node.note_lost(&order.identity, why.to_owned());
    node.unopened_of(CONTROLLER_GROUP)
}

/// Where other nodes of the cluster may be reached; none where there are none.
fn others(broker: &Broker, known: &Known) -> Option<Vec<Address>> {
    let own = broker.config().node_id;
    let of_record = known.members.iter().filter(|member| member.node != own);
    let of_record = of_record.filter_map(|member| {
        let port = u16::try_from(member.port).ok()?;
        (!member.host.is_empty()).then(|| (member.host.clone(), port))
    });
    let of_settings = broker.config().bootstrap_servers.iter().cloned();
    let at: Vec<Address> = of_record.chain(of_settings).collect();
    (!at.is_empty()).then_some(at)
}

/// The only copy of group 0 cannot be read. What its newest image shows is served as it is here, and no order
/// is carried out or taken; where there is no image nobody knows how the topics are called.
fn alone_without_controller(broker: &Broker, lost: &Unopened) -> Result<(), StartError> {
    let found = broker.runtime().node().checkpoints().load_without_log();
    let Ok(Some(found)) = found else {
        return Err(StartError::Controller(format!(
            "{}; no other node has a copy, there is no image of the cluster's state, and the files are as \
             they were: bring an undamaged copy of the file back",
            lost.why
        )));
    };
    error!(
        why = lost.why,
        "the controller's log cannot be used, and no other node has a copy: topics are served as they were \
         when the newest image of the cluster's state was written, and nothing can be created, changed or \
         deleted. Bring an undamaged copy of the file back"
    );
    broker.catalog().restore(found);
    Ok(())
}

/// Has the replica of group 0 that is lost replaced by another one on this directory (R17). Until then the
/// node's other groups go on, and carry out no order.
async fn rejoin(
    broker: &Arc<Broker>,
    at: Vec<Address>,
    lost: &Unopened,
) -> Result<Known, StartError> {
    error!(
        why = lost.why,
        "the controller's log of this node cannot be used: another replica takes its place"
    );
    let rejoined = join(broker, at, lost.identity.replica).await?;
    let aside = blocking(broker, |broker| {
        let runtime = broker.runtime();
        burst::run(broker, || {
            runtime.set_aside(CONTROLLER_GROUP, Reason::Replaced)
        })
        .map_err(|error| error.to_string())
    });
    aside.await.map_err(StartError::Controller)?;
    Ok(rejoined)
}

/// Makes this start known to the controller, however long that takes.
pub(crate) async fn register(broker: &Arc<Broker>) -> Result<(), StartError> {
    let mut waiting = Waiting::new();
    loop {
        let registration = registration(broker);
        let plan = |controller: &Controller| commands(broker, controller, registration);
        match broker.catalog().change(broker, plan).await {
            Ok(outcomes) => {
                use riverrun_replication::controller::Outcome;
                let refused = outcomes.into_iter().find_map(|outcome| match outcome {
                    Outcome::Rejected(why) => Some(why),
                    _ => None,
                });
                return match refused {
                    Some(why) => Err(StartError::Controller(why.to_string())),
                    None => note_registered(broker).await,
                };
            }
            Err(crate::catalog::ChangeError::Rejected(why)) => {
                return Err(StartError::Controller(why.to_string()));
            }
            Err(error) => waiting.say(&format!("the controller's quorum: {error}")),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The controller knows this start: the directory remembers that (R15), and which replicas were ordered before
/// it met a damage of its WAL (R12).
async fn note_registered(broker: &Arc<Broker>) -> Result<(), StartError> {
    let ordered_below = broker.catalog().read(|image| image.next_replica);
    let noted = blocking(broker, move |broker| {
        let store = broker.runtime().node().store();
        store
            .is_heard()
            .and_then(|()| store.bound_damage(ordered_below))
            .map_err(|error| error.to_string())
    });
    noted.await.map_err(StartError::Controller)
}

/// What a node's start is to the controller. Whoever is first says who founded the cluster.
fn commands(
    broker: &Broker,
    controller: &Controller,
    registration: RegisterBroker,
) -> Result<Vec<Command>, Rejection> {
    let mut commands = Vec::new();
    if controller.image().cluster_id.is_nil() {
        let found = broker.known().found_cluster(broker.cluster_uuid());
        commands.push(Command::FoundCluster(found));
        // What it makes of a node is checked when both are applied.
        commands.push(Command::RegisterBroker(registration));
    } else {
        commands.push(controller.plan_register_broker(registration)?);
    }
    Ok(commands)
}

fn registration(broker: &Broker) -> RegisterBroker {
    let config = broker.config();
    let (host, port) = config
        .advertised
        .clone()
        .unwrap_or_else(|| (config.listen.ip().to_string(), config.listen.port()));
    let node = broker.runtime().node();
    let (peer_host, peer_port) = broker.peer_address().unwrap_or_default();
    RegisterBroker {
        node: config.node_id,
        directory: node.directory_id().as_bytes().to_vec(),
        incarnation: node.incarnation(),
        host,
        port: u32::from(port),
        rack: config.rack.clone().unwrap_or_default(),
        peer_host,
        peer_port: u32::from(peer_port),
        token: broker.start_token(),
        replaces: Some(Vec::new()),
        room: broker.descriptors().room(),
    }
}

/// Does something with the node's files on a thread that may block.
async fn on_disk<T: Send + 'static>(
    broker: &Arc<Broker>,
    f: impl FnOnce(&Node) -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let f = move |broker: &Arc<Broker>| f(broker.runtime().node());
    blocking(broker, move |broker| {
        f(broker).map_err(|error| error.to_string())
    })
    .await
}

async fn blocking<T: Send + 'static>(
    broker: &Arc<Broker>,
    f: impl FnOnce(&Arc<Broker>) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = broker.on_files(f).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
}

/// The node's directory is empty: how it comes to a cluster.
async fn come_to_it(broker: &Arc<Broker>) -> Result<Known, StartError> {
    if !broker.runtime().handles().is_empty() {
        let what = "there are partitions, and the controller's log is gone";
        return Err(StartError::Controller(what.to_owned()));
    }
    if broker.runtime().node().store().damage().is_some() {
        return Err(cluster_unknown(broker, None));
    }
    let config = broker.config();
    if config.quorum_voters.len() > 1 {
        return found_together(broker).await;
    }
    if !config.bootstrap_servers.is_empty() {
        let at = config.bootstrap_servers.iter();
        let at = at.map(|(host, port)| (host.clone(), *port)).collect();
        return join(broker, at, 0).await;
    }
    Ok(found(broker, vec![own(broker)]))
}

/// What the founder writes down.
fn found(broker: &Broker, members: Vec<Member>) -> Known {
    let known = broker.cluster_uuid();
    let id = if known.is_nil() {
        new_cluster_id()
    } else {
        known
    };
    Known::founded(id, members)
}

/// This node, without a replica.
fn own(broker: &Broker) -> Member {
    let (host, port) = broker.peer_address().unwrap_or_default();
    Member::new(&candidate(broker), host, port)
}

fn candidate(broker: &Broker) -> Candidate {
    Candidate {
        node: broker.config().node_id,
        directory: broker.runtime().node().directory_id(),
    }
}

/// The voters as every one of them should have been told.
pub(crate) fn voters_line(broker: &Broker) -> String {
    let voters = broker.config().quorum_voters.iter();
    let voters: Vec<String> = voters
        .map(|voter| format!("{}@{}:{}", voter.id, voter.host, voter.port))
        .collect();
    voters.join(",")
}

async fn found_together(broker: &Arc<Broker>) -> Result<Known, StartError> {
    let config = broker.config();
    let line = voters_line(broker);
    let me = candidate(broker);
    let voters: Vec<i32> = config.quorum_voters.iter().map(|voter| voter.id).collect();
    let address = |node: i32| {
        let voter = config.quorum_voters.iter().find(|voter| voter.id == node);
        voter.map_or_else(Address::default, |voter| (voter.host.clone(), voter.port))
    };
    let named = |nodes: &[i32]| {
        let nodes = nodes.iter().map(|node| (node, address(*node)));
        let nodes: Vec<String> = nodes
            .map(|(n, (host, port))| format!("{n}@{host}:{port}"))
            .collect();
        nodes.join(", ")
    };
    let own_id = me.node;
    *broker.founding().lock() = Some(Founding::new(me, voters, line.clone()));
    let mut waiting = Waiting::new();
    loop {
        for voter in config.quorum_voters.iter().filter(|v| v.id != own_id) {
            let Some(there) = ask(broker, &address(voter.id), &line).await else {
                continue;
            };
            if there.node != voter.id {
                let (id, host, port) = (voter.id, &voter.host, voter.port);
                let found = there.node;
                return Err(StartError::Controller(format!(
                    "at {host}:{port} is node {found}, and controller.quorum.voters says node {id}"
                )));
            }
            let answer = match there.known {
                Some(known) => Answer::Bound(known),
                None => Answer::Empty {
                    voters: there.voters,
                },
            };
            let Ok(directory) = Uuid::from_slice(&there.directory) else {
                warn!(node = voter.id, "a voter's answer names no directory");
                continue;
            };
            let by = Candidate {
                node: voter.id,
                directory,
            };
            if let Some(founding) = &mut *broker.founding().lock() {
                founding.told(by, answer);
            }
        }
        let step = broker.founding().lock().as_mut().map(Founding::decide);
        match step.unwrap_or(Step::WaitForFounder) {
            Step::WaitFor(nodes) => {
                waiting.say(&format!("{} to found the cluster together", named(&nodes)));
            }
            Step::WaitForFounder => waiting.say("the node with the lowest id to found the cluster"),
            Step::Found(founders) => {
                let members = founders.iter().map(|founder| {
                    let (host, port) = address(founder.node);
                    Member::new(founder, host, port)
                });
                return Ok(found(broker, members.collect()));
            }
            Step::TakeOver(known) => return Ok(known),
            Step::Join(nodes) => {
                warn!(
                    by = named(&nodes),
                    "the cluster is there already, and does not know this directory: joining it"
                );
                return join(broker, nodes.into_iter().map(address).collect(), 0).await;
            }
            Step::OtherVoters { node, voters } => {
                return Err(StartError::Controller(format!(
                    "node {node} was started with other voters: controller.quorum.voters is {voters} \
                     there and {line} here"
                )));
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Asks a voter how it stands with it.
async fn ask(broker: &Broker, at: &Address, line: &str) -> Option<Standing> {
    let question = Question::Founding(AskFounding {
        voters: line.to_owned(),
    });
    let callee = Callee::At(at.clone());
    let answer = broker
        .peers()
        .call(callee, question.into_bytes(), ANSWER_WAIT);
    match Reply::from_bytes(answer.await.ok()?)? {
        Reply::Founding(there) => Some(there),
        _ => None,
    }
}

/// Whether the nodes that this one is configured with are of its cluster: a data directory of another
/// one was taken else. Where more than half of them refuse it for that, the node stops; one that does
/// may be the one that is wrong.
pub(crate) async fn check_cluster(broker: Arc<Broker>) {
    let config = broker.config();
    let voters = config
        .quorum_voters
        .iter()
        .filter(|v| v.id != config.node_id);
    let voters = voters.map(|voter| (voter.host.clone(), voter.port));
    let others: Vec<Address> = voters
        .chain(config.bootstrap_servers.iter().cloned())
        .collect();
    let mut verdicts: BTreeMap<Address, Option<String>> = BTreeMap::new();
    while verdicts.len() < others.len() && !broker.is_stopping() {
        for at in others
            .iter()
            .filter(|at| !verdicts.contains_key(*at))
            .collect::<Vec<_>>()
        {
            let question = Question::Founding(AskFounding {
                voters: voters_line(&broker),
            });
            let callee = Callee::At(at.clone());
            let call = broker
                .peers()
                .call(callee, question.into_bytes(), ANSWER_WAIT);
            let verdict = match call.await {
                Ok(_) => None,
                Err(CallError::Refused(why) | CallError::Unwanted(why))
                    if why.code == RefusalCode::Cluster =>
                {
                    Some(why.text)
                }
                Err(_) => continue,
            };
            verdicts.insert(at.clone(), verdict);
        }
        let against: Vec<&String> = verdicts.values().flatten().collect();
        if against.len() * 2 > others.len() {
            let why = against.first().map_or("", |why| why.as_str());
            broker.fail(&format!(
                "the data directory belongs to another cluster than the nodes that this one was given: \
                 {why}"
            ));
            return;
        }
        tokio::time::sleep(RETRY * 10).await;
    }
}

/// Has the node registered by any node of the cluster; gives what it is to know of the cluster. `lost` is the
/// replica of group 0 that is to be replaced, 0 for none.
async fn join(broker: &Arc<Broker>, at: Vec<Address>, lost: u64) -> Result<Known, StartError> {
    let mut waiting = Waiting::new();
    let mut replaces = Vec::new();
    loop {
        for address in &at {
            let registration = [Command::RegisterBroker(RegisterBroker {
                replaces: Some(replaces.clone()),
                ..registration(broker)
            })];
            let registration = encode_batch(&registration)
                .map_err(|error| StartError::Controller(error.to_string()))?;
            let question = Question::Join(Join {
                registration: registration.freeze(),
                lost,
            });
            let callee = Callee::At(address.clone());
            let answer = broker
                .peers()
                .call(callee, question.into_bytes(), JOIN_WAIT)
                .await;
            match answer.map(Reply::from_bytes) {
                Ok(Some(Reply::Joined(known))) => return Ok(known),
                // Asked again, the cluster knows that the other one is meant to go.
                Ok(Some(Reply::Refused(refused))) if refused.code == Refused::OTHER_DIRECTORY => {
                    replaces = refused.directory;
                }
                Ok(Some(Reply::Refused(refused))) => waiting.say(&format!(
                    "the cluster to take this node: {}:{} says: {}",
                    address.0, address.1, refused.why
                )),
                Ok(_) => waiting.say("an answer that this version can read"),
                Err(error) => waiting.say(&format!(
                    "the cluster at {}:{}: {error}",
                    address.0, address.1
                )),
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The answer to a node that wants to found a cluster with this one.
pub(crate) fn answer(broker: &Broker, from: &Hello) -> Reply {
    let known = broker.known();
    let bound = !known.is_unknown() || !broker.cluster_uuid().is_nil();
    let by = Candidate {
        node: from.node,
        directory: from.directory_id,
    };
    let asked = broker.founding().lock().as_mut().map(|f| f.asked(&by));
    let known = match asked {
        Some(true) => None,
        None if bound => Some((*known).clone()),
        // Others are not waited for: whoever asks was started with other voters.
        None if broker.config().quorum_voters.len() < 2 => None,
        _ => return Refused::other("this node is coming to its cluster"),
    };
    let own = own(broker);
    Reply::Founding(Standing {
        node: own.node,
        directory: own.directory,
        voters: voters_line(broker),
        known,
    })
}

/// Creates this node's replica of group 0, and binds the directory to the cluster.
async fn create_group_0(broker: &Arc<Broker>, known: &Known) -> Result<(), String> {
    let id = known.cluster();
    let directory = broker.runtime().node().directory_id();
    let settings = crate::config::TopicSettings::controller_settings();
    let order = known
        .order(directory, settings)
        .ok_or("the cluster has no replica for this directory")?;
    blocking(broker, move |broker| {
        let store = broker.runtime().node().store();
        store
            .set_cluster_id(id)
            .map_err(|error| error.to_string())?;
        broker.set_cluster_id(id);
        burst::run(broker, || broker.runtime().create_group(&order))
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await
}

/// Says what is waited for, and does not repeat itself too often.
struct Waiting {
    since: Instant,
    said: u32,
}

impl Waiting {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            said: 0,
        }
    }

    fn say(&mut self, what: &str) {
        let waited = self.since.elapsed();
        if waited >= SAY_EVERY * (self.said + 1) {
            self.said += 1;
            warn!(waited_s = waited.as_secs(), "waiting for {what}");
        }
    }
}

/// Kafka's tools take an id that begins with a dash for an option.
fn new_cluster_id() -> Uuid {
    loop {
        let id = Uuid::new_v4();
        if !cluster_id_text(&id).starts_with('-') {
            return id;
        }
    }
}

/// An id as Kafka writes it: base64 for URLs, without padding.
pub(crate) fn cluster_id_text(id: &Uuid) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(22);
    for chunk in id.as_bytes().chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| {
            bits << 8 | usize::from(chunk.get(at).copied().unwrap_or(0))
        });
        for digit in 0..=chunk.len() {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(DIGITS.get(value).copied().map_or('A', char::from));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_ids_as_kafka_does() {
        assert_eq!(cluster_id_text(&Uuid::nil()), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(
            cluster_id_text(&Uuid::from_u128(u128::MAX)),
            "_____________________w"
        );
        assert_eq!(
            cluster_id_text(&Uuid::from_u128(1)),
            "AAAAAAAAAAAAAAAAAAAAAQ"
        );
    }
}
