//! Byte equality with the kafka-protocol crate, both ways, in every version that both know.

use std::fmt::Debug;

use bytes::{Buf, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, Message as OracleMessage};

use super::{decode, encode, sample};
use crate::Message;
use crate::codec::testing::{Random, Sample};

/// Our bytes must be read to the end by the oracle, written by it again to the byte, and read from
/// its bytes as the message we began with.
fn agrees<M, O>(random: &mut Random, rounds: usize)
where
    M: Message + Sample + PartialEq + Debug,
    O: OracleMessage + Encodable + Decodable,
{
    for version in M::API.versions() {
        if version < O::VERSIONS.min || version > O::VERSIONS.max {
            continue;
        }
        for _ in 0..rounds {
            let message: M = sample(random, version);
            let ours = encode(&message, version);
            let mut unread = ours.clone();
            let theirs = O::decode(&mut unread, version)
                .unwrap_or_else(|e| panic!("v{version} of {message:?}: {e}"));
            assert!(!unread.has_remaining(), "v{version} of {message:?}");
            let mut written = BytesMut::new();
            theirs
                .encode(&mut written, version)
                .unwrap_or_else(|e| panic!("v{version} of {message:?}: {e}"));
            assert_eq!(ours, written, "v{version} of {message:?}");
            assert_eq!(
                decode::<M>(&written.freeze(), version),
                message,
                "v{version}"
            );
        }
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
        }
    }
}
