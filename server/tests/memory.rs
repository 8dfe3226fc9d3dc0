//! A connection that waits for request memory goes on with what it was asked before.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use common::{Broker, batch, fetch_request, fetched, produce_request};
use riverrun_wire::api::{ApiVersionsRequest, FetchRequest, ProduceRequest};

const MEMORY: usize = 1 << 20;
/// Shorter than a claim may hold what others wait for.
const WAIT: Duration = Duration::from_millis(300);

/// A broker with room for one large request, which is claimed by a client that sends no more.
fn claimed() -> (Broker, common::Client) {
    let broker = Broker::with(|config| {
        config.request_memory_bytes = MEMORY;
        config.max_request_bytes = MEMORY;
    });
    broker.client().create("quiet", 1, &[]);
    let mut claiming = broker.client();
    let request = ApiVersionsRequest::default();
    let request = riverrun_wire::encode_request(&request, 0, 1, None).unwrap();
    let mut bytes = request.into_bytes().to_vec();
    bytes.extend(u32::try_from(MEMORY).unwrap().to_be_bytes());
    bytes.extend(b"and no more");
    claiming.write(&bytes);
    // What came in one read is taken in before any of it is answered.
    claiming.receive::<ApiVersionsRequest>(1, 0);
    (broker, claiming)
}

/// A produce that has to wait for memory, sent as far as the socket takes it.
fn large() -> Vec<u8> {
    let value = vec![7; 400_000];
    let request = produce_request("quiet", 0, -1, batch(&[&value]).freeze());
    let frame = riverrun_wire::encode_request(&request, 9, 99, None).unwrap();
    frame.into_bytes().to_vec()
}

#[test]
fn a_parked_fetch_is_answered_in_time_while_its_connection_waits_for_memory() {
    let (broker, claiming) = claimed();
    let mut client = broker.client();
    let wait_ms = i32::try_from(WAIT.as_millis()).unwrap();
    let began = Instant::now();
    let fetch = client.send(&fetch_request("quiet", 0, wait_ms, 1), 12);
    client.write(&large());
    let answer = client.receive::<FetchRequest>(fetch, 12);
    assert!(fetched(&answer).is_empty());
    let took = began.elapsed();
    assert!(took >= WAIT, "it was answered before its time: {took:?}");
    assert!(
        took < WAIT + Duration::from_secs(1),
        "it waited for the memory of another request: {took:?}"
    );
    // The claim goes, and what waited is served.
    drop(claiming);
    let produced = client.receive::<ProduceRequest>(99, 9);
    assert_eq!(common::only_row(produced).error_code, 0);
    broker.stop();
}

#[test]
fn a_parked_fetch_is_answered_by_a_commit_while_its_connection_waits_for_memory() {
    let (broker, claiming) = claimed();
    let mut client = broker.client();
    let fetch = client.send(&fetch_request("quiet", 0, 60_000, 1), 12);
    client.write(&large());
    let produced = broker.client().produce("quiet", batch(&[b"x"]).freeze());
    assert_eq!(produced.error_code, 0);
    let answer = client.receive::<FetchRequest>(fetch, 12);
    assert!(!fetched(&answer).is_empty());
    drop(claiming);
    let produced = client.receive::<ProduceRequest>(99, 9);
    assert_eq!(common::only_row(produced).error_code, 0);
    broker.stop();
}

#[test]
fn a_stop_does_not_wait_for_memory() {
    let (broker, _claiming) = claimed();
    let mut client = broker.client();
    let fetch = client.send(&fetch_request("quiet", 0, 60_000, 1), 12);
    client.write(&large());
    let produced = broker.client().produce("quiet", batch(&[b"x"]).freeze());
    assert_eq!(produced.error_code, 0);
    client.receive::<FetchRequest>(fetch, 12);
    let began = Instant::now();
    broker.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
    // It is answered if its memory came before the stop did, and the connection ends in any case.
    while client.frame().is_some() {}
}
