//! Where futures are spawned, selected on, timed or kept in a set, and the test that drops them there.
//!
//! Work on a thread that may block is listed, too: it goes on where its future is dropped, and what comes
//! next has to bear that.

use std::collections::BTreeMap;
use std::path::Path;

use super::{changes, handlers, lives, wires};
use crate::peers::tests::dropped as nodes;
use crate::testing::sources;
use crate::watched::tests::ends;

/// What makes a place one of these.
const MARKS: [&str; 10] = [
    "select! {",
    " timeout(",
    "::timeout(",
    "timeout_at(",
    ".task(",
    ".task_on(",
    ".in_set(",
    ".blocking(",
    ".on_files(",
    "FuturesUnordered",
];

/// A file, a function in it, how many such places it has, and the test.
type Site = (&'static str, &'static str, usize, fn());

#[rustfmt::skip]
const SITES: &[Site] = &[
    ("broker.rs", "blocking", 1, handlers::offsets),
    ("broker.rs", "leading", 2, changes::waits_for_a_leader),
    ("broker.rs", "on_files", 1, lives::what_makes_a_node_what_the_image_says),
    ("broker.rs", "until_controller", 1, changes::waits_for_a_leader),
    ("catalog.rs", "change", 1, changes::a_change),
    ("catalog.rs", "forward", 1, changes::a_change_that_another_node_writes),
    ("checkpointer.rs", "begin_if_due", 1, ends::a_panic_of_what_the_node_needs_ends_the_process),
    ("cluster/asides.rs", "delete", 1, lives::what_a_node_sees_to),
    ("cluster/asides.rs", "once", 1, lives::what_a_node_sees_to),
    ("cluster/duties.rs", "follow", 1, lives::what_a_node_sees_to),
    ("cluster/founding.rs", "blocking", 1, changes::a_registration),
    ("cluster/replacement.rs", "follow", 1, lives::what_a_node_sees_to),
    ("cluster/replacement.rs", "give", 1, changes::words_of_leaders),
    ("hooks.rs", "run_later", 1, ends::a_panic_of_what_the_node_needs_ends_the_process),
    ("hooks.rs", "write_later", 1, ends::a_panic_of_what_the_node_needs_ends_the_process),
    ("kafka/create_partitions.rs", "handle", 1, handlers::partitions_added),
    ("kafka/create_topics.rs", "handle", 1, handlers::topics_created_and_deleted),
    ("kafka/delete_topics.rs", "handle", 1, handlers::topics_created_and_deleted),
    ("kafka/fetch/mod.rs", "read_later", 2, ends::a_promised_answer_that_is_not_given_closes_its_connection),
    ("kafka/init_producer_id.rs", "from_controller", 1, handlers::producer_ids),
    ("kafka/list_offsets.rs", "offset", 1, handlers::offsets),
    ("kafka/metadata.rs", "create", 1, handlers::topics_created_and_deleted),
    ("kafka/mod.rs", "reply_to", 1, ends::a_panic_over_a_connection_closes_it_and_no_other),
    ("net/connection.rs", "end", 1, wires::a_connection),
    ("net/connection.rs", "run", 1, wires::a_connection),
    ("net/connection.rs", "serve", 1, wires::a_connection),
    ("net/listener.rs", "accept", 2, wires::a_listener),
    ("net/memory.rs", "reserve", 1, wires::memory_that_is_waited_for),
    ("peers/accept.rs", "serve", 2, nodes::a_listener_for_nodes),
    ("peers/accept.rs", "welcome", 1, nodes::a_listener_for_nodes),
    ("peers/answering.rs", "answer", 2, nodes::calls_that_are_answered),
    ("peers/answering.rs", "write", 1, nodes::calls_that_are_answered),
    ("peers/calls.rs", "call", 1, nodes::a_call_to_another_node),
    ("peers/calls.rs", "drive", 1, nodes::a_line_for_calls),
    ("peers/calls.rs", "line", 1, nodes::a_line_for_calls),
    ("peers/calls.rs", "talk", 1, nodes::a_line_for_calls),
    ("peers/dial.rs", "connect", 1, nodes::a_link),
    ("peers/dial.rs", "dial", 1, nodes::a_link),
    ("peers/link.rs", "drive", 1, nodes::a_link),
    ("peers/link.rs", "keep_up", 3, nodes::a_link),
    ("peers/mod.rs", "set_nodes", 1, nodes::a_link),
    ("peers/mod.rs", "start", 1, nodes::what_the_broker_is_told),
    ("peers/mod.rs", "tell", 1, nodes::what_the_broker_is_told),
    ("peers/receive.rs", "read", 2, nodes::a_link_that_is_read),
    ("peers/source.rs", "room", 1, nodes::memory_for_a_frame),
    ("reconcile.rs", "follow", 1, lives::what_makes_a_node_what_the_image_says),
    ("reconcile.rs", "once", 1, lives::what_makes_a_node_what_the_image_says),
    ("reconcile.rs", "set_aside_all", 1, handlers::topics_created_and_deleted),
    ("reopen.rs", "once", 1, lives::what_a_node_sees_to),
    ("repair.rs", "own", 1, lives::what_a_node_sees_to),
    ("repair.rs", "put_right", 2, lives::what_a_node_sees_to),
    ("repair.rs", "remember", 1, lives::what_a_node_sees_to),
    ("repair.rs", "reply", 1, lives::what_a_node_sees_to),
    ("repair.rs", "try_again", 1, lives::what_a_node_sees_to),
    ("scrub.rs", "read", 1, lives::what_a_node_sees_to),
    ("start.rs", "begin_links", 1, lives::a_start),
    ("start.rs", "open", 1, lives::a_start),
    ("start.rs", "register", 2, changes::a_registration),
    ("start.rs", "run", 1, lives::a_run),
    ("start.rs", "serve", 2, lives::a_run),
    ("start.rs", "start", 12, lives::a_start),
    ("start.rs", "stop", 3, lives::a_stop),
];

