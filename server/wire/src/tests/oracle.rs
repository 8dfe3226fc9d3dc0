//! Byte equality with the kafka-protocol crate, both ways, in every version that both know.

use std::fmt::Debug;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, Message as OracleMessage};

use super::{decode, encode, encode_with_unknown_tags, note, sample, unseen};
use crate::Message;
use crate::codec::coverage::Forms;
use crate::codec::testing::{Random, Sample};

/// Our bytes must be read to the end by the oracle and written by it again to the byte.
fn written_again<O>(ours: &Bytes, version: i16, message: &dyn Debug)
where
    O: OracleMessage + Encodable + Decodable,
{
    let mut unread = ours.clone();
    let theirs = O::decode(&mut unread, version)
        .unwrap_or_else(|e| panic!("v{version} of {message:?}: {e}"));
    assert!(!unread.has_remaining(), "v{version} of {message:?}");
    let mut written = BytesMut::new();
    theirs
        .encode(&mut written, version)
        .unwrap_or_else(|e| panic!("v{version} of {message:?}: {e}"));
    assert_eq!(ours, &written, "v{version} of {message:?}");
}

/// Besides, the message we began with is read from those bytes, also with tags among them that we
/// do not know (the oracle keeps them, we skip them). The messages together must have shown all
/// that the tables hold.
fn agrees<M, O>(random: &mut Random, rounds: usize)
where
    M: Message + Sample + PartialEq + Debug,
    O: OracleMessage + Encodable + Decodable,
{
    for version in M::API.versions() {
        if version < O::VERSIONS.min || version > O::VERSIONS.max {
            continue;
        }
        let mut seen = Forms::new();
        for _ in 0..rounds {
            let message: M = sample(random, version);
            let ours = encode(&message, version);
            written_again::<O>(&ours, version, &message);
            assert_eq!(decode::<M>(&ours, version), message, "v{version}");
            note(&message, version, &mut seen);
            let (strange, tags) = encode_with_unknown_tags(&message, version, random);
            written_again::<O>(&strange, version, &message);
            assert_eq!(decode::<M>(&strange, version), message, "v{version}");
            seen.extend(tags);
        }
        let unseen = unseen::<M>(version, &seen);
        assert!(unseen.is_empty(), "v{version} was never given {unseen:?}");
    }
}

macro_rules! oracle {
    ($( $Name:ident = $number:literal, $versions:expr, flexible $flexible:literal,
        $module:ident::{$Request:ident, $Response:ident}; )*) => { $(
        mod $module {
            use super::{Random, agrees};

            #[test]
            fn requests_equal_the_oracles_bytes() {
                agrees::<crate::api::$Request, kafka_protocol::messages::$Request>(
                    &mut Random::new(Random::seed()), 400);
            }

            #[test]
            fn responses_equal_the_oracles_bytes() {
                agrees::<crate::api::$Response, kafka_protocol::messages::$Response>(
                    &mut Random::new(Random::seed()), 400);
            }

            #[test]
            fn headers_have_the_oracles_versions() {
                use kafka_protocol::messages::ApiKey;
                let oracle = ApiKey::try_from($number).unwrap();
                for version in crate::ApiKey::$Name.versions() {
                    let ours = crate::ApiKey::$Name;
                    assert_eq!(
                        ours.request_header_version(version),
                        oracle.request_header_version(version)
                    );
                    assert_eq!(
                        ours.response_header_version(version),
                        oracle.response_header_version(version)
                    );
                }
            }
        }
    )* };
}

crate::api_key::api_table!(oracle);

#[test]
fn request_headers_equal_the_oracles_bytes() {
    let mut random = Random::new(Random::seed());
    for api in crate::ApiKey::ALL {
        for version in api.versions() {
            let at = api.at(version, "header").unwrap();
            let header = crate::RequestHeader {
                api_key: api.number(),
                api_version: version,
                correlation_id: i32::sample(&mut random, at),
                client_id: Option::sample(
                    &mut random,
                    crate::codec::At {
                        nullable: true,
                        ..at
                    },
                ),
            };
            let header_version = api.request_header_version(version);
            let mut writer = crate::Writer::new();
            header.encode(&mut writer, header_version).unwrap();
            let ours = writer.finish().into_bytes();
            let mut unread = ours.clone();
            let theirs =
                kafka_protocol::messages::RequestHeader::decode(&mut unread, header_version)
                    .unwrap();
            let mut written = BytesMut::new();
            theirs.encode(&mut written, header_version).unwrap();
            assert_eq!(ours, written);
            let mut reader = crate::Reader::new(&ours);
            assert_eq!(crate::RequestHeader::decode(&mut reader).unwrap(), header);
            assert_eq!(reader.remaining(), 0);
            if header_version < 2 {
                continue;
            }
            let mut theirs = theirs;
            theirs
                .unknown_tagged_fields
                .insert(3, Bytes::from_static(b"news"));
            let mut written = BytesMut::new();
            theirs.encode(&mut written, header_version).unwrap();
            let written = written.freeze();
            let mut reader = crate::Reader::new(&written);
            assert_eq!(crate::RequestHeader::decode(&mut reader).unwrap(), header);
            assert_eq!(reader.remaining(), 0);
        }
    }
}

#[test]
fn unknown_tags_in_a_response_header_are_skipped() {
    use kafka_protocol::messages::ResponseHeader;
    let mut random = Random::new(Random::seed());
    let version = *crate::ApiKey::DescribeCluster.versions().end();
    let message: crate::api::DescribeClusterResponse = sample(&mut random, version);
    let mut header = ResponseHeader::default().with_correlation_id(77);
    header
        .unknown_tagged_fields
        .insert(3, Bytes::from_static(b"news"));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, 1).unwrap();
    frame.extend_from_slice(&encode(&message, version));
    let frame = frame.freeze();
    assert_eq!(crate::frame::correlation_id(&frame).unwrap(), 77);
    let read: crate::api::DescribeClusterResponse =
        crate::decode_response(&frame, version).unwrap();
    assert_eq!(read, message);
}
