//! The codecs of the format, by their ids and names.

use std::fmt;
use std::io::Write;

use bytes::{BufMut, BytesMut};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use crate::error::BatchError;
use crate::snappy;
use crate::stream::with_stream;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip.
    Gzip,
    /// Snappy in xerial's framing.
    Snappy,
    /// One lz4 frame.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// All of them, in the order of their ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this id in the attributes.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// Its id in the attributes.
    #[must_use]
    pub fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec with this name in Kafka's settings.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Its name in Kafka's settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Appends the compression of `input` to `out`. The level is gzip's (0 to 9) or zstd's (up to
/// 22); snappy and lz4 have none, and out of range is the nearest.
///
/// # Errors
/// `Compress` when the codec fails.
pub fn compress(
    compression: Compression,
    level: Option<i32>,
    input: &[u8],
    out: &mut BytesMut,
) -> Result<(), BatchError> {
    let failed = || BatchError::Compress { compression };
    match compression {
        Compression::None => out.put_slice(input),
        Compression::Gzip => {
            let level = level.map_or(flate2::Compression::default(), |level| {
                flate2::Compression::new(level.clamp(0, 9).unsigned_abs())
            });
            let mut encoder = flate2::write::GzEncoder::new(out.writer(), level);
            encoder.write_all(input).map_err(|_| failed())?;
            encoder.finish().map_err(|_| failed())?;
        }
        Compression::Snappy => snappy::compress(input, out).ok_or_else(failed)?,
        Compression::Lz4 => {
            // What Java's producer writes: independent blocks of 64 KiB, no checksum of content.
            let info = FrameInfo::new()
                .block_mode(BlockMode::Independent)
                .block_size(BlockSize::Max64KB);
            let mut encoder = FrameEncoder::with_frame_info(info, out.writer());
            encoder.write_all(input).map_err(|_| failed())?;
            encoder.finish().map_err(|_| failed())?;
        }
        Compression::Zstd => {
            let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            let range = zstd::compression_level_range();
            let level = level.clamp(*range.start(), *range.end());
            let mut encoder =
                zstd::stream::write::Encoder::new(out.writer(), level).map_err(|_| failed())?;
            let len = u64::try_from(input.len()).ok();
            encoder.set_pledged_src_size(len).map_err(|_| failed())?;
            encoder.write_all(input).map_err(|_| failed())?;
            encoder.finish().map_err(|_| failed())?;
        }
    }
    Ok(())
}

/// The decompression of `input`, if that is at most `max_bytes`. Memory grows with the output,
/// whatever the input declares.
///
/// # Errors
/// `DecompressedTooLarge`, or `Decompression` when the bytes are not what the codec writes.
pub fn decompress(
    compression: Compression,
    input: &[u8],
    max_bytes: usize,
) -> Result<Vec<u8>, BatchError> {
    with_stream(compression, input, max_bytes, |stream| {
        let mut out = Vec::with_capacity(input.len().min(max_bytes));
        loop {
            let chunk = stream.chunk()?;
            if chunk.is_empty() {
                return Ok(out);
            }
            let len = chunk.len();
            out.extend_from_slice(chunk);
            stream.consume(len);
        }
    })
}
