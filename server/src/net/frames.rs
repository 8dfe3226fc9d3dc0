//! Bytes to frames. A frame is a four-byte length and a body; each body gets a buffer of exactly
//! its size, reserved from the budget before a byte of it is kept.
//!
//! A body that came whole with one read is copied out of the read buffer. A longer one gets its
//! own buffer, which the socket is then read into directly ([`Assembler::space`]).

use bytes::{Bytes, BytesMut};

use super::memory::{Budget, Lease};

/// Bodies up to this length are given their buffer at once; longer ones a buffer that grows with
/// what has arrived, so that a claim alone never costs memory.
const TRUSTED_BYTES: usize = 4 << 20;

/// A whole request: its bytes and the memory reserved for them.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) body: BytesMut,
    pub(crate) lease: Lease,
}

/// A length that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the claimed length {0} is negative")]
    Negative(i32),
    #[error("the claimed length {claimed} is above the limit of {limit} bytes")]
    TooLong { claimed: usize, limit: usize },
}

#[derive(Debug)]
struct Body {
    buf: BytesMut,
    len: usize,
    lease: Lease,
}

/// Puts one connection's bytes together.
#[derive(Debug)]
pub(crate) struct Assembler {
    limit: usize,
    length: [u8; 4],
    length_bytes: usize,
    /// The body being read.
    body: Option<Body>,
    /// A body whose length is known and whose memory is not there yet.
    wanted: Option<usize>,
    /// What was read behind it.
    backlog: Bytes,
}

impl Assembler {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            length: [0; 4],
            length_bytes: 0,
            body: None,
            wanted: None,
            backlog: Bytes::new(),
        }
    }

    /// Takes bytes and hands out every frame that they complete. When memory is short the rest is
    /// kept and [`Assembler::wanted`] says how much is needed.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        budget: &Budget,
        on_frame: &mut impl FnMut(Frame),
    ) -> Result<(), FrameError> {
        loop {
            if let Some(body) = &mut self.body {
                let take = bytes.len().min(body.len - body.buf.len());
                let (mine, rest) = bytes.split_at(take);
                body.buf.extend_from_slice(mine);
                bytes = rest;
                if body.buf.len() < body.len {
                    return Ok(());
                }
                self.finish(on_frame);
            }
            let missing = self.length.len() - self.length_bytes;
            let take = bytes.len().min(missing);
            let (mine, rest) = bytes.split_at(take);
            for (to, from) in self.length.iter_mut().skip(self.length_bytes).zip(mine) {
                *to = *from;
            }
            self.length_bytes += take;
            bytes = rest;
            if self.length_bytes < self.length.len() {
                return Ok(());
            }
            let claimed = i32::from_be_bytes(self.length);
            let len = usize::try_from(claimed).map_err(|_| FrameError::Negative(claimed))?;
            if len > self.limit {
                return Err(FrameError::TooLong {
                    claimed: len,
                    limit: self.limit,
                });
            }
            match budget.try_reserve(len) {
                Some(lease) => self.begin(len, lease),
                None => {
                    self.wanted = Some(len);
                    self.backlog = Bytes::copy_from_slice(bytes);
                    return Ok(());
                }
            }
        }
    }

    /// The length of a body that waits for memory; nothing may be read until it is supplied.
    pub(crate) fn wanted(&self) -> Option<usize> {
        self.wanted
    }

    /// Supplies the memory that was wanted and goes on with what had been read behind the length.
    pub(crate) fn supply(
        &mut self,
        lease: Lease,
        budget: &Budget,
        on_frame: &mut impl FnMut(Frame),
    ) -> Result<(), FrameError> {
        if let Some(len) = self.wanted.take() {
            self.begin(len, lease);
        }
        let backlog = std::mem::take(&mut self.backlog);
        self.feed(&backlog, budget, on_frame)
    }

    fn begin(&mut self, len: usize, lease: Lease) {
        self.length_bytes = 0;
        self.body = Some(Body {
            buf: BytesMut::with_capacity(len.min(TRUSTED_BYTES)),
            len,
            lease,
        });
    }

    fn finish(&mut self, on_frame: &mut impl FnMut(Frame)) {
        if let Some(body) = self.body.take() {
            on_frame(Frame {
                body: body.buf,
                lease: body.lease,
            });
        }
    }

    /// Where to read a long body into, and how many bytes of it are missing.
    pub(crate) fn space(&mut self) -> Option<(&mut BytesMut, usize)> {
        let body = self.body.as_mut()?;
        let missing = body.len - body.buf.len();
        // Grow by doubling beyond what was trusted, never beyond the frame.
        if body.buf.len() == body.buf.capacity() {
            body.buf.reserve(missing.min(body.buf.len()));
        }
        Some((&mut body.buf, missing))
    }

    /// Looks whether the bytes read through [`Assembler::space`] completed the frame.
    pub(crate) fn filled(&mut self, on_frame: &mut impl FnMut(Frame)) {
        if self
            .body
            .as_ref()
            .is_some_and(|body| body.buf.len() >= body.len)
        {
            self.finish(on_frame);
        }
    }

    /// What is there of the frame that has begun and is not whole, or `None` between frames.
    pub(crate) fn unfinished(&self) -> Option<Unfinished> {
        match (&self.body, self.wanted) {
            (Some(body), _) => Some(Unfinished {
                claimed: body.len,
                received: body.buf.len(),
            }),
            (None, Some(claimed)) => Some(Unfinished {
                claimed,
                received: 0,
            }),
            (None, None) => (self.length_bytes > 0).then_some(Unfinished {
                claimed: 0,
                received: 0,
            }),
        }
    }

    /// Bytes of the length that is to come next: all that may be read while memory is short.
    pub(crate) fn missing_of_length(&self) -> usize {
        self.length.len() - self.length_bytes
    }
}

