//! What lies in a data directory.

use riverrun_storage::ProducerState;
use riverrun_storage::format::index::{
    OFFSET_ENTRY_LEN, OffsetEntry, TIME_ENTRY_LEN, TimeEntry, partition_entries,
};
use riverrun_storage::format::log_start::StartFile;
use riverrun_storage::format::sidecar::{Header, RECORD_LEN, Record};
use riverrun_storage::format::{aux, leader_epochs, partition_metadata};
use riverrun_storage::node::{read_identity, read_identity_slots, read_side, wal};
use riverrun_storage::producer_state::read_snapshot;

use crate::disk::OneFile;
use crate::sealed;

/// A sidecar and the small files beside it.
pub(crate) fn sidecar(bytes: &[u8]) {
    sealed::both(bytes, sealed::sidecar, |bytes| {
        let _ = Header::guess(bytes);
        if let Ok((header, len)) = Header::decode(bytes) {
            assert!(len <= bytes.len());
            assert!(!header.encode().is_empty());
        }
    });
    for (index, record) in (0..).zip(bytes.as_chunks::<RECORD_LEN>().0) {
        if let Some(found) = Record::decode(index, record) {
            let _ = (found.next_offset(), found.last_offset(), found.end());
            // Bytes that have no meaning yet are left out.
            assert_eq!(Record::decode(index, &found.encode(index)), Some(found));
        }
    }
    let _ = aux::decode(1, bytes);
    drop(StartFile::decode(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(leader_epochs::read(text));
        let _ = partition_metadata::decode(text);
    }
}

/// Both indexes, searched as a fetch does.
pub(crate) fn index(bytes: &[u8]) {
    for wanted in [0, 1 << 20, u32::MAX] {
        let below = |entry: &[u8]| OffsetEntry::decode(entry).relative_offset <= wanted;
        let found = partition_entries(bytes, OFFSET_ENTRY_LEN, below);
        assert!(found <= bytes.len() / OFFSET_ENTRY_LEN);
        let below = |entry: &[u8]| TimeEntry::decode(entry).timestamp < i64::from(wanted);
        let found = partition_entries(bytes, TIME_ENTRY_LEN, below);
        assert!(found <= bytes.len() / TIME_ENTRY_LEN);
    }
}

/// Kafka's producer snapshot and our own lossless form.
pub(crate) fn snapshot(bytes: &[u8]) {
    sealed::both(bytes, sealed::snapshot, |bytes| {
        if let Ok(state) = ProducerState::from_snapshot(bytes) {
            drop(state.to_snapshot());
        }
        if let Some((_, entries)) = read_snapshot(bytes) {
            assert!(entries.count() <= bytes.len());
        }
    });
    if let Ok(state) = ProducerState::decode(bytes) {
        assert_eq!(state.encode(), bytes);
    }
}

/// The files of a node: its WAL, its identity, and what is written beside the WAL.
pub(crate) fn wal(bytes: &[u8]) {
    sealed::both(bytes, sealed::wal, |bytes| {
        let disk = OneFile::new(bytes);
        drop(wal::dump(&disk, disk.path()));
    });
    sealed::both(bytes, sealed::identity, |bytes| {
        let disk = OneFile::new(bytes);
        drop(read_identity(&disk, disk.path()));
        drop(read_identity_slots(&disk, disk.path()));
        drop(read_side(&disk, disk.path()));
    });
}
