//! The bytes of one answer: a few owned ones and slices of the log between them.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

use super::answers::{Sink, Wrote};

/// Slices handed to one `writev`.
const SLICES: usize = 64;
/// Bytes after which a writer leaves the rest to the connection's task, so that a large fetch
/// does not keep a thread that came to complete something else.
const MAX_BYTES_A_CALL: usize = 2 << 20;

/// One response, its length prefix included.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    first: Bytes,
    rest: VecDeque<Bytes>,
}

impl Answer {
    /// A response in pieces, which are written one after another.
    pub(crate) fn pieces(mut pieces: VecDeque<Bytes>) -> Self {
        Self {
            first: pieces.pop_front().unwrap_or_default(),
            rest: pieces,
        }
    }

    fn slices(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first)
            .chain(&self.rest)
            .filter(|piece| !piece.is_empty())
    }

    /// Takes `written` bytes off; returns what is left of `written` when the answer is done.
    fn advance(&mut self, mut written: usize) -> Option<usize> {
        loop {
            let step = written.min(self.first.len());
            self.first.advance(step);
            written -= step;
            if !self.first.is_empty() {
                return None;
            }
            match self.rest.pop_front() {
                Some(next) => self.first = next,
                None => return Some(written),
            }
        }
    }
}

/// The socket as a [`Sink`].
#[derive(Debug)]
pub(crate) struct Socket<'a>(pub(crate) &'a TcpStream);

impl Sink<Answer> for Socket<'_> {
    fn write(&self, answers: &mut VecDeque<Answer>) -> Wrote {
        let mut budget = MAX_BYTES_A_CALL;
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            let mut left = budget;
            let pieces = answers.iter().flat_map(Answer::slices);
            for (slice, piece) in slices.iter_mut().zip(pieces) {
                if left == 0 {
                    break;
                }
                let take = piece.get(..piece.len().min(left)).unwrap_or_default();
                *slice = IoSlice::new(take);
                left -= take.len();
                used += 1;
            }
            if used == 0 {
                // Only answers without a byte can be left here; they are done.
                answers.clear();
                return Wrote::All;
            }
            match self
                .0
                .try_write_vectored(slices.get(..used).unwrap_or_default())
            {
                Ok(0) => return Wrote::Broken,
                Ok(written) => {
                    budget = budget.saturating_sub(written);
                    let mut rest = Some(written);
                    while let (Some(written), Some(answer)) = (rest, answers.front_mut()) {
                        rest = answer.advance(written);
                        if rest.is_some() {
                            answers.pop_front();
                        }
                    }
                    if answers.is_empty() {
                        return Wrote::All;
                    }
                    if budget == 0 {
                        return Wrote::Blocked;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Wrote::Blocked,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Wrote::Broken,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advances_over_pieces_of_any_size() {
        let pieces = [&b"abc"[..], b"", b"d", b"efgh"].map(Bytes::from_static);
        let mut answer = Answer::pieces(pieces.into_iter().collect());
        assert_eq!(answer.advance(2), None);
        assert_eq!(answer.advance(2), None);
        assert_eq!(answer.slices().map(Bytes::len).sum::<usize>(), 4);
        assert_eq!(answer.advance(6), Some(2));
    }
}
