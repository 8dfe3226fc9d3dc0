//! The `bad-places` file.

use riverrun_storage::format::bad_places::{BadPlaces, MOST_PLACES};

use super::input::{Failure, Input};
use super::line::Line;
use super::report::Report;

/// More than the longest such file.
const MAX_BYTES: usize = MOST_PLACES * 24 + 4096;

/// Shows which entries were found to be bad at rest.
pub(super) fn dump(mut input: Input, report: &mut Report<'_>) -> Result<(), Failure> {
    report.title("bad places", input.len())?;
    match BadPlaces::decode(&input.whole(MAX_BYTES)?) {
        Ok(file) => {
            for place in &file.places {
                report.line(
                    &Line::new("bad_place")
                        .detail("group", file.group)
                        .detail("replica", file.replica)
                        .detail("index", place.index)
                        .detail("first_offset", place.first_offset)
                        .detail("next_offset", place.next_offset),
                )?;
            }
        }
        Err(what) => report.damage(Some(0), what)?,
    }
    Ok(())
}
