//! Fetch: answered with slices of the log, or parked until a commit on one of its partitions, or
//! until its time is over.
//!
//! A fetch that finds too little is registered with its partitions and then looks once more; a
//! commit is published before the registered fetches are looked at. So one of the two sees it.

mod job;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use riverrun_replication::{ProduceError, Published};
use riverrun_wire::ErrorCode;
use riverrun_wire::api::fetch::{FetchTopic, FetchableTopicResponse};
use riverrun_wire::api::{FetchRequest, FetchResponse};
use tokio::time::Instant;
use tracing::warn;

use self::job::{Job, Patience, error_row};
use super::{Call, Refusal};
use crate::broker::Broker;
use crate::net::burst;
use crate::net::connection::Pending;
use crate::net::memory::Lease;
use crate::partition::Partition;

const FIRST_VERSION_WITH_REPLICA_STATE: i16 = 15;
/// The longest that a fetch is parked, whatever it asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A fetch that waits. Shared by the connection's slot and the partitions that it waits for.
#[derive(Debug)]
pub(crate) struct Parked {
    deadline: Instant,
    /// Taken when it is answered or its connection ends.
    job: Mutex<Option<Job>>,
}

pub(crate) fn step(call: &Call, request: FetchRequest, lease: Lease) -> Result<(), Refusal> {
    if let Some(error) = refuse_whole(call, &request) {
        let answer = call.answer(&whole_error(call, &request, error))?;
        let slot = call.connection.open(Pending::Task, lease, 0);
        call.connection.answer(slot, answer);
        return Ok(());
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let patience = if wait.is_zero() {
        Patience::Over
    } else {
        Patience::Wait
    };
    let mut job = Job::new(call, request);
    if let Some(response) = job.evaluate(patience, None) {
        let answer = call.answer(&response)?;
        let slot = call.connection.open(Pending::Task, lease, 0);
        call.connection.answer(slot, answer);
        return Ok(());
    }
    let parked = Arc::new(Parked {
        deadline: deadline(wait),
        job: Mutex::new(Some(job)),
    });
    let slot = call
        .connection
        .open(Pending::Fetch(Arc::clone(&parked)), lease, 0);
    let partitions = parked.begin(slot);
    for partition in partitions {
        partition.waiters().add(&parked);
    }
    parked.look(&call.broker);
    Ok(())
}

fn deadline(wait: Duration) -> Instant {
    Instant::now() + wait.min(LONGEST_WAIT)
}

/// What concerns the whole request. There are no sessions here: the answer's session id is always
/// 0, so a request that continues one is told that it is not found and begins anew.
fn refuse_whole(call: &Call, request: &FetchRequest) -> Option<ErrorCode> {
    let replica = if call.version >= FIRST_VERSION_WITH_REPLICA_STATE {
        request.replica_state.replica_id
    } else {
        request.replica_id
    };
    if replica >= 0 {
        // Replicas do not fetch in this cluster; a client must never be taken for one.
        return Some(ErrorCode::ClusterAuthorizationFailed);
    }
    let is_full = request.session_epoch == 0 || request.session_epoch == -1;
    (!is_full).then_some(ErrorCode::FetchSessionIdNotFound)
}

fn whole_error(call: &Call, request: &FetchRequest, error: ErrorCode) -> FetchResponse {
    const FIRST_VERSION_WITH_TOP_LEVEL_ERROR: i16 = 7;
    if call.version >= FIRST_VERSION_WITH_TOP_LEVEL_ERROR {
        return FetchResponse {
            error_code: error.number(),
            ..FetchResponse::default()
        };
    }
    let rows = |topic: &FetchTopic| FetchableTopicResponse {
        topic: topic.topic.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|p| error_row(p.partition, error))
            .collect(),
    };
    FetchResponse {
        responses: request.topics.iter().map(rows).collect(),
        ..FetchResponse::default()
    }
}

impl Parked {
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Notes the slot and returns the partitions to register with.
    fn begin(&self, request: u64) -> Vec<Arc<Partition>> {
        let mut guard = self.job.lock();
        let Some(job) = guard.as_mut() else {
            return Vec::new();
        };
        job.request = Some(request);
        job.partitions()
    }

    /// Looks whether there is enough now, and answers if so.
    pub(crate) fn look(self: &Arc<Self>, broker: &Broker) {
        self.settle(broker, Patience::Wait);
    }

    /// Answers with what is there.
    pub(crate) fn expire(self: &Arc<Self>, broker: &Broker) {
        self.settle(broker, Patience::Over);
    }

    /// Inside a burst, so that nothing is stepped while the job is locked.
    fn settle(self: &Arc<Self>, broker: &Broker, patience: Patience) {
        burst::run(broker, || self.settle_now(broker, patience));
    }

    fn settle_now(self: &Arc<Self>, broker: &Broker, patience: Patience) {
        let (job, response) = {
            let mut guard = self.job.lock();
            let Some(job) = guard.as_mut() else { return };
            let Some(response) = job.evaluate(patience, Some(broker)) else {
                return;
            };
            let Some(job) = guard.take() else { return };
            (job, response)
        };
        self.leave(&job);
        let Some(request) = job.request else { return };
        match job.call.answer(&response) {
            Ok(answer) => job.call.connection.answer(request, answer),
            Err(refusal) => {
                warn!(%refusal, "closing a connection");
                job.call.connection.hang_up();
            }
        }
    }

    /// Takes in that the leadership of a partition was confirmed or not.
    pub(crate) fn confirmed(
        self: &Arc<Self>,
        broker: &Broker,
        slot: u32,
        result: Result<Published, ProduceError>,
    ) {
        if let Some(job) = self.job.lock().as_mut() {
            job.confirmed(slot, result);
        }
        self.look(broker);
    }

    /// The connection has ended.
    pub(crate) fn forget(self: &Arc<Self>) {
        let job = self.job.lock().take();
        if let Some(job) = job {
            self.leave(&job);
        }
    }

    fn leave(self: &Arc<Self>, job: &Job) {
        for partition in job.partitions() {
            partition.waiters().remove(self);
        }
    }
}
