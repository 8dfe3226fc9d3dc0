//! A side file: the WAL's entries of a group whose log could not be synced.

use std::io;

use riverrun_storage::StdDisk;
use riverrun_storage::node::read_side;

use super::Options;
use super::input::{Failure, Input};
use super::line::Line;
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
    match read_side(&StdDisk, input.path()) {
        Ok(entries) => {
            for entry in &entries {
                report.line(&entry_details(Line::new("side_entry"), entry))?;
                if options.records {
                    show_records(entry, 0, options, report)?;
                }
            }
            Ok(())
        }
        Err(error) => Ok(report.node_error(&error)?),
    }
}
