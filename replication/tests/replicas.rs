//! Real groups over real logs on in-memory disks, one thread, messages delivered by hand: what one
//! and three replicas must do when nothing fails. Faults are the simulator's (tests/sim).

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use riverrun_record::{BatchBuilder, Compression, Limits, validate};
use riverrun_replication::message::PeerMessage;
use riverrun_replication::node::{GroupOrder, Node, NodeSettings};
use riverrun_replication::shard::{Effect, Input, Shard};
use riverrun_replication::{
    Acks, GroupConfig, GroupSettings, PartitionHandle, Produce, ProduceOutcome, Ticket,
};
use riverrun_storage::node::NodeConfig;
use riverrun_storage::{LogConfig, LogIdentity, MemDisk};
use uuid::Uuid;

struct Replica {
    node: Node,
    shard: Shard,
    handle: PartitionHandle,
    inputs: Vec<Input>,
}

struct Cluster {
    replicas: BTreeMap<u64, Replica>,
    wire: VecDeque<PeerMessage>,
    answers: BTreeMap<u64, ProduceOutcome>,
    next_request: u64,
    flushes: bool,
    now: Duration,
}

impl Cluster {
    fn new(count: u64, caching: bool) -> Self {
        let voters: Vec<u64> = (1..=count).collect();
        let mut replicas = BTreeMap::new();
        for id in 1..=count {
            let settings = NodeSettings {
                node_id: i32::try_from(id).unwrap(),
                kernel_boot_id: "boot".into(),
                new_directory_id: Uuid::from_u128(u128::from(id)),
                start_token: 0x5eed,
                store: NodeConfig {
                    wal_bytes: 1 << 20,
                    flush_threads: 0,
                    ..NodeConfig::default()
                },
                group: GroupConfig {
                    seed: 7,
                    ..GroupConfig::default()
                },
                shards: 1,
                most_replicas: usize::MAX,
            };
            let disk = Arc::new(MemDisk::new());
            let (node, opened) = Node::open(disk, Path::new("/data"), settings, |_| {
                GroupSettings::default()
            })
            .unwrap();
            assert!(opened.founded);
            let order = GroupOrder {
                identity: LogIdentity {
                    group: 5,
                    replica: id,
                    topic_id: Uuid::from_u128(99),
                    partition: 0,
                },
                voters: voters.clone(),
                learners: vec![],
                settings: GroupSettings {
                    log: LogConfig::tiny(),
                    write_caching: caching,
                    ..GroupSettings::default()
                },
            };
            let partition = node.create_group(&order).unwrap();
            let handle = node.handle(5).unwrap();
            let inputs = vec![Input::Add(Box::new(partition))];
            replicas.insert(
                id,
                Replica {
                    node,
                    shard: Shard::default(),
                    handle,
                    inputs,
                },
            );
        }
        let wire = VecDeque::new();
        Self {
            replicas,
            wire,
            answers: BTreeMap::new(),
            next_request: 0,
            flushes: true,
            now: Duration::ZERO,
        }
    }

