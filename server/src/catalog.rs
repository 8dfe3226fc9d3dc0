//! The catalog: this node's copy of the cluster's state, and the way to change it.
//!
//! A change is planned on the image, written to group 0 as a batch of commands and takes effect
//! when it has been committed and applied, on every node in the same order. Here changes are
//! proposed one after another, so that a plan is never older than what it is applied to.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use riverrun_record::BatchView;
use riverrun_replication::controller::{
    Command, Controller, Found, Image, Outcome, Pace, Rejection, encode_batch,
};
use riverrun_replication::node::CONTROLLER_GROUP;
use riverrun_replication::{Acks, Produce, ProduceError};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, error};
use uuid::Uuid;

use crate::broker::Broker;
use crate::cluster::protocol::{Propose, Question, Refused, Reply};
use crate::peers::{CallError, Callee};

/// How long a change waits for somebody to lead group 0.
const CONTROLLER_WAIT: Duration = Duration::from_secs(10);
/// How long it waits until it has been written, and then until it has been applied here.
const APPLY_WAIT: Duration = Duration::from_secs(30);
/// Pause before a batch that was not written goes to whoever leads group 0 by then.
const FORWARD_PAUSE: Duration = Duration::from_millis(50);
/// Batches whose outcomes are kept for whoever proposed them.
const OUTCOMES_KEPT: usize = 64;

/// Why a change did not happen, or why nobody knows.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ChangeError {
    /// The controller refuses it.
    #[error("{0}")]
    Rejected(#[from] Rejection),
    /// It could not be written to group 0.
    #[error("the cluster's state cannot be changed now: {0}")]
    Write(#[from] ProduceError),
    /// The node that leads group 0 did not write it.
    #[error("the controller's leader refuses: {0}")]
    Refused(String),
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping,
}

/// Why a batch of commands has no offset.
enum Forward {
    /// It was not written.
    NotWritten(String),
    /// Nobody knows whether it was.
    Unknown(ChangeError),
}

/// Has the node that leads group 0 write a batch of commands; gives its offset.
async fn forward(broker: &Broker, leader: i32, batch: Bytes) -> Result<i64, Forward> {
    let question = Question::Propose(Propose { batch });
    let callee = Callee::Node(leader);
    let answer = broker
        .peers()
        .call(callee, question.into_bytes(), APPLY_WAIT)
        .await;
    let unknown = |error: ChangeError| Err(Forward::Unknown(error));
    match answer.map(Reply::from_bytes) {
        Ok(Some(Reply::Proposed(proposed))) => Ok(proposed.base_offset),
        Ok(Some(Reply::Refused(refused))) => match refused.code {
            Refused::NOT_LEADER => Err(Forward::NotWritten(refused.why)),
            Refused::LOST => unknown(ProduceError::NotLeader.into()),
            _ => unknown(ChangeError::Refused(refused.why)),
        },
        Ok(_) => unknown(ChangeError::Refused(
            "an answer that cannot be read".to_owned(),
        )),
        Err(CallError::TimedOut) => unknown(ProduceError::Busy.into()),
        Err(CallError::Broken) => unknown(ProduceError::NotLeader.into()),
        Err(error) => Err(Forward::NotWritten(error.to_string())),
    }
}

impl ChangeError {
    /// Whether it may have been written all the same.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(
            self,
            Self::Write(ProduceError::NotLeader | ProduceError::Busy)
        )
    }
}

