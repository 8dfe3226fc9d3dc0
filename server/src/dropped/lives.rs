//! The life of a node: its start, its stop, and what it does all the time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{Drops, for_a_while, polled, to_its_end};
use crate::broker::Broker;
use crate::cluster::{asides, duties, founding, leaders, replacement};
use crate::error::StartError;
use crate::testing::{Node, PATIENCE, config, count, creates, takes_ids};
use crate::{Config, Running, reconcile, reopen, repair, run, scrub, start};

/// Whether the node does what it is there for.
async fn checked(broker: &Arc<Broker>) -> Result<(), String> {
    takes_ids(broker).await?;
    let created = creates(broker, &format!("topic-{}", count())).await;
    created.map_err(|code| format!("error {code}"))
}

/// Starts a node on a directory that another one may be leaving: its lock goes with the last that holds it.
pub(super) async fn starts(config: impl Fn() -> Config) -> Running {
    loop {
        match start(config()).await {
            Ok(running) => return running,
            Err(StartError::Data { what, .. }) if what.contains("use") || what.contains("lock") => {
                sleep(Duration::from_millis(5)).await;
            }
            // So does its listener.
            Err(StartError::Bind { .. }) => sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn a_start() {
    let data = tempfile::tempdir().unwrap();
    let dropped = to_its_end(
        || start(config(&data)),
        async || {
            let running = starts(|| config(&data)).await;
            let checked = checked(running.broker()).await;
            running.stop().await.map_err(|error| error.to_string())?;
            checked
        },
    );
    assert_eq!(dropped.await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn a_run() {
    let data = tempfile::tempdir().unwrap();
    let dropped = to_its_end(
        || {
            // It is told to stop as soon as it serves.
            let (ready, shutdown) = oneshot::channel();
            let ready = |_| ready.send(()).unwrap_or_default();
            run(config(&data), ready, async {
                let _ = shutdown.await;
            })
        },
        async || {
            let running = starts(|| config(&data)).await;
            let checked = checked(running.broker()).await;
            running.stop().await.map_err(|error| error.to_string())?;
            checked
        },
    );
    assert_eq!(dropped.await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn a_stop() {
    let data = tempfile::tempdir().unwrap();
    for drops in [Drops::Waiting, Drops::Woken] {
        for polls in 0.. {
            let running = starts(|| config(&data)).await;
            checked(running.broker()).await.unwrap();
            if let Some(stopped) = polled(polls, drops, PATIENCE, running.stop()).await {
                stopped.unwrap();
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn what_makes_a_node_what_the_image_says() {
    let node = Node::start().await;
    let broker = node.broker();
    // Beside the node's own task, which does the same.
    let dropped = to_its_end(
        || async {
            let name = format!("topic-{}", count());
            let creating = creates(broker, &name);
            tokio::join!(creating, reconcile::once(broker))
        },
        async || checked(broker).await,
    );
    assert_eq!(dropped.await, Ok(()));
    let follow = || {
        let applied = broker.catalog().watch();
        reconcile::follow(Arc::clone(broker), applied, false)
    };
    for_a_while(4, follow, async || checked(broker).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn what_a_node_sees_to() {
    let node = Node::start().await;
    let broker = node.broker();
    let weak = || Arc::downgrade(broker);
    for_a_while(4, || duties::follow(weak()), async || checked(broker).await).await;
    for_a_while(
        4,
        || leaders::follow(weak()),
        async || checked(broker).await,
    )
    .await;
    for_a_while(
        4,
        || replacement::follow(weak()),
        async || checked(broker).await,
    )
    .await;
    for_a_while(4, || asides::follow(weak()), async || checked(broker).await).await;
    for_a_while(4, || reopen::follow(weak()), async || checked(broker).await).await;
    for_a_while(4, || repair::follow(weak()), async || checked(broker).await).await;
    let scrubs = || scrub::follow(weak(), Duration::from_millis(40));
    for_a_while(40, scrubs, async || checked(broker).await).await;
    let dropped = to_its_end(|| asides::once(broker), async || checked(broker).await);
    assert_eq!(dropped.await, Ok(()));
    let dropped = to_its_end(|| reopen::once(broker), async || checked(broker).await);
    assert_eq!(dropped.await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn a_look_at_the_cluster_of_others() {
    let data = Node::start().await.stop().await;
    let nobody = ("127.0.0.1".to_owned(), 1);
    let node = Node::on(data, |config| config.bootstrap_servers = vec![nobody]).await;
    let broker = node.broker();
    let look = || founding::check_cluster(Arc::clone(broker));
    for_a_while(4, look, async || checked(broker).await).await;
}
