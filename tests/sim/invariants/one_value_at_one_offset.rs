//! An offset has one value: what was acknowledged there, what is read there by anybody at any time,
//! and what is committed there are the same batch.

use super::{Checked, Violation};
use crate::mark::Mark;

/// Something claims that a batch is at an offset where `committed` lies.
///
/// # Errors
/// Where that is another batch, or other bytes of it.
pub fn claims(
    group: u64,
    who: &str,
    offset: i64,
    batch: i64,
    crc: u32,
    committed: &Mark,
) -> Checked {
    if committed.batch == batch && committed.crc == crc && committed.base_offset == offset {
        return Ok(());
    }
    Err(Violation::new(
        "one_value_at_one_offset",
        format!(
            "group {group}: {who} has batch {batch} (crc {crc:08x}) at offset {offset}, committed is \
             {committed:?}"
        ),
    ))
}
