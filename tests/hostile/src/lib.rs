//! What every decoder must survive, whatever the bytes.
//!
//! A [`Target`] takes any bytes and gives them to one decoder, which may refuse them and may not
//! panic, nor take more memory than [`Target::allowed_bytes`]. The same targets run as property
//! tests (`tests/hostile.rs`, where a counting allocator holds them to their memory) and under a
//! fuzzer (`tests/fuzz`).
//!
//! Bytes behind a checksum are given twice: as they are, and with the checksum that they should
//! have, as otherwise nothing would ever come past it.
#![forbid(unsafe_code)]

mod disk;
mod files;
mod records;
mod sealed;
mod seeds;
mod settings;
mod wire;

/// A decoder and what it is held to.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Also the name of its fuzz target.
    pub name: &'static str,
    /// Gives bytes to the decoder.
    pub run: fn(&[u8]),
    /// Bytes that it accepts, from which mutated ones are made.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What it needs for itself, whatever the length of the bytes.
    pub fixed_bytes: fn(&[u8]) -> usize,
}

/// What a decoder may allocate for nothing, and for each byte that it is given.
const FREE_BYTES: usize = 64 << 10;
const FACTOR: usize = 64;

/// The state of an inflater.
const GZIP_BYTES: usize = 64 << 10;
/// A block of lz4 may have 4 MiB, and a frame says so before its blocks: the decoder makes room for
/// one, for what it becomes, twice that where each block goes on from the one before, and for the
/// 64 KiB before it. A thread decompresses one batch at a time, and gives the memory back.
const LZ4_BYTES: usize = 13 << 20;

impl Target {
    const fn new(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Self {
        Self {
            name,
            run,
            seeds,
            fixed_bytes: |_| 0,
        }
    }

    /// The most memory that it may hold at once over these bytes.
    #[must_use]
    pub fn allowed_bytes(&self, bytes: &[u8]) -> usize {
        FREE_BYTES + FACTOR * bytes.len() + (self.fixed_bytes)(bytes)
    }
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target::new("request", wire::request, seeds::requests),
    Target::new("response", wire::response, seeds::responses),
    Target {
        fixed_bytes: |bytes| {
            let codecs = records::codecs(bytes).into_iter();
            let each = codecs.map(|codec| match codec {
                1 => GZIP_BYTES,
                3 => LZ4_BYTES,
                _ => 0,
            });
            each.max().unwrap_or(0)
        },
        ..Target::new("batch", records::batch, seeds::batches)
    },
    Target {
        fixed_bytes: |_| GZIP_BYTES,
        ..Target::new("gzip", records::gzip, seeds::gzip)
    },
    Target::new("snappy", records::snappy, seeds::snappy),
    Target {
        fixed_bytes: |_| LZ4_BYTES,
        ..Target::new("lz4", records::lz4, seeds::lz4)
    },
    Target::new("zstd", records::zstd, seeds::zstd),
    Target::new("sidecar", files::sidecar, seeds::sidecars),
    Target::new("index", files::index, seeds::indexes),
    Target::new("snapshot", files::snapshot, seeds::snapshots),
    Target::new("wal", files::wal, seeds::wals),
    Target::new("peer_frame", wire::peer_frame, seeds::peer_frames),
    Target::new("properties", settings::properties, seeds::properties),
    Target::new("command", settings::command, seeds::commands),
    Target::new("checkpoint", settings::checkpoint, seeds::checkpoints),
];
