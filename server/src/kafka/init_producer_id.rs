//! InitProducerId: a fresh id for an idempotent producer. There are no transactions yet.

use std::sync::Arc;

use riverrun_replication::ProduceError;
use riverrun_wire::ErrorCode;
use riverrun_wire::api::{InitProducerIdRequest, InitProducerIdResponse};
use tracing::warn;

use super::Call;
use crate::broker::Broker;
use crate::catalog::ChangeError;

pub(crate) async fn handle(call: Call, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refuse = |error: ErrorCode| InitProducerIdResponse {
        error_code: error.number(),
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    if request.transactional_id.is_some() {
        return refuse(ErrorCode::InvalidRequest);
    }
    // An idempotent producer that lost its way asks with its old id and is given a new one: only
    // transactions need the id to stay.
    let next = match call.broker.producer_id_at_hand() {
        Some(producer_id) => Ok(producer_id),
        None => from_controller(&call.broker).await,
    };
    match next {
        Ok(producer_id) => InitProducerIdResponse {
            producer_id,
            ..InitProducerIdResponse::default()
        },
        Err(error) => {
            call.broker.refused_change(&call.connection, &error);
            warn!(%error, "no producer ids can be had");
            // Retriable in every client, unlike the controller's own errors.
            refuse(ErrorCode::CoordinatorNotAvailable)
        }
    }
}

/// An id of those that the controller gives out; on a node that is cut off nobody waits for one.
async fn from_controller(broker: &Arc<Broker>) -> Result<i64, ChangeError> {
    let unreachable = || Err(ProduceError::NotLeader.into());
    if broker.is_cut_off() {
        return unreachable();
    }
    tokio::select! {
        next = broker.next_producer_id() => next,
        () = broker.until_cut_off() => unreachable(),
    }
}
