//! R3, R4: replicas that are not what they were, and replicas that begin in the middle.

use std::path::{Path, PathBuf};

use riverrun_replication::conf::{Change, members};
use riverrun_replication::lives::{Life, Restored, judge};
use riverrun_replication::message::{Body, RaftKind, RaftMessage};
use riverrun_replication::shard::Input;
use riverrun_replication::{ProduceError, Role};
use riverrun_storage::Disk;
use riverrun_storage::disk::mem::MemDisk;
use riverrun_storage::planted::{self, Bug};

use super::cluster::{A, C, Cluster, D, F, GROUP, Plan, without_rule};
use super::wire::Sent;

const ALL: [u64; 3] = [A, F, C];
/// The replica that takes the place of F's.
const NEW: u64 = 12;

/// Three voters and an event that C has not heard of.
fn two_of_three_have_it() -> Cluster {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    cluster.pass(&ALL, 2);
    let request = cluster.produce(A, "acknowledged");
    cluster.run(&[A, F]);
    assert!(cluster.acked(request).is_some());
    cluster.cut_off(C);
    cluster
}

/// F is back without its log, A is dead, and C, which lacks the event, campaigns: whether it leads,
/// and without the event.
fn c_takes_over(cluster: &mut Cluster) -> bool {
    cluster.kill(A);
    cluster.lose(|_| true);
    let elected = cluster.tries(C, &[F, C], 60);
    assert!(!cluster.consume(C).contains(&"acknowledged".to_owned()));
    elected
}

/// A is back, and gives F a replica with an id that nobody had.
fn replace(cluster: &mut Cluster) {
    cluster.lose(|_| true);
    cluster.start(A);
    cluster.elect(A, &[A, C]);
    cluster.order(F, NEW);
    let changes = [Change::AddVoter(NEW), Change::Remove(F)];
    let change = cluster.change(A, &changes);
    cluster.pass(&ALL, 10);
    assert!(cluster.answer(change).unwrap().is_ok());
    let conf = cluster.partition(A).group().conf().1.clone();
    assert_eq!(members(&conf), [A, C, NEW]);
    assert!(conf.get_voters_outgoing().is_empty());
    assert_eq!(cluster.log(F), cluster.log(A));
    assert_eq!(cluster.consume(F), ["base", "acknowledged"]);
    assert_eq!(cluster.partition(F).group().replica(), NEW);
}

#[test]
fn r3_empty_voter() {
    // The disk is replaced under the same node id.
    let steps = || {
        let mut cluster = two_of_three_have_it();
        cluster.machine(F).replace_disk();
        cluster.start(F);
        let elected = c_takes_over(&mut cluster);
        (cluster, elected)
    };
    let (mut cluster, elected) = steps();
    assert!(!elected);
    replace(&mut cluster);
    assert!(without_rule(Bug::R3, steps).1);
}

#[test]
fn r3_one_partitions_directory_is_deleted() {
    let steps = || {
        let mut cluster = two_of_three_have_it();
        cluster.kill(F);
        let topic = uuid::Uuid::from_u128(u128::from(GROUP)).simple();
        let disk = cluster.machine(F).disk.clone();
        disk.remove_dir_all(Path::new(&format!("/data/{topic}-0")))
            .unwrap();
        disk.sync_dir(Path::new("/data")).unwrap();
        cluster.start(F);
        let noticed = cluster.out_of_service.contains(&F);
        (noticed, c_takes_over(&mut cluster))
    };
    assert_eq!(steps(), (true, false));
    assert_eq!(without_rule(Bug::R3, steps), (true, true));
}

/// Every file of a disk but those of the node store, as it would be after a loss of power.
fn bytes_of_partitions(disk: &MemDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let files = disk.durable_files().into_iter();
    let files = files.filter(|(path, _)| !path.starts_with("/data/node"));
    let with_bytes = files.map(|(path, _)| {
        let bytes = disk.durable_image(&path).unwrap_or_default();
        (path, bytes)
    });
    with_bytes.collect()
}

