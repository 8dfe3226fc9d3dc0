//! The frames that nodes exchange, byte by byte. Pure: bytes in, messages out, and back.
//!
//! ```text
//!  0  length  u32   of what follows the checksum, at least 1; a frame is at most 128 MiB
//!  4  crc32   u32   (IEEE) over all that follows
//!  8  kind    u8
//!  9  body
//!
//! kind               body
//! 1  hello           magic "RRPN" | protocol version u16 = 1 | identity
//! 2  hello's answer  magic "RRPN" | protocol version u16 = 1 | identity of who answers
//!                    | code u8, 0 = accepted | text length u16 | text, UTF-8
//! 3  messages        count u32 | messages
//! 4  announcement    bytes of the broker's
//! 5  call            request id u64 | bytes of the broker's
//! 6  answer          request id u64 | bytes of the broker's
//! 7  ping            nothing
//!
//! identity           purpose u8 (1 link, 2 calls) | cluster id 16 bytes, nil while unknown
//!                    | node i32 | directory id 16 bytes | incarnation u64
//!                    | node that is meant i32, -1 = whoever is there
//!                    | count u16, at most 170 | count x (incarnation u64 | token u64)
//! message            group u64 | from u64 | to u64 | from incarnation u64 | to incarnation u64
//!                    | kind u8 | what `messages` says of that kind
//! ```
//! All numbers are little-endian. Nothing stands behind a body: trailing bytes are refused. A hello
//! and its answer are at most 4 KiB as a whole, and nothing larger is read before them. Their layout
//! up to the protocol version never changes, so that nodes of different versions can say so.
//!
//! Raft's messages, entries and snapshots are written field by field here, so that no byte from
//! outside reaches the Raft library's own parser. Encoding gives segments for a vectored write: an
//! entry's payload of [`SEGMENT_BYTES`] and more is a segment of its own, the same bytes that go to
//! disk. Decoding slices such payloads out of the one buffer that the frame was read into.

mod hello;
mod messages;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use byteorder::{ByteOrder, LittleEndian};
use bytes::{BufMut, Bytes};

pub use hello::{Answered, Hello, Purpose, Refusal, RefusalCode, Start};
pub use messages::message_bytes;

use crate::message::PeerMessage;
use reader::Reader;
use writer::Writer;

/// Length and checksum.
pub const HEADER_BYTES: usize = 8;
/// The longest frame, header included.
pub const MAX_FRAME_BYTES: usize = 128 << 20;
/// The longest hello, and the longest answer to one, header included.
pub const MAX_HELLO_BYTES: usize = 4 << 10;
/// A payload of so many bytes is a segment of its own; a shorter one is copied.
pub const SEGMENT_BYTES: usize = 512;

const HELLO: u8 = 1;
const HELLO_ANSWER: u8 = 2;
const MESSAGES: u8 = 3;
const ANNOUNCE: u8 = 4;
const CALL: u8 = 5;
const ANSWER: u8 = 6;
const PING: u8 = 7;

