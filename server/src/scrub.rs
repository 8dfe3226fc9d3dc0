//! Everything is read once in `log.scrub.interval.ms`, whether or not anybody asks for it, so that what goes
//! bad at rest is found while other replicas still have it. What is found is put right by
//! [`crate::repair`], like what a fetch finds.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use riverrun_replication::node::CONTROLLER_GROUP;
use riverrun_replication::scrub::{MOST_BYTES_PER_SECOND, Piece, Replica, Scrub};
use riverrun_storage::{LogError, Scrubbed};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::broker::Broker;
use crate::watched::Kind;

/// Pause between two looks at what is due.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes that are read at once. The task rests as long as that took, at least, before it goes on.
const STEP_BYTES: u64 = 1 << 20;
/// Progress is told so often at most.
const TELL_EVERY: Duration = Duration::from_secs(3600);

/// What was done since it was told.
#[derive(Debug)]
struct Told {
    at: Instant,
    bytes: u64,
    bad: usize,
    logs: usize,
}

impl Told {
    fn new() -> Self {
        Self {
            at: Instant::now(),
            bytes: 0,
            bad: 0,
            logs: 0,
        }
    }
}

/// Sees to it until the broker is gone.
pub(crate) async fn follow(broker: Weak<Broker>, interval: Duration) {
    let mut scrub = Scrub::new(interval);
    let mut told = Told::new();
    loop {
        {
            let Some(broker) = broker.upgrade().filter(|broker| !broker.is_stopping()) else {
                return;
            };
            look(&broker, &mut scrub, &mut told).await;
            tell(&mut told, interval);
        }
        tokio::time::sleep(LOOK.min(interval / 8)).await;
    }
}

/// Reads what is due now.
async fn look(broker: &Arc<Broker>, scrub: &mut Scrub, told: &mut Told) {
    let handles = broker.runtime().handles();
    let places = places(broker);
    let replicas: Vec<Replica> = handles
        .iter()
        .filter_map(|handle| {
            Some(Replica {
                group: handle.group(),
                place: *places.get(&handle.group())?,
                first: handle.reader().first_index(),
                through: handle.settled(),
            })
        })
        .collect();
    let handles: BTreeMap<u64, _> = handles
        .iter()
        .map(|handle| (handle.group(), handle))
        .collect();
    let extent = |group: u64, index: u64| {
        let handle = handles.get(&group);
        handle.map_or((0, 0), |handle| handle.reader().extent(index))
    };
    let time_of_day = Duration::from_millis(u64::try_from(broker.now_ms()).unwrap_or(0));
    for piece in scrub.due(time_of_day, &replicas, extent) {
        match read(broker, piece, told).await {
            Ok(next) => {
                if scrub.read(&piece, next) {
                    told.logs += 1;
                    debug!(group = piece.group, "a log was read at rest to its end");
                }
            }
            Err(error) => {
                debug!(group = piece.group, %error, "a log cannot be read at rest now");
            }
        }
    }
}

/// The place of this node's replica among those of each group, and how many there are.
fn places(broker: &Broker) -> BTreeMap<u64, (u32, u32)> {
    let own = broker.config().node_id;
    let place = |nodes: &mut dyn Iterator<Item = i32>| {
        let (mut at, mut count) = (None, 0);
        for node in nodes {
            if node == own {
                at = Some(count);
            }
            count += 1;
        }
        Some((at?, count))
    };
    broker.catalog().read(|image| {
        let mut voters = image.quorum.replicas.iter().map(|replica| replica.at.node);
        let controller = place(&mut voters).map(|place| (CONTROLLER_GROUP, place));
        let partitions = image
            .topics
            .values()
            .flat_map(|topic| topic.partitions.iter());
        let others = partitions.filter_map(|partition| {
            let mut nodes = partition.replicas.iter().map(|at| at.node);
            Some((partition.group, place(&mut nodes)?))
        });
        controller.into_iter().chain(others).collect()
    })
}

/// Reads a piece; gives the entry that it came to.
async fn read(broker: &Arc<Broker>, piece: Piece, told: &mut Told) -> Result<u64, LogError> {
    let mut at = piece;
    while at.from <= at.through && at.bytes > 0 {
        let began = Instant::now();
        let on_thread = Arc::clone(broker);
        let most = at.bytes.min(STEP_BYTES);
        let step = broker.blocking(Kind::Files, move || {
            on_thread.runtime().node().scrub(&at, most)
        });
        let scrubbed = match step.await {
            Ok(Ok(Some(scrubbed))) => scrubbed,
            // The replica is gone, or the node stops.
            Ok(Ok(None)) | Err(_) => break,
            Ok(Err(error)) => return Err(error),
        };
        note(&at, &scrubbed, told);
        if scrubbed.next <= at.from {
            break;
        }
        at.from = scrubbed.next;
        at.bytes = at.bytes.saturating_sub(scrubbed.bytes.max(1));
        // Others come first: it never has more than half of a busy disk, nor more than its rate.
        let nanos = scrubbed.bytes.saturating_mul(1_000_000_000) / MOST_BYTES_PER_SECOND;
        let at_its_rate = Duration::from_nanos(nanos);
        tokio::time::sleep(began.elapsed().max(at_its_rate)).await;
    }
    Ok(at.from)
}

fn note(piece: &Piece, scrubbed: &Scrubbed, told: &mut Told) {
    told.bytes += scrubbed.bytes;
    told.bad += scrubbed.bad;
    if scrubbed.bad > 0 {
        warn!(
            group = piece.group,
            entries = scrubbed.bad,
            from = piece.from,
            to = scrubbed.next - 1,
            "a scrub found bytes at rest that are bad"
        );
    }
    if let Some(error) = &scrubbed.unreadable {
        warn!(group = piece.group, %error, "a scrub found bytes that cannot be read");
    }
}

/// Says how far it is.
fn tell(told: &mut Told, interval: Duration) {
    if told.at.elapsed() < TELL_EVERY.min(interval) || told.bytes == 0 {
        return;
    }
    info!(
        mib = told.bytes >> 20,
        logs_to_their_end = told.logs,
        bad_entries = told.bad,
        "read at rest since this was last said"
    );
    *told = Told::new();
}
