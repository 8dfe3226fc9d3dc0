//! Replicas of this node that cannot go on: whether they may be replaced is asked of whoever leads their
//! groups, and decided by `riverrun_replication::replacement` (R9).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use riverrun_replication::controller::{Command, Controller, OnWord};
use riverrun_replication::node::CONTROLLER_GROUP;
use riverrun_replication::reconciler::Standing;
use riverrun_replication::replacement::{Wanted, others_whole};
use riverrun_replication::{Role, Word};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::protocol::{AskWords, Question, Reply, Words};
use crate::broker::Broker;
use crate::net::burst;
use crate::peers::Callee;

/// Pause before what could not be done is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long words are waited for.
const WORD_WAIT: Duration = Duration::from_secs(3);
/// How long a node that leads groups may take to give its words.
const GIVE_WAIT: Duration = Duration::from_secs(2);
/// Groups that are asked about at once.
const MOST_AT_ONCE: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Replacement {
    changed: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Groups of which a sound replica waits to be let go.
    asked: BTreeSet<u64>,
    /// (group, replica) that the group's leader has in its configuration no more.
    let_go: BTreeSet<(u64, u64)>,
    /// Why a replica is not replaced, as it was said last.
    said: BTreeMap<u64, String>,
}

impl Replacement {
    /// There may be something to do.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    /// Whether a group has let a replica go that another one has taken the place of.
    pub(crate) fn has_let_go(&self, group: u64, replica: u64) -> bool {
        self.state.lock().let_go.contains(&(group, replica))
    }

    /// Asks whether a group has let its replica on this node go.
    pub(crate) fn ask_about(&self, group: u64) {
        if self.state.lock().asked.insert(group) {
            self.look();
        }
    }

    /// This node has nothing of a group any more.
    pub(crate) fn forget(&self, group: u64) {
        let mut state = self.state.lock();
        state.asked.remove(&group);
        state.let_go.retain(|(of, _)| *of != group);
        state.said.remove(&group);
    }

    /// Why a replica is not replaced: said when it changes.
    fn say(&self, group: u64, why: &str) {
        let before = self.state.lock().said.insert(group, why.to_owned());
        if before.as_deref() != Some(why) {
            warn!(
                group,
                why, "a replica that cannot go on is not replaced yet"
            );
        }
    }
}

/// A replica of this node that cannot go on.
#[derive(Debug, Clone, Copy)]
struct Lost {
    topic: Uuid,
    partition: usize,
    group: u64,
    replica: u64,
}

/// Sees to it until the broker is gone.
pub(crate) async fn follow(broker: Weak<Broker>) {
    loop {
        let Some(broker) = broker.upgrade().filter(|broker| !broker.is_stopping()) else {
            return;
        };
        let changed = broker.replacement().changed.notified();
        let _ = tokio::time::timeout(RETRY, changed).await;
        let lost = lost(&broker);
        let asked: BTreeSet<u64> = broker.replacement().state.lock().asked.clone();
        if lost.is_empty() && asked.is_empty() {
            continue;
        }
        let groups = lost.iter().map(|of| of.group).chain(asked.iter().copied());
        let groups: BTreeSet<u64> = groups.take(MOST_AT_ONCE).collect();
        let words = words(&broker, &groups).await;
        note_let_go(&broker, &asked, &words);
        replace(&broker, &lost, &words).await;
        drop(broker);
        tokio::time::sleep(RETRY).await;
    }
}

/// The replicas of this node, on this data directory or an earlier one, that have to be replaced.
fn lost(broker: &Broker) -> Vec<Lost> {
    let node = broker.runtime().node();
    let cannot_go_on = |group: u64, replica: u64| {
        if let Some(handle) = node.handle(group) {
            return handle.replica() == replica && broker.is_contradicted(group);
        }
        let unopened = node.unopened_of(group);
        unopened.is_some_and(|of| {
            of.identity.replica == replica && of.standing != Standing::Unavailable
        })
    };
    let own = broker.config().node_id;
    let directory = node.directory_id();
    broker.catalog().read(|image| {
        let here = image.topics.values().filter(|topic| !topic.closing);
        let here = here.flat_map(|topic| {
            topic
                .partitions
                .iter()
                .enumerate()
                .map(move |(n, p)| (topic, n, p))
        });
        let mut lost = Vec::new();
        for (topic, partition, image) in here {
            let mine = image.replicas.iter().filter(|at| at.node == own);
            let mine = mine
                .filter(|at| at.directory != directory || cannot_go_on(image.group, at.replica));
            lost.extend(mine.map(|at| Lost {
                topic: topic.id,
                partition,
                group: image.group,
                replica: at.replica,
            }));
        }
        lost
    })
}

fn note_let_go(broker: &Broker, asked: &BTreeSet<u64>, words: &[Word]) {
    let mut any = false;
    for word in words.iter().filter(|word| asked.contains(&word.group)) {
        let here = broker
            .runtime()
            .handle(word.group)
            .map(|handle| handle.replica());
        let Some(here) = here else { continue };
        let is_member =
            word.voters.iter().any(|voter| voter.replica == here) || word.learners.contains(&here);
        if !is_member && !word.changing {
            let mut state = broker.replacement().state.lock();
            state.asked.remove(&word.group);
            any |= state.let_go.insert((word.group, here));
        }
    }
    if any {
        broker.catalog().look();
    }
}

