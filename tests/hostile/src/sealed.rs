//! Checksums over bytes that somebody made up.

/// The bytes with `checksum` of those from `from` on written at `at`, where there are that many.
fn sealed(
    bytes: &[u8],
    at: usize,
    from: usize,
    checksum: impl FnOnce(&[u8]) -> [u8; 4],
) -> Option<Vec<u8>> {
    let checksum = checksum(bytes.get(from..)?);
    let mut bytes = bytes.to_vec();
    bytes.get_mut(at..at + 4)?.copy_from_slice(&checksum);
    Some(bytes)
}

/// A record batch whose length and CRC-32C fit it.
pub(crate) fn batch(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = sealed(bytes, 17, 21, |rest| crc32c::crc32c(rest).to_be_bytes())?;
    let length = u32::try_from(bytes.len() - 12).ok()?;
    bytes.get_mut(8..12)?.copy_from_slice(&length.to_be_bytes());
    *bytes.get_mut(16)? = 2;
    Some(bytes)
}

/// A frame between nodes.
pub(crate) fn peer_frame(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = sealed(bytes, 4, 8, |rest| crc32fast::hash(rest).to_le_bytes())?;
    let length = u32::try_from(bytes.len() - 8).ok()?;
    bytes.get_mut(..4)?.copy_from_slice(&length.to_le_bytes());
    Some(bytes)
}

/// Kafka's producer snapshot.
pub(crate) fn snapshot(bytes: &[u8]) -> Option<Vec<u8>> {
    sealed(bytes, 2, 6, |rest| crc32c::crc32c(rest).to_be_bytes())
}

/// The header of a sidecar: its checksum leaves itself out.
pub(crate) fn sidecar(bytes: &[u8]) -> Option<Vec<u8>> {
    const CRC_AT: usize = 116;
    let conf_len = u32::from_be_bytes(*bytes.get(112..)?.first_chunk()?);
    let conf = bytes.get(120..120 + usize::try_from(conf_len).ok()?)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes.get(..CRC_AT)?);
    crc.update(conf);
    let mut sealed = bytes.to_vec();
    sealed
        .get_mut(CRC_AT..CRC_AT + 4)?
        .copy_from_slice(&crc.finalize().to_be_bytes());
    Some(sealed)
}

/// An image of the controller.
pub(crate) fn checkpoint(bytes: &[u8]) -> Option<Vec<u8>> {
    const CRC_AT: usize = 20;
    let mut bytes = bytes.to_vec();
    let length = u32::try_from(bytes.len().checked_sub(CRC_AT + 4)?).ok()?;
    bytes
        .get_mut(16..20)?
        .copy_from_slice(&length.to_le_bytes());
    let (summed, rest) = bytes.split_at_checked(CRC_AT)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(summed);
    crc.update(rest.get(4..)?);
    let crc = crc.finalize().to_le_bytes();
    bytes.get_mut(CRC_AT..CRC_AT + 4)?.copy_from_slice(&crc);
    Some(bytes)
}

/// The preamble of a node's WAL and the records that follow one another from the beginning of its
/// ring, with the size of the ring.
pub(crate) fn wal(bytes: &[u8]) -> Option<Vec<u8>> {
    const RING: usize = 12_288;
    let mut bytes = bytes.to_vec();
    let capacity = u64::try_from(bytes.len().checked_sub(RING)?).ok()?;
    bytes
        .get_mut(32..40)?
        .copy_from_slice(&capacity.to_le_bytes());
    for at in [0, 4096, 8192] {
        if bytes.get(at..at + 8)? == [0; 8] {
            continue;
        }
        let crc = crc32fast::hash(bytes.get(at + 16..at + 64)?);
        bytes
            .get_mut(at + 12..at + 16)?
            .copy_from_slice(&crc.to_le_bytes());
    }
    let salt = crc32fast::hash(bytes.get(16..32)?);
    let (mut at, mut before) = (RING, None::<[u8; 4]>);
    while let Some(length) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let end = at.checked_add(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        if end < at + 56 || end > bytes.len() {
            break;
        }
        if let Some(before) = before {
            bytes.get_mut(at + 8..at + 12)?.copy_from_slice(&before);
        }
        let mut crc = crc32fast::Hasher::new_with_initial(salt);
        crc.update(bytes.get(at + 8..end)?);
        let crc = crc.finalize().to_le_bytes();
        bytes.get_mut(at + 4..at + 8)?.copy_from_slice(&crc);
        before = Some(crc);
        // The next round begins with a sector.
        let last = bytes.get(at + 13)? & 1 == 1;
        at = if last { end.next_multiple_of(512) } else { end };
    }
    Some(bytes)
}

/// Both slots of a node's identity.
pub(crate) fn identity(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    for at in [0, 4096] {
        if bytes.get(at..at + 8)? == [0; 8] {
            continue;
        }
        // A slot of version 1 was one sector.
        let len = if *bytes.get(at + 8)? == 1 { 512 } else { 4096 };
        let crc = crc32fast::hash(bytes.get(at + 16..at + len)?);
        bytes
            .get_mut(at + 12..at + 16)?
            .copy_from_slice(&crc.to_le_bytes());
    }
    Some(bytes)
}

/// Runs a decoder over the bytes as they are, and as they would be with a good checksum.
pub(crate) fn both(
    bytes: &[u8],
    seal: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
    decode: impl Fn(&[u8]),
) {
    decode(bytes);
    if let Some(sealed) = seal(bytes) {
        decode(&sealed);
    }
}

#[cfg(test)]
mod tests {
    use crate::seeds;

    // A checksum at the wrong place would leave all behind it untried, and nobody would see it.
    #[test]
    fn what_is_good_is_sealed_as_it_is() {
        type Seal = fn(&[u8]) -> Option<Vec<u8>>;
        let wals = seeds::wals();
        let (wals, others) = wals.split_at(3);
        let sidecars = seeds::sidecars();
        let snapshots = seeds::snapshots();
        let cases: [(&str, Seal, &[Vec<u8>]); 7] = [
            ("batch", super::batch, &seeds::batches()),
            ("peer frame", super::peer_frame, &seeds::peer_frames()),
            ("snapshot", super::snapshot, snapshots.split_at(3).0),
            ("sidecar", super::sidecar, sidecars.split_at(3).0),
            ("checkpoint", super::checkpoint, &seeds::checkpoints()),
            ("wal", super::wal, wals),
            ("identity", super::identity, others.split_at(2).0),
        ];
        for (what, seal, seeds) in cases {
            for seed in seeds {
                assert!(seal(seed).as_ref() == Some(seed), "{what}");
            }
        }
    }
}
