#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use riverrun_record::stamp;
use uuid::Uuid;

use super::*;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn bytes(n: u128) -> Vec<u8> {
    id(n).as_bytes().to_vec()
}

fn broker(node: i32, directory: u128, incarnation: u64, rack: &str) -> RegisterBroker {
    RegisterBroker {
        node,
        directory: bytes(directory),
        incarnation,
        host: format!("host{node}"),
        port: 9092,
        rack: rack.to_owned(),
        ..RegisterBroker::default()
    }
}

/// Three brokers in one cluster.
fn three() -> Controller {
    let mut controller = Controller::new();
    let found = FoundCluster {
        cluster_id: bytes(77),
        ..FoundCluster::default()
    };
    assert_eq!(
        controller.apply(&Command::FoundCluster(found)),
        Outcome::Done
    );
    for node in 1..=3 {
        let command = controller
            .plan_register_broker(broker(node, 100 + u128::from(node.unsigned_abs()), 1, "r"))
            .unwrap();
        assert_eq!(controller.apply(&command), Outcome::Done);
    }
    controller
}

fn request(name: &str, topic: u128, partitions: i32) -> CreateTopicRequest {
    CreateTopicRequest {
        name: name.to_owned(),
        id: id(topic),
        partitions,
        ..CreateTopicRequest::default()
    }
}

fn create(controller: &mut Controller, request: CreateTopicRequest) -> Outcome {
    let command = controller.plan_create_topic(request).unwrap();
    controller.apply(&command)
}

#[test]
fn a_topic_gets_groups_and_replicas_that_nobody_else_has() {
    let mut controller = three();
    let created = create(&mut controller, request("a", 1, 4));
    assert_eq!(
        created,
        Outcome::Partitions {
            topic: id(1),
            first_partition: 0,
            first_group: 1,
            count: 4
        }
    );
    create(&mut controller, request("b", 2, 2));
    let add = controller
        .plan_create_partitions(&id(1), 6, None, 0)
        .unwrap();
    let added = controller.apply(&add);
    assert_eq!(
        added,
        Outcome::Partitions {
            topic: id(1),
            first_partition: 4,
            first_group: 7,
            count: 2
        }
    );
    let partitions: Vec<&PartitionImage> = controller
        .image()
        .topics
        .values()
        .flat_map(|topic| &topic.partitions)
        .collect();
    assert!(
        partitions
            .iter()
            .all(|partition| partition.replicas.len() == 3)
    );
    let groups: BTreeSet<u64> = partitions.iter().map(|partition| partition.group).collect();
    let replicas: BTreeSet<u64> = partitions
        .iter()
        .flat_map(|p| p.replicas.iter().map(|r| r.replica))
        .collect();
    assert_eq!((groups.len(), replicas.len()), (8, 24));
    // Repeating the command adds nothing.
    assert!(matches!(
        controller.apply(&add),
        Outcome::Rejected(Rejection::InvalidPartitions { .. })
    ));
}

#[test]
fn two_plans_made_side_by_side_do_not_collide() {
    let mut controller = three();
    let one = controller.plan_create_topic(request("a", 1, 3)).unwrap();
    let two = controller.plan_create_topic(request("b", 2, 3)).unwrap();
    let same_name = controller.plan_create_topic(request("a", 3, 3)).unwrap();
    assert!(matches!(
        controller.apply(&one),
        Outcome::Partitions { first_group: 1, .. }
    ));
    assert!(matches!(
        controller.apply(&two),
        Outcome::Partitions { first_group: 4, .. }
    ));
    assert_eq!(
        controller.apply(&same_name),
        Outcome::Rejected(Rejection::TopicExists)
    );
    assert_eq!(controller.image().topics.len(), 2);
}

