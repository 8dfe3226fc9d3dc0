//! The controller's log and image: its commands are shown as what they are, and what is none is
//! named.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use riverrun_record::{BatchBuilder, Compression, NO_TIMESTAMP, stamp};
use riverrun_replication::controller::{
    AddPartitions, AllocateProducerIds, Command, Controller, CreateTopic, FenceBroker,
    FoundCluster, Founder, MarkTopicClosing, NewPartition, OnWord, RegisterBroker, RemoveTopic,
    ReplaceReplica, Room, SetTopicConfigs, TopicsGone, encode_batch,
};
use riverrun_replication::node::CONTROLLER_DIR;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::data::Data;
use crate::run::{Said, dump, verify};

const LOG: &str = "00000000000000000000.log";
const JSON: [&str; 3] = ["--records", "--format", "json"];
const TOPIC: u128 = 0x0123;

fn bytes(id: u128) -> Vec<u8> {
    Uuid::from_u128(id).as_bytes().to_vec()
}

fn nodes(nodes: &[i32]) -> NewPartition {
    NewPartition {
        nodes: nodes.to_vec(),
    }
}

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// One of each kind, in an order that makes sense.
pub(crate) fn commands() -> Vec<Command> {
    vec![
        Command::FoundCluster(FoundCluster {
            cluster_id: bytes(0xc1),
            founders: vec![Founder {
                node: 7,
                directory: bytes(0xd1),
                replica: 1,
            }],
        }),
        Command::RegisterBroker(RegisterBroker {
            node: 7,
            directory: bytes(0xd1),
            incarnation: 3,
            host: "a.example".to_owned(),
            port: 9092,
            rack: "r1".to_owned(),
            peer_host: "b.example".to_owned(),
            peer_port: 9093,
            token: 5,
            replaces: None,
            room: Some(Room {
                descriptors: 1024,
                replicas: 119,
            }),
        }),
        Command::FenceBroker(FenceBroker {
            node: 7,
            fenced: false,
        }),
        Command::CreateTopic(CreateTopic {
            name: "orders".to_owned(),
            id: bytes(TOPIC),
            partitions: vec![nodes(&[7]), nodes(&[7])],
            configs: settings(&[("segment.bytes", "65536"), ("write.caching", "true")]),
        }),
        Command::AddPartitions(AddPartitions {
            id: bytes(TOPIC),
            first: 2,
            partitions: vec![nodes(&[7])],
        }),
        Command::SetTopicConfigs(SetTopicConfigs {
            id: bytes(TOPIC),
            set: settings(&[("max.message.bytes", "2000")]),
            unset: vec!["write.caching".to_owned()],
        }),
        Command::AllocateProducerIds(AllocateProducerIds { count: 1000 }),
        Command::ReplaceReplica(ReplaceReplica {
            id: bytes(TOPIC),
            partition: 1,
            old: 1_048_577,
            node: 7,
            on_word: Some(OnWord {
                others: vec![1_048_578, 1_048_579],
                settled: true,
            }),
        }),
        Command::MarkTopicClosing(MarkTopicClosing { id: bytes(TOPIC) }),
        Command::RemoveTopic(RemoveTopic { id: bytes(0x99) }),
        Command::TopicsGone(TopicsGone {
            node: 7,
            topics: vec![bytes(0x99)],
        }),
    ]
}

/// What must be shown of them, apart from the file.
fn expected() -> Vec<Value> {
    let topic = Uuid::from_u128(TOPIC).to_string();
    let fields = [
        json!({"command": "FoundCluster", "cluster_id": Uuid::from_u128(0xc1).to_string(),
            "founders": [7]}),
        json!({"command": "RegisterBroker", "node": 7,
            "directory_id": Uuid::from_u128(0xd1).to_string(), "incarnation": 3,
            "host": "a.example", "port": 9092, "rack": "r1",
            "peer_host": "b.example", "peer_port": 9093, "descriptors": 1024, "room": 119}),
        json!({"command": "FenceBroker", "node": 7, "fenced": false}),
        json!({"command": "CreateTopic", "name": "orders", "topic_id": topic,
            "partitions": [[7], [7]],
            "configs": {"segment.bytes": "65536", "write.caching": "true"}}),
        json!({"command": "AddPartitions", "topic_id": topic, "first": 2, "partitions": [[7]]}),
        json!({"command": "SetTopicConfigs", "topic_id": topic,
            "set": {"max.message.bytes": "2000"}, "unset": ["write.caching"]}),
        json!({"command": "AllocateProducerIds", "count": 1000}),
        json!({"command": "ReplaceReplica", "topic_id": topic, "partition": 1,
            "old_replica": 1_048_577, "node": 7, "on_word_of": [1_048_578, 1_048_579], "settled": true}),
        json!({"command": "MarkTopicClosing", "topic_id": topic}),
        json!({"command": "RemoveTopic", "topic_id": Uuid::from_u128(0x99).to_string()}),
        json!({"command": "TopicsGone", "node": 7,
            "topic_ids": [Uuid::from_u128(0x99).to_string()]}),
    ];
    let mut lines = Vec::new();
    for (offset, mut line) in fields.into_iter().enumerate() {
        line["type"] = json!("command");
        line["offset"] = json!(offset);
        line["version"] = json!(1);
        lines.push(line);
    }
    lines
}

