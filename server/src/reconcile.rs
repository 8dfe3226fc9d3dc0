//! Makes this node what the controller's image says: creates the replicas that it orders, closes and sets
//! aside those of topics that are being deleted, and shows the rest to requests. What is done about a
//! replica is decided by `riverrun_replication::reconciler`; nothing is deleted here.

use std::sync::Arc;
use std::time::Duration;

use riverrun_replication::controller::{PartitionImage, ReplicaImage, TopicImage};
use riverrun_replication::members::Members;
use riverrun_replication::node::{CONTROLLER_GROUP, GroupOrder, OpenError};
use riverrun_replication::reconciler::{
    Here, Me, Order, Standing, is_accounted_for, order, without_controller,
};
use riverrun_storage::LogIdentity;
use riverrun_storage::format::aside::Reason;
use riverrun_storage::planted::{self, Bug};
use rustc_hash::FxHashMap;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::broker::Broker;
use crate::cluster::protocol::{Closed, Question};
use crate::config::TopicSettings;
use crate::net::burst;
use crate::partition::Partition;
use crate::peers::Callee;
use crate::topics::{Topic, TopicPartition};

/// Pause before what could not be done is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long the node that leads group 0 may take to note something.
const SAY_WAIT: Duration = Duration::from_secs(2);

/// Follows the image until the broker stops. `applied` was subscribed to before the image was last
/// made good: what is applied while this task waits for its first turn is not missed.
pub(crate) async fn follow(broker: Arc<Broker>, mut applied: watch::Receiver<i64>, mut done: bool) {
    loop {
        let retry = tokio::time::sleep(RETRY);
        tokio::select! {
            biased;
            changed = applied.changed() => if changed.is_err() { return },
            () = retry, if !done => {}
        }
        done = once(&broker).await;
    }
}

/// Does everything that the image asks for now; false where something is left to be tried again.
pub(crate) async fn once(broker: &Arc<Broker>) -> bool {
    let orders = broker.runtime().handle(CONTROLLER_GROUP).is_some();
    let unopened = unopened(broker);
    let (offset, topics) = broker.catalog().read(|image| {
        let changed: Vec<TopicImage> = image
            .topics
            .values()
            .filter(|topic| topic.closing || !is_shown(broker, topic, &unopened))
            .cloned()
            .collect();
        (image.next_offset, changed)
    });
    let (closing, open): (Vec<_>, Vec<_>) = topics.into_iter().partition(|topic| topic.closing);
    let mut done = true;
    broker.follow_nodes();
    if orders {
        broker.duties().look();
        want_controllers(broker);
    }
    let mut all_shown = true;
    for topic in open {
        let shown = broker.on_files(move |broker| show(broker, &topic, orders));
        done &= shown.await.unwrap_or_else(|error| {
            error!(%error, "a topic cannot be made ready");
            all_shown = false;
            false
        });
    }
    broker.routes().are_told();
    // Whoever waits for a topic that is not shown would take it for deleted.
    if all_shown {
        broker.catalog().show(offset);
    }
    if !orders {
        return done;
    }
    done &= close(broker, closing).await;
    done &= leave_removed(broker).await;
    account_for_damage(broker);
    broker.replacement().look();
    done
}

/// The replicas of this node that are not open.
fn unopened(broker: &Broker) -> FxHashMap<u64, (u64, Standing)> {
    let unopened = broker.runtime().node().unopened();
    let of = unopened.into_iter();
    of.map(|of| (of.identity.group, (of.identity.replica, of.standing)))
        .collect()
}

/// Who this node is to the function that decides.
pub(crate) fn me(broker: &Broker) -> Me {
    let node = broker.runtime().node();
    Me {
        node: broker.config().node_id,
        directory: node.directory_id(),
        ordered_below: node.store().damage().map(|damage| damage.ordered_below),
    }
}

