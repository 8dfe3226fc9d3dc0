//! Fetch: answered with slices of the log, or parked until a commit on one of its partitions, or
//! until its time is over.
//!
//! A fetch that finds too little is registered with its partitions and then looks once more; a
//! commit is published before the registered fetches are looked at. So one of the two sees it.
//!
//! What is not in memory is read on a thread that may block, and the answer posted from there: no
//! other connection, no commit and no flush waits for it.

mod job;
mod room;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use riverrun_replication::{ProduceError, Published};
use riverrun_wire::ErrorCode;
use riverrun_wire::api::fetch::{FetchTopic, FetchableTopicResponse};
use riverrun_wire::api::{FetchRequest, FetchResponse};
use tokio::time::Instant;
use tracing::warn;

use self::job::{Job, Patience, Reads, Verdict, error_row};
pub(crate) use self::room::COLD_UNITS;
use self::room::Room;
use super::{Call, Promised, Refusal};
use crate::broker::Broker;
use crate::net::burst;
use crate::net::connection::Pending;
use crate::net::memory::Lease;
use crate::partition::Partition;
use crate::watched::Kind;

const FIRST_VERSION_WITH_REPLICA_STATE: i16 = 15;
/// The longest that a fetch is parked, whatever it asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A fetch that waits. Shared by the connection's slot and the partitions that it waits for.
#[derive(Debug)]
pub(crate) struct Parked {
    deadline: Instant,
    /// It is to be answered with what is there, deadline or not.
    over: AtomicBool,
    state: Mutex<State>,
}

type Confirmation = Result<Published, ProduceError>;

#[derive(Debug)]
enum State {
    /// Looked at by everybody who brings something.
    Waiting(Job),
    /// A thread has it and reads from the disk; what is confirmed meanwhile is kept.
    Reading(Vec<(u32, Confirmation)>),
    /// It is answered, or its connection has ended.
    Done,
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
    if let Verdict::Answer(response) = job.evaluate(patience, Reads::Memory, None) {
        let answer = call.answer(&response)?;
        let slot = call.connection.open(Pending::Task, lease, 0);
        call.connection.answer(slot, answer);
        return Ok(());
    }
    let parked = Arc::new(Parked {
        deadline: deadline(wait),
        over: AtomicBool::new(patience == Patience::Over),
        state: Mutex::new(State::Waiting(job)),
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
    /// When it is to be answered at the latest; none while a thread has it, which answers by then or
    /// puts it back.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        matches!(*self.state.lock(), State::Waiting(_)).then_some(self.deadline)
    }

    /// Notes the slot and returns the partitions to register with.
    fn begin(&self, request: u64) -> Vec<Arc<Partition>> {
        let mut state = self.state.lock();
        let State::Waiting(job) = &mut *state else {
            return Vec::new();
        };
        job.request = Some(request);
        job.partitions()
    }

    /// Looks whether there is enough now, and answers if so.
    pub(crate) fn look(self: &Arc<Self>, broker: &Broker) {
        // Inside a burst, so that nothing is stepped while the job is locked.
        burst::run(broker, || self.settle(broker));
    }

    /// Answers with what is there.
    pub(crate) fn expire(self: &Arc<Self>, broker: &Broker) {
        self.over.store(true, Ordering::SeqCst);
        self.look(broker);
    }

    fn patience(&self) -> Patience {
        if self.over.load(Ordering::SeqCst) {
            Patience::Over
        } else {
            Patience::Wait
        }
    }

    fn settle(self: &Arc<Self>, broker: &Broker) {
        let patience = self.patience();
        let mut state = self.state.lock();
        let State::Waiting(job) = &mut *state else {
            return;
        };
        let (next, response) = match job.evaluate(patience, Reads::Memory, Some(broker)) {
            Verdict::Wait => return,
            Verdict::Answer(response) => (State::Done, Some(response)),
            Verdict::Cold => (State::Reading(Vec::new()), None),
        };
        let State::Waiting(job) = std::mem::replace(&mut *state, next) else {
            return;
        };
        drop(state);
        match response {
            Some(response) => self.answer(&job, &response),
            None => self.read_later(job),
        }
    }

    fn answer(self: &Arc<Self>, job: &Job, response: &FetchResponse) {
        self.leave(job);
        let Some(request) = job.request else { return };
        match job.call.answer(response) {
            Ok(answer) => job.call.connection.answer(request, answer),
            Err(refusal) => {
                warn!(%refusal, "closing a connection");
                job.call.connection.hang_up();
            }
        }
    }

    /// Hands the fetch to a thread that may wait for the disk, when it is its turn.
    fn read_later(self: &Arc<Self>, job: Job) {
        let broker = Arc::clone(&job.call.broker);
        let parked = Arc::clone(self);
        let promised = Promised::new(&job.call.connection);
        let (watch, runtime) = (broker.watch().clone(), broker.tokio().clone());
        watch.task_on(&runtime, Kind::DiskRead, async move {
            let turn = Arc::clone(broker.disk_reads()).acquire_owned().await;
            let on_thread = Arc::clone(&broker);
            let read = broker.blocking(Kind::DiskRead, move || {
                burst::run(&on_thread, || parked.read(&on_thread, job));
                promised.hand_over();
                drop(turn);
            });
            if let Err(error) = read.await {
                warn!(%error, "a read from the disk was cut off");
            }
        });
    }

    /// Reads what there is from the disk and answers, or puts the fetch back where that is too
    /// little. Blocks.
    fn read(self: &Arc<Self>, broker: &Broker, mut job: Job) {
        if Instant::now() >= self.deadline {
            self.over.store(true, Ordering::SeqCst);
        }
        let room = Room::take(broker.cold_bytes(), job.max_bytes());
        let verdict = job.evaluate(self.patience(), Reads::Disk(&room), None);
        let mut state = self.state.lock();
        let State::Reading(confirmed) = &mut *state else {
            drop(state);
            return self.leave(&job);
        };
        if let Verdict::Answer(response) = verdict {
            *state = State::Done;
            drop(state);
            return self.answer(&job, &response);
        }
        for (slot, result) in std::mem::take(confirmed) {
            job.confirmed(slot, result);
        }
        let connection = Arc::clone(&job.call.connection);
        *state = State::Waiting(job);
        drop(state);
        // Its deadline counts again, and what came while it was away is looked at.
        connection.look_again();
        self.settle(broker);
    }

    /// Takes in that the leadership of a partition was confirmed or not.
    pub(crate) fn confirmed(self: &Arc<Self>, broker: &Broker, slot: u32, result: Confirmation) {
        match &mut *self.state.lock() {
            State::Waiting(job) => job.confirmed(slot, result),
            State::Reading(confirmed) => confirmed.push((slot, result)),
            State::Done => {}
        }
        self.look(broker);
    }

    /// The connection has ended.
    pub(crate) fn forget(self: &Arc<Self>) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Done);
        if let State::Waiting(job) = before {
            self.leave(&job);
        }
    }

    fn leave(self: &Arc<Self>, job: &Job) {
        for partition in job.partitions() {
            partition.waiters().remove(self);
        }
    }
}
