//! The catalog: this node's copy of the cluster's state, and the way to change it.
//!
//! A change is planned on the image, written to group 0 as a batch of commands and takes effect
//! when it has been committed and applied, on every node in the same order. Here changes are
//! proposed one after another, so that a plan is never older than what it is applied to.
//!
//! Where whoever led group 0 was lost over a batch, nobody knows whether it was written. It is written
//! again, as an idempotent producer does it (KIP-98): each batch carries the numbers of this start of
//! the node, by which the log knows one that it has. Which numbers a change gets, and which outcome is its
//! own, is decided in `riverrun_replication::proposer`, and before anything is waited for: whoever waits for
//! a change may be gone at any await.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use riverrun_record::BatchView;
use riverrun_replication::controller::{
    Command, Controller, Found, Image, Outcome, Pace, Rejection, encode_numbered_batch,
};
use riverrun_replication::node::CONTROLLER_GROUP;
use riverrun_replication::proposer::{Outcomes, Proposer};
use riverrun_replication::{Acks, Produce, ProduceError};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, error};

use crate::broker::Broker;
use crate::cluster::protocol::{Propose, Question, Refused, Reply};
use crate::peers::{CallError, Callee};

/// How long a change is tried: until somebody leads group 0, and has written it.
const CONTROLLER_WAIT: Duration = Duration::from_secs(10);
/// How long one try waits for an answer, and a change until it has been applied here.
const APPLY_WAIT: Duration = Duration::from_secs(30);
/// Pause before a batch goes to whoever leads group 0 by then.
const FORWARD_PAUSE: Duration = Duration::from_millis(50);

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
    /// It was written, and what came of it is not known here.
    #[error("the change was written, and this node does not know what came of it")]
    OutcomeUnknown,
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping,
}

/// Has the node that leads group 0 write a batch of commands; gives its offset. It is not waited for
/// when another one leads by now.
async fn forward(broker: &Broker, leader: i32, batch: Bytes) -> Result<i64, ChangeError> {
    let question = Question::Propose(Propose { batch });
    let callee = Callee::Node(leader);
    let answer = tokio::select! {
        answer = broker.peers().call(callee, question.into_bytes(), APPLY_WAIT) => answer,
        () = broker.until_controller_is_not(leader) => return Err(ProduceError::NotLeader.into()),
    };
    match answer.map(Reply::from_bytes) {
        Ok(Some(Reply::Proposed(proposed))) => Ok(proposed.base_offset),
        Ok(Some(Reply::Refused(refused))) => match refused.code {
            Refused::NOT_LEADER | Refused::LOST => Err(ProduceError::NotLeader.into()),
            _ => Err(ChangeError::Refused(refused.why)),
        },
        Ok(_) => Err(ChangeError::Refused(
            "an answer that cannot be read".to_owned(),
        )),
        Err(CallError::TimedOut) => Err(ProduceError::Busy.into()),
        Err(error) => {
            debug!(leader, %error, "the controller's leader is not reached");
            Err(ProduceError::NotLeader.into())
        }
    }
}

impl ChangeError {
    /// Whether it may have been written all the same, or be written if it is tried again.
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
    outcomes: Outcomes,
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
    turn: tokio::sync::Mutex<Proposer>,
}

impl Catalog {
    /// One that knows nothing, of a start that drew this number; see [`Pace::new`].
    pub(crate) fn new(checkpoint_bytes: u64, start_token: u64) -> Self {
        Self {
            state: Mutex::new(State {
                controller: Controller::new(),
                term: 0,
                pace: Pace::new(checkpoint_bytes),
                outcomes: Outcomes::default(),
            }),
            applied: watch::Sender::new(0),
            shown: watch::Sender::new(0),
            turn: tokio::sync::Mutex::new(Proposer::new(start_token)),
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
                    state.outcomes.applied(batch, outcomes);
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
        let mut proposer = self.turn.lock().await;
        let commands = plan(&self.state.lock().controller)?;
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let proposal = proposer.propose(commands.len());
        let batch = encode_numbered_batch(&commands, Some(proposal.numbers()));
        let batch = batch.map_err(|error| {
            error!(%error, "a command cannot be encoded");
            Rejection::Malformed { what: "its size" }
        })?;
        let written = self.write_somewhere(broker, batch.freeze()).await;
        proposer.ended(&proposal, written.is_ok());
        let base_offset = written?;
        let mut applied = self.applied.subscribe();
        let applied = applied.wait_for(|next| *next > base_offset);
        tokio::time::timeout(APPLY_WAIT, applied)
            .await
            .map_err(|_| ProduceError::Busy)?
            .map_err(|_| ChangeError::Stopping)?;
        let outcomes = self.state.lock().outcomes.take(&proposal, base_offset);
        outcomes.ok_or(ChangeError::OutcomeUnknown)
    }

    /// Has a batch of commands written by whoever leads group 0; gives its offset when it is committed.
    async fn write_somewhere(&self, broker: &Broker, batch: Bytes) -> Result<i64, ChangeError> {
        let until = Instant::now() + CONTROLLER_WAIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let leader = broker.until_controller(left).await?;
            let written = if leader == broker.config().node_id {
                self.write(broker, BytesMut::from(&*batch)).await
            } else {
                forward(broker, leader, batch.clone()).await
            };
            match written {
                Err(error) if error.is_unknown() && Instant::now() < until => {
                    debug!(leader, %error, "a change of the cluster is written again");
                    tokio::time::sleep(FORWARD_PAUSE).await;
                }
                other => return other,
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
            None => Err(ChangeError::OutcomeUnknown),
        }
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
