//! Reads a frame's body: every length and count is held against what is left before it is used.

use bytes::{Buf, Bytes};
use uuid::Uuid;

use super::{FrameError, SEGMENT_BYTES};

/// What is left of a body.
#[derive(Debug)]
pub(super) struct Reader(Bytes);

impl Reader {
    pub(super) fn new(body: Bytes) -> Self {
        Self(body)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, FrameError> {
        self.0.try_get_u8().map_err(|_| FrameError::Length(what))
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, FrameError> {
        self.0
            .try_get_u16_le()
            .map_err(|_| FrameError::Length(what))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, FrameError> {
        self.0
            .try_get_u32_le()
            .map_err(|_| FrameError::Length(what))
    }

    pub(super) fn i32(&mut self, what: &'static str) -> Result<i32, FrameError> {
        self.0
            .try_get_i32_le()
            .map_err(|_| FrameError::Length(what))
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, FrameError> {
        self.0
            .try_get_u64_le()
            .map_err(|_| FrameError::Length(what))
    }

    pub(super) fn i64(&mut self, what: &'static str) -> Result<i64, FrameError> {
        self.0
            .try_get_i64_le()
            .map_err(|_| FrameError::Length(what))
    }

    pub(super) fn bool(&mut self, what: &'static str) -> Result<bool, FrameError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameError::Value(what)),
        }
    }

    pub(super) fn uuid(&mut self, what: &'static str) -> Result<Uuid, FrameError> {
        Ok(Uuid::from_bytes(self.array(what)?))
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], FrameError> {
        let mut out = [0; N];
        self.0
            .try_copy_to_slice(&mut out)
            .map_err(|_| FrameError::Length(what))?;
        Ok(out)
    }

    /// A count of things that take at least `least_bytes` each.
    pub(super) fn count(
        &mut self,
        least_bytes: usize,
        what: &'static str,
    ) -> Result<usize, FrameError> {
        let count = self.u32(what)? as usize;
        if count > self.0.len() / least_bytes {
            return Err(FrameError::Length(what));
        }
        Ok(count)
    }

    /// So many bytes, in place.
    pub(super) fn slice(&mut self, len: usize, what: &'static str) -> Result<Bytes, FrameError> {
        if len > self.0.len() {
            return Err(FrameError::Length(what));
        }
        Ok(self.0.split_to(len))
    }

    /// Bytes behind their length. Short ones are copied, or a few bytes that somebody keeps would
    /// keep the buffer of the whole frame.
    pub(super) fn payload(&mut self, what: &'static str) -> Result<Bytes, FrameError> {
        let len = self.u32(what)? as usize;
        let bytes = self.slice(len, what)?;
        Ok(if len < SEGMENT_BYTES {
            Bytes::copy_from_slice(&bytes)
        } else {
            bytes
        })
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), FrameError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Length("end"))
        }
    }
}
