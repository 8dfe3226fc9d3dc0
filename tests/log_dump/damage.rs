//! Damage is found, and named by file and byte; what a crash may leave is not called damage.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use riverrun_record::{Compression, batches};
use riverrun_storage::node::RoundItem;
use serde_json::json;

use crate::data::Data;
use crate::run::{dump, verify};

const JSON: [&str; 2] = ["--format", "json"];

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn cut(path: &Path, to: u64) {
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(to)
        .unwrap();
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// Where the batches of a segment begin, with its end.
fn positions(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).unwrap();
    let mut positions = vec![0];
    for batch in batches(&bytes) {
        positions.push(positions.last().unwrap() + batch.unwrap().total_len() as u64);
    }
    positions
}

#[test]
fn a_flipped_bit_of_a_log_is_named_by_its_batch_and_the_rest_is_shown() {
    let data = Data::stopped();
    let log = &data.files(".log")[1];
    let batches = positions(log);
    let (at, end) = (batches[2], batches[3]);
    let whole = dump(log, &JSON).lines("batch").len();
    // Base offset, length, epoch, magic, checksum, attributes, and a byte of the records.
    for byte in [7, 8, 11, 15, 16, 18, 22, 70] {
        flip(log, at + byte);
        verify(data.path()).names(log, at..end);
        verify(data.partition_dir()).names(log, at..end);
        let said = dump(log, &["--records", "--format", "json"]);
        // That the epoch is not the entry's term only the sidecar tells.
        if byte != 15 {
            said.names(log, at..at + 1);
        }
        assert!(
            said.lines("batch").len() >= whole - 1,
            "byte {byte}: it goes on behind"
        );
        assert!(said.lines("record").len() >= 3 * (whole - 1));
        flip(log, at + byte);
    }
    assert_eq!(verify(data.path()).status, Some(0));
}

#[test]
fn a_log_that_was_cut_or_lacks_a_batch_is_named() {
    let data = Data::stopped();
    let log = data.files(".log").pop().unwrap();
    let bytes = fs::read(&log).unwrap();
    let batches = positions(&log);
    let last = batches[batches.len() - 2];
    // The last entries are in the WAL too, and the next start would write them again: not damage.
    cut(&log, last + 10);
    let said = verify(data.path());
    assert_eq!(said.status, Some(0), "{said:?}");
    assert!(!said.lines("note").is_empty());
    // Without the WAL there is nothing to make them of.
    verify(data.partition_dir()).names(&log, last..last + 11);
    dump(&log, &JSON).names(&log, last..last + 1);
    // Nor are those that it does not hold any more.
    let sealed = &data.files(".log")[0];
    let whole = fs::read(sealed).unwrap();
    let batches = positions(sealed);
    cut(sealed, batches[3] + 5);
    let said = verify(data.path());
    assert_eq!(said.status, Some(1), "{said:?}");
    assert!(
        said.damage()
            .contains(&(sealed.to_str().unwrap().to_owned(), Some(batches[3] + 5))),
        "{said:?}"
    );
    // A batch that was taken out.
    let mut without = whole[..batches[3] as usize].to_vec();
    without.extend_from_slice(&whole[batches[4] as usize..]);
    fs::write(sealed, without).unwrap();
    dump(sealed, &JSON).names(sealed, batches[3]..batches[3] + 1);
    let said = verify(data.path());
    assert_eq!(said.status, Some(1));
    assert!(
        said.damage()
            .contains(&(sealed.to_str().unwrap().to_owned(), Some(batches[3]))),
        "{said:?}"
    );
    fs::write(sealed, whole).unwrap();
    fs::write(&log, bytes).unwrap();
    assert_eq!(verify(data.path()).status, Some(0));
    // A segment that is gone.
    let second = &data.files(".log")[1];
    fs::remove_file(second).unwrap();
    assert_eq!(verify(data.path()).status, Some(1));
}

