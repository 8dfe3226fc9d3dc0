//! A node on a data directory that is damaged: what is whole is served, what is not is named by file
//! and byte, and no bytes make the process fall over.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::hash::{BuildHasher, RandomState};

use crate::node::{Node, RIVERRUN};

/// Every file of a data directory but the lock.
fn files(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in fs::read_dir(data).unwrap() {
        for file in fs::read_dir(dir.unwrap().path()).unwrap() {
            let file = file.unwrap().path();
            if file.file_name().is_none_or(|name| name != "lock") {
                found.push(file);
            }
        }
    }
    found.sort();
    found
}

/// A copy of a data directory, in another directory.
fn copy_into(place: &Path, whole: &Path) -> PathBuf {
    let copy = place.join("data");
    // Most of a WAL is zeros.
    let copied = Command::new("cp")
        .args(["-r", "--sparse=always"])
        .args([whole, &copy])
        .status()
        .unwrap();
    assert!(copied.success());
    copy
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

/// The `.log` that holds these bytes.
fn log_with(data: &Path, needle: &str) -> (PathBuf, u64) {
    let logs = files(data)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|end| end == "log"));
    for log in logs.filter(|log| !log.to_str().unwrap().contains("__cluster_metadata")) {
        let bytes = fs::read(&log).unwrap();
        if let Some(at) = bytes
            .windows(needle.len())
            .position(|window| window == needle.as_bytes())
        {
            return (log, at as u64);
        }
    }
    panic!("{needle} is in no .log");
}

#[test]
fn a_damaged_partition_is_named_and_the_others_serve() {
    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start_on(data.path());
    node.run("topic create broken").ok();
    node.run("topic create whole").ok();
    node.feed("produce broken -q", b"first\nsecond\n").ok();
    node.feed("produce whole -q", b"one\ntwo\n").ok();
    assert_eq!(node.terminate(), Some(0));
    let (log, at) = log_with(data.path(), "second");
    flip(&log, at);

    let mut node = Node::start_on(data.path());
    assert_eq!(node.run("consume whole -e").ok(), "one\ntwo\n");
    assert_eq!(node.feed("produce whole", b"three\n").ok(), "whole/0 @2\n");
    let unwell = node.run("cluster health");
    assert_eq!(unwell.code, Some(10), "{}", unwell.err);
    let last = unwell.out.lines().last().unwrap().to_owned();
    let words: Vec<_> = last.split_whitespace().collect();
    assert_eq!(words, ["broken", "0", "1", "1", "1", "1"], "{}", unwell.out);
    // What lies before and behind the bad batch is served, and new events are taken.
    assert_eq!(
        node.feed("produce broken", b"third\n").ok(),
        "broken/0 @2\n"
    );
    assert_eq!(node.run("consume broken -o 2 -e").ok(), "third\n");
    let failed = node.run("consume broken -o 0 -e --timeout 2").failed(1);
    assert!(failed.contains("CORRUPT_MESSAGE"), "{failed}");
    assert_eq!(node.terminate(), Some(0));
    let said = node.errors();
    let line = said
        .lines()
        .find(|line| line.contains("a partition cannot be read"))
        .unwrap_or_else(|| panic!("no line about it: {said}"));
    assert!(
        line.contains(log.to_str().unwrap()) && line.contains("byte"),
        "{line}"
    );
    assert!(said.contains("bytes at rest that are bad"), "{said}");
    assert!(!said.contains("panicked"), "{said}");

    // As it was, all of it is served again.
    flip(&log, at);
    let node = Node::start_on(data.path());
    assert_eq!(node.run("consume broken -e").ok(), "first\nsecond\nthird\n");
    assert_eq!(node.run("consume whole -e").ok(), "one\ntwo\nthree\n");
}

