//! Decompression as a stream into one small buffer, behind an output limit.
//!
//! No size that compressed bytes declare is trusted: output is counted as it comes, snappy's
//! blocks are bounded by what their own bytes can hold, lz4's blocks are at most 4 MiB by format,
//! and zstd touches only as much of its window (at most 128 MiB by its own limit, which level 22
//! of other clients needs) as there is output, which the limit here bounds.

use std::cell::Cell;
use std::io::Read;

use flate2::bufread::GzDecoder;
use lz4_flex::frame::FrameDecoder;
use zstd::zstd_safe::DCtx;

use crate::compression::Compression;
use crate::error::BatchError;
use crate::snappy;
use crate::walk::{NoMore, Source};

const BUFFER_BYTES: usize = 32 * 1024;
/// Memory of a codec that is larger than this is given back after the batch that needed it.
const KEPT_BYTES: usize = 1 << 20;

/// Why a codec stopped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// More output than is allowed.
    TooLarge,
    /// Not what the codec writes.
    Bad(&'static str),
}

/// Memory that one thread uses again for each batch.
#[derive(Default)]
struct Scratch {
    buffer: Vec<u8>,
    snappy_block: Vec<u8>,
    zstd: Option<DCtx<'static>>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::new(Scratch::default());
}

/// Runs `f` over the decompressed bytes of `input`, of which there may be at most `max`.
pub(crate) fn with_stream<T>(
    compression: Compression,
    input: &[u8],
    max: usize,
    f: impl FnOnce(&mut Stream<'_>) -> Result<T, BatchError>,
) -> Result<T, BatchError> {
    // Taken out rather than borrowed: a panic below loses the memory and nothing else.
    let mut scratch = SCRATCH.take();
    scratch.buffer.resize(BUFFER_BYTES, 0);
    let (result, snappy_block) = {
        let Scratch {
            buffer,
            snappy_block,
            zstd,
        } = &mut scratch;
        let decoder = open(compression, input, std::mem::take(snappy_block), zstd)
            .map_err(|fault| failed(compression, max, fault))?;
        let mut stream = Stream {
            decoder,
            buffer,
            start: 0,
            end: 0,
            produced: 0,
            max,
            compression,
            fault: None,
        };
        let result = f(&mut stream);
        (result, stream.decoder.into_snappy_block())
    };
    scratch.snappy_block = snappy_block
        .filter(|it| it.capacity() <= KEPT_BYTES)
        .unwrap_or_default();
    scratch.zstd = scratch
        .zstd
        .filter(|context| context.sizeof() <= KEPT_BYTES);
    SCRATCH.set(scratch);
    result
}

fn open<'a>(
    compression: Compression,
    input: &'a [u8],
    snappy_block: Vec<u8>,
    zstd: &'a mut Option<DCtx<'static>>,
) -> Result<Decoder<'a>, Fault> {
    Ok(match compression {
        Compression::None => Decoder::Plain(input),
        Compression::Gzip => {
            check_gzip_member(input)?;
            Decoder::Gzip(Box::new(GzDecoder::new(input)))
        }
        Compression::Snappy => Decoder::Snappy(snappy::Reader::new(input, snappy_block)?),
        Compression::Lz4 => Decoder::Lz4(Box::new(open_lz4(input)?)),
        Compression::Zstd => {
            let context = match zstd {
                Some(context) => context,
                empty => empty.insert(DCtx::try_create().ok_or(Fault::Bad("no memory for it"))?),
            };
            Decoder::Zstd(Box::new(zstd::stream::read::Decoder::with_context(
                input, context,
            )))
        }
    })
}

fn failed(compression: Compression, max: usize, fault: Fault) -> BatchError {
    match fault {
        Fault::TooLarge => BatchError::DecompressedTooLarge { max },
        Fault::Bad(what) => BatchError::Decompression { compression, what },
    }
}

/// Decompressed bytes, buffered.
pub(crate) struct Stream<'a> {
    decoder: Decoder<'a>,
    buffer: &'a mut [u8],
    start: usize,
    end: usize,
    /// Bytes that have come out of the decoder, those in the buffer included.
    produced: usize,
    max: usize,
    compression: Compression,
    /// Why the last byte could not be had.
    fault: Option<BatchError>,
}

impl Stream<'_> {
    /// What is buffered, after more has been fetched if that was nothing; empty at the end.
    pub(crate) fn chunk(&mut self) -> Result<&[u8], BatchError> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            let left = self.max - self.produced;
            let len = self
                .decoder
                .read(self.buffer, left)
                .map_err(|fault| failed(self.compression, self.max, fault))?;
            if len > left {
                return Err(BatchError::DecompressedTooLarge { max: self.max });
            }
            self.produced += len;
            self.end = len;
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    /// How much is buffered: never nothing.
    fn chunk_or_fault(&mut self) -> Result<usize, NoMore> {
        match self.chunk() {
            Ok([]) => Err(NoMore),
            Ok(ready) => Ok(ready.len()),
            Err(fault) => {
                self.fault = Some(fault);
                Err(NoMore)
            }
        }
    }

    /// Marks `len` bytes of the chunk as used.
    pub(crate) fn consume(&mut self, len: usize) {
        self.start = (self.start + len).min(self.end);
    }
}

