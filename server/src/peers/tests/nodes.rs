//! Links between nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use riverrun_replication::message::Body;
use tokio::time::Instant;

use super::*;
use crate::peers::flush;

/// Every message that a node was given until `f` says that it was enough.
async fn messages_until(
    node: &mut Node,
    mut enough: impl FnMut(&[PeerMessage]) -> bool,
) -> Vec<PeerMessage> {
    let mut all = Vec::new();
    node.until("all messages", |told| {
        if let Told::Messages(_, messages) = told {
            all.extend(messages.iter().cloned());
        }
        enough(&all).then_some(())
    })
    .await;
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_once_and_in_order_from_many_threads() {
    const THREADS: u64 = 8;
    const EACH: u64 = 1500;
    let (a, mut b) = two().await;
    let large = append(0, 5000);
    let threads: Vec<_> = (0..THREADS)
        .map(|group| {
            let peers = Arc::clone(&a.peers);
            let large = large.clone();
            thread::spawn(move || {
                for sequence in 0..EACH {
                    peers.queue(2, probe(group, sequence));
                    if sequence % 7 == group % 7 {
                        peers.queue(
                            2,
                            PeerMessage {
                                group,
                                ..large.clone()
                            },
                        );
                    }
                    if (sequence * 31 + group) % 5 < 2 {
                        flush();
                    }
                }
                flush();
            })
        })
        .collect();
    let mut left = THREADS * EACH;
    let mut seen = 0;
    let mut next = BTreeMap::<u64, u64>::new();
    let mut appends = 0;
    messages_until(&mut b, |all| {
        for message in all.get(seen..).unwrap() {
            match &message.body {
                Body::Probe { sequence, .. } => {
                    let next = next.entry(message.group).or_default();
                    assert_eq!(sequence, next, "group {}", message.group);
                    *next += 1;
                    left -= 1;
                }
                _ => {
                    assert_eq!(message.body, large.body);
                    appends += 1;
                }
            }
        }
        seen = all.len();
        left == 0
    })
    .await;
    assert!(appends > THREADS * EACH / 8, "{appends}");
    for thread in threads {
        thread.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_turn_queues_for_a_node_leaves_in_one_frame() {
    let (a, mut b) = two().await;
    for group in 0..100 {
        a.peers.queue(2, probe(group, 1));
    }
    flush();
    // The link's task may come by once, as the link is new, and take what is queued by then.
    let (mut frames, mut messages) = (0, 0);
    while messages < 100 {
        let frame = b.until("a frame", |told| match told {
            Told::Messages(1, messages) => Some(messages.len()),
            _ => None,
        });
        messages += frame.await;
        frames += 1;
    }
    assert_eq!(messages, 100);
    assert!(frames <= 2, "{frames} frames");
    a.peers.queue(2, probe(1, 2));
    a.peers.announce_all(&Bytes::from_static(b"who leads"));
    flush();
    b.until_told(Told::Messages(1, vec![probe(1, 2)])).await;
    b.until_told(Told::Announced(1, Bytes::from_static(b"who leads")))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_gone_at_once_and_a_restarted_one_is_linked_again() {
    let (mut a, mut b) = two().await;
    a.peers.queue(2, append(40, 100));
    a.peers.queue(2, probe(41, 1));
    flush();
    messages_until(&mut b, |all| all.len() == 2).await;
    let killed = Instant::now();
    let (port, old) = b.kill().await;
    // What was sent last may be lost, wherever it was; the probe is repeated by its sender.
    let mut gone = None;
    let mut unreachable = false;
    a.until("the end of node 2", |told| {
        match told {
            Told::Gone(2) => gone = Some(killed.elapsed()),
            Told::Unreachable(targets) => unreachable |= targets.contains(&(40, 2)),
            _ => {}
        }
        (gone.is_some() && unreachable).then_some(())
    })
    .await;
    let took = gone.unwrap();
    assert!(took < Duration::from_millis(500), "it took {took:?}");
    // Nothing is kept for a node that is away.
    a.peers.queue(2, probe(42, 1));
    flush();
    a.until_told(Told::Unreachable(vec![(42, 2)])).await;

    let reborn = Hello {
        incarnation: 2,
        ..old
    };
    let mut b = Node::start_at(port, reborn).await;
    b.knows(&[&a]);
    let (mut up, mut heard) = (false, false);
    a.until("the new life of node 2", |told| {
        up |= *told == Told::Up(2, 2);
        heard |= *told == Told::Heard(2, 2);
        (up && heard).then_some(())
    })
    .await;
    a.peers.queue(2, probe(43, 1));
    flush();
    b.until_told(Told::Messages(1, vec![probe(43, 1)])).await;
    let heard = a.peers.last_heard(2).unwrap();
    assert!(heard < Duration::from_secs(5), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_a_node_that_nobody_knows_is_unreachable() {
    let mut a = Node::start(1).await;
    a.peers.queue(9, probe(5, 1));
    a.until_told(Told::Unreachable(vec![(5, 2)])).await;
    assert_eq!(a.peers.last_heard(9), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_that_a_slow_node_does_not_take_are_dropped_and_reported() {
    let (mut a, mut b) = two().await;
    b.host.shut(true);
    let queued = 200;
    for group in 0..queued {
        a.peers.queue(2, append(group, 1 << 20));
        flush();
    }
    a.peers.queue(2, heartbeat(7, 3));
    flush();
    let mut dropped = BTreeSet::new();
    a.until("what was dropped", |told| {
        if let Told::Unreachable(targets) = told {
            dropped.extend(targets.iter().map(|target| target.0));
        }
        // The last one cannot have had room.
        dropped.contains(&(queued - 1)).then_some(())
    })
    .await;
    b.host.shut(false);
    let arrived = messages_until(&mut b, |all| all.last() == Some(&heartbeat(7, 3))).await;
    let arrived: BTreeSet<u64> = arrived
        .iter()
        .filter(|message| matches!(&message.body, Body::Raft(raft) if !raft.entries.is_empty()))
        .map(|message| message.group)
        .collect();
    // The queue, and what the two sockets and the reader hold.
    assert!((60..120).contains(&arrived.len()), "{}", arrived.len());
    assert!(arrived.is_disjoint(&dropped));
    let all: BTreeSet<u64> = arrived.union(&dropped).copied().collect();
    assert_eq!(all, (0..queued).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_frames_arrive_while_requests_hold_the_whole_budget() {
    let (a, mut b) = two().await;
    let host = Arc::clone(&b.host);
    let _all = [1 << 20, 256 << 10].map(|bytes| host.budget.try_reserve(bytes).unwrap());
    assert!(host.budget.try_reserve(100_000).is_none());
    // Larger than the budget, than the spare memory, and than one frame of many.
    for (group, bytes) in [(0, 200_000), (1, 3 << 20), (2, 20 << 20), (3, 1 << 20)] {
        a.peers.queue(2, append(group, bytes));
    }
    flush();
    let groups = messages_until(&mut b, |all| all.len() == 4).await;
    let groups: Vec<u64> = groups.iter().map(|message| message.group).collect();
    assert_eq!(groups, [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_moved_is_followed_and_one_that_was_removed_is_not() {
    let (mut a, b) = two().await;
    let mut moved = Node::start_at(0, hello(2, 5, CLUSTER)).await;
    a.knows(&[&moved]);
    a.until_told(Told::Up(2, 5)).await;
    a.peers.queue(2, probe(1, 1));
    flush();
    moved.until_told(Told::Messages(1, vec![probe(1, 1)])).await;
    drop(b);
    a.knows(&[]);
    a.peers.queue(2, probe(1, 2));
    flush();
    a.until("node 2 is not known any more", |told| match told {
        Told::Unreachable(targets) => targets.contains(&(1, 2)).then_some(()),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_of_other_clusters_other_nodes_and_former_lives_are_refused() {
    let mut a = Node::start(1).await;
    let other_cluster = Node::start_at(0, hello(2, 1, Uuid::from_u128(0xc2))).await;
    let other_node = Node::start(7).await;
    let strict = Node::start(4).await;
    *strict.host.least_incarnation.lock() = 2;
    let nodes = [
        (2, other_cluster.address()),
        (3, other_node.address()),
        (4, strict.address()),
    ];
    a.peers.set_nodes(nodes.into());
    let mut refused = BTreeMap::new();
    a.until("three refusals", |told| {
        assert!(!matches!(told, Told::Up(..)), "{told:?}");
        if let Told::Refused(node, code) = told {
            refused.insert(*node, *code);
        }
        (refused.len() == 3).then_some(())
    })
    .await;
    let expected = [
        (2, RefusalCode::Cluster),
        (3, RefusalCode::Node),
        (4, RefusalCode::Restored),
    ];
    assert_eq!(refused, expected.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_late_is_linked_as_soon_as_it_is_heard() {
    let late = Node::start(2).await;
    let mut a = Node::start(1).await;
    let address = late.address();
    let (port, hello) = late.kill().await;
    a.peers.set_nodes([(2, address)].into());
    // Until the pause between attempts is the longest; it has no event of its own.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let late = Node::start_at(port, hello).await;
    late.knows(&[&a]);
    let (mut up, mut heard) = (None, None);
    a.until("both links", |told| {
        match told {
            Told::Up(2, 1) => up = Some(Instant::now()),
            Told::Heard(2, 1) => heard = Some(Instant::now()),
            _ => {}
        }
        up.zip(heard)
    })
    .await;
    let took = up.unwrap().saturating_duration_since(heard.unwrap());
    assert!(took < Duration::from_millis(250), "it took {took:?}");
}
