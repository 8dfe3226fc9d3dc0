//! A restarted broker begins with an image of the cluster's state, or with an older one, or without.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests, and the wall clock ends one that waits"
)]

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Broker, batch};
use riverrun_wire::api::{MetadataRequest, ProduceRequest};
use tempfile::TempDir;

fn images(data: &Path) -> Vec<PathBuf> {
    let dir = data.join("data/__cluster_metadata-0");
    let mut images: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "checkpoint"))
        .collect();
    images.sort();
    images
}

/// A broker that writes an image behind every command.
fn start(data: TempDir) -> Broker {
    Broker::on(data, |config| config.controller_checkpoint_bytes = 1)
}

/// Images are written beside what is served.
fn until_imaged(data: &Path, topic: &str) {
    let begun = Instant::now();
    let holds = |image: PathBuf| {
        let bytes = std::fs::read(image).unwrap_or_default();
        bytes
            .windows(topic.len())
            .any(|window| window == topic.as_bytes())
    };
    while !images(data).into_iter().any(holds) {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "no image has {topic}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn topics(broker: &Broker) -> Vec<String> {
    let request = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let response = broker.client().call(&request, 12);
    let names = response.topics.into_iter();
    names.map(|topic| topic.name.unwrap()).collect()
}

#[test]
fn topics_are_found_again_whatever_became_of_the_images() {
    let broker = start(tempfile::tempdir().unwrap());
    for name in ["a", "b", "c", "d"] {
        broker.client().create(name, 2, &[]);
    }
    let data = broker.stop();
    let whole = images(data.path());
    assert!((1..=2).contains(&whole.len()), "{whole:?}");

    let broker = start(data);
    assert_eq!(topics(&broker), ["a", "b", "c", "d"]);
    let produced = broker.client().produce("c", batch(&[b"x"]).freeze());
    assert_eq!((produced.error_code, produced.base_offset), (0, 0));
    broker.client().create("e", 1, &[]);
    let data = broker.stop();

    // The newest is damaged.
    let newest = images(data.path()).pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let broker = start(data);
    assert_eq!(topics(&broker), ["a", "b", "c", "d", "e"]);
    broker.client().create("f", 1, &[]);
    let data = broker.stop();

    // All of them are.
    for image in images(data.path()) {
        std::fs::write(image, b"RRCK").unwrap();
    }
    let broker = start(data);
    assert_eq!(topics(&broker), ["a", "b", "c", "d", "e", "f"]);
    // Ids go on where they were: nothing is given out twice.
    broker.client().create("g", 1, &[]);
    let request = common::produce_request("g", 0, -1, batch(&[b"x"]).freeze());
    let row = common::only_row(broker.client().call::<ProduceRequest>(&request, 9));
    assert_eq!((row.error_code, row.base_offset), (0, 0));
    broker.stop();
}

#[test]
fn without_enough_commands_there_is_no_image() {
    let broker = Broker::start();
    broker.client().create("few", 1, &[]);
    let data = broker.stop();
    assert_eq!(images(data.path()), Vec::<PathBuf>::new());
}

#[test]
fn the_only_node_serves_its_partitions_where_group_0_cannot_be_read() {
    let broker = start(tempfile::tempdir().unwrap());
    broker.client().create("kept", 1, &[]);
    let produced = broker.client().produce("kept", batch(&[b"x"]).freeze());
    assert_eq!((produced.error_code, produced.base_offset), (0, 0));
    for n in 0..8 {
        broker.client().create(&format!("other-{n}"), 1, &[]);
    }
    until_imaged(broker.data.path(), "kept");
    let data = broker.stop();
    let dir = data.path().join("data/__cluster_metadata-0");
    let mut logs: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    logs.sort();
    let log = logs.pop().unwrap();
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, &whole[..whole.len() / 2]).unwrap();

    // The image says which topics there were; nobody can change that.
    let broker = start(data);
    assert!(topics(&broker).contains(&"kept".to_owned()));
    let produced = broker.client().produce("kept", batch(&[b"y"]).freeze());
    assert_eq!((produced.error_code, produced.base_offset), (0, 1));
    let refused = broker.client().create_with("new", 1, &[]);
    assert_ne!(refused.topics[0].error_code, 0);
    let data = broker.stop();
    assert_eq!(std::fs::read(&log).unwrap(), whole[..whole.len() / 2]);

    // With the file brought back all is as it was.
    std::fs::write(&log, &whole).unwrap();
    let broker = start(data);
    let produced = broker.client().produce("kept", batch(&[b"z"]).freeze());
    assert_eq!((produced.error_code, produced.base_offset), (0, 2));
    broker.client().create("new", 1, &[]);
    assert_eq!(topics(&broker).len(), 10);
    broker.stop();
}
