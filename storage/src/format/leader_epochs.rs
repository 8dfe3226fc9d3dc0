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
    let (entries, bad) = read(text);
    bad.is_none().then_some(entries)
}

/// The byte at which a file can no longer be read, and what is wrong there.
pub type Damage = (usize, &'static str);

/// What can be read of the file, and if that is not all, the byte at which the rest begins and what
/// is wrong with it.
#[must_use]
pub fn read(text: &str) -> (Vec<(i32, i64)>, Option<Damage>) {
    let mut entries = Vec::new();
    let mut position = 0;
    let mut count = None;
    for (number, whole) in text.split_inclusive('\n').enumerate() {
        let line = whole.trim_end_matches(['\n', '\r']);
        match number {
            0 if line == "0" => {}
            0 => return (entries, Some((position, "the version is not 0"))),
            1 => match line.parse::<usize>() {
                Ok(stated) => count = Some(stated),
                Err(_) => {
                    return (
                        entries,
                        Some((position, "the number of entries is no number")),
                    );
                }
            },
            _ => match entry(line) {
                Some(entry) => entries.push(entry),
                None => {
                    return (
                        entries,
                        Some((position, "a line is not an epoch and an offset")),
                    );
                }
            },
        }
        position += whole.len();
    }
    let bad = match count {
        None => Some("the file is cut short"),
        Some(count) if count != entries.len() => Some("there are not as many entries as it says"),
        Some(_) => None,
    };
    (entries, bad.map(|what| (position, what)))
}

fn entry(line: &str) -> Option<(i32, i64)> {
    let (epoch, offset) = line.split_once(' ')?;
    Some((epoch.parse().ok()?, offset.parse().ok()?))
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
        let (entries, bad) = read("0\n2\n1 0\nx 7\n");
        assert_eq!(entries, [(1, 0)]);
        assert_eq!(bad.map(|(position, _)| position), Some(8));
    }
}
