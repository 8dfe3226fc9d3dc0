//! DescribeConfigs (32): the settings of topics and brokers.

use crate::codec::table::message;

message! {
    /// Asks for settings.
    request DescribeConfigsRequest of DescribeConfigs {
        resources: Vec<DescribeConfigsResource> = 0..;
        include_synonyms: bool = 1..;
        include_documentation: bool = 3..;
    }

    /// One topic or broker.
    struct DescribeConfigsResource {
        /// 2 for a topic, 4 for a broker, 8 for a broker logger, 16 for client metrics, 32 for a
        /// group.
        resource_type: i8 = 0..;
        resource_name: String = 0..;
        /// Null asks for all.
        configuration_keys: Option<Vec<String>> = 0.., nullable 0..;
    }
}

message! {
    /// The settings.
    response DescribeConfigsResponse of DescribeConfigs {
        throttle_time_ms: i32 = 0..;
        results: Vec<DescribeConfigsResult> = 0..;
    }

    /// One topic or broker.
    struct DescribeConfigsResult {
        error_code: i16 = 0..;
        error_message: Option<String> = 0.., nullable 0..;
        resource_type: i8 = 0..;
        resource_name: String = 0..;
        configs: Vec<DescribeConfigsResourceResult> = 0..;
    }

    /// One setting.
    struct DescribeConfigsResourceResult {
        name: String = 0..;
        /// Null if it is sensitive or not set.
        value: Option<String> = 0.., nullable 0..;
        read_only: bool = 0..;
        /// 1 topic, 2 broker (dynamic), 3 all brokers (dynamic), 4 broker (file), 5 default.
        config_source: i8 = 1.., default -1, ignorable;
        is_sensitive: bool = 0..;
        synonyms: Vec<DescribeConfigsSynonym> = 1.., ignorable;
        /// 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password.
        config_type: i8 = 3.., ignorable;
        documentation: Option<String> = 3.., nullable 0.., ignorable;
    }

    /// Where else the value could come from, the strongest first.
    struct DescribeConfigsSynonym {
        name: String = 1..;
        value: Option<String> = 1.., nullable 0..;
        source: i8 = 1..;
    }
}
