//! What the brokers have room for: nothing is ordered that a broker has said it cannot carry out.
//!
//! A broker says how many replicas it can have open; how many it has follows from the image, in which
//! those of topics that are being deleted stand until they are gone. A broker that has said nothing has
//! room for everything, as in the versions before.

use std::collections::BTreeMap;

use super::Controller;
use super::command::NewPartition;
use super::image::FIRST_REPLICA;
use super::outcome::Rejection;

impl Controller {
    /// The replicas that a broker is to have.
    #[must_use]
    pub fn replicas_on(&self, node: i32) -> usize {
        let topics = self.image().topics.values();
        let partitions = topics.flat_map(|topic| &topic.partitions);
        let replicas = partitions.flat_map(|partition| &partition.replicas);
        replicas.filter(|replica| replica.node == node).count()
    }

    /// How many more replicas a broker has room for, where it has said.
    #[must_use]
    pub fn room_of(&self, node: i32) -> Option<usize> {
        let room = self.image().brokers.get(&node)?.room?;
        let most = usize::try_from(room.replicas).unwrap_or(usize::MAX);
        Some(most.saturating_sub(self.replicas_on(node)))
    }

    /// Whether every broker has room for what it is to have of new partitions.
    pub(super) fn check_room(&self, partitions: &[NewPartition]) -> Result<(), Rejection> {
        let mut asked: BTreeMap<i32, usize> = BTreeMap::new();
        for node in partitions.iter().flat_map(|partition| &partition.nodes) {
            *asked.entry(*node).or_default() += 1;
        }
        // A broker cannot have more than were ever given out: what fits with that needs no counting.
        let given_out = self.image().next_replica.saturating_sub(FIRST_REPLICA);
        let given_out = usize::try_from(given_out).unwrap_or(usize::MAX);
        for (node, asked) in asked {
            let Some(room) = self.image().brokers.get(&node).and_then(|b| b.room) else {
                continue;
            };
            let most = usize::try_from(room.replicas).unwrap_or(usize::MAX);
            if given_out.saturating_add(asked) <= most {
                continue;
            }
            let have = self.replicas_on(node);
            if have.saturating_add(asked) > most {
                return Err(Rejection::NoRoom {
                    node,
                    asked,
                    descriptors: room.descriptors,
                    most: room.replicas,
                    have,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use uuid::Uuid;

    use super::super::{Command, CreateTopic, CreateTopicRequest, Outcome, RegisterBroker, Room};
    use super::*;

    fn id(number: u128) -> Vec<u8> {
        Uuid::from_u128(number).as_bytes().to_vec()
    }

    fn registers(node: i32, incarnation: u64, room: Option<u32>) -> Command {
        let room = room.map(|replicas| Room {
            descriptors: 450,
            replicas,
        });
        Command::RegisterBroker(RegisterBroker {
            node,
            directory: id(100 + u128::from(node.unsigned_abs())),
            incarnation,
            room,
            ..RegisterBroker::default()
        })
    }

    /// Brokers 1 and so on with this room.
    fn brokers(rooms: &[Option<u32>]) -> Controller {
        let mut controller = Controller::new();
        for (room, node) in rooms.iter().zip(1..) {
            let outcome = controller.apply(&registers(node, 1, *room));
            assert_eq!(outcome, Outcome::Done);
        }
        controller
    }

    fn request(number: u128, partitions: i32, replication: u16) -> CreateTopicRequest {
        CreateTopicRequest {
            name: format!("t{number}"),
            id: Uuid::from_u128(number),
            partitions,
            replication: Some(replication),
            ..CreateTopicRequest::default()
        }
    }

    fn create(controller: &mut Controller, number: u128, partitions: i32, replication: u16) {
        let command = controller.plan_create_topic(request(number, partitions, replication));
        let outcome = controller.apply(&command.unwrap());
        assert!(matches!(outcome, Outcome::Partitions { .. }), "{outcome:?}");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_broker_and_its_limit() {
        let mut one = brokers(&[Some(48)]);
        create(&mut one, 1, 8, 1);
        let refused = one.plan_create_topic(request(2, 400, 1)).unwrap_err();
        let expected = Rejection::NoRoom {
            node: 1,
            asked: 400,
            descriptors: 450,
            most: 48,
            have: 8,
        };
        assert_eq!(refused, expected);
        let said = refused.to_string();
        assert!(said.contains("node 1") && said.contains("450"), "{said}");
        assert!(said.contains("ulimit -n"), "{said}");
        // What fits to the last one is taken, and then nothing more.
        create(&mut one, 3, 40, 1);
        assert!(one.plan_create_topic(request(4, 1, 1)).is_err());
        let more = one.plan_create_partitions(&Uuid::from_u128(1), 9, None, 0);
        assert!(matches!(more, Err(Rejection::NoRoom { have: 48, .. })));
        let chosen = CreateTopicRequest {
            assignments: Some(vec![vec![1]]),
            ..request(5, 0, 0)
        };
        assert!(one.plan_create_topic(chosen).is_err());
    }

    #[test]
    fn what_two_nodes_plan_side_by_side_is_not_created_twice_over() {
        let mut one = brokers(&[Some(10)]);
        let first = one.plan_create_topic(request(1, 6, 1)).unwrap();
        let second = one.plan_create_topic(request(2, 6, 1)).unwrap();
        assert!(matches!(one.apply(&first), Outcome::Partitions { .. }));
        let before = one.clone();
        let refused = one.apply(&second);
        assert!(matches!(
            refused,
            Outcome::Rejected(Rejection::NoRoom { have: 6, .. })
        ));
        assert_eq!(one, before);
    }

    #[test]
    fn brokers_that_have_room_take_the_place_of_those_that_have_none() {
        let mut three = brokers(&[Some(100), Some(2), Some(100)]);
        create(&mut three, 1, 50, 2);
        let on = [1, 2, 3].map(|node| three.replicas_on(node));
        assert_eq!((on[0] + on[2], on[1]), (98, 2));
        // Three replicas need the one that is full.
        let refused = three.plan_create_topic(request(2, 1, 3)).unwrap_err();
        assert!(
            matches!(refused, Rejection::NoRoom { node: 2, .. }),
            "{refused}"
        );
    }

    #[test]
    fn a_broker_that_said_nothing_has_room_for_everything() {
        let mut old = brokers(&[None, Some(5_000)]);
        create(&mut old, 1, 5_000, 2);
        assert_eq!(old.room_of(1), None);
        assert_eq!(old.room_of(2), Some(0));
        let again = Controller::from_checkpoint(&old.checkpoint()).unwrap();
        assert_eq!(again, old);
    }

    #[test]
    fn a_broker_that_has_more_or_less_room_says_so_at_its_next_start() {
        let mut one = brokers(&[Some(10)]);
        create(&mut one, 1, 8, 1);
        // It keeps what it has, and gets nothing more.
        assert_eq!(one.apply(&registers(1, 2, Some(4))), Outcome::Done);
        assert_eq!(one.room_of(1), Some(0));
        assert!(one.plan_create_topic(request(2, 1, 1)).is_err());
        assert_eq!(one.apply(&registers(1, 3, Some(20))), Outcome::Done);
        assert_eq!(one.room_of(1), Some(12));
        create(&mut one, 2, 12, 1);
    }

    #[test]
    fn a_topic_that_is_gone_makes_room_and_one_that_is_going_does_not() {
        let mut one = brokers(&[Some(10)]);
        create(&mut one, 1, 8, 1);
        let topic = Uuid::from_u128(1);
        one.apply(&one.plan_delete_topic(&topic).unwrap());
        assert!(one.plan_create_topic(request(2, 8, 1)).is_err());
        one.apply(&one.plan_remove_topic(&topic).unwrap());
        create(&mut one, 2, 8, 1);
    }

    #[test]
    fn a_command_of_a_version_that_did_not_ask_is_held_to_it_too() {
        let mut one = brokers(&[Some(1)]);
        let partitions = vec![NewPartition { nodes: vec![1] }; 2];
        let command = Command::CreateTopic(CreateTopic {
            name: "t".to_owned(),
            id: id(1),
            partitions,
            ..CreateTopic::default()
        });
        let Outcome::Rejected(why) = one.apply(&command) else {
            panic!("it was created");
        };
        assert!(matches!(why, Rejection::NoRoom { asked: 2, .. }), "{why}");
    }
}