#[test]
fn says_why_a_topic_cannot_be_created() {
    let mut controller = three();
    create(&mut controller, request("a.b", 1, 1));
    let plan = |request| controller.plan_create_topic(request).unwrap_err();
    assert_eq!(plan(request("a.b", 2, 1)), Rejection::TopicExists);
    let collides = Rejection::CollidingTopicName {
        other: "a.b".to_owned(),
    };
    assert_eq!(plan(request("a_b", 2, 1)), collides);
    assert!(matches!(
        plan(request("a/b", 2, 1)),
        Rejection::InvalidTopicName { .. }
    ));
    for partitions in [0, -1, 10_001, i32::MIN] {
        assert!(matches!(
            plan(request("x", 2, partitions)),
            Rejection::InvalidPartitions { .. }
        ));
    }
    for replication in [0, 4, 16, u16::MAX] {
        let request = CreateTopicRequest {
            replication: Some(replication),
            ..request("x", 2, 1)
        };
        assert!(matches!(
            plan(request),
            Rejection::InvalidReplicationFactor { .. }
        ));
    }
    let assigned = [
        vec![vec![]],
        vec![vec![1, 1]],
        vec![vec![9]],
        vec![vec![1, 2], vec![1]],
    ];
    for assignments in assigned {
        let request = CreateTopicRequest {
            assignments: Some(assignments),
            ..request("x", 2, 1)
        };
        assert!(matches!(plan(request), Rejection::InvalidAssignment { .. }));
    }
}

#[test]
fn chosen_brokers_are_kept_in_their_order() {
    let mut controller = three();
    let chosen = vec![vec![3, 1], vec![2, 3]];
    let asked = CreateTopicRequest {
        assignments: Some(chosen.clone()),
        ..request("a", 1, -1)
    };
    create(&mut controller, asked);
    let nodes: Vec<Vec<i32>> = controller.image().topics[&id(1)]
        .partitions
        .iter()
        .map(|partition| {
            partition
                .replicas
                .iter()
                .map(|replica| replica.node)
                .collect()
        })
        .collect();
    assert_eq!(nodes, chosen);
}

#[test]
fn a_deleted_topic_keeps_its_name_until_it_is_removed() {
    let mut controller = three();
    create(&mut controller, request("a", 1, 1));
    assert_eq!(
        controller.plan_remove_topic(&id(1)).unwrap_err(),
        Rejection::TopicNotClosing
    );
    let mark = controller.plan_delete_topic(&id(1)).unwrap();
    assert_eq!(controller.apply(&mark), Outcome::Done);
    assert_eq!(controller.apply(&mark), Outcome::Unchanged);
    assert_eq!(
        controller
            .plan_create_topic(request("a", 2, 1))
            .unwrap_err(),
        Rejection::TopicExists
    );
    let refused = controller
        .plan_create_partitions(&id(1), 2, None, 0)
        .unwrap_err();
    assert_eq!(refused, Rejection::TopicClosing);
    let remove = controller.plan_remove_topic(&id(1)).unwrap();
    assert_eq!(controller.apply(&remove), Outcome::Done);
    let created = create(&mut controller, request("a", 2, 1));
    assert_eq!(
        created,
        Outcome::Partitions {
            topic: id(2),
            first_partition: 0,
            first_group: 2,
            count: 1
        }
    );
}

#[test]
fn nothing_is_placed_on_a_fenced_broker() {
    let mut controller = three();
    controller.apply(&Command::FenceBroker(FenceBroker {
        node: 2,
        fenced: true,
    }));
    create(&mut controller, request("a", 1, 20));
    for partition in &controller.image().topics[&id(1)].partitions {
        assert_eq!(partition.replicas.len(), 2);
        assert!(partition.replicas.iter().all(|replica| replica.node != 2));
    }
}

/// R3: a restored disk is lost, and a new disk's replicas are replaced under new ids.
#[test]
fn a_restored_or_new_disk_is_noticed() {
    let mut controller = three();
    create(&mut controller, request("a", 1, 1));
    let left_behind = |controller: &Controller, directory| {
        let image = controller.image();
        let left = image.left_behind(1, Uuid::from_u128(directory));
        let left: Vec<(usize, ReplicaImage)> = left.map(|(_, n, at)| (n, *at)).collect();
        left
    };
    assert!(left_behind(&controller, 101).is_empty());
    let start = |incarnation| controller.plan_register_broker(broker(1, 101, incarnation, "r"));
    assert!(start(1).is_ok(), "the same life may repeat itself");
    assert!(start(2).is_ok());
    let stolen = controller
        .plan_register_broker(broker(2, 101, 9, "r"))
        .unwrap_err();
    assert_eq!(stolen, Rejection::DirectoryOfAnotherNode { node: 1 });
    controller.apply(&Command::RegisterBroker(broker(1, 101, 5, "r")));
    let restored = controller
        .plan_register_broker(broker(1, 101, 4, "r"))
        .unwrap_err();
    assert_eq!(restored, Rejection::StaleIncarnation { given: 4, seen: 5 });

    controller.apply(&Command::RegisterBroker(broker(1, 999, 1, "r")));
    // The old directory cannot come back as what it was when the new one took its place.
    let back = controller
        .plan_register_broker(broker(1, 101, 5, "r"))
        .unwrap_err();
    assert_eq!(back, Rejection::StaleIncarnation { given: 5, seen: 5 });
    let lost = left_behind(&controller, 999);
    assert_eq!(lost.len(), 1);
    let (partition, replica) = lost[0];
    let replace = controller
        .plan_replace_replica(&id(1), partition, replica.replica, replica.node, None)
        .unwrap();
    let next = controller.image().next_replica;
    assert_eq!(
        controller.apply(&replace),
        Outcome::Replaced {
            group: 1,
            old: replica.replica,
            new: next
        }
    );
    assert!(left_behind(&controller, 999).is_empty());
    // Repeating the command replaces nothing.
    assert!(matches!(controller.apply(&replace), Outcome::Rejected(_)));
}

