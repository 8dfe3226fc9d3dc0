//! Records are neither copied on their way out nor on their way in.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::{decode, sample};
use crate::api::fetch::{FetchableTopicResponse, PartitionData};
use crate::api::produce::{PartitionProduceData, PlacedRecords, TopicProduceData, split_records};
use crate::api::{ApiVersionsResponse, FetchResponse, ProduceRequest, ProduceResponse};
use crate::codec::testing::Random;
use crate::frame::{LENGTH_PREFIX_BYTES, correlation_id, frame_len};
use crate::{Reader, Records, RequestHeader, WireError, decode_response};
use crate::{encode_request, encode_response};

fn fetched(records: Vec<Vec<Bytes>>) -> FetchResponse {
    let partition = |(index, slices): (usize, Vec<Bytes>)| PartitionData {
        partition_index: index as i32,
        records: Some(Records::from(slices)),
        ..Default::default()
    };
    let partitions = records.into_iter().enumerate().map(partition).collect();
    FetchResponse {
        responses: vec![FetchableTopicResponse {
            partitions,
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn a_fetch_response_carries_its_slices_as_they_are() {
    let large: Vec<Bytes> = [5000, 1024, 70_000]
        .map(|len| Bytes::from(vec![7; len]))
        .into();
    let small = Bytes::from(vec![9; 100]);
    let records = vec![
        vec![large[0].clone(), large[1].clone()],
        vec![small, large[2].clone()],
        vec![],
    ];
    let response = fetched(records);
    for version in 4..=18 {
        let encoded = encode_response(&response, version, 77).unwrap();
        for slice in &large {
            let sent = |segment: &Bytes| {
                segment.as_ptr() == slice.as_ptr() && segment.len() == slice.len()
            };
            assert_eq!(
                encoded
                    .segments()
                    .iter()
                    .filter(|segment| sent(segment))
                    .count(),
                1
            );
        }
        // Header, two slices side by side, what is between, the third slice, the rest.
        assert_eq!(encoded.segments().len(), 6);
        let len = encoded.len();
        let mut bytes = encoded.into_bytes();
        assert_eq!(
            frame_len(&bytes, usize::MAX),
            Ok(Some(len - LENGTH_PREFIX_BYTES))
        );
        let body = bytes.split_off(LENGTH_PREFIX_BYTES);
        assert_eq!(correlation_id(&body), Ok(77));
        let read: FetchResponse = decode_response(&body, version).unwrap();
        assert_eq!(read, response);
        // What was read lies inside the frame.
        let records = read.responses[0].partitions[1]
            .records
            .clone()
            .unwrap()
            .into_bytes();
        assert!(body.as_ptr_range().contains(&records.as_ptr()));
    }
}

#[test]
fn produced_records_are_cut_out_of_their_frame_in_place() {
    let mut random = Random::new(Random::seed());
    for version in 3..=13 {
        for _ in 0..200 {
            let request: ProduceRequest = sample(&mut random, version);
            let encoded = encode_request(&request, version, 5, Some("client")).unwrap();
            let mut frame = BytesMut::from(&encoded.into_bytes()[..]);
            let frame = frame.split_off(LENGTH_PREFIX_BYTES);
            let whole = frame.clone().freeze();
            let lies_at = frame.as_ptr_range();

            let mut reader = Reader::borrowed(&frame);
            let header = RequestHeader::decode(&mut reader).unwrap();
            assert_eq!((header.api_version, header.correlation_id), (version, 5));
            let (mut read, placed) = ProduceRequest::decode_placed(&mut reader, version).unwrap();
            assert_eq!(reader.remaining(), 0);
            let pieces = split_records(frame, &placed).unwrap();
            for (place, piece) in placed.iter().zip(pieces) {
                assert_eq!(piece, whole[place.range.clone()]);
                assert!(piece.is_empty() || lies_at.contains(&piece.as_ptr()));
                let data = &mut read.topic_data[place.topic].partition_data[place.partition];
                assert_eq!(data.records, Some(Records::default()));
                data.records = Some(piece.freeze().into());
            }
            assert_eq!(read, request);
        }
    }
}

#[test]
fn places_outside_the_frame_are_refused() {
    let place = |range| PlacedRecords {
        topic: 0,
        partition: 0,
        range,
    };
    for places in [
        vec![place(0..11)],
        vec![place(4..6), place(5..7)],
        vec![place(Range { start: 5, end: 4 })],
        vec![place(0..10), place(usize::MAX - 1..usize::MAX)],
    ] {
        let cut = split_records(BytesMut::zeroed(10), &places);
        assert_eq!(cut.unwrap_err(), WireError::MisplacedRecords);
    }
}

#[test]
fn a_produce_request_carries_its_slices_as_they_are() {
    let batch = Bytes::from(vec![1; 4096]);
    let records = Some(Records::from(batch.clone()));
    let request = ProduceRequest {
        acks: -1,
        topic_data: vec![TopicProduceData {
            partition_data: vec![PartitionProduceData { index: 3, records }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let encoded = encode_request(&request, 13, 1, None).unwrap();
    assert!(
        encoded
            .segments()
            .iter()
            .any(|segment| segment.as_ptr() == batch.as_ptr())
    );
    assert_eq!(encoded.segments().len(), 3);
}

// A client reads the answer to ApiVersions before it knows what the server speaks.
#[test]
fn the_answer_to_api_versions_has_the_classic_header_in_every_version() {
    for version in 0..=5 {
        let response = ApiVersionsResponse {
            error_code: 35,
            ..Default::default()
        };
        let bytes = encode_response(&response, version, 1).unwrap().into_bytes();
        assert_eq!(bytes[4..10], [0, 0, 0, 1, 0, 35]);
        let read: ApiVersionsResponse = decode_response(&bytes.slice(4..), version).unwrap();
        assert_eq!(read, response);
    }
}

#[test]
fn records_are_compared_by_their_bytes() {
    let whole = Records::from(Bytes::from_static(b"abcdef"));
    let parts = vec![
        Bytes::from_static(b"ab"),
        Bytes::new(),
        Bytes::from_static(b"cdef"),
    ];
    assert_eq!(whole, Records::from(parts.clone()));
    assert_eq!(Records::from(parts).len(), 6);
    assert_ne!(whole, Records::from(Bytes::from_static(b"abcdeg")));
    assert!(Records::default().is_empty() && Records::from(Vec::new()).is_empty());
}

#[test]
fn a_default_response_is_the_same_after_a_journey() {
    let response = ProduceResponse::default();
    for version in 3..=13 {
        let bytes = super::encode(&response, version);
        assert_eq!(decode::<ProduceResponse>(&bytes, version), response);
    }
}
