//! The file that says how a node came to its cluster.

use riverrun_replication::founding::{Known, MAX_BYTES};

use super::input::{Failure, Input};
use super::line::{Line, Value};
use super::report::Report;

/// Shows the record and whom it names.
pub(super) fn dump(mut input: Input, report: &mut Report<'_>) -> Result<(), Failure> {
    report.title("cluster record", input.len())?;
    let record = match Known::from_file(&input.whole(MAX_BYTES + 16)?) {
        Ok(record) => record,
        Err(bad) => return Ok(report.damage(Some(bad.position()), bad.what())?),
    };
    let first_voters = record.first_voters.iter().map(|id| (*id).into());
    report.line(
        &Line::new("cluster")
            .detail("cluster_id", record.cluster())
            .detail("first_voters", Value::List(first_voters.collect()))
            .detail("founded", record.founders),
    )?;
    for member in &record.members {
        report.line(
            &Line::new("member")
                .detail("node", member.node)
                .detail("directory_id", member.directory_id())
                .detail("replica", member.replica)
                .detail("host", member.host.as_str())
                .detail("port", member.port),
        )?;
    }
    Ok(())
}
