//! Bytes to frames on a connection whose handshake is done.
//!
//! A frame that is small is copied out of the connection's buffer, since slices of it are kept. A
//! longer one gets a buffer of its own, and memory from the budget before it does.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use riverrun_replication::frame::{Frame, FrameError, HEADER_BYTES, Header};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::net::memory::{Budget, Lease, SMALL_BYTES};

/// Bytes read at once.
const BUFFER_BYTES: usize = HEADER_BYTES + SMALL_BYTES;
/// Bodies up to this length are given their buffer at once; longer ones a buffer that grows with
/// what has arrived, so that a claim alone never costs memory.
const TRUSTED_BYTES: usize = 4 << 20;
/// Memory beside the budget that frames of messages may take when the budget is empty.
const SPARE_BYTES: usize = 16 << 20;
/// Bytes of one permit.
const UNIT_BYTES: usize = 1 << 10;

/// The memory of a frame that is being read.
#[derive(Debug, Default)]
pub(super) struct Room {
    _lease: Lease,
    _spare: Option<OwnedSemaphorePermit>,
}

/// What frames take when the budget is empty. The budget may be held by produces that wait for just
/// the answers that these frames carry; a frame holds this only while it is read and stepped, which
/// waits for nothing but its sender.
#[derive(Debug, Clone)]
pub(super) struct Spare(Arc<Semaphore>);

impl Default for Spare {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SPARE_BYTES / UNIT_BYTES)))
    }
}

impl Spare {
    /// Memory for a frame of messages: from the budget, or from here. One that is larger than all of
    /// this takes all of it.
    pub(super) async fn room(&self, budget: &Budget, bytes: usize) -> Room {
        let units = bytes.min(SPARE_BYTES).div_ceil(UNIT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            lease = budget.reserve(bytes) => Room { _lease: lease, _spare: None },
            permit = Arc::clone(&self.0).acquire_many_owned(units) => Room {
                _lease: Lease::default(),
                // Never closed.
                _spare: permit.ok(),
            },
        }
    }
}

/// Memory for a call: from the budget alone, since it may be held for long.
pub(super) async fn room_of_call(budget: &Budget, bytes: usize) -> Room {
    Room {
        _lease: budget.reserve(bytes).await,
        _spare: None,
    }
}

#[derive(Debug)]
struct Long {
    header: Header,
    /// Set once its memory is there.
    body: Option<(BytesMut, Room)>,
}

/// Puts the frames of one connection together.
#[derive(Debug)]
pub(super) struct Source {
    limit: usize,
    buffer: BytesMut,
    header: Option<Header>,
    long: Option<Long>,
}

impl Source {
    /// Frames of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
            header: None,
            long: None,
        }
    }

    /// The next frame that is whole, with the memory that it holds.
    pub(super) fn next(&mut self) -> Result<Option<(Frame, Room)>, FrameError> {
        if let Some(long) = &mut self.long {
            let whole =
                matches!(&long.body, Some((body, _)) if body.len() == long.header.body_bytes());
            if !whole {
                return Ok(None);
            }
        }
        if let Some(Long {
            header,
            body: Some((body, room)),
        }) = self.long.take()
        {
            return Ok(Some((header.open(body.freeze())?, room)));
        }
        let header = match self.header.take() {
            Some(header) => header,
            None => match self.buffer.first_chunk::<HEADER_BYTES>() {
                None => return Ok(None),
                Some(bytes) => {
                    let header = Header::read(*bytes, self.limit)?;
                    self.buffer.advance(HEADER_BYTES);
                    header
                }
            },
        };
        let len = header.body_bytes();
        if let Some(body) = self.buffer.get(..len) {
            let body = Bytes::copy_from_slice(body);
            self.buffer.advance(len);
            return Ok(Some((header.open(body)?, Room::default())));
        }
        if len > SMALL_BYTES {
            self.long = Some(Long { header, body: None });
        } else {
            self.header = Some(header);
        }
        Ok(None)
    }

    /// How much memory is needed before anything more may be read.
    pub(super) fn wanted(&self) -> Option<usize> {
        match &self.long {
            Some(Long { header, body: None }) => Some(header.body_bytes()),
            _ => None,
        }
    }

    /// Supplies the memory that was wanted.
    pub(super) fn supply(&mut self, room: Room) {
        if let Some(Long { header, body }) = &mut self.long {
            let len = header.body_bytes();
            let mut bytes = BytesMut::with_capacity(len.min(TRUSTED_BYTES));
            // It is longer than the buffer, so all in there is its.
            bytes.extend_from_slice(&self.buffer);
            self.buffer.clear();
            *body = Some((bytes, room));
        }
    }

    /// Reads what the socket has; 0 is its end.
    pub(super) fn read(&mut self, stream: &TcpStream) -> io::Result<usize> {
        if let Some(Long {
            header,
            body: Some((body, _)),
        }) = &mut self.long
        {
            let missing = header.body_bytes() - body.len();
            if body.len() == body.capacity() {
                body.reserve(missing.min(body.len()));
            }
            return stream.try_read_buf(&mut body.limit(missing));
        }
        self.buffer.reserve(BUFFER_BYTES - self.buffer.len());
        stream.try_read_buf(&mut self.buffer)
    }
}
