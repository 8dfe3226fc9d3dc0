//! `riverrun cluster` against one node.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::node::{Node, RIVERRUN, run_with};

#[test]
fn the_nodes_of_a_cluster_are_shown() {
    let data = tempfile::tempdir().unwrap();
    let settings = [
        "node.id=5".to_owned(),
        format!("log.dirs={}", data.path().join("node").display()),
        "listeners=PLAINTEXT://127.0.0.1:0".to_owned(),
    ];
    let node = Node::start_server(&[], &settings);
    let info: Value = serde_json::from_str(&node.run("cluster info --format json").ok()).unwrap();
    assert_eq!(
        info["brokers"],
        json!([{"node": 5, "address": node.address, "rack": null}])
    );
    let controller = &info["controller"];
    assert_eq!(controller["leader"], 5);
    let replica = &controller["replicas"][0];
    assert_eq!(
        (&replica["node"], &replica["role"]),
        (&json!(5), &json!("leader"))
    );
    assert!(replica["end_offset"].as_i64() >= controller["high_watermark"].as_i64());
    let table = node.run("cluster info").ok();
    assert!(
        table.contains(&node.address) && table.contains("leader"),
        "{table}"
    );
    assert!(table.contains(info["id"].as_str().unwrap()), "{table}");
}

#[test]
fn a_node_that_is_well_is_healthy() {
    let node = Node::start();
    node.run("topic create t -p 3").ok();
    let table = node.run("cluster health").ok();
    assert!(table.starts_with("healthy           yes\n"), "{table}");
    let report: Value =
        serde_json::from_str(&node.run("cluster health --format json").ok()).unwrap();
    assert_eq!(
        report,
        json!({
            "healthy": true,
            "brokers": [1],
            "controller": 1,
            "voters": [1],
            "missing_voters": [],
            "partitions": 3,
            "leaderless": [],
            "under_replicated": [],
            "offline": [],
        })
    );
    run_with("127.0.0.1:1", &["cluster", "health"], b"").failed(1);
}

/// It is asked before there is anything to ask.
#[test]
fn waiting_for_health_ends_when_a_node_is_there() {
    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start_on(data.path());
    node.kill();
    let waiting = Command::new(RIVERRUN)
        .args([
            "cluster",
            "health",
            "--exit-when-healthy",
            "--timeout",
            "1",
            "-b",
        ])
        .arg(&node.address)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut waiting = waiting.unwrap();
    // It has looked once and found nobody.
    let mut errors = BufReader::new(waiting.stderr.take().unwrap());
    let mut first = String::new();
    errors.read_line(&mut first).unwrap();
    assert!(first.starts_with("error:"), "{first}");
    let _node = node.start_again(data.path());
    let ended = waiting.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let text = String::from_utf8(ended.stdout).unwrap();
    assert!(text.starts_with("healthy           yes\n"), "{text}");
}
