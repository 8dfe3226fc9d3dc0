//! A restarted broker begins with an image of the cluster's state, or with an older one, or without.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};

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
