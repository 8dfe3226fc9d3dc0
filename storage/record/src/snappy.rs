//! Snappy as Kafka uses it: the framing of xerial's Java library around raw snappy blocks.
//!
//! ```text
//! magic     8 bytes   82 53 4e 41 50 50 59 00  ("\x82SNAPPY\0")
//! version   i32       1
//! readable  i32       1, the oldest version that can read this
//! blocks    each: i32 length, then that many bytes of one raw snappy block
//! ```
//!
//! A stream may be several of these one after the other. Bytes without the magic are one raw
//! block, as some clients write it and Java's reader accepts it.

use bytes::{BufMut, BytesMut};

use crate::stream::Fault;

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const MAGIC_HEAD: [u8; 4] = *b"\x82SNA";
const HEADER_LEN: usize = 16;
const VERSION: i32 = 1;
/// What xerial's writer cuts its input into.
const BLOCK_BYTES: usize = 32 * 1024;
/// The densest element of the format is a copy of 64 bytes in 3, so a block that declares more
/// than this for each of its bytes lies.
const MAX_RATIO: usize = 22;

/// Appends the framed compression of `input` to `out`. `None` when the codec fails.
pub(crate) fn compress(input: &[u8], out: &mut BytesMut) -> Option<()> {
    out.put_slice(&MAGIC);
    out.put_i32(VERSION);
    out.put_i32(VERSION);
    let mut encoder = snap::raw::Encoder::new();
    let mut block = vec![0; snap::raw::max_compress_len(input.len().min(BLOCK_BYTES))];
    for chunk in input.chunks(BLOCK_BYTES) {
        let len = encoder.compress(chunk, &mut block).ok()?;
        out.put_i32(i32::try_from(len).ok()?);
        out.put_slice(block.get(..len)?);
    }
    Some(())
}

/// Decompresses block by block.
pub(crate) struct Reader<'a> {
    input: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    taken: usize,
}

impl<'a> Reader<'a> {
    /// Reads `input`, using `block` as the memory for a block.
    pub(crate) fn new(input: &'a [u8], mut block: Vec<u8>) -> Result<Self, Fault> {
        block.clear();
        let framed = input.starts_with(&MAGIC);
        let input = if framed { skip_header(input)? } else { input };
        Ok(Self {
            input,
            framed,
            block,
            taken: 0,
        })
    }

    /// Gives the block's memory back.
    pub(crate) fn into_block(self) -> Vec<u8> {
        self.block
    }

    /// Fills `out` from the front and says how far; 0 is the end. A block of more than `max`
    /// bytes is refused before memory is taken for it.
    pub(crate) fn read(&mut self, out: &mut [u8], max: usize) -> Result<usize, Fault> {
        while self.taken == self.block.len() {
            if !self.next_block(max)? {
                return Ok(0);
            }
        }
        let ready = self.block.get(self.taken..).unwrap_or_default();
        let len = ready.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..len), ready.get(..len)) {
            to.copy_from_slice(from);
        }
        self.taken += len;
        Ok(len)
    }

    fn next_block(&mut self, max: usize) -> Result<bool, Fault> {
        let Some(compressed) = self.take_block()? else {
            return Ok(false);
        };
        let len = snap::raw::decompress_len(compressed)
            .map_err(|_| Fault::Bad("a snappy block has no length"))?;
        if len > compressed.len().saturating_mul(MAX_RATIO) {
            return Err(Fault::Bad("a snappy block declares more than it can hold"));
        }
        if len > max {
            return Err(Fault::TooLarge);
        }
        self.taken = 0;
        self.block.resize(len, 0);
        let written = snap::raw::Decoder::new()
            .decompress(compressed, &mut self.block)
            .map_err(|_| Fault::Bad("a snappy block is damaged"))?;
        self.block.truncate(written);
        Ok(true)
    }

    fn take_block(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        if self.input.is_empty() {
            return Ok(None);
        }
        if !self.framed {
            return Ok(Some(std::mem::take(&mut self.input)));
        }
        while self.input.starts_with(&MAGIC_HEAD) {
            self.input = skip_header(self.input)?;
        }
        if self.input.is_empty() {
            return Ok(None);
        }
        let cut = Fault::Bad("the snappy stream is cut short");
        let (len, rest) = self.input.split_first_chunk::<4>().ok_or(cut)?;
        let len = usize::try_from(i32::from_be_bytes(*len))
            .map_err(|_| Fault::Bad("a snappy block has a negative length"))?;
        let (block, rest) = rest.split_at_checked(len).ok_or(cut)?;
        self.input = rest;
        Ok(Some(block))
    }
}

fn skip_header(input: &[u8]) -> Result<&[u8], Fault> {
    let bad = Fault::Bad("the snappy header is damaged");
    let (header, rest) = input.split_first_chunk::<HEADER_LEN>().ok_or(bad)?;
    let readable = header
        .last_chunk::<4>()
        .copied()
        .map_or(0, i32::from_be_bytes);
    let version = header
        .get(8..12)
        .and_then(|v| v.first_chunk())
        .copied()
        .map_or(0, i32::from_be_bytes);
    if !header.starts_with(&MAGIC) || version < VERSION || readable > version {
        return Err(bad);
    }
    Ok(rest)
}