#[test]
fn r3_the_node_state_is_deleted() {
    let steps = || {
        let mut cluster = two_of_three_have_it();
        cluster.kill(F);
        let disk = cluster.machine(F).disk.clone();
        disk.remove_dir_all(Path::new("/data/node")).unwrap();
        disk.sync_dir(Path::new("/data")).unwrap();
        cluster.machine(F).forget_directory_id();
        let before = bytes_of_partitions(&disk);
        cluster.start(F);
        (cluster, before)
    };
    // D6: it founds nothing over data, changes no byte, and says why.
    let (mut cluster, before) = steps();
    let refusal = cluster.machine(F).refusal.take().unwrap().to_string();
    assert!(refusal.contains("/data/node/identity"), "{refusal}");
    let disk = cluster.machine(F).disk.clone();
    assert_eq!(bytes_of_partitions(&disk), before);
    // The operator sets the directory aside, and the node joins anew.
    disk.rename_new(Path::new("/data"), Path::new("/data.aside-1"))
        .unwrap();
    cluster.start(F);
    assert!(!c_takes_over(&mut cluster));
    replace(&mut cluster);

    let founded_over = || {
        let (mut cluster, _) = steps();
        c_takes_over(&mut cluster)
    };
    assert!(!without_rule(Bug::FoundOverData, founded_over));
    let as_an_empty_voter = || {
        planted::set(Bug::FoundOverData, true);
        founded_over()
    };
    assert!(without_rule(Bug::R3, as_an_empty_voter));
}

#[test]
fn r3_a_restored_disk() {
    // The rule that is switched off in the second run is the one that looks at incarnations.
    let steps = || {
        let mut cluster = Cluster::of_three(Plan::voters(&ALL));
        let copy = cluster.machine(F).disk.snapshot();
        for _ in 0..3 {
            cluster.kill(F);
            cluster.start(F);
            cluster.spread(A, &ALL);
            cluster.tick(F);
        }
        // C has heard of F's latest life.
        cluster.elect(C, &ALL);
        cluster.elect(A, &ALL);
        cluster.cut_off(C);
        let request = cluster.produce(A, "acknowledged");
        cluster.run(&[A, F]);
        assert!(cluster.acked(request).is_some());
        cluster.cut_off(C);
        cluster.power_cut(F);
        cluster.machine(F).disk.restore(&copy);
        cluster.start(F);
        assert_eq!(cluster.log(F).last().unwrap().2, "base");
        c_takes_over(&mut cluster)
    };
    assert!(!steps());
    assert!(without_rule(Bug::R1, steps));
}

#[test]
fn r3_a_copy_that_catches_up_before_it_is_heard() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    let copy = cluster.machine(F).disk.snapshot();
    for _ in 0..3 {
        cluster.kill(F);
        cluster.start(F);
        cluster.spread(A, &ALL);
        cluster.tick(F);
    }
    cluster.elect(C, &ALL);
    cluster.elect(A, &ALL);
    cluster.cut_off(C);
    let request = cluster.produce(A, "acknowledged");
    cluster.run(&[A, F]);
    assert!(cluster.acked(request).is_some());
    cluster.cut_off(C);
    let original = cluster.machine(F).running().node.starts();
    let seen = *original.last().unwrap();
    assert_eq!((seen.incarnation, judge(seen, &original)), (4, Life::Known));
    cluster.power_cut(F);
    cluster.machine(F).disk.restore(&copy);
    // Killed after its incarnation is raised and before it says a word, until it has caught up.
    let behind = |starts| Life::Restored(Restored::Behind { starts, seen: 4 });
    let another = Life::Restored(Restored::Another { seen: 4 });
    for verdict in [behind(2), behind(3), another, another] {
        cluster.start(F);
        let starts = cluster.machine(F).running().node.starts();
        assert_eq!(judge(seen, &starts), verdict);
        cluster.kill(F);
        cluster.lose(|_| true);
    }
    // The copy is ahead of what C has heard of F: were it let in, it would be listened to.
    cluster.start(F);
    assert!(cluster.machine(F).running().node.incarnation() > seen.incarnation);
    assert!(c_takes_over(&mut cluster));
}

