//! When faults stop, every group goes on within a bound, and every replica of it catches up.

use super::{Checked, Violation};

/// How a group stands at the end of the time that it was given.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The group.
    pub group: u64,
    /// Whether something that was written after the faults was acknowledged.
    pub progressed: bool,
    /// The replicas that should be there: node, and the watermark that each shows, if it is there.
    pub replicas: Vec<(usize, Option<i64>)>,
    /// What else is known, for whoever looks into it.
    pub detail: String,
}

/// Looks at a group at the end.
///
/// # Errors
/// Where it made no progress, or a replica is missing or behind.
pub fn check(standing: &Standing) -> Checked {
    let stuck = |what: String| {
        Err(Violation::new(
            "no_group_stuck",
            format!("group {}: {what}; {}", standing.group, standing.detail),
        ))
    };
    if !standing.progressed {
        return stuck("nothing was acknowledged after the faults stopped".to_owned());
    }
    let highest = standing
        .replicas
        .iter()
        .filter_map(|(_, watermark)| *watermark)
        .max();
    for (node, watermark) in &standing.replicas {
        match watermark {
            None => return stuck(format!("there is no replica on node {node}")),
            Some(_) if *watermark == highest => {}
            Some(behind) => {
                return stuck(format!("node {node} shows {behind}, others {highest:?}"));
            }
        }
    }
    Ok(())
}