/// R9: the word on which a replica may go is worth nothing when another one has gone meanwhile.
#[test]
fn an_order_on_an_old_word_changes_nothing() {
    let mut controller = three();
    create(&mut controller, request("a", 1, 3));
    let replicas = |controller: &Controller| -> Vec<u64> {
        let partition = &controller.image().topics[&id(1)].partitions[0];
        partition.replicas.iter().map(|at| at.replica).collect()
    };
    let before = replicas(&controller);
    let replace = |controller: &Controller, old: usize, node| {
        let mut others = before.clone();
        others.remove(old);
        let on_word = OnWord {
            others,
            settled: true,
        };
        controller.plan_replace_replica(&id(1), 0, before[old], node, Some(on_word))
    };
    let node_of = |at: usize| controller.image().topics[&id(1)].partitions[0].replicas[at].node;
    let late = replace(&controller, 2, node_of(2)).unwrap();
    let first = replace(&controller, 1, node_of(1)).unwrap();
    assert!(matches!(controller.apply(&first), Outcome::Replaced { .. }));
    let after = replicas(&controller);
    assert_eq!(
        controller.apply(&late),
        Outcome::Rejected(Rejection::OldWord)
    );
    assert_eq!(replicas(&controller), after);
}

/// L8: whoever may still be a voter counts, until a word says that the group has followed.
#[test]
fn a_topic_whose_replicas_move_is_closed_when_no_possible_voters_are_left() {
    let mut controller = three();
    let alone = CreateTopicRequest {
        replication: Some(1),
        ..request("a", 1, 1)
    };
    create(&mut controller, alone);
    let only = |controller: &Controller| {
        let partition = &controller.image().topics[&id(1)].partitions[0];
        (partition.replicas[0], partition.before.len())
    };
    let moves = |controller: &mut Controller, node, settled: bool| {
        let on_word = settled.then(|| OnWord {
            others: Vec::new(),
            settled,
        });
        let old = only(controller).0.replica;
        let planned = controller.plan_replace_replica(&id(1), 0, old, node, on_word);
        let outcome = controller.apply(&planned.unwrap());
        let copy = Controller::from_checkpoint(&controller.checkpoint()).unwrap();
        assert_eq!(copy.image(), controller.image());
        outcome
    };
    let first = only(&controller).0.node;
    let [second, third] = [first % 3 + 1, (first + 1) % 3 + 1];
    moves(&mut controller, second, true);
    moves(&mut controller, third, false);
    assert_eq!(only(&controller).1, 2);
    controller.apply(&controller.plan_delete_topic(&id(1)).unwrap());
    let mut closed = ClosedTopics::default();
    let is_closed = |controller: &Controller, closed: &ClosedTopics| {
        !controller.duties(|_| Some(false), closed).is_empty()
    };
    for node in [third, second] {
        closed.closed(id(1), node);
        assert!(!is_closed(&controller, &closed), "node {first} may lead");
    }
    closed.closed(id(1), first);
    assert!(is_closed(&controller, &closed));
}

