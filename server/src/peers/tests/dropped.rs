//! Tasks of the links that are dropped.

use riverrun_replication::frame::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::guests::bytes_of;
use super::*;
use crate::dropped::{Drops, for_a_while, polled, to_its_end};
use crate::peers::calls::Line;
use crate::peers::link::{self, Link, Lost};
use crate::peers::source::Spare;
use crate::peers::{CallError, Callee, answering, calls, receive, tell};

const A_WHILE: Duration = Duration::from_millis(30);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// Every point at which something is dropped.
fn points(most_polls: usize) -> impl Iterator<Item = (Drops, usize)> {
    let drops = [Drops::Waiting, Drops::Woken].into_iter();
    drops.flat_map(move |drops| (0..most_polls).map(move |polls| (drops, polls)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_call_to_another_node() {
    let a = Node::start(1).await;
    let b = Node::start(2).await;
    a.knows(&[&b]);
    let call = |body: &'static [u8]| {
        let body = Bytes::from_static(body);
        a.peers.call(Callee::Node(2), body, PATIENCE)
    };
    let dropped = to_its_end(
        || call(b"5 dropped"),
        async || match call(b"kept").await {
            Ok(answer) if answer == "node 1: kept" => Ok(()),
            other => Err(other),
        },
    );
    assert_eq!(dropped.await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_line_for_calls() {
    let a = Node::start(1).await;
    let b = Node::start(2).await;
    for (drops, polls) in points(6) {
        let (line, unwritten) = Line::new();
        let asks = Arc::clone(&line);
        let asked = tokio::spawn(async move { asks.ask(Bytes::from_static(b"never")).await });
        let shared = Arc::clone(&a.peers.shared);
        let drive = calls::drive(shared, line, b.address(), 2, unwritten);
        polled(polls, drops, A_WHILE, drive).await;
        // Whoever asked is told, or finds that there is nobody to ask.
        let told = timeout(PATIENCE, asked).await.expect("he is told").unwrap();
        assert!(
            matches!(told, None | Some(Err(CallError::Broken))),
            "{drops:?} {polls}: {told:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_link() {
    let mut a = Node::start(1).await;
    let b = Node::start(2).await;
    for (drops, polls) in points(6) {
        let lost = Arc::clone(&a.peers.shared.lost);
        let link = Arc::new(Link::new(2, &lost));
        // What waits for the link is reported when it is no more.
        let (_known, address) = tokio::sync::watch::channel(Some(b.address()));
        let run = link::run(Arc::clone(&a.peers.shared), Arc::clone(&link), address);
        polled(polls, drops, A_WHILE, run).await;
        link.queue(probe(77, polls as u64));
        a.until_told(Told::Unreachable(vec![(77, 2)])).await;
    }
    drop(b);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_link_that_is_read() {
    let mut node = Node::start(1).await;
    for (drops, polls) in points(6) {
        let (mut other, stream) = pair().await;
        let frame = bytes_of(&Frame::Messages(vec![probe(1, 1)]));
        other.write_all(&frame).await.unwrap();
        let run = receive::run(&node.peers.shared, hello(2, 1, CLUSTER), stream);
        polled(polls, drops, A_WHILE, run).await;
        if polls > 0 {
            node.until_told(Told::Gone(2)).await;
        }
        let heard = node.peers.shared.heard.read().get(&2).cloned();
        assert!(
            heard.is_none_or(|heard| !heard.is_open()),
            "{drops:?} {polls}"
        );
    }
    // A real one is heard after all that.
    let good = Node::start(2).await;
    good.knows(&[&node]);
    node.until_told(Told::Heard(2, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn calls_that_are_answered() {
    let node = Node::start(1).await;
    let long = Bytes::from(vec![b'x'; 600 << 10]);
    for (drops, polls) in points(8) {
        let (mut caller, stream) = pair().await;
        let asks = tokio::spawn(async move { caller_asks(&mut caller).await });
        let run = answering::run(&node.peers.shared, hello(2, 1, CLUSTER), stream);
        polled(polls, drops, A_WHILE, run).await;
        asks.await.unwrap();
        // The memory of what was asked is free.
        let free = || node.host.budget.try_reserve(1 << 20).is_some();
        crate::dropped::until("the memory is free", free).await;
    }
    let other = Node::start(3).await;
    other.knows(&[&node]);
    let answer = other.peers.call(Callee::Node(1), long, PATIENCE).await;
    assert!(answer.is_ok());
}

/// Asks, one call longer than what is read at once, and reads until the connection ends.
async fn caller_asks(caller: &mut TcpStream) {
    for body in [vec![b'y'; 300 << 10], b"5 soon".to_vec(), b"never".to_vec()] {
        let (request, body) = (body.len() as u64, Bytes::from(body));
        // It may have ended by then.
        let _ = caller
            .write_all(&bytes_of(&Frame::Call { request, body }))
            .await;
    }
    let mut all = Vec::new();
    let _ = timeout(PATIENCE, caller.read_to_end(&mut all))
        .await
        .expect("it is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_listener_for_nodes() {
    let mut node = Node::start(1).await;
    for (drops, polls) in points(6) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut guest = TcpStream::connect(address).await.unwrap();
        let greeting = bytes_of(&Frame::Hello(hello(2, 1, CLUSTER)));
        guest.write_all(&greeting).await.unwrap();
        let serving = serve(listener, Arc::clone(&node.peers));
        polled(polls, drops, A_WHILE, serving).await;
        let mut all = Vec::new();
        let _ = timeout(PATIENCE, guest.read_to_end(&mut all))
            .await
            .expect("it is closed");
        let heard = || {
            let heard = node.peers.shared.heard.read().get(&2).cloned();
            heard.is_some_and(|heard| heard.is_open())
        };
        crate::dropped::until("the link is closed", || !heard()).await;
    }
    let good = Node::start(2).await;
    good.knows(&[&node]);
    node.until_told(Told::Heard(2, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn what_the_broker_is_told() {
    let node = Node::start(1).await;
    let lost = Arc::new(Lost::default());
    let told = || {
        let (events, told) = mpsc::unbounded_channel();
        lost.add([(5, 5)]);
        let telling = tell(Arc::clone(&node.host), told, Arc::clone(&lost));
        async move {
            let _events = events;
            telling.await;
        }
    };
    for_a_while(3, told, async || {
        // Whoever tells next has what was not told, or what came after.
        lost.add([(6, 6)]);
        let taken = timeout(PATIENCE, lost.take()).await;
        match taken {
            Ok(targets) if targets.contains(&(6, 6)) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
pub(crate) async fn memory_for_a_frame() {
    let budget = Budget::new(1 << 20, 1 << 20);
    let spare = Spare::default();
    let all = || budget.try_reserve(1 << 20);
    for_a_while(
        3,
        || async {
            let _held = (all(), spare.room(&budget, usize::MAX).await);
            spare.room(&budget, 16 << 20).await
        },
        async || {
            let room = spare.room(&budget, 16 << 20);
            let free = timeout(PATIENCE, room).await.is_ok() && all().is_some();
            if free { Ok(()) } else { Err("memory is lost") }
        },
    )
    .await;
}
