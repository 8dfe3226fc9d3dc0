//! The controller's image.

use riverrun_replication::controller::{Controller, Image};

use super::input::{Failure, Input};
use super::kind::CHECKPOINT_SUFFIX;
use super::line::{Line, Value};
use super::report::Report;

/// The longest image that is looked at: one of a few million replicas is shorter.
pub(super) const MAX_BYTES: usize = 256 << 20;
/// Where the next offset stands in the header.
const NEXT_OFFSET_AT: u64 = 8;

/// Shows what the cluster consists of.
pub(super) fn dump(mut input: Input, report: &mut Report<'_>) -> Result<(), Failure> {
    report.title("controller checkpoint", input.len())?;
    match Controller::from_checkpoint(&input.whole(MAX_BYTES)?) {
        Ok(controller) => {
            let image = controller.image();
            let name = input.path().file_name().unwrap_or_default();
            if let Some(named) = named_offset(&name.to_string_lossy())
                && named != image.next_offset
            {
                let what = format!("its name says {named}, it says {}", image.next_offset);
                report.damage(Some(NEXT_OFFSET_AT), &what)?;
            }
            show(image, report)
        }
        Err(bad) => Ok(report.damage(Some(0), bad.what)?),
    }
}

/// The next offset in a name such as `17-3.checkpoint`.
fn named_offset(name: &str) -> Option<i64> {
    let (offset, _term) = name.strip_suffix(CHECKPOINT_SUFFIX)?.split_once('-')?;
    offset.parse().ok()
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
            .detail("brokers", image.brokers.len())
            .detail("directories", image.directories.len()),
    )?;
    for broker in image.brokers.values() {
        report.line(
            &Line::new("broker")
                .detail("node", broker.node)
                .detail("directory_id", broker.directory)
                .detail("incarnation", broker.incarnation)
                .detail("host", broker.host.as_str())
                .detail("port", u32::from(broker.port))
                .detail("rack", broker.rack.as_str())
                .detail("peer_host", broker.peer_host.as_str())
                .detail("peer_port", u32::from(broker.peer_port))
                .detail("fenced", broker.fenced)
                .room(broker.room),
        )?;
    }
    for known in &image.quorum.replicas {
        report.line(
            &Line::new("controller")
                .detail("replica", known.at.replica)
                .detail("node", known.at.node)
                .detail("directory_id", known.at.directory)
                .detail("votes", known.votes)
                .detail(
                    "founder",
                    image.quorum.first_voters.contains(&known.at.replica),
                ),
        )?;
    }
    for (id, directory) in &image.directories {
        report.line(
            &Line::new("directory")
                .detail("directory_id", *id)
                .detail("node", directory.node)
                .detail("incarnation", directory.incarnation),
        )?;
    }
    for topic in image.topics.values() {
        report.line(
            &Line::new("topic")
                .detail("topic_id", topic.id)
                .detail("name", topic.name.as_str())
                .detail("partitions", topic.partitions.len())
                .detail("configs", Value::Map(&topic.configs))
                .detail("closing", topic.closing),
        )?;
        for (number, partition) in topic.partitions.iter().enumerate() {
            let first_voters = partition.first_voters.iter().map(|id| (*id).into());
            report.line(
                &Line::new("partition")
                    .detail("topic_id", topic.id)
                    .detail("partition", number)
                    .detail("group", partition.group)
                    .detail("first_voters", Value::List(first_voters.collect())),
            )?;
            for replica in &partition.replicas {
                report.line(
                    &Line::new("replica")
                        .detail("topic_id", topic.id)
                        .detail("partition", number)
                        .detail("replica", replica.replica)
                        .detail("node", replica.node)
                        .detail("directory_id", replica.directory),
                )?;
            }
        }
    }
    Ok(())
}
