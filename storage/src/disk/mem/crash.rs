//! What a loss of power leaves of what was not synced.

/// How much of what was not synced survives. Everything that was synced does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashModel {
    /// Of 1000 sectors with unsynced writes, how many keep all of them.
    pub sector_kept_permille: u32,
    /// Of 1000 sectors with unsynced writes, how many keep the first of them and a part of one.
    pub sector_torn_permille: u32,
    /// Of 1000 files with unsynced changes, how many keep their last length.
    pub length_kept_permille: u32,
    /// Of 1000 of the other files, how many have the length of some moment since the last sync.
    /// The rest have the synced one.
    pub length_between_permille: u32,
    /// Of 1000 unsynced changes of a directory, how many survive, each on its own.
    pub name_kept_permille: u32,
}

impl CrashModel {
    /// Nothing survives that was not synced.
    pub const LOSE_ALL: Self = Self {
        sector_kept_permille: 0,
        sector_torn_permille: 0,
        length_kept_permille: 0,
        length_between_permille: 0,
        name_kept_permille: 0,
    };
    /// Everything survives, as when only the process was killed.
    pub const KEEP_ALL: Self = Self {
        sector_kept_permille: 1000,
        sector_torn_permille: 0,
        length_kept_permille: 1000,
        length_between_permille: 0,
        name_kept_permille: 1000,
    };
    /// Anything may survive.
    pub const RANDOM: Self = Self {
        sector_kept_permille: 500,
        sector_torn_permille: 100,
        length_kept_permille: 500,
        length_between_permille: 700,
        name_kept_permille: 500,
    };
}