    /// Runs until nothing moves.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            while let Some(message) = self.wire.pop_front() {
                moved = true;
                if let Some(replica) = self.replicas.get_mut(&message.to) {
                    replica.inputs.push(Input::Message(message));
                }
            }
            for replica in self.replicas.values_mut() {
                let mut effects = Vec::new();
                while !replica.inputs.is_empty() {
                    moved = true;
                    replica
                        .shard
                        .turn(self.now, std::mem::take(&mut replica.inputs), &mut effects);
                    for effect in effects.drain(..) {
                        match effect {
                            Effect::Write { group, entries } => {
                                replica.inputs.extend(replica.node.write(group, entries));
                            }
                            Effect::Flush(item) => replica.node.want_flush(item),
                            Effect::Op { group, op } => replica.node.want_op(group, op),
                            Effect::Send(message) => self.wire.push_back(message),
                            Effect::Produced { ticket, outcome } => {
                                self.answers.insert(ticket.request, outcome);
                            }
                            Effect::Fenced { why, .. } => panic!("fenced: {why}"),
                            Effect::Advanced { .. } | Effect::Led { .. } => {}
                            other => panic!("unexpected {other:?}"),
                        }
                    }
                }
                if self.flushes {
                    let mut writers = Vec::new();
                    moved |= replica
                        .node
                        .flush_once(&mut replica.inputs, &mut writers)
                        .unwrap();
                    assert!(writers.is_empty(), "nothing is ever slow here");
                }
            }
            if !moved {
                return;
            }
        }
        panic!("never comes to rest");
    }

    fn tick(&mut self) {
        for replica in self.replicas.values_mut() {
            replica.inputs.push(Input::Tick);
        }
        self.settle();
    }

    fn leader(&mut self) -> u64 {
        for _ in 0..100 {
            let ready = self
                .replicas
                .iter()
                .find(|(_, r)| r.handle.published().ready);
            if let Some((id, _)) = ready {
                return *id;
            }
            self.tick();
        }
        panic!("nobody leads");
    }

    fn produce(&mut self, to: u64, acks: Acks, values: &[&str]) -> u64 {
        let mut builder = BatchBuilder::new(Compression::None, None);
        for value in values {
            builder
                .append(1_000, None, Some(value.as_bytes()), &[])
                .unwrap();
        }
        let batch = builder.build_mut().unwrap();
        let summary = validate(&batch, &Limits::new(1_000)).unwrap();
        self.next_request += 1;
        let ticket = Ticket {
            connection: 1,
            request: self.next_request,
            slot: 0,
        };
        let produce = Produce {
            ticket,
            acks,
            batch,
            summary,
            expected_epoch: None,
        };
        self.replicas
            .get_mut(&to)
            .unwrap()
            .inputs
            .push(Input::Produce { group: 5, produce });
        self.next_request
    }

    fn read(&self, id: u64) -> Vec<Bytes> {
        let handle = &self.replicas.get(&id).unwrap().handle;
        let end = handle.published().high_watermark;
        let mut offset = 0;
        let mut all = Vec::new();
        while offset < end {
            let fetched = handle.reader().fetch(offset, end, 1 << 20, true).unwrap();
            assert!(fetched.next_offset > offset);
            offset = fetched.next_offset;
            all.extend(fetched.batches);
        }
        all
    }
}

fn bytes_of(batches: &[Bytes]) -> Vec<u8> {
    batches.iter().flat_map(|b| b.to_vec()).collect()
}

#[test]
fn one_replica_leads_at_once_and_answers_offsets_in_order() {
    for caching in [false, true] {
        let mut cluster = Cluster::new(1, caching);
        cluster.settle();
        assert_eq!(cluster.leader(), 1);
        for n in 0..50_i64 {
            let request = cluster.produce(1, Acks::All, &["a", "b"]);
            cluster.settle();
            assert_eq!(
                cluster.answers.get(&request).unwrap().unwrap().base_offset,
                2 * n
            );
        }
        assert_eq!(
            cluster
                .replicas
                .get(&1)
                .unwrap()
                .handle
                .published()
                .high_watermark,
            100
        );
        assert!(!cluster.read(1).is_empty());
    }
}

#[test]
fn acks_all_waits_for_the_flush_and_acks_1_does_not() {
    let mut cluster = Cluster::new(1, false);
    cluster.settle();
    cluster.leader();
    cluster.flushes = false;
    let all = cluster.produce(1, Acks::All, &["x"]);
    let one = cluster.produce(1, Acks::Leader, &["y"]);
    cluster.settle();
    assert!(
        !cluster.answers.contains_key(&all),
        "I5: nothing is durable yet"
    );
    assert_eq!(cluster.answers.get(&one).unwrap().unwrap().base_offset, 1);
    assert_eq!(
        cluster
            .replicas
            .get(&1)
            .unwrap()
            .handle
            .published()
            .high_watermark,
        0
    );
    cluster.flushes = true;
    cluster.settle();
    assert_eq!(cluster.answers.get(&all).unwrap().unwrap().base_offset, 0);
    assert_eq!(
        cluster
            .replicas
            .get(&1)
            .unwrap()
            .handle
            .published()
            .high_watermark,
        2
    );
}

const STEP: Duration = Duration::from_millis(10);

/// Produces one event every step for so many of them; gives when each was produced, by request.
fn produce_on(cluster: &mut Cluster, leader: u64, steps: u32) -> BTreeMap<u64, Duration> {
    let mut produced = BTreeMap::new();
    for step in 0..steps {
        let request = cluster.produce(leader, Acks::All, &["v"]);
        produced.insert(request, cluster.now);
        cluster.settle();
        cluster.now += STEP;
        if step % 5 == 4 {
            cluster.tick();
        }
    }
    produced
}

