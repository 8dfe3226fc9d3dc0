//! Makes this node what the controller's image says: creates the replicas that it orders, closes
//! and deletes those of topics that are being deleted, and shows the rest to requests.

use std::sync::Arc;
use std::time::Duration;

use riverrun_replication::controller::{PartitionImage, TopicImage};
use riverrun_replication::node::GroupOrder;
use riverrun_storage::LogIdentity;
use tokio::sync::watch;
use tracing::{error, warn};

use crate::broker::Broker;
use crate::config::TopicSettings;
use crate::net::burst;
use crate::partition::Partition;
use crate::topics::{Topic, TopicPartition};

/// Pause before what could not be done is tried again.
const RETRY: Duration = Duration::from_secs(1);

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
    for topic in open {
        let on_thread = Arc::clone(broker);
        let shown = tokio::task::spawn_blocking(move || show(&on_thread, &topic));
        done &= shown.await.unwrap_or_else(|error| {
            error!(%error, "a topic cannot be made ready");
            false
        });
    }
    broker.catalog().show(offset);
    for topic in closing {
        done &= close(broker, topic).await;
    }
    done
}

/// Whether requests see a topic as the image has it.
fn is_shown(broker: &Broker, image: &TopicImage) -> bool {
    broker.topics().with_id(&image.id).is_some_and(|topic| {
        topic.given == image.configs
            && topic.partitions.len() == image.partitions.len()
            && topic.partitions.iter().all(|partition| !partition.missing)
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
            TopicPartition {
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
    if let Some(known) = broker.topics().of_group(image.group) {
        return Ok(Some(known));
    }
    if let Some(handle) = broker.runtime().handle(image.group) {
        return Ok(Some(Arc::new(Partition::new(handle, Arc::clone(settings)))));
    }
    // A replica is bound to a node and a directory: any other one was lost (R3).
    let node = broker.runtime().node();
    let mine = image.replicas.iter().find(|replica| {
        replica.node == broker.config().node_id && replica.directory == node.directory_id()
    });
    let Some(mine) = mine else { return Ok(None) };
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
        voters: image
            .replicas
            .iter()
            .map(|replica| replica.replica)
            .collect(),
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

/// Closes the partitions of a topic that is being deleted, deletes their files, and then has the
/// topic forgotten (L8); false where that has to be tried again.
async fn close(broker: &Arc<Broker>, image: TopicImage) -> bool {
    let taken = broker.topics().take(&image.id);
    if let Some(topic) = &taken {
        burst::run(broker, || {
            for partition in topic.partitions.iter().filter_map(|p| p.local.as_ref()) {
                broker.look_at_waiters(partition);
            }
        });
    }
    let on_thread = Arc::clone(broker);
    let groups: Vec<u64> = image
        .partitions
        .iter()
        .map(|partition| partition.group)
        .collect();
    let removed = tokio::task::spawn_blocking(move || {
        for group in groups {
            burst::run(&on_thread, || on_thread.runtime().remove_group(group))
                .map_err(|error| error.to_string())?;
        }
        Ok::<(), String>(())
    });
    if let Err(error) = removed.await.unwrap_or_else(|error| Err(error.to_string())) {
        warn!(
            topic = image.name,
            error, "a topic's files cannot be deleted yet"
        );
        return false;
    }
    let forgotten = broker
        .catalog()
        .change_one(broker, |controller| controller.plan_remove_topic(&image.id))
        .await;
    if let Err(error) = &forgotten {
        warn!(topic = image.name, %error, "a deleted topic is not forgotten yet");
    }
    forgotten.is_ok()
}
