//! Tables for people and JSON for scripts, written to one locked and buffered standard output.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

/// Standard output, buffered.
pub(crate) type Stdout = BufWriter<StdoutLock<'static>>;

/// Takes standard output for the rest of the command.
pub(crate) fn stdout() -> Stdout {
    BufWriter::with_capacity(64 * 1024, io::stdout().lock())
}

/// Whether a person is looking.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes one JSON document, indented where a person is looking.
pub(crate) fn json(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    if is_terminal() {
        serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    } else {
        serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    }
    writeln!(out)?;
    Ok(())
}

/// Writes rows in columns, two spaces apart.
pub(crate) fn table<R>(out: &mut impl Write, header: &[&str], rows: R) -> anyhow::Result<()>
where
    R: IntoIterator<Item = Vec<String>>,
{
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_frames() {
        let mut out = Vec::new();
        let rows = [
            vec!["orders".to_owned(), "3".to_owned()],
            vec!["a".to_owned(), "12".to_owned()],
        ];
        assert!(table(&mut out, &["NAME", "PARTITIONS"], rows).is_ok());
        assert_eq!(
            String::from_utf8_lossy(&out),
            "NAME    PARTITIONS\norders  3\na       12\n"
        );
    }
}
