//! The first start of a node, and every later one: the cluster's id, group 0, registration.
//!
//! There is one node. It founds its cluster when its directory is empty: the id is durable before
//! group 0 is created, and group 0 before anything is answered. A start that was cut off between
//! the two goes on where it ended, since nothing had been answered.

use std::sync::Arc;

use riverrun_replication::controller::{Command, FoundCluster, RegisterBroker};
use riverrun_replication::node::GroupOrder;
use riverrun_storage::LogIdentity;
use uuid::Uuid;

use crate::broker::Broker;
use crate::error::StartError;

/// The controller's own group and the topic id of its log, which is no topic of the image.
const CONTROLLER_GROUP: u64 = 0;
const CONTROLLER_REPLICA: u64 = 1;

/// Founds the cluster or comes back to it, and makes this start known.
pub(crate) async fn found_or_join(broker: &Arc<Broker>) -> Result<(), StartError> {
    let founded = broker.runtime().handle(CONTROLLER_GROUP).is_none();
    if founded {
        if broker.is_refused(CONTROLLER_GROUP) {
            let what = "the controller's log is damaged, and this node has the only copy";
            return Err(StartError::Controller(what.to_owned()));
        }
        found(broker).await?;
    }
    let handle = broker.runtime().handle(CONTROLLER_GROUP).ok_or_else(|| {
        StartError::Controller("group 0 is not there after it was created".to_owned())
    })?;
    let published = broker.until_ready(&handle).await;
    broker
        .catalog()
        .applied_through(published.high_watermark)
        .await;
    register(broker).await?;
    crate::start::announce(broker, founded);
    Ok(())
}

async fn found(broker: &Arc<Broker>) -> Result<(), StartError> {
    let blocking = Arc::clone(broker);
    let created = tokio::task::spawn_blocking(move || {
        let broker = blocking;
        if !broker.runtime().handles().is_empty() {
            return Err("there are partitions, and the controller's log is gone".to_owned());
        }
        let store = broker.runtime().node().store();
        if broker.cluster_id().is_empty() {
            let id = new_cluster_id();
            store
                .set_cluster_id(id)
                .map_err(|error| error.to_string())?;
            broker.set_cluster_id(id);
        }
        let order = GroupOrder {
            identity: LogIdentity {
                group: CONTROLLER_GROUP,
                replica: CONTROLLER_REPLICA,
                topic_id: Uuid::nil(),
                partition: 0,
            },
            voters: vec![CONTROLLER_REPLICA],
            learners: Vec::new(),
            settings: crate::config::TopicSettings::controller_settings(),
        };
        crate::net::burst::run(&broker, || broker.runtime().create_group(&order))
            .map(drop)
            .map_err(|error| error.to_string())
    });
    created
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
        .map_err(StartError::Controller)
}

async fn register(broker: &Arc<Broker>) -> Result<(), StartError> {
    let config = broker.config();
    let (host, port) = config
        .advertised
        .clone()
        .unwrap_or_else(|| (config.listen.ip().to_string(), config.listen.port()));
    let node = broker.runtime().node();
    let registration = RegisterBroker {
        node: config.node_id,
        directory: node.directory_id().as_bytes().to_vec(),
        incarnation: node.incarnation(),
        host,
        port: u32::from(port),
        ..RegisterBroker::default()
    };
    let id = broker.cluster_uuid();
    let changed = broker.catalog().change(broker, |controller| {
        let mut commands = Vec::new();
        if controller.image().cluster_id.is_nil() {
            commands.push(Command::FoundCluster(FoundCluster {
                cluster_id: id.as_bytes().to_vec(),
                ..FoundCluster::default()
            }));
        }
        commands.push(controller.plan_register_broker(registration)?);
        Ok(commands)
    });
    changed
        .await
        .map(drop)
        .map_err(|error| StartError::Controller(error.to_string()))
}

/// Kafka's tools take an id that begins with a dash for an option.
fn new_cluster_id() -> Uuid {
    loop {
        let id = Uuid::new_v4();
        if !cluster_id_text(&id).starts_with('-') {
            return id;
        }
    }
}

/// An id as Kafka writes it: base64 for URLs, without padding.
pub(crate) fn cluster_id_text(id: &Uuid) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(22);
    for chunk in id.as_bytes().chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| {
            bits << 8 | usize::from(chunk.get(at).copied().unwrap_or(0))
        });
        for digit in 0..=chunk.len() {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(DIGITS.get(value).copied().map_or('A', char::from));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_ids_as_kafka_does() {
        assert_eq!(cluster_id_text(&Uuid::nil()), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(
            cluster_id_text(&Uuid::from_u128(u128::MAX)),
            "_____________________w"
        );
        assert_eq!(
            cluster_id_text(&Uuid::from_u128(1)),
            "AAAAAAAAAAAAAAAAAAAAAQ"
        );
    }
}
