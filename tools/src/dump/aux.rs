//! An `.aux` file: payloads of configuration changes and commands.
//!
//! Which entry a payload belongs to stands in the sidecar beside it, and only with that the checksum
//! can be looked at.

use byteorder::{BigEndian, ByteOrder};
use riverrun_storage::EntryKind;
use riverrun_storage::format::SegmentFile;
use riverrun_storage::format::aux::{HEADER_LEN, ITEM_HEADER_LEN, decode, header};
use riverrun_storage::format::sidecar::Record;

use super::Options;
use super::input::{Failure, Input, MAX_PIECE_BYTES};
use super::line::Line;
use super::report::Report;
use super::sidecar::{Slot, Slots, kind_name, read_header};

/// The payload of an entry, or what is wrong with it.
pub(super) fn payload<'a>(
    aux: &'a mut Input,
    index: u64,
    record: &Record,
) -> Result<Result<&'a [u8], &'static str>, Failure> {
    let len = u64::from(ITEM_HEADER_LEN) + u64::from(record.len);
    if aux.left(record.position.into()) < len {
        return Ok(Err("the file ends before the payload does"));
    }
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > MAX_PIECE_BYTES {
        return Ok(Err("the payload is longer than any that is written"));
    }
    let item = aux.at(record.position.into(), len)?;
    Ok(decode(index, item).ok_or("the payload's length or checksum does not match"))
}

/// Shows the payloads.
pub(super) fn dump(
    mut input: Input,
    base_offset: Option<i64>,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    report.title("payloads of entries", input.len())?;
    if input.at(0, HEADER_LEN as usize)? != header() {
        report.damage(Some(0), "no .aux header of a known version")?;
    }
    let beside = match (base_offset, input.path().parent()) {
        (Some(base), Some(dir)) => {
            Input::open_beside(&SegmentFile::Raft.path(dir, base)).unwrap_or(None)
        }
        _ => None,
    };
    if let Some(mut raft) = beside
        && let Ok((sidecar, len)) = read_header(&mut raft)?
    {
        let first = sidecar.start.prev_index.saturating_add(1);
        return by_entries(input, Slots::new(raft, len, first), options, report);
    }
    report.note(
        None,
        "no readable sidecar beside it: checksums cannot be looked at",
    )?;
    let mut position = u64::from(HEADER_LEN);
    while input.left(position) > 0 {
        let head = input.at(position, ITEM_HEADER_LEN as usize)?;
        let len = head.first_chunk::<4>().map(|len| BigEndian::read_u32(len));
        let end = len.map(|len| position + u64::from(ITEM_HEADER_LEN) + u64::from(len));
        let (Some(len), Some(end)) = (len, end.filter(|end| *end <= input.len())) else {
            report.damage(Some(position), "the file ends within a payload")?;
            return Ok(());
        };
        let item = input.at(position, ITEM_HEADER_LEN as usize + len as usize)?;
        let payload = item.get(ITEM_HEADER_LEN as usize..).unwrap_or_default();
        report.line(
            &Line::new("payload")
                .column("position", 10, position)
                .column("size", 8, len)
                .detail("payload", payload),
        )?;
        position = end;
    }
    Ok(())
}

fn by_entries(
    mut input: Input,
    mut slots: Slots,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    while let Some((index, _, slot)) = slots.next()? {
        let Slot::Good(record) = slot else { continue };
        if !matches!(record.kind, EntryKind::Conf | EntryKind::Command) {
            continue;
        }
        match payload(&mut input, index, &record)? {
            Ok(payload) if options.shows_index(index) => report.line(
                &Line::new("payload")
                    .column("position", 10, record.position)
                    .column("size", 8, record.len)
                    .column("index", 10, index)
                    .column("kind", 7, kind_name(record.kind))
                    .detail("payload", payload),
            )?,
            Ok(_) => {}
            Err(what) => {
                let what = format!("entry {index}: {what}");
                report.damage(Some(record.position.into()), &what)?;
            }
        }
    }
    Ok(())
}
