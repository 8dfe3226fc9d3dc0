//! What one turn of a thread answers, collected: each connection is written to once, each partition's
//! parked fetches are looked at once, and what is for another node leaves in one frame, however many
//! batches were committed.
//!
//! Everything that steps shards (a connection's task, the flusher, the ticker) does so inside
//! [`run`]. Within it completions post their answers and leave the writing for the end. A
//! completion that reaches us on any other thread is carried out at once.

use std::cell::RefCell;
use std::sync::Arc;

use super::connection::Connection;
use crate::broker::Broker;
use crate::partition::Partition;
use crate::peers;

#[derive(Debug, Default)]
struct Burst {
    connections: Vec<Arc<Connection>>,
    partitions: Vec<Arc<Partition>>,
    shards: Vec<usize>,
}

thread_local! {
    static BURST: RefCell<Option<Burst>> = const { RefCell::new(None) };
}

/// Takes the burst away again, also when something in it panics: a thread of the pool must not
/// collect for ever what nobody would carry out.
struct Owner;

impl Drop for Owner {
    fn drop(&mut self) {
        let burst = BURST.with_borrow_mut(Option::take).unwrap_or_default();
        // Other nodes first: an answer to a client may be waiting for theirs.
        peers::flush();
        for connection in burst.connections {
            connection.pump_from_outside();
        }
    }
}

/// Runs `f` and then everything that it left: shards to step, parked fetches to look at, and at
/// last the sockets to write to.
pub(crate) fn run<R>(broker: &Broker, f: impl FnOnce() -> R) -> R {
    let is_nested = BURST.with_borrow_mut(|burst| {
        let is_nested = burst.is_some();
        burst.get_or_insert_default();
        is_nested
    });
    if is_nested {
        return f();
    }
    let _owner = Owner;
    let result = f();
    loop {
        let (shards, partitions) = with(|burst| {
            (
                std::mem::take(&mut burst.shards),
                std::mem::take(&mut burst.partitions),
            )
        })
        .unwrap_or_default();
        if shards.is_empty() && partitions.is_empty() {
            return result;
        }
        for shard in shards {
            broker.run_shard(shard);
        }
        for partition in partitions {
            broker.look_at_waiters(&partition);
        }
    }
}

fn with<R>(f: impl FnOnce(&mut Burst) -> R) -> Option<R> {
    BURST.with_borrow_mut(|burst| burst.as_mut().map(f))
}

/// Remembers a shard that something was posted to. Outside a burst it is stepped at once.
pub(crate) fn touch(broker: &Broker, shard: usize) {
    let kept = with(|burst| {
        if !burst.shards.contains(&shard) {
            burst.shards.push(shard);
        }
    });
    if kept.is_none() {
        run(broker, || broker.run_shard(shard));
    }
}

/// Remembers a partition whose watermark or role changed.
pub(crate) fn advanced(broker: &Broker, partition: &Arc<Partition>) {
    if !partition.waiters().any() {
        return;
    }
    let kept = with(|burst| {
        if !burst
            .partitions
            .iter()
            .any(|known| Arc::ptr_eq(known, partition))
        {
            burst.partitions.push(Arc::clone(partition));
        }
    });
    if kept.is_none() {
        run(broker, || broker.look_at_waiters(partition));
    }
}

/// Remembers a connection whose next answer is ready to be written.
pub(crate) fn answered(connection: &Arc<Connection>) {
    let kept = with(|burst| {
        if !burst
            .connections
            .iter()
            .any(|known| Arc::ptr_eq(known, connection))
        {
            burst.connections.push(Arc::clone(connection));
        }
    });
    if kept.is_none() {
        connection.pump_from_outside();
    }
}
