//! L1 to L7: what a leader answers, and when.

use riverrun_replication::conf::Change;
use riverrun_replication::leaders::{LeaderTable, announce, by_own_replica, newest};
use riverrun_replication::message::Body;
use riverrun_replication::{ProduceError, Role};
use riverrun_storage::EntryKind;
use riverrun_storage::planted::Bug;

use super::cluster::{A, C, Cluster, D, E, F, GROUP, Plan, without_rule};
use super::wire::Sent;

const ALL: [u64; 3] = [A, F, C];

#[test]
fn l1_duplicate_after_election() {
    // How often the event is in the log, and whether its two answers name one offset.
    let steps = || {
        let mut cluster = Cluster::of_three(Plan::voters(&ALL));
        let first = cluster.produce_as_p(A, 0, "zero");
        cluster.run(&ALL);
        assert!(cluster.acked(first).is_some());
        // P's next event is on the disks of A and F when A dies, and nobody knows that it is.
        let lost = cluster.produce_as_p(A, 1, "one");
        cluster.run_only(&[A, F], |sent| !sent.is_acknowledgement());
        cluster.kill(A);
        cluster.cut_off(A);
        assert_eq!(cluster.answer(lost), None);
        assert_eq!(cluster.log(F).last().unwrap().2, "one");
        // F leads with it in its tail, and P asks again.
        cluster.win(F, &[F, C]);
        let again = cluster.produce_as_p(F, 1, "one");
        let next = cluster.produce_as_p(F, 2, "two");
        let answered_early = cluster.answer(again).is_some();
        cluster.spread(F, &[F, C]);
        assert!(cluster.acked(again).is_some() && cluster.acked(next).is_some());
        let log = cluster.consume(F);
        assert_eq!(cluster.consume(C), log);
        let copies = log.iter().filter(|event| *event == "one").count();
        (answered_early, copies)
    };
    assert_eq!(steps(), (false, 1));
    assert_eq!(without_rule(Bug::L1, steps).1, 2);
}

#[test]
fn l2_false_ack() {
    // What A says of its event, and what is at its offset.
    let steps = || {
        let mut cluster = Cluster::of_three(Plan::voters(&ALL));
        let of_a = cluster.produce(A, "of A");
        cluster.flush(A);
        cluster.cut_off(A);
        cluster.elect(C, &[F, C]);
        let of_c = cluster.produce(C, "of C");
        cluster.run(&[F, C]);
        let offset = cluster.acked(of_c).unwrap();
        // A is deposed, and another event is committed where its own was.
        cluster.pass(&ALL, 5);
        let events = cluster.consume(A);
        assert_eq!(events[usize::try_from(offset).unwrap()], "of C");
        assert_eq!(events, cluster.consume(C));
        cluster
            .answer(of_a)
            .unwrap()
            .map(|produced| produced.base_offset == offset)
    };
    assert_eq!(steps(), Err(ProduceError::NotLeader));
    assert_eq!(without_rule(Bug::L2, steps), Ok(true));
}

#[test]
fn l2_a_truncated_batch_is_no_duplicate() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    let lost = cluster.produce_as_p(A, 0, "zero");
    cluster.flush(A);
    cluster.cut_off(A);
    cluster.elect(C, &[F, C]);
    // Deposed, cut, and elected again.
    cluster.pass(&ALL, 5);
    assert_eq!(cluster.answer(lost), Some(Err(ProduceError::NotLeader)));
    cluster.cut_off(C);
    cluster.elect(A, &[A, F]);
    assert_eq!(cluster.consume(A), ["base"]);
    let again = cluster.produce_as_p(A, 0, "zero");
    assert_eq!(cluster.answer(again), None, "nothing of it is there");
    cluster.run(&[A, F]);
    assert!(cluster.acked(again).is_some());
    assert_eq!(cluster.consume(A), ["base", "zero"]);
}

