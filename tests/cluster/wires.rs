//! The links between nodes, through this process, which can cut a node off from all others. Clients
//! reach it all the same.

use super::trio::Trio;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// The bytes of a hello up to the end of the number of the node that says it, and where that begins
/// (docs/formats/peer-frame.md).
const HELLO_BYTES: usize = 36;
const NODE_AT: usize = 32;

/// What stands between the nodes. When it goes, so do their links.
pub(crate) struct Wires {
    state: Arc<State>,
    /// Where each node is found by the others.
    ports: BTreeMap<i32, u16>,
}

#[derive(Default)]
struct State {
    cut: Mutex<Cut>,
    changed: Condvar,
}

#[derive(Default)]
struct Cut {
    node: Option<i32>,
    over: bool,
}

impl State {
    /// Waits while nothing may pass between two nodes; false where nothing ever will again.
    fn may_pass(&self, between: [i32; 2]) -> bool {
        let cut = self.cut.lock().unwrap();
        let is_cut = |cut: &mut Cut| !cut.over && cut.node.is_some_and(|n| between.contains(&n));
        !self.changed.wait_while(cut, is_cut).unwrap().over
    }
}

impl Wires {
    /// Has the nodes of a cluster, none of which is started, reach each other through this process. They
    /// found it together.
    pub(crate) fn between(trio: &mut Trio) -> Result<Wires> {
        let state = Arc::new(State::default());
        let mut ports = BTreeMap::new();
        for id in trio.ids() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            ports.insert(id, listener.local_addr()?.port());
            let (state, to) = (Arc::clone(&state), trio.node(id)?.for_nodes());
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let (state, to) = (Arc::clone(&state), to.clone());
                    // It ends with either side, or with the test.
                    thread::spawn(move || carry(&state, stream, id, &to));
                }
            });
        }
        let wires = Wires { state, ports };
        let voters = wires.ports.iter();
        let voters: Vec<_> = voters
            .map(|(id, port)| format!("{id}@127.0.0.1:{port}"))
            .collect();
        for id in trio.ids() {
            let (clients, port) = (trio.address(id)?, wires.ports.get(&id).context("a port")?);
            let advertised = format!("PLAINTEXT://{clients},CONTROLLER://127.0.0.1:{port}");
            let settings = [
                format!("controller.quorum.voters={}", voters.join(",")),
                format!("advertised.listeners={advertised}"),
            ];
            trio.configure(id, settings)?;
        }
        Ok(wires)
    }

    /// From now on no byte passes between this node and any other; their connections stay open.
    pub(crate) fn cut(&self, node: i32) {
        self.state.cut.lock().unwrap().node = Some(node);
    }

    /// What was held back goes on.
    pub(crate) fn mend(&self) {
        self.state.cut.lock().unwrap().node = None;
        self.state.changed.notify_all();
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        self.state.cut.lock().unwrap().over = true;
        self.state.changed.notify_all();
    }
}

/// Carries one connection to a node, from whoever its first bytes say.
fn carry(state: &Arc<State>, mut from: TcpStream, node: i32, to: &str) -> io::Result<()> {
    let mut hello = [0; HELLO_BYTES];
    from.read_exact(&mut hello)?;
    let mut by = [0; 4];
    by.copy_from_slice(&hello[NODE_AT..]);
    let between = [i32::from_le_bytes(by), node];
    if !state.may_pass(between) {
        return Ok(());
    }
    let mut there = TcpStream::connect(to)?;
    for stream in [&from, &there] {
        stream.set_nodelay(true)?;
    }
    there.write_all(&hello)?;
    let (back_from, back_to) = (there.try_clone()?, from.try_clone()?);
    let shared = Arc::clone(state);
    thread::spawn(move || pass(&shared, between, back_from, back_to));
    pass(state, between, from, there)
}

/// Passes on what comes from one side to the other.
fn pass(
    state: &State,
    between: [i32; 2],
    mut from: TcpStream,
    mut to: TcpStream,
) -> io::Result<()> {
    let mut bytes = [0; 16 << 10];
    let passed = loop {
        match from.read(&mut bytes) {
            Ok(0) => break Ok(()),
            Ok(_) if !state.may_pass(between) => break Ok(()),
            Ok(read) => {
                if let Err(error) = to.write_all(&bytes[..read]) {
                    break Err(error);
                }
            }
            Err(error) => break Err(error),
        }
    };
    // Who closed, and that somebody did, is not told through a cut either.
    state.may_pass(between);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
    passed
}
