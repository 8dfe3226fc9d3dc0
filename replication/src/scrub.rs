//! What a scrub reads next, and how much of it now (X1).
//!
//! Everything is read once in an interval, one replica of a group at a time: the interval is divided into as
//! many slots as a group has replicas, and each replica reads in its own. Which slot it is follows from the
//! group, the replica's place among the others, and the time of day, so nobody has to ask anybody. Where
//! clocks differ, two replicas read at the same time, and nothing is wrong with that but the load.
//!
//! Within its slot a log is read evenly. How fast that is follows from how much there is, up to a rate at
//! which the disk still has time for others.

use std::collections::BTreeMap;
use std::time::Duration;

/// The most that a node reads in a second.
pub const MOST_BYTES_PER_SECOND: u64 = 64 << 20;
/// The least that is read at once, where there is as much.
const PIECE_BYTES: u64 = 1 << 20;
/// The part of a slot in which a log is to be read, in percent. The rest is for what came in between.
const READ_IN_PERCENT: u32 = 75;

/// A replica's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The interval that it lies in, counted from the epoch.
    pub round: u64,
    /// How long ago it began.
    pub since: Duration,
    /// How long it is.
    pub len: Duration,
}

/// The turn of the replica at a position among the replicas of a group, if it is on.
#[must_use]
pub fn slot(
    interval: Duration,
    group: u64,
    (position, replicas): (u32, u32),
    time_of_day: Duration,
) -> Option<Slot> {
    let nanos = interval.as_nanos();
    // Groups begin at different times, or a node would read all of them at once.
    let phase = (u128::from(spread(group)) * nanos) >> 64;
    let at = time_of_day.as_nanos() + phase;
    let round = u64::try_from(at.checked_div(nanos)?).unwrap_or(u64::MAX);
    let len = interval / replicas.max(1);
    let into = (at % nanos).checked_sub(len.as_nanos() * u128::from(position))?;
    (into < len.as_nanos()).then(|| Slot {
        round,
        since: Duration::from_nanos(u64::try_from(into).unwrap_or(u64::MAX)),
        len,
    })
}

/// A number that looks like none other, over all of 64 bits.
fn spread(group: u64) -> u64 {
    let mut bits = group.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// A replica that is open here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    /// Its group.
    pub group: u64,
    /// Its place among the group's replicas, from 0, and how many there are.
    pub place: (u32, u32),
    /// The first entry of its log.
    pub first: u64,
    /// The last one that is committed and durable here; one below the first where there is none.
    pub through: u64,
}

/// What is to be read of a log now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The group.
    pub group: u64,
    /// The entry to begin at.
    pub from: u64,
    /// None above this one.
    pub through: u64,
    /// About so many bytes.
    pub bytes: u64,
}

/// How far a log was read in a round.
#[derive(Debug, Clone, Copy)]
struct Progress {
    round: u64,
    /// The entry to go on at.
    next: u64,
    /// How much of the log had been read when the turn began, or the process, in millionths; and how much of
    /// the time for it had passed then.
    began_at: (u64, u64),
    /// It was read to its end.
    done: bool,
}

/// How far every log of a node was read.
#[derive(Debug, Clone)]
pub struct Scrub {
    interval: Duration,
    logs: BTreeMap<u64, Progress>,
}

/// Where something lies in something, in millionths.
const WHOLE: u64 = 1_000_000;

fn part_of(part: u128, whole: u128) -> u64 {
    let part = (part * u128::from(WHOLE)).checked_div(whole);
    part.map_or(WHOLE, |part| {
        u64::try_from(part).unwrap_or(WHOLE).min(WHOLE)
    })
}

