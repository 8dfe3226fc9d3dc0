//! What was set aside goes when it is proven that nobody needs it, and no sooner: files of a replica that was
//! replaced when its successors hold everything (R10), those of a topic when the controller has removed it by
//! its id (R11). Everything else stays until an operator removes it by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use riverrun_replication::Word;
use riverrun_replication::asides::{Aside, may_go};
use riverrun_replication::controller::Controller;
use riverrun_replication::node::CONTROLLER_GROUP;
use riverrun_storage::format::aside::Reason;
use tracing::{debug, warn};
use uuid::Uuid;

use super::replacement::words;
use crate::broker::Broker;
use crate::watched::Kind;

/// How often it is looked at what was set aside.
const EVERY: Duration = Duration::from_secs(1);
/// The same while there was nothing to do.
const SELDOM: Duration = Duration::from_secs(10);

/// Sees to it until the broker is gone.
pub(crate) async fn follow(broker: Weak<Broker>) {
    let mut pause = EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let Some(broker) = broker.upgrade().filter(|broker| !broker.is_stopping()) else {
            return;
        };
        pause = if once(&broker).await { EVERY } else { SELDOM };
        // A topic that is deleted gives its room back soon.
        let own = broker.config().node_id;
        let waits = |nodes: &BTreeSet<i32>| nodes.contains(&own);
        if broker
            .catalog()
            .read(|image| image.removed.values().any(waits))
        {
            pause = EVERY;
        }
    }
}

/// Looks once; true where something may be done soon.
pub(crate) async fn once(broker: &Arc<Broker>) -> bool {
    let own = broker.config().node_id;
    let removed: BTreeSet<Uuid> = broker.catalog().read(|image| {
        let removed = image.removed.iter();
        let mine = removed.filter(|(_, nodes)| nodes.contains(&own));
        mine.map(|(id, _)| *id).collect()
    });
    let on_thread = Arc::clone(broker);
    let listed = broker.blocking(Kind::Files, move || {
        let node = on_thread.runtime().node();
        node.name_strays()?;
        node.asides()
    });
    let asides = match listed.await {
        Ok(Ok(asides)) => asides,
        Ok(Err(error)) => {
            warn!(%error, "what was set aside cannot be looked at");
            return false;
        }
        Err(_) => return false,
    };
    let replaced = |aside: &Aside| {
        let note = aside.note.as_ref();
        note.is_some_and(|note| matches!(note.reason, Reason::Replaced | Reason::Contradicted))
    };
    let of_groups = asides.iter().filter(|aside| replaced(aside));
    let mut groups: BTreeSet<u64> = of_groups
        .filter_map(|aside| Some(aside.note.as_ref()?.identity.group))
        .collect();
    if groups.is_empty() && removed.is_empty() {
        return false;
    }
    // What this node has applied is held against the word of group 0's leader: a node whose own group 0 was
    // put back from somewhere deletes nothing.
    groups.insert(CONTROLLER_GROUP);
    let applied = broker.catalog().read(|image| image.next_offset);
    let words = words(broker, &groups).await;
    let words: BTreeMap<u64, Word> = words.into_iter().map(|word| (word.group, word)).collect();
    let confirmed = words
        .get(&CONTROLLER_GROUP)
        .is_some_and(|word| word.high_watermark >= applied);
    let names: Vec<String> = broker.catalog().read(|image| {
        let goes = |aside: &&Aside| {
            let group = aside.note.as_ref().map(|note| note.identity.group);
            let word = group.and_then(|group| words.get(&group));
            may_go(aside, image, own, confirmed, word)
        };
        let names = asides.iter().filter(goes);
        names.map(|aside| aside.name.clone()).collect()
    });
    if delete(broker, names).await && confirmed && !removed.is_empty() {
        say_gone(broker, &removed).await;
    }
    true
}

/// Says to the controller that nothing is left here of removed topics.
async fn say_gone(broker: &Arc<Broker>, removed: &BTreeSet<Uuid>) {
    let node = broker.runtime().node();
    let open = node.handles().into_iter().map(|handle| handle.topic_id());
    let unopened = node.unopened().into_iter().map(|of| of.identity.topic_id);
    let here: BTreeSet<Uuid> = open.chain(unopened).collect();
    let gone: Vec<Uuid> = removed.difference(&here).copied().collect();
    let own = broker.config().node_id;
    let plan = |controller: &Controller| {
        let planned = controller.plan_topics_gone(own, &gone);
        Ok(planned.into_iter().collect())
    };
    if gone.is_empty() {
        return;
    }
    if let Err(error) = broker.catalog().change(broker, plan).await {
        debug!(%error, "it is said again later that nothing is left of removed topics");
    }
}

async fn delete(broker: &Arc<Broker>, names: Vec<String>) -> bool {
    let on_thread = Arc::clone(broker);
    let deleted = broker.blocking(Kind::Files, move || {
        let node = on_thread.runtime().node();
        names.iter().try_for_each(|name| node.delete_aside(name))
    });
    match deleted.await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            warn!(%error, "what was set aside cannot be deleted yet");
            false
        }
        Err(_) => false,
    }
}
