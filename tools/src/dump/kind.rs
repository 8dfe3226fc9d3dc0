//! Which file is what.

use std::path::Path;

use riverrun_record::{BatchView, layout};
use riverrun_replication::controller::CHECKPOINT_MAGIC;
use riverrun_replication::founding::{
    FILE_NAME as CLUSTER_RECORD_FILE, MAGIC as CLUSTER_RECORD_MAGIC,
};
use riverrun_storage::format::{
    SegmentFile, aside, aux, bad_places, leader_epochs, log_start, partition_metadata, sidecar,
};
use riverrun_storage::node::{
    IDENTITY_FILE, LOCK_FILE, SIDE_MAGIC, WAL_FILE, identity, parse_side_name, wal,
};

use super::input::{Failure, Input};

/// What a file is. The base offset of a segment's file is in its name, if that is the one it was
/// given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Segment(Option<i64>),
    Sidecar(Option<i64>),
    Aux(Option<i64>),
    OffsetIndex(Option<i64>),
    TimeIndex(Option<i64>),
    Snapshot(Option<i64>),
    LeaderEpochs,
    PartitionMetadata,
    LogStart,
    BadPlaces,
    Aside,
    Wal,
    Identity,
    ClusterRecord,
    Side,
    Checkpoint,
    Lock,
}

/// Names of files that were written aside and not yet renamed end so.
const ASIDE: [&str; 2] = [".tmp", ".new"];

/// What the controller's images are called.
pub(super) const CHECKPOINT_SUFFIX: &str = ".checkpoint";

impl Kind {
    /// By name, and where that says nothing by the first bytes.
    pub(super) fn of(path: &Path, input: &mut Input) -> Result<Option<Self>, Failure> {
        let name = path.file_name().map(|name| name.to_string_lossy());
        if let Some(kind) = name.and_then(|name| Self::of_name(&name)) {
            return Ok(Some(kind));
        }
        let head = usize::try_from(input.len())
            .unwrap_or(usize::MAX)
            .min(layout::HEADER_LEN);
        Ok(Self::of_head(input.at(0, head)?))
    }

    /// By name alone.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let name = ASIDE
            .iter()
            .find_map(|aside| name.strip_suffix(aside))
            .unwrap_or(name);
        if let Some((base, file)) = SegmentFile::parse(name) {
            return Some(Self::of_segment_file(file, Some(base)));
        }
        match name {
            leader_epochs::FILE_NAME => return Some(Self::LeaderEpochs),
            partition_metadata::FILE_NAME => return Some(Self::PartitionMetadata),
            log_start::FILE_NAME => return Some(Self::LogStart),
            bad_places::FILE_NAME | bad_places::DAMAGED_NAME => return Some(Self::BadPlaces),
            aside::FILE_NAME => return Some(Self::Aside),
            WAL_FILE => return Some(Self::Wal),
            IDENTITY_FILE => return Some(Self::Identity),
            CLUSTER_RECORD_FILE => return Some(Self::ClusterRecord),
            LOCK_FILE => return Some(Self::Lock),
            _ => {}
        }
        if parse_side_name(name).is_some() {
            return Some(Self::Side);
        }
        if name.ends_with(CHECKPOINT_SUFFIX) {
            return Some(Self::Checkpoint);
        }
        SegmentFile::ALL
            .into_iter()
            .find(|file| name.ends_with(file.suffix()))
            .map(|file| Self::of_segment_file(file, None))
    }

    fn of_segment_file(file: SegmentFile, base: Option<i64>) -> Self {
        match file {
            SegmentFile::Log => Self::Segment(base),
            SegmentFile::Raft => Self::Sidecar(base),
            SegmentFile::Aux => Self::Aux(base),
            SegmentFile::Index => Self::OffsetIndex(base),
            SegmentFile::TimeIndex => Self::TimeIndex(base),
            SegmentFile::Snapshot => Self::Snapshot(base),
        }
    }

    fn of_head(head: &[u8]) -> Option<Self> {
        let magics: [(&[u8], Self); 10] = [
            (&aside::MAGIC, Self::Aside),
            (&sidecar::MAGIC, Self::Sidecar(None)),
            (&aux::MAGIC, Self::Aux(None)),
            (&log_start::MAGIC, Self::LogStart),
            (&bad_places::MAGIC, Self::BadPlaces),
            (wal::MAGIC, Self::Wal),
            (identity::MAGIC, Self::Identity),
            (CLUSTER_RECORD_MAGIC, Self::ClusterRecord),
            (SIDE_MAGIC, Self::Side),
            (&CHECKPOINT_MAGIC, Self::Checkpoint),
        ];
        let known = magics
            .into_iter()
            .find(|(magic, _)| head.starts_with(magic));
        let batch = || {
            use riverrun_record::BatchError::Incomplete;
            let is_one = head.len() == layout::HEADER_LEN
                && matches!(BatchView::parse(head), Ok(_) | Err(Incomplete { .. }));
            is_one.then_some(Self::Segment(None))
        };
        known.map(|(_, kind)| kind).or_else(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        for (name, kind) in [
            ("00000000000000000007.log", Some(Kind::Segment(Some(7)))),
            (
                "00000000000000000007.timeindex",
                Some(Kind::TimeIndex(Some(7))),
            ),
            (
                "00000000000000000007.snapshot.tmp",
                Some(Kind::Snapshot(Some(7))),
            ),
            ("copy.log", Some(Kind::Segment(None))),
            ("leader-epoch-checkpoint", Some(Kind::LeaderEpochs)),
            ("17-3.checkpoint", Some(Kind::Checkpoint)),
            ("fenced-3-4", Some(Kind::Side)),
            ("wal", Some(Kind::Wal)),
            ("identity.new", Some(Kind::Identity)),
            ("notes.txt", None),
        ] {
            assert_eq!(Kind::of_name(name), kind, "{name}");
        }
    }

    #[test]
    fn and_by_their_first_bytes() {
        assert_eq!(Kind::of_head(b"RVRF\0\x01"), Some(Kind::Sidecar(None)));
        assert_eq!(Kind::of_head(b"RRNODWAL"), Some(Kind::Wal));
        assert_eq!(Kind::of_head(&[0; 61]), None);
        assert_eq!(Kind::of_head(b""), None);
    }
}