#[test]
fn what_moved_is_forgotten_on_a_word_and_a_bound_holds_without_one() {
    let mut controller = three();
    let alone = CreateTopicRequest {
        replication: Some(1),
        ..request("a", 1, 1)
    };
    create(&mut controller, alone);
    let mut now = controller.image().topics[&id(1)].partitions[0].replicas[0];
    let mut at = now.node;
    let mut moves = |controller: &mut Controller, node, settled| {
        let on_word = OnWord {
            others: Vec::new(),
            settled,
        };
        let planned = controller.plan_replace_replica(&id(1), 0, now.replica, node, Some(on_word));
        let outcome = controller.apply(&planned.unwrap());
        let partition = &controller.image().topics[&id(1)].partitions[0];
        now = partition.replicas[0];
        (outcome, partition.before.len(), now.node)
    };
    for known in 1..=MAX_MOVES_AT_ONCE {
        let (_, before, node) = moves(&mut controller, at % 3 + 1, false);
        assert_eq!(before, known);
        at = node;
    }
    let refused = moves(&mut controller, at % 3 + 1, false).0;
    assert_eq!(refused, Outcome::Rejected(Rejection::Moving));
    // One that is replaced where it is leaves nothing behind, and no word takes anything away but its own.
    assert_eq!(moves(&mut controller, at, false).1, MAX_MOVES_AT_ONCE);
    assert_eq!(moves(&mut controller, at % 3 + 1, true).1, 1);
    let at = at % 3 + 1;
    assert_eq!(moves(&mut controller, at, true).1, 0);
}

/// R11: only a removal proves that a topic was deleted, and it is remembered until every node is rid of it.
#[test]
fn a_removed_topic_is_remembered_until_every_node_is_rid_of_it() {
    let mut controller = three();
    create(&mut controller, request("a", 1, 3));
    controller.apply(&controller.plan_delete_topic(&id(1)).unwrap());
    controller.apply(&controller.plan_remove_topic(&id(1)).unwrap());
    let waits = |controller: &Controller| -> Vec<i32> {
        let nodes = controller.image().removed.get(&id(1)).cloned();
        nodes.unwrap_or_default().into_iter().collect()
    };
    assert_eq!(waits(&controller), [1, 2, 3]);
    let copy = Controller::from_checkpoint(&controller.checkpoint()).unwrap();
    assert_eq!(copy.image(), controller.image());
    controller.apply(&controller.plan_topics_gone(2, &[id(1)]).unwrap());
    assert_eq!(waits(&controller), [1, 3]);
    assert!(controller.plan_topics_gone(2, &[id(1)]).is_err());
    // A node that comes with another directory has nothing of it, and nobody opens the one before.
    controller.apply(&Command::RegisterBroker(broker(3, 999, 1, "r")));
    assert_eq!(waits(&controller), [1]);
    controller.apply(&controller.plan_topics_gone(1, &[id(1)]).unwrap());
    assert!(controller.image().removed.is_empty());
}

/// A node was emptied twice. What the second of its directories asked for arrives when the third one is
/// there, and displaces nothing.
#[test]
fn a_late_registration_displaces_no_directory_that_it_does_not_name() {
    let mut controller = three();
    let on = |directory, replaces: Option<u128>| RegisterBroker {
        replaces: Some(replaces.map_or_else(Vec::new, bytes)),
        ..broker(1, directory, 1, "r")
    };
    let there = |directory| Rejection::OtherDirectory {
        node: 1,
        directory: id(directory),
    };
    let unnamed = controller.plan_register_broker(on(201, None));
    assert_eq!(unnamed.unwrap_err(), there(101));
    let second = controller.plan_register_broker(on(201, Some(101))).unwrap();
    let third = controller.plan_register_broker(on(202, Some(101))).unwrap();
    assert_eq!(controller.apply(&third), Outcome::Done);
    let before = controller.clone();
    assert_eq!(controller.apply(&second), Outcome::Rejected(there(202)));
    assert_eq!(controller, before);
    // Its own start again, and one that names what is there.
    let again = RegisterBroker {
        incarnation: 2,
        ..on(202, None)
    };
    assert!(controller.plan_register_broker(again).is_ok());
    assert!(controller.plan_register_broker(on(203, Some(202))).is_ok());
}

#[test]
fn a_batch_carries_the_numbers_by_which_it_is_known_again() {
    let commands = [Command::RegisterBroker(broker(1, 101, 1, "r"))];
    let numbers = Numbers {
        producer_id: 77,
        epoch: 3,
        base_sequence: i32::MAX,
    };
    let batch = encode_numbered_batch(&commands, Some(numbers)).unwrap();
    assert_eq!(Numbers::of_batch(&batch), Some(numbers));
    assert_eq!(decode_batch(&batch).unwrap(), commands);
    assert_eq!(
        Numbers::of_batch(&encode_batch(&commands).unwrap()),
        None,
        "one without numbers"
    );
    assert_eq!(numbers.after(2).base_sequence, 1, "sequences wrap to 0");
    assert_eq!(numbers.next_epoch().epoch, 4);
    assert_eq!(numbers.next_epoch().base_sequence, 0);
    let last = Numbers {
        epoch: i16::MAX,
        ..numbers
    };
    assert_eq!(last.next_epoch().producer_id, 78);
    assert_eq!(last.next_epoch().epoch, 0);
}

