//! What comes of the end of each.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use riverrun_replication::runtime::Host;
use riverrun_wire::api::ListOffsetsRequest;
use riverrun_wire::api::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use riverrun_wire::{ErrorCode, encode_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::error::StartError;
use crate::kafka::{Promised, list_offsets};
use crate::testing::{Node, PATIENCE, call, connection, create_request, creates, takes_ids};
use crate::watched::{End, Fatal, How, Kind, Watch};

/// Waits until the node must not go on, and why.
async fn fatal(watch: &Watch) -> Fatal {
    let mut fatal = watch.fatal();
    let why = fatal.wait_for(Option::is_some).await;
    why.unwrap().clone().unwrap()
}

/// Has something of a kind begin that a node does not do all the time.
fn provoke(broker: &Arc<Broker>, kind: Kind) {
    match kind {
        Kind::Flusher => broker.wake_flusher(),
        Kind::Link => {
            // Nobody is there.
            let nobody = ("127.0.0.1".to_owned(), 1);
            broker.peers().set_nodes([(9, nobody)].into());
        }
        Kind::CheckCluster | Kind::LateRegistration => {
            broker.watch().task(kind, pending());
        }
        Kind::ShardTurn => broker.runtime().host().run_later(0),
        Kind::LaneWriter => broker.runtime().host().write_later(0),
        Kind::Checkpoint => {
            let broker = Arc::clone(broker);
            tokio::spawn(async move { while takes_ids(&broker).await.is_ok() {} });
        }
        _ => {}
    }
}

/// Ends what is of a kind on a node of its own.
async fn ends_the_process(kind: Kind, how: How) {
    let node = Node::with(|config| config.controller_checkpoint_bytes = 1).await;
    let broker = Arc::clone(node.broker());
    broker.watch().spring(kind, how);
    provoke(&broker, kind);
    let why = timeout(PATIENCE, fatal(broker.watch())).await;
    assert_eq!(why, Ok(Fatal::Ended(kind, how)), "{kind:?} {how:?}");
    let ended = timeout(PATIENCE, node.running.until_it_ends()).await;
    let error = ended.expect("the node ends").unwrap_err();
    assert!(
        matches!(error, StartError::Ended { what, .. } if what == kind.name()),
        "{error}"
    );
    assert_eq!(error.exit_status(), 70);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_panic_of_what_the_node_needs_ends_the_process() {
    for kind in Kind::ALL
        .into_iter()
        .filter(|kind| kind.end() == End::Process)
    {
        ends_the_process(kind, How::Panicked).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn what_the_node_needs_ends_the_process_by_returning() {
    let needed = Kind::ALL.into_iter().filter(|kind| !kind.may_return());
    for kind in needed {
        ends_the_process(kind, How::Returned).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_turn_that_panics_on_any_thread_ends_the_process() {
    let node = Node::start().await;
    node.broker().runtime().host().turn_panicked();
    let expected = Fatal::Ended(Kind::ShardTurn, How::Panicked);
    assert_eq!(fatal(node.broker().watch()).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn nothing_is_said_of_what_ends_with_its_node() {
    let node = Node::start().await;
    let watch = node.broker().watch().clone();
    node.stop().await;
    assert_eq!(*watch.fatal().borrow(), None);
}

/// A client that sends a request and reads until the connection is closed.
async fn until_closed(address: std::net::SocketAddr, frame: &[u8]) {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(frame).await.unwrap();
    let mut all = Vec::new();
    // Where it is closed while something is unread, it is reset.
    let _ = timeout(PATIENCE, client.read_to_end(&mut all))
        .await
        .expect("it is closed");
    assert!(all.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_panic_over_a_connection_closes_it_and_no_other() {
    let node = Node::start().await;
    let (watch, address) = (node.broker().watch().clone(), node.running.address());
    let frame = encode_request(&create_request("never"), 7, 1, Some("test")).unwrap();
    let frame = frame.into_bytes();
    for kind in [Kind::Connection, Kind::Request] {
        watch.spring(kind, How::Panicked);
        until_closed(address, &frame).await;
        watch.disarm();
    }
    assert_eq!(creates(node.broker(), "after").await, Ok(()));
    assert_eq!(*watch.fatal().borrow(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_promised_answer_that_is_not_given_closes_its_connection() {
    // As a read from the disk promises one, on its way to the thread and on it.
    let node = Node::start().await;
    let (connection, mut client) = connection().await;
    let serving = crate::net::connection::serve(Arc::clone(node.broker()), Arc::clone(&connection));
    let serving = tokio::spawn(serving);
    let promised = Promised::new(&connection);
    let watch = node.broker().watch();
    watch.spring(Kind::DiskRead, How::Panicked);
    let read = node
        .broker()
        .blocking(Kind::DiskRead, move || promised.hand_over());
    assert!(read.await.unwrap_err().is_panic());
    let served = timeout(PATIENCE, serving).await;
    served.expect("it is served no more").unwrap();
    drop(connection);
    let mut all = Vec::new();
    let closed = timeout(PATIENCE, client.read_to_end(&mut all)).await;
    assert_eq!(closed.expect("it is closed").unwrap(), 0);
    assert_eq!(*watch.fatal().borrow(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_search_by_time_that_panics_is_an_error_of_its_asker() {
    let node = Node::start().await;
    let watch = node.broker().watch();
    assert_eq!(creates(node.broker(), "searched").await, Ok(()));
    watch.spring(Kind::DiskSearch, How::Panicked);
    let (call, _client) = call(node.broker(), 7).await;
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: "searched".to_owned(),
            partitions: vec![ListOffsetsPartition {
                timestamp: 5,
                current_leader_epoch: -1,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    };
    let response = list_offsets::handle(call, request).await;
    let row = response.topics.first().unwrap().partitions.first().unwrap();
    assert_eq!(row.error_code, ErrorCode::KafkaStorageError.number());
    assert_eq!(*watch.fatal().borrow(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn work_on_files_that_panics_is_tried_again() {
    let node = Node::start().await;
    let watch = node.broker().watch();
    watch.spring(Kind::Files, How::Panicked);
    let broker = Arc::clone(node.broker());
    let creating = tokio::spawn(async move { creates(&broker, "late").await });
    // It is in the image, and this node cannot make it ready.
    let mut applied = node.broker().catalog().watch();
    let there = || {
        let catalog = node.broker().catalog();
        catalog.read(|image| image.topics.values().any(|topic| topic.name == "late"))
    };
    while !there() {
        applied.changed().await.unwrap();
    }
    assert!(node.broker().topics().named("late").is_none());
    watch.disarm();
    let created = timeout(Duration::from_secs(20), creating).await;
    assert_eq!(created.expect("it is tried again").unwrap(), Ok(()));
    assert_eq!(*watch.fatal().borrow(), None);
}
