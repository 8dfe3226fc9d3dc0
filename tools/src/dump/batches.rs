//! Finding batches in a `.log`, and finding them again behind damage.

use riverrun_record::layout::{BASE_OFFSET, HEADER_LEN, MAGIC, MAGIC_V2};
use riverrun_record::{BatchError, BatchView};

use super::input::{Failure, Input, MAX_PIECE_BYTES};

/// Bytes that a search looks at once.
const SEARCH_BYTES: usize = 64 * 1024;
/// Bytes whose checksums all searches in one file may compute: bytes that look like the beginning
/// of a batch everywhere must not make a search last for ever.
const SEARCH_BUDGET_BYTES: u64 = 1 << 30;

/// What comes next in a `.log`.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// A batch, and what is wrong with it.
    Batch {
        position: u64,
        batch: BatchView<'a>,
        fault: Option<BatchError>,
    },
    /// Bytes that are no batch.
    Gap { from: u64, to: u64, what: String },
}

/// The batches of a file, one after another.
#[derive(Debug)]
pub(super) struct Batches {
    input: Input,
    position: u64,
    /// No batch of this file has a smaller offset.
    least_offset: i64,
    budget: u64,
}

impl Batches {
    pub(super) fn new(input: Input, least_offset: i64) -> Self {
        Self {
            input,
            position: 0,
            least_offset,
            budget: SEARCH_BUDGET_BYTES,
        }
    }

    pub(super) fn input(&self) -> &Input {
        &self.input
    }

    /// Goes on from another position.
    pub(super) fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// The batch at a position. Its checksum is not looked at.
    pub(super) fn at(
        &mut self,
        position: u64,
    ) -> Result<Result<BatchView<'_>, BatchError>, Failure> {
        let left = self.input.left(position);
        let needed = match BatchView::parse(self.input.at(position, HEADER_LEN)?) {
            Ok(batch) => batch.total_len(),
            Err(BatchError::Incomplete { needed, .. }) if needed as u64 > left => {
                let available = usize::try_from(left).unwrap_or(usize::MAX);
                return Ok(Err(BatchError::Incomplete { needed, available }));
            }
            Err(BatchError::Incomplete { needed, .. }) if needed > MAX_PIECE_BYTES => {
                let what = "it is longer than any batch that is taken";
                return Ok(Err(BatchError::Corrupt { what }));
            }
            Err(BatchError::Incomplete { needed, .. }) => needed,
            Err(error) => return Ok(Err(error)),
        };
        Ok(BatchView::parse(self.input.at(position, needed)?))
    }

    /// The next batch, or the next stretch without one.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'_>>, Failure> {
        let position = self.position;
        if self.input.left(position) == 0 {
            return Ok(None);
        }
        let found = match self.at(position)? {
            Ok(batch) => Ok((batch.total_len() as u64, batch.check_stored().err())),
            Err(error) => Err(error),
        };
        let (len, fault) = match found {
            Ok((len, None)) => (len, None),
            // A batch that another one follows has the length that it states, whatever else it has.
            Ok((len, Some(fault))) if self.begins_at(position + len)? => (len, Some(fault)),
            Ok((_, Some(error))) | Err(error) => return self.gap(position, &error).map(Some),
        };
        self.position = position + len;
        match self.at(position)? {
            Ok(batch) => Ok(Some(Piece::Batch {
                position,
                batch,
                fault,
            })),
            // It was there a moment ago.
            Err(error) => {
                let what = error.to_string();
                let to = position + len;
                Ok(Some(Piece::Gap {
                    from: position,
                    to,
                    what,
                }))
            }
        }
    }

    fn begins_at(&mut self, position: u64) -> Result<bool, Failure> {
        Ok(self.input.left(position) == 0 || self.at(position)?.is_ok())
    }

    fn gap(&mut self, from: u64, error: &BatchError) -> Result<Piece<'_>, Failure> {
        let found = self.search(from + 1)?;
        let to = found.unwrap_or(self.input.len());
        self.position = to;
        let mut what = error.to_string();
        if self.budget == 0 && found.is_none() {
            what.push_str("; too much behind it looks like a batch to be searched");
        }
        Ok(Piece::Gap { from, to, what })
    }

    /// The first position from here on at which a whole batch with a good checksum begins.
    fn search(&mut self, from: u64) -> Result<Option<u64>, Failure> {
        let mut at = from;
        let (least_offset, len) = (self.least_offset, self.input.len());
        while self.input.left(at) >= HEADER_LEN as u64 && self.budget > 0 {
            let window = self.input.at(at, SEARCH_BYTES)?;
            // Most of what is no batch was never written.
            if !window.contains(&MAGIC_V2.cast_unsigned()) {
                at += (window.len() - (HEADER_LEN - 1)) as u64;
                continue;
            }
            let mut heads = window.windows(HEADER_LEN).zip(at..);
            let candidate = heads.find(|(head, position)| {
                let left = len - position;
                looks_like_one(head, least_offset, left)
            });
            let Some((_, position)) = candidate else {
                at += (window.len() - (HEADER_LEN - 1)) as u64;
                continue;
            };
            let (checked, good) = match self.at(position)? {
                Ok(batch) => (batch.total_len() as u64, batch.check_stored().is_ok()),
                Err(_) => (0, false),
            };
            if good {
                return Ok(Some(position));
            }
            self.budget = self.budget.saturating_sub(checked);
            at = position + 1;
        }
        Ok(None)
    }
}

fn looks_like_one(head: &[u8], least_offset: i64, left: u64) -> bool {
    if head.get(MAGIC).copied() != Some(MAGIC_V2.cast_unsigned()) {
        return false;
    }
    let offset = head
        .get(BASE_OFFSET..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(-1, |bytes| i64::from_be_bytes(*bytes));
    let in_reach =
        offset >= least_offset && offset.saturating_sub(least_offset) <= i64::from(i32::MAX);
    in_reach
        && match BatchView::parse(head) {
            Ok(_) => true,
            Err(BatchError::Incomplete { needed, .. }) => needed as u64 <= left,
            Err(_) => false,
        }
}

/// Whether batches follow each other as a log's do.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The offset that the next batch should have.
    next: Option<i64>,
    /// The offset that it should have if the one before was where it did not belong.
    or_next: Option<i64>,
    epoch: Option<i32>,
}

impl Order {
    pub(super) fn new(base_offset: Option<i64>) -> Self {
        Self {
            next: base_offset,
            ..Self::default()
        }
    }

    /// Takes a stretch without batches: nothing is expected of the next one.
    pub(super) fn lost(&mut self) {
        self.next = None;
        self.or_next = None;
    }

    /// Takes the next batch, and says what is wrong with its place.
    pub(super) fn take(&mut self, batch: &BatchView<'_>) -> Vec<String> {
        let mut wrong = Vec::new();
        let base = batch.base_offset();
        let span = i64::from(batch.last_offset_delta()).saturating_add(1);
        if let Some(next) = self.next
            && base != next
            && self.or_next != Some(base)
        {
            wrong.push(format!(
                "the batch has base offset {base}, {next} should follow here"
            ));
            self.or_next = Some(next.saturating_add(span));
        } else {
            self.or_next = None;
        }
        self.next = Some(base.saturating_add(span));
        let epoch = batch.leader_epoch();
        if let Some(before) = self.epoch
            && epoch < before
        {
            wrong.push(format!(
                "the batch has leader epoch {epoch}, the one before has {before}"
            ));
        } else {
            self.epoch = Some(epoch);
        }
        wrong
    }
}
