use bytes::Bytes;

use crate::WireError;

/// Records of at least this many bytes become a segment of their own; smaller ones are cheaper to
/// copy than to carry.
const SEGMENT_MIN_BYTES: usize = 1024;

/// Writes one frame as a list of segments.
///
/// Everything small goes into one buffer. Large records are set aside together with the position
/// in the buffer at which they belong, so that they are never copied.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
    cuts: Vec<Cut>,
    cut_bytes: usize,
    /// How many tagged fields enclose the place being written. Their length stands before them,
    /// so nothing inside one is set aside.
    tag_depth: u32,
    #[cfg(test)]
    pub(crate) unknown_tags: Option<super::coverage::UnknownTags>,
}

/// A segment that belongs at a position in the buffer.
#[derive(Debug)]
struct Cut {
    at: usize,
    bytes: Bytes,
}

impl Writer {
    /// An empty writer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty writer with room for `bytes` bytes outside large records.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// How many bytes have been written, with those set aside.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len() + self.cut_bytes
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes as they are.
    pub fn slice(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// A big-endian 16-bit integer.
    pub fn i16(&mut self, value: i16) {
        self.slice(&value.to_be_bytes());
    }

    /// A big-endian 32-bit integer.
    pub fn i32(&mut self, value: i32) {
        self.slice(&value.to_be_bytes());
    }

    /// Appends bytes, set aside if there are many of them.
    pub(crate) fn segment(&mut self, bytes: &Bytes) {
        if bytes.len() < SEGMENT_MIN_BYTES || self.tag_depth > 0 {
            self.slice(bytes);
            return;
        }
        self.cut_bytes += bytes.len();
        self.cuts.push(Cut {
            at: self.buffer.len(),
            bytes: bytes.clone(),
        });
    }

    /// An unsigned variable-length integer: seven bits a byte, the lowest first.
    pub(crate) fn uvarint(&mut self, value: u32) {
        if let Ok(byte @ ..0x80) = u8::try_from(value) {
            self.buffer.push(byte);
            return;
        }
        let (bytes, len) = uvarint_bytes(value);
        self.slice(bytes.get(..len).unwrap_or_default());
    }

    /// A length of the flexible encodings, which is stored plus one; null is zero.
    pub(crate) fn compact_len(
        &mut self,
        field: &'static str,
        len: Option<usize>,
    ) -> Result<(), WireError> {
        let stored = match len {
            None => 0,
            // Kafka reads it as a signed number.
            Some(len) => i32::try_from(len)
                .ok()
                .and_then(|len| len.checked_add(1))
                .ok_or(WireError::TooLong { field, len })?
                .unsigned_abs(),
        };
        self.uvarint(stored);
        Ok(())
    }

    /// One tagged field: its number, its length and what `value` writes.
    pub(crate) fn tagged(
        &mut self,
        field: &'static str,
        tag: u32,
        value: impl FnOnce(&mut Self) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        self.uvarint(tag);
        let start = self.buffer.len();
        self.tag_depth += 1;
        value(self)?;
        self.tag_depth -= 1;
        // The length is known only now: it is appended and turned round to the front.
        let len = self.buffer.len() - start;
        let stored = u32::try_from(len).map_err(|_| WireError::TooLong { field, len })?;
        let (_, prefix) = uvarint_bytes(stored);
        self.uvarint(stored);
        if let Some(tail) = self.buffer.get_mut(start..) {
            tail.rotate_right(prefix);
        }
        Ok(())
    }

    /// Writes a number over the four bytes at the beginning of the buffer.
    pub(crate) fn patch_front(&mut self, value: i32) {
        if let Some(front) = self.buffer.first_chunk_mut::<4>() {
            *front = value.to_be_bytes();
        }
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Encoded {
        let len = self.len();
        let mut rest = Bytes::from(self.buffer);
        let mut segments = Vec::with_capacity(self.cuts.len() * 2 + 1);
        let mut taken = 0;
        for Cut { at, bytes } in self.cuts {
            if at > taken {
                segments.push(rest.split_to(at - taken));
                taken = at;
            }
            segments.push(bytes);
        }
        if !rest.is_empty() {
            segments.push(rest);
        }
        Encoded { segments, len }
    }
}

/// The bytes of a variable-length integer and how many of them count.
fn uvarint_bytes(value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0_u8; 5];
    let mut len = 0;
    let mut rest = value;
    for slot in &mut bytes {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        len += 1;
        *slot = low & 0x7f;
        if rest == 0 {
            break;
        }
        *slot |= 0x80;
    }
    (bytes, len)
}

/// An encoded frame: segments for a vectored write, in order.
#[derive(Debug, Clone, Default)]
pub struct Encoded {
    segments: Vec<Bytes>,
    len: usize,
}

impl Encoded {
    /// The segments; none of them is empty.
    #[must_use]
    pub fn segments(&self) -> &[Bytes] {
        &self.segments
    }

    /// The segments.
    #[must_use]
    pub fn into_segments(self) -> Vec<Bytes> {
        self.segments
    }

    /// The length of all segments together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All bytes in one piece; copied if there are several segments.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        crate::Records::from(self.segments).into_bytes()
    }
}