/// A frame that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// The length that the client announced.
    pub(crate) claimed: usize,
    /// What has come of it.
    pub(crate) received: usize,
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        reason = "tests"
    )]

    use super::*;

    fn framed(bodies: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for body in bodies {
            out.extend_from_slice(&(body.len() as u32).to_be_bytes());
            out.extend_from_slice(body);
        }
        out
    }

    #[test]
    fn finds_the_same_frames_however_the_bytes_are_cut() {
        let budget = Budget::new(1 << 20, 1 << 20);
        let bytes = framed(&[b"one", b"", b"three"]);
        for step in 1..=bytes.len() {
            let mut assembler = Assembler::new(100);
            let mut found = Vec::new();
            for chunk in bytes.chunks(step) {
                assembler
                    .feed(chunk, &budget, &mut |f| found.push(f.body.to_vec()))
                    .unwrap();
            }
            assert_eq!(
                found,
                [b"one".to_vec(), vec![], b"three".to_vec()],
                "step {step}"
            );
            assert_eq!(assembler.unfinished(), None);
        }
    }

    #[test]
    fn refuses_lengths_before_allocating() {
        let budget = Budget::new(1 << 20, 1 << 20);
        let mut assembler = Assembler::new(100);
        let error = assembler
            .feed(&101_u32.to_be_bytes(), &budget, &mut |_| {})
            .unwrap_err();
        assert_eq!(
            error,
            FrameError::TooLong {
                claimed: 101,
                limit: 100
            }
        );
        let mut assembler = Assembler::new(100);
        let error = assembler
            .feed(&[0xff; 4], &budget, &mut |_| {})
            .unwrap_err();
        assert_eq!(error, FrameError::Negative(-1));
    }

    #[test]
    fn keeps_what_it_read_while_memory_is_short() {
        let budget = Budget::new(4 << 16, 1 << 16);
        let taken = budget.try_reserve(1 << 16).unwrap();
        let mut assembler = Assembler::new(1 << 20);
        let mut found = Vec::new();
        let bytes = framed(&[b"first", b"second"]);
        assembler
            .feed(&bytes, &budget, &mut |f| found.push(f.body.to_vec()))
            .unwrap();
        assert!(found.is_empty());
        assert_eq!(assembler.wanted(), Some(5));
        drop(taken);
        let lease = budget.try_reserve(5).unwrap();
        assembler
            .supply(lease, &budget, &mut |f| found.push(f.body.to_vec()))
            .unwrap();
        assert_eq!(found, [b"first".to_vec(), b"second".to_vec()]);
    }

    #[test]
    fn a_long_body_is_read_into_its_own_buffer() {
        let budget = Budget::new(64 << 20, 64 << 20);
        let mut assembler = Assembler::new(64 << 20);
        let len = TRUSTED_BYTES + 100;
        let mut found = Vec::new();
        let head = (len as u32).to_be_bytes();
        assembler
            .feed(&head, &budget, &mut |f| found.push(f.body.len()))
            .unwrap();
        while let Some((buf, missing)) = assembler.space() {
            let room = (buf.capacity() - buf.len()).min(missing);
            assert!(room > 0);
            buf.extend_from_slice(&vec![7; room]);
            assembler.filled(&mut |f| found.push(f.body.len()));
        }
        assert_eq!(found, [len]);
    }
}
