//! Finds a cell's file in a data directory, and does the damage to its bytes.

use std::path::{Path, PathBuf};

use super::cells::{Cell, Damage, Kind, Owner, Which};
use super::keep::Image;

/// The bytes of a page.
const PAGE: usize = 4096;
/// The directory of the controller's group.
const GROUP_ZERO: &str = "__cluster_metadata-0";
const NODE: &str = "node";

/// A stopped node's data directory. Paths are relative to it.
pub(crate) trait Files {
    /// Every file.
    fn list(&self) -> Vec<PathBuf>;
    /// The bytes of a file.
    fn read(&self, path: &Path) -> Vec<u8>;
    /// Puts a file there with these bytes.
    fn put(&mut self, path: &Path, bytes: &[u8]);
    /// Takes a file away.
    fn remove(&mut self, path: &Path);
    /// Takes a directory away with all that is in it.
    fn remove_dir(&mut self, path: &Path);
}

/// What was done.
#[derive(Debug, Clone)]
pub(crate) struct Struck {
    /// The files or directories that are not what they were.
    pub(crate) paths: Vec<PathBuf>,
    /// The same in words, with the place.
    pub(crate) what: String,
}

/// The directories of partitions, in name order.
pub(crate) fn partitions(files: &[PathBuf]) -> Vec<PathBuf> {
    let dirs = files.iter().filter_map(|path| path.parent());
    let mut dirs: Vec<PathBuf> = dirs
        .filter(|dir| {
            let name = dir.to_string_lossy();
            let numbered = name.rsplit_once('-');
            dir.components().count() == 1
                && name != GROUP_ZERO
                && numbered.is_some_and(|(_, number)| number.parse::<u32>().is_ok())
                && !name.contains(".aside-")
        })
        .map(Path::to_path_buf)
        .collect();
    dirs.sort();
    dirs.dedup();
    dirs
}

fn directory(kind: &Kind, files: &[PathBuf]) -> Option<PathBuf> {
    match kind.owner {
        Owner::Node => Some(PathBuf::from(NODE)),
        Owner::GroupZero => Some(PathBuf::from(GROUP_ZERO)),
        Owner::Partition => partitions(files).into_iter().next(),
        Owner::All => Some(PathBuf::new()),
    }
}

/// The file of a kind in a directory.
fn pick(kind: &Kind, dir: &Path, files: &[PathBuf]) -> Option<PathBuf> {
    if kind.which == Which::Directory {
        return Some(dir.to_path_buf());
    }
    let is_one = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.parent() == Some(dir) && name.ends_with(kind.ends)
    };
    let mut found: Vec<&PathBuf> = files.iter().filter(is_one).collect();
    found.sort();
    let at = match kind.which {
        Which::Sealed => {
            let sealed = sealed_bases(dir, files);
            let of_sealed = |path: &&&PathBuf| sealed.iter().any(|base| begins_with(path, base));
            let sealed: Vec<&&PathBuf> = found.iter().filter(of_sealed).collect();
            return sealed.get(sealed.len() / 2).map(|path| (**path).clone());
        }
        Which::Newest | Which::Directory => found.len().checked_sub(1)?,
    };
    let newest = found.get(at).map(|path| (*path).clone())?;
    // Of the newest segment, where segments have such a file.
    let of_segments = [".log", ".raft", ".aux", ".index", ".timeindex"];
    let newest_base = bases(dir, files).pop();
    if of_segments.contains(&kind.ends)
        && kind.owner == Owner::Partition
        && newest_base.is_some_and(|base| !begins_with(&newest, &base))
    {
        return None;
    }
    Some(newest)
}

fn begins_with(path: &Path, base: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(base)
}

/// The names of a directory's segments, without what they end in.
fn bases(dir: &Path, files: &[PathBuf]) -> Vec<String> {
    let names = files.iter().filter(|path| path.parent() == Some(dir));
    let mut bases: Vec<String> = names
        .filter_map(|path| Some(path.file_name()?.to_str()?.strip_suffix(".log")?.to_owned()))
        .collect();
    bases.sort();
    bases
}

fn sealed_bases(dir: &Path, files: &[PathBuf]) -> Vec<String> {
    let mut bases = bases(dir, files);
    bases.pop();
    bases
}

