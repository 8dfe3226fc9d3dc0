//! A node that is cut off from the others and goes on answering clients: those that it has to refuse
//! find who leads by now (X2).

mod alone;
mod steady;

use self::steady::{Java, Librdkafka, Ours, Steady};
use super::trio::{Trio, until};
use super::wires::Wires;
use crate::kafka::{create_topic, unique};
use crate::trial::{note, trial};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::thread;
use std::time::{Duration, Instant};

/// Between two events of a producer.
const PAUSE: Duration = Duration::from_millis(20);
/// What it may take until a producer is served again: 4 s on a machine that does nothing else, and a
/// test shares its own.
const SOON: Duration = Duration::from_secs(12);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "cluster::cut::librdkafka_leaves_a_leader_that_is_cut_off",
            || leaves("librdkafka", |b, t| Ok(Box::new(Librdkafka::start(b, t)?))),
        ),
        trial("cluster::cut::java_leaves_a_leader_that_is_cut_off", || {
            leaves("Java's producer", |b, t| Ok(Box::new(Java::start(b, t)?)))
        }),
        trial(
            "cluster::cut::our_client_leaves_a_leader_that_is_cut_off",
            || leaves("our producer", |b, t| Ok(Box::new(Ours::start(b, t)))),
        ),
        trial(
            "cluster::cut::who_is_left_alone_serves_what_it_can_and_hangs_up_on_others_once",
            alone::serves_what_it_can,
        ),
    ]
}

/// A client with its own settings, connected before the cut, is served by the next leader while the one
/// before still answers it.
fn leaves(name: &str, start: impl FnOnce(&str, &str) -> Result<Box<dyn Steady>>) -> Result<()> {
    let mut trio = Trio::prepare(3, |_| Vec::new())?;
    let wires = Wires::between(&mut trio)?;
    let result = trio
        .start_all()
        .and_then(|()| cut_under(name, &trio, &wires, start));
    let result = trio.explain(result);
    drop(wires);
    result
}

fn cut_under(
    name: &str,
    trio: &Trio,
    wires: &Wires,
    start: impl FnOnce(&str, &str) -> Result<Box<dyn Steady>>,
) -> Result<()> {
    let topic = unique("cut");
    create_topic(&trio.brokers(), &topic, 1, &[])?;
    trio.in_sync(&topic, 3)?;
    let mut producer = start(&trio.brokers(), &topic)?;
    let mut sent = 0;
    // Longer than it takes a client to be done with all that it does at its start.
    serve(&mut *producer, &mut sent, 50)?;
    let leader = trio.leader(&topic, 0)?;
    wires.cut(leader);
    let cut = Instant::now();
    // What is sent from now on the leader cannot have on any other node.
    let from = sent + 1;
    serve(&mut *producer, &mut sent, from)?;
    let took = cut.elapsed();
    note(format_args!(
        "{name} was served again {took:.1?} after its leader was cut off"
    ));
    ensure!(took < SOON, "it was served again after {took:?}");
    wires.mend();
    trio.agree(&topic)?;
    let last = sent + 1;
    serve(&mut *producer, &mut sent, last)
}

/// Goes on sending until an event with this number or a later one is acknowledged.
fn serve(producer: &mut dyn Steady, sent: &mut u64, number: u64) -> Result<()> {
    until("the producer is served", || {
        *sent += 1;
        producer.send(*sent)?;
        thread::sleep(PAUSE);
        let acknowledged = producer.acknowledged()?;
        Ok(acknowledged.into_iter().any(|n| n >= number).then_some(()))
    })
}