/// Three voters whose log begins in the middle, and a fourth node with an empty replica.
pub(super) fn dropped_head() -> Cluster {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL).segment_bytes(2048));
    let first = cluster.produce_as_p(A, 0, "of P");
    cluster.run(&ALL);
    assert!(cluster.acked(first).is_some());
    for n in 0..12 {
        cluster.produce_acked(A, &format!("{n:.<500}"));
    }
    cluster.spread(A, &ALL);
    let keep_from = cluster.last_index(A) - 2;
    for at in ALL {
        let group = GROUP;
        cluster.turn(at, vec![Input::DropHead { group, keep_from }]);
    }
    cluster.run(&ALL);
    assert!(cluster.entries(A)[0].index > 6);
    for n in 0..3 {
        cluster.produce_acked(A, &format!("later {n}"));
    }
    cluster.add_node(D);
    cluster.order(D, D);
    cluster
}

fn snapshot_of(sent: &Sent) -> Option<(u64, u64)> {
    match &sent.message.body {
        Body::Raft(raft) => raft.snapshot.as_ref().map(|s| (s.index, s.conf_index)),
        _ => None,
    }
}

/// D, which was filled, becomes a voter, leads, and knows what P has sent.
pub(super) fn d_is_a_full_member(cluster: &mut Cluster) {
    let all = [A, F, C, D];
    cluster.pass(&all, 10);
    assert_eq!(cluster.entries(D), cluster.entries(A));
    let voter = cluster.change(A, &[Change::AddVoter(D)]);
    cluster.pass(&all, 5);
    assert!(cluster.answer(voter).unwrap().is_ok());
    for at in [A, D] {
        let conf = cluster.partition(at).group().conf().1.clone();
        assert_eq!(members(&conf), [A, F, C, D]);
        assert!(conf.get_learners().is_empty() && conf.get_voters_outgoing().is_empty());
    }
    cluster.kill(A);
    cluster.cut_off(A);
    cluster.elect(D, &[F, C, D]);
    let again = cluster.produce_as_p(D, 0, "of P");
    let next = cluster.produce_as_p(D, 1, "next of P");
    let gap = cluster.produce_as_p(D, 5, "out of order");
    cluster.run(&[F, C, D]);
    assert_eq!(cluster.acked(again), Some(1));
    assert!(cluster.acked(next).is_some());
    assert_eq!(
        cluster.answer(gap),
        Some(Err(ProduceError::OutOfOrderSequence))
    );
    assert_eq!(cluster.published(D).role, Role::Leader);
}

#[test]
fn r4_snapshot_refused() {
    let mut cluster = dropped_head();
    let change = cluster.change(A, &[Change::AddLearner(D)]);
    cluster.run(&ALL);
    assert!(cluster.answer(change).unwrap().is_ok());
    // Until a snapshot leaves, which lies below the entry that made D a member.
    let mut snapshot = None;
    for _ in 0..10 {
        cluster.tick(A);
        cluster.run_only(&[A, D], |sent| snapshot_of(sent).is_none());
        snapshot = cluster.on_the_wire().find_map(snapshot_of);
        if snapshot.is_some() {
            break;
        }
    }
    let (index, conf_index) = snapshot.unwrap();
    assert!(index < conf_index, "{index} {conf_index}");
    d_is_a_full_member(&mut cluster);
}

#[test]
fn r4_a_snapshot_of_a_leader_that_was_started_behind_its_head() {
    // What it tells of producers is of exactly the entry before its first.
    let mut cluster = dropped_head();
    let change = cluster.change(A, &[Change::AddLearner(D)]);
    cluster.run(&ALL);
    assert!(cluster.answer(change).unwrap().is_ok());
    cluster.lose(|_| true);
    for at in ALL {
        cluster.power_cut(at);
        cluster.start(at);
    }
    cluster.elect(A, &ALL);
    d_is_a_full_member(&mut cluster);
}

