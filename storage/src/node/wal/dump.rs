//! A WAL file for people: every record that counts, with its place, and why reading ends.

use std::path::Path;

use uuid::Uuid;

use super::chain::{ChainEnd, Step, follow};
use super::preamble::{Mark, Preamble};
use super::record::{RecordBody, RecordHeader};
use crate::disk::{Disk, OpenMode};
use crate::node::error::NodeError;

/// One thing that was found in the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpItem {
    /// A record that counts.
    Record {
        /// How many bytes had ever been laid into the ring before it.
        position: u64,
        /// Its first byte in the file.
        file_offset: u64,
        /// Its header.
        header: RecordHeader,
        /// What it says; `None` for a kind that this program does not know.
        body: Option<RecordBody>,
    },
    /// Damage: records that had been synced are not readable.
    Damage {
        /// The first bad byte in the file.
        file_offset: u64,
        /// Bytes until the next good record.
        bytes: u64,
    },
    /// The end of what counts.
    End {
        /// Where the next round would be written.
        position: u64,
        /// Its byte in the file.
        file_offset: u64,
        /// That round's number. One that is not above the newer start mark's `must_reach` is damage.
        round: u64,
        /// Whether a part of one more round lies there, which was never acknowledged.
        torn: bool,
    },
}

/// A whole WAL file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalDump {
    /// The data directory that it belongs to.
    pub directory_id: Uuid,
    /// Bytes of the ring.
    pub capacity: u64,
    /// Both start marks, where their checksums are good.
    pub marks: [Option<Mark>; 2],
    /// What is in the ring from the newer mark on, ending with [`DumpItem::End`].
    pub items: Vec<DumpItem>,
}

impl IntoIterator for WalDump {
    type Item = DumpItem;
    type IntoIter = std::vec::IntoIter<DumpItem>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

/// Reads a WAL file and changes nothing.
pub fn dump(disk: &dyn Disk, path: &Path) -> Result<WalDump, NodeError> {
    let file = disk
        .open(path, OpenMode::ReadOnly)
        .map_err(NodeError::io(path))?;
    let preamble = Preamble::read(&*file, path)?;
    let mark = preamble.newest_mark(path)?;
    let geometry = preamble.geometry;
    let chain = follow(&*file, geometry, mark.point, None, None).map_err(NodeError::io(path))?;
    let mut items = Vec::with_capacity(chain.steps.len() + 1);
    for step in &chain.steps {
        items.push(match step {
            Step::Record {
                position,
                header,
                body,
            } => DumpItem::Record {
                position: *position,
                file_offset: geometry.offset(*position),
                header: *header,
                body: chain.body(header, body),
            },
            Step::Gap { from, to } => DumpItem::Damage {
                file_offset: geometry.offset(*from),
                bytes: to - from,
            },
        });
    }
    let position = chain.tail.position;
    items.push(DumpItem::End {
        position,
        file_offset: geometry.offset(position),
        round: chain.tail.round,
        torn: chain.end == ChainEnd::Torn,
    });
    Ok(WalDump {
        directory_id: preamble.directory_id,
        capacity: geometry.capacity,
        marks: preamble.marks,
        items,
    })
}