#[test]
fn l2_a_duplicate_waits_for_what_its_first_copy_waits_for() {
    // Committed by two of three is not enough where the topic asks for three.
    let mut cluster = Cluster::of_three(Plan::voters(&ALL).min_insync(3));
    let first = cluster.produce_as_p(A, 0, "zero");
    let before = cluster.produce_as_p(A, 0, "zero");
    cluster.run(&[A, F]);
    assert_eq!(cluster.consume(A), ["base", "zero"]);
    let behind = cluster.produce_as_p(A, 0, "zero");
    cluster.run(&[A, F]);
    let answers = [first, before, behind].map(|request| cluster.answer(request));
    assert_eq!(answers, [None, None, None]);
    cluster.run(&ALL);
    let offsets = [first, before, behind].map(|request| cluster.acked(request));
    assert_eq!(offsets, [Some(1), Some(1), Some(1)]);
}

#[test]
fn l3_single_voter_sends_early() {
    // Whether anything of A's new term reached F before that term was durable, and whether F has
    // A's bytes in the end.
    let steps = || {
        let mut cluster = Cluster::new(Plan::voters(&[A]).learners(&[F]));
        cluster.run(&[A, F]);
        cluster.produce_acked(A, "base");
        cluster.spread(A, &[A, F]);
        let end = cluster.last_index(A);
        assert_eq!(cluster.last_index(F), end);
        let term = cluster.published(A).term;
        // A starts again, leads in one step, and its disk does nothing. What it is asked first is
        // a change of membership, which the library makes an empty entry (L7).
        cluster.kill(A);
        cluster.start(A);
        cluster.change(A, &[Change::AddLearner(9)]);
        for _ in 0..5 {
            cluster.tick(A);
            cluster.deliver(|_| true);
            if cluster.machine(F).wants_round() {
                cluster.flush(F);
            }
        }
        let early = cluster.last_index(F) > end;
        cluster.power_cut(A);
        cluster.cut_off(A);
        // The same term again, with another entry behind its no-op.
        cluster.start(A);
        cluster.run(&[A, F]);
        assert_eq!(cluster.published(A).term, term + 1);
        cluster.produce_acked(A, "other");
        cluster.spread(A, &[A, F]);
        assert_eq!(cluster.published(F).term, term + 1);
        let same = cluster.log(A) == cluster.log(F);
        (
            early,
            same,
            cluster.consume(F).contains(&"other".to_owned()),
        )
    };
    assert_eq!(steps(), (false, true, true));
    assert_eq!(without_rule(Bug::L3, steps), (true, false, false));
}

#[test]
fn l3_no_election_while_a_ready_is_unpersisted() {
    // F becomes the only voter while it has an entry that its disk does not take. One voter leads as
    // soon as it campaigns, and the library asserts that it has persisted what it was handed.
    let mut cluster = Cluster::new(Plan::voters(&[A, F]));
    cluster.elect(A, &[A, F]);
    cluster.produce_acked(A, "base");
    cluster.spread(A, &[A, F]);
    cluster.change(A, &[Change::Remove(A)]);
    cluster.run_only(&[A, F], |sent| !sent.is_acknowledgement());
    cluster.hang_disk(F);
    cluster.produce(A, "event");
    cluster.deliver(Sent::has_entries);
    // Now the change is committed, and F is told.
    for _ in 0..4 {
        cluster.run(&[A, F]);
        cluster.tick(A);
    }
    let group = cluster.partition(F).group();
    assert_eq!(group.conf().1.get_voters(), [F]);
    assert!(group.log().last() > group.written());
    cluster.kill(A);
    cluster.lose(|_| true);
    for _ in 0..60 {
        cluster.tick(F);
    }
    assert!(!cluster.out_of_service.contains(&F));
    assert_eq!(cluster.published(F).role, Role::Follower);
    cluster.free_disk(F);
    cluster.pass(&[F], 60);
    assert_eq!(cluster.leader(), Some(F));
    assert_eq!(cluster.consume(F), ["base", "event"]);
}