#[test]
fn r4_a_lost_snapshot_is_reported() {
    let mut cluster = dropped_head();
    cluster.change(A, &[Change::AddLearner(D)]);
    let mut lost = 0;
    for _ in 0..30 {
        cluster.tick(A);
        cluster.run_only(&[A, F, C, D], |sent| {
            sent.raft() != Some(RaftKind::Snapshot)
        });
        lost += cluster.lose(|sent| sent.raft() == Some(RaftKind::Snapshot));
    }
    assert_eq!(lost, 1, "who is not told that it was lost, waits");
    cluster.turn(
        A,
        vec![Input::Unreachable {
            group: GROUP,
            replica: D,
        }],
    );
    d_is_a_full_member(&mut cluster);
}

#[test]
fn r4_a_lost_answer_to_a_snapshot() {
    // D is told that its answer was lost, and A is not.
    let mut cluster = dropped_head();
    cluster.change(A, &[Change::AddLearner(D)]);
    let mut lost = 0;
    for _ in 0..30 {
        cluster.tick(A);
        let answer = |sent: &Sent| {
            let accepts = |raft: &RaftMessage| !raft.reject && raft.index > 0;
            let accepted = matches!(&sent.message.body, Body::Raft(raft) if accepts(raft));
            sent.from == D && sent.is_acknowledgement() && accepted
        };
        cluster.run_only(&[A, F, C, D], |sent| lost > 0 || !answer(sent));
        lost += cluster.lose(answer);
    }
    assert_eq!(lost, 1);
    d_is_a_full_member(&mut cluster);
}

#[test]
fn r4_a_configuration_above_a_lost_tail() {
    let mut cluster = dropped_head();
    cluster.change(A, &[Change::AddLearner(D)]);
    // D takes the snapshot and none of the entries behind it.
    for _ in 0..10 {
        cluster.tick(A);
        cluster.run_only(&[A, F, C, D], |sent| sent.to != D || !sent.has_entries());
        cluster.lose(|sent| sent.to == D && sent.has_entries());
    }
    for _ in 0..2 {
        cluster.power_cut(D);
        cluster.start(D);
        let end = cluster.last_index(D);
        let (conf_index, conf) = cluster.partition(D).group().conf();
        assert!(end < conf_index, "{end} {conf_index}");
        assert_eq!(conf.get_learners(), [D]);
    }
    d_is_a_full_member(&mut cluster);
}

#[test]
fn r4_a_change_that_only_the_one_it_removed_knew() {
    // A leads alone and gives its place to D. D has both entries of the change on disk, and stops before
    // it has stored that they are committed: it does not know that it is a voter. A knows, is none, and
    // is started again.
    let mut cluster = Cluster::new(Plan::voters(&[A]));
    cluster.elect(A, &[A]);
    cluster.add_node(D);
    cluster.order(D, D);
    cluster.produce_acked(A, "base");
    let joins = cluster.change(A, &[Change::AddLearner(D)]);
    cluster.pass(&[A, D], 10);
    assert!(cluster.answer(joins).unwrap().is_ok());
    let known = cluster.partition(D).group().commit();
    cluster.change(A, &[Change::AddVoter(D), Change::Remove(A)]);
    cluster.pass(&[A], 2);
    // Both entries in one message: what was sent of them is lost.
    cluster.lose(|_| true);
    let (group, replica) = (GROUP, D);
    cluster.turn(A, vec![Input::Unreachable { group, replica }]);
    for _ in 0..10 {
        cluster.tick(A);
        cluster.run_only(&[A, D], |sent| !sent.has_entries());
    }
    cluster.deliver(|sent| sent.to == D);
    cluster.flush(D);
    cluster.kill(D);
    cluster.run(&[A]);
    cluster.deliver(|sent| sent.to == A);
    cluster.run(&[A]);
    let conf = cluster.partition(A).group().conf().1.clone();
    assert_eq!(members(&conf), [D]);
    cluster.kill(A);
    cluster.lose(|_| true);
    cluster.start(A);
    cluster.start(D);
    assert_eq!(cluster.partition(D).group().commit(), known);
    cluster.pass(&[A, D], 60);
    assert_eq!(cluster.published(D).role, Role::Leader);
    assert_eq!(cluster.consume(D), ["base"]);
    cluster.produce_acked(D, "next");
}
