//! DescribeCluster (60): the brokers or controllers of the cluster.

use crate::codec::table::message;

message! {
    /// Asks about the cluster.
    request DescribeClusterRequest of DescribeCluster {
        include_cluster_authorized_operations: bool = 0..;
        /// 1 for brokers, 2 for controllers.
        endpoint_type: i8 = 1.., default 1;
        include_fenced_brokers: bool = 2..;
    }
}

message! {
    /// The cluster.
    response DescribeClusterResponse of DescribeCluster {
        throttle_time_ms: i32 = 0..;
        error_code: i16 = 0..;
        error_message: Option<String> = 0.., nullable 0..;
        endpoint_type: i8 = 1.., default 1;
        cluster_id: String = 0..;
        controller_id: i32 = 0.., default -1;
        brokers: Vec<DescribeClusterBroker> = 0..;
        /// A bit for each operation; the smallest number if not asked for.
        cluster_authorized_operations: i32 = 0.., default i32::MIN;
    }

    /// One broker or controller.
    struct DescribeClusterBroker {
        broker_id: i32 = 0..;
        host: String = 0..;
        port: i32 = 0..;
        rack: Option<String> = 0.., nullable 0..;
        is_fenced: bool = 2..;
    }
}
