//! Kafka's `partition.metadata`.

use riverrun_storage::format::partition_metadata::decode;

use super::input::{Failure, Input};
use super::leader_epochs::MAX_TEXT_BYTES;
use super::line::Line;
use super::report::Report;

/// Shows the topic id.
pub(super) fn dump(mut input: Input, report: &mut Report<'_>) -> Result<(), Failure> {
    report.title("partition metadata", input.len())?;
    let bytes = input.whole(MAX_TEXT_BYTES)?;
    let id = std::str::from_utf8(&bytes).ok().and_then(decode);
    match id {
        Some(id) => report.line(&Line::new("partition_metadata").detail("topic_id", id))?,
        None => report.damage(Some(0), "it does not name a topic id")?,
    }
    Ok(())
}
