//! R1, R2, R2b: replicas that lost what they acknowledged, and how they become whole.

use riverrun_replication::Role;
use riverrun_replication::message::Body;
use riverrun_replication::shard::Input;
use riverrun_storage::planted::Bug;

use super::cluster::{A, C, Cluster, F, GROUP, Plan, without_rule};
use super::wire::Sent;

pub(super) const ALL: [u64; 3] = [A, F, C];

/// A topic that acknowledges from memory, with three events: C has the first of them, A and F have
/// all and the disks of both the first two.
pub(super) fn short_cluster() -> Cluster {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL).caching());
    cluster.pass(&ALL, 3);
    cluster.cut_off(C);
    cluster.produce_durably("second");
    let request = cluster.produce(A, "third");
    // In the memory of A and F: that is what the topic asked for.
    cluster.run_only(&[A, F], |_| true);
    assert!(cluster.acked(request).is_some());
    cluster.cut_off(C);
    cluster
}

/// The same; F comes back short, and nobody hears it yet.
pub(super) fn one_to_fill() -> Cluster {
    let mut cluster = short_cluster();
    cluster.power_cut(F);
    cluster.cut_off(F);
    cluster.start(F);
    cluster
}

impl Cluster {
    /// An event that A and F have on their disks, and C has not heard of.
    fn produce_durably(&mut self, value: &str) {
        let request = self.produce(A, value);
        self.run(&[A, F]);
        self.pass(&[A, F], 3);
        assert!(self.acked(request).is_some());
        for at in [A, F] {
            assert_eq!(self.partition(at).group().durable(), self.last_index(at));
        }
        self.cut_off(C);
    }
}

#[test]
fn r1_out_too_early() {
    // Whether F called itself whole before it was, whether it was elected, and what is left.
    let steps = || {
        let mut cluster = short_cluster();
        assert_eq!(cluster.log(F).last().unwrap().2, "third");
        // F loses power and a part of what it acknowledged.
        cluster.power_cut(F);
        cluster.cut_off(F);
        cluster.start(F);
        assert_eq!(cluster.log(F).last().unwrap().2, "second");
        assert!(cluster.partition(F).is_recovering());
        // A's process starts again: every entry is there, and a commit index of long ago.
        cluster.kill(A);
        cluster.start(A);
        assert_eq!(cluster.log(A).last().unwrap().2, "third");
        assert!(cluster.partition(A).group().commit() < cluster.last_index(A));
        // It is elected by C. F introduces itself before anything of the new term is committed.
        cluster.win(A, &[A, C]);
        for _ in 0..3 {
            cluster.tick(A);
            cluster.run_only(&[A, F], |sent| !sent.has_entries());
        }
        assert!(!cluster.published(A).ready);
        let early = !cluster.partition(F).is_recovering();
        // A dies. C lacks what F lacks.
        cluster.kill(A);
        cluster.lose(|_| true);
        cluster.pass(&[F, C], 60);
        let elected = cluster.leader().is_some();
        cluster.start(A);
        cluster.pass(&ALL, 60);
        let leader = cluster.leader().unwrap();
        assert!(ALL.iter().all(|at| !cluster.partition(*at).is_recovering()));
        (early, elected, cluster.consume(leader))
    };
    let all = ["base", "second", "third"].map(str::to_owned).to_vec();
    assert_eq!(steps(), (false, false, all.clone()));
    let (early, elected, left) = without_rule(Bug::R1, steps);
    assert!(early && elected, "{early} {elected}");
    assert!(!left.contains(&all[2]), "{left:?}");
}

#[test]
fn r1_an_acknowledgement_of_a_former_life() {
    // Whether A acknowledged an event that only A has.
    let steps = || {
        let mut cluster = short_cluster();
        let request = cluster.produce(A, "fourth");
        cluster.deliver(|sent| sent.to == F && sent.has_entries());
        let late = cluster.hold(|sent| sent.is_acknowledgement());
        assert!(!late.is_empty(), "F has it in memory");
        cluster.cut_off(F);
        cluster.power_cut(F);
        cluster.start(F);
        assert!(!cluster.log(F).iter().any(|entry| entry.2 == "fourth"));
        // A hears of the new life, and forgets what F had; then the old word arrives.
        for _ in 0..2 {
            cluster.tick(A);
            cluster.run_only(&[A, F], |sent| !sent.has_entries());
        }
        cluster.put(late);
        cluster.deliver(|sent| sent.to == A && sent.is_acknowledgement());
        let false_ack = cluster.acked(request).is_some();
        cluster.run(&[A, F]);
        cluster.spread(A, &[A, F]);
        assert!(cluster.acked(request).is_some());
        false_ack
    };
    assert!(!steps());
    assert!(without_rule(Bug::R1, steps));
}

