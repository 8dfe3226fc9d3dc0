use std::net::{Ipv4Addr, Ipv6Addr};

use uuid::Uuid;

use super::*;
use crate::controller::{QuorumReplica, ReplicaImage};

/// Group 0 with these voters and learners.
fn quorum(voters: &[i32], learners: &[i32]) -> QuorumImage {
    let of = |nodes: &[i32], votes: bool| -> Vec<QuorumReplica> {
        let known = |node: &i32| QuorumReplica {
            at: ReplicaImage {
                replica: u64::from(node.unsigned_abs()),
                node: *node,
                directory: Uuid::nil(),
            },
            votes,
        };
        nodes.iter().map(known).collect()
    };
    QuorumImage {
        first_voters: Vec::new(),
        replicas: [of(voters, true), of(learners, false)].concat(),
    }
}

/// Node 1 after a minute, having heard the others so long ago.
fn cut_off(quorum: &QuorumImage, heard: &[(i32, u64)]) -> bool {
    is_cut_off(quorum, 1, 60_000, |node| {
        let found = heard.iter().find(|(other, _)| *other == node);
        found.map(|(_, ago)| *ago)
    })
}

#[test]
fn x2_a_node_is_cut_off_when_two_seconds_have_brought_no_majority() {
    let three = quorum(&[1, 2, 3], &[]);
    assert!(!cut_off(&three, &[(2, 100), (3, 100)]));
    // Itself and one other are a majority.
    assert!(!cut_off(&three, &[(2, UNHEARD_MS - 1), (3, 50_000)]));
    assert!(cut_off(&three, &[(2, UNHEARD_MS), (3, UNHEARD_MS)]));
    assert!(cut_off(&three, &[]));
    // Half of them is none.
    assert!(cut_off(&quorum(&[1, 2], &[]), &[(2, UNHEARD_MS)]));
    assert!(!cut_off(&quorum(&[1, 2], &[]), &[(2, 0)]));
    let five = quorum(&[1, 2, 3, 4, 5], &[]);
    assert!(cut_off(&five, &[(2, 0), (3, 5_000)]));
    assert!(!cut_off(&five, &[(2, 0), (3, 0)]));
}

#[test]
fn x2_a_node_that_has_just_started_has_not_waited_for_anybody() {
    let three = quorum(&[1, 2, 3], &[]);
    assert!(!is_cut_off(&three, 1, UNHEARD_MS - 1, |_| None));
    assert!(is_cut_off(&three, 1, UNHEARD_MS, |_| None));
}

#[test]
fn x2_learners_and_dismantled_nodes_do_not_count() {
    // The learners 4 and 5 are silent, and whoever else stands in the image is no replica at all.
    let grown = quorum(&[1, 2, 3], &[4, 5]);
    assert!(!cut_off(&grown, &[(2, 0)]));
    // That they are heard makes no majority.
    assert!(cut_off(&grown, &[(4, 0), (5, 0), (6, 0)]));
    // A learner's own word is no voter's.
    let follower = quorum(&[2, 3, 4], &[1]);
    assert!(cut_off(&follower, &[(2, 0)]));
    assert!(!cut_off(&follower, &[(2, 0), (3, 0)]));
    // The only voter of two nodes needs nobody.
    assert!(!cut_off(&quorum(&[1], &[2]), &[]));
    assert!(cut_off(&quorum(&[2], &[1]), &[]));
}

#[test]
fn x2_a_node_alone_in_its_cluster_is_never_cut_off() {
    assert!(!cut_off(&quorum(&[1], &[]), &[]));
    assert!(!cut_off(&QuorumImage::default(), &[]));
}

#[test]
fn x2_what_a_node_can_commit_alone_concerns_nobody_else() {
    assert!(!concerns_others(1, [1].into_iter()));
    assert!(!concerns_others(1, [].into_iter()));
    assert!(concerns_others(1, [1, 2].into_iter()));
    assert!(concerns_others(1, [2].into_iter()));
    assert!(quorum_concerns_others(1, &quorum(&[2], &[1])));
    assert!(!quorum_concerns_others(1, &quorum(&[1], &[2])));
}

fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(number))
}

#[test]
fn x2_an_address_is_sent_away_once_in_ten_seconds() {
    let mut sent = SentAway::default();
    assert!(sent.sends_away(address(7), 0, 5_000));
    // It came back at once, and is let be.
    assert!(!sent.sends_away(address(7), 5_000, 5_000));
    assert!(!sent.sends_away(address(7), 5_001, 5_100));
    assert!(!sent.sends_away(address(7), 5_001, 5_000 + PAUSE_MS - 1));
    assert!(sent.sends_away(address(7), 5_001, 5_000 + PAUSE_MS));
    // Another address has its own time.
    assert!(sent.sends_away(address(8), 5_050, 5_100));
    // The same one, in the words of a socket for both families.
    let mapped = Ipv4Addr::from_bits(8).to_ipv6_mapped();
    assert!(!sent.sends_away(IpAddr::V6(mapped), 5_101, 5_200));
    assert!(sent.sends_away(IpAddr::V6(Ipv6Addr::LOCALHOST), 5_101, 5_200));
}

#[test]
fn x2_who_dials_again_is_answered_a_moment_later() {
    let mut sent = SentAway::default();
    assert_eq!(sent.held_until(address(7), 0), None);
    assert!(sent.sends_away(address(7), 0, 5_000));
    let until = 5_000 + HELD_MS;
    assert_eq!(sent.held_until(address(7), 5_001), Some(until));
    assert_eq!(sent.held_until(address(7), until - 1), Some(until));
    assert_eq!(sent.held_until(address(7), until), None);
    // Nobody else waits, and nobody waits twice as long for being refused again.
    assert_eq!(sent.held_until(address(8), 5_001), None);
    assert!(!sent.sends_away(address(7), until, until + 100));
    assert_eq!(sent.held_until(address(7), until + 200), None);
}

#[test]
fn x2_all_clients_of_an_address_go_and_none_goes_twice() {
    let mut sent = SentAway::default();
    assert!(sent.sends_away(address(7), 4_000, 5_000));
    // A producer on the same machine, connected long before, which asks a little later.
    assert!(sent.sends_away(address(7), 100, 5_300));
    // That did not begin a new time.
    assert!(!sent.sends_away(address(7), 5_200, 5_400));
    assert!(sent.sends_away(address(7), 5_200, 5_000 + PAUSE_MS));
}

#[test]
fn x2_ten_thousand_clients_do_not_dial_in_a_circle() {
    // Each comes back 100 ms after it was sent away, over half a minute.
    let mut sent = SentAway::default();
    let mut clients: Vec<(IpAddr, u64, u32)> =
        (0..10_000).map(|number| (address(number), 0, 0)).collect();
    for now_ms in (1_000..31_000).step_by(100) {
        for (address, opened_ms, closed) in &mut clients {
            if sent.sends_away(*address, *opened_ms, now_ms) {
                (*opened_ms, *closed) = (now_ms + 100, *closed + 1);
            }
        }
    }
    assert!(clients.iter().all(|(_, _, closed)| *closed <= 3));
}

#[test]
fn x2_the_table_is_bounded_and_who_does_not_fit_is_let_be() {
    let mut sent = SentAway::default();
    let mut addresses = (0..).map(address);
    for address in addresses.by_ref().take(MAX_ADDRESSES) {
        assert!(sent.sends_away(address, 0, 1_000));
    }
    let next = addresses.next();
    let goes = |sent: &mut SentAway, now_ms| next.is_some_and(|at| sent.sends_away(at, 0, now_ms));
    assert!(!goes(&mut sent, 1_000));
    assert_eq!(sent.last.len(), MAX_ADDRESSES);
    // Those whose time is over make room.
    assert!(goes(&mut sent, 1_000 + PAUSE_MS));
    assert_eq!(sent.last.len(), 1);
}