impl Scrub {
    /// Everything is to be read once in this time.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            logs: BTreeMap::new(),
        }
    }

    /// What is to be read now of the replicas that are open here, that which lies furthest back first.
    /// `extent` says of a group how many bytes of its log lie before an entry, and how many there are.
    pub fn due(
        &mut self,
        time_of_day: Duration,
        replicas: &[Replica],
        extent: impl Fn(u64, u64) -> (u64, u64),
    ) -> Vec<Piece> {
        let mut behind: Vec<(u64, Piece)> = Vec::new();
        self.logs
            .retain(|group, _| replicas.iter().any(|replica| replica.group == *group));
        for replica in replicas {
            let group = replica.group;
            let Some(slot) = slot(self.interval, group, replica.place, time_of_day) else {
                continue;
            };
            if replica.through < replica.first {
                continue;
            }
            let reading = slot.len * READ_IN_PERCENT / 100;
            let passed = part_of(slot.since.as_nanos(), reading.as_nanos());
            let progress = self.turn(replica, &slot, passed);
            if progress.done {
                continue;
            }
            let from = progress.next.max(replica.first);
            let (before, all) = extent(group, from);
            let (read, late) = progress.began_at;
            let passed = part_of(passed.saturating_sub(late).into(), (WHOLE - late).into());
            let goal = read + (WHOLE - read) * passed / WHOLE;
            let goal_bytes = u128::from(all) * u128::from(goal) / u128::from(WHOLE);
            let goal_bytes = u64::try_from(goal_bytes).unwrap_or(all);
            // A log is begun at once, so that one of a single piece is not put off to the end.
            let is_begun = from > replica.first;
            if is_begun && goal_bytes <= before {
                continue;
            }
            let bytes = goal_bytes.saturating_sub(before).max(PIECE_BYTES);
            let piece = Piece {
                group,
                from,
                through: replica.through,
                bytes: bytes.min(MOST_BYTES_PER_SECOND),
            };
            behind.push((
                goal.saturating_sub(part_of(before.into(), all.into())),
                piece,
            ));
        }
        behind.sort_by_key(|(behind, piece)| (std::cmp::Reverse(*behind), piece.group));
        behind.into_iter().map(|(_, piece)| piece).collect()
    }

    /// How far a log is in this turn.
    fn turn(&mut self, replica: &Replica, slot: &Slot, passed: u64) -> Progress {
        let begin = Progress {
            round: slot.round,
            next: replica.first,
            began_at: (0, 0),
            done: false,
        };
        let progress = self.logs.entry(replica.group).or_insert_with(|| {
            // A process that starts in the middle of a turn goes on where the turn is: its former life was
            // there, and one that starts often would else never come to the end.
            let count = u128::from(replica.through + 1 - replica.first);
            let skipped = count * u128::from(passed) / u128::from(WHOLE);
            Progress {
                next: replica.first + u64::try_from(skipped).unwrap_or(0),
                began_at: (passed, passed),
                done: passed >= WHOLE,
                ..begin
            }
        });
        if progress.round != slot.round {
            *progress = if progress.done {
                begin
            } else {
                // It was not read to its end in the last turn, and goes on in this one.
                let count = u128::from(replica.through + 1 - replica.first);
                let read = progress.next.saturating_sub(replica.first);
                Progress {
                    round: slot.round,
                    began_at: (part_of(read.into(), count), 0),
                    ..*progress
                }
            };
        }
        *progress
    }

    /// A piece was read up to the entry before `next`; true where that was the last of its log.
    pub fn read(&mut self, piece: &Piece, next: u64) -> bool {
        let Some(progress) = self.logs.get_mut(&piece.group) else {
            return false;
        };
        progress.next = next;
        progress.done = next > piece.through;
        progress.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    #[test]
    fn one_replica_of_a_group_has_its_turn_at_any_time_and_each_once_in_an_interval() {
        for group in [0, 1, 7, 1 << 40] {
            let mut turns: BTreeMap<(u64, u32), u32> = BTreeMap::new();
            for hour in 0..14 * 24 {
                let now = Duration::from_secs(1_700_000_000 + hour * 3600);
                let on = (0..3).filter_map(|position| {
                    let slot = slot(WEEK, group, (position, 3), now)?;
                    Some((slot.round, position))
                });
                let on: Vec<_> = on.collect();
                assert_eq!(on.len(), 1, "hour {hour} of group {group}");
                for turn in on {
                    *turns.entry(turn).or_default() += 1;
                }
            }
            let whole = turns.values().filter(|hours| (55..=57).contains(*hours));
            assert!(whole.count() >= 4, "{turns:?}");
        }
        assert_eq!(slot(Duration::ZERO, 1, (0, 1), WEEK), None);
    }

    /// Reads a log of so many entries of a mebibyte as it is told; what was read at which second.
    fn follow(interval: Duration, entries: u64, place: (u32, u32), step: u64) -> Vec<(u64, u64)> {
        let mut scrub = Scrub::new(interval);
        let replica = Replica {
            group: 5,
            place,
            first: 1,
            through: entries,
        };
        let mut read = Vec::new();
        for second in (0..3 * interval.as_secs()).step_by(usize::try_from(step).unwrap_or(1)) {
            let extent = |_, index| ((index - 1) << 20, entries << 20);
            for piece in scrub.due(Duration::from_secs(second), &[replica], extent) {
                let next = (piece.from + piece.bytes.div_ceil(1 << 20)).min(entries + 1);
                read.extend((piece.from..next).map(|index| (second, index)));
                scrub.read(&piece, next);
            }
        }
        read
    }

    #[test]
    fn a_log_is_read_once_in_its_turn_evenly() {
        let interval = Duration::from_secs(3000);
        let read = follow(interval, 600, (1, 3), 1);
        for index in 1..=600 {
            let count = read.iter().filter(|(_, of)| *of == index).count();
            assert!(
                (2..=3).contains(&count),
                "entry {index} was read {count} times"
            );
        }
        // 600 MiB in three quarters of 1000 s.
        let mut per_second: BTreeMap<u64, u64> = BTreeMap::new();
        for (second, _) in &read {
            *per_second.entry(*second).or_default() += 1;
        }
        assert!(per_second.values().all(|mib| *mib <= 2), "{per_second:?}");
    }

    #[test]
    fn what_is_too_much_for_a_turn_goes_on_in_the_next() {
        // A rate of 64 MiB a second at most, looked at each second, for twenty seconds.
        let read = follow(Duration::from_secs(20), 2000, (0, 1), 1);
        let pairs = || read.iter().zip(read.iter().skip(1));
        for ((_, last), (_, next)) in pairs() {
            let goes_on = *next == last + 1 || (*last, *next) == (2000, 1);
            assert!(goes_on, "{last}, {next}");
        }
        assert!(
            pairs().any(|((_, last), _)| *last == 2000),
            "it comes to the end"
        );
    }

    #[test]
    fn nothing_is_read_where_nothing_is_settled() {
        let mut scrub = Scrub::new(WEEK);
        let replica = Replica {
            group: 5,
            place: (0, 1),
            first: 11,
            through: 10,
        };
        assert!(
            scrub
                .due(Duration::ZERO, &[replica], |_, _| (0, 0))
                .is_empty()
        );
    }
}
