//! When what was set aside may be deleted: pure (R10, R11). What lies aside may be the last copy of something
//! that was acknowledged, so it goes by a proof and never by the absence of a reason to keep it.

use riverrun_storage::format::aside::{Note, Reason};
use riverrun_storage::planted::{self, Bug};
use uuid::Uuid;

use crate::api::Word;
use crate::controller::Image;
use crate::node::CONTROLLER_GROUP;
use crate::replacement::{Wanted, is_filled};

/// A directory that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Its name in the data directory.
    pub name: String,
    /// Whose it was and why; `None` where nobody can tell.
    pub note: Option<Note>,
}

impl Aside {
    /// The topic of which it was a partition, by its name.
    #[must_use]
    pub fn topic(&self) -> Option<Uuid> {
        let (id, _) = self.name.split_once('-')?;
        (id.len() == 32).then(|| Uuid::try_parse(id).ok())?
    }
}

/// Whether a node may delete what was set aside. `confirmed` says that the leader of group 0 has confirmed, after
/// it was asked, that what this image shows is committed; `word` is that of the group's own leader.
#[must_use]
pub fn may_go(
    aside: &Aside,
    image: &Image,
    node: i32,
    confirmed: bool,
    word: Option<&Word>,
) -> bool {
    let topic = aside.topic();
    let is_removed = |id: &Uuid| {
        let waits = image.removed.get(id);
        waits.is_some_and(|nodes| nodes.contains(&node))
            || (planted::is(Bug::ForgottenImageDeletes) && !image.topics.contains_key(id))
    };
    if confirmed && topic.as_ref().is_some_and(is_removed) {
        return true;
    }
    let Some(note) = &aside.note else {
        return false;
    };
    let by_word = note.reason == Reason::Replaced
        || (note.reason == Reason::Contradicted && planted::is(Bug::ContradictedDeleted));
    if !by_word {
        return false;
    }
    let group = note.identity.group;
    let wanted = if group == CONTROLLER_GROUP {
        Some(Wanted::of_quorum(&image.quorum))
    } else {
        image.partition_of_group(group).map(Wanted::of_partition)
    };
    wanted.zip(word).is_some_and(|(wanted, word)| {
        word.group == group && is_filled(word, &wanted, note.identity.replica)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use riverrun_storage::LogIdentity;
    use riverrun_storage::format::aside::name_of;

    use super::*;
    use crate::api::VoterWord;
    use crate::controller::{PartitionImage, ReplicaImage, TopicImage};

    const TOPIC: Uuid = Uuid::from_u128(0xfeed);

    fn aside(reason: Reason) -> Aside {
        let directory = format!("{}-0", TOPIC.simple());
        Aside {
            name: name_of(&directory, 3, 1, 0),
            note: Some(Note {
                identity: LogIdentity {
                    group: 7,
                    replica: 3,
                    topic_id: TOPIC,
                    partition: 0,
                },
                reason,
                incarnation: 1,
            }),
        }
    }

    fn image() -> Image {
        let replicas = [(1, 1), (2, 2), (9, 3)].map(|(replica, node)| ReplicaImage {
            replica,
            node,
            directory: Uuid::nil(),
        });
        let topic = TopicImage {
            id: TOPIC,
            name: "t".to_owned(),
            partitions: vec![PartitionImage {
                group: 7,
                first_voters: vec![1, 2, 3],
                replicas: replicas.to_vec(),
                before: Vec::new(),
            }],
            configs: Default::default(),
            closing: false,
        };
        let mut image = Image::default();
        image.topics.insert(TOPIC, topic);
        image
    }

    fn word(has_all: bool) -> Word {
        Word {
            group: 7,
            term: 1,
            changing: false,
            voters: [1, 2, 9]
                .map(|replica| VoterWord {
                    replica,
                    whole: true,
                    has_all,
                })
                .to_vec(),
            learners: Vec::new(),
            high_watermark: 0,
        }
    }

    #[test]
    fn what_was_replaced_goes_by_the_word_that_its_successors_have_all() {
        let image = image();
        let goes =
            |reason, word: Option<Word>| may_go(&aside(reason), &image, 3, true, word.as_ref());
        assert!(goes(Reason::Replaced, Some(word(true))));
        assert!(!goes(Reason::Replaced, Some(word(false))));
        assert!(!goes(Reason::Replaced, None));
        for reason in Reason::ALL
            .into_iter()
            .filter(|reason| *reason != Reason::Replaced)
        {
            assert!(!goes(reason, Some(word(true))), "{reason:?}");
        }
    }

    #[test]
    fn a_topic_goes_by_its_removal_and_not_by_its_absence() {
        let mut image = image();
        image.topics.clear();
        let deleted = aside(Reason::TopicDeleted);
        assert!(!may_go(&deleted, &image, 3, true, None));
        image.removed.insert(TOPIC, BTreeSet::from([1, 3]));
        assert!(may_go(&deleted, &image, 3, true, None));
        assert!(
            !may_go(&deleted, &image, 3, false, None),
            "nobody has confirmed it"
        );
        assert!(
            !may_go(&deleted, &image, 2, true, None),
            "it has said that it is rid of it"
        );
        // Whatever the reason: the topic's records are wanted by nobody.
        assert!(may_go(&aside(Reason::Contradicted), &image, 3, true, None));
    }
}