#[derive(Debug)]
struct State {
    controller: Controller,
    /// The term of the last batch that was applied.
    term: u64,
    pace: Pace,
    /// By the offset of their batch.
    outcomes: BTreeMap<i64, Vec<Outcome>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Catalog {
    state: Mutex<State>,
    /// The offset behind the last applied batch.
    applied: watch::Sender<i64>,
    /// The same of what the table of topics shows.
    shown: watch::Sender<i64>,
    /// Held from plan to outcome.
    turn: tokio::sync::Mutex<()>,
}

impl Catalog {
    /// One that knows nothing; see [`Pace::new`].
    pub(crate) fn new(checkpoint_bytes: u64) -> Self {
        Self {
            state: Mutex::new(State {
                controller: Controller::new(),
                term: 0,
                pace: Pace::new(checkpoint_bytes),
                outcomes: BTreeMap::new(),
            }),
            applied: watch::Sender::new(0),
            shown: watch::Sender::new(0),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Looks at the image.
    pub(crate) fn read<R>(&self, f: impl FnOnce(&Image) -> R) -> R {
        f(self.state.lock().controller.image())
    }

    /// Lets `f` plan without writing anything.
    pub(crate) fn plan(&self, f: impl FnOnce(&Controller)) {
        f(&self.state.lock().controller);
    }

    /// Begins with an image that was found beside group 0's log.
    pub(crate) fn restore(&self, found: Found) {
        let next = found.controller.image().next_offset;
        {
            let mut state = self.state.lock();
            state.controller = found.controller;
            state.term = found.term;
            state.pace.imaged(found.bytes);
        }
        self.applied.send_replace(next);
    }

    /// The state to be written beside group 0's log, and the term of its last batch, when that is
    /// due. The next is due when as much has been applied again, whatever becomes of this one.
    pub(crate) fn due_image(&self) -> Option<(Controller, u64)> {
        let mut state = self.state.lock();
        if !state.pace.is_due() {
            return None;
        }
        state.pace.begin();
        Some((state.controller.clone(), state.term))
    }

    /// Whether there is a [`Catalog::due_image`].
    pub(crate) fn is_image_due(&self) -> bool {
        self.state.lock().pace.is_due()
    }

    /// An image of this length was written.
    pub(crate) fn imaged(&self, bytes: usize) {
        self.state.lock().pace.imaged(bytes);
    }

    /// Applies a committed batch of group 0; false where this version cannot read it, after which
    /// the node knows nothing of the cluster any more.
    pub(crate) fn apply(&self, batch: &Bytes) -> bool {
        let applied = {
            let mut state = self.state.lock();
            match state.controller.apply_batch(batch) {
                Ok(outcomes) => {
                    let next = state.controller.image().next_offset;
                    // One that lies below what was restored is in it already.
                    if !outcomes.is_empty() {
                        state.pace.applied(batch.len());
                        state.term = BatchView::parse(batch)
                            .ok()
                            .and_then(|view| u64::try_from(view.leader_epoch()).ok())
                            .unwrap_or(state.term);
                    }
                    let count = i64::try_from(outcomes.len()).unwrap_or(i64::MAX);
                    state.outcomes.insert(next.saturating_sub(count), outcomes);
                    while state.outcomes.len() > OUTCOMES_KEPT {
                        state.outcomes.pop_first();
                    }
                    next
                }
                Err(error) => {
                    error!(%error, "a command of the controller's log cannot be applied");
                    return false;
                }
            }
        };
        self.applied.send_replace(applied);
        true
    }

    /// Plans a change on the newest image, writes it and waits until it has been applied. `plan`
    /// returns the commands, and may return none.
    pub(crate) async fn change(
        &self,
        broker: &Broker,
        plan: impl FnOnce(&Controller) -> Result<Vec<Command>, Rejection>,
    ) -> Result<Vec<Outcome>, ChangeError> {
        let _turn = self.turn.lock().await;
        let commands = plan(&self.state.lock().controller)?;
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let batch = encode_batch(&commands).map_err(|error| {
            error!(%error, "a command cannot be encoded");
            Rejection::Malformed { what: "its size" }
        })?;
        let base_offset = self.write_somewhere(broker, batch.freeze()).await?;
        let mut applied = self.applied.subscribe();
        let applied = applied.wait_for(|next| *next > base_offset);
        tokio::time::timeout(APPLY_WAIT, applied)
            .await
            .map_err(|_| ProduceError::Busy)?
            .map_err(|_| ChangeError::Stopping)?;
        let outcomes = self.state.lock().outcomes.remove(&base_offset);
        Ok(outcomes.unwrap_or_default())
    }

    /// Has a batch of commands written by whoever leads group 0; gives its offset when it is committed.
    /// As long as it was certainly not written, it is tried again with the next leader.
    async fn write_somewhere(&self, broker: &Broker, batch: Bytes) -> Result<i64, ChangeError> {
        let until = Instant::now() + CONTROLLER_WAIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let leader = broker.until_controller(left).await?;
            if leader == broker.config().node_id {
                return self.write(broker, BytesMut::from(&*batch)).await;
            }
            match forward(broker, leader, batch.clone()).await {
                Err(Forward::NotWritten(why)) => {
                    debug!(leader, why, "the controller's leader is asked again");
                    tokio::time::sleep(FORWARD_PAUSE).await;
                }
                Err(Forward::Unknown(error)) => return Err(error),
                Ok(base_offset) => return Ok(base_offset),
            }
        }
    }

    /// Writes a batch of commands to group 0, which this node leads, and gives its offset when it is
    /// committed.
    pub(crate) async fn write(&self, broker: &Broker, batch: BytesMut) -> Result<i64, ChangeError> {
        let Some(group) = broker.runtime().handle(CONTROLLER_GROUP) else {
            return Err(ProduceError::NotLeader.into());
        };
        let limits = riverrun_record::Limits {
            origin: riverrun_record::Origin::Broker,
            max_batch_bytes: usize::MAX,
            ..riverrun_record::Limits::new(broker.now_ms())
        };
        let summary = riverrun_record::validate(&batch, &limits).map_err(|error| {
            error!(%error, "a batch of commands is not sound");
            Rejection::Malformed { what: "its bytes" }
        })?;
        let (ticket, answer) = broker.internal().expect_produce();
        let produce = Produce {
            ticket,
            acks: Acks::All,
            batch,
            summary,
            expected_epoch: None,
        };
        broker.runtime().produce(&group, produce);
        broker.step_shard(group.shard());
        let produced = answer.await.map_err(|_| ChangeError::Stopping)??;
        Ok(produced.base_offset)
    }

    /// The same for one command; a rejection when it was applied is an error.
    pub(crate) async fn change_one(
        &self,
        broker: &Broker,
        plan: impl FnOnce(&Controller) -> Result<Command, Rejection>,
    ) -> Result<Outcome, ChangeError> {
        let outcomes = self
            .change(broker, |controller| plan(controller).map(|c| vec![c]))
            .await?;
        match outcomes.into_iter().next() {
            Some(Outcome::Rejected(rejection)) => Err(rejection.into()),
            Some(outcome) => Ok(outcome),
            None => Err(ChangeError::Stopping),
        }
    }

    /// Whether a topic is there, or comes within that time.
    pub(crate) async fn has_topic_within(&self, id: Uuid, wait: Duration) -> bool {
        let mut applied = self.applied.subscribe();
        let there = applied.wait_for(|_| self.read(|image| image.topics.contains_key(&id)));
        tokio::time::timeout(wait, there)
            .await
            .is_ok_and(|found| found.is_ok())
    }

    /// To be told of every applied batch.
    pub(crate) fn watch(&self) -> watch::Receiver<i64> {
        self.applied.subscribe()
    }

    /// Has the image followed again, though nothing in it changed.
    pub(crate) fn look(&self) {
        self.applied.send_modify(|_| {});
    }

    /// Says that the table of topics shows everything below `offset`.
    pub(crate) fn show(&self, offset: i64) {
        self.shown.send_replace(offset);
    }

    /// Waits until the table of topics shows all that is applied now.
    pub(crate) async fn shown(&self) {
        let applied = *self.applied.borrow();
        let _ = self
            .shown
            .subscribe()
            .wait_for(|shown| *shown >= applied)
            .await;
    }
}