/// Bytes that are no frame of ours, or one that cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length that the header claims is not allowed here.
    #[error("a frame of {length} bytes where at most {limit} are allowed")]
    TooLong {
        /// What it claims, or needs.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The checksum does not match.
    #[error("the checksum of a frame does not match its bytes")]
    Checksum,
    /// The first bytes are not those of a hello.
    #[error("not the greeting of a Riverrun node")]
    Magic,
    /// Another version of the protocol is spoken.
    #[error("version {0} of the protocol between nodes is not spoken here")]
    Version(u16),
    /// The bytes end early or go on too long.
    #[error("a frame whose {0} does not fit its length")]
    Length(&'static str),
    /// A value that nobody sends.
    #[error("a frame with an impossible {0}")]
    Value(&'static str),
}

/// The first bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    length: usize,
    crc: u32,
}

impl Header {
    /// Reads a header and holds the length against what is allowed for the whole frame.
    ///
    /// # Errors
    /// [`FrameError`] for a frame that is empty or longer than that.
    pub fn read(bytes: [u8; HEADER_BYTES], limit_bytes: usize) -> Result<Self, FrameError> {
        let (length, crc) = bytes.split_at(4);
        let length = LittleEndian::read_u32(length) as usize;
        let limit = limit_bytes.min(MAX_FRAME_BYTES) - HEADER_BYTES;
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        if length == 0 {
            return Err(FrameError::Length("kind"));
        }
        Ok(Self {
            length,
            crc: LittleEndian::read_u32(crc),
        })
    }

    /// How many bytes follow.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.length
    }

    /// Decodes what follows.
    ///
    /// # Errors
    /// [`FrameError`] where the bytes are not exactly that frame.
    pub fn open(&self, body: Bytes) -> Result<Frame, FrameError> {
        if body.len() != self.length {
            return Err(FrameError::Length("body"));
        }
        if crc32fast::hash(&body) != self.crc {
            return Err(FrameError::Checksum);
        }
        let mut input = Reader::new(body);
        let frame = match input.u8("kind")? {
            HELLO => Frame::Hello(hello::read(&mut input)?),
            HELLO_ANSWER => Frame::HelloAnswer(hello::read_answer(&mut input)?),
            MESSAGES => Frame::Messages(messages::read(&mut input)?),
            ANNOUNCE => Frame::Announce(input.rest()),
            CALL => Frame::Call {
                request: input.u64("request id")?,
                body: input.rest(),
            },
            ANSWER => Frame::Answer {
                request: input.u64("request id")?,
                body: input.rest(),
            },
            PING => Frame::Ping,
            _ => return Err(FrameError::Value("kind")),
        };
        input.end()?;
        Ok(frame)
    }
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The first frame of whoever connects.
    Hello(Hello),
    /// The first frame of whoever accepted.
    HelloAnswer(Answered),
    /// Messages between replicas, of any number of groups.
    Messages(Vec<PeerMessage>),
    /// What the broker tells other brokers.
    Announce(Bytes),
    /// What the broker asks another one.
    Call {
        /// Counts the calls of a connection.
        request: u64,
        /// The question.
        body: Bytes,
    },
    /// The answer to a call.
    Answer {
        /// The call that it answers.
        request: u64,
        /// The answer.
        body: Bytes,
    },
    /// The sender lives.
    Ping,
}

impl Frame {
    /// The frame in segments that are written one after another.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] above what a reader accepts.
    pub fn encode(&self) -> Result<Vec<Bytes>, FrameError> {
        let mut out;
        match self {
            Self::Hello(hello) => {
                out = Writer::new(HELLO);
                hello::write(hello, &mut out);
                return out.finish(MAX_HELLO_BYTES);
            }
            Self::HelloAnswer(answer) => {
                out = Writer::new(HELLO_ANSWER);
                hello::write_answer(answer, &mut out);
                return out.finish(MAX_HELLO_BYTES);
            }
            Self::Messages(messages) => return encode_messages(messages),
            Self::Announce(body) => {
                out = Writer::new(ANNOUNCE);
                out.bytes(body);
            }
            Self::Call { request, body } => {
                out = Writer::new(CALL);
                out.head().put_u64_le(*request);
                out.bytes(body);
            }
            Self::Answer { request, body } => {
                out = Writer::new(ANSWER);
                out.head().put_u64_le(*request);
                out.bytes(body);
            }
            Self::Ping => out = Writer::new(PING),
        }
        out.finish(MAX_FRAME_BYTES)
    }

    /// Decodes a whole frame, its header included.
    ///
    /// # Errors
    /// [`FrameError`] where the bytes are not exactly one frame.
    pub fn decode(mut bytes: Bytes) -> Result<Self, FrameError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>().copied() else {
            return Err(FrameError::Length("header"));
        };
        let header = Header::read(header, MAX_FRAME_BYTES)?;
        header.open(bytes.split_off(HEADER_BYTES))
    }
}

/// A frame of messages, in segments.
///
/// # Errors
/// [`FrameError::TooLong`] above what a reader accepts; see [`message_bytes`].
pub fn encode_messages<'a>(
    messages: impl IntoIterator<Item = &'a PeerMessage>,
) -> Result<Vec<Bytes>, FrameError> {
    let mut out = Writer::new(MESSAGES);
    messages::write(messages, &mut out);
    out.finish(MAX_FRAME_BYTES)
}
