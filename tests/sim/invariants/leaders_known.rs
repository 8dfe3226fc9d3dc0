//! Every node can say who leads a group (L6): never of a term that is older than one it has named,
//! and within a bound after the faults the one that leads.

use std::collections::BTreeMap;

use super::{Checked, Violation};

/// What a node answers for a group now, and the terms whose leaders it has named before.
///
/// # Errors
/// Where the term is lower than one of those: a client that has seen the later one is told of the earlier
/// leader again, and asks for ever.
pub fn answers(
    group: u64,
    node: usize,
    answer: Option<(u64, Option<i32>)>,
    before: &mut BTreeMap<u64, u64>,
) -> Checked {
    let (term, leader) = answer.unwrap_or_default();
    let newest = before.entry(group).or_default();
    if term < *newest {
        return Err(Violation::new(
            "leaders_known",
            format!("group {group}: node {node} answers {answer:?}, it has named term {newest}"),
        ));
    }
    // A term in which nobody is known to lead may be one that nobody ever leads.
    if leader.is_some() {
        *newest = term;
    }
    Ok(())
}

/// What every node answers at the end, and who leads.
///
/// # Errors
/// Where a node names somebody else.
pub fn at_the_end(group: u64, leader: i32, answers: &[Option<(u64, Option<i32>)>]) -> Checked {
    for (node, answer) in answers.iter().enumerate() {
        if answer.is_none_or(|(_, named)| named != Some(leader)) {
            return Err(Violation::new(
                "leaders_known",
                format!("group {group}: node {node} answers {answer:?}, node.id {leader} leads"),
            ));
        }
    }
    Ok(())
}
