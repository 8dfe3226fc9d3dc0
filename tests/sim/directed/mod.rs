//! The executions of docs/safety.md, each forced by name.
//!
//! A test says which message arrives and which is lost, who flushes, who loses power and what comes
//! back; nothing happens by itself. Where `riverrun_storage::planted` can switch a rule off, the same
//! steps are taken without it and the damage is asserted too: so the test is known to be able to
//! fail. Letters as in the text: A leads, F is the follower that something happens to, C another.
//!
//! | file | what |
//! |---|---|
//! | `cluster`, `machine`, `wire`, `progress`, `requests`, `views` | what a test drives |
//! | `flushing` | W1, W2, W4, W5, W7 (W3 is the node store's: `storage/tests/node_executions.rs`) |
//! | `disks` | W6, W8, W9, W10 |
//! | `leaders` | L1 to L7 |
//! | `deleted` | L8 |
//! | `refusals` | L9 |
//! | `recovering` | R1, R2, R2b |
//! | `replaced` | R3, R4 |
//! | `mishaps` | the longest of them, with each of their messages lost, doubled or late |
//! | `stops` | cuts, resets and all else that blocks, with the machine stopping in any call |

mod cluster;
mod deleted;
mod disks;
mod flushing;
mod leaders;
mod machine;
mod mishaps;
mod progress;
mod recovering;
mod refusals;
mod replaced;
mod requests;
mod stops;
mod views;
mod wire;

/// The executions of the document whose parts exist.
const EXECUTIONS: [&str; 26] = [
    "w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8", "w9", "w10", "l1", "l2", "l3", "l4", "l5",
    "l6", "l7", "l8", "l9", "r1", "r2", "r2b", "r3", "r4", "r13", "r14",
];

#[test]
fn the_document_names_the_tests_of_every_execution() {
    let document = include_str!("../../../docs/safety.md");
    let directed = [
        include_str!("deleted.rs"),
        include_str!("disks.rs"),
        include_str!("flushing.rs"),
        include_str!("leaders.rs"),
        include_str!("recovering.rs"),
        include_str!("refusals.rs"),
        include_str!("replaced.rs"),
    ];
    let of_storage = [
        include_str!("../../../storage/tests/node_executions.rs"),
        include_str!("../../../storage/src/log/tests/recovery.rs"),
    ];
    let of = |name: &str| {
        let execution = name.split('_').next().unwrap();
        EXECUTIONS.into_iter().find(|known| *known == execution)
    };
    let tests = |source: &'static str| {
        let each = source.split("#[test]\nfn ").skip(1);
        each.filter_map(|test| test.split('(').next())
    };
    let named: Vec<&str> = document
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.contains('_') && of(name).is_some())
        .collect();
    let written: Vec<&str> = directed.into_iter().flat_map(tests).collect();
    for name in &written {
        assert!(named.contains(name), "the document does not name {name}");
    }
    for name in &named {
        let there = written.contains(name)
            || of_storage
                .into_iter()
                .flat_map(tests)
                .any(|test| test == *name);
        assert!(there, "there is no test {name}");
    }
    for execution in EXECUTIONS {
        assert!(
            named.iter().any(|name| of(name) == Some(execution)),
            "{execution}"
        );
    }
}
