//! Makes this node what the controller's image says: creates the replicas that it orders, closes
//! and deletes those of topics that are being deleted, and shows the rest to requests.

use std::sync::Arc;
use std::time::Duration;

use riverrun_replication::PartitionHandle;
use riverrun_replication::controller::{Controller, PartitionImage, TopicImage};
use riverrun_replication::members::Members;
use riverrun_replication::node::{CONTROLLER_GROUP, GroupOrder};
use riverrun_storage::LogIdentity;
use tokio::sync::watch;
use tracing::{debug, error, warn};
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
pub(crate) async fn follow(
    broker: Arc<Broker>,
    mut applied: watch::Receiver<i64>,
    mut done: bool,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let retry = tokio::time::sleep(RETRY);
        tokio::select! {
            biased;
            _ = stop.changed() => return,
            changed = applied.changed() => if changed.is_err() { return },
            () = retry, if !done => {}
        }
        done = once(&broker).await;
    }
}

/// Does everything that the image asks for now; false where something is left to be tried again.
pub(crate) async fn once(broker: &Arc<Broker>) -> bool {
    let (offset, topics) = broker.catalog().read(|image| {
        let changed: Vec<TopicImage> = image
            .topics
            .values()
            .filter(|topic| topic.closing || !is_shown(broker, topic))
            .cloned()
            .collect();
        (image.next_offset, changed)
    });
    let (closing, open): (Vec<_>, Vec<_>) = topics.into_iter().partition(|topic| topic.closing);
    let mut done = true;
    broker.follow_nodes();
    broker.duties().look();
    want_controllers(broker);
    done &= replace_lost(broker).await;
    for topic in open {
        let on_thread = Arc::clone(broker);
        let shown = tokio::task::spawn_blocking(move || show(&on_thread, &topic));
        done &= shown.await.unwrap_or_else(|error| {
            error!(%error, "a topic cannot be made ready");
            false
        });
    }
    broker.catalog().show(offset);
    done &= remove_orphans(broker).await;
    done &= close(broker, closing).await;
    done
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

/// Has replicas of this node that cannot go on replaced, where there are others to fill new ones from.
async fn replace_lost(broker: &Arc<Broker>) -> bool {
    let lost = broker.lost_replicas();
    if lost.is_empty() {
        return true;
    }
    let node = broker.config().node_id;
    let plan = |controller: &Controller| {
        let topics = controller.image().topics.values();
        let mut commands = Vec::new();
        for topic in topics.filter(|topic| !topic.closing) {
            for (number, partition) in topic.partitions.iter().enumerate() {
                let Some(old) = lost.get(&partition.group) else {
                    continue;
                };
                let has_it = partition.replicas.iter().any(|r| r.replica == *old);
                if has_it && partition.replicas.len() > 1 {
                    commands.push(controller.plan_replace_replica(&topic.id, number, *old, node)?);
                }
            }
        }
        Ok(commands)
    };
    let replaced = broker.catalog().change(broker, plan).await;
    if let Err(error) = &replaced {
        warn!(%error, "replicas that cannot go on are not replaced yet");
    }
    replaced.is_ok()
}

/// Deletes replicas of groups that were given out and are no more: their topics were removed while
/// this node was away.
async fn remove_orphans(broker: &Arc<Broker>) -> bool {
    let handles = broker.runtime().handles();
    let orphans: Vec<u64> = broker.catalog().read(|image| {
        // A topic keeps its partitions for as long as it is there.
        let gone = handles
            .iter()
            .filter(|handle| !image.topics.contains_key(&handle.topic_id()));
        gone.map(PartitionHandle::group)
            .filter(|group| *group != CONTROLLER_GROUP && *group < image.next_group)
            .collect()
    });
    if orphans.is_empty() {
        return true;
    }
    let on_thread = Arc::clone(broker);
    let removed = tokio::task::spawn_blocking(move || {
        orphans
            .into_iter()
            .try_for_each(|group| remove_for_good(&on_thread, group))
    });
    let removed = removed.await.unwrap_or_else(|error| Err(error.to_string()));
    if let Err(error) = &removed {
        warn!(error, "replicas of removed topics cannot be deleted yet");
    }
    removed.is_ok()
}

/// Removes this node's replica of a group, and its files. Blocks.
fn remove(broker: &Broker, group: u64) -> Result<(), String> {
    burst::run(broker, || broker.runtime().remove_group(group))
        .map_err(|error| error.to_string())?;
    broker.topics().forget_group(group);
    broker.routes().forget(group);
    broker.is_replaced(group);
    Ok(())
}

/// Removes what this node has of a group that is no more. Blocks.
fn remove_for_good(broker: &Broker, group: u64) -> Result<(), String> {
    remove(broker, group)?;
    broker.leaders().forget(group);
    Ok(())
}

/// Whether requests see a topic as the image has it.
fn is_shown(broker: &Broker, image: &TopicImage) -> bool {
    broker.topics().with_id(&image.id).is_some_and(|topic| {
        topic.given == image.configs
            && topic.partitions.len() == image.partitions.len()
            && topic
                .partitions
                .iter()
                .zip(&image.partitions)
                .all(|(shown, wanted)| !shown.missing && shown.replicas == wanted.replicas)
    })
}

/// Creates what is missing of a topic on this node and shows it; false where a replica could not be
/// created. Blocks.
fn show(broker: &Broker, image: &TopicImage) -> bool {
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
            let (local, missing) = match local(broker, image, index, partition, &settings) {
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
            if let Some(local) = &local {
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
                refused: broker.is_refused(partition.group),
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

/// This node's replica of a partition, created if the controller ordered it and it is not there.
fn local(
    broker: &Broker,
    topic: &TopicImage,
    index: i32,
    image: &PartitionImage,
    settings: &Arc<TopicSettings>,
) -> Result<Option<Arc<Partition>>, NotCreated> {
    // A replica is bound to a node and a directory: any other one was lost (R3).
    let node = broker.runtime().node();
    let mine = image.replicas.iter().find(|replica| {
        replica.node == broker.config().node_id && replica.directory == node.directory_id()
    });
    let here = broker
        .runtime()
        .handle(image.group)
        .map(|handle| handle.replica())
        .or_else(|| broker.refused_replica(image.group));
    if let Some(here) = here
        && mine.is_none_or(|mine| mine.replica != here)
    {
        // Another one has taken its place, here or elsewhere.
        remove(broker, image.group).map_err(|error| {
            error!(
                topic = topic.name,
                partition = index,
                error,
                "a replica cannot be deleted"
            );
            NotCreated
        })?;
    }
    let replicas = image.replicas.iter();
    let routes = replicas.map(|replica| (replica.replica, replica.node));
    broker.routes().add(image.group, routes);
    let Some(mine) = mine else { return Ok(None) };
    if let Some(known) = broker.topics().of_group(image.group) {
        return Ok(Some(known));
    }
    if let Some(handle) = broker.runtime().handle(image.group) {
        return Ok(Some(Arc::new(Partition::new(handle, Arc::clone(settings)))));
    }
    if broker.is_refused(image.group) {
        return Ok(None);
    }
    let order = GroupOrder {
        identity: LogIdentity {
            group: image.group,
            replica: mine.replica,
            topic_id: topic.id,
            partition: index,
        },
        // Who joins later begins with the same configuration, and learns from the log that it is in.
        voters: image.first_voters.clone(),
        learners: Vec::new(),
        settings: settings.group_settings(),
    };
    match burst::run(broker, || broker.runtime().create_group(&order)) {
        Ok(handle) => Ok(Some(Arc::new(Partition::new(handle, Arc::clone(settings))))),
        Err(error) => {
            error!(topic = topic.name, partition = index, %error, "a replica cannot be created");
            Err(NotCreated)
        }
    }
}

/// Closes the partitions of topics that are being deleted, deletes their files, and says so to the node
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
        let on_thread = Arc::clone(broker);
        let groups: Vec<u64> = topic.partitions.iter().map(|p| p.group).collect();
        let removed = tokio::task::spawn_blocking(move || {
            groups
                .into_iter()
                .try_for_each(|group| remove_for_good(&on_thread, group))
        });
        match removed.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(()) => closed.push(topic.id),
            Err(error) => {
                warn!(
                    topic = topic.name,
                    error, "a topic's files cannot be deleted yet"
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
