//! The task of a connection: frames in, frames out.

use std::{io, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::mpsc,
};

use super::{Outgoing, Shared};
use crate::error::Error;

/// Frames taken from the queue for one write.
const MAX_FRAMES_A_WRITE: usize = 64;
/// Small segments are gathered up to this before they are written.
const GATHER_BYTES: usize = 32 << 10;
/// Room that a read has at least.
const READ_BYTES: usize = 64 << 10;

/// Runs until either side is done; whatever is pending then fails.
pub(super) async fn run(
    mut stream: TcpStream,
    shared: Arc<Shared>,
    queue: mpsc::UnboundedReceiver<Outgoing>,
    max_frame_bytes: usize,
) {
    let (reader, writer) = stream.split();
    let error = tokio::select! {
        error = read(reader, &shared, max_frame_bytes) => error,
        error = write(writer, &shared, queue) => error,
        error = shared.overdue() => error,
        () = shared.close.notified() => Error::Disconnected { broker: shared.broker.clone() },
    };
    shared.end(error);
}

async fn read(mut reader: ReadHalf<'_>, shared: &Shared, max_frame_bytes: usize) -> Error {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        loop {
            match next_frame(&mut buffer, max_frame_bytes) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if let Err(what) = deliver(frame, shared) {
                        return Error::Protocol {
                            broker: shared.broker.clone(),
                            what,
                        };
                    }
                }
                Err(what) => {
                    return Error::Protocol {
                        broker: shared.broker.clone(),
                        what,
                    };
                }
            }
        }
        match reader.read_buf(&mut buffer).await {
            Ok(0) => {
                return Error::Disconnected {
                    broker: shared.broker.clone(),
                };
            }
            Ok(_) => {}
            Err(source) => return lost(shared, source),
        }
    }
}

/// Takes one frame, without its length, off the front of the buffer, or makes room for it.
fn next_frame(
    buffer: &mut BytesMut,
    max_frame_bytes: usize,
) -> Result<Option<Bytes>, &'static str> {
    let Some(prefix) = buffer.first_chunk::<4>() else {
        buffer.reserve(READ_BYTES);
        return Ok(None);
    };
    let len =
        usize::try_from(i32::from_be_bytes(*prefix)).map_err(|_| "a frame of negative length")?;
    if len > max_frame_bytes {
        return Err("a frame longer than max_frame_bytes; raise it, or fetch less at once");
    }
    if buffer.len() < 4 + len {
        // Grown as the bytes come, at most doubling: a broker that only says it will send much
        // has no memory taken for it.
        let missing = 4 + len - buffer.len();
        buffer.reserve(missing.min(buffer.len().max(READ_BYTES)));
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(len).freeze()))
}

/// Hands a frame to whoever asked for it.
fn deliver(frame: Bytes, shared: &Shared) -> Result<(), &'static str> {
    let Some(id) = frame.first_chunk::<4>() else {
        return Err("an answer without a correlation id");
    };
    let expected = shared
        .pending
        .lock()
        .answers
        .remove(&i32::from_be_bytes(*id));
    let Some(expected) = expected else {
        return Err("an answer to what was not asked");
    };
    // Whoever asked may have stopped waiting.
    let _ = expected.answer.send(Ok(frame));
    Ok(())
}

async fn write(
    mut writer: WriteHalf<'_>,
    shared: &Shared,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
) -> Error {
    let mut frames = Vec::new();
    let mut gathered = BytesMut::new();
    loop {
        if queue.recv_many(&mut frames, MAX_FRAMES_A_WRITE).await == 0 {
            // The last handle is gone. Requests hold one until they are answered.
            return Error::Disconnected {
                broker: shared.broker.clone(),
            };
        }
        if let Err(source) = write_frames(&mut writer, &frames, &mut gathered).await {
            return lost(shared, source);
        }
        for frame in frames.drain(..) {
            if let Some(sent) = frame.sent {
                let _ = sent.send(Ok(Bytes::new()));
            }
        }
    }
}

async fn write_frames(
    writer: &mut WriteHalf<'_>,
    frames: &[Outgoing],
    gathered: &mut BytesMut,
) -> io::Result<()> {
    for segment in frames.iter().flat_map(|frame| frame.frame.segments()) {
        if segment.len() >= GATHER_BYTES {
            writer.write_all_buf(gathered).await?;
            writer.write_all(segment).await?;
        } else {
            gathered.extend_from_slice(segment);
            if gathered.len() >= GATHER_BYTES {
                writer.write_all_buf(gathered).await?;
            }
        }
    }
    writer.write_all_buf(gathered).await
}

fn lost(shared: &Shared, source: io::Error) -> Error {
    Error::Connection {
        broker: shared.broker.clone(),
        source: Arc::new(source),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn frames_are_taken_whole_and_in_order() {
        let mut buffer = BytesMut::new();
        let bytes = [0, 0, 0, 2, 7, 8, 0, 0, 0, 1, 9];
        for n in 0..bytes.len() {
            buffer.extend_from_slice(&bytes[n..=n]);
            let frame = next_frame(&mut buffer, 100).unwrap();
            match n {
                5 => assert_eq!(frame.unwrap(), &[7, 8][..]),
                10 => assert_eq!(frame.unwrap(), &[9][..]),
                _ => assert_eq!(frame, None),
            }
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_before_memory_is_taken() {
        for len in [-1_i32, i32::MIN, i32::MAX, 101] {
            let mut buffer = BytesMut::from(&len.to_be_bytes()[..]);
            assert!(next_frame(&mut buffer, 100).is_err(), "{len}");
        }
        let mut buffer = BytesMut::from(&i32::MAX.to_be_bytes()[..]);
        assert_eq!(next_frame(&mut buffer, usize::MAX), Ok(None));
        assert!(buffer.capacity() < 1 << 20);
    }
}