#[test]
fn r1_two_that_know_each_others_former_life() {
    // The first words of A and F arrive when both are in another life, and have heard of none.
    let mut cluster = Cluster::new(Plan::voters(&ALL));
    for at in [A, F] {
        for _ in 0..20 {
            cluster.tick(at);
        }
    }
    let first_words = cluster.hold(|sent| sent.to != C && sent.message.to_incarnation == 0);
    assert_eq!(first_words.len(), 2);
    cluster.kill(C);
    cluster.put(first_words.clone());
    cluster.elect(A, &[A, F]);
    let request = cluster.produce(A, "event");
    cluster.run(&[A, F]);
    assert!(cluster.acked(request).is_some());
    cluster.lose(|_| true);
    for at in [A, F] {
        cluster.kill(at);
        cluster.start(at);
    }
    cluster.put(first_words);
    cluster.deliver(|_| true);
    // Neither takes the other's words for said to it, until it hears whose life they are of.
    cluster.pass(&[A, F], 60);
    let leader = cluster.leader().unwrap();
    assert_eq!(cluster.consume(leader), ["event"]);
}

#[test]
fn r1_a_recovering_replica_takes_no_leadership() {
    let mut cluster = short_cluster();
    cluster.power_cut(F);
    cluster.cut_off(F);
    cluster.start(F);
    // A hands leadership to it before it is whole: it neither campaigns nor votes.
    let term = cluster.published(A).term;
    for _ in 0..3 {
        let to = F;
        cluster.turn(A, vec![Input::Transfer { group: GROUP, to }]);
        cluster.tick(A);
        cluster.run_only(&[A, F], |sent| !sent.has_entries());
        assert!(cluster.partition(F).is_recovering());
    }
    for _ in 0..30 {
        cluster.tick(F);
    }
    let asks_for_votes = |sent: &Sent| sent.from == F && sent.is_of_election();
    assert!(!cluster.on_the_wire().any(asks_for_votes));
    cluster.pass(&ALL, 30);
    assert_eq!(cluster.published(A).term, term);
    assert!(!cluster.partition(F).is_recovering());
    assert_eq!(cluster.log(F), cluster.log(A));
}

/// All of three lose power: A keeps three events, F two, C one.
pub(super) fn all_lose_power() -> Cluster {
    let mut cluster = short_cluster();
    // What F and A have in memory becomes durable on A alone.
    for _ in 0..3 {
        cluster.tick(A);
        if cluster.machine(A).wants_any() {
            cluster.flush(A);
        }
    }
    for at in ALL {
        cluster.power_cut(at);
    }
    cluster.lose(|_| true);
    cluster
}

#[test]
fn r2_all_recovering() {
    let mut cluster = all_lose_power();
    for at in ALL {
        cluster.start(at);
    }
    let ends = ALL.map(|at| cluster.log(at).last().unwrap().2.clone());
    assert_eq!(ends, ["third", "second", "base"]);
    assert!(ALL.iter().all(|at| cluster.partition(*at).is_recovering()));
    cluster.pass(&ALL, 60);
    assert_eq!(cluster.leader(), Some(A), "the greatest log leads");
    for at in ALL {
        assert!(!cluster.partition(at).is_recovering());
        assert_eq!(cluster.consume(at), ["base", "second", "third"]);
    }
    assert_eq!(
        cluster
            .history
            .iter()
            .filter(|(_, seen)| seen.role == Role::Leader && seen.term > 1)
            .map(|(at, _)| *at)
            .collect::<std::collections::BTreeSet<_>>(),
        [A].into()
    );
}

#[test]
fn r2_one_voter_missing_is_waited_for() {
    let mut cluster = all_lose_power();
    cluster.start(F);
    cluster.start(C);
    cluster.pass(&[F, C], 300);
    assert_eq!(cluster.leader(), None);
    // Reports of before its start do not count: F starts again, and asks again.
    cluster.kill(F);
    cluster.start(A);
    cluster.pass(&[A, C], 100);
    assert_eq!(cluster.leader(), None);
    cluster.start(F);
    cluster.pass(&ALL, 60);
    assert_eq!(cluster.leader(), Some(A));
    assert_eq!(cluster.consume(F), ["base", "second", "third"]);
}

#[test]
fn r2_two_of_three_short() {
    // C is whole and has the shortest log: it is not enough for a majority, and is not elected.
    let mut cluster = short_cluster();
    cluster.power_cut(A);
    cluster.power_cut(F);
    cluster.lose(|_| true);
    cluster.start(A);
    cluster.start(F);
    assert!(!cluster.partition(C).is_recovering());
    assert!(cluster.partition(A).is_recovering() && cluster.partition(F).is_recovering());
    assert!(!cluster.tries(C, &ALL, 15));
    cluster.pass(&ALL, 60);
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, C);
    for at in ALL {
        assert_eq!(
            cluster.consume(at),
            ["base", "second"],
            "what the disks had"
        );
        assert!(!cluster.partition(at).is_recovering());
    }
}

