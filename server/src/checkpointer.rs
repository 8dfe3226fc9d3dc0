//! Writes images of the cluster's state beside group 0's log, so that a start replays little of it.
//!
//! It blocks, so it runs on a thread of its own, one image at a time, and no turn waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tracing::{debug, warn};

use crate::broker::Broker;
use crate::watched::Kind;

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Checkpointer {
    /// A thread was asked for and has not looked yet.
    asked: AtomicBool,
    /// Held while an image is written.
    writing: Mutex<()>,
}

impl Checkpointer {
    /// Waits until nothing is written any more. The broker is stopping, so nothing will be.
    pub(crate) fn finish(&self) {
        drop(self.writing.lock());
    }
}

/// Has an image written where one is due. Called with a shard's lock held.
pub(crate) fn begin_if_due(broker: &Arc<Broker>) {
    if !broker.catalog().is_image_due() || !broker.is_open() {
        return;
    }
    if broker.checkpointer().asked.swap(true, Ordering::SeqCst) {
        return;
    }
    let on_thread = Arc::clone(broker);
    broker.blocking(Kind::Checkpoint, move || write(&on_thread));
}

fn write(broker: &Broker) {
    let checkpointer = broker.checkpointer();
    let _one = checkpointer.writing.lock();
    checkpointer.asked.store(false, Ordering::SeqCst);
    if broker.is_stopping() {
        return;
    }
    let Some((controller, term)) = broker.catalog().due_image() else {
        return;
    };
    let offset = controller.image().next_offset;
    let written = broker
        .runtime()
        .node()
        .checkpoints()
        .write(&controller, term);
    match written {
        Ok(bytes) => {
            broker.catalog().imaged(bytes);
            debug!(offset, bytes, "wrote an image of the cluster's state");
        }
        Err(error) => {
            warn!(%error, offset, "an image of the cluster's state cannot be written");
        }
    }
}