#[test]
fn a_damage_of_each_kind_of_file_is_named_by_file_and_byte() {
    let whole = tempfile::tempdir().unwrap();
    let mut node = Node::start_on(whole.path());
    node.run("topic create t").ok();
    node.feed("produce t -q", b"first\nsecond\n").ok();
    assert_eq!(node.terminate(), Some(0));
    let (log, _) = log_with(whole.path(), "second");
    let of_topic = log.parent().unwrap().strip_prefix(whole.path()).unwrap();
    let first = |ends: &str| format!("00000000000000000000.{ends}");
    for name in [
        of_topic.join(first("raft")),
        PathBuf::from("__cluster_metadata-0").join(first("raft")),
        PathBuf::from("node/identity"),
        PathBuf::from("node/cluster"),
        PathBuf::from("node/wal"),
    ] {
        let place = tempfile::tempdir().unwrap();
        let copy = copy_into(place.path(), whole.path());
        let path = copy.join(&name);
        if !path.exists() {
            assert!(name.ends_with("cluster"), "{name:?}");
            continue;
        }
        // Two slots of the identity, two start marks of the WAL, and the header of a sidecar.
        for at in (0..fs::metadata(&path).unwrap().len().min(16_384)).step_by(64) {
            flip(&path, at + 20);
        }
        let errors = start_on_rubble(&copy, name.to_str().unwrap());
        let line = errors
            .lines()
            .find(|line| line.contains(path.to_str().unwrap()))
            .unwrap_or_else(|| panic!("{name:?} is not named: {errors}"));
        assert!(line.contains("byte"), "{name:?}: {line}");
        for file in ["00000000000000000000.log", "node/wal"] {
            let other = !path.ends_with(file) && line.contains(file);
            assert!(!other, "{name:?}: another file is named: {line}");
        }
    }
}

/// Starts a node on whatever lies there and ends it when it serves, or when it says that it cannot.
/// It must do one of the two, and what it cannot it must explain. Gives what it said.
fn start_on_rubble(data: &Path, what: &str) -> String {
    let mut child = Command::new(RIVERRUN)
        .args(["dev", "--kafka", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = child.stdout.take().unwrap();
    let mut line = String::new();
    let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line);
    let serves = read.unwrap() > 0;
    if serves {
        let pid = child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    }
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{what}: it neither serves nor ends");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let ended = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(!errors.contains("panicked"), "{what}: {errors}");
    match ended.status.code() {
        Some(0) => assert!(serves, "{what}: {errors}"),
        Some(1) => assert!(
            errors.contains("error: ") && errors.contains("next: "),
            "{what}: {errors}"
        ),
        other => panic!("{what}: it ended with {other:?}: {errors}"),
    }
    errors.into_owned()
}

#[test]
fn rubble_under_any_name_is_served_or_explained() {
    let seed = RandomState::new().hash_one(std::process::id());
    eprintln!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let whole = tempfile::tempdir().unwrap();
    let mut node = Node::start_on(whole.path());
    node.run("topic create t -p 2 --config segment.bytes=4096")
        .ok();
    let lines: String = (0..2000).map(|n| format!("line {n}\n")).collect();
    node.feed("produce t -q", lines.as_bytes()).ok();
    node.kill();
    let names: Vec<PathBuf> = files(whole.path())
        .into_iter()
        .map(|file| file.strip_prefix(whole.path()).unwrap().to_path_buf())
        .collect();
    // Of the many segments one will do.
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for name in names {
        let dir = name.parent().unwrap().to_str().unwrap();
        let kind = match dir {
            "node" | "__cluster_metadata-0" => name.display().to_string(),
            _ => format!("{:?}", name.extension().or(name.file_name())),
        };
        let times = seen.entry(kind).or_default();
        *times += 1;
        if *times > 1 {
            continue;
        }
        let less = ["empty", "cut", "gone"][random.random_range(0..3)];
        for how in ["garbage", "bits", less] {
            let place = tempfile::tempdir().unwrap();
            let copy = copy_into(place.path(), whole.path());
            let path = copy.join(&name);
            let mut bytes = fs::read(&path).unwrap();
            match how {
                "garbage" => bytes
                    .iter_mut()
                    .take(100_000)
                    .for_each(|byte| *byte = random.random()),
                "empty" => bytes.clear(),
                "cut" if !bytes.is_empty() => {
                    bytes.truncate(random.random_range(0..bytes.len()));
                }
                "bits" if !bytes.is_empty() => {
                    for _ in 0..5 {
                        // Most of what matters is at the front.
                        let at = random.random_range(0..bytes.len().min(20_000));
                        bytes[at] ^= 1 << random.random_range(0..8);
                    }
                }
                _ => {}
            }
            if how == "gone" {
                fs::remove_file(&path).unwrap();
            } else {
                fs::write(&path, bytes).unwrap();
            }
            start_on_rubble(&copy, &format!("{how} in {}", name.display()));
        }
    }
}
