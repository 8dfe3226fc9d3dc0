//! Calls.

use tokio::time::Instant;

use super::*;
use crate::peers::{CallError, Callee};

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_share_a_connection_and_are_answered_as_they_are_done() {
    let a = Node::start(1).await;
    let b = Node::start(2).await;
    a.knows(&[&b]);
    let call = |body: String| a.peers.call(Callee::Node(2), body.into(), PATIENCE);
    let began = Instant::now();
    let slow = call("300 slow".to_owned());
    let quick = async {
        let answer = call("quick".to_owned()).await;
        (answer, began.elapsed())
    };
    let (slow, (quick, took)) = tokio::join!(slow, quick);
    assert_eq!(slow, Ok(text("node 1: 300 slow")));
    assert_eq!(quick, Ok(text("node 1: quick")));
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(took < Duration::from_millis(300), "it waited: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_are_carried_out_at_once_are_all_answered() {
    let a = Node::start(1).await;
    let b = Node::start(2).await;
    a.knows(&[&b]);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..300 {
        let peers = Arc::clone(&a.peers);
        calls.spawn(async move {
            let body = format!("20 {number}");
            let answer = peers.call(Callee::Node(2), body.into(), PATIENCE).await;
            (number, answer)
        });
    }
    while let Some(done) = calls.join_next().await {
        let (number, answer) = done.unwrap();
        assert_eq!(answer, Ok(text(&format!("node 1: 20 {number}"))));
    }
    let most = b.host.most_calls.load(Ordering::SeqCst);
    assert!((2..=64).contains(&most), "{most} at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_an_answer_ends_in_time_and_others_go_on() {
    let a = Node::start(1).await;
    let b = Node::start(2).await;
    a.knows(&[&b]);
    let within = Duration::from_millis(100);
    let never = a.peers.call(Callee::Node(2), text("never"), within).await;
    assert_eq!(never, Err(CallError::TimedOut));
    let answer = a.peers.call(Callee::Node(2), text("now"), PATIENCE).await;
    assert_eq!(answer, Ok(text("node 1: now")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_without_a_cluster_call_by_address() {
    let nobody = Node::start_at(0, hello(-1, 0, Uuid::nil())).await;
    let b = Node::start(2).await;
    let fresh = Node::start_at(0, hello(3, 1, Uuid::nil())).await;
    for node in [&b, &fresh] {
        let callee = Callee::At(node.address());
        let answer = nobody
            .peers
            .call(callee, text("who are you"), PATIENCE)
            .await;
        assert_eq!(answer, Ok(text("node -1: who are you")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_call_is_carried_and_a_longer_one_refused() {
    let a = Node::start(1).await;
    let b = Node::start(2).await;
    a.knows(&[&b]);
    let long = Bytes::from(vec![b'x'; 5 << 20]);
    let answer = a
        .peers
        .call(Callee::Node(2), long.clone(), PATIENCE)
        .await
        .unwrap();
    assert_eq!(answer.len(), "node 1: ".len() + long.len());
    let longer = Bytes::from(vec![b'x'; (16 << 20) + 1]);
    let answer = a.peers.call(Callee::Node(2), longer, PATIENCE).await;
    assert_eq!(answer, Err(CallError::TooLong((16 << 20) + 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_cannot_be_made_say_why() {
    let a = Node::start(1).await;
    let foreign = Node::start_at(0, hello(2, 1, Uuid::from_u128(0xc2))).await;
    let call = |callee| a.peers.call(callee, text("anybody"), PATIENCE);
    assert_eq!(call(Callee::Node(9)).await, Err(CallError::Unknown));
    let refused = call(Callee::At(foreign.address())).await;
    assert!(
        matches!(&refused, Err(CallError::Refused(refusal)) if refusal.code == RefusalCode::Cluster),
        "{refused:?}"
    );
    let address = foreign.address();
    foreign.kill().await;
    let unreachable = call(Callee::At(address)).await;
    assert!(
        matches!(unreachable, Err(CallError::Unreachable(_))),
        "{unreachable:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_when_its_node_dies_is_broken_and_the_next_finds_the_new_one() {
    let a = Node::start(1).await;
    let b = Node::start(2).await;
    a.knows(&[&b]);
    let peers = Arc::clone(&a.peers);
    let never =
        tokio::spawn(async move { peers.call(Callee::Node(2), text("never"), PATIENCE).await });
    let host = Arc::clone(&b.host);
    while host.calls_under_way.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let (port, hello) = b.kill().await;
    assert_eq!(never.await.unwrap(), Err(CallError::Broken));
    let _b = Node::start_at(port, hello).await;
    let answer = a.peers.call(Callee::Node(2), text("now"), PATIENCE).await;
    assert_eq!(answer, Ok(text("node 1: now")));
}
