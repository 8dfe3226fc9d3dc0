use std::fmt;

use bytes::{Bytes, BytesMut};

/// The bytes of a `records` field: whole record batches back to back, in one or several slices.
///
/// Decoding yields one slice of the frame. For encoding, slices of several batches can be given
/// as they are; they are written out without being copied (see [`Encoded`](crate::Encoded)).
#[derive(Clone, Default)]
pub struct Records(Chain);

#[derive(Clone)]
enum Chain {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Default for Chain {
    fn default() -> Self {
        Self::One(Bytes::new())
    }
}

impl Records {
    /// The slices in order.
    #[must_use]
    pub fn slices(&self) -> &[Bytes] {
        match &self.0 {
            Chain::One(bytes) => std::slice::from_ref(bytes),
            Chain::Many(slices) => slices,
        }
    }

    /// The length in bytes, over all slices.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slices().iter().map(Bytes::len).sum()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slices().iter().all(Bytes::is_empty)
    }

    /// The bytes as one slice; copied only if there are several.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Chain::One(bytes) => bytes,
            Chain::Many(mut slices) if slices.len() == 1 => slices.pop().unwrap_or_default(),
            Chain::Many(slices) => {
                let mut joined = BytesMut::with_capacity(slices.iter().map(Bytes::len).sum());
                for slice in &slices {
                    joined.extend_from_slice(slice);
                }
                joined.freeze()
            }
        }
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self(Chain::One(bytes))
    }
}

impl From<Vec<Bytes>> for Records {
    fn from(slices: Vec<Bytes>) -> Self {
        Self(Chain::Many(slices))
    }
}

/// Equal bytes are equal records, however they are sliced.
impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |records: &Self| records.clone().into_bytes();
        self.len() == other.len() && bytes(self) == bytes(other)
    }
}

impl Eq for Records {}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Records({} bytes in {})",
            self.len(),
            self.slices().len()
        )
    }
}
