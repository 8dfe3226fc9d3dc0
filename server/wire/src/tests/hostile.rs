//! Bytes that no honest peer sends.

use std::fmt::Debug;

use bytes::Bytes;

use super::{encode, sample};
use crate::codec::testing::{Random, Sample};
use crate::{
    ApiKey, Decode, Encode, Message, Reader, RequestHeader, WireError, Writer, api, frame,
};

/// Decodes what may be anything. If it is a message, it must survive being written and read.
fn decode_anything<M: Message + PartialEq + Debug>(bytes: &Bytes, version: i16) {
    let Ok(message) = M::decode(&mut Reader::new(bytes), version) else {
        let _ = M::decode(&mut Reader::borrowed(bytes), version).unwrap_err();
        return;
    };
    let _ = M::decode(&mut Reader::borrowed(bytes), version).unwrap();
    let mut writer = Writer::new();
    message.encode(&mut writer, version).unwrap();
    let again = writer.finish().into_bytes();
    assert_eq!(
        M::decode(&mut Reader::new(&again), version).unwrap(),
        message
    );
}

/// Changes a few places, the kind of change that lengths and counts mind most.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => bytes.truncate(at),
            4 => drop(bytes.remove(at)),
            5 => bytes.insert(at, random.next() as u8),
            _ => {
                let len = random.below(5).min(bytes.len() - at);
                bytes[at..at + len].fill(0xff);
            }
        }
    }
}

fn survives<M: Message + Sample + PartialEq + Debug>(random: &mut Random) {
    for version in M::API.versions() {
        for _ in 0..150 {
            let mut bytes = encode::<M>(&sample(random, version), version).to_vec();
            mutate(random, &mut bytes);
            decode_anything::<M>(&bytes.into(), version);
            let len = random.below(200);
            decode_anything::<M>(&random.bytes(len).into(), version);
        }
    }
}

/// An array may claim as many elements as the bytes that are left could encode, and room is made
/// for all of them at once. An array inside its first element may do the same again, so the
/// factors of nested arrays add up.
fn amplification<M: Message + Sample>() -> f64 {
    let factor = |version| M::amplification(M::API.at(version, "message").unwrap());
    M::API.versions().map(factor).fold(0.0, f64::max)
}

macro_rules! hostile {
    ($( $Name:ident = $number:literal, $versions:expr, flexible $flexible:literal,
        $module:ident::{$Request:ident, $Response:ident}; )*) => {
        $( mod $module {
            use super::{Random, survives};

            #[test]
            fn mutated_and_random_bytes_are_survived() {
                let mut random = Random::new(Random::seed());
                survives::<crate::api::$Request>(&mut random);
                survives::<crate::api::$Response>(&mut random);
            }
        } )*

        #[test]
        fn no_message_can_claim_more_than_64_times_its_bytes() {
            let factors = [$(
                (stringify!($Request), amplification::<api::$Request>()),
                (stringify!($Response), amplification::<api::$Response>()),
            )*];
            for (message, factor) in factors {
                eprintln!("{message} {factor:.1}");
                assert!(factor <= 64.0, "{message} {factor}");
            }
        }
    };
}

crate::api_key::api_table!(hostile);

// Four bytes once made a codec ask for 154 GB: a count of 2^31-1 topics.
#[test]
fn a_hostile_count_is_refused_before_anything_is_allocated() {
    let body = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]);
    let refused = api::MetadataRequest::decode(&mut Reader::new(&body), 1).unwrap_err();
    assert!(
        matches!(refused, WireError::Truncated { remaining: 0, .. }),
        "{refused}"
    );
    // The same in a flexible version: the largest stored length.
    let body = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    let refused = api::MetadataRequest::decode(&mut Reader::new(&body), 9).unwrap_err();
    assert!(
        matches!(refused, WireError::Truncated { remaining: 0, .. }),
        "{refused}"
    );
}

