//! `riverrun cluster` against one node and against three.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use serde_json::{Value, json};

use crate::{
    node::{Node, RIVERRUN, run_with},
    server::free_port,
};

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
        json!([{"node": 5, "address": node.address, "rack": null, "fenced": false}])
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
            "fenced": [],
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

/// One of three nodes, which founds a cluster with the others or comes back to it.
fn start_one_of_three(id: usize, ports: &[u16], data: &Path) -> Node {
    let voters = ports.iter().zip(1..);
    let voters: Vec<_> = voters
        .map(|(port, id)| format!("{id}@127.0.0.1:{port}"))
        .collect();
    let settings = [
        format!("node.id={id}"),
        format!("log.dirs={}", data.join(id.to_string()).display()),
        format!(
            "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:{}",
            ports[id - 1]
        ),
        format!("controller.quorum.voters={}", voters.join(",")),
        "broker.session.timeout.ms=1000".to_owned(),
    ];
    Node::start_server(&[], &settings)
}

#[test]
fn a_cluster_without_one_of_its_nodes_is_not_healthy() {
    let data = tempfile::tempdir().unwrap();
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let start = |id| start_one_of_three(id, &ports, data.path());
    let start = &start;
    // None of them is ready before the others have come.
    let mut nodes: Vec<Node> = thread::scope(|scope| {
        let starting: Vec<_> = (1..=3).map(|id| scope.spawn(move || start(id))).collect();
        starting
            .into_iter()
            .map(|node| node.join().unwrap())
            .collect()
    });
    let wait = "cluster health --exit-when-healthy";
    nodes[0].run("topic create t -p 3 -r 3").ok();
    nodes[0].run(wait).ok();

    let mut gone = nodes.remove(1);
    gone.kill();
    let mut report = Value::Null;
    // Until the controller has taken it for gone.
    for _ in 0..600 {
        let health = nodes[0].run("cluster health --format json");
        report = serde_json::from_str(&health.out).unwrap();
        assert_eq!(
            health.code,
            Some(if report["healthy"] == true { 0 } else { 10 })
        );
        if report["fenced"] == json!([2]) {
            break;
        }
        thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(
        (
            &report["brokers"],
            &report["fenced"],
            &report["missing_voters"]
        ),
        (&json!([1, 3]), &json!([2]), &json!([2]))
    );
    assert_eq!(report["offline"].as_array().unwrap().len(), 3);
    let table = nodes[1].run("cluster info").ok();
    assert!(table.contains("gone"), "{table}");

    let back = start(2);
    back.run(wait).ok();
}