#[test]
fn l4_watermark_back() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    let known_to_f = cluster.published(F).high_watermark;
    for n in 0..5 {
        // F and C store and acknowledge; that it is committed they are not told.
        let request = cluster.produce(A, &format!("event {n}"));
        cluster.run_only(&ALL, |sent| sent.has_entries() || sent.is_acknowledgement());
        assert!(cluster.acked(request).is_some());
        cluster.lose(|_| true);
    }
    let shown = cluster.published(A).high_watermark;
    cluster.kill(A);
    let behind = cluster.published(F).high_watermark;
    assert!(known_to_f <= behind && behind < shown);
    let begin = cluster.history.len();
    cluster.win(F, &[F, C]);
    let question = cluster.confirm(F);
    let event = cluster.produce(F, "after");
    let leads = cluster.published(F);
    assert!(leads.role == Role::Leader && !leads.ready);
    assert_eq!(
        leads.high_watermark, behind,
        "this is what must not be answered"
    );
    assert_eq!(
        (cluster.confirmed(question), cluster.answer(event)),
        (None, None)
    );
    cluster.run(&[F, C]);
    let answered = cluster.confirmed(question).unwrap().unwrap();
    assert!(answered.high_watermark >= shown);
    assert_eq!(cluster.acked(event), Some(shown));
    for (at, published) in &cluster.history[begin..] {
        assert_eq!(published.high_watermark, published.last_stable_offset);
        assert!(*at != F || !published.ready || published.high_watermark >= shown);
    }
}

#[test]
fn l5_deposed_leader_answers() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    // Who leads and is heard has its answer, from anybody but itself alone.
    let heard = cluster.confirm(A);
    assert_eq!(cluster.confirmed(heard), None);
    cluster.run(&[A, F]);
    assert_eq!(
        cluster.confirmed(heard).unwrap().unwrap(),
        cluster.published(A)
    );
    // One more question, whose answers are still on their way when another is elected.
    let early = cluster.confirm(A);
    cluster.deliver(|sent| sent.to == F);
    let answers = cluster.hold(|sent| matches!(sent.message.body, Body::ProbeOk { .. }));
    assert!(!answers.is_empty());
    cluster.cut_off(A);
    cluster.elect(C, &[F, C]);
    cluster.produce(C, "later");
    cluster.run(&[F, C]);
    assert_eq!(cluster.published(A).role, Role::Leader, "it does not know");
    // What was said before the question does not answer it.
    let late = cluster.confirm(A);
    cluster.cut_off(A);
    cluster.put(answers);
    cluster.deliver(|sent| sent.to == A);
    assert!(cluster.confirmed(early).is_some(), "it was asked before");
    assert_eq!(cluster.confirmed(late), None);
    cluster.tick(A);
    assert_eq!(cluster.confirmed(late), None);
    cluster.pass(&ALL, 3);
    assert_eq!(cluster.confirmed(late), Some(Err(ProduceError::NotLeader)));
}

#[test]
fn l5_a_joint_configuration_asks_both_halves() {
    let all = [A, F, C, D, E];
    let mut cluster = Cluster::new(Plan::voters(&ALL));
    for at in [D, E] {
        cluster.add_node(at);
        cluster.order(at, at);
    }
    cluster.elect(A, &ALL);
    let changes = [
        Change::AddVoter(D),
        Change::AddVoter(E),
        Change::Remove(F),
        Change::Remove(C),
    ];
    // Into the joint configuration, and no further: the entry that leaves it reaches nobody.
    cluster.change(A, &changes);
    cluster.run_only(&all, |sent| {
        !matches!(&sent.message.body, Body::Raft(raft) if raft.entries.iter().any(|entry| {
            entry.kind == EntryKind::Conf && entry.payload.is_empty()
        }))
    });
    cluster.lose(|_| true);
    let conf = cluster.partition(A).group().conf().1.clone();
    assert_eq!(conf.get_voters_outgoing().len(), 3, "{conf:?}");
    // The old half alone has not confirmed it, nor has the new one.
    let questions = [[A, F, C], [A, D, E]].map(|half| {
        let question = cluster.confirm(A);
        cluster.run_only(&half, |sent| sent.raft().is_none());
        cluster.lose(|_| true);
        question
    });
    assert_eq!(cluster.confirmed(questions[1]), None);
    // What the second half said counts for both questions; the first half must be asked again.
    assert!(cluster.confirmed(questions[0]).unwrap().is_ok());
    let question = cluster.confirm(A);
    cluster.run_only(&[A, F, D], |sent| sent.raft().is_none());
    assert!(cluster.confirmed(question).unwrap().is_ok());
    assert!(cluster.confirmed(questions[1]).unwrap().is_ok());
}

