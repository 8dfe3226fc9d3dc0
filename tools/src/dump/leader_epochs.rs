//! Kafka's `leader-epoch-checkpoint`.

use riverrun_storage::format::leader_epochs::read;

use super::Options;
use super::input::{Failure, Input};
use super::line::Line;
use super::report::Report;

/// The longest such file that is looked at.
pub(super) const MAX_TEXT_BYTES: usize = 16 << 20;

/// Shows the epochs.
pub(super) fn dump(
    mut input: Input,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    report.title("leader epochs", input.len())?;
    let bytes = input.whole(MAX_TEXT_BYTES)?;
    let text = String::from_utf8_lossy(&bytes);
    let (entries, bad) = read(&text);
    let mut before: Option<(i32, i64)> = None;
    for (epoch, offset) in entries {
        if options.shows(offset, i64::MAX) {
            report.line(&Line::new("epoch").column("epoch", 8, epoch).column(
                "start_offset",
                11,
                offset,
            ))?;
        }
        if before.is_some_and(|(e, o)| epoch <= e || offset < o) {
            report.damage(
                None,
                &format!("epoch {epoch} is not above the one before it"),
            )?;
        }
        before = Some((epoch, offset));
    }
    if let Some((position, what)) = bad {
        report.damage(Some(position as u64), what)?;
    }
    Ok(())
}
