//! `riverrun log verify`: whether everything in a directory is as it was written.

use anyhow::Context;

use crate::cli::{Format, LogVerifyArgs};
use crate::dump::Report;
use crate::dump::verify::verify;
use crate::failure::{Reported, Usage};
use crate::output;

/// Checks a directory. Fails where something in it is damaged, when all of it was looked at.
pub(crate) fn run(args: &LogVerifyArgs, format: Format) -> anyhow::Result<()> {
    let dir = &args.dir;
    if !dir.is_dir() {
        return Err(Usage(format!("{} is not a directory", dir.display())).into());
    }
    let mut out = output::stdout();
    let mut report = Report::new(&mut out, format);
    let is_ours = verify(dir, &mut report).with_context(|| dir.display().to_string())?;
    if !is_ours {
        let what = "is neither a data directory nor that of a partition";
        return Err(Usage(format!("{} {what}", dir.display())).into());
    }
    report.finish()?;
    if report.damaged() > 0 {
        return Err(Reported.into());
    }
    Ok(())
}
