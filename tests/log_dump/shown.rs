//! What is shown of files that are as they should be.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use riverrun_record::Compression;
use serde_json::{Value, json};

use crate::data::Data;
use crate::run::{LOG_DUMP, RIVERRUN, dump, run, verify};

const JSON: [&str; 2] = ["--format", "json"];

#[test]
fn batches_and_records_of_a_log_are_shown_as_they_were_written() {
    let data = Data::stopped();
    let mut offset = 0;
    let mut compressions = Vec::new();
    for log in data.files(".log") {
        let said = dump(&log, &["--records", "--format", "json"]);
        assert_eq!(said.status, Some(0), "{said:?}");
        for batch in said.lines("batch") {
            assert_eq!(batch["base_offset"], offset);
            assert_eq!(batch["last_offset"], offset + 2);
            assert_eq!(batch["records"], 3);
            assert_eq!(batch["crc_ok"], true);
            assert_eq!(
                batch["max_timestamp"],
                1_700_000_000_002_i64 + 1000 * offset
            );
            assert_eq!(batch["producer_epoch"], 3);
            assert_eq!(batch["base_sequence"], offset);
            assert_eq!(batch["last_sequence"], offset + 2);
            assert_eq!(batch["transactional"], false);
            assert_eq!(batch["control"], false);
            compressions.push(batch["compression"].as_str().unwrap().to_owned());
            offset += 3;
        }
        let records = said.lines("record");
        let first = records[0]["offset"].as_i64().unwrap();
        assert_eq!(
            records[0],
            json!({
                "type": "record",
                "file": log.to_str().unwrap(),
                "offset": first,
                "timestamp": 1_700_000_000_000_i64 + 1000 * first,
                "key": format!("key-{first}"),
                "value": "v".repeat(200),
                "headers": ["n", "1", "none", null],
            })
        );
        assert_eq!(records[1]["key"], Value::Null);
        assert_eq!(records[1]["value"], Value::Null);
        assert_eq!(records[2]["value_base64"], "/xtbMzFt");
    }
    assert_eq!(offset, data.end);
    compressions.sort();
    compressions.dedup();
    assert_eq!(compressions, ["gzip", "lz4", "none", "snappy", "zstd"]);
}

