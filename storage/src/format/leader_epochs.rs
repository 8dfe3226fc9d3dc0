//! Kafka's `leader-epoch-checkpoint`: which leader epoch begins at which offset.
//!
//! Text, a line each: the version (0), the number of entries, then `epoch offset` for each. It is
//! written for Kafka's tools; the log itself knows its terms from the sidecars.

use std::fmt::Write;

/// The file's name.
pub const FILE_NAME: &str = "leader-epoch-checkpoint";

/// The text of the file.
#[must_use]
pub fn encode(epochs: &[(i32, i64)]) -> String {
    let mut out = format!("0\n{}\n", epochs.len());
    for (epoch, offset) in epochs {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{epoch} {offset}");
    }
    out
}

/// Reads the file; none where it is not one.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<(i32, i64)>> {
    let mut lines = text.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let entries = lines
        .map(|line| {
            let (epoch, offset) = line.split_once(' ')?;
            Some((epoch.parse().ok()?, offset.parse().ok()?))
        })
        .collect::<Option<Vec<_>>>()?;
    (entries.len() == count).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_kafkas_and_leads_back() {
        let epochs = [(1, 0), (7, 123)];
        assert_eq!(encode(&epochs), "0\n2\n1 0\n7 123\n");
        assert_eq!(decode(&encode(&epochs)), Some(epochs.to_vec()));
        assert_eq!(decode("0\n1\n"), None);
        assert_eq!(decode("1\n0\n"), None);
    }
}