/// Does the damage of a cell. Nothing where a directory has no such file, or nothing would be different.
pub(crate) fn inflict(
    cell: &Cell,
    spot: u32,
    files: &mut dyn Files,
    older: &[Image],
) -> Option<Struck> {
    let listed = files.list();
    let dir = directory(cell.file, &listed)?;
    let mut path = pick(cell.file, &dir, &listed)?;
    let older = older.get(usize::try_from(spot).ok()? % older.len().max(1));
    if cell.file.is_without_image() {
        let images = listed.iter().filter(|path| path.starts_with(&dir));
        for image in images.filter(|path| path.to_string_lossy().ends_with(".checkpoint")) {
            files.remove(image);
        }
    }
    if cell.file.which == Which::Directory {
        return strike_directory(cell, &path, files, older);
    }
    if cell.damage == Damage::OlderCopy {
        path = with_older(cell.file, path, files, older?)?;
    }
    let bytes = files.read(&path);
    let what = match cell.damage {
        Damage::Gone => {
            files.remove(&path);
            "gone".to_owned()
        }
        Damage::Swapped => {
            let with = partner(cell.file, spot, &path, &listed)?;
            let other = files.read(&with);
            if other == bytes {
                return None;
            }
            files.put(&path, &other);
            files.put(&with, &bytes);
            let what = format!("exchanged with {}", with.display());
            let paths = vec![path, with];
            return Some(Struck { paths, what });
        }
        Damage::OlderCopy => {
            let old = older?.get(&path).filter(|old| **old != bytes)?;
            files.put(&path, old);
            format!("an older copy of {} for {} bytes", old.len(), bytes.len())
        }
        Damage::Bit | Damage::ZeroedPage | Damage::CutShort => {
            let at = match cell.file.ends {
                "wal" => place_in_wal(&bytes, spot),
                _ => place_in(&bytes, spot),
            };
            let (bad, what) = damaged(&bytes, cell.damage, at?, spot)?;
            files.put(&path, &bad);
            what
        }
    };
    let paths = vec![path];
    Some(Struck { paths, what })
}

fn strike_directory(
    cell: &Cell,
    dir: &Path,
    files: &mut dyn Files,
    older: Option<&Image>,
) -> Option<Struck> {
    let listed = files.list();
    let mut paths = vec![dir.to_path_buf()];
    let what = match cell.damage {
        Damage::Gone => {
            files.remove_dir(dir);
            "gone".to_owned()
        }
        Damage::OlderCopy => {
            let older = older?;
            files.remove_dir(dir);
            for (path, bytes) in older.iter().filter(|(path, _)| path.starts_with(dir)) {
                files.put(path, bytes);
            }
            "an older copy".to_owned()
        }
        Damage::Swapped => {
            let with = partitions(&listed).into_iter().nth(1)?;
            let of = |dir: &Path| -> Vec<(PathBuf, Vec<u8>)> {
                let below = listed.iter().filter(|path| path.starts_with(dir));
                let named = below.filter_map(|path| Some((path.file_name()?, path)));
                named
                    .map(|(name, path)| (PathBuf::from(name), files.read(path)))
                    .collect()
            };
            let (mine, theirs) = (of(dir), of(&with));
            for (to, from) in [(dir, theirs), (&with, mine)] {
                files.remove_dir(to);
                for (name, bytes) in from {
                    files.put(&to.join(name), &bytes);
                }
            }
            paths.push(with.clone());
            format!("exchanged with {}", with.display())
        }
        Damage::Bit | Damage::ZeroedPage | Damage::CutShort => return None,
    };
    Some(Struck { paths, what })
}

/// The file itself where it has changed since the copy, else one of its kind beside it that has.
fn with_older(kind: &Kind, path: PathBuf, files: &dyn Files, older: &Image) -> Option<PathBuf> {
    let dir = path.parent()?;
    let mut alike: Vec<PathBuf> = files.list();
    let sealed = sealed_bases(dir, &alike);
    alike.retain(|other| {
        let name = other.file_name().unwrap_or_default().to_string_lossy();
        let is_sealed = sealed.iter().any(|base| begins_with(other, base));
        other.parent() == Some(dir)
            && name.ends_with(kind.ends)
            && (kind.which != Which::Sealed || is_sealed)
    });
    let changed = |path: &PathBuf| older.get(path).is_some_and(|old| *old != files.read(path));
    if changed(&path) {
        return Some(path);
    }
    if kind.which == Which::Newest && kind.owner == Owner::Partition {
        return None;
    }
    alike.into_iter().rfind(changed)
}