#[test]
fn a_flipped_bit_of_a_sidecar_is_named() {
    let data = Data::stopped();
    let raft = &data.files(".raft")[0];
    let header = dump(raft, &JSON).lines("header")[0]["header_len"]
        .as_u64()
        .unwrap();
    let entries = dump(raft, &JSON).lines("entry").len();
    for at in [
        header + 3 * 32 + 1,
        header + 3 * 32 + 15,
        header + 3 * 32 + 31,
    ] {
        flip(raft, at);
        let record = header + 3 * 32;
        verify(data.path()).names(raft, record..record + 1);
        let said = dump(raft, &JSON);
        said.names(raft, record..record + 1);
        assert_eq!(said.lines("entry").len(), entries - 1);
        flip(raft, at);
    }
    for at in [0, 20, 60, 100, 119] {
        flip(raft, at);
        verify(data.path()).names(raft, 0..1);
        let said = dump(raft, &JSON);
        said.names(raft, 0..1);
        // It is guessed how the records are numbered, and their checksums say whether that is right.
        assert_eq!(said.lines("entry").len(), entries);
        flip(raft, at);
    }
    let aux = &data.files(".aux")[0];
    flip(aux, 8 + 8 + 2);
    verify(data.path()).names(aux, 8..9);
    dump(aux, &JSON).names(aux, 8..9);
}

#[test]
fn records_that_the_sidecar_lost_in_a_crash_are_no_damage_where_the_log_has_the_batches() {
    let data = Data::stopped();
    let raft = data.files(".raft").pop().unwrap();
    let raft_len = len(&raft);
    cut(&raft, raft_len - 32);
    let said = verify(data.path());
    assert_eq!(said.status, Some(0), "{said:?}");
    assert!(
        said.out.contains("behind the last entry of the sidecar"),
        "{said:?}"
    );
    // Nothing but zeros, as a page that was never written.
    cut(&raft, raft_len);
    assert_eq!(verify(data.path()).status, Some(0));
}

#[test]
fn a_shifted_index_entry_is_named() {
    let data = Data::stopped();
    let index = &data.files(".index")[0];
    let at = 2 * 8;
    for byte in [3, 7] {
        flip(index, at + byte);
        verify(data.path()).rebuilds(index, Some(at));
        dump(index, &JSON).names(index, at..at + 1);
        flip(index, at + byte);
    }
    let time_index = &data.files(".timeindex")[0];
    let at = 2 * 12;
    for byte in [5, 7, 11] {
        flip(time_index, at + byte);
        // An entry that is too high may be seen at the one behind it too.
        verify(data.path()).rebuilds(time_index, Some(at));
        flip(time_index, at + byte);
    }
    let size = len(index);
    cut(index, size - 3);
    verify(data.path()).rebuilds(index, Some(size - 8));
    dump(index, &JSON).names(index, size - 8..size - 7);
    fs::remove_file(index).unwrap();
    verify(data.path()).rebuilds(index, None);
}

#[test]
fn snapshots_epochs_and_metadata_are_held_against_the_log() {
    let data = Data::stopped();
    let snapshots = data.files(".snapshot");
    flip(&snapshots[0], 30);
    verify(data.path()).rebuilds(&snapshots[0], Some(2));
    let said = dump(&snapshots[0], &JSON);
    said.names(&snapshots[0], 2..3);
    assert_eq!(said.lines("producer").len(), 2, "shown nevertheless");
    flip(&snapshots[0], 30);
    // A good snapshot of another offset.
    let (one, other) = (
        fs::read(&snapshots[0]).unwrap(),
        fs::read(&snapshots[1]).unwrap(),
    );
    fs::write(&snapshots[1], one).unwrap();
    verify(data.path()).names(&snapshots[1], 10..11 + 46);
    fs::write(&snapshots[1], other).unwrap();
    let epochs = &data.files("leader-epoch-checkpoint")[0];
    let text = fs::read(epochs).unwrap();
    fs::write(epochs, "0\n2\n1 0\nx 7\n").unwrap();
    verify(data.path()).rebuilds(epochs, Some(8));
    fs::write(epochs, text).unwrap();
    let metadata = &data.files("partition.metadata")[0];
    flip(metadata, 25);
    verify(data.path()).names(metadata, 0..12);
    flip(metadata, 25);
    let text = fs::read(metadata).unwrap();
    cut(metadata, 5);
    verify(data.path()).rebuilds(metadata, Some(0));
    fs::write(metadata, text).unwrap();
    let image = data.path().join("__cluster_metadata-0/0-1.checkpoint");
    flip(&image, 9);
    // The log has its beginning: nothing is lost with the image.
    let said = verify(data.path());
    assert_eq!(said.status, Some(0), "{said:?}");
    let notes = said.lines("note");
    assert!(
        notes
            .iter()
            .any(|note| note["file"].as_str() == image.to_str())
    );
    dump(&image, &JSON).names(&image, 0..1);
}