#[test]
fn producer_ids_are_given_out_once() {
    let mut controller = three();
    let block = controller.plan_producer_ids(1000).unwrap();
    assert_eq!(
        controller.apply(&block),
        Outcome::ProducerIds {
            first: 0,
            count: 1000
        }
    );
    assert_eq!(
        controller.apply(&block),
        Outcome::ProducerIds {
            first: 1000,
            count: 1000
        }
    );
    assert!(controller.plan_producer_ids(0).is_err());
    assert!(controller.plan_producer_ids(u32::MAX).is_err());
}

#[test]
fn settings_are_set_and_taken_back() {
    let mut controller = three();
    create(&mut controller, request("a", 1, 1));
    let set = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let command = controller
        .plan_set_configs(&id(1), set(&[("x", "1"), ("y", "2")]), vec![])
        .unwrap();
    assert_eq!(controller.apply(&command), Outcome::Done);
    assert_eq!(controller.apply(&command), Outcome::Unchanged);
    let command = controller
        .plan_set_configs(&id(1), set(&[("y", "3")]), vec!["x".to_owned()])
        .unwrap();
    controller.apply(&command);
    assert_eq!(
        controller.image().topics[&id(1)].configs,
        set(&[("y", "3")])
    );
}

#[test]
fn a_batch_is_applied_once_and_whole() {
    let mut controller = Controller::new();
    let commands = [
        Command::RegisterBroker(broker(1, 101, 1, "")),
        Command::AllocateProducerIds(AllocateProducerIds { count: 5 }),
    ];
    let mut batch = encode_batch(&commands).unwrap();
    stamp(&mut batch, 0, 1);
    assert_eq!(decode_batch(&batch).unwrap(), commands);
    assert_eq!(controller.apply_batch(&batch).unwrap().len(), 2);
    assert_eq!(controller.image().next_offset, 2);
    assert!(controller.apply_batch(&batch).unwrap().is_empty());
    assert_eq!(controller.image().next_producer_id, 5);
    for at in 0..batch.len() {
        let mut changed = batch.to_vec();
        changed[at] ^= 0x40;
        stamp(&mut changed, 2, 1);
        let before = controller.clone();
        if controller.apply_batch(&changed).is_err() {
            assert_eq!(controller, before);
        }
        controller = before;
    }
}

/// The bytes of version 1, never to be changed.
#[test]
fn golden_checkpoint_and_command() {
    let mut controller = three();
    let asked = CreateTopicRequest {
        configs: BTreeMap::from([("write.caching".to_owned(), "true".to_owned())]),
        replication: Some(2),
        seed: 1,
        ..request("orders", 0xabcd, 2)
    };
    let command = controller.plan_create_topic(asked).unwrap();
    controller.apply(&command);
    controller.apply(&Command::AllocateProducerIds(AllocateProducerIds {
        count: 1000,
    }));
    controller.apply(&Command::FenceBroker(FenceBroker {
        node: 3,
        fenced: true,
    }));
    controller.image.next_offset = 7;
    let mut batch = encode_batch(&[command]).unwrap();
    stamp(&mut batch, 4, 2);
    // The replicas of group 0 were not in the first images.
    let mut without = controller.clone();
    without.image.quorum = QuorumImage::default();
    // Nor was what a node has room for.
    let room = Some(Room {
        descriptors: 1024,
        replicas: 119,
    });
    let registers = Command::RegisterBroker(RegisterBroker {
        room,
        ..broker(2, 102, 2, "r")
    });
    let mut with_room = controller.clone();
    with_room.apply(&registers);
    let mut registration = encode_batch(&[registers]).unwrap();
    stamp(&mut registration, 5, 2);
    for (name, bytes) in [
        ("checkpoint.bin", without.checkpoint().to_vec()),
        ("checkpoint-quorum.bin", controller.checkpoint().to_vec()),
        ("create-topic.bin", batch.to_vec()),
        ("checkpoint-room.bin", with_room.checkpoint().to_vec()),
        ("register-room.bin", registration.to_vec()),
    ] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/controller/v1")
            .join(name);
        let golden =
            std::fs::read(&path).unwrap_or_else(|_| panic!("no fixture {}", path.display()));
        assert_eq!(
            bytes, golden,
            "{name} is no longer written as version 1 was"
        );
    }
    assert_eq!(
        Controller::from_checkpoint(&controller.checkpoint()).unwrap(),
        controller
    );
    assert_eq!(with_room.image().brokers[&2].room, room);
    assert_eq!(
        Controller::from_checkpoint(&with_room.checkpoint()).unwrap(),
        with_room
    );
}

