//! InitProducerId: a fresh id for an idempotent producer. There are no transactions yet.

use riverrun_wire::ErrorCode;
use riverrun_wire::api::{InitProducerIdRequest, InitProducerIdResponse};
use tracing::warn;

use super::Call;

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
    match call.broker.next_producer_id().await {
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
