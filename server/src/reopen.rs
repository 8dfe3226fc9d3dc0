//! Replicas that were unavailable when the node started are tried again: one task tries for all of them, with
//! a pause that grows (R16).

use std::sync::{Arc, Weak};
use std::time::Duration;

use riverrun_replication::reconciler::Standing;
use riverrun_replication::retry::Backoff;
use tracing::error;

use crate::broker::Broker;
use crate::net::burst;
use crate::start::group_settings;

/// Whether anything is there yet to be tried, is looked at so often.
const LOOK: Duration = Duration::from_secs(1);

/// Tries until the broker is gone.
pub(crate) async fn follow(broker: Weak<Broker>) {
    let mut backoff = Backoff::default();
    loop {
        let Some(broker) = broker.upgrade().filter(|broker| !broker.is_stopping()) else {
            return;
        };
        if !waits(&broker) {
            backoff = Backoff::default();
            drop(broker);
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let pause = backoff.next(broker.seed());
        tokio::time::sleep(pause).await;
        once(&broker).await;
    }
}

/// Whether a replica is unavailable.
pub(crate) fn waits(broker: &Broker) -> bool {
    let unopened = broker.runtime().node().unopened();
    unopened
        .iter()
        .any(|of| of.standing == Standing::Unavailable)
}

/// Tries once; true where a replica was opened.
pub(crate) async fn once(broker: &Arc<Broker>) -> bool {
    let tried = broker.on_files(|broker| {
        burst::run(broker, || {
            broker
                .runtime()
                .retry_unavailable(|identity| group_settings(broker, identity))
        })
    });
    match tried.await {
        Ok(Ok(any)) => {
            if any {
                broker.catalog().look();
            }
            any
        }
        Ok(Err(error)) => {
            broker.fail(&format!("the controller's log cannot be read: {error}"));
            false
        }
        Err(error) => {
            error!(%error, "replicas cannot be opened again");
            false
        }
    }
}
