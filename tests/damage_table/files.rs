//! A simulated node's data directory, as the damage finds it.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use riverrun_sim::host::data_dir;
use riverrun_storage::disk::mem::{CrashModel, MemDisk};
use riverrun_storage::{Disk, OpenMode};

use crate::damage::{Files, Image};

/// The durable files of a stopped node's disk.
pub(crate) struct OnDisk<'a>(pub(crate) &'a MemDisk);

impl OnDisk<'_> {
    /// Every file with its bytes.
    pub(crate) fn image(&self) -> Image {
        let files = self.list().into_iter();
        files.map(|path| (path.clone(), self.read(&path))).collect()
    }

    /// What was done is what is read from now on.
    pub(crate) fn settle(&self) {
        self.0.crash(1, &CrashModel::KEEP_ALL);
    }
}

impl Files for OnDisk<'_> {
    fn list(&self) -> Vec<PathBuf> {
        let files = self.0.durable_files().into_iter();
        let below =
            files.filter_map(|(path, _)| Some(path.strip_prefix(data_dir()).ok()?.to_owned()));
        below.collect()
    }

    fn read(&self, path: &Path) -> Vec<u8> {
        self.0
            .durable_image(&data_dir().join(path))
            .unwrap_or_default()
    }

    fn put(&mut self, path: &Path, bytes: &[u8]) {
        let path = data_dir().join(path);
        if self.0.put_durable_image(&path, bytes.to_vec()) {
            self.settle();
            return;
        }
        let dir = path.parent().unwrap();
        self.0.create_dir_all(dir).unwrap();
        let file = self.0.open(&path, OpenMode::CreateNew).unwrap();
        file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
        file.sync_data().unwrap();
        self.0.sync_dir(dir).unwrap();
    }

    fn remove(&mut self, path: &Path) {
        let path = data_dir().join(path);
        self.0.remove_file(&path).unwrap();
        self.0.sync_dir(path.parent().unwrap()).unwrap();
    }

    fn remove_dir(&mut self, path: &Path) {
        let path = data_dir().join(path);
        if path == data_dir().join("") {
            self.0.wipe();
            return;
        }
        self.0.remove_dir_all(&path).unwrap();
        self.0.sync_dir(&data_dir()).unwrap();
    }
}
