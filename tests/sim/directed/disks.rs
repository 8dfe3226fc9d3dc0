//! W6, W8, W9, W10: disks that fail, stall and hang under a partition that goes on.

use std::path::Path;

use riverrun_replication::{ProduceError, Role};
use riverrun_storage::disk::mem::{Operation, Times};

use super::cluster::{A, C, Cluster, D, F, GROUP, Plan};

const ALL: [u64; 3] = [A, F, C];

/// The next sync of the partition's `.log` on a node fails, once.
fn fail_one_sync(cluster: &mut Cluster, at: u64) {
    let log = |path: &Path| path.extension().is_some_and(|name| name == "log");
    let disk = &cluster.machine(at).disk;
    disk.fail(Operation::Sync, Times::Once, log);
}

/// A has sent a great event to F alone, whose sync of it failed once: nobody but A has it.
fn failed_sync() -> (Cluster, u64) {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    fail_one_sync(&mut cluster, F);
    let request = cluster.produce_great(A, "great");
    cluster.run(&[A, F]);
    (cluster, request)
}

#[test]
fn w6_pinned_wal() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    // Acknowledged by A and F, and on the disk of F in its WAL only.
    for n in 0..5 {
        let request = cluster.produce(A, &format!("small {n}"));
        cluster.run(&[A, F]);
        assert!(cluster.acked(request).is_some());
    }
    let held = cluster.entries(F);
    // Its log cannot be synced any more; the partition beside it goes round the ring many times.
    fail_one_sync(&mut cluster, F);
    cluster.produce_great(A, "great");
    cluster.run(&[A, F]);
    assert!(cluster.out_of_service.contains(&F));
    cluster.cut_off(F);
    cluster.create_beside(F);
    for _ in 0..3 {
        for _ in 0..200 {
            cluster.produce_beside(F, &"x".repeat(8 << 10));
        }
        let side = cluster.machine(F).disk.durable_files();
        let side = side.iter().filter(|(path, _)| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(&format!("fenced-{GROUP}-")))
        });
        assert_eq!(side.count(), 1);
    }
    cluster.power_cut(F);
    cluster.start(F);
    assert!(cluster.entries(F).starts_with(&held));
    // What F acknowledged is enough without A.
    cluster.kill(A);
    cluster.lose(|_| true);
    cluster.elect(F, &[F, C]);
    let events = cluster.consume(F);
    assert_eq!(events.len(), 6);
    assert_eq!(events[5], "small 4");
}

#[test]
fn w8_poisoned_cache() {
    // The process starts again, and the cache shows every byte.
    let (mut cluster, request) = failed_sync();
    assert_eq!(
        cluster.acked(request),
        None,
        "nothing of that file is acknowledged"
    );
    let end = cluster.last_index(A);
    cluster.kill(F);
    cluster.start(F);
    assert_eq!(cluster.last_index(F), end - 1, "it is not believed");
    cluster.pass(&[A, F], 10);
    // What it acknowledges now, a power cut must leave.
    assert!(cluster.acked(request).is_some());
    cluster.cut_off(F);
    cluster.power_cut(F);
    cluster.start(F);
    assert_eq!(cluster.last_index(F), end);
    assert_eq!(cluster.entries(F), cluster.entries(A));
    // So A may die.
    cluster.kill(A);
    cluster.lose(|_| true);
    cluster.elect(F, &[F, C]);
    assert_eq!(cluster.consume(F), ["base", "great"]);
}

#[test]
fn w8_what_a_failed_sync_left_is_gone_with_the_power() {
    let (mut cluster, request) = failed_sync();
    cluster.cut_off(F);
    cluster.power_cut(F);
    cluster.start(F);
    assert!(cluster.last_index(F) < cluster.last_index(A));
    cluster.pass(&[A, F], 10);
    assert!(cluster.acked(request).is_some(), "it is refilled");
    assert_eq!(cluster.entries(F), cluster.entries(A));
}

#[test]
fn w8_acknowledged_from_memory_and_lost_without_a_power_cut() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL).caching());
    cluster.pass(&ALL, 3);
    let request = cluster.produce_great(A, "great");
    cluster.run(&[A, F]);
    assert!(
        cluster.acked(request).is_some(),
        "from the memory of A and F"
    );
    cluster.cut_off(C);
    fail_one_sync(&mut cluster, F);
    cluster.pass(&[A, F], 4);
    assert!(cluster.out_of_service.contains(&F));
    cluster.cut_off(C);
    // Its process starts again on the same boot of the machine. It may not vote for C, which lacks
    // the event as well.
    cluster.kill(F);
    cluster.start(F);
    assert!(cluster.partition(F).is_recovering());
    assert_eq!(cluster.log(F).last().unwrap().2, "base");
    cluster.kill(A);
    cluster.lose(|_| true);
    cluster.pass(&[F, C], 60);
    assert_eq!(cluster.leader(), None);
    cluster.start(A);
    cluster.pass(&ALL, 60);
    let leader = cluster.leader().unwrap();
    assert_eq!(cluster.consume(leader), ["base", "great"]);
    assert!(!cluster.partition(F).is_recovering());
    assert_eq!(cluster.entries(F), cluster.entries(leader));
}