/// A damage of the node WAL is forgotten when no replica that it may have concerned is lost here (R12).
fn account_for_damage(broker: &Broker) {
    let me = me(broker);
    if me.ordered_below.is_none() {
        return;
    }
    let node = broker.runtime().node();
    let unopened = unopened(broker);
    let is_lost = |group, replica| match unopened.get(&group) {
        Some((here, standing)) => *here == replica && *standing == Standing::Lost,
        None => node.handle(group).is_none(),
    };
    let accounted = broker.catalog().read(|image| {
        let open = image.topics.values().filter(|topic| !topic.closing);
        is_accounted_for(open.flat_map(|topic| &topic.partitions), &me, is_lost)
    });
    if accounted && !unopened.contains_key(&CONTROLLER_GROUP) {
        match node.store().forget_damage() {
            Ok(()) => info!("what the damage of the node WAL may have concerned is accounted for"),
            Err(error) => warn!(%error, "the damage of the node WAL cannot be forgotten yet"),
        }
    }
}

/// The members that group 0 is to have.
fn want_controllers(broker: &Broker) {
    let Some(handle) = broker.runtime().handle(CONTROLLER_GROUP) else {
        return;
    };
    let members = broker.catalog().read(|image| Members {
        voters: image.quorum.ids(true).collect(),
        learners: image.quorum.ids(false).collect(),
        next_replica: image.quorum.next_replica(),
    });
    if !members.voters.is_empty() {
        burst::run(broker, || {
            broker.runtime().set_members(&handle, members);
            burst::touch(broker, handle.shard());
        });
    }
}

/// Takes the replicas of topics out of service that were removed while this node was away (R11): only
/// what group 0 has removed by its id. What it merely does not know is left alone.
async fn leave_removed(broker: &Arc<Broker>) -> bool {
    let mut groups: Vec<(u64, Uuid)> = Vec::new();
    let node = broker.runtime().node();
    let open = node.handles().into_iter();
    groups.extend(open.map(|handle| (handle.group(), handle.topic_id())));
    let unopened = node.unopened().into_iter();
    groups.extend(unopened.map(|of| (of.identity.group, of.identity.topic_id)));
    let gone: Vec<u64> = broker.catalog().read(|image| {
        let is_gone = |topic: &Uuid| {
            image.removed.contains_key(topic)
                || (planted::is(Bug::ForgottenImageDeletes) && !image.topics.contains_key(topic))
        };
        let groups = groups.iter();
        let groups = groups.filter(|(group, topic)| *group != CONTROLLER_GROUP && is_gone(topic));
        groups.map(|(group, _)| *group).collect()
    });
    if gone.is_empty() {
        return true;
    }
    let left = set_aside_all(broker, gone, Reason::TopicDeleted).await;
    if let Err(error) = &left {
        warn!(error, "replicas of removed topics cannot be set aside yet");
    }
    left.is_ok()
}

