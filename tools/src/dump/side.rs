//! A side file: the WAL's entries of a group whose log could not be synced.

use std::io;

use riverrun_storage::StdDisk;
use riverrun_storage::node::{parse_side_name, read_side};

use super::Options;
use super::input::{Failure, Input};
use super::line::Line;
use super::records::Meaning;
use super::report::Report;
use super::wal::{entry_details, show_records};

/// The longest side file that is read: it holds no more than a WAL does.
pub(super) const MAX_SIDE_BYTES: u64 = 4 << 30;

/// Shows the entries.
pub(super) fn dump(
    input: Input,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    report.title("entries of a fenced group", input.len())?;
    if input.len() > MAX_SIDE_BYTES {
        let source = io::Error::from(io::ErrorKind::FileTooLarge);
        return Err(Failure::Read {
            position: 0,
            source,
        });
    }
    let name = input.path().file_name().unwrap_or_default();
    let meaning = parse_side_name(&name.to_string_lossy())
        .map_or(Meaning::Events, |(group, _)| Meaning::of_group(group));
    match read_side(&StdDisk, input.path()) {
        Ok(entries) => {
            for entry in &entries {
                report.line(&entry_details(Line::new("side_entry"), entry))?;
                if options.records {
                    show_records(entry, 0, meaning, options, report)?;
                }
            }
            Ok(())
        }
        Err(error) => Ok(report.node_error(&error)?),
    }
}
