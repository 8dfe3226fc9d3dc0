//! A `.log`: its batches.

use riverrun_record::{BatchView, TimestampType};

use super::batches::{Batches, Order, Piece};
use super::input::{Failure, Input};
use super::line::{Line, Value};
use super::records::{self, Meaning};
use super::report::Report;
use super::{Options, command};

/// Shows a segment.
pub(super) fn dump(
    input: Input,
    base_offset: Option<i64>,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    report.title("record batches", input.len())?;
    let end = input.len();
    let meaning = if options.records && command::is_controllers(&input, base_offset)? {
        Meaning::Commands
    } else {
        Meaning::Events
    };
    let mut batches = Batches::new(input, base_offset.unwrap_or(0));
    let mut order = Order::new(base_offset);
    let (mut count, mut record_count, mut next_offset) = (0_u64, 0_u64, base_offset);
    while let Some(piece) = batches.next()? {
        match piece {
            Piece::Gap { from, to, what } => {
                order.lost();
                if to == end && batches.input().has_changed() {
                    report.note(Some(from), "a batch is being written here")?;
                } else {
                    let what = format!("no batch in {} bytes: {what}", to - from);
                    report.damage(Some(from), &what)?;
                }
            }
            Piece::Batch {
                position,
                batch,
                fault,
            } => {
                count += 1;
                record_count += u64::try_from(batch.record_count()).unwrap_or(0);
                next_offset = Some(batch.next_offset());
                if options.shows(batch.base_offset(), batch.last_offset()) {
                    report.line(&line(position, &batch, fault.is_none()))?;
                    if options.records && fault.is_none() {
                        records::show(&batch, position, meaning, options, report)?;
                    }
                }
                for what in order.take(&batch) {
                    report.damage(Some(position), &what)?;
                }
                if let Some(fault) = fault {
                    report.damage(Some(position), &fault.to_string())?;
                }
            }
        }
    }
    let total = Line::new("total")
        .detail("batches", count)
        .detail("records", record_count)
        .detail("next_offset", next_offset.unwrap_or(0));
    Ok(report.line(&total)?)
}

/// A batch's header.
pub(super) fn line<'a>(position: u64, batch: &BatchView<'a>, crc_ok: bool) -> Line<'a> {
    let compression = match batch.compression() {
        Ok(compression) => compression.name(),
        Err(_) => "unknown",
    };
    Line::new("batch")
        .column("position", 10, position)
        .column("base_offset", 11, batch.base_offset())
        .column("last_offset", 11, batch.last_offset())
        .column("records", 7, batch.record_count())
        .column("leader_epoch", 5, batch.leader_epoch())
        .column("size", 8, batch.total_len())
        .column("compression", 6, compression)
        .column("max_timestamp", 24, Value::Time(batch.max_timestamp()))
        .column("crc", 8, Value::Checksum(batch.crc()))
        .column("crc_ok", 3, crc_ok)
        .detail("base_timestamp", Value::Time(batch.base_timestamp()))
        .detail(
            "log_append_time",
            batch.timestamp_type() == TimestampType::LogAppendTime,
        )
        .detail("producer_id", Value::OrNone(batch.producer_id()))
        .detail(
            "producer_epoch",
            Value::OrNone(batch.producer_epoch().into()),
        )
        .detail("base_sequence", Value::OrNone(batch.base_sequence().into()))
        .detail("last_sequence", Value::OrNone(batch.last_sequence().into()))
        .detail("transactional", batch.is_transactional())
        .detail("control", batch.is_control())
        .detail("delete_horizon", batch.has_delete_horizon())
}
