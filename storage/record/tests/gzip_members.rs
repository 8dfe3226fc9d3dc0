//! A gzip stream may have several members, and each a header with an extra field (RFC 1952).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use bytes::BytesMut;
use riverrun_record::{BatchError, Compression, compress, decompress};

const MAX: usize = 1 << 20;
const HEADER_BYTES: usize = 10;

fn member(bytes: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    compress(Compression::Gzip, None, bytes, &mut out).unwrap();
    out.to_vec()
}

/// The same with an extra field that announces one length and has another.
fn with_extra(member: &[u8], announced: u16, extra: &[u8]) -> Vec<u8> {
    let (header, body) = member.split_at(HEADER_BYTES);
    let mut header = header.to_vec();
    *header.get_mut(3).unwrap() |= 4;
    [&header, &announced.to_le_bytes()[..], extra, body].concat()
}

fn read(stream: &[u8]) -> Result<Vec<u8>, BatchError> {
    decompress(Compression::Gzip, stream, MAX).map(|bytes| bytes.to_vec())
}

#[test]
fn members_follow_one_another_and_may_be_empty() {
    let stream = [
        member(b"one "),
        member(b""),
        with_extra(&member(b"two "), 3, b"abc"),
        member(b"three"),
    ];
    assert_eq!(read(&stream.concat()).unwrap(), b"one two three");
}

#[test]
fn what_follows_and_is_no_member_is_refused() {
    let refused = |stream: &[u8]| {
        assert!(
            matches!(read(stream), Err(BatchError::Decompression { .. })),
            "{stream:?}"
        );
    };
    let good = member(b"one");
    refused(&[&good[..], b"more"].concat());
    refused(&[&good[..], &good[..good.len() - 1]].concat());
    refused(&[&good[..], &with_extra(&good, u16::MAX, b"abc")].concat());
    refused(&with_extra(&good, u16::MAX, b"abc"));
    refused(&with_extra(&good, 1, b"")[..HEADER_BYTES + 2]);
}
