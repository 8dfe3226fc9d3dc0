//! Everything below a directory: a partition's, a node's, or a whole data directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::kind::Kind;
use super::report::Report;
use super::{Options, dump_file};

/// A data directory has partitions, and they have files.
const MAX_DEPTH: usize = 2;

/// What a directory holds, in the order of the names. Links are not followed.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() || kind.is_file() {
            entries.push((entry.path(), kind.is_dir()));
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

/// Shows the files of a directory and of those in it.
///
/// # Errors
/// Those of the output.
pub(crate) fn dump_directory(
    dir: &Path,
    options: &Options,
    report: &mut Report<'_>,
) -> io::Result<()> {
    dump_below(dir, MAX_DEPTH, options, report)
}

fn dump_below(
    dir: &Path,
    depth: usize,
    options: &Options,
    report: &mut Report<'_>,
) -> io::Result<()> {
    let entries = match list(dir) {
        Ok(entries) => entries,
        Err(error) => {
            report.begin(dir);
            return report.damage(None, &format!("it cannot be listed: {error}"));
        }
    };
    for (path, is_dir) in entries {
        if is_dir {
            if depth > 0 {
                dump_below(&path, depth - 1, options, report)?;
            }
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match Kind::of_name(&name) {
            Some(Kind::Lock) => {}
            Some(_)
                if Path::new(name.as_ref())
                    .extension()
                    .is_some_and(|end| end == "tmp" || end == "new") =>
            {
                report.begin(&path);
                report.note(None, "left by something unfinished")?;
            }
            Some(_) => {
                dump_file(&path, options, report)?;
            }
            None => {
                report.begin(&path);
                report.note(None, "not a file of a node")?;
            }
        }
    }
    Ok(())
}
