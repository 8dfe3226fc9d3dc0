//! What holds for every API alike, each run over the whole table of APIs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tests"
)]

mod golden;
mod hostile;
mod oracle;
mod schema;
mod segments;

use bytes::Bytes;

use crate::codec::coverage::{Form, Forms, UnknownTags};
use crate::codec::testing::{Random, Sample};
use crate::{Message, Reader, Writer};

/// A random message that the version can express.
fn sample<M: Message + Sample>(random: &mut Random, version: i16) -> M {
    M::sample(random, M::API.at(version, "message").unwrap())
}

fn encode<M: Message>(message: &M, version: i16) -> Bytes {
    let mut writer = Writer::new();
    message.encode(&mut writer, version).unwrap();
    let len = writer.len();
    let encoded = writer.finish();
    assert_eq!(len, encoded.len());
    assert!(encoded.segments().iter().all(|segment| !segment.is_empty()));
    let bytes = encoded.into_bytes();
    assert_eq!(len, bytes.len());
    bytes
}

/// The same message with unknown tags, and the structs that have got some.
fn encode_with_unknown_tags<M: Message>(
    message: &M,
    version: i16,
    random: &mut Random,
) -> (Bytes, Forms) {
    let mut writer = Writer::new();
    writer.unknown_tags = Some(UnknownTags::new(random));
    message.encode(&mut writer, version).unwrap();
    let forms = writer.unknown_tags.take().unwrap().forms;
    (writer.finish().into_bytes(), forms)
}

/// What messages of the version can show that these have not.
fn unseen<M: Message + Sample>(version: i16, seen: &Forms) -> Vec<(&str, &str, Form)> {
    let mut expected = Forms::new();
    M::expect(M::API.at(version, "message").unwrap(), &mut expected);
    expected.difference(seen).copied().collect()
}

fn note<M: Message + Sample>(message: &M, version: i16, seen: &mut Forms) {
    message.note(M::API.at(version, "message").unwrap(), seen);
}

fn decode<M: Message>(bytes: &Bytes, version: i16) -> M {
    let mut reader = Reader::new(bytes);
    let message = M::decode(&mut reader, version).unwrap();
    assert_eq!(reader.remaining(), 0, "{} v{version}", M::API.name());
    message
}
