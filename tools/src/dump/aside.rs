//! The `aside` file.

use riverrun_storage::format::aside::Note;

use super::input::{Failure, Input};
use super::line::Line;
use super::report::Report;

/// More than the longest such file.
pub(super) const MAX_BYTES: usize = 4096;

/// Shows why a directory was set aside, and whose it is.
pub(super) fn dump(mut input: Input, report: &mut Report<'_>) -> Result<(), Failure> {
    report.title("aside", input.len())?;
    match Note::decode(&input.whole(MAX_BYTES)?) {
        Ok(note) => report.line(
            &Line::new("aside")
                .detail("group", note.identity.group)
                .detail("replica", note.identity.replica)
                .detail("topic_id", note.identity.topic_id)
                .detail("partition", note.identity.partition)
                .detail("reason", note.reason.text())
                .detail("incarnation", note.incarnation),
        )?,
        Err(what) => report.damage(Some(0), what)?,
    }
    Ok(())
}