/// The name of the function that begins on a line.
fn function(line: &str) -> Option<&str> {
    let mut words = line
        .split_whitespace()
        .skip_while(|word| word.starts_with("pub") || ["async", "const"].contains(word));
    let named = (words.next() == Some("fn")).then(|| words.next())??;
    named.split(['(', '<']).next()
}

#[test]
fn every_place_where_a_future_may_be_dropped_has_a_test_that_drops_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (path, text) in sources(&root) {
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap();
        // What starts everything starts nothing of its own.
        if path == "watched.rs" || path.starts_with("watched/") {
            continue;
        }
        let mut inside = "";
        for line in text.lines() {
            if let Some(name) = function(line) {
                inside = name;
                continue;
            }
            let code = format!(" {}", line.trim_start());
            if code.starts_with(" //") {
                continue;
            }
            let marks: usize = MARKS.iter().map(|mark| code.matches(mark).count()).sum();
            if marks > 0 {
                let site = (path.to_owned(), inside.to_owned());
                *found.entry(site).or_default() += marks;
            }
        }
    }
    let listed = SITES.iter();
    let listed =
        listed.map(|(file, name, count, _)| (((*file).to_owned(), (*name).to_owned()), *count));
    let listed: BTreeMap<(String, String), usize> = listed.collect();
    let unlisted: Vec<_> = found
        .iter()
        .filter(|(site, count)| listed.get(*site) != Some(count))
        .collect();
    assert!(
        unlisted.is_empty(),
        "a future is spawned, selected on, timed or kept in a set at {unlisted:?}. It may be dropped at any \
         await: write a test that drops it there (`to_its_end` or `for_a_while` in server/src/dropped) and \
         looks whether the same thing still works, and list the place with it in SITES"
    );
    let gone: Vec<_> = listed
        .keys()
        .filter(|site| !found.contains_key(*site))
        .collect();
    assert!(
        gone.is_empty(),
        "not there any more, and listed in SITES: {gone:?}"
    );
}
