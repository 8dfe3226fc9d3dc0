//! Kafka's producer snapshot.

use riverrun_storage::producer_state::{SnapshotEntry, read_snapshot, snapshot_fault};
use riverrun_storage::{BadSnapshot, ProducerState};

use super::input::{Failure, Input};
use super::line::{Line, Value};
use super::report::Report;

/// The longest snapshot that is looked at: more than five million producers.
pub(super) const MAX_SNAPSHOT_BYTES: usize = 256 << 20;

/// What is wrong with a snapshot, if anything is, and where.
pub(super) fn fault(bytes: &[u8]) -> Option<(u64, &'static str)> {
    let BadSnapshot(_) = ProducerState::from_snapshot(bytes).err()?;
    Some(snapshot_fault(bytes))
}

/// Shows the producers.
pub(super) fn dump(
    mut input: Input,
    offset: Option<i64>,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    report.title("producer snapshot", input.len())?;
    let bytes = input.whole(MAX_SNAPSHOT_BYTES)?;
    if let Some((head, entries)) = read_snapshot(&bytes) {
        report.line(
            &Line::new("snapshot")
                .detail("offset", Value::OrNone(offset.unwrap_or(-1)))
                .detail("version", i32::from(head.version))
                .detail("crc", Value::Checksum(head.crc))
                .detail("crc_ok", head.crc_is_valid)
                .detail("producers", head.count),
        )?;
        for entry in entries {
            report.line(&line(&entry))?;
        }
    }
    if let Some((position, what)) = fault(&bytes) {
        report.damage(Some(position), what)?;
    }
    Ok(())
}

fn line(entry: &SnapshotEntry) -> Line<'static> {
    Line::new("producer")
        .column("producer_id", 11, entry.producer_id)
        .column("producer_epoch", 5, i32::from(entry.epoch))
        .column(
            "last_sequence",
            10,
            Value::OrNone(entry.last_sequence.into()),
        )
        .column("last_offset", 11, Value::OrNone(entry.last_offset))
        .column("offset_delta", 6, entry.offset_delta)
        .column("timestamp", 24, Value::Time(entry.timestamp))
        .detail(
            "coordinator_epoch",
            Value::OrNone(entry.coordinator_epoch.into()),
        )
        .detail(
            "current_txn_first_offset",
            Value::OrNone(entry.current_txn_first_offset),
        )
}
