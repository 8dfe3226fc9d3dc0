//! ApiVersions: what is served, from the table; and who the client says it is.

use riverrun_wire::api::api_versions::ApiVersion;
use riverrun_wire::api::{ApiVersionsRequest, ApiVersionsResponse};
use riverrun_wire::{ApiKey, ErrorCode, encode_response};

use super::{APIS, Api, Call, Refusal, answer_of};
use crate::net::answer::Answer;

const LONGEST_CLIENT_NAME: usize = 256;

pub(crate) fn handle(call: &Call, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let refuse = |error: ErrorCode| ApiVersionsResponse {
        error_code: error.number(),
        ..ApiVersionsResponse::default()
    };
    if call.version >= 3 {
        let name = &request.client_software_name;
        let version = &request.client_software_version;
        if !is_software_name(name) || !is_software_name(version) {
            return refuse(ErrorCode::InvalidRequest);
        }
        call.connection.set_client(&format!("{name} {version}"));
    }
    // A client that was sent to another cluster or node by a stale address finds out here.
    let other_cluster = request
        .cluster_id
        .is_some_and(|id| id != call.broker.cluster_id());
    let other_node = request.node_id >= 0 && request.node_id != call.broker.config().node_id;
    if call.version >= 5 && (other_cluster || other_node) {
        return refuse(ErrorCode::RebootstrapRequired);
    }
    ApiVersionsResponse {
        api_keys: APIS.iter().map(advertise).collect(),
        ..ApiVersionsResponse::default()
    }
}

fn advertise(api: &Api) -> ApiVersion {
    ApiVersion {
        api_key: api.key.number(),
        min_version: api.advertised_from,
        max_version: *api.key.versions().end(),
    }
}

/// The answer to a version that is not served: in version 0, which everybody can read, with the
/// versions of this API, so that the client can ask again.
pub(crate) fn unsupported(correlation_id: i32) -> Result<Answer, Refusal> {
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.number(),
        api_keys: APIS
            .iter()
            .filter(|api| api.key == ApiKey::ApiVersions)
            .map(advertise)
            .collect(),
        ..ApiVersionsResponse::default()
    };
    encode_response(&response, 0, correlation_id)
        .map(answer_of)
        .map_err(Refusal::Answer)
}

/// Letters, digits, and between them dots and dashes (KIP-511).
fn is_software_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    name.len() <= LONGEST_CLIENT_NAME
        && name.bytes().all(inner)
        && name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name
            .bytes()
            .next_back()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_what_clients_call_themselves() {
        for name in ["librdkafka", "apache-kafka-java", "2.0.2", "a"] {
            assert!(is_software_name(name), "{name}");
        }
        for name in ["", "-a", "a.", "a b", "a\n", "é"] {
            assert!(!is_software_name(name), "{name}");
        }
    }
}