#[test]
fn l5_a_single_voter_asks_nobody() {
    let mut cluster = Cluster::new(Plan::voters(&[A]).learners(&[F]));
    cluster.run(&[A]);
    cluster.lose(|_| true);
    let question = cluster.confirm(A);
    assert!(cluster.confirmed(question).unwrap().is_ok());
    let probes = |sent: &Sent| matches!(sent.message.body, Body::Probe { .. });
    assert!(!cluster.on_the_wire().any(probes));
}

/// What a node is told of [`GROUP`] by another when their link comes up.
fn hears(told: &mut LeaderTable, cluster: &mut Cluster, from: u64) {
    let handle = cluster.handle(from).unwrap();
    for announcement in announce(&[handle]) {
        told.hear(i32::try_from(from).unwrap(), announcement);
    }
}

fn named(told: &LeaderTable) -> Option<(u64, Option<i32>)> {
    told.get(GROUP).map(|lead| (lead.term, lead.node))
}

#[test]
fn l6_epoch_loop() {
    // A node without a replica, whose link to A breaks: what it answers in the end.
    let steps = || {
        let mut cluster = Cluster::of_three(Plan::voters(&ALL));
        let mut told = LeaderTable::default();
        hears(&mut told, &mut cluster, A);
        let first = cluster.published(A).term;
        assert_eq!(named(&told), Some((first, Some(1))));
        cluster.cut_off(A);
        cluster.elect(C, &[F, C]);
        hears(&mut told, &mut cluster, C);
        let second = cluster.published(C).term;
        assert!(second > first);
        // A has not heard that it is deposed, and its link comes up again.
        hears(&mut told, &mut cluster, A);
        (
            named(&told) == Some((second, Some(3))),
            named(&told) == Some((first, Some(1))),
        )
    };
    assert_eq!(steps(), (true, false));
    assert_eq!(without_rule(Bug::L6, steps), (false, true));
}

#[test]
fn l6_a_report_that_was_lost() {
    // F was told of A's first term. A leads again in a later one, and that report is lost.
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    let mut told = LeaderTable::default();
    hears(&mut told, &mut cluster, A);
    cluster.elect(C, &ALL);
    cluster.elect(A, &ALL);
    cluster.spread(A, &ALL);
    let term = cluster.published(A).term;
    assert!(named(&told).unwrap().0 < term);
    let own = by_own_replica(&cluster.published(F), 2, Some(1));
    assert_eq!(newest(told.get(GROUP).as_ref(), own), Some((term, Some(1))));
    // It goes, and what it knew is not forgotten with it.
    told.know(GROUP, &cluster.published(F), Some(1));
    assert_eq!(
        newest(told.get(GROUP).as_ref(), None),
        Some((term, Some(1)))
    );
}

#[test]
fn l7_swallowed_conf_change() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    let first = cluster.change(A, &[Change::AddLearner(8)]);
    let second = cluster.change(A, &[Change::AddLearner(9)]);
    // The library takes the second, says that it did, and appends an empty entry.
    assert_eq!(cluster.answer(second), Some(Err(ProduceError::Busy)));
    assert_eq!(cluster.answer(first), None);
    cluster.run(&ALL);
    assert!(cluster.answer(first).unwrap().is_ok());
    let entries = cluster.entries(A);
    let [.., conf, swallowed] = entries.as_slice() else {
        panic!("{entries:?}");
    };
    assert_eq!(
        (conf.kind, swallowed.kind),
        (EntryKind::Conf, EntryKind::Noop)
    );
    assert_eq!(cluster.entries(F), cluster.entries(A));
    let conf = cluster.partition(A).group().conf().1.clone();
    assert_eq!(conf.get_learners(), [8]);
    // Now it can be had.
    let third = cluster.change(A, &[Change::AddLearner(9)]);
    cluster.run(&ALL);
    assert!(cluster.answer(third).unwrap().is_ok());
}
