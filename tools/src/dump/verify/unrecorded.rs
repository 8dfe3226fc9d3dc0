//! Batches that no readable record of the sidecar speaks of: those between records that could not be
//! read, and those behind the last one.

use riverrun_record::BatchView;
use riverrun_storage::format::index::IndexedBatch;

use super::segment::{Segment, Walk};
use crate::dump::batches::Piece;
use crate::dump::input::Failure;

impl Walk<'_> {
    /// Goes through batches whose records in the sidecar could not be read.
    pub(super) fn catch_up(
        &mut self,
        segment: &mut Segment,
        to: u64,
        demanded: bool,
    ) -> Result<(), Failure> {
        segment.log.seek(segment.log_at);
        loop {
            let found = match segment.log.next()? {
                None => return Ok(()),
                Some(Piece::Gap { from, to, what }) => Err((from, to, what)),
                Some(Piece::Batch {
                    position,
                    batch,
                    fault,
                }) => match fault {
                    Some(fault) => {
                        let end = position + batch.total_len() as u64;
                        Err((position, end, fault.to_string()))
                    }
                    None => {
                        self.producers.batch(&batch, self.findings)?;
                        Ok((position, indexed(position, &batch), batch.record_count()))
                    }
                },
            };
            match found {
                Ok((position, batch, records)) if position < to => {
                    segment.log_at = position + u64::from(batch.len);
                    self.tally.batches += 1;
                    self.tally.records += u64::try_from(records).unwrap_or(0);
                    segment.indexes.batch(batch, self.findings)?;
                }
                Ok(_) => return Ok(()),
                Err((from, end, what)) => {
                    if from >= to {
                        return Ok(());
                    }
                    self.add(demanded, &segment.log_path, from, what);
                    self.producers.give_up();
                    segment.indexes.unknown(end)?;
                    segment.log_at = end;
                }
            }
            if segment.log_at >= to {
                return Ok(());
            }
        }
    }

    /// What lies in the log behind the last record of the sidecar: that is not synced for data, so a
    /// crash may leave batches there, of which the next start makes records, and a torn tail.
    pub(super) fn behind_the_sidecar(&mut self, segment: &mut Segment) -> Result<(), Failure> {
        let begin = segment.log_at;
        let mut found = 0_u64;
        segment.log.seek(begin);
        loop {
            let next = match segment.log.next()? {
                None => break,
                Some(Piece::Gap { from, to, what }) => {
                    Err((from, format!("no batch in {} bytes: {what}", to - from)))
                }
                Some(Piece::Batch {
                    position,
                    batch,
                    fault,
                }) => match fault {
                    Some(fault) => Err((position, fault.to_string())),
                    None => {
                        self.producers.batch(&batch, self.findings)?;
                        let term = u64::try_from(batch.leader_epoch()).unwrap_or(0);
                        let (base, next) = (batch.base_offset(), batch.next_offset());
                        Ok((
                            indexed(position, &batch),
                            batch.record_count(),
                            term,
                            base,
                            next,
                        ))
                    }
                },
            };
            match next {
                Ok((batch, records, term, base, next)) => {
                    found += 1;
                    self.tally.batches += 1;
                    self.tally.records += u64::try_from(records).unwrap_or(0);
                    segment.indexes.batch(batch, self.findings)?;
                    if self.state.is_some_and(|state| state.offset != base) {
                        let what =
                            format!("the batch has base offset {base}, which does not follow here");
                        let demanded = self.durability.demands(self.next_index());
                        self.add(demanded, &segment.log_path, u64::from(batch.position), what);
                    }
                    if self.state.is_some() {
                        self.place(self.next_index(), term, base, Some(next));
                    }
                }
                Err((from, what)) => {
                    let demanded = self.durability.demands(self.next_index())
                        && !segment.log.input().has_changed();
                    let what = if demanded {
                        what
                    } else {
                        format!("a tail that the next start cuts: {what}")
                    };
                    self.add(demanded, &segment.log_path, from, what);
                    segment.is_whole = false;
                    break;
                }
            }
        }
        if found > 0 {
            let what = format!(
                "{found} batches behind the last entry of the sidecar; the next start makes their records"
            );
            self.add(false, &segment.log_path, begin, what);
        }
        Ok(())
    }
}

fn indexed(position: u64, batch: &BatchView<'_>) -> IndexedBatch {
    IndexedBatch {
        last_offset: batch.last_offset(),
        max_timestamp: batch.max_timestamp(),
        position: u32::try_from(position).unwrap_or(u32::MAX),
        len: u32::try_from(batch.total_len()).unwrap_or(u32::MAX),
    }
}
