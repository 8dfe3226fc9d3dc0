//! The `log-start` file.

use riverrun_storage::format::log_start::StartFile;
use riverrun_storage::format::sidecar::MAX_CONF_LEN;

use super::input::{Failure, Input};
use super::line::Line;
use super::report::Report;
use super::sidecar::{conf_text, start_text};

/// More than the longest such file.
pub(super) const MAX_BYTES: usize = MAX_CONF_LEN + 4096;

/// Shows where the log begins.
pub(super) fn dump(mut input: Input, report: &mut Report<'_>) -> Result<(), Failure> {
    report.title("log start", input.len())?;
    match StartFile::decode(&input.whole(MAX_BYTES)?) {
        Ok(file) => report.line(
            &Line::new("log_start")
                .detail("group", file.group)
                .detail("replica", file.replica)
                .detail("birth", start_text(&file.birth))
                .detail("start", start_text(&file.start))
                .detail("conf_index", file.conf.index)
                .detail("conf", conf_text(&file.conf.bytes)),
        )?,
        Err(what) => report.damage(Some(0), what)?,
    }
    Ok(())
}
