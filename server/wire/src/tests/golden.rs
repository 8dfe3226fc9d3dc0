//! Messages that Kafka 4.4.0's own classes read and wrote again to the byte.
//!
//! `tests/data/kafka-4.4-golden.txt` has at least one for every message in every version, and
//! for the versions that the oracle crate does not know so many that every field, null and tag is
//! among them. A line may hold its message a second time, with tags in it that we do not know. To
//! make more, set `RIVERRUN_VECTORS` to a file and run these tests: they write random messages of
//! every version there, and `tests/data/GoldenCheck.java` puts them before Kafka's classes.

use std::fmt::{Debug, Write as _};

use bytes::Bytes;
use kafka_protocol::protocol::Message as OracleMessage;

use super::{decode, encode, encode_with_unknown_tags, note, sample, unseen};
use crate::Message;
use crate::codec::coverage::{Form, Forms};
use crate::codec::testing::{Random, Sample};

const GOLDEN: &str = include_str!("../../tests/data/kafka-4.4-golden.txt");

fn from_hex(text: &str) -> Bytes {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

/// The golden bytes of a message in a version, and the same with unknown tags.
fn golden(message: &str, version: i16) -> Vec<(Bytes, Option<Bytes>)> {
    let head = format!("{message} {version} ");
    let vectors = GOLDEN.lines().filter_map(|line| line.strip_prefix(&head));
    vectors
        .map(|line| match line.split_once(' ') {
            Some((plain, strange)) => (from_hex(plain), Some(from_hex(strange))),
            None => (from_hex(line), None),
        })
        .collect()
}

fn holds<M: Message + Sample + PartialEq + Debug, O: OracleMessage>(name: &str) {
    for version in M::API.versions() {
        let mut seen = Forms::new();
        let mut strangers = 0;
        for (bytes, strange) in golden(name, version) {
            let message = decode::<M>(&bytes, version);
            assert_eq!(encode(&message, version), bytes);
            note(&message, version, &mut seen);
            if let Some(strange) = strange {
                assert_ne!(strange, bytes);
                assert_eq!(decode::<M>(&strange, version), message);
                strangers += 1;
            }
        }
        if O::VERSIONS.min <= version && version <= O::VERSIONS.max {
            continue;
        }
        let mut unseen = unseen::<M>(version, &seen);
        // Which structs they are in cannot be told from the bytes.
        unseen.retain(|(_, _, form)| *form != Form::UnknownTag);
        assert!(
            unseen.is_empty(),
            "nothing holds {name} v{version} to {unseen:?}"
        );
        assert!(
            strangers > 0 || !M::API.is_flexible(version),
            "{name} v{version}"
        );
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn candidates<M: Message + Sample>(message: &str, random: &mut Random, out: &mut String) {
    for version in M::API.versions() {
        for _ in 0..100 {
            let value: M = sample(random, version);
            let plain = encode(&value, version);
            write!(out, "{message} {version} {}", to_hex(&plain)).unwrap();
            let (strange, tags) = encode_with_unknown_tags(&value, version, random);
            let mut structs = Forms::new();
            M::expect(M::API.at(version, "message").unwrap(), &mut structs);
            structs.retain(|(_, _, form)| *form == Form::UnknownTag);
            // Only what has unknown tags in every struct is worth a place in the file.
            if !tags.is_empty() && tags == structs {
                write!(out, " {}", to_hex(&strange)).unwrap();
            }
            out.push('\n');
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