#[test]
fn r2_replication_one_elects_itself() {
    let mut cluster = Cluster::new(Plan::voters(&[A]).caching());
    cluster.run(&[A]);
    cluster.produce_acked(A, "base");
    cluster.pass(&[A], 3);
    cluster.produce_acked(A, "in memory");
    cluster.power_cut(A);
    cluster.start(A);
    cluster.run(&[A]);
    assert_eq!(cluster.leader(), Some(A));
    assert_eq!(cluster.consume(A), ["base"]);
    assert!(!cluster.partition(A).is_recovering());
    // A killed process loses nothing.
    cluster.produce_acked(A, "again");
    cluster.kill(A);
    cluster.start(A);
    cluster.run(&[A]);
    assert_eq!(cluster.consume(A), ["base", "again"]);
}

#[test]
fn r14_an_older_copy_of_the_same_life() {
    // A copy of F's disk, of the very life in which F goes on to acknowledge four events. F was killed, the
    // copy was put back, and nothing in it tells F that it is one.
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    cluster.produce_acked(A, "before the copy");
    cluster.spread(A, &ALL);
    let copy = cluster.machine(F).disk.snapshot();
    cluster.cut_off(C);
    for n in 0..4 {
        cluster.produce_acked(A, &format!("acknowledged {n}"));
    }
    cluster.power_cut(F);
    cluster.machine(F).disk.restore(&copy);
    cluster.start(F);
    for _ in 0..4 {
        cluster.tick(A);
        cluster.cut_off(C);
        cluster.run(&[A, F]);
    }
    assert!(
        cluster.contradicted.contains(&F),
        "F counts as whole without what it acknowledged"
    );
    // With C, which never had it, all goes on, and what A acknowledged is there.
    cluster.run(&[A, C]);
    cluster.spread(A, &[A, C]);
    assert_eq!(cluster.published(C).high_watermark, 6);
}

#[test]
fn r2b_contradicted() {
    // Whether A acknowledged events of which it is the only holder, and whether C was set aside.
    let steps = || {
        let mut cluster = Cluster::of_three(Plan::voters(&ALL));
        let copies = [A, F].map(|at| cluster.machine(at).disk.snapshot());
        for n in 0..4 {
            cluster.produce_acked(A, &format!("committed {n}"));
        }
        cluster.spread(A, &ALL);
        assert_eq!(cluster.published(C).high_watermark, 5);
        // The majority loses what all have committed, beyond everything that is promised: an
        // election that was allowed to lose, or disks that were rolled back. C was away.
        for (at, copy) in [A, F].into_iter().zip(&copies) {
            cluster.power_cut(at);
            cluster.machine(at).disk.restore(copy);
            for _ in 0..3 {
                cluster.start(at);
                cluster.kill(at);
            }
            cluster.start(at);
        }
        cluster.lose(|_| true);
        cluster.elect(A, &[A, F]);
        cluster.cut_off(F);
        let requests: Vec<u64> = (0..9)
            .map(|n| cluster.produce(A, &format!("other {n}")))
            .collect();
        cluster.flush(A);
        cluster.cut_off(F);
        // C is back. Its answers say that it holds all that A sends it, up to what it has committed.
        for _ in 0..4 {
            cluster.tick(A);
            cluster.cut_off(F);
            cluster.run(&[A, C]);
        }
        let false_acks = requests
            .iter()
            .filter(|r| cluster.acked(**r).is_some())
            .count();
        let aside = cluster.contradicted.contains(&C);
        assert!(
            !cluster
                .log(C)
                .iter()
                .any(|entry| entry.2.starts_with("other"))
        );
        // With F all goes on.
        cluster.run(&[A, F]);
        cluster.spread(A, &[A, F]);
        assert!(
            requests
                .iter()
                .all(|request| cluster.acked(*request).is_some())
        );
        (false_acks > 0, aside)
    };
    assert_eq!(steps(), (false, true));
    assert_eq!(without_rule(Bug::R2b, steps), (true, false));
}

#[test]
fn r2b_an_acknowledgement_before_the_introduction() {
    // Whether a new leader counted what it was told by somebody who had not introduced himself in
    // its term.
    let steps = || {
        let mut cluster = Cluster::of_three(Plan::voters(&ALL));
        cluster.produce_acked(A, "one");
        cluster.kill(A);
        cluster.lose(|_| true);
        cluster.win(F, &[F, C]);
        cluster.flush(F);
        cluster.deliver(|sent| sent.to == C && sent.raft().is_some());
        cluster.flush(C);
        assert!(cluster.on_the_wire().any(Sent::is_acknowledgement));
        cluster.deliver(|sent| sent.to == F && sent.is_acknowledgement());
        let counted = cluster.published(F).ready;
        let asks = |sent: &Sent| matches!(sent.message.body, Body::AskHello { .. });
        assert!(cluster.on_the_wire().any(asks));
        cluster.spread(F, &[F, C]);
        assert!(cluster.published(F).ready);
        counted
    };
    assert!(!steps());
    assert!(without_rule(Bug::R2b, steps));
}
