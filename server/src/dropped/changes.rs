//! Changes of the cluster, and who asks for them.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_replication::controller::{
    AllocateProducerIds, Command, RegisterBroker, encode_batch, encode_numbered_batch,
};
use riverrun_replication::frame::{Hello, Purpose};
use riverrun_replication::node::CONTROLLER_GROUP;
use riverrun_replication::proposer::Proposer;
use riverrun_storage::planted::{self, Bug};
use tempfile::TempDir;
use tokio::time::timeout;
use uuid::Uuid;

use super::{for_a_while, to_its_end, until};
use crate::broker::Broker;
use crate::cluster::host::NodeHost;
use crate::cluster::protocol::{
    AskFounding, AskQuorum, AskWords, Closed, Join, Propose, Question, Reply,
};
use crate::cluster::{founding, replacement};
use crate::peers::PeerHost;
use crate::testing::{Node, PATIENCE, count, creates, takes_ids};

/// Two nodes, the first of which leads group 0 and has nobody to follow but itself.
pub(super) async fn two() -> (Node, Node) {
    let first = Node::start().await;
    let (host, port) = first.broker().peer_address().unwrap();
    let second = Node::with(|config| {
        config.node_id = 2;
        config.bootstrap_servers = vec![(host, port)];
    })
    .await;
    assert_eq!(second.broker().controller_node(), 1);
    (first, second)
}

