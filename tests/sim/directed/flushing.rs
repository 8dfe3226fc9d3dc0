//! W1, W2, W4, W5, W7: what is durable after a flush round, and what a boot makes of it.

use std::path::PathBuf;

use riverrun_replication::conf::Change;
use riverrun_storage::EntryKind;
use riverrun_storage::planted::Bug;

use super::cluster::{A, C, Cluster, D, E, F, GROUP, Plan, without_rule};

/// A file of the partition's first segment.
fn file(extension: &str) -> PathBuf {
    let topic = uuid::Uuid::from_u128(u128::from(GROUP)).simple();
    PathBuf::from(format!("/data/{topic}-0/{:020}.{extension}", 0))
}

/// Durable bytes of that file on a node.
fn durable_len(cluster: &mut Cluster, at: u64, extension: &str) -> u64 {
    let path = file(extension);
    let files = cluster.machine(at).disk.durable_files();
    files
        .into_iter()
        .find_map(|(name, len)| (name == path).then_some(len))
        .unwrap()
}

#[test]
fn w1_vote_lost_in_bulk_round() {
    let steps = || {
        let mut cluster = Cluster::of_three(Plan::voters(&[A, F, C]));
        let old_term = cluster.published(A).term;
        // A is cut off and goes on believing that it leads; it has an event of its own at an index
        // that C is about to give to others.
        let of_a = cluster.produce(A, "of A");
        cluster.cut_off(A);
        // Every round of F holds a great batch of another partition: its vote, the no-op and the
        // event of C's term become durable in bulk rounds, or not at all.
        cluster.make_rounds_great(F);
        cluster.elect(C, &[F, C]);
        let of_c = cluster.produce_great(C, "of C");
        cluster.run(&[F, C]);
        let offset_of_c = cluster.acked(of_c).unwrap();
        cluster.cut_off(C);
        cluster.power_cut(F);
        cluster.start(F);
        // A hears of F again, and overwrites what it can.
        for _ in 0..8 {
            cluster.tick(A);
            cluster.run(&[A, F]);
        }
        let lost = !cluster.log(F).iter().any(|entry| entry.2 == "of C");
        let same_offset = cluster.acked(of_a) == Some(offset_of_c);
        (old_term < cluster.published(F).term, lost, same_offset)
    };
    assert_eq!(steps(), (true, false, false));
    assert_eq!(without_rule(Bug::W1, steps), (false, true, true));
}

/// Loses the power of F. Whether it is in service afterwards with the very entries that it had, all
/// of which it had acknowledged.
fn comes_back_as_it_was(cluster: &mut Cluster) -> bool {
    let before = cluster.entries(F);
    cluster.power_cut(F);
    cluster.start(F);
    !cluster.out_of_service.contains(&F) && cluster.entries(F) == before
}

#[test]
fn w2_stale_replay() {
    let steps = || {
        let all = [A, F, C, D, E];
        let mut cluster = Cluster::new(Plan::voters(&all));
        cluster.elect(A, &all);
        cluster.produce_acked(A, "base");
        // Two small events of A's term, in the WAL of F and uncommitted.
        cluster.produce(A, "10 of A");
        cluster.produce(A, "11 of A");
        cluster.run_only(&[A, F], |sent| !sent.is_acknowledgement());
        assert_eq!(cluster.log(F).last().unwrap().2, "11 of A");
        cluster.kill(A);
        cluster.lose(|_| true);
        // The no-op of C's term comes by the WAL, and what follows goes straight to the segment.
        cluster.elect(C, &[F, C, D, E]);
        let great = cluster.produce_great(C, "11 of C");
        cluster.run(&[F, C, D, E]);
        assert!(cluster.acked(great).is_some());
        assert_eq!(cluster.entries(F), cluster.entries(C));
        comes_back_as_it_was(&mut cluster)
    };
    assert!(steps());
    assert!(!without_rule(Bug::W2, steps));
}

#[test]
fn w2_an_entry_of_a_lower_term_may_replace_one_of_a_higher() {
    let steps = || {
        let all = [A, F, C, D, E];
        let mut cluster = Cluster::new(Plan::voters(&all));
        cluster.elect(A, &all);
        cluster.produce_acked(A, "base");
        cluster.spread(A, &all);
        // (10, 5) and (11, 5) are with A and D; (10, 6), a no-op, is with C and F.
        cluster.produce(A, "10 of A");
        cluster.produce(A, "11 of A");
        cluster.run(&[A, D]);
        cluster.cut_off(A);
        cluster.win(C, &[F, C, E]);
        cluster.lose(|sent| sent.from == C && sent.to != F);
        cluster.run(&[F, C]);
        assert_eq!(cluster.log(F).last().unwrap().2, "noop");
        cluster.kill(C);
        cluster.lose(|_| true);
        // A starts again, leads again, and puts its own back.
        cluster.kill(A);
        cluster.start(A);
        cluster.elect(A, &[A, D, E]);
        cluster.pass(&[A, F, D, E], 5);
        assert_eq!(cluster.consume(F), ["base", "10 of A", "11 of A"]);
        assert_eq!(cluster.entries(F), cluster.entries(A));
        comes_back_as_it_was(&mut cluster)
    };
    assert!(steps());
    assert!(!without_rule(Bug::W2, steps));
}