/// The commands that were shown, apart from the file.
fn shown(said: &Said) -> Vec<Value> {
    let mut lines = said.lines("command");
    for line in &mut lines {
        line.as_object_mut().unwrap().remove("file");
    }
    lines
}

#[test]
fn every_command_is_shown_with_its_fields() {
    let data = Data::stopped();
    let dir = data.path().join(CONTROLLER_DIR);
    let said = dump(&dir.join(LOG), &JSON);
    assert_eq!(said.status, Some(0), "{said:?}");
    assert_eq!(shown(&said), expected());
    assert!(said.lines("record").is_empty());
    assert_eq!(said.lines("batch").len(), 1);
    let wal = dump(&data.path().join("node/wal"), &JSON);
    assert_eq!(shown(&wal), expected(), "in the WAL");
    assert!(!wal.lines("record").is_empty(), "those of other groups");
    let some = dump(
        &dir.join(LOG),
        &["--records", "--from", "2", "--to", "3", "--format", "json"],
    );
    assert_eq!(shown(&some), expected()[2..=3]);

    let said = dump(&dir.join(LOG), &["--records"]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        lines[4],
        "command: offset=1  version=1  command=RegisterBroker  node=7  \
         directory_id=00000000-0000-0000-0000-0000000000d1  incarnation=3  host=a.example  \
         port=9092  rack=r1  peer_host=b.example  peer_port=9093  \
         descriptors=1024  room=119"
    );
    assert_eq!(
        lines[5],
        "command: offset=2  version=1  command=FenceBroker  node=7  fenced=false"
    );
    assert_eq!(
        lines[6],
        "command: offset=3  version=1  command=CreateTopic  name=orders  \
         topic_id=00000000-0000-0000-0000-000000000123  partitions=[[7], [7]]  \
         configs={segment.bytes=65536, write.caching=true}"
    );
}

#[test]
fn a_log_of_the_controller_is_known_by_its_directory_or_its_sidecar() {
    let data = Data::stopped();
    let dir = data.path().join(CONTROLLER_DIR);
    let copy = tempfile::tempdir().unwrap();
    fs::copy(dir.join(LOG), copy.path().join(LOG)).unwrap();
    let said = dump(&copy.path().join(LOG), &JSON);
    assert_eq!(said.lines("record").len(), expected().len());
    assert!(said.lines("command").is_empty());
    let raft = LOG.replace(".log", ".raft");
    fs::copy(dir.join(&raft), copy.path().join(&raft)).unwrap();
    assert_eq!(shown(&dump(&copy.path().join(LOG), &JSON)), expected());
    // Those of any other partition are what their producers made of them.
    let other = dump(&data.files(".log")[0], &JSON);
    assert!(other.lines("command").is_empty() && !other.lines("record").is_empty());
}

/// A segment of group 0 with one batch of such records.
fn segment(dir: &Path, compression: Compression, values: &[Option<&[u8]>]) -> PathBuf {
    let mut builder = BatchBuilder::new(compression, None);
    for value in values {
        builder.append(NO_TIMESTAMP, None, *value, &[]).unwrap();
    }
    let mut batch = builder.build_mut().unwrap();
    stamp(&mut batch, 0, 1);
    let dir = dir.join(CONTROLLER_DIR);
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(LOG);
    fs::write(&path, batch).unwrap();
    path
}

#[test]
fn what_is_no_command_is_named_and_shown_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let good = [1, 0x4a, 3, 8, 0xe8, 7];
    for (what, value, why) in [
        ("another version", Some(&b"\x02\x0a\x00"[..]), "version"),
        ("no version", Some(&b""[..]), "version"),
        ("no value", None, "no value"),
        (
            "nothing known",
            Some(&b"\x01\xfa\x01\x00"[..]),
            "does not know",
        ),
        (
            "half a message",
            Some(&b"\x01\x0a\x7f"[..]),
            "cannot be decoded",
        ),
    ] {
        let log = segment(
            dir.path(),
            Compression::None,
            &[Some(&good), value, Some(&good)],
        );
        let said = dump(&log, &JSON);
        said.names(&log, 0..1);
        let damage = said.lines("damage");
        assert_eq!(damage.len(), 1, "{what}: {said:?}");
        let said_why = damage[0]["what"].as_str().unwrap();
        assert!(
            said_why.contains(why) && said_why.contains("offset 1"),
            "{what}: {said_why}"
        );
        assert_eq!(said.lines("record")[0]["offset"], 1, "{what}");
        let counts: Vec<Value> = said
            .lines("command")
            .iter()
            .map(|line| line["count"].clone())
            .collect();
        assert_eq!(counts, [json!(1000), json!(1000)], "{what}");
    }
    let log = segment(dir.path(), Compression::Gzip, &[Some(&good)]);
    let said = dump(&log, &JSON);
    said.names(&log, 0..1);
    assert_eq!(said.lines("command").len(), 1);
}

