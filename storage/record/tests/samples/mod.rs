//! Batches for the tests, made with and without the builder.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::{BufMut, Bytes, BytesMut};
use riverrun_record::{
    BatchBuilder, Compression, HEADER_LEN, Header, OwnedRecord, layout, owned_records,
};

pub(crate) const NOW_MS: i64 = 1_700_000_001_000;
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// What goes into a batch, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Given {
    pub(crate) fn new(timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        Self {
            timestamp,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        }
    }

    pub(crate) fn append_to(&self, builder: &mut BatchBuilder) {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(key, value)| Header {
                key,
                value: value.as_deref(),
            })
            .collect();
        builder
            .append(
                self.timestamp,
                self.key.as_deref(),
                self.value.as_deref(),
                &headers,
            )
            .unwrap();
    }

    pub(crate) fn owned(&self, offset: i64) -> OwnedRecord {
        OwnedRecord {
            offset,
            timestamp: self.timestamp,
            key: self.key.clone().map(Bytes::from),
            value: self.value.clone().map(Bytes::from),
            headers: self
                .headers
                .iter()
                .map(|(key, value)| (key.clone().into(), value.clone().map(Bytes::from)))
                .collect(),
        }
    }
}

/// The records of the golden fixtures.
pub(crate) fn golden_records() -> Vec<Given> {
    let mut second = Given::new(
        1_700_000_000_500,
        None,
        Some(b"hello hello hello hello hello hello"),
    );
    second.headers = vec![
        (b"h1".to_vec(), Some(b"x".to_vec())),
        (b"h2".to_vec(), None),
        (b"h1".to_vec(), Some(Vec::new())),
    ];
    let long: Vec<u8> = (0..100_000_u32)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect();
    vec![
        Given::new(1_700_000_000_000, Some(b"k0"), Some(b"v0")),
        second,
        Given::new(1_699_999_999_000, Some(b""), None),
        Given::new(1_700_000_000_001, Some(b"k3"), Some(&long)),
    ]
}

/// The golden records, as they were built with this compression.
pub(crate) fn golden_records_of(compression: Compression) -> Vec<Given> {
    let mut records = golden_records();
    if compression == Compression::None {
        records.pop();
    }
    records
}

pub(crate) fn golden_batch(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(compression, None)
        .producer(4242, 7, 100)
        .leader_epoch(5);
    for record in golden_records_of(compression) {
        record.append_to(&mut builder);
    }
    builder.build().unwrap()
}

pub(crate) fn plain_batch(records: &[Given]) -> BytesMut {
    batch_of(Compression::None, records)
}

pub(crate) fn batch_of(compression: Compression, records: &[Given]) -> BytesMut {
    let mut builder = BatchBuilder::new(compression, None);
    for record in records {
        record.append_to(&mut builder);
    }
    builder.build_mut().unwrap()
}

/// All records of a batch, or a panic.
pub(crate) fn read_all(batch: &Bytes) -> Vec<OwnedRecord> {
    owned_records(batch, MAX_BYTES)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// A batch of `count` records around a record area that nobody checked.
pub(crate) fn wrap(compression: Compression, count: i32, area: &[u8]) -> BytesMut {
    let mut batch = BytesMut::with_capacity(HEADER_LEN + area.len());
    batch.put_i64(0);
    batch.put_i32(i32::try_from(HEADER_LEN - 12 + area.len()).unwrap());
    batch.put_i32(-1);
    batch.put_i8(2);
    batch.put_u32(0);
    batch.put_i16(i16::from(compression.id()));
    batch.put_i32(count - 1);
    batch.put_i64(NOW_MS);
    batch.put_i64(NOW_MS);
    batch.put_i64(-1);
    batch.put_i16(-1);
    batch.put_i32(-1);
    batch.put_i32(count);
    batch.put_slice(area);
    fix_crc(&mut batch);
    batch
}

/// Makes the checksum right again after a change.
pub(crate) fn fix_crc(batch: &mut [u8]) {
    if let Some((head, tail)) = batch.split_at_mut_checked(layout::ATTRIBUTES) {
        let crc = crc32c::crc32c(tail).to_be_bytes();
        head.get_mut(layout::CRC..).unwrap().copy_from_slice(&crc);
    }
}

/// Overwrites a header field and makes the checksum right again.
pub(crate) fn with_field(mut batch: BytesMut, at: usize, bytes: &[u8]) -> BytesMut {
    batch
        .get_mut(at..at + bytes.len())
        .unwrap()
        .copy_from_slice(bytes);
    fix_crc(&mut batch);
    batch
}
