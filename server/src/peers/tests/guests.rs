//! Who connects and is no node, or no good one.

use std::io::ErrorKind;

use bytes::BytesMut;
use riverrun_replication::frame::{Answered, Frame, MAX_HELLO_BYTES};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::peers::{GONE, SILENCE, dial, flush};

async fn connect(node: &Node) -> TcpStream {
    TcpStream::connect(("127.0.0.1", node.port)).await.unwrap()
}

pub(super) fn bytes_of(frame: &Frame) -> BytesMut {
    let segments = frame.encode().unwrap();
    segments
        .iter()
        .flat_map(|segment| segment.iter())
        .copied()
        .collect()
}

/// Everything that comes until the connection is closed from the other side.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match timeout(PATIENCE, stream.read_to_end(&mut all)).await {
        Ok(Ok(_)) => all,
        // It was closed while something of ours was unread.
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => all,
        other => panic!("not closed: {other:?}"),
    }
}

async fn refusal(stream: &mut TcpStream) -> Option<RefusalCode> {
    let answer = until_closed(stream).await;
    match Frame::decode(answer.into()) {
        Ok(Frame::HelloAnswer(Answered { refusal, .. })) => refusal.map(|refusal| refusal.code),
        _ => None,
    }
}

/// Whether a node that comes now is linked and heard.
async fn serves_others(node: &mut Node, id: i32) {
    let mut good = Node::start(id).await;
    good.knows(&[node]);
    good.until_told(Told::Up(node.id, 1)).await;
    good.peers.queue(node.id, probe(1, 1));
    flush();
    node.until_told(Told::Messages(id, vec![probe(1, 1)])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_clients_and_huge_claims_are_closed_and_others_served() {
    let mut node = Node::start(1).await;
    let greeting = bytes_of(&Frame::Hello(hello(2, 1, CLUSTER)));
    let claim = |length: u32| {
        let mut bytes = greeting.to_vec();
        bytes.splice(..4, length.to_le_bytes());
        bytes
    };
    // ApiVersions of a Kafka client: its length is 134 million in our order.
    let kafka = [&[0, 0, 0, 8, 0, 18, 0, 0, 0, 0, 0, 1], &[0xff; 2][..]].concat();
    let mut flipped = greeting.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let garbage: [Vec<u8>; 7] = [
        kafka,
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 100],
        claim(100 << 20),
        claim(MAX_HELLO_BYTES as u32 - 7),
        flipped,
        bytes_of(&Frame::Ping).to_vec(),
    ];
    for (at, bytes) in garbage.iter().enumerate() {
        let mut stream = connect(&node).await;
        stream.write_all(bytes).await.unwrap();
        assert!(until_closed(&mut stream).await.is_empty(), "case {at}");
    }
    serves_others(&mut node, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_never_ends_is_cut_off_and_only_so_many_wait() {
    let mut node = Node::start(1).await;
    let greeting = bytes_of(&Frame::Hello(hello(2, 1, CLUSTER)));
    let mut half_open = Vec::new();
    // More than may wait at once; the last ones are closed at once.
    for _ in 0..300 {
        let mut stream = connect(&node).await;
        stream.write_all(greeting.get(..30).unwrap()).await.unwrap();
        half_open.push(stream);
    }
    for stream in &mut half_open {
        assert!(until_closed(stream).await.is_empty());
    }
    serves_others(&mut node, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_hello_is_told_why() {
    let node = Node::start(1).await;
    let foreign = hello(2, 1, Uuid::from_u128(0xc2));
    let meant_for_another = Hello {
        meant: 3,
        ..hello(2, 1, CLUSTER)
    };
    let same_id = hello(1, 1, CLUSTER);
    let no_id = hello(-1, 1, CLUSTER);
    for (hello, code) in [
        (foreign, RefusalCode::Cluster),
        (meant_for_another, RefusalCode::Node),
        (same_id, RefusalCode::Node),
        (no_id, RefusalCode::Node),
    ] {
        let mut stream = connect(&node).await;
        let bytes = bytes_of(&Frame::Hello(hello));
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(refusal(&mut stream).await, Some(code));
    }
    // Version 9, with a good checksum.
    let mut bytes = bytes_of(&Frame::Hello(hello(2, 1, CLUSTER)));
    let place = bytes.get_mut(13).unwrap();
    *place = 9;
    let crc = crc32(bytes.get(8..).unwrap());
    bytes
        .get_mut(4..8)
        .unwrap()
        .copy_from_slice(&crc.to_le_bytes());
    let mut stream = connect(&node).await;
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(refusal(&mut stream).await, Some(RefusalCode::Version));
}

/// CRC-32 as zlib has it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let byte = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(!0, byte)
}

/// A link by hand.
async fn greeted(node: &Node, from: Hello) -> TcpStream {
    let mut stream = connect(node).await;
    dial::send(&mut stream, Frame::Hello(from)).await.unwrap();
    let answer = dial::receive(&mut stream).await.unwrap();
    assert!(matches!(
        answer,
        Frame::HelloAnswer(Answered { refusal: None, .. })
    ));
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_gone_after_a_second_and_cut_off_after_three() {
    let mut node = Node::start(1).await;
    let began = Instant::now();
    let mut silent = greeted(&node, hello(2, 1, CLUSTER)).await;
    node.until_told(Told::Heard(2, 1)).await;
    node.until_told(Told::Gone(2)).await;
    assert!(began.elapsed() >= GONE);
    // One word, and it is back.
    silent.write_all(&bytes_of(&Frame::Ping)).await.unwrap();
    node.until_told(Told::Heard(2, 1)).await;
    let spoke = Instant::now();
    assert!(until_closed(&mut silent).await.is_empty());
    assert!(spoke.elapsed() > SILENCE - Duration::from_millis(500));
    node.until_told(Told::Gone(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_link_lives_on_its_pings() {
    let (a, mut b) = two().await;
    let nothing = timeout(2 * GONE, b.told.recv()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    assert!(b.peers.last_heard(1).unwrap() < GONE);
    assert!(a.peers.last_heard(2).unwrap() < GONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_link_of_a_node_takes_the_place_of_the_older() {
    let mut node = Node::start(1).await;
    let mut older = greeted(&node, hello(2, 1, CLUSTER)).await;
    node.until_told(Told::Heard(2, 1)).await;
    let mut newer = greeted(&node, hello(2, 2, CLUSTER)).await;
    assert!(until_closed(&mut older).await.is_empty());
    node.until_told(Told::Heard(2, 2)).await;
    let bytes = bytes_of(&Frame::Messages(vec![probe(1, 1)]));
    newer.write_all(&bytes).await.unwrap();
    // The end of the older one makes nobody think that the node is gone.
    let next = timeout(PATIENCE, node.told.recv()).await.unwrap();
    assert_eq!(next, Some(Told::Messages(2, vec![probe(1, 1)])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_frame_costs_its_link_and_no_other() {
    let mut node = Node::start(1).await;
    let mut link = greeted(&node, hello(2, 1, CLUSTER)).await;
    let mut bytes = bytes_of(&Frame::Messages(vec![probe(1, 1)]));
    let good = bytes.clone();
    *bytes.last_mut().unwrap() ^= 1;
    link.write_all(&good).await.unwrap();
    link.write_all(&bytes).await.unwrap();
    node.until_told(Told::Messages(2, vec![probe(1, 1)])).await;
    assert!(until_closed(&mut link).await.is_empty());
    serves_others(&mut node, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_of_a_linked_node_holds_no_memory_that_it_did_not_send() {
    let mut node = Node::start(1).await;
    let mut link = greeted(&node, hello(2, 1, CLUSTER)).await;
    let mut claim = (100_u32 << 20).to_le_bytes().to_vec();
    claim.extend([0; 50]);
    link.write_all(&claim).await.unwrap();
    serves_others(&mut node, 3).await;
    assert!(until_closed(&mut link).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_came_together_are_stepped_together_and_in_order() {
    let mut node = Node::start(1).await;
    let mut link = greeted(&node, hello(2, 1, CLUSTER)).await;
    node.until_told(Told::Heard(2, 1)).await;
    let announcement = Bytes::from_static(b"who leads");
    let frames = [
        Frame::Messages(vec![probe(1, 1), probe(2, 1)]),
        Frame::Ping,
        Frame::Messages(vec![probe(1, 2)]),
        Frame::Announce(announcement.clone()),
        Frame::Messages(vec![probe(1, 3)]),
    ];
    let together: Vec<u8> = frames.iter().flat_map(bytes_of).collect();
    link.write_all(&together).await.unwrap();
    let before = vec![probe(1, 1), probe(2, 1), probe(1, 2)];
    for expected in [
        Told::Messages(2, before),
        Told::Announced(2, announcement),
        Told::Messages(2, vec![probe(1, 3)]),
    ] {
        let next = timeout(PATIENCE, node.told.recv()).await.unwrap();
        assert_eq!(next, Some(expected));
    }
}