#[test]
fn damage_of_the_wal_is_named_and_what_lies_behind_it_is_shown() {
    let data = Data::stopped();
    let wal = data.path().join("node/wal");
    let records = dump(&wal, &JSON).lines("wal_record");
    let hit = &records[records.len() / 2];
    let at = hit["position"].as_u64().unwrap();
    flip(&wal, at + 60);
    let said = dump(&wal, &JSON);
    said.names(&wal, at..at + 1);
    assert!(said.lines("wal_record").len() > records.len() / 2);
    let said = verify(data.path());
    assert_eq!(said.status, Some(1));
    assert!(
        said.damage()
            .contains(&(wal.to_str().unwrap().to_owned(), Some(at))),
        "{said:?}"
    );
    flip(&wal, at + 60);
    flip(&wal, 5);
    let said = verify(data.path());
    assert!(
        said.damage()
            .contains(&(wal.to_str().unwrap().to_owned(), Some(0))),
        "{said:?}"
    );
    dump(&wal, &JSON).names(&wal, 0..1);
    flip(&wal, 5);
    // One identity slot of two may be torn; both may not.
    let identity = data.path().join("node/identity");
    flip(&identity, 20);
    assert_eq!(dump(&identity, &JSON).status, Some(0));
    flip(&identity, 4096 + 20);
    dump(&identity, &JSON).names(&identity, 0..4097);
    assert_eq!(verify(data.path()).status, Some(1));
}

#[test]
fn entries_that_only_the_wal_has_are_no_damage_and_lost_ones_are() {
    let mut data = Data::running();
    let log = data.files(".log").pop().unwrap();
    let before = len(&log);
    let entry = data.partition.make.data(Compression::None);
    let store = data.store.take().unwrap();
    data.partition.write(&store, vec![entry]);
    // The machine stops before the files are synced.
    cut(&log, before);
    let raft = data.files(".raft").pop().unwrap();
    cut(&raft, len(&raft) - 32);
    let said = verify(data.path());
    assert_eq!(said.status, Some(0), "{said:?}");
    assert!(said.out.contains("in the node WAL only"), "{said:?}");
    // A part of a batch that nobody was promised.
    let mut bytes = fs::read(&log).unwrap();
    let torn = bytes[..40].to_vec();
    bytes.extend_from_slice(&torn);
    fs::write(&log, bytes).unwrap();
    let said = verify(data.path());
    assert_eq!(said.status, Some(0), "{said:?}");
    assert!(
        said.out.contains("a tail that the next start cuts"),
        "{said:?}"
    );
    // A log that is gone altogether, and one of a replica that was removed.
    fs::remove_dir_all(data.partition_dir()).unwrap();
    assert_eq!(
        verify(data.path()).damage(),
        [(data.partition_dir().to_str().unwrap().to_owned(), None)]
    );
    let item = RoundItem {
        group: 3,
        removed: true,
        ..RoundItem::default()
    };
    let round = store.begin_round(vec![item]).unwrap();
    let result = round.sync().unwrap();
    store.end_round(round, &result).unwrap();
    fs::create_dir(data.partition_dir()).unwrap();
    let said = verify(data.path());
    assert_eq!(said.status, Some(0), "{said:?}");
    assert_eq!(
        said.lines("note")[0]["what"],
        json!("the replica was removed; the next start removes its files")
    );
}
