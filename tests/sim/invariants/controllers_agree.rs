//! The controller's image is the same on every node that has applied the same commands.

use std::collections::BTreeMap;

use riverrun_replication::controller::Controller;

use super::{Checked, Violation};

/// A hash of the image behind every offset of group 0.
#[derive(Debug, Default)]
pub struct Images {
    images: BTreeMap<i64, u64>,
}

impl Images {
    /// A node has applied a batch, and what came of it survives a checkpoint.
    ///
    /// # Errors
    /// Where another node arrived at another image, or the checkpoint is read back as another one.
    pub fn applied(&mut self, node: usize, controller: &Controller) -> Checked {
        let broken = |detail: String| Err(Violation::new("controllers_agree", detail));
        let offset = controller.image().next_offset;
        let checkpoint = controller.checkpoint();
        let hash = u64::from(crc32fast::hash(&checkpoint)) << 32 | checkpoint.len() as u64;
        let first = *self.images.entry(offset).or_insert(hash);
        if first != hash {
            return broken(format!("node {node} has another image at offset {offset}"));
        }
        match Controller::from_checkpoint(&checkpoint) {
            Ok(read) if read == *controller => Ok(()),
            Ok(_) => broken(format!(
                "node {node}: the checkpoint at {offset} is another image"
            )),
            Err(error) => broken(format!("node {node}: {error} at {offset}")),
        }
    }
}
