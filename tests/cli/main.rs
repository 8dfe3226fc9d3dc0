//! The command line against a real node, in the forms that scripts rely on.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests of real processes, which live in real time"
)]

mod cluster;
mod damaged;
mod library;
mod node;
mod server;

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use node::{Node, RIVERRUN, run_with};
use serde_json::{Value, json};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn dev_says_where_it_listens_and_its_three_lines_work_as_they_stand() {
    let node = Node::start();
    assert!(
        node.greeting[0].starts_with("listening on kafka://127.0.0.1:"),
        "{:?}",
        node.greeting
    );
    let lines: Vec<_> = node
        .greeting
        .iter()
        .filter_map(|l| l.strip_prefix("  "))
        .collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let bin = std::path::Path::new(RIVERRUN).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut last = String::new();
    for line in lines {
        let ran = Command::new("sh")
            .args(["-c", line])
            .env("PATH", &path)
            .output()
            .unwrap();
        assert!(
            ran.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
        last = String::from_utf8(ran.stdout).unwrap();
    }
    assert_eq!(last, "hello, river\n");
}

#[test]
fn a_temporary_directory_is_removed_and_a_named_one_kept() {
    let mut node = Node::start_temporary();
    let kept = node
        .greeting
        .iter()
        .find_map(|l| l.strip_prefix("events are kept in "))
        .unwrap();
    let (directory, note) = kept.split_once(';').unwrap();
    let directory = std::path::PathBuf::from(directory);
    assert!(note.contains("--data"), "{kept}");
    assert!(directory.is_dir());
    assert_eq!(node.terminate(), Some(0));
    assert!(!directory.exists());

    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start_on(data.path());
    node.run("topic create kept").ok();
    assert_eq!(node.feed("produce kept", b"one\ntwo\n").lines().len(), 2);
    node.kill();
    let node = Node::start_on(data.path());
    assert_eq!(node.run("consume kept -e").ok(), "one\ntwo\n");
    assert_eq!(node.feed("produce kept", b"three\n").ok(), "kept/0 @2\n");
}

#[test]
fn topics_are_created_listed_described_and_deleted() {
    let node = Node::start();
    assert_eq!(
        node.run("topic create orders -p 3 -r 1 --config segment.bytes=1048576")
            .ok(),
        "created orders (3 partitions)\n"
    );
    assert_eq!(
        node.run("topic list").lines()[1]
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["orders", "3", "1"]
    );
    let listed = parsed(&node.run("topic list --format json").ok());
    assert_eq!(listed[0]["name"], "orders");
    assert_eq!(listed[0]["partitions"], 3);
    node.feed("produce orders -p 2", b"a\nb\n").ok();
    let described = parsed(&node.run("topic describe orders --format json").ok());
    let partition = &described[0]["partitions"][2];
    assert_eq!(
        (&partition["start_offset"], &partition["end_offset"]),
        (&json!(0), &json!(2))
    );
    assert_eq!(described[0]["id"], listed[0]["id"]);
    let config = described[0]["configs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["name"] == "segment.bytes")
        .unwrap();
    assert_eq!(
        (&config["value"], &config["source"]),
        (&json!("1048576"), &json!("topic"))
    );
    assert!(
        node.run("topic describe orders")
            .ok()
            .contains("segment.bytes")
    );

    // It is there already: an error, unless that is fine.
    let exists = node.run("topic create orders").failed(1);
    assert!(
        exists.contains("orders") && exists.contains("next:"),
        "{exists}"
    );
    node.run("topic create orders --if-not-exists").ok();
    // Each of several succeeds or fails for itself.
    let some = node.run("topic create another orders a/b");
    assert_eq!(
        (some.code, some.out.as_str()),
        (Some(1), "created another (1 partition)\n")
    );
    assert_eq!(some.err.matches("error:").count(), 2, "{}", some.err);
    // Only asking changes nothing.
    node.run("topic create asked --dry-run").ok();
    assert!(!node.run("topic list").ok().contains("asked"));

    // Nothing destructive without being sure.
    let unsure = node.run("topic delete orders").failed(2);
    assert!(unsure.contains("--yes"), "{unsure}");
    assert_eq!(
        node.run("topic delete orders --dry-run").ok(),
        "would delete orders\n"
    );
    assert_eq!(
        node.run("topic delete orders --yes --format json").ok(),
        "[{\"name\":\"orders\",\"deleted\":true}]\n"
    );
    node.run("topic delete orders --yes").failed(1);
    assert!(!node.run("topic list").ok().contains("orders"));
    let gone = node.run("consume orders").failed(1);
    assert!(gone.contains("topic create orders"), "{gone}");
}

#[test]
fn settings_that_are_not_served_are_refused_with_the_reason() {
    let node = Node::start();
    for setting in [
        "cleanup.policy=compact",
        "retention.ms=1000",
        "nonsense=1",
        "segment.bytes=x",
    ] {
        let refused = node
            .run(&format!("topic create refused --config {setting}"))
            .failed(1);
        let name = setting.split('=').next().unwrap();
        assert!(
            refused.contains(name) && refused.contains("next:"),
            "{refused}"
        );
    }
    assert!(!node.run("topic list").ok().contains("refused"));
}

#[test]
fn lines_become_records_and_records_lines() {
    let node = Node::start();
    node.run("topic create t -p 2").ok();
    assert_eq!(
        node.feed("produce t -K: -p 1", b"k1:{\"id\":1}\nplain\n:empty\nk2:\n")
            .ok(),
        "t/1 @0\nt/1 @1\nt/1 @2\nt/1 @3\n"
    );
    assert_eq!(
        node.run("consume t -p 1 -e -f %o|%k|%K|%s|%S\\n").ok(),
        "0|k1|2|{\"id\":1}|8\n1||-1|plain|5\n2||0|empty|5\n3|k2|2||0\n"
    );
    assert_eq!(node.run("consume t -e -K/").lines()[0], "k1/{\"id\":1}");
    // Tombstones, headers, bytes that are no text; the time is now.
    node.feed(
        "produce t -p 0 -K: -Z -H a=1 -H b=x=y",
        b"gone:\nbin:\xff\x00\n",
    )
    .ok();
    let read = node.run("consume t -p 0 -e -J").lines();
    let (first, second) = (parsed(&read[0]), parsed(&read[1]));
    assert_eq!(
        (&first["key"], &first["payload"]),
        (&json!("gone"), &Value::Null)
    );
    assert_eq!(first["headers"], json!(["a", "1", "b", "x=y"]));
    assert_eq!(
        (&second["payload_base64"], second.get("payload")),
        (&json!("/wA="), None)
    );
    let age = std::time::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_millis()
        .abs_diff(u128::from(first["ts"].as_u64().unwrap()));
    assert!(age < 60_000, "{age} ms off");
    let written = parsed(
        node.feed("produce t -p 0 --format json", b"x\n")
            .lines()
            .first()
            .unwrap(),
    );
    assert_eq!(
        (&written["topic"], &written["partition"], &written["offset"]),
        (&json!("t"), &json!(0), &json!(2))
    );
    assert_eq!(node.feed("produce t -q", b"quiet\n").ok(), "");
}

#[test]
fn reading_begins_and_ends_where_it_is_told() {
    let node = Node::start();
    node.run("topic create t").ok();
    let lines: String = (0..100).map(|n| format!("{n}\n")).collect();
    node.feed("produce t -q", lines.as_bytes()).ok();
    for (args, first, last) in [
        ("-o start -e", 0, 99),
        ("-o beginning -n 5", 0, 4),
        ("-o 42 -n 3", 42, 44),
        ("-o +90 -e", 90, 99),
        ("-o -7 -e", 93, 99),
        ("-o -1000 -e", 0, 99),
        ("-o 10:20", 10, 19),
        ("-o -5:end", 95, 99),
        ("-o :3", 0, 2),
        ("-o @0 -e", 0, 99),
        ("-o @-1h -e -n 2", 0, 1),
        ("-o @2020-01-01:@-1d", 0, -1),
        ("-o end -e", 0, -1),
        ("-o @2100-01-01 -e", 0, -1),
        ("-n 0", 0, -1),
    ] {
        let expected: Vec<_> = (first..=last).map(|n: i32| n.to_string()).collect();
        assert_eq!(
            node.run(&format!("consume t {args}")).lines(),
            expected,
            "{args}"
        );
    }
    // By the timestamp of a record that is there.
    let line = parsed(&node.run("consume t -o 50 -n 1 -J").lines()[0]);
    let at: i64 = node
        .run(&format!("consume t -o @{} -n 1", line["ts"]))
        .ok()
        .trim()
        .parse()
        .unwrap();
    assert!(at <= 50, "{at}");

    let beyond = node.run("consume t -o 101").failed(1);
    assert!(
        beyond.contains("0 up to 100") && beyond.contains("next:"),
        "{beyond}"
    );
    assert!(
        node.run("consume t -p 7")
            .failed(1)
            .contains("no partition 7")
    );
    node.run("consume t -o sometime").failed(2);
    node.run("consume t -o 1:2 -e").failed(2);
}

#[test]
fn every_compression_comes_back_byte_for_byte() {
    let node = Node::start();
    node.run("topic create t -p 3").ok();
    let mut expected = BTreeSet::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let lines: Vec<_> = (0..500)
            .map(|n| format!("{codec} {n} {}", "x".repeat(n % 90)))
            .collect();
        node.feed(
            &format!("produce t -z {codec} -q"),
            (lines.join("\n") + "\n").as_bytes(),
        )
        .ok();
        expected.extend(lines);
    }
    let read = node.run("consume t -e").lines();
    assert_eq!(read.len(), expected.len());
    assert_eq!(read.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn a_reader_at_the_end_sees_what_comes() {
    let node = Node::start();
    node.run("topic create t").ok();
    node.feed("produce t -q", b"old\n").ok();
    let reader = Command::new(RIVERRUN)
        .args(["consume", "t", "-o", "end", "-n", "1", "-b", &node.address])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // When the reader has found the end is not for us to know: something new comes until it has.
    let mut reader = Some(reader);
    let begun = Instant::now();
    let seen = loop {
        node.feed("produce t -q", b"new\n").ok();
        assert!(begun.elapsed() < Duration::from_secs(30));
        if reader.as_mut().unwrap().try_wait().unwrap().is_some() {
            break reader.take().unwrap().wait_with_output().unwrap();
        }
    };
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "new\n");
}

#[test]
fn a_reader_of_ours_that_has_seen_enough_is_no_error() {
    let node = Node::start();
    let lines = "line\n".repeat(100_000);
    node.feed("produce t -q", lines.as_bytes()).ok();
    let pipe = format!(
        "'{RIVERRUN}' consume t -e -b {} | head -1; exit ${{PIPESTATUS[0]}}",
        node.address
    );
    let ran = Command::new("bash").args(["-c", &pipe]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "line\n");
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn a_broker_that_goes_away_and_comes_back_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start_on(data.path());
    node.run("topic create t -p 3").ok();
    let address = node.address.clone();
    let feeder = std::thread::spawn(move || {
        let lines: String = (0..40_000).map(|n| format!("{n}\n")).collect();
        run_with(
            &address,
            &["produce", "t", "-q", "--timeout", "60"],
            lines.as_bytes(),
        )
    });
    std::thread::sleep(Duration::from_millis(150));
    node.kill();
    let restarted = Command::new(RIVERRUN)
        .args(["dev", "--kafka", &node.address, "--data"])
        .arg(data.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut restarted = Guard(restarted);
    feeder.join().unwrap().ok();
    let mut read: Vec<i64> = node
        .run("consume t -e")
        .lines()
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    read.sort_unstable();
    assert_eq!(read, (0..40_000).collect::<Vec<_>>());
    restarted.0.kill().unwrap();
}

/// What was asked before the signal is answered, and what was answered is there.
#[test]
fn a_node_that_is_told_to_end_under_load_ends_in_peace_and_keeps_its_word() {
    let data = tempfile::tempdir().unwrap();
    for life in 0..2 {
        let mut node = Node::start_on(data.path());
        let topic = format!("t{life}");
        node.run(&format!("topic create {topic} -p 2")).ok();
        // A reader that waits for what comes next is no reason not to end.
        let reader = Command::new(RIVERRUN)
            .args(["consume", &topic, "-o", "end", "-b"])
            .arg(&node.address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut reader = Guard(reader.unwrap());
        let (address, to) = (node.address.clone(), topic.clone());
        let feeder = std::thread::spawn(move || {
            let lines: String = (0..200_000).map(|n| format!("{n}\n")).collect();
            run_with(
                &address,
                &["produce", &to, "--timeout", "3"],
                lines.as_bytes(),
            )
        });
        // Until something has been written.
        let begun = Instant::now();
        while node
            .run(&format!("consume {topic} -e -n 1"))
            .lines()
            .is_empty()
        {
            assert!(begun.elapsed() < Duration::from_secs(30));
        }
        let begun = Instant::now();
        assert_eq!(node.terminate(), Some(0));
        // The drain's limit is ten seconds, and nobody here needs it.
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{:?}",
            begun.elapsed()
        );
        assert!(!node.errors().contains("WARN"));
        reader.0.kill().unwrap();
        let fed = feeder.join().unwrap();
        // `t/P @OFFSET` for each line that was acknowledged.
        let mut ends = [0_u64; 2];
        let mut acknowledged = 0;
        for line in fed.out.lines() {
            let (place, offset) = line.split_once(" @").unwrap();
            let partition: usize = place.rsplit('/').next().unwrap().parse().unwrap();
            ends[partition] = ends[partition].max(offset.parse::<u64>().unwrap() + 1);
            acknowledged += 1;
        }
        assert!(acknowledged > 0, "{}", fed.err);
        let node = Node::start_on(data.path());
        let described = parsed(
            &node
                .run(&format!("topic describe {topic} --format json"))
                .ok(),
        );
        for (partition, end) in ends.iter().enumerate() {
            let there = &described[0]["partitions"][partition]["end_offset"];
            assert!(
                there.as_u64().unwrap() >= *end,
                "{topic}/{partition} ends at {there}, {end} were acknowledged"
            );
        }
        let read = node
            .run(&format!("consume {topic} -e -f %p|%o|%s\\n"))
            .lines();
        assert!(
            read.len() >= acknowledged,
            "{} of {acknowledged}",
            read.len()
        );
        let distinct: BTreeSet<&str> = read
            .iter()
            .map(|line| line.rsplit('|').next().unwrap())
            .collect();
        assert_eq!(distinct.len(), read.len(), "each line once");
    }
}

/// Killed when dropped.
struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn failures_name_the_cause_and_the_next_step() {
    let nobody = run_with("127.0.0.1:1", &["topic", "list", "--timeout", "1"], b"").failed(1);
    assert!(
        nobody.contains("127.0.0.1:1")
            && nobody.contains("next:")
            && nobody.contains("riverrun dev"),
        "{nobody}"
    );
    for wrong in [":0", "localhost:99999", "localhost:", "a:1,b:x"] {
        let nameless = run_with(wrong, &["topic", "list"], b"").failed(2);
        assert!(nameless.contains("host:port"), "{wrong}: {nameless}");
    }
    let node = Node::start();
    // Everything before the line that cannot be sent is written, and the line is named.
    let mut input = b"good\n".to_vec();
    input.extend(vec![b'x'; 2 << 20]);
    let long = node.feed("produce t", &input);
    assert_eq!((long.code, long.out.as_str()), (Some(1), "t/0 @0\n"));
    assert!(long.err.contains("line 2"), "{}", long.err);
    assert!(long.err.contains("next:"), "{}", long.err);
    assert!(
        node.feed("produce t -p 9", b"x\n")
            .failed(1)
            .contains("no partition 9")
    );
    node.run("topic").failed(2);
    node.run("consume t -f %q").failed(2);
}

#[test]
fn dev_refuses_what_it_should() {
    let node = Node::start();
    let dev = |args: &[&str]| run_with("", &[&["dev"], args].concat(), b"");
    let public = dev(&["--kafka", "0.0.0.0:0"]).failed(1);
    assert!(public.contains("--insecure"), "{public}");
    dev(&["--kafka", "nonsense"]).failed(2);
    let taken = dev(&["--kafka", &node.address]).failed(1);
    assert!(
        taken.contains(&node.address) && taken.contains("next: stop what listens there"),
        "{taken}"
    );
    // One directory, one node.
    let data = tempfile::tempdir().unwrap();
    let _holder = Node::start_on(data.path());
    dev(&[
        "--kafka",
        "127.0.0.1:0",
        "--data",
        data.path().to_str().unwrap(),
    ])
    .failed(1);
    // A file in the place of the directory, and a link.
    let place = tempfile::tempdir().unwrap();
    let (file, link) = (place.path().join("file"), place.path().join("link"));
    std::fs::write(&file, "mine").unwrap();
    std::os::unix::fs::symlink(data.path(), &link).unwrap();
    for wrong in [&file, &link] {
        let wrong = wrong.to_str().unwrap();
        let refused = dev(&["--kafka", "127.0.0.1:0", "--data", wrong]).failed(1);
        assert!(refused.contains(wrong), "{refused}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn scripts_are_told_where_a_node_is_in_json() {
    let data = tempfile::tempdir().unwrap();
    let mut child = Command::new(RIVERRUN)
        .args([
            "dev",
            "--kafka",
            "127.0.0.1:0",
            "--format",
            "json",
            "--data",
        ])
        .arg(data.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let _guard = Guard(child);
    let told = parsed(&line);
    assert_eq!(
        (&told["data"], &told["temporary"]),
        (&json!(data.path()), &json!(false))
    );
    let address = told["kafka"].as_str().unwrap();
    assert_eq!(run_with(address, &["topic", "list"], b"").code, Some(0));
}

#[test]
fn help_answers_at_once_and_every_command_has_it() {
    for command in [
        &[][..],
        &["dev"],
        &["topic"],
        &["topic", "list"],
        &["topic", "create"],
        &["topic", "describe"],
        &["topic", "delete"],
        &["produce"],
        &["consume"],
        &["log"],
        &["log", "dump"],
        &["log", "verify"],
    ] {
        let help = run_with("", &[command, &["--help"]].concat(), b"").ok();
        assert!(help.contains("Usage: riverrun"), "{help}");
    }
    assert!(
        run_with("", &["--version"], b"")
            .ok()
            .starts_with("riverrun ")
    );
}
