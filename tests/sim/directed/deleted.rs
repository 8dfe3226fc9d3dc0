//! L8: topics that are deleted, and a leader that has not heard of it.

use riverrun_replication::controller::{
    ClosedTopics, Command, Controller, CreateTopicRequest, Outcome, RegisterBroker, Rejection,
};
use riverrun_replication::{ProduceError, Role};
use riverrun_storage::planted::Bug;
use uuid::Uuid;

use super::cluster::{A, C, Cluster, F, GROUP, Plan, without_rule};

const ALL: [u64; 3] = [A, F, C];
const NAME: &str = "orders";

/// What the leader of group 0 knows: the nodes, the topic of [`GROUP`], and who has closed it.
struct Administration {
    controller: Controller,
    closed: ClosedTopics,
    /// The nodes of a topic's replicas.
    nodes: Vec<i32>,
}

impl Administration {
    fn new() -> Self {
        Self::of(&[1, 2, 3])
    }

    fn of(nodes: &[i32]) -> Self {
        let mut controller = Controller::new();
        for node in 1..=3 {
            let broker = RegisterBroker {
                node,
                directory: Uuid::from_u128(u128::from(node.unsigned_abs()))
                    .as_bytes()
                    .to_vec(),
                incarnation: 1,
                ..RegisterBroker::default()
            };
            assert_eq!(
                controller.apply(&Command::RegisterBroker(broker)),
                Outcome::Done
            );
        }
        let mut new = Self {
            controller,
            closed: ClosedTopics::default(),
            nodes: nodes.to_vec(),
        };
        assert_eq!(new.create(u128::from(GROUP)), Ok(()));
        new
    }

    fn create(&mut self, id: u128) -> Result<(), Rejection> {
        let request = CreateTopicRequest {
            name: NAME.to_owned(),
            id: Uuid::from_u128(id),
            assignments: Some(vec![self.nodes.clone()]),
            ..CreateTopicRequest::default()
        };
        let command = self.controller.plan_create_topic(request)?;
        assert!(!matches!(
            self.controller.apply(&command),
            Outcome::Rejected(_)
        ));
        Ok(())
    }

    fn topic() -> Uuid {
        Uuid::from_u128(u128::from(GROUP))
    }

    fn mark(&mut self) {
        let mark = self.controller.plan_delete_topic(&Self::topic()).unwrap();
        assert_eq!(self.controller.apply(&mark), Outcome::Done);
    }

    /// The only replica of the topic moves to a node.
    fn moves(&mut self, node: i32) {
        let topic = Self::topic();
        let image = self.controller.image();
        let old = image.topics[&topic].partitions[0].replicas[0].replica;
        let planned = self
            .controller
            .plan_replace_replica(&topic, 0, old, node, None);
        let outcome = self.controller.apply(&planned.unwrap());
        assert!(matches!(outcome, Outcome::Replaced { .. }));
    }

    /// The node has closed the topic and deleted its replica.
    fn closes(&mut self, cluster: &mut Cluster, at: u64) {
        cluster.delete(at);
        let node = i32::try_from(at).unwrap();
        assert!(self.closed.closed(Self::topic(), node));
    }

    /// Does what there is to do; whether the name is free then.
    fn sees_to_it(&mut self) -> bool {
        for duty in self.controller.duties(|_| Some(false), &self.closed) {
            assert_eq!(self.controller.apply(&duty), Outcome::Done);
        }
        !self.controller.image().names.contains_key(NAME)
    }
}

#[test]
fn l8_write_to_the_deleted() {
    // C has closed the topic. A leads it still, and neither A nor F has heard. Whether its namesake is
    // there, and whether what is written to A is acknowledged.
    let steps = || {
        let mut cluster = Cluster::of_three(Plan::voters(&ALL));
        let mut administration = Administration::new();
        assert_eq!(administration.create(77), Err(Rejection::TopicExists));
        administration.mark();
        administration.closes(&mut cluster, C);
        let namesake = administration.sees_to_it() && administration.create(77).is_ok();
        let request = cluster.produce(A, "to the deleted");
        cluster.run(&[A, F]);
        (namesake, cluster.acked(request).is_some())
    };
    assert_eq!(steps(), (false, true));
    assert_eq!(without_rule(Bug::L8, steps), (true, true));
}

#[test]
fn l8_who_votes_while_a_replica_moves() {
    // The only replica, A's, moves to C, where nothing of it is yet. C has closed the topic, and A has heard
    // of neither. Whether the name is free, and whether what is written to A is acknowledged.
    let steps = || {
        let mut cluster = Cluster::new(Plan::voters(&[A]));
        cluster.run(&[A]);
        let mut administration = Administration::of(&[1]);
        administration.moves(3);
        administration.mark();
        let topic = Administration::topic();
        assert!(administration.closed.closed(topic, 3));
        let free = administration.sees_to_it();
        let request = cluster.produce(A, "to the deleted");
        cluster.run(&[A]);
        let acked = cluster.acked(request).is_some();
        // A hears of it, and nobody is left.
        administration.closes(&mut cluster, A);
        (free, acked, administration.sees_to_it())
    };
    assert_eq!(steps(), (false, true, true));
    assert_eq!(without_rule(Bug::L8, steps), (true, true, true));
}

#[test]
fn l8_a_name_comes_free_while_a_minority_is_away() {
    let mut cluster = Cluster::of_three(Plan::voters(&ALL));
    let mut administration = Administration::new();
    administration.mark();
    assert!(!administration.sees_to_it());
    // A, which leads, has not heard of it and never closes the topic.
    cluster.cut_off(A);
    administration.closes(&mut cluster, C);
    assert!(!administration.sees_to_it());
    administration.closes(&mut cluster, F);
    assert!(administration.sees_to_it());
    assert_eq!(administration.create(77), Ok(()));
    // Nobody is left to have what is written to A, also when it is heard again.
    assert_eq!(cluster.published(A).role, Role::Leader);
    let request = cluster.produce(A, "to the deleted");
    cluster.pass(&ALL, 60);
    assert_eq!(cluster.acked(request), None);
    cluster.delete(A);
    assert!(cluster.handle(A).is_none());
    let failed = matches!(
        cluster.answer(request),
        Some(Err(ProduceError::Storage | ProduceError::NotLeader))
    );
    assert!(failed, "{:?}", cluster.answer(request));
}