fn is_acknowledged(cluster: &Cluster, request: u64) -> bool {
    let answer = cluster.answers.get(&request);
    answer.is_some_and(|outcome| outcome.is_ok())
}

/// How many of them are acknowledged.
fn acknowledged(cluster: &Cluster, produced: &BTreeMap<u64, Duration>) -> usize {
    let is_there = |request: &&u64| is_acknowledged(cluster, **request);
    produced.keys().filter(is_there).count()
}

#[test]
fn what_is_acknowledged_from_memory_and_not_synced_spans_no_more_than_the_window() {
    let window = GroupConfig::default().caching_window;
    for count in [1, 3] {
        let mut cluster = Cluster::new(count, true);
        cluster.settle();
        let leader = cluster.leader();
        cluster.settle();
        cluster.flushes = false;
        let began = cluster.now;
        let produced = produce_on(&mut cluster, leader, 45);
        for (request, at) in &produced {
            let is_young = *at - began < window;
            assert_eq!(is_acknowledged(&cluster, *request), is_young, "{at:?}");
        }
        // The rounds come through, and everything is answered, from memory again.
        cluster.flushes = true;
        cluster.settle();
        assert_eq!(acknowledged(&cluster, &produced), produced.len());
        cluster.flushes = false;
        let produced = produce_on(&mut cluster, leader, 10);
        assert_eq!(acknowledged(&cluster, &produced), produced.len());
    }
}

#[test]
fn what_was_written_during_a_slow_round_is_as_old_as_it_is() {
    let window = GroupConfig::default().caching_window;
    let mut cluster = Cluster::new(1, true);
    cluster.settle();
    let leader = cluster.leader();
    cluster.settle();
    cluster.flushes = false;
    let before = produce_on(&mut cluster, leader, 15);
    assert_eq!(acknowledged(&cluster, &before), before.len());
    let node = &cluster.replicas.get(&leader).unwrap().node;
    let round = node.begin_round().unwrap().expect("a round was due");
    let began = cluster.now;
    let during = produce_on(&mut cluster, leader, 40);
    assert!(acknowledged(&cluster, &during) < during.len());
    let node = &cluster.replicas.get(&leader).unwrap().node;
    let result = node.sync_round(&round).unwrap();
    let inputs = node.end_round(round, &result).unwrap();
    cluster
        .replicas
        .get_mut(&leader)
        .unwrap()
        .inputs
        .extend(inputs);
    cluster.settle();
    // The oldest of them is older than the window, though the round has ended a moment ago.
    assert!(cluster.now - began > window);
    let after = produce_on(&mut cluster, leader, 5);
    assert!(acknowledged(&cluster, &during) < during.len());
    assert_eq!(acknowledged(&cluster, &after), 0);
    cluster.flushes = true;
    cluster.settle();
    assert_eq!(acknowledged(&cluster, &during), during.len());
    assert_eq!(acknowledged(&cluster, &after), after.len());
}

#[test]
fn three_replicas_hold_the_same_bytes() {
    for caching in [false, true] {
        let mut cluster = Cluster::new(3, caching);
        cluster.settle();
        let leader = cluster.leader();
        for n in 0..50_i64 {
            let request = cluster.produce(leader, Acks::All, &["v"]);
            cluster.settle();
            assert_eq!(
                cluster.answers.get(&request).unwrap().unwrap().base_offset,
                n
            );
        }
        for _ in 0..3 {
            cluster.tick();
        }
        let expected = bytes_of(&cluster.read(leader));
        for id in 1..=3 {
            assert_eq!(bytes_of(&cluster.read(id)), expected, "replica {id}");
        }
    }
}

#[test]
fn a_leader_that_falls_silent_is_replaced_and_nothing_acknowledged_is_missing() {
    let mut cluster = Cluster::new(3, false);
    cluster.settle();
    let first = cluster.leader();
    for _ in 0..10 {
        cluster.produce(first, Acks::All, &["before"]);
        cluster.settle();
    }
    cluster.replicas.remove(&first);
    for _ in 0..60 {
        cluster.tick();
    }
    let second = cluster.leader();
    assert_ne!(first, second);
    let published = cluster.replicas.get(&second).unwrap().handle.published();
    assert_eq!(published.high_watermark, 10);
    let request = cluster.produce(second, Acks::All, &["after"]);
    cluster.settle();
    assert_eq!(
        cluster.answers.get(&request).unwrap().unwrap().base_offset,
        10
    );
}