async fn set_aside_all(
    broker: &Arc<Broker>,
    groups: Vec<u64>,
    reason: Reason,
) -> Result<(), String> {
    let done = broker.on_files(move |broker| {
        groups.into_iter().try_for_each(|group| {
            set_aside(broker, group, reason)?;
            broker.leaders().forget(group);
            Ok(())
        })
    });
    done.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Takes this node's replica of a group out of service and sets its files aside. Blocks.
pub(crate) fn set_aside(broker: &Broker, group: u64, reason: Reason) -> Result<(), String> {
    burst::run(broker, || broker.runtime().set_aside(group, reason))
        .map_err(|error| error.to_string())?;
    broker.topics().forget_group(group);
    broker.routes().forget(group);
    broker.is_replaced(group);
    Ok(())
}

/// Whether requests see a topic as the image has it.
fn is_shown(
    broker: &Broker,
    image: &TopicImage,
    unopened: &FxHashMap<u64, (u64, Standing)>,
) -> bool {
    let standing = |group: u64| unopened.get(&group).map(|(_, standing)| *standing);
    broker.topics().with_id(&image.id).is_some_and(|topic| {
        topic.given == image.configs
            && topic.partitions.len() == image.partitions.len()
            && topic
                .partitions
                .iter()
                .zip(&image.partitions)
                .all(|(shown, wanted)| {
                    !shown.missing
                        && shown.replicas == wanted.replicas
                        && shown.unopened == standing(wanted.group)
                })
    })
}

/// Creates what is missing of a topic on this node and shows it; false where a replica could not be
/// created. Where no `orders` are carried out it shows what is here. Blocks.
fn show(broker: &Broker, image: &TopicImage, orders: bool) -> bool {
    let settings = match broker.config().topic.with(&image.configs) {
        Ok(settings) => settings,
        Err(error) => {
            // The node that took it knew a setting that this version does not.
            error!(topic = image.name, %error, "a topic's settings are not served here");
            return true;
        }
    };
    let settings = Arc::new(settings);
    // Of an image at least as new as the topic's.
    let next_replica = broker.catalog().read(|image| image.next_replica);
    let known = broker.topics().with_id(&image.id);
    let changed = known
        .as_ref()
        .is_none_or(|topic| topic.settings != settings);
    let partitions: Vec<TopicPartition> = (0..)
        .zip(&image.partitions)
        .map(|(index, partition)| {
            let local = local(broker, image, index, partition, &settings, orders);
            let (local, missing) = match local {
                Ok(local) => (local, false),
                Err(NotCreated) => (None, true),
            };
            if let Some(local) = local.as_ref().filter(|_| changed) {
                local.set_settings(Arc::clone(&settings));
                let groups = settings.group_settings();
                burst::run(broker, || {
                    broker.runtime().set_settings(local.handle(), groups)
                });
            }
            if let Some(local) = local.as_ref().filter(|_| orders) {
                let members = Members {
                    voters: partition.replicas.iter().map(|r| r.replica).collect(),
                    learners: Vec::new(),
                    next_replica,
                };
                broker.runtime().set_members(local.handle(), members);
            }
            TopicPartition {
                group: partition.group,
                replicas: partition.replicas.clone(),
                local,
                unopened: broker
                    .runtime()
                    .node()
                    .unopened_of(partition.group)
                    .map(|of| of.standing),
                missing,
            }
        })
        .collect();
    let done = partitions.iter().all(|partition| !partition.missing);
    broker.topics().put(Arc::new(Topic {
        id: image.id,
        name: Arc::from(image.name.as_str()),
        given: image.configs.clone(),
        settings,
        partitions,
    }));
    done
}

/// A replica that this node was ordered to create, and could not.
struct NotCreated;

/// This node's replica of a partition, created if the controller ordered it and it is not there. Where no
/// `orders` are carried out it is the one that is here.
fn local(
    broker: &Broker,
    topic: &TopicImage,
    index: i32,
    image: &PartitionImage,
    settings: &Arc<TopicSettings>,
    orders: bool,
) -> Result<Option<Arc<Partition>>, NotCreated> {
    let node = broker.runtime().node();
    let mut decided = order(image, &me(broker), here(broker, image.group));
    if !orders {
        decided = without_controller(decided);
    }
    if let Order::SetAside {
        replica,
        reason,
        when_let_go,
    } = decided
    {
        if when_let_go && !broker.replacement().has_let_go(image.group, replica) {
            broker.replacement().ask_about(image.group);
            decided = Order::Keep;
        } else {
            set_aside(broker, image.group, reason).map_err(|error| {
                let topic = &topic.name;
                error!(
                    topic,
                    partition = index,
                    error,
                    "a replica cannot be set aside"
                );
                NotCreated
            })?;
            decided = order(image, &me(broker), here(broker, image.group));
        }
    }
    let replicas = image.replicas.iter();
    let routes = replicas.map(|replica| (replica.replica, replica.node));
    broker.routes().add(image.group, routes);
    let identity = |replica: &ReplicaImage| LogIdentity {
        group: image.group,
        replica: replica.replica,
        topic_id: topic.id,
        partition: index,
    };
    let mine = match decided {
        Order::Create(mine) => mine,
        Order::Lost(lost) => {
            let why = "the node WAL was damaged, and has no record of this replica, which was ordered \
                       before that";
            node.note_lost(&identity(&lost), why.to_owned());
            return Ok(None);
        }
        Order::Nothing | Order::SetAside { .. } => return Ok(None),
        Order::Keep => return Ok(kept(broker, image.group, settings)),
    };
    let order = GroupOrder {
        identity: identity(&mine),
        // Who joins later begins with the same configuration, and learns from the log that it is in.
        voters: image.first_voters.clone(),
        learners: Vec::new(),
        settings: settings.group_settings(),
    };
    match burst::run(broker, || broker.runtime().create_group(&order)) {
        Ok(handle) => Ok(Some(Arc::new(Partition::new(handle, Arc::clone(settings))))),
        // It is noted as lost.
        Err(OpenError::Occupied { .. }) => Ok(None),
        Err(error) => {
            error!(topic = topic.name, partition = index, %error, "a replica cannot be created");
            Err(NotCreated)
        }
    }
}

/// What this node has of a group.
fn here(broker: &Broker, group: u64) -> Here {
    if let Some(handle) = broker.runtime().handle(group) {
        return Here::Open {
            replica: handle.replica(),
            contradicted: broker.is_contradicted(group),
        };
    }
    let unopened = broker.runtime().node().unopened_of(group);
    unopened.map_or(Here::Nothing, |of| Here::Unopened {
        replica: of.identity.replica,
        standing: of.standing,
    })
}

/// The replica that is here and stays, where it is open.
fn kept(broker: &Broker, group: u64, settings: &Arc<TopicSettings>) -> Option<Arc<Partition>> {
    let known = broker.topics().of_group(group);
    known.or_else(|| {
        let handle = broker.runtime().handle(group)?;
        Some(Arc::new(Partition::new(handle, Arc::clone(settings))))
    })
}

/// Closes the partitions of topics that are being deleted, sets their files aside, and says so to the node
/// that leads group 0, which has a topic forgotten when enough of its replicas are gone (L8). False as
/// long as a topic is there: what was said may have been lost.
async fn close(broker: &Arc<Broker>, closing: Vec<TopicImage>) -> bool {
    let mut closed = Vec::new();
    for topic in &closing {
        if let Some(taken) = broker.topics().take(&topic.id) {
            burst::run(broker, || {
                for partition in taken.partitions.iter().filter_map(|p| p.local.as_ref()) {
                    broker.look_at_waiters(partition);
                }
            });
        }
        let groups: Vec<u64> = topic.partitions.iter().map(|p| p.group).collect();
        match set_aside_all(broker, groups, Reason::TopicDeleted).await {
            Ok(()) => closed.push(topic.id),
            Err(error) => {
                warn!(
                    topic = topic.name,
                    error, "a topic's files cannot be set aside yet"
                );
            }
        }
    }
    if !closed.is_empty() {
        say_closed(broker, &closed).await;
    }
    closing.is_empty()
}

async fn say_closed(broker: &Arc<Broker>, topics: &[Uuid]) {
    let node = broker.config().node_id;
    let leader = broker.controller_node();
    if leader == node {
        for topic in topics {
            broker.duties().closed(*topic, node);
        }
        return;
    }
    let question = Question::Closed(Closed {
        node,
        topics: topics.iter().map(|id| id.as_bytes().to_vec()).collect(),
    });
    let callee = Callee::Node(leader);
    let answer = broker.peers().call(callee, question.into_bytes(), SAY_WAIT);
    if let Err(error) = answer.await {
        debug!(%error, leader, "the controller's leader is told again later");
    }
}