fn voters(controller: &Controller) -> Vec<(u64, i32, bool)> {
    let replicas = controller.image().quorum.replicas.iter();
    replicas
        .map(|known| (known.at.replica, known.at.node, known.votes))
        .collect()
}

#[test]
fn a_cluster_that_is_joined_one_by_one_gets_three_voters_and_never_two() {
    let mut controller = Controller::new();
    let mut join = |node: i32, directory: u128| {
        let command = controller
            .plan_register_broker(broker(node, directory, 1, ""))
            .unwrap();
        assert_eq!(controller.apply(&command), Outcome::Done);
        voters(&controller)
    };
    assert_eq!(join(5, 105), [(1, 5, true)]);
    assert_eq!(join(2, 102), [(2, 2, false), (1, 5, true)]);
    let three = [(2, 2, true), (1, 5, true), (3, 9, true)];
    assert_eq!(join(9, 109), three);
    let four = [(4, 1, false), (2, 2, true), (1, 5, true), (3, 9, true)];
    assert_eq!(join(1, 101), four);
    // A node with another disk has another replica in the place of the one that it lost.
    let other = [(4, 1, false), (5, 2, true), (1, 5, true), (3, 9, true)];
    assert_eq!(join(2, 202), other);
    assert_eq!(controller.image().quorum.first_voters, [1]);
    assert_eq!(controller.image().quorum.next_replica(), 6);
}

#[test]
fn the_founders_vote_and_a_cluster_is_founded_once() {
    let founder = |node: i32, replica: u64| Founder {
        node,
        directory: bytes(100 + u128::from(node.unsigned_abs())),
        replica,
    };
    let found = |founders: Vec<Founder>| {
        Command::FoundCluster(FoundCluster {
            cluster_id: bytes(77),
            founders,
        })
    };
    let mut controller = Controller::new();
    for founders in [
        vec![founder(1, 1), founder(1, 2)],
        vec![founder(1, 1), founder(2, 1)],
        vec![founder(1, 0)],
        vec![founder(1, 1 << 20)],
    ] {
        let outcome = controller.apply(&found(founders));
        assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    }
    let command = found(vec![founder(1, 1), founder(2, 2), founder(3, 3)]);
    assert_eq!(controller.apply(&command), Outcome::Done);
    assert_eq!(controller.apply(&command), Outcome::Unchanged);
    let founded = [(1, 1, true), (2, 2, true), (3, 3, true)];
    assert_eq!(voters(&controller), founded);
    controller.apply(&Command::RegisterBroker(broker(1, 101, 1, "")));
    assert_eq!(voters(&controller), founded);
    assert_eq!(controller.image().quorum.first_voters, [1, 2, 3]);
}

#[test]
fn every_damaged_checkpoint_is_refused() {
    let mut controller = three();
    create(&mut controller, request("a", 1, 2));
    let bytes = controller.checkpoint();
    for end in 0..bytes.len() {
        assert!(Controller::from_checkpoint(&bytes[..end]).is_err());
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        assert!(
            Controller::from_checkpoint(&changed).is_err(),
            "a flipped bit in byte {at}"
        );
    }
}

fn small_id() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => (1_u128..5).prop_map(bytes), 1 => prop::collection::vec(any::<u8>(), 0..20)]
}

fn partitions() -> impl Strategy<Value = Vec<NewPartition>> {
    let partition = prop::collection::vec(prop_oneof![8 => 1_i32..5, 1 => any::<i32>()], 0..5)
        .prop_map(|nodes| NewPartition { nodes });
    prop::collection::vec(partition, 0..4)
}

fn configs() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[a-c]{0,2}", "[0-9]{0,2}", 0..3)
}

