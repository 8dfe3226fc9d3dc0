//! The log of what clients are refused.
//!
//! A request that is answered with an error because of what is in it leaves one line, so that
//! whoever runs the node sees what the client's owner should be told. Lines are held to a few a
//! second over all connections: a client that sends nothing but rubbish must not fill a disk.

use std::time::Duration;

use parking_lot::Mutex;
use riverrun_wire::{ApiKey, ErrorCode};
use tokio::time::Instant;
use tracing::info;

use crate::net::connection::Connection;

/// Lines in one [`PERIOD`].
const LINES: u32 = 100;
const PERIOD: Duration = Duration::from_secs(1);

/// The log and its limit.
#[derive(Debug, Default)]
pub(crate) struct RefusedLog(Mutex<Option<Period>>);

#[derive(Debug)]
struct Period {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl RefusedLog {
    /// One line about a request. `why` may hold what the client chose, and is escaped.
    pub(crate) fn log(&self, connection: &Connection, api: ApiKey, error: ErrorCode, why: &str) {
        let Some(left_out) = self.take(Instant::now()) else {
            return;
        };
        let client = connection.client();
        info!(
            peer = %connection.peer(),
            client = client.as_deref().unwrap_or("unknown"),
            api = api.name(),
            error = error.name(),
            ?why,
            left_out,
            "refused a request"
        );
    }

    /// How many lines were left out before this one, if it may be written.
    pub(crate) fn take(&self, now: Instant) -> Option<u64> {
        let mut guard = self.0.lock();
        let left_out = match guard.as_mut() {
            Some(period) if now < period.began + PERIOD => {
                if period.lines >= LINES {
                    period.left_out += 1;
                    return None;
                }
                period.lines += 1;
                return Some(0);
            }
            Some(period) => period.left_out,
            None => 0,
        };
        *guard = Some(Period {
            began: now,
            lines: 1,
            left_out: 0,
        });
        Some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_a_few_lines_and_its_size() {
        let log = RefusedLog::default();
        let began = Instant::now();
        let written = (0..1000).filter(|_| log.take(began).is_some()).count();
        assert_eq!(written, LINES as usize);
        assert_eq!(log.take(began + PERIOD), Some(1000 - u64::from(LINES)));
        assert_eq!(log.take(began + PERIOD), Some(0));
        assert_eq!(log.take(began + 2 * PERIOD), Some(0));
    }
}
