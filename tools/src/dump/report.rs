//! What is printed, and how much of it is bad news.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use riverrun_storage::node::NodeError;

use super::input::Failure;
use super::line::{InFile, Line, Value};
use crate::cli::Format;

/// The output.
pub(crate) struct Report<'a> {
    out: &'a mut dyn Write,
    format: Format,
    /// The file that lines are about.
    file: String,
    /// Kinds of lines of this file whose columns have a heading.
    headed: BTreeSet<&'static str>,
    damaged: u64,
}

impl std::fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report")
            .field("damaged", &self.damaged)
            .finish_non_exhaustive()
    }
}

impl<'a> Report<'a> {
    pub(crate) fn new(out: &'a mut dyn Write, format: Format) -> Self {
        Self {
            out,
            format,
            file: String::new(),
            headed: BTreeSet::new(),
            damaged: 0,
        }
    }

    /// How many damaged places were reported.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// From here on it is about this file.
    pub(super) fn begin(&mut self, path: &Path) {
        self.file = path.display().to_string();
        self.headed.clear();
    }

    /// The same for a part of one directory, whose lines have one heading.
    pub(super) fn begin_part(&mut self, path: &Path) {
        self.file = path.display().to_string();
    }

    /// Says what the file is.
    pub(super) fn title(&mut self, kind: &str, len: u64) -> io::Result<()> {
        match self.format {
            Format::Table => writeln!(self.out, "{}: {kind}, {len} bytes", self.file),
            Format::Json => {
                let line = Line::new("file")
                    .detail("kind", kind.to_owned())
                    .detail("size", len);
                self.line(&line)
            }
        }
    }

    /// Prints a line.
    pub(super) fn line(&mut self, line: &Line<'_>) -> io::Result<()> {
        match self.format {
            Format::Json => {
                serde_json::to_writer(&mut *self.out, &InFile(&self.file, line))?;
                writeln!(self.out)
            }
            Format::Table => {
                if line.has_columns() && self.headed.insert(line.kind()) {
                    writeln!(self.out, "{}", line.heading())?;
                }
                writeln!(self.out, "{}", line.text())
            }
        }
    }

    /// Names a damaged place of the file.
    pub(super) fn damage(&mut self, position: Option<u64>, what: &str) -> io::Result<()> {
        self.damaged += 1;
        self.place("damage", position, what)
    }

    /// Names a place of the file that the next start makes anew.
    pub(super) fn rebuilt(&mut self, position: Option<u64>, what: &str) -> io::Result<()> {
        let what = format!("{what}; nothing is lost, and the next start makes it anew");
        self.place("rebuild", position, &what)
    }

    /// Says something about the file that is not damage.
    pub(super) fn note(&mut self, position: Option<u64>, what: &str) -> io::Result<()> {
        self.place("note", position, what)
    }

    fn place(&mut self, kind: &'static str, position: Option<u64>, what: &str) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let mut line = Line::new(kind);
                if let Some(position) = position {
                    line = line.detail("position", position);
                }
                self.line(&line.detail("what", Value::Text(what.into())))
            }
            Format::Table => {
                let kind = if kind == "damage" { "DAMAGE" } else { kind };
                match position {
                    Some(position) => {
                        writeln!(self.out, "{kind}: {}: byte {position}: {what}", self.file)
                    }
                    None => writeln!(self.out, "{kind}: {}: {what}", self.file),
                }
            }
        }
    }

    /// Reports why reading ended, unless it is that nobody takes the output.
    pub(super) fn failed(&mut self, failure: Failure) -> io::Result<()> {
        match failure {
            Failure::Output(error) => Err(error),
            Failure::Read { position, source } => {
                self.damage(Some(position), &format!("it cannot be read: {source}"))
            }
        }
    }

    /// Reports what is wrong with a file of the node store.
    pub(super) fn node_error(&mut self, error: &NodeError) -> io::Result<()> {
        match error {
            NodeError::Damaged {
                path,
                position,
                what,
            } => {
                let before = std::mem::replace(&mut self.file, path.display().to_string());
                self.damage(Some(*position), what)?;
                self.file = before;
                Ok(())
            }
            other => self.damage(None, &other.to_string()),
        }
    }

    /// Ends the output.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if self.format == Format::Table && self.damaged > 0 {
            let places = if self.damaged == 1 { "place" } else { "places" };
            writeln!(self.out, "{} damaged {places}", self.damaged)?;
        }
        self.out.flush()
    }
}
