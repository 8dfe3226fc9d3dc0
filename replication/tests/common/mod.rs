//! A runtime of one node over a disk in memory, driven by the test's own thread.
#![allow(dead_code, clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::{Condvar, Mutex};
use riverrun_record::{BatchBuilder, BatchView, Compression, Limits, validate};
use riverrun_replication::controller::{Controller, Found};
use riverrun_replication::message::PeerMessage;
use riverrun_replication::node::{GroupOrder, NodeSettings};
use riverrun_replication::runtime::{Host, Runtime};
use riverrun_replication::{
    Acks, CommittedBatch, GroupConfig, GroupSettings, PartitionHandle, Produce, ProduceError,
    ProduceOutcome, Published, Ticket,
};
use riverrun_storage::node::NodeConfig;
use riverrun_storage::{Disk, LogConfig, LogIdentity};
use uuid::Uuid;

/// What the runtime asked of the server.
#[derive(Debug, Default)]
pub(crate) struct TestHost {
    answers: Mutex<BTreeMap<u64, ProduceOutcome>>,
    /// Requests in the order in which they were answered.
    order: Mutex<Vec<u64>>,
    answered: Condvar,
    pub(crate) flushes_wanted: AtomicUsize,
    pub(crate) runs_wanted: AtomicUsize,
    /// Threads that were started to write for a group.
    pub(crate) writers: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) writers_started: AtomicUsize,
    /// The state of group 0, and the offsets of the batches that were applied since it was restored.
    pub(crate) controller: Mutex<Controller>,
    pub(crate) replayed: Mutex<Vec<i64>>,
    pub(crate) fenced: Mutex<Vec<(u64, String)>>,
    runtime: Mutex<Weak<Runtime<TestHost>>>,
    /// The clock of the runtime in microseconds.
    pub(crate) clock_us: Arc<AtomicU64>,
}

impl Host for TestHost {
    fn produced(&self, ticket: Ticket, outcome: ProduceOutcome) {
        self.answers.lock().insert(ticket.request, outcome);
        self.order.lock().push(ticket.request);
        self.answered.notify_all();
    }

    fn word(&self, _: Ticket, _: Result<riverrun_replication::Word, ProduceError>) {}
    fn confirmed(&self, _: Ticket, _: Result<Published, ProduceError>) {}

    fn advanced(&self, _: &PartitionHandle) {}

    fn led(&self, _partition: &PartitionHandle) {}
    fn restored(&self, found: Found) {
        self.replayed.lock().clear();
        *self.controller.lock() = found.controller;
    }

    fn committed(&self, batch: CommittedBatch) {
        if batch.group == 0 {
            let view = BatchView::parse(&batch.batch).unwrap();
            let outcomes = self.controller.lock().apply_batch(&batch.batch).unwrap();
            // What lies below the image is told again where it was not known to be committed.
            if !outcomes.is_empty() {
                self.replayed.lock().push(view.base_offset());
            }
        }
    }

    fn flush_wanted(&self) {
        self.flushes_wanted.fetch_add(1, Ordering::SeqCst);
    }

    fn run_later(&self, _: usize) {
        self.runs_wanted.fetch_add(1, Ordering::SeqCst);
    }

    fn write_later(&self, group: u64) {
        self.writers_started.fetch_add(1, Ordering::SeqCst);
        let runtime = self.runtime.lock().upgrade().unwrap();
        let writer = std::thread::spawn(move || while runtime.write_once(group) {});
        self.writers.lock().push(writer);
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.clock_us.load(Ordering::SeqCst))
    }

    fn send(&self, message: PeerMessage) {
        panic!("there is one node: {message:?}");
    }

    fn fenced(&self, group: u64, why: &str) {
        self.fenced.lock().push((group, why.to_owned()));
    }

    fn contradicted(&self, group: u64) {
        panic!("nobody contradicts group {group}");
    }
    fn turn_panicked(&self) {}
}

pub(crate) struct TestNode {
    pub(crate) runtime: Arc<Runtime<TestHost>>,
    next_request: u64,
}

impl TestNode {
    pub(crate) fn open(disk: Arc<dyn Disk>) -> Self {
        Self::with_clock(disk, Arc::default())
    }

    /// One that opens its groups on so many threads.
    pub(crate) fn with_threads(disk: Arc<dyn Disk>, threads: usize) -> Self {
        Self::start(disk, Arc::default(), threads)
    }