#[test]
fn elements_of_all_arrays_are_counted_together() {
    // Two topics with one partition each: four elements.
    let mut request = api::CreateTopicsRequest::default();
    for name in ["a", "b"] {
        request.topics.push(api::create_topics::CreatableTopic {
            name: name.to_owned(),
            assignments: vec![api::create_topics::CreatableReplicaAssignment::default()],
            ..Default::default()
        });
    }
    for version in ApiKey::CreateTopics.versions() {
        let bytes = encode(&request, version);
        let decoded = |max| {
            let mut reader = Reader::borrowed(&bytes).with_max_elements(max);
            api::CreateTopicsRequest::decode(&mut reader, version)
        };
        assert_eq!(decoded(4).unwrap(), request);
        let refused = decoded(3).unwrap_err();
        assert_eq!(refused, WireError::TooManyElements { count: 1, left: 0 });
        let refused = decoded(1).unwrap_err();
        assert_eq!(refused, WireError::TooManyElements { count: 2, left: 1 });
    }
}

#[test]
fn a_hostile_number_of_tagged_fields_is_refused() {
    let body = Bytes::from_static(&[0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    let refused = api::DescribeClusterRequest::decode(&mut Reader::new(&body), 1).unwrap_err();
    assert!(matches!(refused, WireError::Truncated { .. }), "{refused}");
}

#[test]
fn variable_length_integers_end_within_32_bits() {
    for bytes in [
        &[0xff_u8, 0xff, 0xff, 0xff, 0x1f][..],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0],
    ] {
        assert_eq!(
            Reader::borrowed(bytes).uvarint(),
            Err(WireError::InvalidVarint)
        );
    }
    for value in [
        0,
        1,
        127,
        128,
        16_383,
        16_384,
        0x0fff_ffff,
        0x1000_0000,
        u32::MAX,
    ] {
        let mut writer = Writer::new();
        writer.uvarint(value);
        let bytes = writer.finish().into_bytes();
        assert_eq!(Reader::new(&bytes).uvarint(), Ok(value));
    }
}

#[test]
fn unknown_tags_are_skipped_and_known_ones_must_fit() {
    // Tag 9 with three bytes, which nobody knows.
    let body = Bytes::from_static(&[0, 1, 1, 9, 3, 1, 2, 3]);
    let request = api::DescribeClusterRequest::decode(&mut Reader::new(&body), 1).unwrap();
    assert_eq!(request, api::DescribeClusterRequest::default());
    // Tag 1, an eight-byte epoch, said to be nine bytes long.
    let body = Bytes::from_static(&[0, 0, 1, 0, 0, 0, 0, 1, 1, 9, 0, 0, 0, 0, 0, 0, 0, 1, 7]);
    let refused = api::ApiVersionsResponse::decode(&mut Reader::new(&body), 3).unwrap_err();
    assert_eq!(refused, WireError::TagTooLong { tag: 1, left: 1 });
    // The same said to be four bytes long: the value must not be read beyond its field.
    let body = Bytes::from_static(&[0, 0, 1, 0, 0, 0, 0, 1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 1, 7]);
    let refused = api::ApiVersionsResponse::decode(&mut Reader::new(&body), 3).unwrap_err();
    assert_eq!(
        refused,
        WireError::Truncated {
            needed: 8,
            remaining: 4
        }
    );
}

#[test]
fn null_is_refused_where_the_version_has_none() {
    let body = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]);
    let refused = api::MetadataRequest::decode(&mut Reader::new(&body), 0).unwrap_err();
    assert_eq!(
        refused,
        WireError::UnexpectedNull {
            field: "topics",
            version: 0
        }
    );
    let all = api::MetadataRequest::default();
    let refused = all.encode(&mut Writer::new(), 0).unwrap_err();
    assert_eq!(
        refused,
        WireError::UnexpectedNull {
            field: "topics",
            version: 0
        }
    );
    assert!(all.all_topics(0) && all.all_topics(12));
    assert_eq!(decode_bytes::<api::MetadataRequest>(&body, 1), all);
    let none = api::MetadataRequest {
        topics: Some(Vec::new()),
        ..all
    };
    assert!(none.all_topics(0) && !none.all_topics(1));
}