#[test]
fn w4_replay_order() {
    let mut cluster = Cluster::of_three(Plan::voters(&[A, F, C]));
    let begin = cluster.last_index(F);
    let raft_before = durable_len(&mut cluster, F, "raft");
    // Six bulk rounds: the batches are synced in `.log`, their sidecar records nowhere.
    for n in 0..6 {
        let request = cluster.produce_great(A, &format!("great {n}"));
        cluster.run(&[A, F, C]);
        assert!(cluster.acked(request).is_some());
    }
    // A new term: its no-op is in the WAL only.
    cluster.cut_off(A);
    cluster.kill(A);
    cluster.elect(C, &[F, C]);
    let before = cluster.log(F);
    assert_eq!(before.last().unwrap().2, "noop");
    assert_eq!(before.last().unwrap().0, begin + 7);
    assert_eq!(durable_len(&mut cluster, F, "raft"), raft_before);
    cluster.cut_off(F);
    cluster.power_cut(F);
    cluster.start(F);
    assert_eq!(cluster.log(F), before);
    assert_eq!(cluster.entries(F), cluster.entries(C));
    // And it goes on from there.
    let request = cluster.produce(C, "more");
    cluster.spread(C, &[F, C]);
    assert!(cluster.acked(request).is_some());
    assert_eq!(cluster.log(F), cluster.log(C));
}

#[test]
fn w5_wrong_truncation_order() {
    // Whether F has the event at the index of the change after the crash, and whether F and C show
    // the same in the end.
    let steps = || {
        let all = [A, F, C, D, E];
        let mut cluster = Cluster::new(Plan::voters(&all));
        cluster.elect(C, &all);
        cluster.produce_acked(C, "base");
        // [change (i, 6)] [event (i + 1, 6)], on the disks of C and F only.
        cluster.change(C, &[Change::AddLearner(9)]);
        cluster.produce_great(C, "event");
        cluster.run_only(&[C, F], |sent| !sent.is_acknowledgement());
        let log = cluster.log(F);
        let [.., (change, _, first), (_, _, second)] = log.as_slice() else {
            panic!("{log:?}");
        };
        assert_eq!((first.as_str(), second.as_str()), ("conf", "event"));
        let change = *change;
        cluster.cut_off(C);
        cluster.kill(C);
        // A leads without them, and is heard by F alone.
        cluster.win(A, &[A, D, E]);
        cut_and_crash(&mut cluster, change);
        let taken = cluster
            .entry(F, change)
            .is_some_and(|entry| entry.kind == EntryKind::Data);
        // F is elected, and commits what it has.
        cluster.elect(F, &[F, D, E]);
        cluster.start(C);
        cluster.pass(&[F, C, D, E], 5);
        let same = cluster.consume(F) == cluster.consume(C) && cluster.log(F) == cluster.log(C);
        (taken, same)
    };
    assert_eq!(steps(), (false, true));
    assert_eq!(without_rule(Bug::W5, steps), (true, false));
}

/// A, which leads, makes F cut everything from an index on; the power goes when the round has ended
/// that says that the files are cut, and before anything behind the cut is durable.
fn cut_and_crash(cluster: &mut Cluster, from: u64) {
    for _ in 0..20 {
        cluster.tick(A);
        cluster.lose(|sent| sent.from == A && sent.to != F);
        while cluster.deliver(|sent| [A, F].contains(&sent.from) && [A, F].contains(&sent.to)) > 0 {
            cluster.lose(|sent| sent.from == A && sent.to != F);
        }
        if cluster.machine(F).wants_round() {
            cluster.flush(F);
        }
        if cluster.machine(A).wants_round() {
            cluster.flush(A);
        }
        if cluster
            .entry(F, from)
            .is_some_and(|entry| entry.kind == EntryKind::Noop)
        {
            break;
        }
    }
    let written = cluster.entry(F, from).unwrap();
    assert_eq!(written.kind, EntryKind::Noop, "F has not cut");
    cluster.flush(F);
    cluster.power_cut(F);
    cluster.cut_off(A);
    cluster.kill(A);
    cluster.start(F);
}

#[test]
fn w7_bad_byte_below_what_was_acked() {
    // Whether F is out of service, and whether C, which lacks the event, is elected with its vote.
    let steps = |next_round: bool| {
        let mut cluster = Cluster::of_three(Plan::voters(&[A, F, C]));
        cluster.kill(C);
        let request = cluster.produce_great(A, "acknowledged");
        while cluster.acked(request).is_none() {
            assert!(cluster.deliver(|_| true) > 0 || cluster.machine(F).wants_round());
            for at in [A, F] {
                if cluster.machine(at).wants_round() {
                    cluster.flush(at);
                }
            }
        }
        if next_round {
            // W1: it stores what the round before has reached, and comes at once.
            assert!(cluster.machine(F).wants_any());
            cluster.flush(F);
        }
        cluster.kill(A);
        cluster.cut_off(A);
        let bad = durable_len(&mut cluster, F, "log") - 10;
        assert!(cluster.machine(F).disk.flip_bit(&file("log"), bad, 3));
        cluster.power_cut(F);
        cluster.start(F);
        cluster.start(C);
        let elected = cluster.tries(C, &[F, C], 60);
        (cluster.out_of_service.contains(&F), elected)
    };
    assert_eq!(steps(true), (true, false));
    // In the bytes of the very last round it looks like a torn write, and is not promised against:
    // the rule is what makes that one round and no more.
    assert_eq!(steps(false), (false, true));
}