    /// One whose clock is moved by the test.
    pub(crate) fn with_clock(disk: Arc<dyn Disk>, clock_us: Arc<AtomicU64>) -> Self {
        Self::start(disk, clock_us, 0)
    }

    fn start(disk: Arc<dyn Disk>, clock_us: Arc<AtomicU64>, flush_threads: usize) -> Self {
        let settings = NodeSettings {
            node_id: 1,
            kernel_boot_id: "boot".into(),
            new_directory_id: Uuid::from_u128(1),
            start_token: 0x5eed,
            store: NodeConfig {
                wal_bytes: 1 << 20,
                flush_threads,
                ..NodeConfig::default()
            },
            group: GroupConfig::default(),
            shards: 1,
            most_replicas: usize::MAX,
        };
        let host = Arc::new(TestHost {
            clock_us,
            ..TestHost::default()
        });
        let (runtime, _) = Runtime::open(
            disk,
            Path::new("/data"),
            settings,
            |_| GroupSettings::default(),
            host.clone(),
        )
        .unwrap();
        let runtime = Arc::new(runtime);
        *host.runtime.lock() = Arc::downgrade(&runtime);
        Self {
            runtime,
            next_request: 0,
        }
    }

    pub(crate) fn host(&self) -> &TestHost {
        self.runtime.host()
    }

    /// A partition with one replica that leads and is at rest.
    pub(crate) fn create(&self, group: u64, caching: bool, log: LogConfig) -> PartitionHandle {
        let order = GroupOrder {
            identity: LogIdentity {
                group,
                replica: group + 1,
                topic_id: Uuid::from_u128(u128::from(group)),
                partition: 0,
            },
            voters: vec![group + 1],
            learners: vec![],
            settings: GroupSettings {
                log,
                write_caching: caching,
                ..GroupSettings::default()
            },
        };
        let handle = self.runtime.create_group(&order).unwrap();
        self.flush();
        assert!(handle.published().ready);
        handle
    }

    /// What the flusher does when it is woken.
    pub(crate) fn flush(&self) {
        while self.runtime.flush_once().unwrap() {}
    }

    /// Produces a batch of one record; the request's number.
    pub(crate) fn produce(&mut self, to: &PartitionHandle, acks: Acks, value: &[u8]) -> u64 {
        let request = self.post(to, acks, value);
        self.runtime.run(to.shard());
        request
    }

    /// The same, left for the next turn.
    pub(crate) fn post(&mut self, to: &PartitionHandle, acks: Acks, value: &[u8]) -> u64 {
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.append(1_000, None, Some(value), &[]).unwrap();
        self.post_batch(to, acks, builder.build_mut().unwrap())
    }

    /// The same for a batch that is made.
    pub(crate) fn post_batch(&mut self, to: &PartitionHandle, acks: Acks, batch: BytesMut) -> u64 {
        let summary = validate(&batch, &Limits::new(1_000)).unwrap();
        self.next_request += 1;
        let ticket = Ticket {
            connection: 1,
            request: self.next_request,
            slot: 0,
        };
        let produce = Produce {
            ticket,
            acks,
            batch,
            summary,
            expected_epoch: None,
        };
        self.runtime.produce(to, produce);
        self.next_request
    }

    /// The offset that a request was answered with, if it was.
    pub(crate) fn offset(&self, request: u64) -> Option<i64> {
        let answers = self.host().answers.lock();
        answers.get(&request).map(|o| o.unwrap().base_offset)
    }

    /// Waits until a request is answered; its offset.
    pub(crate) fn wait(&self, request: u64) -> i64 {
        let mut answers = self.host().answers.lock();
        while !answers.contains_key(&request) {
            let timed_out = self
                .host()
                .answered
                .wait_for(&mut answers, Duration::from_secs(20))
                .timed_out();
            assert!(!timed_out, "request {request} is not answered");
        }
        answers.get(&request).unwrap().unwrap().base_offset
    }

    /// The requests in the order in which they were answered.
    pub(crate) fn order(&self) -> Vec<u64> {
        self.host().order.lock().clone()
    }

    /// Waits until the writers that were started have ended.
    pub(crate) fn join_writers(&self) {
        let writers = std::mem::take(&mut *self.host().writers.lock());
        for writer in writers {
            writer.join().unwrap();
        }
    }
}
