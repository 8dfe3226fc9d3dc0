//! What comes of the end of a task of the links.

use super::*;
use crate::peers::{CallError, Callee, flush};
use crate::watched::{How, Kind};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_connection_of_a_node_that_panics_is_closed_and_made_again() {
    let (a, mut b) = two().await;
    b.watch.spring(Kind::NodeConnection, How::Panicked);
    b.until_told(Told::Gone(1)).await;
    b.watch.disarm();
    b.until_told(Told::Heard(1, 1)).await;
    a.peers.queue(2, probe(3, 1));
    flush();
    b.until("a message over the new link", |told| match told {
        Told::Messages(1, messages) => messages.contains(&probe(3, 1)).then_some(()),
        _ => {
            a.peers.queue(2, probe(3, 1));
            flush();
            None
        }
    })
    .await;
    assert_eq!(*b.watch.fatal().borrow(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn callers_are_told_when_their_line_panics_and_the_next_call_has_another() {
    let a = Node::start(1).await;
    let b = Node::start(2).await;
    a.knows(&[&b]);
    a.watch.spring(Kind::CallLine, How::Panicked);
    let call = |body| {
        a.peers
            .call(Callee::Node(2), Bytes::from_static(body), PATIENCE)
    };
    assert_eq!(call(b"never").await, Err(CallError::Broken));
    a.watch.disarm();
    assert_eq!(call(b"now").await, Ok(Bytes::from_static(b"node 1: now")));
    assert_eq!(*a.watch.fatal().borrow(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_call_that_panics_has_no_answer_and_others_of_its_connection_have() {
    let a = Node::start(1).await;
    let b = Node::start(2).await;
    a.knows(&[&b]);
    let call = |body, within| {
        a.peers
            .call(Callee::Node(2), Bytes::from_static(body), within)
    };
    assert!(call(b"first", PATIENCE).await.is_ok());
    b.watch.spring(Kind::Call, How::Panicked);
    let within = Duration::from_millis(200);
    assert_eq!(call(b"panics", within).await, Err(CallError::TimedOut));
    b.watch.disarm();
    let answer = call(b"now", PATIENCE).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"node 1: now")));
    assert_eq!(*b.watch.fatal().borrow(), None);
}
