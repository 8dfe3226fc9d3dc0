//! The records of a batch.

use riverrun_record::{BatchError, BatchView, ControlRecord, RecordIter, decode_records};
use riverrun_replication::node::CONTROLLER_GROUP;

use super::input::{Failure, MAX_PIECE_BYTES};
use super::line::{Line, Value};
use super::report::Report;
use super::{Options, command};

/// What records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Events, of which only their writers know more.
    Events,
    /// Commands of the controller's log.
    Commands,
}

impl Meaning {
    /// Those of a group.
    pub(super) fn of_group(group: u64) -> Self {
        if group == CONTROLLER_GROUP {
            Self::Commands
        } else {
            Self::Events
        }
    }
}

/// Shows the records of a batch that lies at this byte of the file.
pub(super) fn show(
    batch: &BatchView<'_>,
    position: u64,
    meaning: Meaning,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let is_commands = meaning == Meaning::Commands && !batch.is_control();
    if let Some(what) = command::fault(batch).filter(|_| is_commands) {
        report.damage(Some(position), what)?;
    }
    let area = match decode_records(batch, MAX_PIECE_BYTES) {
        Ok(area) => area,
        Err(error) => return bad(&error, position, report),
    };
    for record in RecordIter::new(&area, batch.record_count()) {
        let record = match record {
            Ok(record) => record,
            Err(error) => return bad(&error, position, report),
        };
        let offset = batch
            .base_offset()
            .saturating_add(i64::from(record.offset_delta));
        if !options.shows(offset, offset) {
            continue;
        }
        if is_commands {
            let shown = command::show(&record, offset, |line| Ok(report.line(line)?))?;
            let Err(what) = shown else { continue };
            report.damage(
                Some(position),
                &format!("in the batch that begins here, the record of offset {offset}: {what}"),
            )?;
        }
        let headers = record
            .headers
            .clone()
            .flat_map(|header| [Value::from(header.key), Value::Bytes(header.value)]);
        let mut line = Line::new("record")
            .detail("offset", offset)
            .detail(
                "timestamp",
                Value::Time(batch.record_timestamp(record.timestamp_delta)),
            )
            .detail("key", Value::Bytes(record.key))
            .detail("value", Value::Bytes(record.value))
            .detail("headers", Value::List(headers.collect()));
        if batch.is_control() {
            let control = record
                .key
                .and_then(|key| ControlRecord::decode(key, record.value.unwrap_or_default()).ok());
            line = line.detail("control_record", describe(control.as_ref()));
        }
        report.line(&line)?;
    }
    Ok(())
}

fn bad(error: &BatchError, position: u64, report: &mut Report<'_>) -> Result<(), Failure> {
    Ok(report.damage(
        Some(position),
        &format!("in the batch that begins here: {error}"),
    )?)
}

fn describe(control: Option<&ControlRecord>) -> String {
    match control {
        Some(ControlRecord::EndTxn(marker)) => {
            let end = if marker.is_commit { "commit" } else { "abort" };
            format!("{end} by coordinator epoch {}", marker.coordinator_epoch)
        }
        Some(ControlRecord::LeaderChange(change)) => format!("leader {}", change.leader_id),
        Some(ControlRecord::Other { type_id }) => format!("type {type_id}"),
        Some(_) | None => "unknown".to_owned(),
    }
}
