//! ApiVersions (18): which APIs and versions a server speaks. A request of an unknown version is
//! answered in version 0 with error 35 and the range of this API; the response's header never has
//! tagged fields.

use crate::codec::table::message;

message! {
    /// Asks what the server speaks.
    request ApiVersionsRequest of ApiVersions {
        client_software_name: String = 3.., ignorable;
        client_software_version: String = 3.., ignorable;
        /// Where the client means to be; given together with the node id.
        cluster_id: Option<String> = 5.., nullable 5.., ignorable;
        node_id: i32 = 5.., default -1, ignorable;
    }
}

message! {
    /// What the server speaks.
    response ApiVersionsResponse of ApiVersions {
        error_code: i16 = 0..;
        api_keys: Vec<ApiVersion> = 0..;
        throttle_time_ms: i32 = 1.., ignorable;
        /// Versions before 4 leave out features whose lowest version is 0.
        supported_features: Vec<SupportedFeatureKey> = 3.., tag 0, ignorable;
        /// -1 if the finalized features are unknown.
        finalized_features_epoch: i64 = 3.., default -1, tag 1, ignorable;
        finalized_features: Vec<FinalizedFeatureKey> = 3.., tag 2, ignorable;
        zk_migration_ready: bool = 3.., tag 3, ignorable;
    }

    /// One API.
    struct ApiVersion {
        api_key: i16 = 0..;
        min_version: i16 = 0..;
        max_version: i16 = 0..;
    }

    /// A feature that the server knows.
    struct SupportedFeatureKey {
        name: String = 3..;
        min_version: i16 = 3..;
        max_version: i16 = 3..;
    }

    /// A feature that the cluster has switched on.
    struct FinalizedFeatureKey {
        name: String = 3..;
        max_version_level: i16 = 3..;
        min_version_level: i16 = 3..;
    }
}
