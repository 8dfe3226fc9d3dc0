//! `riverrun server` and its configuration.

use std::{
    fs,
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

use crate::node::{Node, Run, run_with};

/// What a file of Apache Kafka for one combined node names, with the values that are usual there.
const KAFKA: &str = "\
# one node, broker and controller
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093

listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,\\
    SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL

num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600

log.dirs = /var/lib/events
num.partitions=1
num.recovery.threads.per.data.dir: 1

offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1

#log.flush.interval.messages=10000
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

fn server(args: &[&str]) -> Run {
    let mut all = vec!["server"];
    all.extend(args);
    run_with("127.0.0.1:1", &all, b"")
}

/// A port that nobody listens on, and that no connection is given: it lies below those that the
/// kernel chooses from.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id() * 16 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(12_000 + next % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[test]
fn a_server_takes_its_settings_from_the_command_line_and_keeps_its_events() {
    let data = tempfile::tempdir().unwrap();
    let nodes = free_port();
    let settings = [
        "node.id=7".to_owned(),
        format!("log.dirs={}", data.path().join("node").display()),
        format!("listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:{nodes}"),
        format!("controller.quorum.voters=7@127.0.0.1:{nodes}"),
        "num.partitions=4".to_owned(),
    ];
    let mut node = Node::start_server(&[], &settings);
    let [listening, controller, kept] = node.greeting.as_slice() else {
        panic!("{:?}", node.greeting)
    };
    assert!(listening.starts_with("listening on kafka://127.0.0.1:"));
    assert_eq!(*controller, format!("controller on 127.0.0.1:{nodes}"));
    assert!(kept.ends_with("/node"), "{kept}");
    node.run("topic create t").ok();
    assert_eq!(node.feed("produce t -p 3", b"one\n").ok(), "t/3 @0\n");
    assert_eq!(node.terminate(), Some(0));
    let node = Node::start_server(&[], &settings);
    assert_eq!(node.run("consume t -e").ok(), "one\n");
}

#[test]
fn a_file_of_kafka_loads_once_nobody_counts_on_what_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.properties");
    fs::write(&file, KAFKA).unwrap();
    let file = file.to_str().unwrap();
    let check = |args: &[&str]| {
        let mut all = vec!["--config", file, "--check-config"];
        all.extend(args);
        server(&all)
    };

    // Nothing is deleted by age, and the file counts on that.
    let refused = check(&["--insecure"]).failed(2);
    let line = KAFKA.lines().position(|l| l == "log.retention.hours=168");
    let place = format!(
        "{file}:{}: invalid value 168 for log.retention.hours",
        line.unwrap() + 1
    );
    assert!(refused.contains(&place), "{refused}");

    // It listens everywhere, and nobody is asked for a password.
    let refused = check(&["--set", "log.retention.hours=-1"]).failed(2);
    assert!(
        refused.contains("0.0.0.0:9092 is not loopback") && refused.contains("0.0.0.0:9093 is not"),
        "{refused}"
    );

    let kept = [
        "--insecure",
        "--set",
        "log.retention.hours=-1",
        "--format",
        "json",
    ];
    let checked: Value = serde_json::from_str(&check(&kept).ok()).unwrap();
    let row = |name: &str| {
        let rows = checked["settings"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        (
            row["value"].as_str().unwrap(),
            row["source"].as_str().unwrap(),
        )
    };
    assert_eq!(row("log.segment.bytes"), ("1073741824", "file"));
    assert_eq!(row("log.retention.ms"), ("-1", "command-line"));
    assert_eq!(row("log.dirs"), ("/var/lib/events", "file"));
    assert_eq!(row("log.roll.ms").1, "default");
    let ignored = checked["ignored"].as_array().unwrap();
    let names: Vec<_> = ignored
        .iter()
        .map(|i| i["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            // Kafka's one node is its own bootstrap server.
            "controller.quorum.bootstrap.servers",
            "log.retention.check.interval.ms",
            "num.io.threads",
            "num.network.threads",
            "num.recovery.threads.per.data.dir",
            "offsets.topic.replication.factor",
            "share.coordinator.state.topic.min.isr",
            "share.coordinator.state.topic.replication.factor",
            "socket.receive.buffer.bytes",
            "socket.send.buffer.bytes",
            "transaction.state.log.min.isr",
            "transaction.state.log.replication.factor",
        ]
    );
    assert!(
        ignored
            .iter()
            .all(|i| i["reason"].as_str().unwrap().len() > 10)
    );
    let table = check(&kept[..3]).ok();
    assert!(
        table.starts_with("NAME")
            && table.contains("PASSED OVER")
            && table.contains("num.io.threads"),
        "{table}"
    );

    // And a node starts with it, on ports that are free.
    let listeners = "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://localhost:9093".to_owned();
    let settings = [
        listeners,
        "log.retention.hours=-1".to_owned(),
        format!("log.dirs={}", directory.path().join("data").display()),
    ];
    let mut node = Node::start_server(&["--config", file], &settings);
    node.kill();
    let errors = node.errors();
    let logged = errors.lines().filter(|line| line.contains("passed over"));
    assert_eq!(logged.count(), names.len(), "{errors}");
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_with_a_next_step() {
    for (args, says) in [
        (
            &["--set", "log.dirs=d", "--set", "num.partitons=3"][..],
            "did you mean num.partitions?",
        ),
        (
            &["--set", "log.dirs=d", "--set", "ssl.keystore.location=k"],
            "there is no TLS yet",
        ),
        (
            &[
                "--set",
                "log.dirs=d",
                "--set",
                "listeners=PLAINTEXT://0.0.0.0:0",
            ],
            "not loopback",
        ),
        (
            &[
                "--set",
                "log.dirs=d",
                "--set",
                "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://0.0.0.0:0",
            ],
            "not loopback",
        ),
        (&["--set", "node.id=1"], "log.dirs is missing"),
        (&["--config", "/no/such/file"], "cannot read /no/such/file"),
        (
            &["--set", "log.dirs=d", "--set", "process.roles=broker"],
            "process.roles",
        ),
    ] {
        let refused = server(args).failed(2);
        assert!(
            refused.contains(says) && refused.contains("next:"),
            "{refused}"
        );
    }
}

#[test]
fn how_a_node_came_to_its_cluster_is_shown_by_log_dump() {
    let data = tempfile::tempdir().unwrap();
    let nodes = free_port();
    let settings = [
        "node.id=7".to_owned(),
        format!("log.dirs={}", data.path().join("node").display()),
        format!("listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:{nodes}"),
    ];
    let mut node = Node::start_server(&[], &settings);
    assert_eq!(node.terminate(), Some(0));
    let record = data.path().join("node/node/cluster");
    let args = ["log", "dump", record.to_str().unwrap(), "--format", "json"];
    let shown = run_with("127.0.0.1:1", &args, b"").ok();
    let lines: Vec<Value> = shown
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let of_type = |name: &str| lines.iter().find(|line| line["type"] == name).unwrap();
    assert_eq!(of_type("cluster")["founded"], true);
    let member = of_type("member");
    assert_eq!(
        (&member["node"], &member["replica"]),
        (&7.into(), &1.into())
    );
    assert_eq!(member["port"], nodes);
    let mut bytes = fs::read(&record).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&record, bytes).unwrap();
    let damaged = run_with("127.0.0.1:1", &args, b"");
    assert_eq!(damaged.code, Some(1));
    assert!(damaged.out.contains("checksum"), "{}", damaged.out);
}

#[test]
fn the_voters_of_a_cluster_are_checked_without_starting_anything() {
    const VOTERS: &str =
        "controller.quorum.voters=1@127.0.0.1:9093,2@127.0.0.1:9193,3@127.0.0.1:9293";
    let data = tempfile::tempdir().unwrap();
    let directory = format!("log.dirs={}", data.path().join("node").display());
    let args = vec![
        "--set",
        "node.id=1",
        "--set",
        &directory,
        "--set",
        VOTERS,
        "--check-config",
    ];
    assert!(server(&args).ok().contains("2@127.0.0.1:9193"));
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
}
