//! Nodes that come to a cluster come to one and the same, and each is named in it.

use uuid::Uuid;

use super::{Checked, Violation};

/// A node has come to its cluster; these are those of all nodes.
///
/// # Errors
/// Where two are not the same.
pub fn comes(node: usize, clusters: &[Option<Uuid>]) -> Checked {
    let own = clusters.get(node).copied().flatten();
    let other = clusters
        .iter()
        .enumerate()
        .find(|(_, cluster)| cluster.is_some() && **cluster != own);
    match other {
        None => Ok(()),
        Some((other, cluster)) => Err(Violation::new(
            "one_cluster",
            format!("node {node} is of {own:?}, node {other} of {cluster:?}"),
        )),
    }
}