fn any_command() -> impl Strategy<Value = Command> {
    let replaces = prop::option::of(prop_oneof![small_id(), Just(Vec::new())]);
    let register = (
        1_i32..5,
        small_id(),
        0_u64..5,
        any::<u16>(),
        "[ab]?",
        replaces,
    )
        .prop_map(|(node, directory, incarnation, port, rack, replaces)| {
            let port = u32::from(port) + u32::from(port == 7);
            let room = (port % 3 > 0).then_some(Room {
                descriptors: 8,
                replicas: port % 8,
            });
            Command::RegisterBroker(RegisterBroker {
                node,
                directory,
                incarnation,
                host: "h".to_owned(),
                port,
                rack,
                replaces,
                room,
                ..RegisterBroker::default()
            })
        });
    let create = ("[a._/]{0,3}", small_id(), partitions(), configs()).prop_map(
        |(name, id, partitions, configs)| {
            Command::CreateTopic(CreateTopic {
                name,
                id,
                partitions,
                configs,
            })
        },
    );
    let replace = (
        small_id(),
        0_u32..3,
        (1_u64 << 20)..(1 << 20) + 20,
        1_i32..5,
        prop::option::of((
            prop::collection::vec((1_u64 << 20)..(1 << 20) + 20, 0..3),
            any::<bool>(),
        )),
    )
        .prop_map(|(id, partition, old, node, others)| {
            Command::ReplaceReplica(ReplaceReplica {
                id,
                partition,
                old,
                node,
                on_word: others.map(|(others, settled)| OnWord { others, settled }),
            })
        });
    let configure = (
        small_id(),
        configs(),
        prop::collection::vec("[a-c]{0,2}", 0..3),
    )
        .prop_map(|(id, set, unset)| Command::SetTopicConfigs(SetTopicConfigs { id, set, unset }));
    let add = (small_id(), 0_u32..4, partitions()).prop_map(|(id, first, partitions)| {
        Command::AddPartitions(AddPartitions {
            id,
            first,
            partitions,
        })
    });
    prop_oneof![
        1 => small_id().prop_map(|id| Command::FoundCluster(FoundCluster { cluster_id: id, ..FoundCluster::default() })),
        4 => register,
        1 => (1_i32..5, any::<bool>())
            .prop_map(|(node, fenced)| Command::FenceBroker(FenceBroker { node, fenced })),
        4 => create,
        1 => add,
        1 => configure,
        1 => small_id().prop_map(|id| Command::MarkTopicClosing(MarkTopicClosing { id })),
        1 => small_id().prop_map(|id| Command::RemoveTopic(RemoveTopic { id })),
        1 => any::<u32>()
            .prop_map(|count| Command::AllocateProducerIds(AllocateProducerIds { count })),
        2 => replace,
    ]
}

proptest! {
    #[test]
    fn any_commands_give_the_same_sound_image_everywhere(commands in prop::collection::vec(any_command(), 0..60)) {
        let mut one = Controller::new();
        let mut two = Controller::new();
        for (number, command) in commands.iter().enumerate() {
            let before = one.clone();
            let outcome = one.apply(command);
            if matches!(outcome, Outcome::Rejected(_) | Outcome::Unchanged) {
                prop_assert_eq!(&one, &before);
            }
            // The other node reads the command from its bytes, and restarts in the middle.
            let mut batch = encode_batch(std::slice::from_ref(command)).unwrap();
            stamp(&mut batch, i64::try_from(number).unwrap(), 1);
            prop_assert_eq!(two.apply_batch(&batch).unwrap(), vec![outcome]);
            if number % 7 == 3 {
                two = Controller::from_checkpoint(&two.checkpoint()).unwrap();
            }
        }
        one.image.next_offset = two.image().next_offset;
        prop_assert_eq!(&one, &two);
        prop_assert_eq!(one.checkpoint(), two.checkpoint());
        let image = one.image();
        prop_assert_eq!(image.topics.len(), image.names.len());
        let replicas: Vec<u64> = image.topics.values().flat_map(|t| &t.partitions)
            .flat_map(|p| p.replicas.iter().map(|r| r.replica)).collect();
        prop_assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), replicas.len());
        prop_assert!(replicas.iter().all(|r| *r < image.next_replica));
    }

    #[test]
    fn any_bytes_are_an_answer_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_batch(&bytes);
        let _ = Controller::from_checkpoint(&bytes);
    }
}
