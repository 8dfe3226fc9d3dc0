//! What replication tells the broker: completions, watermarks, committed commands.
//!
//! The calls come on whichever thread completes the work, with a shard's lock held. Nothing here
//! blocks or steps a shard; what leads to more work is left to the burst (see `net/burst.rs`) or
//! to a task.

use std::sync::{Arc, Weak};
use std::time::Duration;

use riverrun_replication::controller::Found;
use riverrun_replication::message::PeerMessage;
use riverrun_replication::runtime::Host;
use riverrun_replication::{
    CommittedBatch, PartitionHandle, ProduceError, ProduceOutcome, Published, Ticket, Word,
};
use tokio::time::Instant;
use tracing::error;

use crate::broker::Broker;
use crate::checkpointer;
use crate::internal::INTERNAL;
use crate::kafka::produce;
use crate::net::burst;
use crate::net::connection::Pending;
use crate::watched::{How, Kind};

/// See the module. Weak, because the broker owns the runtime that owns this.
#[derive(Debug)]
pub(crate) struct Hooks {
    broker: Weak<Broker>,
    since: Instant,
}

impl Hooks {
    pub(crate) fn new(broker: Weak<Broker>) -> Self {
        Self {
            broker,
            since: Instant::now(),
        }
    }

    fn broker(&self) -> Option<Arc<Broker>> {
        self.broker.upgrade()
    }
}

impl Host for Hooks {
    fn produced(&self, ticket: Ticket, outcome: ProduceOutcome) {
        let Some(broker) = self.broker() else { return };
        if ticket.connection == INTERNAL {
            broker.internal().produced(ticket, outcome);
        } else if let Some(connection) = broker.connections().get(ticket.connection) {
            produce::completed(&broker, &connection, ticket, &outcome);
        }
    }

    fn confirmed(&self, ticket: Ticket, result: Result<Published, ProduceError>) {
        let Some(broker) = self.broker() else { return };
        if ticket.connection == INTERNAL {
            broker.internal().confirmed(ticket, result);
            return;
        }
        let Some(connection) = broker.connections().get(ticket.connection) else {
            return;
        };
        let mut parked = None;
        connection.complete(ticket.request, |waiting| {
            if let Pending::Fetch(fetch) = &waiting.what {
                parked = Some(Arc::clone(fetch));
            }
            None
        });
        if let Some(fetch) = parked {
            fetch.confirmed(&broker, ticket.slot, result);
        }
    }

    fn word(&self, ticket: Ticket, result: Result<Word, ProduceError>) {
        if let Some(broker) = self.broker() {
            broker.internal().said(ticket, result);
        }
    }

    fn advanced(&self, partition: &PartitionHandle) {
        if let Some(broker) = self.broker() {
            broker.advanced(partition);
        }
    }

    fn led(&self, partition: &PartitionHandle) {
        if let Some(broker) = self.broker() {
            broker.led(partition);
        }
    }

    fn restored(&self, found: Found) {
        if let Some(broker) = self.broker() {
            broker.catalog().restore(found);
        }
    }

    fn committed(&self, batch: CommittedBatch) {
        let Some(broker) = self.broker() else { return };
        if broker.catalog().apply(&batch.batch) {
            checkpointer::begin_if_due(&broker);
        } else {
            broker.fail("the controller's log holds a command that this version cannot read");
        }
    }

    fn flush_wanted(&self) {
        if let Some(broker) = self.broker() {
            broker.wake_flusher();
        }
    }

    fn run_later(&self, shard: usize) {
        if let Some(broker) = self.broker() {
            let (watch, runtime) = (broker.watch().clone(), broker.tokio().clone());
            watch.task_on(&runtime, Kind::ShardTurn, async move {
                burst::run(&broker, || broker.run_shard(shard));
            });
        }
    }

    fn write_later(&self, group: u64) {
        if let Some(broker) = self.broker() {
            let on_thread = Arc::clone(&broker);
            // What each write answers leaves before the next one begins.
            broker.blocking(Kind::LaneWriter, move || {
                while burst::run(&on_thread, || on_thread.runtime().write_once(group)) {}
            });
        }
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }

    fn send(&self, message: PeerMessage) {
        let Some(broker) = self.broker() else { return };
        // Where it is not known, the replica is not of this node's image yet: it is tried again.
        if let Some(node) = broker.routes().node_of(message.group, message.to) {
            broker.peers().queue(node, message);
        }
    }

    fn fenced(&self, group: u64, why: &str) {
        error!(group, why, "a partition is out of service");
        let Some(broker) = self.broker() else { return };
        match broker.topics().of_group(group) {
            Some(partition) => broker.advanced(partition.handle()),
            None if group == 0 => broker.fail("the controller's log is out of service"),
            None => {}
        }
    }

    fn turn_panicked(&self) {
        if let Some(broker) = self.broker() {
            broker.watch().ended(Kind::ShardTurn, How::Panicked);
        }
    }

    fn contradicted(&self, group: u64) {
        error!(
            group,
            "a replica contradicts its leader and has to be replaced"
        );
        if let Some(broker) = self.broker() {
            broker.contradicts(group);
        }
    }
}
