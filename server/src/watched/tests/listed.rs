//! The table of docs/ARCHITECTURE.md, and that nothing is started past it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::watched::Kind;

/// Threads of other crates: where they are started, their name in the table, and what comes of their end.
const OTHERS: [(&str, &str, &str, &str); 2] = [
    (
        "storage/src/node/pool.rs",
        "thread::Builder",
        "flush-N",
        "whoever waits is told",
    ),
    (
        "replication/src/node.rs",
        "thread::scope",
        "open",
        "whoever waits is told",
    ),
];

/// What starts a thread or a task.
const STARTS: [&str; 6] = [
    "thread::spawn",
    "thread::Builder",
    "thread::scope",
    "tokio::spawn",
    "spawn_blocking",
    ".spawn(",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_architecture_lists_every_thread_and_task_and_what_its_end_does() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let table = text
        .split("## Threads and tasks")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("docs/ARCHITECTURE.md has a section \"Threads and tasks\"");
    let told: BTreeSet<(String, String)> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let mut cells = row.trim_end_matches(" |").split(" | ");
            let name = cells.next().unwrap().trim_end_matches('`');
            (name.to_owned(), cells.last().unwrap().to_owned())
        })
        .collect();
    let own = Kind::ALL.map(|kind| (kind.name(), kind.end().text()));
    let others = OTHERS.map(|(_, _, name, end)| (name, end));
    let expected: BTreeSet<(String, String)> = own
        .into_iter()
        .chain(others)
        .map(|(name, end)| (name.to_owned(), end.to_owned()))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn nothing_is_started_unwatched() {
    let mut found = Vec::new();
    for crate_dir in ["server/src", "replication/src", "storage/src"] {
        for (path, text) in crate::testing::sources(&root().join(crate_dir)) {
            let path = path.strip_prefix(root()).unwrap().to_path_buf();
            let path = path.to_str().unwrap();
            for (line, what) in text.lines().enumerate() {
                let code = what.trim_start();
                let starts = STARTS.iter().any(|start| code.contains(start));
                let allowed = path == "server/src/watched.rs"
                    || OTHERS
                        .iter()
                        .any(|(file, start, ..)| path == *file && code.contains(start))
                    // The pool's builder, and the scope's threads.
                    || (OTHERS.iter().any(|(file, ..)| path == *file)
                        && (code.starts_with(".spawn(") || code.starts_with("scope.spawn(")));
                if starts && !allowed && !code.starts_with("//") {
                    found.push(format!("{path}:{}: {code}", line + 1));
                }
            }
        }
    }
    assert!(
        found.is_empty(),
        "start it through `crate::watched::Watch` with a `Kind` of its own, and say in \
         docs/ARCHITECTURE.md what its end does:\n{}",
        found.join("\n")
    );
}
