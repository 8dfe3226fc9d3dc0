//! What was found to be bad is written down beside the log, so that a restart knows it at once.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, OpenMode};
use crate::format::TMP_SUFFIX;
use crate::format::bad_places::{BadPlace, BadPlaces, DAMAGED_NAME, FILE_NAME, MOST_PLACES};
use crate::log::Log;
use crate::log::bad::BadEntry;
use crate::log::error::{IoContext, LogResult};
use crate::log::files::{read_whole, remove};
use crate::log::reader::LogReader;
use crate::recovered::LogIdentity;

impl Log {
    /// Writes down, durably, which entries are bad, where that has changed since it was done last.
    ///
    /// # Errors
    /// I/O errors; what was written down before stays then.
    pub fn remember_bad(&mut self) -> LogResult<()> {
        let bad = self.reader().bad_entries();
        let indexes = indexes(&bad);
        if *self.shared.remembered.lock() == indexes {
            return Ok(());
        }
        let (disk, dir) = (&self.shared.disk, &self.shared.dir);
        let path = dir.join(FILE_NAME);
        if indexes.is_empty() {
            remove(disk, &path)?;
        } else {
            let file = BadPlaces {
                group: self.identity.group,
                replica: self.identity.replica,
                places: bad.iter().take(MOST_PLACES).map(BadPlace::from).collect(),
            };
            let aside = dir.join(format!("{FILE_NAME}{TMP_SUFFIX}"));
            remove(disk, &aside)?;
            let open = disk.open(&aside, OpenMode::CreateNew).at(&aside)?;
            let bytes = file.encode();
            open.write_all_at(&[IoSlice::new(&bytes)], 0).at(&aside)?;
            open.sync_data().at(&aside)?;
            disk.rename(&aside, &path).at(&path)?;
        }
        disk.sync_dir(dir).at(dir)?;
        *self.shared.remembered.lock() = indexes;
        Ok(())
    }

    /// Takes what an earlier life wrote down.
    pub(super) fn recall_bad(&mut self) -> LogResult<()> {
        let (disk, dir) = (&self.shared.disk, &self.shared.dir);
        let places = read(disk, dir, &self.identity)?;
        if places.is_empty() {
            return Ok(());
        }
        let (first, last) = (self.first_index(), self.last_index());
        let now = disk.now();
        *self.shared.remembered.lock() = places.iter().map(|place| place.index).collect();
        let there = places
            .iter()
            .filter(|place| (first..=last).contains(&place.index));
        let inner = self.shared.inner.read();
        let mut bad = self.shared.bad.lock();
        for place in there {
            // Perhaps it was one that the disk refuses to give.
            let sealed = inner.sealed_of_index(place.index);
            let files = sealed.map_or(&inner.active.files, |sealed| &sealed.files);
            files.give_up(place.index);
            bad.entry(place.index).or_insert(BadEntry {
                index: place.index,
                first_offset: place.first_offset,
                next_offset: place.next_offset,
                found: now,
            });
        }
        Ok(())
    }
}

impl LogReader {
    /// Whether it is written down beside the log which entries are bad, and no others are.
    #[must_use]
    pub fn remembers_bad(&self) -> bool {
        let now = indexes(&self.bad_entries());
        *self.shared.remembered.lock() == now
    }
}

/// Those that are written down.
fn indexes(bad: &[BadEntry]) -> Vec<u64> {
    bad.iter().map(|bad| bad.index).take(MOST_PLACES).collect()
}

impl From<&BadEntry> for BadPlace {
    fn from(bad: &BadEntry) -> Self {
        Self {
            index: bad.index,
            first_offset: bad.first_offset,
            next_offset: bad.next_offset,
        }
    }
}

/// What the file says; nothing where there is none, where it is another replica's, or where it cannot be read.
fn read(disk: &Arc<dyn Disk>, dir: &Path, identity: &LogIdentity) -> LogResult<Vec<BadPlace>> {
    let path = dir.join(FILE_NAME);
    let file = match disk.open(&path, OpenMode::Existing) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at(&path)?,
    };
    let decoded = match read_whole(&file) {
        Err(error) if error.is_of_one_place() => Err("it cannot be read"),
        read => BadPlaces::decode(&read?),
    };
    let why = match decoded {
        Ok(file) if (file.group, file.replica) == (identity.group, identity.replica) => {
            return Ok(file.places);
        }
        Ok(_) => "it is another replica's",
        Err(why) => why,
    };
    tracing::warn!(
        file = %path.display(),
        why,
        "which entries are bad at rest is not known: a scrub finds them again"
    );
    let aside = dir.join(DAMAGED_NAME);
    if let Err(error) = disk.rename(&path, &aside) {
        tracing::warn!(file = %path.display(), %error, "it is not set aside");
    }
    Ok(Vec::new())
}