fn decode_bytes<M: Message>(bytes: &Bytes, version: i16) -> M {
    M::decode(&mut Reader::new(bytes), version).unwrap()
}

#[test]
fn a_field_that_the_version_lacks_is_refused_unless_ignorable() {
    let asking = api::MetadataRequest {
        topics: Some(Vec::new()),
        include_topic_authorized_operations: true,
        ..Default::default()
    };
    let refused = asking.encode(&mut Writer::new(), 7).unwrap_err();
    let field = "include_topic_authorized_operations";
    assert_eq!(refused, WireError::FieldNotInVersion { field, version: 7 });
    asking.encode(&mut Writer::new(), 8).unwrap();
    let throttled = api::ProduceResponse {
        throttle_time_ms: 5,
        ..Default::default()
    };
    throttled.encode(&mut Writer::new(), 3).unwrap();
    // The same for a tagged field.
    let mut redirected = api::ProduceResponse::default();
    redirected
        .node_endpoints
        .push(api::produce::NodeEndpoint::default());
    let refused = redirected.encode(&mut Writer::new(), 9).unwrap_err();
    assert_eq!(
        refused,
        WireError::FieldNotInVersion {
            field: "node_endpoints",
            version: 9
        }
    );
    redirected.encode(&mut Writer::new(), 10).unwrap();
}

#[test]
fn versions_outside_the_table_are_refused() {
    let refused = api::ProduceRequest::decode(&mut Reader::borrowed(&[]), 2).unwrap_err();
    let api = ApiKey::Produce;
    assert_eq!(refused, WireError::UnsupportedVersion { api, version: 2 });
    for version in [i16::MIN, -1, 14, i16::MAX] {
        let request = api::ProduceRequest::default();
        assert!(request.encode(&mut Writer::new(), version).is_err());
    }
}

#[test]
fn a_frame_length_is_held_to_the_limit() {
    assert_eq!(frame::frame_len(&[0, 0, 0], 100), Ok(None));
    assert_eq!(frame::frame_len(&[0, 0, 0, 100, 9], 100), Ok(Some(100)));
    for (prefix, len) in [([0, 0, 0, 101], 101), ([0xff; 4], -1)] {
        let refused = WireError::FrameLength { len, max: 100 };
        assert_eq!(frame::frame_len(&prefix, 100), Err(refused));
    }
}

#[test]
fn headers_survive_anything() {
    let mut random = Random::new(Random::seed());
    for _ in 0..20_000 {
        let len = random.below(24);
        let mut bytes = random.bytes(len);
        if let Some(high) = bytes.first_mut() {
            *high = 0;
        }
        let _ = RequestHeader::decode(&mut Reader::borrowed(&bytes));
    }
}

// A client that is newer than the server must still learn what the server speaks: the header of a
// too high version has to be readable.
#[test]
fn the_header_of_an_unknown_version_is_read() {
    let bytes = [0, 18, 0, 99, 0, 0, 0, 7, 0, 2, b'm', b'e', 0, 1, 2, 3];
    let mut reader = Reader::borrowed(&bytes);
    let header = RequestHeader::decode(&mut reader).unwrap();
    assert_eq!(header.api(), Some(ApiKey::ApiVersions));
    assert_eq!((header.api_version, header.correlation_id), (99, 7));
    assert_eq!(header.client_id.as_deref(), Some("me"));
    // Of an unknown API too, so that it can be answered or logged.
    let bytes = [0, 200, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let header = RequestHeader::decode(&mut Reader::borrowed(&bytes)).unwrap();
    assert_eq!(
        (header.api(), header.api_key, header.client_id),
        (None, 200, None)
    );
}
