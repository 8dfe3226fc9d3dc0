use std::ops::Range;

use bytes::Bytes;

use crate::WireError;

/// Reads one frame and never beyond it.
///
/// Over a [`Bytes`], byte fields and records are slices that share the frame's memory. Over a
/// borrowed slice nothing can be shared: byte fields are copied, and records are left where they
/// are; the reader only notes their places, so that a caller who owns the frame mutably can cut
/// them out of it (see [`ProduceRequest::decode_placed`](crate::api::ProduceRequest)).
#[derive(Debug)]
pub struct Reader<'a> {
    data: &'a [u8],
    frame: Option<&'a Bytes>,
    /// INVARIANT: `at <= end <= data.len()`.
    at: usize,
    end: usize,
    /// Elements of arrays that may still be read.
    elements: usize,
    placed: Vec<Range<usize>>,
}

impl<'a> Reader<'a> {
    /// Reads a frame whose memory the decoded message may share.
    #[must_use]
    pub fn new(frame: &'a Bytes) -> Self {
        Self {
            frame: Some(frame),
            ..Self::borrowed(frame)
        }
    }

    /// Reads a frame whose memory stays the caller's own.
    #[must_use]
    pub fn borrowed(data: &'a [u8]) -> Self {
        Self {
            data,
            frame: None,
            at: 0,
            end: data.len(),
            elements: usize::MAX,
            placed: Vec::new(),
        }
    }

    /// Takes no more than so many elements of arrays, over the whole frame. An element may take
    /// many times the memory of its bytes, and cause work and an answer as well.
    #[must_use]
    pub fn with_max_elements(self, elements: usize) -> Self {
        Self { elements, ..self }
    }

    /// How many bytes of the frame have been read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// The places of records that were met over a borrowed frame, in their order; they are
    /// forgotten here.
    pub(crate) fn take_placed(&mut self) -> Vec<Range<usize>> {
        std::mem::take(&mut self.placed)
    }

    fn truncated(&self, needed: usize) -> WireError {
        WireError::Truncated {
            needed,
            remaining: self.remaining(),
        }
    }

    fn skip(&mut self, len: usize) -> Result<Range<usize>, WireError> {
        if len > self.remaining() {
            return Err(self.truncated(len));
        }
        let from = self.at;
        self.at += len;
        Ok(from..self.at)
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn slice(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let range = self.skip(len)?;
        self.data.get(range).ok_or(WireError::Truncated {
            needed: len,
            remaining: 0,
        })
    }

    /// The next `len` bytes as a value that outlives the reader.
    pub(crate) fn bytes(&mut self, len: usize) -> Result<Bytes, WireError> {
        match self.frame {
            Some(frame) => Ok(frame.slice(self.skip(len)?)),
            None => Ok(Bytes::copy_from_slice(self.slice(len)?)),
        }
    }

    /// The next `len` bytes, which are records: a slice of the frame, or only their place.
    pub(crate) fn records(&mut self, len: usize) -> Result<Bytes, WireError> {
        let range = self.skip(len)?;
        if let Some(frame) = self.frame {
            return Ok(frame.slice(range));
        }
        self.placed.push(range);
        Ok(Bytes::new())
    }

    /// The next `N` bytes.
    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let rest = self.data.get(self.at..self.end).unwrap_or_default();
        let Some(bytes) = rest.first_chunk::<N>() else {
            return Err(self.truncated(N));
        };
        self.at += N;
        Ok(*bytes)
    }

    /// A big-endian 16-bit integer.
    ///
    /// # Errors
    /// If fewer than two bytes are left.
    pub fn i16(&mut self) -> Result<i16, WireError> {
        self.fixed().map(i16::from_be_bytes)
    }

    /// A big-endian 32-bit integer.
    ///
    /// # Errors
    /// If fewer than four bytes are left.
    pub fn i32(&mut self) -> Result<i32, WireError> {
        self.fixed().map(i32::from_be_bytes)
    }

    /// An unsigned variable-length integer: seven bits a byte, the lowest first.
    pub(crate) fn uvarint(&mut self) -> Result<u32, WireError> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed::<1>()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(WireError::InvalidVarint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::InvalidVarint)
    }

    /// A length of the flexible encodings, which is stored plus one; null is zero.
    pub(crate) fn compact_len(&mut self) -> Result<Option<usize>, WireError> {
        let stored = self.uvarint()?;
        Ok(stored
            .checked_sub(1)
            .map(|len| usize::try_from(len).unwrap_or(usize::MAX)))
    }

    /// Checks that `count` elements of at least `min_bytes` each can follow, so that it is safe
    /// to make room for them.
    pub(crate) fn expect_elements(
        &mut self,
        count: usize,
        min_bytes: usize,
    ) -> Result<(), WireError> {
        let needed = count.saturating_mul(min_bytes.max(1));
        if needed > self.remaining() {
            return Err(self.truncated(needed));
        }
        let left = self.elements;
        self.elements = left
            .checked_sub(count)
            .ok_or(WireError::TooManyElements { count, left })?;
        Ok(())
    }

    /// Reads a section of tagged fields. `field` is given each tag with a reader that ends where
    /// the field does, and says whether it knows the tag; unknown ones are skipped.
    pub(crate) fn tagged(
        &mut self,
        mut field: impl FnMut(&mut Self, u32) -> Result<bool, WireError>,
    ) -> Result<(), WireError> {
        let count = self.uvarint()?;
        // The smallest tagged field is its number and the length zero.
        self.expect_elements(usize::try_from(count).unwrap_or(usize::MAX), 2)?;
        for _ in 0..count {
            let tag = self.uvarint()?;
            let len = usize::try_from(self.uvarint()?).unwrap_or(usize::MAX);
            if len > self.remaining() {
                return Err(self.truncated(len));
            }
            let outer_end = std::mem::replace(&mut self.end, self.at + len);
            let known = field(self, tag)?;
            if known && self.remaining() > 0 {
                return Err(WireError::TagTooLong {
                    tag,
                    left: self.remaining(),
                });
            }
            self.at = self.end;
            self.end = outer_end;
        }
        Ok(())
    }
}