impl Source for Stream<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, NoMore> {
        if self.start == self.end {
            self.chunk_or_fault()?;
        }
        let &byte = self.buffer.get(self.start).ok_or(NoMore)?;
        self.start += 1;
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, len: u64) -> Result<(), NoMore> {
        let mut left = len;
        while left > 0 {
            let ready = self.chunk_or_fault()?;
            let step = usize::try_from(left).map_or(ready, |left| left.min(ready));
            self.consume(step);
            left -= step as u64;
        }
        Ok(())
    }

    fn position(&self) -> u64 {
        (self.produced - (self.end - self.start)) as u64
    }

    fn is_at_end(&mut self) -> Result<bool, BatchError> {
        Ok(self.chunk()?.is_empty())
    }

    fn take_fault(&mut self) -> Option<BatchError> {
        self.fault.take()
    }
}

enum Decoder<'a> {
    Plain(&'a [u8]),
    Gzip(Box<GzDecoder<&'a [u8]>>),
    Snappy(snappy::Reader<'a>),
    Lz4(Box<FrameDecoder<Lz4Input<'a>>>),
    Zstd(Box<zstd::stream::read::Decoder<'a, &'a [u8]>>),
}

impl Decoder<'_> {
    /// Ends the decoder, which borrows the scratch memory, and gives back what it owns of it.
    fn into_snappy_block(self) -> Option<Vec<u8>> {
        match self {
            Self::Snappy(reader) => Some(reader.into_block()),
            _ => None,
        }
    }

    /// Fills `out` from the front; 0 is a proper end. Only snappy needs to know how much is
    /// allowed: the others never produce more than `out` holds.
    fn read(&mut self, out: &mut [u8], max: usize) -> Result<usize, Fault> {
        match self {
            Self::Plain(input) => input.read(out).map_err(|_| Fault::Bad("it cannot be read")),
            Self::Gzip(decoder) => loop {
                let len = decoder.read(out).map_err(|_| GZIP_IS_DAMAGED)?;
                let rest = *decoder.get_ref();
                if len > 0 || rest.is_empty() {
                    return Ok(len);
                }
                check_gzip_member(rest)?;
                decoder.reset(rest);
            },
            Self::Snappy(reader) => reader.read(out, max),
            Self::Lz4(decoder) => {
                let len = decoder
                    .read(out)
                    .map_err(|_| Fault::Bad("the lz4 frame is damaged"))?;
                if len == 0 {
                    decoder.get_ref().check_end()?;
                }
                Ok(len)
            }
            Self::Zstd(decoder) => decoder
                .read(out)
                .map_err(|_| Fault::Bad("the zstd frame is damaged or cut")),
        }
    }
}

const GZIP_IS_DAMAGED: Fault = Fault::Bad("the gzip stream is damaged or cut");
const GZIP_FLAGS_AT: usize = 3;
const GZIP_EXTRA: u8 = 4;
const GZIP_EXTRA_AT: usize = 10;

/// Whether the extra field that a member's header may announce is there (RFC 1952, 2.3.1): the decoder
/// makes room for it, up to 64 KiB, before it reads it.
fn check_gzip_member(member: &[u8]) -> Result<(), Fault> {
    if member
        .get(GZIP_FLAGS_AT)
        .is_some_and(|flags| flags & GZIP_EXTRA != 0)
    {
        let field = member.get(GZIP_EXTRA_AT..).unwrap_or_default();
        let (length, extra) = field.split_first_chunk().ok_or(GZIP_IS_DAMAGED)?;
        if extra.len() < usize::from(u16::from_le_bytes(*length)) {
            return Err(GZIP_IS_DAMAGED);
        }
    }
    Ok(())
}

const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const LZ4_INDEPENDENT_BLOCKS: u8 = 0x20;

fn open_lz4(input: &[u8]) -> Result<FrameDecoder<Lz4Input<'_>>, Fault> {
    // Other magics (skippable and legacy frames) no Kafka client writes or reads.
    if !input.starts_with(&LZ4_MAGIC) {
        return Err(Fault::Bad("it is not an lz4 frame"));
    }
    Ok(FrameDecoder::new(Lz4Input {
        rest: input,
        starved: false,
    }))
}

/// Whether every Kafka client can read this lz4 frame: Java's takes independent blocks only.
pub(crate) fn lz4_blocks_are_independent(input: &[u8]) -> bool {
    input
        .get(LZ4_MAGIC.len())
        .is_some_and(|flags| flags & LZ4_INDEPENDENT_BLOCKS != 0)
}

/// The input of the lz4 decoder, which takes the end of its input for the end of the frame: this
/// remembers whether it asked for bytes that were not there.
struct Lz4Input<'a> {
    rest: &'a [u8],
    starved: bool,
}

impl Lz4Input<'_> {
    fn check_end(&self) -> Result<(), Fault> {
        if self.starved {
            return Err(Fault::Bad("the lz4 frame is cut short"));
        }
        if !self.rest.is_empty() {
            return Err(Fault::Bad("bytes follow the lz4 frame"));
        }
        Ok(())
    }
}

impl Read for Lz4Input<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.starved |= self.rest.len() < out.len();
        self.rest.read(out)
    }
}
