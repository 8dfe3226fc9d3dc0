//! The node's identity file.

use riverrun_storage::StdDisk;
use riverrun_storage::node::{IdentitySlot, Start, read_identity, read_identity_slots};

use super::input::{Failure, Input};
use super::line::Line;
use super::report::Report;

/// Shows both slots.
pub(super) fn dump(input: Input, report: &mut Report<'_>) -> Result<(), Failure> {
    report.title("node identity", input.len())?;
    match read_identity_slots(&StdDisk, input.path()) {
        Ok(slots) => {
            for (position, slot) in slots {
                show(position, slot, report)?;
            }
        }
        Err(error) => return Ok(report.node_error(&error)?),
    }
    // One slot that cannot be read is what a stop during a change leaves.
    match read_identity(&StdDisk, input.path()) {
        Ok(_) => Ok(()),
        Err(error) => Ok(report.node_error(&error)?),
    }
}

/// The starts that a directory remembers, the latest last, each as its number and what it has drawn.
fn starts(starts: &[Start]) -> String {
    let each = starts
        .iter()
        .map(|start| format!("{}:{:016x}", start.incarnation, start.token));
    each.collect::<Vec<_>>().join(" ")
}

fn show(position: u64, slot: IdentitySlot, report: &mut Report<'_>) -> Result<(), Failure> {
    match slot {
        IdentitySlot::Empty => report.note(Some(position), "a slot that was never written")?,
        IdentitySlot::Bad => report.note(Some(position), "a slot that cannot be read")?,
        IdentitySlot::OtherVersion(version) => {
            report.note(
                Some(position),
                &format!("a slot of format version {version}"),
            )?;
        }
        IdentitySlot::Good { sequence, identity } => {
            let line = Line::new("identity")
                .detail("position", position)
                .detail("sequence", sequence)
                .detail("node_id", identity.node_id)
                .detail("directory_id", identity.directory_id)
                .detail(
                    "cluster_id",
                    identity
                        .cluster_id
                        .map(|id| id.to_string())
                        .unwrap_or_default(),
                )
                .detail("incarnation", identity.incarnation)
                .detail("kernel_boot_id", identity.kernel_boot_id)
                .detail("clean_stop", identity.clean)
                .detail("starts", starts(&identity.starts))
                .detail("heard_start", starts(identity.heard.as_slice()))
                .detail("wal_end_round", identity.wal_end.map_or(0, |end| end.round))
                .detail(
                    "damage_since",
                    identity.damage.map_or(0, |damage| damage.since),
                );
            report.line(&line)?;
        }
    }
    Ok(())
}