#[test]
fn w8_a_leader_whose_sync_fails() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    fail_one_sync(&mut cluster, A);
    let request = cluster.produce_great(A, "great");
    cluster.run(&ALL);
    assert_eq!(cluster.answer(request), Some(Err(ProduceError::Storage)));
    assert_eq!(cluster.published(A).role, Role::Fenced);
    let more = cluster.produce(A, "more");
    assert_eq!(cluster.answer(more), Some(Err(ProduceError::Storage)));
    // The others go on without it, with what they have on their disks.
    cluster.pass(&[F, C], 40);
    let leader = cluster.leader().unwrap();
    cluster.produce_acked(leader, "after");
    assert_eq!(cluster.consume(leader), ["base", "great", "after"]);
    // It comes back with what it acknowledged, and is filled.
    cluster.power_cut(A);
    cluster.start(A);
    assert_eq!(cluster.log(A).last().unwrap().2, "base");
    cluster.pass(&ALL, 10);
    assert_eq!(cluster.entries(A), cluster.entries(leader));
}

#[test]
fn w9_committed_but_not_here() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL).learners(&[D]));
    cluster.spread(A, &[A, F, C, D]);
    let shown = cluster.published(A);
    let end = cluster.last_index(A);
    // A's disk stalls; F and C commit without it.
    cluster.hang_disk(A);
    let request = cluster.produce(A, "not here");
    cluster.run(&ALL);
    let group = cluster.partition(A).group();
    assert_eq!((group.commit(), group.written()), (end + 1, end));
    assert!(group.log().tail_bytes() > 0, "it is in memory");
    // D needs it, and has it from A's memory.
    cluster.run(&[A, D]);
    assert_eq!(cluster.last_index(D), end + 1);
    assert_eq!(cluster.entry(D, end + 1), cluster.entry(F, end + 1));
    // Nobody is shown, or answered, what is not persisted here.
    assert_eq!(cluster.published(A), shown);
    assert_eq!(cluster.answer(request), None);
    assert_eq!(cluster.last_index(A), end);
    assert_eq!(cluster.consume(A), ["base"]);
    cluster.free_disk(A);
    cluster.run(&[A]);
    assert_eq!(cluster.acked(request), Some(shown.high_watermark));
    assert_eq!(cluster.consume(A), ["base", "not here"]);
    assert_eq!(cluster.partition(A).group().log().tail_bytes(), 0);
    assert_eq!(cluster.entries(A), cluster.entries(D));
}

#[test]
fn w10_leader_with_a_hung_disk() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    cluster.hang_disk(A);
    let stuck = cluster.produce(A, "stuck");
    cluster.run(&ALL);
    // It is heard, so nobody campaigns; it answers nobody.
    cluster.pass(&ALL, 5);
    assert_eq!(cluster.leader(), Some(A));
    assert_eq!(cluster.answer(stuck), None);
    // It hands leadership to who has most.
    cluster.pass(&ALL, 10);
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, A);
    assert_eq!(cluster.published(A).role, Role::Follower);
    assert!(cluster.answer(stuck).unwrap().is_err());
    let after = cluster.produce(leader, "after");
    cluster.run(&ALL);
    assert!(cluster.acked(after).is_some());
    assert_eq!(cluster.consume(leader), ["base", "stuck", "after"]);
    cluster.free_disk(A);
    cluster.pass(&ALL, 5);
    assert_eq!(cluster.entries(A), cluster.entries(leader));
}

#[test]
fn w10_falls_silent_where_nobody_takes_over() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    cluster.hang_disk(A);
    cluster.produce(A, "stuck");
    cluster.run(&ALL);
    // Whom it hands leadership to, does not hear of it.
    for _ in 0..60 {
        for at in ALL {
            cluster.tick(at);
        }
        cluster.lose(|sent| sent.from == A && sent.is_of_election());
        cluster.run(&ALL);
        if cluster.leader().is_some_and(|leader| leader != A) {
            break;
        }
    }
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, A);
    let after = cluster.produce(leader, "after");
    cluster.run(&ALL);
    assert!(cluster.acked(after).is_some());
}
