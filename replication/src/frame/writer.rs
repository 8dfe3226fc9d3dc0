//! Puts a frame together: one buffer for all that is small, and the long payloads where they are.

use bytes::{BufMut, Bytes, BytesMut};

use super::{FrameError, HEADER_BYTES, SEGMENT_BYTES};

/// A frame that is being made.
#[derive(Debug)]
pub(super) struct Writer {
    head: BytesMut,
    /// Payloads that are not copied, each with the place in `head` that it comes before.
    payloads: Vec<(usize, Bytes)>,
    payload_bytes: usize,
}

impl Writer {
    pub(super) fn new(kind: u8) -> Self {
        let mut head = BytesMut::with_capacity(128);
        head.put_bytes(0, HEADER_BYTES);
        head.put_u8(kind);
        Self {
            head,
            payloads: Vec::new(),
            payload_bytes: 0,
        }
    }

    /// Where numbers go.
    pub(super) fn head(&mut self) -> &mut BytesMut {
        &mut self.head
    }

    /// Bytes without their length.
    pub(super) fn bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < SEGMENT_BYTES {
            self.head.put_slice(bytes);
        } else {
            self.payload_bytes += bytes.len();
            self.payloads.push((self.head.len(), bytes.clone()));
        }
    }

    /// Bytes behind their length.
    pub(super) fn payload(&mut self, bytes: &Bytes) {
        // What is longer than u32 is longer than a frame, and refused at the end.
        self.head
            .put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.bytes(bytes);
    }

    /// How long the frame is so far.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.payload_bytes
    }

    /// Fills in length and checksum.
    pub(super) fn finish(mut self, limit: usize) -> Result<Vec<Bytes>, FrameError> {
        let length = self.len() - HEADER_BYTES;
        let limit = limit - HEADER_BYTES;
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        let mut crc = crc32fast::Hasher::new();
        let mut from = HEADER_BYTES;
        for (at, payload) in &self.payloads {
            crc.update(self.head.get(from..*at).unwrap_or_default());
            crc.update(payload);
            from = *at;
        }
        crc.update(self.head.get(from..).unwrap_or_default());
        if let Some(header) = self.head.first_chunk_mut::<HEADER_BYTES>() {
            let mut fields = header.as_mut_slice();
            fields.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
            fields.put_u32_le(crc.finalize());
        }
        let mut head = self.head.freeze();
        let mut segments = Vec::with_capacity(2 * self.payloads.len() + 1);
        let mut cut = 0;
        for (at, payload) in self.payloads {
            if at > cut {
                segments.push(head.split_to(at - cut));
                cut = at;
            }
            segments.push(payload);
        }
        if !head.is_empty() {
            segments.push(head);
        }
        Ok(segments)
    }
}
