macro_rules! error_codes {
    ($(
        $Name:ident = $number:literal $NAME:literal $(retriable $retriable:tt)? $(:)?
            $message:literal;
    )*) => {
        /// What a response says about a request or a part of it. The numbers, names and classes
        /// are Kafka's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        #[non_exhaustive]
        pub enum ErrorCode { $(
            #[doc = $message]
            $Name = $number,
        )* }

        impl ErrorCode {
            /// Every error code.
            pub const ALL: &'static [Self] = &[$( Self::$Name, )*];

            /// The code of that number, if it is known.
            #[must_use]
            pub const fn from_number(number: i16) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$Name), )*
                    _ => None,
                }
            }

            /// Its number in a response.
            #[must_use]
            pub const fn number(self) -> i16 {
                match self { $( Self::$Name => $number, )* }
            }

            /// Its name, as Kafka spells it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$Name => $NAME, )* }
            }

            /// What it means, in a few words.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $( Self::$Name => $message, )* }
            }

            /// Whether the same request may succeed later.
            #[must_use]
            pub const fn is_retriable(self) -> bool {
                match self { $(
                    Self::$Name => crate::codec::table::given!($($retriable)?),
                )* }
            }
        }
    };
}

error_codes! {
    UnknownServerError = -1 "UNKNOWN_SERVER_ERROR": "an unexpected error inside the server";
    None = 0 "NONE": "no error";
    OffsetOutOfRange = 1 "OFFSET_OUT_OF_RANGE":
        "the offset is outside the range that the partition holds";
    CorruptMessage = 2 "CORRUPT_MESSAGE" retriable:
        "the batch is damaged: wrong checksum, wrong size, or a null key in a compacted topic";
    UnknownTopicOrPartition = 3 "UNKNOWN_TOPIC_OR_PARTITION" retriable:
        "this broker has no such topic or partition";
    InvalidFetchSize = 4 "INVALID_FETCH_SIZE": "the fetch size is invalid";
    LeaderNotAvailable = 5 "LEADER_NOT_AVAILABLE" retriable:
        "the partition has no leader at the moment";
    NotLeaderOrFollower = 6 "NOT_LEADER_OR_FOLLOWER" retriable:
        "this broker is not the leader, or not a replica, of the partition";
    RequestTimedOut = 7 "REQUEST_TIMED_OUT" retriable: "the request was not done in time";
    BrokerNotAvailable = 8 "BROKER_NOT_AVAILABLE": "the broker is not available";
    ReplicaNotAvailable = 9 "REPLICA_NOT_AVAILABLE" retriable: "the replica is not available";
    MessageTooLarge = 10 "MESSAGE_TOO_LARGE": "the message is larger than the limit of the topic";
    StaleControllerEpoch = 11 "STALE_CONTROLLER_EPOCH": "the controller is of an older epoch";
    OffsetMetadataTooLarge = 12 "OFFSET_METADATA_TOO_LARGE":
        "the metadata of the offset commit is too large";
    NetworkException = 13 "NETWORK_EXCEPTION" retriable:
        "the connection ended before a response came";
    CoordinatorLoadInProgress = 14 "COORDINATOR_LOAD_IN_PROGRESS" retriable:
        "the coordinator is still loading";
    CoordinatorNotAvailable = 15 "COORDINATOR_NOT_AVAILABLE" retriable:
        "the coordinator is not available";
    NotCoordinator = 16 "NOT_COORDINATOR" retriable: "this broker is not the coordinator";
    InvalidTopicException = 17 "INVALID_TOPIC_EXCEPTION": "the topic is invalid for this operation";
    RecordListTooLarge = 18 "RECORD_LIST_TOO_LARGE": "the batch is larger than a segment";
    NotEnoughReplicas = 19 "NOT_ENOUGH_REPLICAS" retriable:
        "fewer replicas are in sync than the topic demands, so nothing was written";
    NotEnoughReplicasAfterAppend = 20 "NOT_ENOUGH_REPLICAS_AFTER_APPEND" retriable:
        "the batch was written, but to fewer replicas in sync than the topic demands";
    InvalidRequiredAcks = 21 "INVALID_REQUIRED_ACKS": "acks is neither -1, 0 nor 1";
    IllegalGeneration = 22 "ILLEGAL_GENERATION": "the group's generation is another one";
    InconsistentGroupProtocol = 23 "INCONSISTENT_GROUP_PROTOCOL":
        "no protocol is common to all members of the group";
    InvalidGroupId = 24 "INVALID_GROUP_ID": "the group id is invalid";
    UnknownMemberId = 25 "UNKNOWN_MEMBER_ID": "the group has no such member";
    InvalidSessionTimeout = 26 "INVALID_SESSION_TIMEOUT":
        "the session timeout is outside the range that the broker allows";
    RebalanceInProgress = 27 "REBALANCE_IN_PROGRESS": "the group is rebalancing: join again";
    InvalidCommitOffsetSize = 28 "INVALID_COMMIT_OFFSET_SIZE": "the offset commit is too large";
    TopicAuthorizationFailed = 29 "TOPIC_AUTHORIZATION_FAILED": "not authorized for the topic";
    GroupAuthorizationFailed = 30 "GROUP_AUTHORIZATION_FAILED": "not authorized for the group";
    ClusterAuthorizationFailed = 31 "CLUSTER_AUTHORIZATION_FAILED":
        "not authorized for the cluster";
    InvalidTimestamp = 32 "INVALID_TIMESTAMP":
        "the timestamp is outside the range that the topic allows";
    UnsupportedSaslMechanism = 33 "UNSUPPORTED_SASL_MECHANISM":
        "the SASL mechanism is not supported";
    IllegalSaslState = 34 "ILLEGAL_SASL_STATE":
        "the request does not fit the state of the SASL exchange";
    UnsupportedVersion = 35 "UNSUPPORTED_VERSION": "the version of the API is not supported";
    TopicAlreadyExists = 36 "TOPIC_ALREADY_EXISTS": "a topic of that name exists";
    InvalidPartitions = 37 "INVALID_PARTITIONS": "the number of partitions is invalid";
    InvalidReplicationFactor = 38 "INVALID_REPLICATION_FACTOR":
        "the replication factor is below 1 or above the number of brokers";
    InvalidReplicaAssignment = 39 "INVALID_REPLICA_ASSIGNMENT": "the replica assignment is invalid";
    InvalidConfig = 40 "INVALID_CONFIG": "the configuration is invalid";
    NotController = 41 "NOT_CONTROLLER" retriable: "this broker is not the controller";
    InvalidRequest = 42 "INVALID_REQUEST": "the request is malformed or contradicts itself";
    UnsupportedForMessageFormat = 43 "UNSUPPORTED_FOR_MESSAGE_FORMAT":
        "the message format does not support the request";
    PolicyViolation = 44 "POLICY_VIOLATION": "a policy of the cluster forbids the request";
    OutOfOrderSequenceNumber = 45 "OUT_OF_ORDER_SEQUENCE_NUMBER":
        "the sequence number is not the next one of its producer";
    DuplicateSequenceNumber = 46 "DUPLICATE_SEQUENCE_NUMBER": "the sequence number was seen before";
    InvalidProducerEpoch = 47 "INVALID_PRODUCER_EPOCH": "the producer's epoch is an old one";
    InvalidTxnState = 48 "INVALID_TXN_STATE":
        "the transaction is in a state that does not allow this";
    InvalidProducerIdMapping = 49 "INVALID_PRODUCER_ID_MAPPING":
        "the producer id does not belong to the transactional id";
    InvalidTransactionTimeout = 50 "INVALID_TRANSACTION_TIMEOUT":
        "the transaction timeout is above the limit of the broker";
    ConcurrentTransactions = 51 "CONCURRENT_TRANSACTIONS" retriable:
        "another operation on the same transaction is under way";
    TransactionCoordinatorFenced = 52 "TRANSACTION_COORDINATOR_FENCED":
        "the transaction coordinator is no longer the current one";
    TransactionalIdAuthorizationFailed = 53 "TRANSACTIONAL_ID_AUTHORIZATION_FAILED":
        "not authorized for the transactional id";
    SecurityDisabled = 54 "SECURITY_DISABLED": "security is not enabled";
    OperationNotAttempted = 55 "OPERATION_NOT_ATTEMPTED":
        "the operation was not attempted, because another one in the request failed";
    KafkaStorageError = 56 "KAFKA_STORAGE_ERROR" retriable: "the disk under the partition failed";
    LogDirNotFound = 57 "LOG_DIR_NOT_FOUND": "the broker has no such log directory";
    SaslAuthenticationFailed = 58 "SASL_AUTHENTICATION_FAILED": "authentication failed";
    UnknownProducerId = 59 "UNKNOWN_PRODUCER_ID": "the broker knows nothing of the producer id";
    ReassignmentInProgress = 60 "REASSIGNMENT_IN_PROGRESS": "the partition is being reassigned";
    DelegationTokenAuthDisabled = 61 "DELEGATION_TOKEN_AUTH_DISABLED":
        "delegation tokens are not enabled";
    DelegationTokenNotFound = 62 "DELEGATION_TOKEN_NOT_FOUND": "there is no such delegation token";
    DelegationTokenOwnerMismatch = 63 "DELEGATION_TOKEN_OWNER_MISMATCH":
        "the principal neither owns the delegation token nor may renew it";
    DelegationTokenRequestNotAllowed = 64 "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED":
        "delegation tokens cannot be requested over this kind of connection";
    DelegationTokenAuthorizationFailed = 65 "DELEGATION_TOKEN_AUTHORIZATION_FAILED":
        "not authorized for the delegation token";
    DelegationTokenExpired = 66 "DELEGATION_TOKEN_EXPIRED": "the delegation token has expired";
    InvalidPrincipalType = 67 "INVALID_PRINCIPAL_TYPE": "the principal type is not supported";
    NonEmptyGroup = 68 "NON_EMPTY_GROUP": "the group is not empty";
    GroupIdNotFound = 69 "GROUP_ID_NOT_FOUND": "there is no such group";
    FetchSessionIdNotFound = 70 "FETCH_SESSION_ID_NOT_FOUND" retriable:
        "there is no such fetch session";
    InvalidFetchSessionEpoch = 71 "INVALID_FETCH_SESSION_EPOCH" retriable:
        "the epoch of the fetch session is not the expected one";
    ListenerNotFound = 72 "LISTENER_NOT_FOUND" retriable:
        "the leader has no listener of the name the request came through";
    TopicDeletionDisabled = 73 "TOPIC_DELETION_DISABLED":
        "topics cannot be deleted in this cluster";
    FencedLeaderEpoch = 74 "FENCED_LEADER_EPOCH" retriable:
        "the leader epoch of the request is older than the broker's";
    UnknownLeaderEpoch = 75 "UNKNOWN_LEADER_EPOCH" retriable:
        "the leader epoch of the request is newer than the broker's";
    UnsupportedCompressionType = 76 "UNSUPPORTED_COMPRESSION_TYPE":
        "the client cannot read the compression of the partition";
    StaleBrokerEpoch = 77 "STALE_BROKER_EPOCH": "the epoch of the broker is another one";
    OffsetNotAvailable = 78 "OFFSET_NOT_AVAILABLE" retriable:
        "the new leader cannot vouch for its offsets yet";
    MemberIdRequired = 79 "MEMBER_ID_REQUIRED": "a member id is needed to join the group";
    PreferredLeaderNotAvailable = 80 "PREFERRED_LEADER_NOT_AVAILABLE" retriable:
        "the preferred leader is not available";
    GroupMaxSizeReached = 81 "GROUP_MAX_SIZE_REACHED": "the group is full";
    FencedInstanceId = 82 "FENCED_INSTANCE_ID":
        "another static member with the same instance id has joined";
    EligibleLeadersNotAvailable = 83 "ELIGIBLE_LEADERS_NOT_AVAILABLE" retriable:
        "no eligible leader is available";
    ElectionNotNeeded = 84 "ELECTION_NOT_NEEDED" retriable:
        "the partition already has the leader wanted";
    NoReassignmentInProgress = 85 "NO_REASSIGNMENT_IN_PROGRESS":
        "the partition is not being reassigned";
    GroupSubscribedToTopic = 86 "GROUP_SUBSCRIBED_TO_TOPIC":
        "members of the group subscribe to the topic";
    InvalidRecord = 87 "INVALID_RECORD": "a record is invalid";
    UnstableOffsetCommit = 88 "UNSTABLE_OFFSET_COMMIT" retriable:
        "a transaction over the offset is not decided yet";
    ThrottlingQuotaExceeded = 89 "THROTTLING_QUOTA_EXCEEDED" retriable: "the quota is used up";
    ProducerFenced = 90 "PRODUCER_FENCED": "a newer producer uses the same transactional id";
    ResourceNotFound = 91 "RESOURCE_NOT_FOUND": "the resource does not exist";
    DuplicateResource = 92 "DUPLICATE_RESOURCE": "the resource is named twice";
    UnacceptableCredential = 93 "UNACCEPTABLE_CREDENTIAL": "the credential does not meet the rules";
    InconsistentVoterSet = 94 "INCONSISTENT_VOTER_SET":
        "sender or receiver is not in the expected set of voters";
    InvalidUpdateVersion = 95 "INVALID_UPDATE_VERSION": "the version of the update is invalid";
    FeatureUpdateFailed = 96 "FEATURE_UPDATE_FAILED": "the features could not be updated";
    PrincipalDeserializationFailure = 97 "PRINCIPAL_DESERIALIZATION_FAILURE":
        "the principal of a forwarded request cannot be read";
    SnapshotNotFound = 98 "SNAPSHOT_NOT_FOUND": "there is no such snapshot";
    PositionOutOfRange = 99 "POSITION_OUT_OF_RANGE": "the position lies outside the snapshot";
    UnknownTopicId = 100 "UNKNOWN_TOPIC_ID" retriable: "this broker has no topic of that id";
    DuplicateBrokerRegistration = 101 "DUPLICATE_BROKER_REGISTRATION":
        "a broker of that id is registered";
    BrokerIdNotRegistered = 102 "BROKER_ID_NOT_REGISTERED": "no broker of that id is registered";
    InconsistentTopicId = 103 "INCONSISTENT_TOPIC_ID" retriable:
        "the topic id is not that of the partition's log";
    InconsistentClusterId = 104 "INCONSISTENT_CLUSTER_ID": "the cluster id is another one";
    TransactionalIdNotFound = 105 "TRANSACTIONAL_ID_NOT_FOUND": "there is no such transactional id";
    FetchSessionTopicIdError = 106 "FETCH_SESSION_TOPIC_ID_ERROR" retriable:
        "the fetch session mixes topic names and topic ids";
    IneligibleReplica = 107 "INELIGIBLE_REPLICA":
        "a replica is not eligible for the set of replicas in sync";
    NewLeaderElected = 108 "NEW_LEADER_ELECTED":
        "the partition changed as asked, and its leader with it";
    OffsetMovedToTieredStorage = 109 "OFFSET_MOVED_TO_TIERED_STORAGE":
        "the offset is in tiered storage";
    FencedMemberEpoch = 110 "FENCED_MEMBER_EPOCH":
        "the member epoch is an old one: give up all partitions and join again";
    UnreleasedInstanceId = 111 "UNRELEASED_INSTANCE_ID":
        "another member still uses the instance id";
    UnsupportedAssignor = 112 "UNSUPPORTED_ASSIGNOR": "the group does not support the assignor";
    StaleMemberEpoch = 113 "STALE_MEMBER_EPOCH":
        "the member epoch is behind: take the next heartbeat's and try again";
    MismatchedEndpointType = 114 "MISMATCHED_ENDPOINT_TYPE": "the endpoint is of another type";
    UnsupportedEndpointType = 115 "UNSUPPORTED_ENDPOINT_TYPE": "the endpoint type is not supported";
    UnknownControllerId = 116 "UNKNOWN_CONTROLLER_ID": "there is no such controller";
    UnknownSubscriptionId = 117 "UNKNOWN_SUBSCRIPTION_ID":
        "there is no such telemetry subscription";
    TelemetryTooLarge = 118 "TELEMETRY_TOO_LARGE": "the telemetry is too large";
    InvalidRegistration = 119 "INVALID_REGISTRATION":
        "the controller refuses the broker's registration";
    TransactionAbortable = 120 "TRANSACTION_ABORTABLE":
        "the transaction failed and can only be aborted";
    InvalidRecordState = 121 "INVALID_RECORD_STATE":
        "the record is not in a state that can be acknowledged so";
    ShareSessionNotFound = 122 "SHARE_SESSION_NOT_FOUND" retriable:
        "there is no such share session";
    InvalidShareSessionEpoch = 123 "INVALID_SHARE_SESSION_EPOCH" retriable:
        "the epoch of the share session is not the expected one";
    FencedStateEpoch = 124 "FENCED_STATE_EPOCH": "the state epoch is an old one";
    InvalidVoterKey = 125 "INVALID_VOTER_KEY": "the key of the voter is another one";
    DuplicateVoter = 126 "DUPLICATE_VOTER": "the voter is in the set already";
    VoterNotFound = 127 "VOTER_NOT_FOUND": "the voter is not in the set";
    InvalidRegularExpression = 128 "INVALID_REGULAR_EXPRESSION":
        "the regular expression is invalid";
    RebootstrapRequired = 129 "REBOOTSTRAP_REQUIRED":
        "the client's metadata is useless: begin again from the bootstrap servers";
    StreamsInvalidTopology = 130 "STREAMS_INVALID_TOPOLOGY": "the topology is invalid";
    StreamsInvalidTopologyEpoch = 131 "STREAMS_INVALID_TOPOLOGY_EPOCH":
        "the epoch of the topology is invalid";
    StreamsTopologyFenced = 132 "STREAMS_TOPOLOGY_FENCED": "the topology is an old one";
    ShareSessionLimitReached = 133 "SHARE_SESSION_LIMIT_REACHED" retriable:
        "there are too many share sessions";
    GroupDeletionFailed = 134 "GROUP_DELETION_FAILED": "the group could not be deleted";
    StreamsTopologyDescriptionUpdateFailed = 135 "STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED":
        "the description of the topology could not be updated";
    ControllerIdNotRegistered = 136 "CONTROLLER_ID_NOT_REGISTERED":
        "no controller of that id is registered";
}
