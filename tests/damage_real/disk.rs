//! A stopped process's data directory, as the damage finds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::damage::{Files, Image};

/// A data directory.
pub(super) struct Data(pub(super) PathBuf);

impl Data {
    /// Every file with its bytes.
    pub(super) fn image(&self) -> Image {
        let files = self.list().into_iter();
        files.map(|path| (path.clone(), self.read(&path))).collect()
    }

    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(dir) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                Self::walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
}

impl Files for Data {
    fn list(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        Self::walk(&self.0, &mut found);
        let below = found
            .iter()
            .filter_map(|path| path.strip_prefix(&self.0).ok());
        let mut below: Vec<PathBuf> = below.map(Path::to_path_buf).collect();
        below.sort();
        below
    }

    fn read(&self, path: &Path) -> Vec<u8> {
        fs::read(self.0.join(path)).unwrap_or_default()
    }

    fn put(&mut self, path: &Path, bytes: &[u8]) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn remove(&mut self, path: &Path) {
        fs::remove_file(self.0.join(path)).unwrap();
    }

    fn remove_dir(&mut self, path: &Path) {
        fs::remove_dir_all(self.0.join(path)).unwrap();
    }
}

/// Puts a copy of a directory where another one is. Most of a WAL is zeros.
pub(super) fn copy_over(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let status = Command::new("cp")
        .args(["-a", "--sparse=always"])
        .args([from, to])
        .status()
        .context("cp")?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}
