//! Messages that Kafka 4.4.0's own classes read and wrote again to the byte.
//!
//! `tests/data/kafka-4.4-golden.txt` has at least one for every message in every version, and
//! several for the versions that the oracle crate does not know. To make more, set
//! `RIVERRUN_VECTORS` to a file and run these tests: they write random messages of every version
//! there, and `tests/data/GoldenCheck.java` puts them before Kafka's classes.

use std::fmt::{Debug, Write as _};

use bytes::Bytes;
use kafka_protocol::protocol::Message as OracleMessage;

use super::{decode, encode, sample};
use crate::Message;
use crate::codec::testing::{Random, Sample};

const GOLDEN: &str = include_str!("../../tests/data/kafka-4.4-golden.txt");

fn from_hex(text: &str) -> Bytes {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

/// The golden bytes of a message in a version.
fn golden(message: &str, version: i16) -> Vec<Bytes> {
    let head = format!("{message} {version} ");
    GOLDEN
        .lines()
        .filter_map(|line| line.strip_prefix(&head))
        .map(from_hex)
        .collect()
}

fn holds<M: Message + Debug, O: OracleMessage>(message: &str) {
    for version in M::API.versions() {
        let vectors = golden(message, version);
        let known = O::VERSIONS.min <= version && version <= O::VERSIONS.max;
        assert!(
            known || vectors.len() >= 3,
            "nothing holds {message} v{version}"
        );
        for bytes in vectors {
            assert_eq!(encode(&decode::<M>(&bytes, version), version), bytes);
        }
    }
}

fn candidates<M: Message + Sample>(message: &str, random: &mut Random, out: &mut String) {
    for version in M::API.versions() {
        for _ in 0..100 {
            let bytes = encode::<M>(&sample(random, version), version);
            let hex: String = bytes.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
            writeln!(out, "{message} {version} {hex}").unwrap();
        }
    }
}

macro_rules! vectors {
    ($( $Name:ident = $number:literal, $versions:expr, flexible $flexible:literal,
        $module:ident::{$Request:ident, $Response:ident}; )*) => {
        #[test]
        fn kafkas_own_bytes_are_read_and_written_again() {
            $(
                holds::<crate::api::$Request, kafka_protocol::messages::$Request>(
                    stringify!($Request));
                holds::<crate::api::$Response, kafka_protocol::messages::$Response>(
                    stringify!($Response));
            )*
        }

        #[test]
        fn candidates_are_written_where_asked() {
            let Ok(path) = std::env::var("RIVERRUN_VECTORS") else { return };
            let mut random = Random::new(Random::seed());
            let mut out = String::new();
            $(
                candidates::<crate::api::$Request>(stringify!($Request), &mut random, &mut out);
                candidates::<crate::api::$Response>(stringify!($Response), &mut random, &mut out);
            )*
            std::fs::write(path, out).unwrap();
        }
    };
}

crate::api_key::api_table!(vectors);