/// Orders a successor for each lost replica whose group can do without it.
async fn replace(broker: &Arc<Broker>, lost: &[Lost], words: &[Word]) {
    let node = broker.config().node_id;
    let of_group: BTreeMap<u64, &Word> = words.iter().map(|word| (word.group, word)).collect();
    let plan = |controller: &Controller| -> Vec<Command> {
        let mut commands = Vec::new();
        for lost in lost {
            let topic = controller.image().topics.get(&lost.topic);
            let Some(image) = topic.and_then(|topic| topic.partitions.get(lost.partition)) else {
                continue;
            };
            let Some(word) = of_group.get(&lost.group) else {
                let why = if image.replicas.len() == 1 {
                    "it is the only replica"
                } else {
                    "nobody leads its group"
                };
                broker.replacement().say(lost.group, why);
                continue;
            };
            let wanted = Wanted::of_partition(image);
            match others_whole(word, &wanted, lost.replica) {
                Ok(others) => {
                    let (topic, partition) = (&lost.topic, lost.partition);
                    let settled = wanted.is_of(word);
                    let (old, on_word) = (lost.replica, Some(OnWord { others, settled }));
                    let planned =
                        controller.plan_replace_replica(topic, partition, old, node, on_word);
                    commands.extend(planned.ok());
                }
                Err(why) => broker.replacement().say(lost.group, &why.to_string()),
            }
        }
        commands
    };
    let mut any = false;
    broker
        .catalog()
        .plan(|controller| any = !plan(controller).is_empty());
    if !any {
        return;
    }
    let plan = |controller: &Controller| Ok(plan(controller));
    match broker.catalog().change(broker, plan).await {
        Ok(outcomes) => info!(
            count = outcomes.len(),
            "ordered successors of lost replicas"
        ),
        Err(error) => warn!(%error, "replicas that cannot go on are not replaced yet"),
    }
}

/// Has this cluster's replica of group 0 on a node replaced, which is lost in a data directory that is there
/// still (R17).
///
/// # Errors
/// Why it is not replaced.
pub(crate) async fn replace_controller(
    broker: &Arc<Broker>,
    node: i32,
    lost: u64,
) -> Result<(), String> {
    let is_there = broker.catalog().read(|image| {
        let known = image.quorum.of_node(node);
        known.is_some_and(|known| known.at.replica == lost)
    });
    if !is_there {
        return Ok(());
    }
    let words = words(broker, &BTreeSet::from([CONTROLLER_GROUP])).await;
    let Some(word) = words.first() else {
        return Err("nobody leads the controller's group".to_owned());
    };
    let others = broker.catalog().read(|image| {
        let wanted = Wanted::of_quorum(&image.quorum);
        others_whole(word, &wanted, lost).map_err(|why| why.to_string())
    })?;
    let plan =
        |controller: &Controller| controller.plan_replace_controller(lost, node, others.clone());
    let outcome = broker.catalog().change_one(broker, plan).await;
    outcome.map(drop).map_err(|error| error.to_string())
}

/// The words of those who lead these groups, as many as are given in time.
pub(crate) async fn words(broker: &Arc<Broker>, groups: &BTreeSet<u64>) -> Vec<Word> {
    let mut by_node: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    for group in groups {
        if let Some(node) = broker.leading_node(*group) {
            by_node.entry(node).or_default().push(*group);
        }
    }
    let mut all = Vec::new();
    for (node, groups) in by_node {
        if node == broker.config().node_id {
            all.extend(give(broker, &groups).await);
            continue;
        }
        let question = Question::Words(AskWords { groups });
        let asked = broker
            .peers()
            .call(Callee::Node(node), question.into_bytes(), WORD_WAIT);
        match asked.await.map(Reply::from_bytes) {
            Ok(Some(Reply::Words(words))) => all.extend(words.words.into_iter().map(Word::from)),
            Ok(_) => debug!(node, "a node gives no word on the groups that it leads"),
            Err(error) => debug!(node, %error, "a node gives no word on the groups that it leads"),
        }
    }
    all
}

/// This node's word on those of the groups that it leads.
pub(crate) async fn give(broker: &Arc<Broker>, groups: &[u64]) -> Vec<Word> {
    let until = Instant::now() + GIVE_WAIT;
    let mut answers = Vec::new();
    let mut shards = BTreeSet::new();
    for group in groups.iter().take(MOST_AT_ONCE) {
        let Some(handle) = broker.runtime().handle(*group) else {
            continue;
        };
        if handle.published().role != Role::Leader {
            continue;
        }
        let (ticket, answer) = broker.internal().expect_word();
        broker.runtime().ask_word(&handle, ticket);
        shards.insert(handle.shard());
        answers.push(answer);
    }
    burst::run(broker, || {
        shards.iter().for_each(|shard| broker.run_shard(*shard))
    });
    let mut words = Vec::new();
    for answer in answers {
        if let Ok(Ok(Ok(word))) = timeout_at(until, answer).await {
            words.push(word);
        }
    }
    words
}

/// The same as a reply.
pub(crate) async fn reply(broker: &Arc<Broker>, asked: &AskWords) -> Reply {
    let words = give(broker, &asked.groups).await;
    Reply::Words(Words {
        words: words.into_iter().map(Into::into).collect(),
    })
}
