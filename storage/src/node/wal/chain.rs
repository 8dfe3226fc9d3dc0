//! Following the chain of records from a start mark: what counts, and why it ends where it ends.
//!
//! A record counts when its checksum is good, its lap is that of its place, it names the checksum of
//! the record before, its round is the one expected and its boot generation does not go back. A round
//! counts when its last record is there: rounds are taken whole or not at all.
//!
//! Behind the first record that does not count nothing of that round, of an older lap or of a tail
//! that an earlier boot cut can be of a *later* round; what is, proves that the bad record had been
//! synced, as a round starts only when the last one is durable. So does a clean stop that has named a
//! later round. Then the bad place is damage and reading goes on behind it (W3): at the next record of
//! the same round that has a good checksum, else at the next round. Without such a proof it is a torn
//! tail, or simply the end.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::preamble::{Geometry, MAX_POSITION, MarkPoint, ROUND_ALIGN_BYTES, align_up, to_usize};
use super::record::{RECORD_HEADER_BYTES, RecordBody, RecordHeader};
use super::ring::checksum_is_good;
use crate::disk::DiskFile;

/// Bytes read at a time.
const READ_BYTES: u64 = 256 * 1024;
/// How far behind a bad record the rest of its round is looked for.
const MOST_RESUME_BYTES: u64 = 8 << 20;

/// What was found, in order.
#[derive(Debug, Clone)]
pub(in crate::node) enum Step {
    /// A record that counts.
    Record {
        /// Its position.
        position: u64,
        /// Its header.
        header: RecordHeader,
        /// Its body among [`Chain::bytes`].
        body: Range<usize>,
    },
    /// Records are missing here.
    Gap {
        /// The first bad record's position.
        from: u64,
        /// The position of the next good one.
        to: u64,
    },
}

/// Why the chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainEnd {
    /// No record of the next round is there.
    Clean,
    /// A part of one more round is there; it was never acknowledged.
    Torn,
    /// It ends before the round that a clean stop has named: damage, or an older copy (R14).
    Short,
}

/// All that can be believed of a WAL file.
#[derive(Debug)]
pub(in crate::node) struct Chain {
    /// The bytes from the start mark on.
    pub(in crate::node) bytes: Bytes,
    pub(in crate::node) steps: Vec<Step>,
    /// Where the next round is to be written, and behind what.
    pub(in crate::node) tail: MarkPoint,
    /// The last whole round, as positions.
    pub(in crate::node) last_round: Range<u64>,
    /// The latest round of which a record counts, 0 for none.
    pub(in crate::node) seen_round: u64,
    pub(in crate::node) end: ChainEnd,
}

impl Chain {
    /// The body of a record step; `None` where the kind is not known.
    pub(in crate::node) fn body(
        &self,
        header: &RecordHeader,
        body: &Range<usize>,
    ) -> Option<RecordBody> {
        RecordBody::decode(header.kind, self.bytes.slice(body.clone()))
    }
}

struct Reader<'a> {
    file: &'a dyn DiskFile,
    geometry: Geometry,
    base: u64,
    limit: u64,
    bytes: Vec<u8>,
}

impl Reader<'_> {
    /// Reads on until `to` is in memory.
    fn ensure(&mut self, to: u64) -> io::Result<()> {
        let have = self.base + self.bytes.len() as u64;
        if to <= have {
            return Ok(());
        }
        let to = self.limit.min(to.max(have + READ_BYTES));
        let from = self.bytes.len();
        self.bytes.resize(to_usize(to - self.base), 0);
        read(
            self.file,
            self.geometry,
            have,
            self.bytes.get_mut(from..).unwrap_or_default(),
        )
    }

    fn get(&self, from: u64, len: usize) -> Option<&[u8]> {
        let from = to_usize(from - self.base);
        self.bytes.get(from..from.checked_add(len)?)
    }

    /// The record at a position, if its checksum and lap are good.
    fn record(&mut self, at: u64) -> io::Result<Option<RecordHeader>> {
        let body_at = at + RECORD_HEADER_BYTES as u64;
        if body_at > self.limit {
            return Ok(None);
        }
        self.ensure(body_at)?;
        let Some(header) = self
            .get(at, RECORD_HEADER_BYTES)
            .and_then(RecordHeader::decode)
        else {
            return Ok(None);
        };
        if !plausible(&header, at, self.limit, self.geometry) {
            return Ok(None);
        }
        self.ensure(at + u64::from(header.length))?;
        let good = self
            .get(at, to_usize(u64::from(header.length)))
            .is_some_and(|record| checksum_is_good(self.geometry.salt, header.crc, record));
        Ok(good.then_some(header))
    }

    /// Where a damaged round goes on: the next good record of that round from a position on, before
    /// `until`. Where only the bad record's body is bad, its own length leads there.
    fn resume(&mut self, bad: MarkPoint, until: u64) -> io::Result<Option<(u64, RecordHeader)>> {
        self.ensure(until.min(bad.position + RECORD_HEADER_BYTES as u64))?;
        let stated = self
            .get(bad.position, RECORD_HEADER_BYTES)
            .and_then(RecordHeader::decode)
            .filter(|header| plausible(header, bad.position, self.limit, self.geometry))
            .map(|header| bad.position + u64::from(header.length));
        let scan = bad.position + 1..until.min(bad.position + MOST_RESUME_BYTES);
        for at in stated.into_iter().chain(scan) {
            if at + RECORD_HEADER_BYTES as u64 > until {
                continue;
            }
            self.ensure((at + RECORD_HEADER_BYTES as u64).min(self.limit))?;
            // The round's number is looked at first: it is what almost every place fails by.
            let is_of_it = self
                .get(at, RECORD_HEADER_BYTES)
                .and_then(RecordHeader::decode)
                .is_some_and(|header| {
                    header.round == bad.round && header.generation >= bad.generation
                });
            if is_of_it && let Some(header) = self.record(at)? {
                return Ok(Some((at, header)));
            }
        }
        Ok(None)
    }

    /// The next record of a round later than `round`, of no earlier generation, from a position on.
    /// Rounds begin at multiples of 512, so nothing else need be looked at.
    fn later(
        &self,
        from: u64,
        round: u64,
        generation: u32,
    ) -> io::Result<Option<(u64, RecordHeader)>> {
        let mut at = align_up(from);
        while at < self.limit {
            let len = to_usize(READ_BYTES.min(self.limit - at));
            let mut window = vec![0; len];
            read(self.file, self.geometry, at, &mut window)?;
            for place in window.chunks(to_usize(ROUND_ALIGN_BYTES)) {
                let candidate = RecordHeader::decode(place).filter(|header| {
                    header.round > round
                        && header.generation >= generation
                        && plausible(header, at, self.limit, self.geometry)
                });
                if let Some(header) = candidate {
                    let mut record = vec![0; to_usize(u64::from(header.length))];
                    read(self.file, self.geometry, at, &mut record)?;
                    if checksum_is_good(self.geometry.salt, header.crc, &record) {
                        return Ok(Some((at, header)));
                    }
                }
                at += place.len() as u64;
            }
        }
        Ok(None)
    }
}

