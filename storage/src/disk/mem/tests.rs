#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use super::*;

fn write(disk: &MemDisk, path: &str, offset: u64, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(Path::new(path), OpenMode::Create).unwrap();
    file.write_all_at(&[IoSlice::new(bytes)], offset).unwrap();
    file
}

fn read(disk: &MemDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(Path::new(path), OpenMode::Existing).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

#[test]
fn what_was_synced_survives_and_the_rest_is_kept_lost_or_torn() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..300 {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let file = write(&disk, "/d/f", 0, &[1; 700]);
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_all_at(&[IoSlice::new(&[2; 600])], 700).unwrap();
        disk.crash(seed, &CrashModel::RANDOM);
        assert!(file.len().is_err(), "the handle is dead");
        let bytes = read(&disk, "/d/f").unwrap();
        assert!(bytes[..700].iter().all(|byte| *byte == 1));
        assert!(bytes[700..].iter().all(|byte| matches!(byte, 0 | 2)));
        match bytes[700..].iter().filter(|byte| **byte == 2).count() {
            600 => kept += 1,
            0 => lost += 1,
            _ => torn += 1,
        }
    }
    assert!(kept > 0 && lost > 0 && torn > 20, "{kept} {lost} {torn}");
}

#[test]
fn the_same_seed_leaves_the_same_disk() {
    let run = || {
        let disk = MemDisk::new();
        for n in 0..20_u64 {
            write(&disk, &format!("/f{}", n % 5), n * 300, &[n as u8; 900]);
        }
        disk.crash(7, &CrashModel::RANDOM);
        disk.durable_files()
            .into_iter()
            .map(|(path, _)| read(&disk, path.to_str().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn nothing_or_everything_survives_by_model() {
    let disk = MemDisk::new();
    let file = write(&disk, "/f", 0, b"old");
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(&[IoSlice::new(b"newer")], 0).unwrap();
    write(&disk, "/g", 0, b"g");
    let copy = disk.snapshot();
    disk.crash(1, &CrashModel::LOSE_ALL);
    assert_eq!(
        (read(&disk, "/f").unwrap(), read(&disk, "/g")),
        (b"old".to_vec(), None)
    );
    disk.restore(&copy);
    disk.crash(1, &CrashModel::KEEP_ALL);
    assert_eq!(read(&disk, "/f").unwrap(), b"newer");
    assert_eq!(read(&disk, "/g").unwrap(), b"g");
    disk.wipe();
    assert!(disk.durable_files().is_empty() && disk.used_bytes() == 0);
}

#[test]
fn names_are_durable_only_after_their_directory_was_synced() {
    let outcomes: std::collections::BTreeSet<_> = (0..100)
        .map(|seed| {
            let disk = MemDisk::new();
            write(&disk, "/a", 0, b"a").sync_data().unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            write(&disk, "/b.tmp", 0, b"b").sync_data().unwrap();
            disk.rename(Path::new("/b.tmp"), Path::new("/b")).unwrap();
            disk.remove_file(Path::new("/a")).unwrap();
            assert_eq!(disk.read_dir(Path::new("/")).unwrap().len(), 1);
            disk.crash(seed, &CrashModel::RANDOM);
            ["/a", "/b.tmp", "/b"].map(|path| read(&disk, path).is_some())
        })
        .collect();
    for outcome in [
        [true, false, false],
        [true, true, false],
        [true, false, true],
        [false, false, false],
        [false, true, false],
        [false, false, true],
    ] {
        assert!(outcomes.contains(&outcome), "{outcome:?} of {outcomes:?}");
    }
}

#[test]
fn a_failed_sync_leaves_old_bytes_under_clean_pages() {
    let disk = MemDisk::new();
    let file = write(&disk, "/f", 0, b"old");
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(&[IoSlice::new(b"new")], 0).unwrap();
    disk.fail(Operation::Sync, Times::Once, |path| path.ends_with("f"));
    assert_eq!(
        file.sync_data().unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    assert!(
        file.sync_data().is_ok(),
        "the second time there is nothing to sync"
    );
    assert_eq!(file.slice(0, 3).unwrap(), "new");
    disk.crash(0, &CrashModel::KEEP_ALL);
    assert_eq!(read(&disk, "/f").unwrap(), b"old");
}

#[test]
fn a_sync_reaches_no_further_than_the_horizon() {
    let disk = MemDisk::new();
    let file = write(&disk, "/f", 0, b"one");
    let begun = disk.write_seq();
    file.write_all_at(&[IoSlice::new(b"two")], 3).unwrap();
    disk.sync_horizon(Some(begun));
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk.sync_horizon(None);
    disk.crash(0, &CrashModel::LOSE_ALL);
    assert_eq!(read(&disk, "/f").unwrap(), b"one");
}

#[test]
fn room_is_taken_by_bytes_and_reservations_and_given_back() {
    let disk = MemDisk::new();
    disk.set_capacity(1000);
    let file = write(&disk, "/f", 0, &[0; 100]);
    file.reserve(600).unwrap();
    assert_eq!((disk.used_bytes(), file.len().unwrap()), (600, 100));
    let other = disk.open(Path::new("/g"), OpenMode::CreateNew).unwrap();
    assert_eq!(
        other.reserve(401).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    let full = other
        .write_all_at(&[IoSlice::new(&[0; 401])], 0)
        .unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    file.write_all_at(&[IoSlice::new(&[0; 500])], 100).unwrap();
    assert_eq!(disk.used_bytes(), 600);
    file.set_len(50).unwrap();
    assert_eq!(disk.used_bytes(), 50);
    other.allocate(900).unwrap();
    assert_eq!(other.len().unwrap(), 900);
    disk.remove_file(Path::new("/g")).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 950);
}

#[test]
fn a_flipped_bit_is_seen_after_the_next_crash() {
    let disk = MemDisk::new();
    write(&disk, "/f", 0, b"a").sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    assert!(disk.flip_bit(Path::new("/f"), 0, 1));
    assert!(!disk.flip_bit(Path::new("/f"), 1, 1));
    assert_eq!(read(&disk, "/f").unwrap(), b"a");
    disk.crash(0, &CrashModel::LOSE_ALL);
    assert_eq!(read(&disk, "/f").unwrap(), b"c");
}

#[test]
fn a_lock_goes_with_its_guard_or_with_the_crash() {
    let disk = MemDisk::new();
    let path = Path::new("/lock");
    let guard = disk.lock(path).unwrap();
    assert!(disk.lock(path).is_err());
    disk.crash(0, &CrashModel::KEEP_ALL);
    let second = disk.lock(path).unwrap();
    drop(guard);
    assert!(
        disk.lock(path).is_err(),
        "a guard of before the crash lets nothing go"
    );
    drop(second);
    assert!(disk.lock(path).is_ok());
}

#[test]
fn a_removed_directory_can_come_back_until_its_parent_is_synced() {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("/p/d")).unwrap();
    write(&disk, "/p/d/f", 0, b"f").sync_data().unwrap();
    disk.sync_dir(Path::new("/p/d")).unwrap();
    disk.remove_dir_all(Path::new("/p/d")).unwrap();
    assert!(!disk.exists(Path::new("/p/d")).unwrap());
    disk.crash(0, &CrashModel::LOSE_ALL);
    assert_eq!(read(&disk, "/p/d/f").unwrap(), b"f");
    disk.remove_dir_all(Path::new("/p/d")).unwrap();
    disk.sync_dir(Path::new("/p")).unwrap();
    disk.crash(0, &CrashModel::LOSE_ALL);
    assert!(!disk.exists(Path::new("/p/d")).unwrap());
}

#[test]
fn a_slow_sync_counts_when_it_ends_and_covers_what_was_there_when_it_began() {
    let disk = MemDisk::new();
    let path = Path::new("/f");
    let open = || disk.open(path, OpenMode::Create).unwrap();
    let file = open();
    disk.sync_dir(Path::new("/")).unwrap();
    let write = |at: u64| file.write_all_at(&[IoSlice::new(b"x")], at).unwrap();
    write(0);
    disk.begin_slow_syncs();
    file.sync_data().unwrap();
    let first = disk.take_slow_syncs();
    write(1);
    disk.finish_syncs(first);
    disk.crash(1, &CrashModel::LOSE_ALL);
    assert_eq!(open().len().unwrap(), 1);
    let file = open();
    file.write_all_at(&[IoSlice::new(b"y")], 1).unwrap();
    disk.begin_slow_syncs();
    file.sync_data().unwrap();
    let second = disk.take_slow_syncs();
    disk.crash(1, &CrashModel::LOSE_ALL);
    disk.finish_syncs(second);
    assert_eq!(open().len().unwrap(), 1);
}