/// Whether changes still work, and nobody waits who is not there.
async fn checked(broker: &Arc<Broker>) -> Result<(), String> {
    takes_ids(broker).await?;
    until("nobody waits", || broker.waiting() == 0).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn a_change() {
    let node = Node::start().await;
    let broker = node.broker();
    let dropped = to_its_end(|| takes_ids(broker), async || checked(broker).await);
    assert_eq!(dropped.await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_are_taken_after_an_await_are_found() {
    let node = Node::start().await;
    let broker = node.broker();
    planted::set(Bug::NumbersAfterAwait, true);
    let dropped = to_its_end(|| takes_ids(broker), async || checked(broker).await).await;
    planted::set(Bug::NumbersAfterAwait, false);
    let why = dropped.unwrap_err();
    assert!(why.contains("producer ids"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn a_change_that_another_node_writes() {
    let (_first, second) = two().await;
    let broker = second.broker();
    let dropped = to_its_end(|| takes_ids(broker), async || checked(broker).await);
    assert_eq!(dropped.await, Ok(()));
}

/// Who asks: a node of the cluster that is not there.
fn hello(broker: &Broker, node: i32) -> Hello {
    Hello {
        purpose: Purpose::Calls,
        cluster_id: broker.cluster_uuid(),
        node,
        directory_id: Uuid::from_u128(node.unsigned_abs().into()),
        incarnation: 1,
        meant: -1,
        starts: Vec::new(),
    }
}

fn registration(node: i32) -> Bytes {
    let command = Command::RegisterBroker(RegisterBroker {
        node,
        directory: Uuid::from_u128(node.unsigned_abs().into())
            .as_bytes()
            .to_vec(),
        incarnation: 1,
        host: "nowhere".to_owned(),
        port: 1,
        rack: String::new(),
        peer_host: "127.0.0.1".to_owned(),
        peer_port: 1,
        token: 7,
        replaces: None,
        room: None,
    });
    encode_batch(&[command]).unwrap().freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn calls_of_other_nodes() {
    let node = Node::start().await;
    let broker = node.broker();
    let host = NodeHost::new(broker);
    let mut proposer = Proposer::new(99);
    let mut questions: Vec<Box<dyn FnMut() -> (i32, Question)>> = vec![
        Box::new(|| {
            let line = Question::Founding(AskFounding {
                voters: String::new(),
            });
            (9, line)
        }),
        Box::new(|| {
            // Each with a number that nobody has yet.
            let node = 100 + i32::try_from(count()).unwrap();
            let registration = registration(node);
            let lost = 0;
            (node, Question::Join(Join { registration, lost }))
        }),
        Box::new(|| {
            let take = Command::AllocateProducerIds(AllocateProducerIds { count: count() });
            let numbers = proposer.propose(1).numbers();
            let batch = encode_numbered_batch(&[take], Some(numbers)).unwrap();
            let batch = batch.freeze();
            (9, Question::Propose(Propose { batch }))
        }),
        Box::new(|| {
            let topics = vec![Uuid::new_v4().as_bytes().to_vec()];
            (9, Question::Closed(Closed { node: 9, topics }))
        }),
        Box::new(|| (9, Question::Quorum(AskQuorum {}))),
        Box::new(|| {
            let groups = vec![CONTROLLER_GROUP];
            (9, Question::Words(AskWords { groups }))
        }),
    ];
    for ask in &mut questions {
        let call = || {
            let (node, question) = ask();
            host.call(hello(broker, node), question.into_bytes())
        };
        let dropped = to_its_end(call, async || checked(broker).await);
        assert_eq!(dropped.await, Ok(()));
        let (node, question) = ask();
        let what = format!("{question:?}");
        let answer = host.call(hello(broker, node), question.into_bytes()).await;
        let answer = Reply::from_bytes(answer).unwrap();
        assert!(!matches!(answer, Reply::Refused(_)), "{what}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn waits_for_a_leader() {
    let node = Node::start().await;
    let broker = node.broker();
    assert_eq!(creates(broker, "led").await, Ok(()));
    let topic = broker.topics().named("led").unwrap();
    let at = Arc::clone(topic.partition(0).unwrap().here().unwrap());
    let ids = || async { broker.next_producer_id().await.map(drop) };
    let dropped = to_its_end(ids, async || checked(broker).await);
    assert_eq!(dropped.await, Ok(()));
    let leading = || broker.leading(&at, -1, PATIENCE, true);
    let dropped = to_its_end(leading, async || match leading().await {
        Ok(_) => checked(broker).await,
        Err(code) => Err(format!("{code:?}")),
    });
    assert_eq!(dropped.await, Ok(()));
    let there = || broker.until_controller(PATIENCE);
    let dropped = to_its_end(there, async || checked(broker).await);
    assert_eq!(dropped.await, Ok(()));
    let never = || broker.until_controller_is_not(1);
    for_a_while(3, never, async || checked(broker).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn a_registration() {
    let node = Node::start().await;
    let broker = node.broker();
    let dropped = to_its_end(
        || founding::register(broker),
        async || {
            founding::register(broker)
                .await
                .map_err(|e| e.to_string())?;
            checked(broker).await
        },
    );
    assert_eq!(dropped.await, Ok(()));
    let dropped = to_its_end(
        || founding::found_or_join(broker),
        async || checked(broker).await,
    );
    assert_eq!(dropped.await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn words_of_leaders() {
    let (_first, second) = two().await;
    let broker = second.broker();
    assert_eq!(creates(broker, "of_words").await, Ok(()));
    let topic = broker.topics().named("of_words").unwrap();
    let groups = [CONTROLLER_GROUP, topic.partition(0).unwrap().group].into();
    let dropped = to_its_end(
        || replacement::words(broker, &groups),
        async || {
            // As many are given as are given in time: on a busy machine it is asked again.
            let all =
                async { while replacement::words(broker, &groups).await.len() < groups.len() {} };
            timeout(PATIENCE, all).await.map_err(|e| e.to_string())?;
            checked(broker).await
        },
    );
    assert_eq!(dropped.await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn a_join() {
    // A node that comes to a cluster is dropped on its way; whatever is left of it is in the way of nobody.
    let first = Node::start().await;
    let at = first.broker().peer_address().unwrap();
    let data: TempDir = tempfile::tempdir().unwrap();
    // It is found where it was.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap();
    drop(free);
    let config = || {
        let mut config = crate::testing::config(&data);
        config.node_id = 2;
        config.controller_listen = Some(listen);
        config.bootstrap_servers = vec![at.clone()];
        config
    };
    for_a_while(
        8,
        || crate::start(config()),
        async || checked(first.broker()).await,
    )
    .await;
    let joined = timeout(PATIENCE, super::lives::starts(config)).await;
    let joined = joined.expect("it joins");
    checked(joined.broker()).await.unwrap();
    joined.stop().await.unwrap();
}
