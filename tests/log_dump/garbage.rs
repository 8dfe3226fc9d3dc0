//! Bytes of any kind under any name: shown or refused, never a crash, a hang or all of the memory.

use std::fs::{self, File};
use std::process::Command;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::data::Data;
use crate::run::{LOG_DUMP, dump, run, verify};

const NAMES: [&str; 14] = [
    "00000000000000000000.log",
    "00000000000000000000.raft",
    "00000000000000000000.aux",
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "00000000000000000000.snapshot",
    "leader-epoch-checkpoint",
    "partition.metadata",
    "log-start",
    "wal",
    "identity",
    "fenced-3-1",
    "5-1.checkpoint",
    "unknown",
];

#[test]
fn random_bytes_under_every_name() {
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("node");
    let part = dir.path().join("0000000000000000000000000000000a-0");
    fs::create_dir_all(&node).unwrap();
    fs::create_dir_all(&part).unwrap();
    for round in 0..4 {
        for name in NAMES {
            let len = [
                0,
                random.random_range(1..64),
                random.random_range(1..5000),
                100_000,
            ][round];
            let mut bytes = vec![0_u8; len];
            // In some files nearly everything looks like a batch.
            for byte in &mut bytes {
                *byte = if round % 2 == 0 {
                    random.random()
                } else {
                    random.random_range(0..3)
                };
            }
            let home = if ["wal", "identity", "fenced-3-1"].contains(&name) {
                &node
            } else {
                &part
            };
            fs::write(home.join(name), bytes).unwrap();
            dump(&home.join(name), &["--records"]);
        }
        dump(dir.path(), &["--records", "--format", "json"]);
        assert_eq!(verify(dir.path()).status, Some(1));
        verify(&part);
    }
}

#[test]
fn real_files_with_a_part_changed() {
    let data = Data::stopped();
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let files: Vec<_> = data
        .all_files()
        .into_iter()
        .filter(|file| fs::metadata(file).unwrap().len() > 0)
        .collect();
    for file in &files {
        let whole = fs::read(file).unwrap();
        // Most of a WAL is empty, and most of what matters is at the front.
        let reach = whole.len().min(16_384);
        for _ in 0..3 {
            let mut bytes = whole.clone();
            let from = random.random_range(0..reach);
            let to = (from + random.random_range(1..20)).min(reach);
            bytes[from..to]
                .iter_mut()
                .for_each(|byte| *byte = random.random());
            if random.random_range(0..3) == 0 {
                bytes.truncate(random.random_range(0..reach));
            }
            fs::write(file, bytes).unwrap();
            run(
                LOG_DUMP,
                &["dump".as_ref(), file.as_ref(), "--records".as_ref()],
            );
            verify(data.path());
        }
        fs::write(file, &whole).unwrap();
    }
    assert_eq!(verify(data.path()).status, Some(0), "all as it was");
}

#[test]
fn a_file_of_a_terabyte_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    for name in NAMES {
        let path = dir.path().join(name);
        let file = File::create(&path).unwrap();
        // A header that claims two gigabytes, and nothing behind it.
        let mut bytes = vec![0; 61];
        bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
        bytes[16] = 2;
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
        let len: u64 = match name.rsplit_once('.').map(|(_, kind)| kind) {
            // Each few bytes of these are a line of their own.
            Some("raft" | "aux" | "index" | "timeindex") => 1 << 20,
            // What follows the damage is looked for in all of it.
            Some("log") => 3 << 30,
            None if name == "unknown" => 1 << 20,
            _ => 1 << 40,
        };
        // A file system that has no holes so large refuses.
        if file.set_len(len).is_err() {
            continue;
        }
        // Two gigabytes of address space are enough for what is mapped and for every thread's stack.
        let limited = format!(
            "ulimit -v 2000000; timeout 100 {LOG_DUMP} dump {} | tail -c 2000",
            path.display()
        );
        let ran = Command::new("bash")
            .args(["-o", "pipefail", "-c", &limited])
            .output()
            .unwrap();
        let said = format!(
            "{name}: {}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
        assert!(matches!(ran.status.code(), Some(0..=2)), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        fs::remove_file(&path).unwrap();
    }
}
