//! How many descriptors a process has, and what they are for.
//!
//! A replica keeps its newest segment open: `.log`, `.raft`, `.index` and `.timeindex`. The first two
//! cannot be closed while something of them waits for a sync, so a node that holds more replicas than it
//! has descriptors for would fail in the middle of a write. Older segments are read through maps and need
//! none. What remains is for connections, to clients and to other nodes.

/// What one replica may have open at a time.
pub const FILES_A_REPLICA: usize = 4;
/// Of the half that is for files: the node's own, those of segments that are being ended, of images and of
/// names that are being synced.
const OTHER_FILES: usize = 32;
/// Of the other half: listeners, links to other nodes, and what a process has besides.
const OTHER_SOCKETS: usize = 64;
/// Connections that are taken however little there is.
const LEAST_CONNECTIONS: usize = 16;

/// What the descriptors of a process are divided into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Files that are open at once.
    pub files: usize,
    /// Replicas that can be open at once, group 0's among them.
    pub replicas: usize,
    /// Connections of clients.
    pub connections: usize,
}

impl Shares {
    /// The shares of a process that may have so many.
    #[must_use]
    pub fn of(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let files = limit / 2;
        let sockets = limit - files;
        Self {
            files,
            // Group 0 is always opened.
            replicas: (files.saturating_sub(OTHER_FILES) / FILES_A_REPLICA).max(1),
            connections: sockets.saturating_sub(OTHER_SOCKETS).max(LEAST_CONNECTIONS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_promised_twice() {
        for limit in (200..5_000).chain([65_536, 1 << 20, u64::MAX]) {
            let shares = Shares::of(limit);
            let files = shares.replicas.saturating_mul(FILES_A_REPLICA) + OTHER_FILES;
            assert!(files <= shares.files, "{limit}: {shares:?}");
            let sockets = shares.connections + OTHER_SOCKETS;
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            assert!(shares.files + sockets <= limit, "{limit}: {shares:?}");
        }
    }

    #[test]
    fn the_usual_limits_are_enough_for_many() {
        assert_eq!(Shares::of(450).replicas, 48);
        assert_eq!(Shares::of(1024).replicas, 120);
        assert_eq!(Shares::of(1 << 20).replicas, 131_064);
    }

    #[test]
    fn however_little_there_is_group_0_is_opened_and_somebody_may_connect() {
        let least = Shares::of(0);
        assert_eq!(least.replicas, 1);
        assert_eq!(least.connections, LEAST_CONNECTIONS);
    }
}
