//! L9: what a producer is told of a batch that it is to send again holds for those behind it.

use riverrun_replication::ProduceError;
use riverrun_replication::shard::Input;
use riverrun_storage::planted::Bug;

use super::cluster::{A, C, Cluster, F, GROUP, Plan, without_rule};

const ALL: [u64; 3] = [A, F, C];

#[test]
fn l9_gap_that_nobody_made() {
    // What P is told of the three batches that it has under way when A hands over to F: of the first, which
    // is in the log of all, and of the two that come too late.
    let steps = || {
        let mut cluster = Cluster::of_three(Plan::voters(&ALL));
        let stored = cluster.produce_as_p(A, 0, "zero");
        cluster.run_only(&ALL, |sent| sent.has_entries());
        cluster.turn(
            A,
            vec![Input::Transfer {
                group: GROUP,
                to: F,
            }],
        );
        let late = [1, 2].map(|sequence| cluster.produce_as_p(A, sequence, "late"));
        let told = late.map(|request| cluster.answer(request));
        cluster.pass(&ALL, 40);
        assert!(cluster.answer(stored).is_some());
        assert_eq!(cluster.consume(C), ["base", "zero"]);
        told
    };
    let refused = |error| Some(Err(error));
    assert_eq!(steps(), [refused(ProduceError::NotLeader); 2]);
    assert_eq!(
        without_rule(Bug::SequenceBeforeRefusal, steps),
        [
            refused(ProduceError::NotLeader),
            refused(ProduceError::OutOfOrderSequence)
        ]
    );
}

#[test]
fn l9_a_leader_remembers_what_it_refused_as_a_follower() {
    // F refuses the first of P's three batches, leads, and then sees the others. Which are in its log.
    let steps = || {
        let mut cluster = Cluster::of_three(Plan::voters(&ALL));
        let first = cluster.produce_as_p(F, 0, "zero");
        let refused = Some(Err(ProduceError::NotLeader));
        assert_eq!(cluster.answer(first), refused);
        cluster.cut_off(A);
        cluster.elect(F, &[F, C]);
        let others = [1, 2].map(|sequence| cluster.produce_as_p(F, sequence, "early"));
        cluster.run(&[F, C]);
        let held = others.map(|request| cluster.answer(request) == refused);
        for (sequence, value) in [(0, "zero"), (1, "one"), (2, "two")] {
            cluster.produce_as_p(F, sequence, value);
        }
        cluster.run(&[F, C]);
        (held, cluster.consume(F))
    };
    let (held, log) = steps();
    assert_eq!(held, [true; 2]);
    assert_eq!(log, ["base", "zero", "one", "two"]);
    // The producer is new to the log, and was taken in the middle.
    let (held, log) = without_rule(Bug::SequenceBeforeRefusal, steps);
    assert_eq!(held, [false; 2]);
    assert_eq!(log, ["base", "early", "early"]);
}

#[test]
fn l9_what_was_lost_with_leadership_is_waited_for() {
    // P's first batch is in the log of A alone, is cut there, and A leads again when the second arrives.
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    let zero = cluster.produce_as_p(A, 0, "zero");
    cluster.run(&ALL);
    assert!(cluster.acked(zero).is_some());
    let lost = cluster.produce_as_p(A, 1, "one");
    cluster.flush(A);
    cluster.cut_off(A);
    cluster.elect(C, &[F, C]);
    cluster.pass(&ALL, 5);
    let refused = Some(Err(ProduceError::NotLeader));
    assert_eq!(cluster.answer(lost), refused);
    cluster.cut_off(C);
    cluster.elect(A, &[A, F]);
    let next = cluster.produce_as_p(A, 2, "two");
    assert_eq!(cluster.answer(next), refused);
    // In the end it is the producer's own gap.
    for _ in 0..600 {
        cluster.tick(A);
        cluster.run(&[A, F]);
    }
    let given_up = cluster.produce_as_p(A, 2, "two");
    assert_eq!(
        cluster.answer(given_up),
        Some(Err(ProduceError::OutOfOrderSequence))
    );
}

#[test]
fn l9_a_gap_of_the_producers_own_is_said_at_once() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    let zero = cluster.produce_as_p(A, 0, "zero");
    cluster.run(&ALL);
    assert!(cluster.acked(zero).is_some());
    let gap = cluster.produce_as_p(A, 2, "two");
    let refused = Some(Err(ProduceError::OutOfOrderSequence));
    assert_eq!(cluster.answer(gap), refused);
}

#[test]
fn l9_a_batch_that_is_there_is_no_gap_however_many_came_behind_it() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    for sequence in 0..8 {
        cluster.produce_as_p(A, sequence, "event");
    }
    // Nothing of it is committed yet, and then all is.
    let early = cluster.produce_as_p(A, 1, "event");
    assert_eq!(cluster.answer(early), None);
    cluster.run(&ALL);
    let late = cluster.produce_as_p(A, 1, "event");
    let there = Some(Err(ProduceError::DuplicateSequence));
    assert_eq!(
        [early, late].map(|request| cluster.answer(request)),
        [there; 2]
    );
    assert_eq!(cluster.consume(A).len(), 9);
}
