//! The machine stops in the middle of a call, in every one of them: in a cut (W2, W5), in the reset
//! behind a snapshot (R4), in the dropping of a head, in a creation (R3), in a start, in becoming
//! whole (R1, R2), in a leader that takes events (L1).

use riverrun_replication::conf::Change;
use riverrun_replication::shard::Input;
use riverrun_storage::disk::mem::CrashModel;

use super::cluster::{A, C, Cluster, D, E, F, GROUP, Plan};
use super::recovering::{ALL, all_lose_power, one_to_fill};
use super::replaced::{d_is_a_full_member, dropped_head};

/// Takes the steps as often as there are calls of `at` in them that change its disk, with its
/// machine stopping in another one each time, and nothing, all and some of what was not synced left.
/// Then it starts again, and everything must be as if nothing had happened.
fn stopping(
    at: u64,
    begin: impl Fn() -> Cluster,
    steps: impl Fn(&mut Cluster),
    then: impl Fn(&mut Cluster),
) {
    let mut crashes = vec![(1, CrashModel::LOSE_ALL), (1, CrashModel::KEEP_ALL)];
    crashes.extend((1..=2).map(|seed| (seed, CrashModel::RANDOM)));
    for (seed, model) in crashes {
        let mut calls = 0;
        loop {
            // Seen where the test fails.
            eprintln!("stop after {calls} calls, seed {seed}, {model:?}");
            let mut cluster = begin();
            let crash = (seed * 1000 + calls, model);
            cluster.machine(at).stop_after(calls, crash);
            steps(&mut cluster);
            let stopped = !cluster.runs(at);
            cluster.kill(at);
            cluster.start(at);
            let all = cluster.nodes();
            is_sound(&mut cluster, &all);
            then(&mut cluster);
            if !stopped {
                assert!(calls > 3, "the steps do nothing");
                break;
            }
            calls += 1;
        }
    }
}

/// Everybody is there, and in time has the same; nothing that was acknowledged is missing.
pub(super) fn is_sound(cluster: &mut Cluster, all: &[u64]) {
    for at in all {
        if !cluster.runs(*at) {
            cluster.start(*at);
        }
    }
    cluster.pass(all, 40);
    let mut ticks = 40;
    while cluster.leader().is_none() {
        assert!(ticks < 400, "nobody leads");
        cluster.pass(all, 10);
        ticks += 10;
    }
    let leader = cluster.leader().unwrap();
    cluster.produce_acked(leader, "in the end");
    cluster.spread(leader, all);
    assert_eq!(cluster.out_of_service, [].into());
    let start = cluster.published(leader).log_start_offset;
    let events = cluster.consume(leader);
    for (offset, event) in cluster.promised() {
        if let Ok(at) = usize::try_from(offset - start) {
            assert_eq!(events.get(at), Some(&event), "offset {offset}");
        }
    }
    let last = cluster.last_index(leader);
    for at in all.iter().copied() {
        assert_eq!(cluster.last_index(at), last, "node {at}");
        let first = cluster.entries(at)[0]
            .index
            .max(cluster.entries(leader)[0].index);
        let from = |entries: Vec<riverrun_storage::LogEntry>| -> Vec<_> {
            entries
                .into_iter()
                .filter(|entry| entry.index >= first)
                .collect()
        };
        assert_eq!(
            from(cluster.entries(at)),
            from(cluster.entries(leader)),
            "node {at}"
        );
    }
}

/// A leads no more, and C does, without the entries that A has stored on F: a change and events, over
/// several segments. C has not spoken to F.
pub(super) fn about_to_cut(great: bool) -> Cluster {
    let all = [A, F, C, D, E];
    let mut cluster = Cluster::new(Plan::voters(&all).segment_bytes(1024));
    cluster.elect(A, &all);
    cluster.produce_acked(A, "base");
    cluster.spread(A, &all);
    cluster.change(A, &[Change::AddLearner(9)]);
    for n in 0..6 {
        if great {
            cluster.produce_great(A, &format!("great {n}"));
        } else {
            cluster.produce(A, &format!("{n:x<300}"));
        }
    }
    cluster.run_only(&[A, F], |sent| !sent.is_acknowledgement());
    cluster.kill(A);
    cluster.lose(|_| true);
    cluster.elect(C, &[C, D, E]);
    cluster
}

#[test]
fn in_a_cut() {
    for great in [false, true] {
        let steps = |cluster: &mut Cluster| {
            let request = cluster.produce(C, "small");
            cluster.pass(&[F, C, D, E], 4);
            cluster.produce_great(C, "great");
            cluster.pass(&[F, C, D, E], 4);
            assert!(cluster.acked(request).is_some());
        };
        stopping(F, || about_to_cut(great), steps, |_| {});
    }
}