#[test]
fn commands_of_random_bytes_are_survived() {
    let seed = RandomState::new().hash_one(std::process::id());
    eprintln!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let whole = encode_batch(&commands()).unwrap();
    let sound: Vec<Vec<u8>> = riverrun_record::BatchView::parse(&whole)
        .unwrap()
        .plain_records()
        .unwrap()
        .map(|record| record.unwrap().value.unwrap().to_vec())
        .collect();
    for _ in 0..20 {
        let values: Vec<Vec<u8>> = (0..200)
            .map(|n: usize| {
                let mut value = sound[n % sound.len()].clone();
                if n.is_multiple_of(3) {
                    let len = random.random_range(1..60);
                    value = (0..len).map(|_| random.random()).collect();
                    value[0] = 1;
                }
                for _ in 0..random.random_range(1..4) {
                    let at = random.random_range(0..value.len());
                    value[at] = random.random();
                }
                value
            })
            .collect();
        let values: Vec<Option<&[u8]>> = values.iter().map(|value| Some(&value[..])).collect();
        let log = segment(dir.path(), Compression::None, &values);
        let said = dump(&log, &JSON);
        let shown = said.lines("command").len() + said.lines("record").len();
        assert_eq!(
            shown,
            values.len(),
            "every record is shown as one or the other"
        );
        assert_eq!(said.lines("record").len(), said.lines("damage").len());
        dump(&log, &["--records"]);
    }
}

#[test]
fn an_image_is_shown_whole_and_held_against_its_name() {
    let data = Data::stopped();
    let mut controller = Controller::new();
    for command in &commands()[..5] {
        controller.apply(command);
    }
    let mut batch = encode_batch(&commands()[6..7]).unwrap();
    stamp(&mut batch, 16, 2);
    controller.apply_batch(&batch).unwrap();
    let dir = data.path().join(CONTROLLER_DIR);
    let path = dir.join("17-2.checkpoint");
    fs::write(&path, controller.checkpoint()).unwrap();
    let said = dump(&path, &["--format", "json"]);
    assert_eq!(said.status, Some(0), "{said:?}");
    let image = &said.lines("image")[0];
    assert_eq!(image["next_offset"], 17);
    assert_eq!(image["next_producer_id"], 1000);
    let directory_id = Uuid::from_u128(0xd1).to_string();
    let broker = &said.lines("broker")[0];
    assert_eq!(
        (&broker["rack"], &broker["directory_id"]),
        (&json!("r1"), &json!(directory_id))
    );
    let controller = &said.lines("controller")[0];
    assert_eq!(
        (&controller["replica"], &controller["votes"]),
        (&json!(1), &json!(true))
    );
    let directory = &said.lines("directory")[0];
    assert_eq!(
        (&directory["directory_id"], &directory["incarnation"]),
        (&json!(directory_id), &json!(3))
    );
    let topic = &said.lines("topic")[0];
    assert_eq!(
        (&topic["name"], &topic["partitions"]),
        (&json!("orders"), &json!(3))
    );
    assert_eq!(topic["configs"]["segment.bytes"], "65536");
    let (partitions, replicas) = (said.lines("partition"), said.lines("replica"));
    assert_eq!((partitions.len(), replicas.len()), (3, 3));
    assert_eq!(
        partitions[0]["first_voters"],
        json!([replicas[0]["replica"]])
    );
    assert_eq!(
        (&replicas[2]["partition"], &replicas[2]["node"]),
        (&json!(2), &json!(7))
    );
    assert!(
        dump(&path, &[])
            .out
            .contains("configs={segment.bytes=65536, write.caching=true}")
    );
    assert_eq!(verify(data.path()).status, Some(0));

    let misnamed = dir.join("18-2.checkpoint");
    fs::rename(&path, &misnamed).unwrap();
    dump(&misnamed, &["--format", "json"]).names(&misnamed, 8..9);
    // Every byte of it counts.
    let whole = fs::read(&misnamed).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        fs::write(&path, bytes).unwrap();
        // The reserved bytes are in the checksum too.
        assert_eq!(dump(&path, &[]).status, Some(1), "byte {at}");
    }
}
