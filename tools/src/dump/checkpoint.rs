//! The controller's image.

use riverrun_replication::controller::{Controller, Image};

use super::input::{Failure, Input};
use super::line::Line;
use super::report::Report;

/// The longest image that is looked at.
pub(super) const MAX_BYTES: usize = 1 << 30;

/// Shows what the cluster consists of.
pub(super) fn dump(mut input: Input, report: &mut Report<'_>) -> Result<(), Failure> {
    report.title("controller checkpoint", input.len())?;
    match Controller::from_checkpoint(&input.whole(MAX_BYTES)?) {
        Ok(controller) => show(controller.image(), report),
        Err(bad) => Ok(report.damage(Some(0), bad.what)?),
    }
}

fn show(image: &Image, report: &mut Report<'_>) -> Result<(), Failure> {
    report.line(
        &Line::new("image")
            .detail("cluster_id", image.cluster_id)
            .detail("next_offset", image.next_offset)
            .detail("next_group", image.next_group)
            .detail("next_replica", image.next_replica)
            .detail("next_producer_id", image.next_producer_id)
            .detail("topics", image.topics.len())
            .detail("brokers", image.brokers.len()),
    )?;
    for broker in image.brokers.values() {
        report.line(
            &Line::new("broker")
                .detail("node", broker.node)
                .detail("directory_id", broker.directory)
                .detail("incarnation", broker.incarnation)
                .detail("host", broker.host.as_str())
                .detail("port", u32::from(broker.port))
                .detail("fenced", broker.fenced),
        )?;
    }
    for topic in image.topics.values() {
        let configs = topic
            .configs
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        report.line(
            &Line::new("topic")
                .detail("topic_id", topic.id)
                .detail("name", topic.name.as_str())
                .detail("partitions", topic.partitions.len())
                .detail("configs", configs.collect::<Vec<_>>().join(","))
                .detail("closing", topic.closing),
        )?;
        for (number, partition) in topic.partitions.iter().enumerate() {
            let replicas = partition
                .replicas
                .iter()
                .map(|replica| format!("{}@{}", replica.replica, replica.node));
            report.line(
                &Line::new("partition")
                    .detail("topic_id", topic.id)
                    .detail("partition", number)
                    .detail("group", partition.group)
                    .detail("replicas", replicas.collect::<Vec<_>>().join(",")),
            )?;
        }
    }
    Ok(())
}
