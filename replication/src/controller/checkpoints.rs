//! The images of the controller that lie beside group 0's log, so that a start replays only what
//! came after the newest.
//!
//! A file is written under another name, synced, renamed, and its directory synced; only then are
//! older ones removed, all but one. So at every moment, and after a crash at any, one that was whole
//! before is whole still, or there never was one and the log is replayed from its beginning. A file
//! that cannot be read, or that does not agree with the log, is passed over for the one before it.
//!
//! An image is of committed entries that are durable here, so a log that is shorter than it, or that
//! has another term there, is not the log that it was made of.

use std::io::{self, ErrorKind, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use riverrun_storage::disk::is_of_machine;
use riverrun_storage::{Disk, LogReader, OpenMode};

use super::Controller;

/// Behind the name of every file.
const SUFFIX: &str = ".checkpoint";
/// What a log clears away at its start when it finds it.
const ASIDE: &str = ".tmp";
/// Files that are kept: the newest, and one to fall back to.
const KEPT: usize = 2;
/// The longest image that is read. The log is replayed instead of a longer one.
const MAX_BYTES: u64 = 1 << 30;

/// The least of commands, in bytes of their batches, behind which an image is written: some
/// thousands of commands, which are replayed within tens of milliseconds.
pub const MIN_BYTES: u64 = 1 << 20;

/// When an image is to be written: when more has been applied than [`MIN_BYTES`], and more than the
/// image before is long. So what is replayed is never much more than what is loaded, and all images
/// together cost no more writing than the log does.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    min_bytes: u64,
    applied: u64,
    image: u64,
}

impl Pace {
    /// With a least number of bytes, which is [`MIN_BYTES`] everywhere but in tests.
    #[must_use]
    pub fn new(min_bytes: u64) -> Self {
        Self {
            min_bytes,
            applied: 0,
            image: 0,
        }
    }

    /// A batch was applied.
    pub fn applied(&mut self, batch_bytes: usize) {
        self.applied = self.applied.saturating_add(batch_bytes as u64);
    }

    /// The image is about to be written: what is applied from now on is not in it.
    pub fn begin(&mut self) {
        self.applied = 0;
    }

    /// An image of this length was written, or found.
    pub fn imaged(&mut self, image_bytes: usize) {
        self.image = image_bytes as u64;
    }

    /// Whether the next image is due.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.applied >= self.min_bytes.max(self.image)
    }
}

/// An image that was found; by default the one of a cluster of which nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The controller as of then.
    pub controller: Controller,
    /// The term of the last entry that is in it.
    pub term: u64,
    /// How long the file is.
    pub bytes: usize,
}

/// The files of one directory.
#[derive(Debug)]
pub struct Checkpoints {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// What a name says: the offset behind the last batch, and the term of that batch.
type At = (i64, u64);

fn name_of((offset, term): At) -> String {
    format!("{offset:020}-{term:010}{SUFFIX}")
}

fn parse(name: &str) -> Option<At> {
    let (offset, term) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(offset) || !digits(term) {
        return None;
    }
    Some((offset.parse().ok()?, term.parse().ok()?))
}

/// Whether the log is the one that an image with this name was made of.
fn agrees(log: &LogReader, (offset, term): At) -> bool {
    let start = log.start();
    if offset == start.offset {
        // Its last batch is gone with the head of the log; what followed it had no older term.
        return (1..=start.prev_term).contains(&term);
    }
    offset > start.offset
        && log
            .epoch_of_offset(offset - 1)
            .is_some_and(|epoch| u64::try_from(epoch) == Ok(term))
}

impl Checkpoints {
    /// Those in group 0's directory.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir }
    }

    /// The files, the newest first, by name.
    fn list(&self) -> io::Result<Vec<(At, String)>> {
        let mut found: Vec<(At, String)> = self
            .disk
            .read_dir(&self.dir)?
            .into_iter()
            .filter_map(|entry| Some((parse(&entry.name)?, entry.name)))
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// The newest image that is whole and agrees with the log; none where there is none.
    ///
    /// # Errors
    /// Where the directory cannot be listed, and those of the machine, which say nothing of an image.
    pub fn load(&self, log: &LogReader) -> io::Result<Option<Found>> {
        for (at, name) in self.list()? {
            match self.read(log, at, &name)? {
                Ok(found) => return Ok(Some(found)),
                Err(why) => tracing::warn!(
                    file = %self.dir.join(&name).display(),
                    why,
                    "an image of the cluster's state is passed over for an older one"
                ),
            }
        }
        Ok(None)
    }

    /// The newest image that is whole, where the log cannot be read that it was made of: what was true
    /// once, and nothing to carry out orders by.
    ///
    /// # Errors
    /// Where the directory cannot be listed, or the machine lets nothing be read.
    pub fn load_without_log(&self) -> io::Result<Option<Found>> {
        for (at, name) in self.list()? {
            if let Ok(found) = self.read_whole(at, &name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// An image, or why it is passed over.
    fn read(&self, log: &LogReader, at: At, name: &str) -> io::Result<Result<Found, String>> {
        if !agrees(log, at) {
            return Ok(Err("the log is not the one that it was made of".to_owned()));
        }
        self.read_whole(at, name)
    }

    fn read_whole(&self, at: At, name: &str) -> io::Result<Result<Found, String>> {
        let bytes = match self.bytes(name) {
            Ok(bytes) => bytes,
            Err(error) if is_of_machine(&error) => return Err(error),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let controller = match Controller::from_checkpoint(&bytes) {
            Ok(controller) => controller,
            Err(bad) => return Ok(Err(format!("damaged at byte 0: {bad}"))),
        };
        if controller.image().next_offset != at.0 {
            return Ok(Err("its name gives another offset".to_owned()));
        }
        Ok(Ok(Found {
            controller,
            term: at.1,
            bytes: bytes.len(),
        }))
    }

    fn bytes(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.disk.open(&self.dir.join(name), OpenMode::ReadOnly)?;
        let len = file.len()?;
        if len > MAX_BYTES {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Writes an image and removes those that it makes needless. `term` is that of the last entry in
    /// it. Blocks.
    ///
    /// # Errors
    /// Where the disk refuses; the ones before are there still.
    pub fn write(&self, controller: &Controller, term: u64) -> io::Result<usize> {
        let bytes = controller.checkpoint();
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let at = (controller.image().next_offset, term);
        let path = self.dir.join(name_of(at));
        let aside = self.dir.join(name_of(at) + ASIDE);
        let written = (|| {
            let file = self.disk.open(&aside, OpenMode::Create)?;
            // One of that name may be left of a life that ended here.
            file.set_len(0)?;
            file.write_all_at(&[IoSlice::new(&bytes)], 0)?;
            file.sync_data()?;
            self.disk.rename(&aside, &path)?;
            self.disk.sync_dir(&self.dir)
        })();
        if let Err(error) = written {
            // After a failed sync nobody knows what the disk has (W8): it must not be found.
            for path in [&aside, &path] {
                match self.disk.remove_file(path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        let file = path.display();
                        tracing::warn!(%file, %error, "an image that failed cannot be removed");
                    }
                    _ => {}
                }
            }
            return Err(error);
        }
        self.remove_older()?;
        Ok(bytes.len())
    }

    /// A name that stays after a crash is removed the next time.
    fn remove_older(&self) -> io::Result<()> {
        for (_, name) in self.list()?.into_iter().skip(KEPT) {
            self.disk.remove_file(&self.dir.join(name))?;
        }
        Ok(())
    }
}