fn plausible(header: &RecordHeader, at: u64, limit: u64, geometry: Geometry) -> bool {
    let length = u64::from(header.length);
    length >= RECORD_HEADER_BYTES as u64
        && header.round <= MAX_POSITION
        && length <= limit - at
        && header.lap == geometry.lap(at)
}

/// Reads a range of positions.
fn read(file: &dyn DiskFile, geometry: Geometry, from: u64, buf: &mut [u8]) -> io::Result<()> {
    let mut rest = buf;
    for (offset, len) in geometry.spans(from, from + rest.len() as u64) {
        let (part, behind) = rest.split_at_mut(to_usize(len).min(rest.len()));
        file.read_exact_at(part, offset)?;
        rest = behind;
    }
    Ok(())
}

/// Follows the chain from a start mark to its end, or to `limit` where the writer knows it. `reached`
/// is the round that would have come next when the WAL was left, where that is known (R14): what lacks
/// before it is damage and no torn tail.
/// Errors are those of the disk: a byte that cannot be read is not a byte that is wrong.
pub(in crate::node) fn follow(
    file: &dyn DiskFile,
    geometry: Geometry,
    mark: MarkPoint,
    limit: Option<u64>,
    reached: Option<u64>,
) -> io::Result<Chain> {
    let limit = limit.unwrap_or(mark.position + geometry.capacity);
    let mut reader = Reader {
        file,
        geometry,
        base: mark.position,
        limit,
        bytes: Vec::new(),
    };
    let mut steps = Vec::new();
    let mut expect = mark;
    let mut last_round = mark.position..mark.position;
    let mut seen_round = 0;
    let end = 'rounds: loop {
        let from = expect.position;
        let mut at = expect;
        let mut round = Vec::new();
        loop {
            let record = reader.record(at.position)?.filter(|header| {
                header.prev_crc == at.prev_crc
                    && header.round == at.round
                    && header.generation >= at.generation
            });
            if let Some(header) = record {
                seen_round = header.round;
                let body = to_usize(at.position - reader.base) + RECORD_HEADER_BYTES;
                let next = at.position + u64::from(header.length);
                let body = body..to_usize(next - reader.base);
                round.push(Step::Record {
                    position: at.position,
                    header,
                    body,
                });
                at.prev_crc = header.crc;
                at.generation = header.generation;
                at.position = next;
                if header.last {
                    break;
                }
                continue;
            }
            let later = reader.later(at.position + 1, at.round, at.generation)?;
            if later.is_none() && reached.is_none_or(|reached| at.round >= reached) {
                let torn = round.iter().any(|step| matches!(step, Step::Record { .. }));
                break 'rounds if torn {
                    ChainEnd::Torn
                } else {
                    ChainEnd::Clean
                };
            }
            // What is good of the damaged round had been synced with it, and counts.
            let until = later.as_ref().map_or(reader.limit, |(to, _)| *to);
            let bad = at.position;
            let (to, header) = match reader.resume(at, until)? {
                Some(found) => found,
                None => match later {
                    Some(found) => found,
                    None => {
                        // What comes next is written behind what counts of this round, and leaves the
                        // gap to be seen until a checkpoint has passed it.
                        let to = align_up(bad + 1).min(reader.limit);
                        reader.ensure(to)?;
                        steps.append(&mut round);
                        steps.push(Step::Gap { from: bad, to });
                        expect = MarkPoint {
                            position: to,
                            round: at.round.max(reached.unwrap_or(0)),
                            ..at
                        };
                        break 'rounds ChainEnd::Short;
                    }
                },
            };
            round.push(Step::Gap { from: bad, to });
            at = MarkPoint {
                position: to,
                prev_crc: header.prev_crc,
                round: header.round,
                generation: header.generation,
            };
            if header.round != expect.round {
                steps.append(&mut round);
                expect = at;
                continue 'rounds;
            }
        }
        steps.append(&mut round);
        at.position = align_up(at.position);
        at.round += 1;
        last_round = from..at.position;
        expect = at;
    };
    reader
        .bytes
        .truncate(to_usize(expect.position - mark.position));
    let bytes = Bytes::from(reader.bytes);
    Ok(Chain {
        bytes,
        steps,
        tail: expect,
        last_round,
        seen_round,
        end,
    })
}
