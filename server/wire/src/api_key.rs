use std::ops::RangeInclusive;

use crate::WireError;
use crate::codec::At;

/// The one list of APIs. A row is: name = number, the versions the codec knows, the first flexible
/// version, and where its types are. An API is added by a row here and a file under `api/`.
macro_rules! api_table {
    ($then:ident) => {
        $then! {
            Produce = 0, 3..=13, flexible 9, produce::{ProduceRequest, ProduceResponse};
            Fetch = 1, 4..=18, flexible 12, fetch::{FetchRequest, FetchResponse};
            ListOffsets = 2, 1..=11, flexible 6,
                list_offsets::{ListOffsetsRequest, ListOffsetsResponse};
            Metadata = 3, 0..=13, flexible 9, metadata::{MetadataRequest, MetadataResponse};
            ApiVersions = 18, 0..=5, flexible 3,
                api_versions::{ApiVersionsRequest, ApiVersionsResponse};
            CreateTopics = 19, 2..=7, flexible 5,
                create_topics::{CreateTopicsRequest, CreateTopicsResponse};
            DeleteTopics = 20, 1..=6, flexible 4,
                delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
            InitProducerId = 22, 0..=5, flexible 2,
                init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
            OffsetForLeaderEpoch = 23, 2..=4, flexible 4,
                offset_for_leader_epoch::{
                    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
            DescribeConfigs = 32, 1..=4, flexible 4,
                describe_configs::{DescribeConfigsRequest, DescribeConfigsResponse};
            CreatePartitions = 37, 0..=3, flexible 2,
                create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse};
            DescribeQuorum = 55, 0..=2, flexible 0,
                describe_quorum::{DescribeQuorumRequest, DescribeQuorumResponse};
            DescribeCluster = 60, 0..=2, flexible 0,
                describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
            DescribeTopicPartitions = 75, 0..=0, flexible 0,
                describe_topic_partitions::{
                    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
        }
    };
}
pub(crate) use api_table;

macro_rules! define {
    ($( $Name:ident = $number:literal, $versions:expr, flexible $flexible:literal,
        $module:ident::{$Request:ident, $Response:ident}; )*) => {
        /// A Kafka API that this codec speaks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        #[allow(missing_docs, reason = "Kafka's names")]
        pub enum ApiKey { $( $Name = $number, )* }

        impl ApiKey {
            /// Every API, by number.
            pub const ALL: &'static [Self] = &[$( Self::$Name, )*];

            /// The API of that number, if the codec speaks it.
            #[must_use]
            pub const fn from_number(number: i16) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$Name), )*
                    _ => None,
                }
            }

            /// Its number in a request header.
            #[must_use]
            pub const fn number(self) -> i16 {
                match self { $( Self::$Name => $number, )* }
            }

            /// Its name, as Kafka spells it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$Name => stringify!($Name), )* }
            }

            /// The versions that the codec reads and writes.
            #[must_use]
            pub const fn versions(self) -> RangeInclusive<i16> {
                match self { $( Self::$Name => $versions, )* }
            }

            const fn first_flexible(self) -> i16 {
                match self { $( Self::$Name => $flexible, )* }
            }
        }

        $( impl crate::Request for crate::api::$Request {
            type Response = crate::api::$Response;
        } )*
    };
}

api_table!(define);

impl ApiKey {
    /// Whether the version uses the flexible encodings, which also decides about the headers.
    #[must_use]
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.first_flexible()
    }

    /// The version of the header before a request of this version.
    #[must_use]
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the header before a response of this version.
    ///
    /// That of ApiVersions is always the first: a client must be able to read the answer to a
    /// version that the server does not know.
    #[must_use]
    pub const fn response_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) && !matches!(self, Self::ApiVersions) {
            1
        } else {
            0
        }
    }

    /// The beginning of a message of this version.
    pub(crate) fn at(self, version: i16, message: &'static str) -> Result<At, WireError> {
        if !self.versions().contains(&version) {
            return Err(WireError::UnsupportedVersion { api: self, version });
        }
        let flexible = self.is_flexible(version);
        Ok(At {
            version,
            flexible,
            nullable: false,
            field: message,
        })
    }
}