#[test]
fn in_a_reset_behind_a_snapshot() {
    let begin = || {
        let mut cluster = dropped_head();
        cluster.change(A, &[Change::AddLearner(D)]);
        cluster.run(&[A, F, C]);
        cluster
    };
    let steps = |cluster: &mut Cluster| {
        let all = [A, F, C, D];
        cluster.pass(&all, 6);
        cluster.produce_acked(A, "behind it");
        cluster.pass(&all, 4);
    };
    stopping(D, begin, steps, d_is_a_full_member);
}

#[test]
fn in_the_dropping_of_a_head() {
    let all = [A, F, C];
    let begin = || {
        let mut cluster = Cluster::of_three(Plan::voters(&all).segment_bytes(1024));
        cluster.produce_as_p(A, 0, "of P");
        for n in 0..8 {
            cluster.produce_acked(A, &format!("{n:x<300}"));
        }
        cluster.spread(A, &all);
        cluster
    };
    let steps = |cluster: &mut Cluster| {
        let group = GROUP;
        let keep_from = cluster.last_index(F) - 2;
        cluster.turn(F, vec![Input::DropHead { group, keep_from }]);
        cluster.pass(&all, 3);
        cluster.produce_acked(A, "behind it");
    };
    stopping(F, begin, steps, |cluster| {
        // What P has sent lies in the head that is gone.
        cluster.kill(A);
        cluster.cut_off(A);
        cluster.elect(F, &[F, C]);
        let again = cluster.produce_as_p(F, 0, "of P");
        let next = cluster.produce_as_p(F, 1, "next of P");
        cluster.run(&[F, C]);
        assert_eq!(cluster.acked(again), Some(1));
        assert!(cluster.acked(next).is_some());
    });
}

#[test]
fn in_a_creation() {
    let begin = || {
        let mut cluster = Cluster::of_three(Plan::voters(&[A, F, C]));
        cluster.add_node(D);
        cluster.change(A, &[Change::AddLearner(D)]);
        cluster.run(&[A, F, C]);
        cluster
    };
    let steps = |cluster: &mut Cluster| {
        cluster.order(D, D);
        cluster.pass(&[A, F, C, D], 6);
    };
    stopping(D, begin, steps, |_| {});
}

#[test]
fn in_a_start() {
    let all = [A, F, C];
    for caching in [false, true] {
        let begin = || {
            let mut plan = Plan::voters(&all).segment_bytes(1024);
            if caching {
                plan = plan.caching();
            }
            let mut cluster = Cluster::of_three(plan);
            for n in 0..4 {
                cluster.produce(A, &format!("{n:x<300}"));
                cluster.run(&all);
            }
            cluster.produce_great(A, "great");
            cluster.pass(&all, 3);
            cluster.produce(A, "last");
            cluster.run(&[A, C]);
            // F has it written, and not flushed.
            cluster.deliver(|sent| sent.to == F);
            cluster.kill(F);
            cluster
        };
        let steps = |cluster: &mut Cluster| {
            cluster.start(F);
            cluster.pass(&all, 4);
        };
        stopping(F, begin, steps, |_| {});
    }
}

#[test]
fn in_an_election_of_the_recovering() {
    for at in [A, F] {
        let begin = || {
            let mut cluster = all_lose_power();
            ALL.iter().for_each(|at| cluster.start(*at));
            cluster
        };
        let steps = |cluster: &mut Cluster| cluster.pass(&ALL, 45);
        stopping(at, begin, steps, |cluster| {
            let leader = cluster.leader().unwrap();
            let events = cluster.consume(leader);
            assert_eq!(events[..3], ["base", "second", "third"]);
        });
    }
}

#[test]
fn in_becoming_whole() {
    let steps = |cluster: &mut Cluster| cluster.pass(&ALL, 15);
    stopping(F, one_to_fill, steps, |cluster| {
        assert!(ALL.iter().all(|at| !cluster.partition(*at).is_recovering()));
    });
}

#[test]
fn in_a_leader_that_takes_events() {
    for caching in [false, true] {
        let begin = || {
            let plan = Plan::voters(&ALL);
            Cluster::of_three(if caching { plan.caching() } else { plan })
        };
        let events = ["zero", "one", "two", "three"];
        let steps = |cluster: &mut Cluster| {
            for (sequence, event) in (0..).zip(events) {
                if cluster.runs(A) {
                    cluster.produce_as_p(A, sequence, event);
                }
                if sequence % 2 == 0 && cluster.runs(A) {
                    cluster.produce_great(A, "great");
                }
                cluster.run(&ALL);
            }
            cluster.pass(&ALL, 4);
        };
        // P asks again for every one of them: each is there once, in its order.
        stopping(A, begin, steps, |cluster| {
            let leader = cluster.leader().unwrap();
            for (sequence, event) in (0..).zip(events) {
                let again = cluster.produce_as_p(leader, sequence, event);
                cluster.run(&ALL);
                assert!(
                    cluster.acked(again).is_some(),
                    "{event}: {:?}",
                    cluster.answer(again)
                );
            }
            let there = cluster.consume(leader);
            let there = there
                .iter()
                .filter(|event| events.contains(&event.as_str()));
            assert!(there.eq(events.iter()));
        });
    }
}
