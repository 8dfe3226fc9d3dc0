//! The files of a log, byte for byte as version 1 wrote them.
//!
//! The fixtures are only ever added to: a log that an older version wrote must open for ever.
//! `RIVERRUN_WRITE_FIXTURES=1` writes those of a new version.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::disk::{Disk, MemDisk};
use crate::entry::LogEntry;
use crate::log::LogConfig;
use crate::producer_state::ProducerState;
use crate::recovered::{LogStart, StoredConf};

use super::harness::{Maker, all, create_with, dir, files, open, record, some_entries, write_file};

const BIRTH: LogStart = LogStart {
    prev_index: 41,
    prev_term: 6,
    offset: 1000,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/log/v1")
}

fn written() -> (MemDisk, Vec<LogEntry>, LogStart) {
    let disk = MemDisk::new();
    let config = LogConfig {
        segment_bytes: 1500,
        ..LogConfig::tiny()
    };
    let mut log = create_with(&disk, BIRTH, config);
    log.set_conf(StoredConf {
        index: 40,
        bytes: "voters 1 2 3".into(),
    });
    let mut entries = some_entries(BIRTH, 14);
    let mut make = Maker::after(&entries, BIRTH);
    entries.push(make.noop());
    let mut producers = ProducerState::default();
    for entry in &entries {
        for base in log.append(std::slice::from_ref(entry)).unwrap().rolled {
            log.write_producer_snapshot(base, &producers).unwrap();
        }
        if let Ok(batch) = riverrun_record::BatchView::parse(&entry.payload) {
            producers.apply(&batch);
        }
    }
    let conf = StoredConf {
        index: 55,
        bytes: "voters 2 3 4".into(),
    };
    let start = log
        .drop_head(log.reader().segment_last_indexes()[0] + 1, &conf)
        .unwrap();
    log.flush_indexes().unwrap();
    log.sync_handle().sync_all().unwrap();
    (disk, entries, start)
}

fn fixtures() -> BTreeMap<String, Vec<u8>> {
    let names = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    names
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

#[test]
fn version_1_is_written_as_ever() {
    let (disk, _, _) = written();
    let files = files(&disk);
    if std::env::var_os("RIVERRUN_WRITE_FIXTURES").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        for (name, bytes) in &files {
            std::fs::write(folder().join(name), bytes).unwrap();
        }
    }
    let golden = fixtures();
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        golden.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in &files {
        assert!(golden[name] == *bytes, "{name} is not what it was");
    }
}

#[test]
fn version_1_is_read_for_ever() {
    let (_, entries, start) = written();
    let disk = MemDisk::new();
    disk.create_dir_all(&dir()).unwrap();
    for (name, bytes) in fixtures() {
        write_file(&disk, &dir().join(name), &bytes);
    }
    let mut known = record(BIRTH);
    known.durable_index = BIRTH.prev_index + entries.len() as u64;
    let (log, recovery) = open(&disk, &known).unwrap();
    assert_eq!(
        (log.start(), recovery.cut_at, recovery.rebuilt_indexes),
        (start, None, 0)
    );
    assert_eq!(
        all(&log),
        entries[(start.prev_index - BIRTH.prev_index) as usize..]
    );
}
