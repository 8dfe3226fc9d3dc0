//! The files of a partition: their names and their bytes.

pub mod aside;
pub mod aux;
pub mod bad_places;
pub mod index;
pub mod leader_epochs;
pub mod log_start;
pub mod partition_metadata;
pub mod sidecar;

use std::path::{Path, PathBuf};

/// The files that a segment consists of, named by its base offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentFile {
    /// Record batches back to back.
    Log,
    /// One record for each entry.
    Raft,
    /// Payloads of configuration changes and commands.
    Aux,
    /// Kafka's offset index.
    Index,
    /// Kafka's time index.
    TimeIndex,
    /// Kafka's producer snapshot.
    Snapshot,
}

impl SegmentFile {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Log,
        Self::Raft,
        Self::Aux,
        Self::Index,
        Self::TimeIndex,
        Self::Snapshot,
    ];

    /// What the name ends with.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Log => ".log",
            Self::Raft => ".raft",
            Self::Aux => ".aux",
            Self::Index => ".index",
            Self::TimeIndex => ".timeindex",
            Self::Snapshot => ".snapshot",
        }
    }

    /// The path of the file of the segment with this base offset.
    #[must_use]
    pub fn path(self, dir: &Path, base_offset: i64) -> PathBuf {
        dir.join(format!("{base_offset:020}{}", self.suffix()))
    }

    /// Reads a name back.
    #[must_use]
    pub fn parse(name: &str) -> Option<(i64, Self)> {
        Self::ALL.into_iter().find_map(|file| {
            let digits = name.strip_suffix(file.suffix())?;
            let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
            let base = if plain {
                digits.parse().ok()?
            } else {
                return None;
            };
            Some((base, file))
        })
    }
}

/// What a file that is written aside and renamed is called before.
pub const TMP_SUFFIX: &str = ".tmp";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas_and_lead_back() {
        let path = SegmentFile::TimeIndex.path(Path::new("d"), 1234);
        assert_eq!(path, Path::new("d/00000000000000001234.timeindex"));
        assert_eq!(
            SegmentFile::parse("00000000000000001234.timeindex"),
            Some((1234, SegmentFile::TimeIndex))
        );
        for name in [
            "1234.log",
            "0000000000000000123x.log",
            "00000000000000001234.txt",
            "",
            ".log",
        ] {
            assert_eq!(SegmentFile::parse(name), None, "{name}");
        }
        assert_eq!(
            SegmentFile::parse("99999999999999999999.log"),
            None,
            "beyond an offset"
        );
    }
}
