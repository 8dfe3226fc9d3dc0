//! `riverrun log dump`: what is in a file.

use crate::cli::{Format, LogDumpArgs};
use crate::dump::{Options, Report, dump_directory, dump_file};
use crate::failure::{Reported, Usage};
use crate::output;

/// Shows a file or a directory. Fails where something in it is damaged, when all of it was shown.
pub(crate) fn run(args: &LogDumpArgs, format: Format) -> anyhow::Result<()> {
    let path = &args.path;
    if !path.exists() {
        return Err(Usage(format!("{} does not exist", path.display())).into());
    }
    if args.from.zip(args.to).is_some_and(|(from, to)| from > to) {
        return Err(Usage("--from lies above --to".to_owned()).into());
    }
    let options = Options {
        records: args.records,
        from: args.from,
        to: args.to,
    };
    let mut out = output::stdout();
    let mut report = Report::new(&mut out, format);
    if path.is_dir() {
        dump_directory(path, &options, &mut report)?;
    } else if !dump_file(path, &options, &mut report)? {
        let what = "is not a file of a node: neither its name nor its first bytes say what it is";
        return Err(Usage(format!("{} {what}", path.display())).into());
    }
    report.finish()?;
    if report.damaged() > 0 {
        return Err(Reported.into());
    }
    Ok(())
}
