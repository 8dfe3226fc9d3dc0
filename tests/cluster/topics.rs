//! Topics that are deleted while a node is away.

use super::events::Kept;
use super::trio::{Trio, until};
use super::view::{metadata, view};
use crate::fsync::requests::Connection;
use crate::node::partition_directories;
use anyhow::{Context, Result, ensure};
use riverrun_wire::api::DeleteTopicsRequest;
use riverrun_wire::api::delete_topics::DeleteTopicState;
use std::path::Path;
use uuid::Uuid;

const DELETE_TOPICS_VERSION: i16 = 6;
const PARTITIONS: usize = 3;

/// A topic is deleted with one of three nodes down, and its namesake is another topic, on the node
/// that returns too (L8).
pub(super) fn a_deleted_topic_stays_deleted() -> Result<()> {
    let mut trio = Trio::start()?;
    let result = deleted(&mut trio);
    trio.explain(result)
}

fn deleted(trio: &mut Trio) -> Result<()> {
    for away in trio.ids() {
        once(trio, away).with_context(|| format!("with node {away} down"))?;
    }
    Ok(())
}

fn once(trio: &mut Trio, away: i32) -> Result<()> {
    let mut old = Kept::create(&trio.brokers(), PARTITIONS)?;
    old.add(&trio.brokers(), 300)?;
    trio.in_sync(&old.topic, 3)?;
    let asked = trio.address(if away == 1 { 2 } else { 1 })?;
    let old_id = id_of(&asked, &old.topic)?;
    let data = trio.node(away)?.data();
    ensure!(has_replicas(&data, old_id)? == PARTITIONS);

    trio.kill(away)?;
    delete(&asked, &old.topic)?;
    let mut new = recreated(trio, &old.topic)?;
    new.add(&trio.brokers(), 30)?;
    new.check(&trio.brokers())?;
    ensure!(id_of(&asked, &old.topic)? != old_id, "the same topic id");

    trio.spawn(away)?;
    trio.wait_ready()?;
    until(
        "the old replicas are deleted on the node that returned",
        || Ok((has_replicas(&data, old_id)? == 0).then_some(())),
    )?;
    until("the node that returned shows the new topic", || {
        let shown = metadata(&trio.address(away)?, &[&new.topic]);
        let shown = shown
            .ok()
            .and_then(|answer| answer.topics.into_iter().next());
        Ok(shown.filter(|t| t.error_code == 0 && t.topic_id != old_id))
    })?;
    // Its replicas of the new topic, where it was given any, hold the new events alone.
    trio.agree(&new.topic)?;
    let replicas = view(&asked, &new.topic)?.replicas(0).len();
    trio.in_sync(&new.topic, replicas)?;
    new.add(&trio.brokers(), 30)?;
    new.check(&trio.brokers())
}

fn id_of(broker: &str, topic: &str) -> Result<Uuid> {
    let answer = metadata(broker, &[topic])?;
    let topic = answer.topics.first().context("no topic")?;
    ensure!(topic.error_code == 0, "error {}", topic.error_code);
    Ok(topic.topic_id)
}

/// How many replicas of a topic lie in a data directory.
fn has_replicas(data: &Path, topic: Uuid) -> Result<usize> {
    let prefix = format!("{}-", topic.simple());
    let directories = partition_directories(data)?;
    let of_topic = directories.iter().filter_map(|path| path.file_name());
    let of_topic = of_topic.filter(|name| name.to_string_lossy().starts_with(&prefix));
    Ok(of_topic.count())
}

/// Answered at once or when group 0 is led anew, where the node that is away led it.
fn delete(broker: &str, topic: &str) -> Result<()> {
    let request = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some(topic.to_owned()),
            ..DeleteTopicState::default()
        }],
        timeout_ms: 20_000,
        ..DeleteTopicsRequest::default()
    };
    let answer = Connection::open(broker)?.call(&request, DELETE_TOPICS_VERSION)?;
    let row = answer.responses.first().context("no topic")?;
    ensure!(
        row.error_code == 0,
        "deleting {topic}: error {}",
        row.error_code
    );
    Ok(())
}

/// The namesake, as soon as the nodes that are left have forgotten the old one.
fn recreated(trio: &Trio, topic: &str) -> Result<Kept> {
    crate::kafka::create_topic(&trio.brokers(), topic, PARTITIONS, &[])
        .context("the name of a topic whose deletion was answered")?;
    let asked = trio.started();
    // Clients that knew the old one ask again: nothing of it may be there.
    for id in asked {
        until(&format!("node {id} shows the namesake"), || {
            Ok(view(&trio.address(id)?, topic).ok())
        })?;
    }
    Ok(Kept::empty(topic.to_owned(), PARTITIONS))
}
