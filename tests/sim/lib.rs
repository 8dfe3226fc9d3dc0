//! A whole Riverrun cluster in one thread, from one seed.
//!
//! The code under test is the production code of storage, node store, replication and controller;
//! what is simulated is what surrounds it: disks, network, clocks, processes, clients, and whoever
//! administers the cluster. The same seed gives the same run, event by event.
//!
//! | file | what |
//! |---|---|
//! | `plan` | what a seed decides: sizes, load, which classes of faults |
//! | `rng`, `clock`, `trace` | randomness, virtual time, the run as one number |
//! | `network`, `host`, `boot` | links; a node's disk and process; starts, crashes |
//! | `unopened` | what a node could not open or carry out, and what follows |
//! | `coming` | how nodes found a cluster together, and join it |
//! | `links` | what leaders tell the other nodes; nodes that are taken for dead |
//! | `world` | the queue of events, turns and their effects |
//! | `workload`, `reader`, `history` | clients, consumers, and what they were told |
//! | `operator`, `members` | brokers, topics, replacement of replicas; the members of groups |
//! | `changes` | changes of the cluster that nodes propose, and nobody waits for to the end |
//! | `topics` | topics that are deleted, and their namesakes |
//! | `nemesis` | faults |
//! | `refusal`, `hurt` | a disk that does not answer for a while; what befalls a node's own files |
//! | `story`, `losses`, `damage` | faults that follow each other on purpose |
//! | `words` | replicas that cannot go on: what their leaders say, and who takes their place |
//! | `witness` | what replicas tell each other, and count of each other |
//! | `settle` | the end: progress, then comparison |
//! | `invariants` | what must never be seen, one file each |
//! | `run`, `seeds`, `bugs`, `summary` | one run; runs that once failed; planted bugs; figures |

#![forbid(unsafe_code)]

pub mod boot;
pub mod bugs;
pub mod changes;
pub mod clock;
pub mod coming;
pub mod connections;
pub mod damage;
pub mod history;
pub mod host;
pub mod hurt;
pub mod invariants;
pub mod links;
pub mod losses;
pub mod mark;
pub mod members;
pub mod mend;
pub mod nemesis;
pub mod network;
pub mod operator;
pub mod plan;
pub mod reader;
pub mod refusal;
pub mod rng;
pub mod run;
pub mod scrub;
pub mod seeds;
pub mod settle;
pub mod story;
pub mod summary;
pub mod topics;
pub mod trace;
pub mod unopened;
pub mod witness;
pub mod words;
pub mod workload;
pub mod world;

pub use plan::{Options, Plan};
pub use run::{Outcome, run, run_plan, silence_panics};
pub use summary::Summary;
