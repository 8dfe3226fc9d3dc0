//! DescribeCluster: the brokers of the cluster.

use riverrun_wire::ErrorCode;
use riverrun_wire::api::describe_cluster::DescribeClusterBroker;
use riverrun_wire::api::{DescribeClusterRequest, DescribeClusterResponse};

use super::Call;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;
const CLUSTER_OPERATIONS: i32 = 8096;

pub(crate) fn handle(call: &Call, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let broker = &call.broker;
    let refuse = |error: ErrorCode, message: &str| DescribeClusterResponse {
        error_code: error.number(),
        error_message: Some(message.to_owned()),
        ..DescribeClusterResponse::default()
    };
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            let message = "this listener is for clients; ask for the brokers";
            return refuse(ErrorCode::MismatchedEndpointType, message);
        }
        _ => return refuse(ErrorCode::UnsupportedEndpointType, "unknown endpoint type"),
    }
    let live = broker.nodes(&call.connection).into_iter();
    let mut brokers: Vec<_> = live
        .map(|node| DescribeClusterBroker {
            broker_id: node.id,
            host: node.host,
            port: i32::from(node.port),
            rack: node.rack,
            is_fenced: false,
        })
        .collect();
    if request.include_fenced_brokers {
        brokers.extend(fenced(call));
    }
    DescribeClusterResponse {
        cluster_id: broker.cluster_id(),
        controller_id: broker.controller_node(),
        brokers,
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            CLUSTER_OPERATIONS
        } else {
            i32::MIN
        },
        ..DescribeClusterResponse::default()
    }
}

/// The brokers that have registered and are taken for gone.
fn fenced(call: &Call) -> Vec<DescribeClusterBroker> {
    call.broker.catalog().read(|image| {
        let fenced = image.brokers.values().filter(|broker| broker.fenced);
        fenced
            .map(|broker| DescribeClusterBroker {
                broker_id: broker.node,
                host: broker.host.clone(),
                port: i32::from(broker.port),
                rack: Some(broker.rack.clone()).filter(|rack| !rack.is_empty()),
                is_fenced: true,
            })
            .collect()
    })
}