#[test]
fn people_see_a_table_in_which_bytes_are_escaped() {
    let data = Data::stopped();
    let log = &data.files(".log")[0];
    let said = dump(log, &["--records", "--from", "3", "--to", "5"]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(lines[0].ends_with(&format!(
        "record batches, {} bytes",
        fs::metadata(log).unwrap().len()
    )));
    assert!(
        lines[1]
            .trim_start()
            .starts_with("POSITION  BASE-OFFSET  LAST-OFFSET"),
        "{lines:?}"
    );
    assert!(lines[2].contains("2023-11-14T22:13:23.002Z"), "{lines:?}");
    assert!(
        lines[2].contains("producer_id=4000  producer_epoch=3  base_sequence=3"),
        "{lines:?}"
    );
    assert!(
        lines[3].starts_with("record: offset=3  timestamp=2023-11-14T22:13:23.000Z  key=\"key-3\"")
    );
    assert!(lines[4].contains("key=null  value=null"));
    assert!(lines[5].contains(r#"value="\xff\x1b[31m""#), "{lines:?}");
    assert!(lines[6].starts_with("total: "));
    assert_eq!(lines.len(), 7);
    assert!(
        !said.out.contains('\u{1b}'),
        "nothing that a terminal obeys"
    );
}

#[test]
fn every_file_of_a_node_is_shown() {
    let data = Data::stopped();
    for file in data.all_files() {
        let said = dump(&file, &JSON);
        assert_eq!(said.status, Some(0), "{}: {said:?}", file.display());
        assert!(said.lines("damage").is_empty());
    }
    let first = |suffix: &str| data.files(suffix)[0].clone();
    let entries = dump(&first(".raft"), &JSON).lines("entry");
    assert_eq!(entries[0]["kind"], "noop");
    assert_eq!(
        (&entries[1]["index"], &entries[1]["term"]),
        (&json!(2), &json!(1))
    );
    let header = &dump(&first(".raft"), &JSON).lines("header")[0];
    assert_eq!(
        (&header["group"], &header["replica"]),
        (&json!(3), &json!(103))
    );
    assert_eq!(header["conf"], "voters [103]");
    let payloads: Vec<Value> = data
        .files(".aux")
        .iter()
        .flat_map(|aux| dump(aux, &JSON).lines("payload"))
        .collect();
    assert_eq!(payloads[0]["payload"], "a change");
    assert_eq!(
        (&payloads[1]["kind"], &payloads[1]["payload"]),
        (&json!("command"), &json!("close"))
    );
    assert!(dump(&first(".index"), &JSON).lines("index_entry").len() > 3);
    assert!(
        dump(&first(".timeindex"), &JSON)
            .lines("time_index_entry")
            .len()
            > 3
    );
    let producers = dump(&first(".snapshot"), &JSON).lines("producer");
    assert_eq!(producers.len(), 2);
    assert_eq!(producers[0]["producer_id"], 4000);
    let epochs = dump(&first("leader-epoch-checkpoint"), &JSON).lines("epoch");
    assert_eq!(epochs[0]["epoch"], 1);
    assert_eq!(
        dump(&first("partition.metadata"), &JSON).lines("partition_metadata")[0]["topic_id"],
        "00000000-0000-0000-0000-000000000abc"
    );
    let wal = dump(
        &data.path().join("node/wal"),
        &["--records", "--format", "json"],
    );
    let kinds: Vec<Value> = wal
        .lines("wal_record")
        .iter()
        .map(|line| line["kind"].clone())
        .collect();
    for kind in ["state", "entry", "hard-state"] {
        assert!(kinds.contains(&json!(kind)), "no {kind} in {kinds:?}");
    }
    assert!(
        !wal.lines("record").is_empty(),
        "records of batches in the WAL"
    );
    let identity = dump(&data.path().join("node/identity"), &JSON).lines("identity");
    assert!(
        identity
            .iter()
            .any(|slot| slot["clean_stop"] == true && slot["node_id"] == 7)
    );
    assert!(
        identity
            .iter()
            .all(|slot| slot["starts"] == "1:0000000000005eed"),
        "{identity:?}"
    );
    let image = dump(
        &data.path().join("__cluster_metadata-0/0-1.checkpoint"),
        &JSON,
    );
    assert_eq!(image.lines("image")[0]["next_offset"], 0);
}

#[test]
fn a_directory_is_shown_file_by_file_by_both_programs_and_nothing_is_written() {
    let data = Data::stopped();
    let before: Vec<_> = data
        .all_files()
        .into_iter()
        .map(|file| {
            (
                fs::read(&file).unwrap(),
                fs::metadata(&file).unwrap().modified().unwrap(),
                file,
            )
        })
        .collect();
    let one = dump(data.path(), &JSON);
    let other = run(
        LOG_DUMP,
        &[
            "dump".as_ref(),
            data.path().as_ref(),
            "--format".as_ref(),
            "json".as_ref(),
        ],
    );
    assert_eq!(one.status, Some(0), "{one:?}");
    assert_eq!(one.out, other.out);
    for (bytes, modified, file) in before {
        let is_lock = file.ends_with("lock");
        let shown = one
            .lines("file")
            .iter()
            .any(|line| line["file"] == file.to_str().unwrap());
        assert!(shown != is_lock, "{}", file.display());
        assert_eq!(fs::read(&file).unwrap(), bytes);
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), modified);
    }
}

#[test]
fn offsets_and_indexes_narrow_what_is_shown() {
    let data = Data::stopped();
    let said = dump(
        &data.files(".log")[0],
        &["--from", "7", "--to", "11", "--format", "json"],
    );
    let offsets: Vec<_> = said
        .lines("batch")
        .iter()
        .map(|line| line["base_offset"].as_i64().unwrap())
        .collect();
    assert_eq!(offsets, [6, 9]);
    let said = dump(
        &data.files(".raft")[0],
        &["--from", "2", "--to", "2", "--format", "json"],
    );
    assert_eq!(said.lines("entry").len(), 1);
}

#[test]
fn a_running_and_a_stopped_node_are_found_whole() {
    let mut data = Data::running();
    for what in ["running", "stopped"] {
        let said = verify(data.path());
        assert_eq!(said.status, Some(0), "{what}: {said:?}");
        assert!(said.lines("note").is_empty(), "{what}: {said:?}");
        let parts = said.lines("partition");
        assert_eq!(parts.len(), 2);
        let part = parts.iter().find(|part| part["group"] == 3).unwrap();
        assert_eq!(part["next_offset"], data.end);
        assert_eq!(part["records"], data.end);
        assert_eq!(part["batches"], 60);
        assert_eq!(part["damaged"], 0);
        data.stop();
    }
    let said = verify(data.partition_dir());
    assert_eq!(said.status, Some(0), "{said:?}");
    assert_eq!(
        said.lines("partition")[0]["entries"],
        data.partition.log.last_index()
    );
    let table = run(
        RIVERRUN,
        &["log".as_ref(), "verify".as_ref(), data.path().as_ref()],
    );
    assert!(table.out.starts_with("PARTITION"), "{table:?}");
}

#[test]
fn a_node_that_writes_all_the_time_is_found_whole_all_the_time() {
    let mut data = Data::running();
    let store = data.store.take().unwrap();
    let is_done = AtomicBool::new(false);
    let (dir, partition) = (data.dir.path(), &mut data.partition);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                for _ in 0..10 {
                    let entries = vec![partition.make.data(Compression::None)];
                    partition.write(&store, entries);
                }
                store.checkpoint().unwrap();
            }
        });
        for _ in 0..10 {
            let (whole, shown) = (verify(dir), dump(&dir.join("node/wal"), &JSON));
            if whole.status != Some(0) || shown.status != Some(0) {
                is_done.store(true, Ordering::Relaxed);
                panic!("{:?} {:?}", whole.damage(), shown.damage());
            }
        }
        is_done.store(true, Ordering::Relaxed);
    });
    assert!(partition.log.next_offset() > data.end, "it did write");
}

#[test]
fn what_cannot_work_is_said_with_exit_status_2() {
    let data = Data::stopped();
    let nothing = data.path().join("nothing");
    assert_eq!(dump(&nothing, &[]).status, Some(2));
    assert_eq!(verify(&nothing).status, Some(2));
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(verify(empty.path()).status, Some(2));
    let other = empty.path().join("notes.txt");
    fs::write(&other, "hello").unwrap();
    assert_eq!(dump(&other, &[]).status, Some(2));
    assert_eq!(
        dump(&data.files(".log")[0], &["--from", "9", "--to", "8"]).status,
        Some(2)
    );
}
