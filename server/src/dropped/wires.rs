//! Connections of clients, and the memory that they wait for.

use std::sync::Arc;

use riverrun_wire::encode_request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{A_WHILE, Drops, for_a_while, polled, until};
use crate::net::memory::{Budget, Lease};
use crate::net::{connection, listener};
use crate::testing::{self, Node, PATIENCE, create_request, creates};

#[tokio::test]
pub(super) async fn memory_that_is_waited_for() {
    let budget = Budget::new(1 << 20, 1 << 20);
    let medium = 256 << 10;
    let all = || [1 << 20, medium].map(|bytes| budget.try_reserve(bytes));
    for bytes in [1 << 20, medium] {
        for_a_while(
            3,
            || async {
                let held: [Option<Lease>; 2] = all();
                assert!(held.iter().all(Option::is_some));
                budget.reserve(bytes).await
            },
            async || {
                let free = all().iter().all(Option::is_some) && !budget.large_is_wanted();
                if free { Ok(()) } else { Err("memory is lost") }
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn a_connection() {
    let node = Node::start().await;
    let broker = node.broker();
    for drops in [Drops::Waiting, Drops::Woken] {
        for polls in 0..6 {
            let (connection, mut client) = testing::connection().await;
            let request = create_request(&format!("topic-{}", testing::count()));
            let frame = encode_request(&request, 7, 1, Some("test")).unwrap();
            let frame = frame.into_bytes();
            client.write_all(&frame).await.unwrap();
            let serving = connection::serve(Arc::clone(broker), connection);
            assert_eq!(broker.connections().len(), 1);
            polled(polls, drops, A_WHILE, serving).await;
            assert_eq!(broker.connections().len(), 0, "{drops:?} {polls}");
            let mut all = Vec::new();
            // What was not read of it makes the end a reset.
            let _ = timeout(PATIENCE, client.read_to_end(&mut all))
                .await
                .expect("it is closed");
        }
    }
    assert_eq!(creates(broker, "after").await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn a_listener() {
    let node = Node::start().await;
    let broker = node.broker();
    for drops in [Drops::Waiting, Drops::Woken] {
        for polls in 0..6 {
            let bound = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = bound.local_addr().unwrap();
            let clients = tokio::spawn(async move {
                let mut clients = Vec::new();
                while let Ok(client) = TcpStream::connect(address).await {
                    clients.push(client);
                    tokio::task::yield_now().await;
                    if clients.len() == 4 {
                        break;
                    }
                }
                clients
            });
            let accepting = listener::accept(Arc::clone(broker), bound);
            polled(polls, drops, A_WHILE, accepting).await;
            until("no connection is left", || broker.connections().len() == 0).await;
            for mut client in clients.await.unwrap() {
                let mut all = Vec::new();
                let _ = timeout(PATIENCE, client.read_to_end(&mut all))
                    .await
                    .expect("it is closed");
            }
        }
    }
    assert_eq!(creates(broker, "after").await, Ok(()));
}
