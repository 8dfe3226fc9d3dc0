//! What came of all cells, as it stands in docs/safety.md.

use std::collections::BTreeMap;
use std::fmt;

use super::cells::{Cell, Damage, KINDS};
use super::expect::{Outcome, World, allowed, known_open, not_promised};

/// What came of a cell, one place after the other, and why.
type Outcomes = Vec<(Outcome, String)>;

/// The outcomes of cells, and what is wrong with them.
pub(crate) struct Table {
    world: World,
    /// By row and column.
    cells: BTreeMap<(usize, usize), (Cell, Outcomes)>,
}

impl Table {
    pub(crate) fn new(world: World) -> Self {
        let cells = BTreeMap::new();
        Self { world, cells }
    }

    /// A cell was tried in one of its places.
    pub(crate) fn add(&mut self, cell: &Cell, spot: u32, outcome: Outcome, why: &str) {
        let row = KINDS.iter().position(|kind| kind == cell.file);
        let column = Damage::ALL.iter().position(|damage| *damage == cell.damage);
        let place = (row.unwrap_or(0), column.unwrap_or(0));
        let entry = self.cells.entry(place).or_insert((*cell, Vec::new()));
        entry.1.push((outcome, format!("place {spot}: {why}")));
    }

    /// What must not be. Where all places of each cell were tried, a cell that is listed as open and right is
    /// among it.
    pub(crate) fn wrong(&self, all_places: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        for (cell, outcomes) in self.cells.values() {
            if not_promised(cell).is_some() {
                continue;
            }
            let allowed = allowed(cell, self.world);
            let bad: Vec<&(Outcome, String)> = outcomes
                .iter()
                .filter(|(outcome, _)| *outcome != Outcome::Nothing && !allowed.contains(outcome))
                .collect();
            match known_open(cell, self.world) {
                Some(open) if bad.is_empty() && all_places => {
                    wrong.push(format!("{cell}: right, and listed as open: {}", open.why));
                }
                Some(_) => {}
                None => wrong.extend(
                    bad.iter()
                        .map(|(outcome, why)| format!("{cell}: {outcome:?}: {why}")),
                ),
            }
        }
        wrong
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Damage::ALL.iter().map(|damage| damage.name()).collect();
        writeln!(f, "| File | {} |", names.join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(names.len()))?;
        for (row, kind) in KINDS.iter().enumerate() {
            let columns = (0..names.len()).map(|column| match self.cells.get(&(row, column)) {
                Some((cell, outcomes)) => shown(cell, outcomes, self.world),
                None => String::new(),
            });
            let columns: Vec<String> = columns.collect();
            if columns.iter().all(String::is_empty) {
                continue;
            }
            writeln!(f, "| {} | {} |", kind.name, columns.join(" | "))?;
        }
        Ok(())
    }
}

fn shown(cell: &Cell, outcomes: &[(Outcome, String)], world: World) -> String {
    if not_promised(cell).is_some() {
        return "not promised".to_owned();
    }
    let mut found: Vec<Outcome> = outcomes.iter().map(|(outcome, _)| *outcome).collect();
    found.sort();
    found.dedup();
    if found.len() > 1 {
        found.retain(|outcome| *outcome != Outcome::Nothing);
    }
    let names: Vec<&str> = found.iter().map(|outcome| outcome.name()).collect();
    let open = known_open(cell, world).map_or("", |_| " (open)");
    format!("{}{open}", names.join(", "))
}
