//! What comes over a socket.

use bytes::{Bytes, BytesMut};
use riverrun_replication::conf::{decode_change, decode_conf};
use riverrun_replication::frame::Frame;
use riverrun_wire::api;
use riverrun_wire::{ApiKey, Message, Reader, Request, RequestHeader, decode_response};

use crate::sealed;

/// A request frame without its length: header and body, read as a server reads it.
pub(crate) fn request(bytes: &[u8]) {
    let mut reader = Reader::borrowed(bytes);
    let Ok(header) = RequestHeader::decode(&mut reader) else {
        return;
    };
    let Some(api) = header.api() else { return };
    let body = bytes.get(reader.position()..).unwrap_or_default();
    let version = header.api_version;
    if api == ApiKey::Produce {
        placed(body, version);
    }
    with_request(
        api,
        Body {
            bytes: body,
            version,
        },
    );
}

/// The records of a produce are cut out of its frame.
fn placed(body: &[u8], version: i16) {
    let mut reader = Reader::borrowed(body);
    if let Ok((_, placed)) = api::ProduceRequest::decode_placed(&mut reader, version) {
        let pieces = api::produce::split_records(BytesMut::from(body), &placed);
        assert_eq!(pieces.expect("they lie in the frame").len(), placed.len());
    }
}

struct Body<'a> {
    bytes: &'a [u8],
    version: i16,
}

impl Body<'_> {
    fn decode<R: Request>(&self) {
        drop(R::decode(&mut Reader::borrowed(self.bytes), self.version));
    }
}

fn with_request(api: ApiKey, body: Body<'_>) {
    match api {
        ApiKey::Produce => body.decode::<api::ProduceRequest>(),
        ApiKey::Fetch => body.decode::<api::FetchRequest>(),
        ApiKey::ListOffsets => body.decode::<api::ListOffsetsRequest>(),
        ApiKey::Metadata => body.decode::<api::MetadataRequest>(),
        ApiKey::ApiVersions => body.decode::<api::ApiVersionsRequest>(),
        ApiKey::CreateTopics => body.decode::<api::CreateTopicsRequest>(),
        ApiKey::DeleteTopics => body.decode::<api::DeleteTopicsRequest>(),
        ApiKey::InitProducerId => body.decode::<api::InitProducerIdRequest>(),
        ApiKey::OffsetForLeaderEpoch => body.decode::<api::OffsetForLeaderEpochRequest>(),
        ApiKey::DescribeConfigs => body.decode::<api::DescribeConfigsRequest>(),
        ApiKey::CreatePartitions => body.decode::<api::CreatePartitionsRequest>(),
        ApiKey::DescribeQuorum => body.decode::<api::DescribeQuorumRequest>(),
        ApiKey::DescribeCluster => body.decode::<api::DescribeClusterRequest>(),
        ApiKey::DescribeTopicPartitions => body.decode::<api::DescribeTopicPartitionsRequest>(),
    }
}

/// The number of an API, a version, and a response frame without its length.
pub(crate) fn response(bytes: &[u8]) {
    let Some(([key, version], frame)) = bytes.split_first_chunk() else {
        return;
    };
    let Some(api) = ApiKey::from_number((*key).into()) else {
        return;
    };
    let (frame, version) = (Bytes::copy_from_slice(frame), i16::from(*version));
    match api {
        ApiKey::Produce => read::<api::ProduceResponse>(&frame, version),
        ApiKey::Fetch => read::<api::FetchResponse>(&frame, version),
        ApiKey::ListOffsets => read::<api::ListOffsetsResponse>(&frame, version),
        ApiKey::Metadata => read::<api::MetadataResponse>(&frame, version),
        ApiKey::ApiVersions => read::<api::ApiVersionsResponse>(&frame, version),
        ApiKey::CreateTopics => read::<api::CreateTopicsResponse>(&frame, version),
        ApiKey::DeleteTopics => read::<api::DeleteTopicsResponse>(&frame, version),
        ApiKey::InitProducerId => read::<api::InitProducerIdResponse>(&frame, version),
        ApiKey::OffsetForLeaderEpoch => read::<api::OffsetForLeaderEpochResponse>(&frame, version),
        ApiKey::DescribeConfigs => read::<api::DescribeConfigsResponse>(&frame, version),
        ApiKey::CreatePartitions => read::<api::CreatePartitionsResponse>(&frame, version),
        ApiKey::DescribeQuorum => read::<api::DescribeQuorumResponse>(&frame, version),
        ApiKey::DescribeCluster => read::<api::DescribeClusterResponse>(&frame, version),
        ApiKey::DescribeTopicPartitions => {
            read::<api::DescribeTopicPartitionsResponse>(&frame, version);
        }
    }
}

fn read<M: Message>(frame: &Bytes, version: i16) {
    drop(decode_response::<M>(frame, version));
}

/// A frame between nodes. A good one is written again as it was.
pub(crate) fn peer_frame(bytes: &[u8]) {
    sealed::both(bytes, sealed::peer_frame, |bytes| {
        let frame = Frame::decode(Bytes::copy_from_slice(bytes));
        let Ok(frame) = frame else { return };
        let again = frame
            .encode()
            .expect("what was read can be written")
            .concat();
        let again = Frame::decode(again.into()).expect("what was written can be read");
        assert_eq!(frame, again);
    });
    drop(decode_conf(bytes));
    drop(decode_change(bytes));
}