/// What a file is exchanged with.
fn partner(kind: &Kind, spot: u32, path: &Path, files: &[PathBuf]) -> Option<PathBuf> {
    let partitions = partitions(files);
    match kind.owner {
        Owner::Node if kind.ends == "identity" => Some(path.with_file_name("cluster")),
        Owner::Node => Some(path.with_file_name("identity")),
        Owner::GroupZero => {
            let of = partitions.first()?;
            let there = pick(kind, of, files);
            // An image of the cluster is nothing that a partition has.
            there.or_else(|| pick_any(of, ".log", files))
        }
        Owner::Partition if spot == 0 => pick(kind, partitions.get(1)?, files),
        Owner::Partition => {
            let dir = path.parent()?;
            let alike = |other: &&PathBuf| {
                let name = other.file_name().unwrap_or_default().to_string_lossy();
                other.parent() == Some(dir) && name.ends_with(kind.ends) && other.as_path() != path
            };
            files.iter().rfind(alike).cloned()
        }
        Owner::All => None,
    }
}

fn pick_any(dir: &Path, ends: &str, files: &[PathBuf]) -> Option<PathBuf> {
    let mut files = files.iter();
    let found = files.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.parent() == Some(dir) && name.ends_with(ends)
    });
    found.cloned()
}

/// A place in what was written of a file. The first three are its head, its middle and its end; further ones
/// lie anywhere.
fn place_in(bytes: &[u8], spot: u32) -> Option<usize> {
    let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    Some(match spot {
        0 => used.min(40) / 2,
        1 => used / 2,
        2 => used - 1 - used.min(24) / 2,
        more => usize::try_from(mix(more) % used as u64).ok()?,
    })
}

/// The same of a WAL, most of which is what nobody reads any more: its header, what a start reads first, the
/// newer start mark; further places lie among the first records that a start reads. What was written last is
/// none of them: a bit in the very last flush round looks like a torn write.
fn place_in_wal(bytes: &[u8], spot: u32) -> Option<usize> {
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    const MARKS: [usize; 2] = [4096, 8192];
    const RING: usize = 12288;
    let newer = MARKS.into_iter().max_by_key(|mark| number(mark + 16))?;
    let ring = u64::try_from(bytes.len().checked_sub(RING)?).ok()?;
    let begins = RING + usize::try_from(number(newer + 24)? % ring.max(1)).ok()?;
    let at = match spot {
        0 => 20,
        1 => begins + 30,
        2 => newer + 20,
        more => begins + usize::try_from(mix(more) % 400).ok()?,
    };
    Some(at.min(bytes.len() - 1))
}

/// Bytes that went bad, and what happened to them.
fn damaged(bytes: &[u8], damage: Damage, at: usize, spot: u32) -> Option<(Vec<u8>, String)> {
    let mut bad = bytes.to_vec();
    let what = match damage {
        Damage::Bit => {
            let bit = spot % 8;
            *bad.get_mut(at)? ^= 1 << bit;
            format!("bit {bit} of byte {at}")
        }
        Damage::ZeroedPage => {
            let from = at / PAGE * PAGE;
            let to = (from + PAGE).min(bytes.len());
            bad.get_mut(from..to)?.fill(0);
            format!("zeros from byte {from} to {to}")
        }
        Damage::CutShort => {
            let to = match spot {
                0 => 0,
                2 => bytes.iter().rposition(|byte| *byte != 0)?,
                _ => at,
            };
            bad.truncate(to);
            format!("{to} of {} bytes are left", bytes.len())
        }
        _ => return None,
    };
    (bad != bytes).then_some((bad, what))
}

/// A number that looks drawn, the same for the same input.
fn mix(number: u32) -> u64 {
    let mut z = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 31)
}
