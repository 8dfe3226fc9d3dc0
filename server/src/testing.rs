//! A node in this process, for tests of its parts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use riverrun_replication::controller::Outcome;
use riverrun_wire::api::create_topics::CreatableTopic;
use riverrun_wire::api::{CreateTopicsRequest, CreateTopicsResponse};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::broker::Broker;
use crate::kafka::{Call, create_topics};
use crate::net::connection::Connection;
use crate::{Config, Running, start};

/// More than anything here takes; what is waited for is awaited, not slept for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    pub(crate) running: Running,
    pub(crate) data: TempDir,
}

/// The settings of a node on a directory.
pub(crate) fn config(data: &TempDir) -> Config {
    let mut config = Config::new(data.path().join("data"));
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.controller_listen = Some("127.0.0.1:0".parse().unwrap());
    config.store.wal_bytes = 1 << 20;
    config.drain = Duration::from_secs(1);
    config
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(settings: impl FnOnce(&mut Config)) -> Self {
        Self::on(tempfile::tempdir().unwrap(), settings).await
    }

    pub(crate) async fn on(data: TempDir, settings: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&data);
        settings(&mut config);
        let running = start(config).await.expect("the node starts");
        Self { running, data }
    }

    pub(crate) fn broker(&self) -> &Arc<Broker> {
        self.running.broker()
    }

    pub(crate) async fn stop(self) -> TempDir {
        self.running.stop().await.expect("a clean stop");
        self.data
    }
}

/// A number that was not given before: of producer ids, so that one change is told from another.
pub(crate) fn count() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Changes the cluster's state, and looks whether what came of it is what was asked for.
pub(crate) async fn takes_ids(broker: &Broker) -> Result<(), String> {
    let asked = count();
    let plan = |controller: &riverrun_replication::controller::Controller| {
        controller.plan_producer_ids(asked)
    };
    let changed = broker.catalog().change_one(broker, plan).await;
    match changed {
        Ok(Outcome::ProducerIds { count, .. }) if count == asked => Ok(()),
        other => Err(format!("asked for {asked} producer ids: {other:?}")),
    }
}

/// A connection, and the client's end of it.
pub(crate) async fn connection() -> (Arc<Connection>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let (stream, peer) = accepted.unwrap();
    let id = u64::from(count()) << 32;
    let connection = Connection::new(id, stream, peer).unwrap();
    (Arc::new(connection), client.unwrap())
}

/// A request of a version, on a connection that nobody reads.
pub(crate) async fn call(broker: &Arc<Broker>, version: i16) -> (Call, TcpStream) {
    let (connection, client) = connection().await;
    let call = Call {
        broker: Arc::clone(broker),
        connection,
        version,
        correlation_id: 1,
    };
    (call, client)
}

/// A request to create a topic with one partition.
pub(crate) fn create_request(name: &str) -> CreateTopicsRequest {
    CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        }],
        timeout_ms: 20_000,
        ..CreateTopicsRequest::default()
    }
}

/// Creates a topic; its error code where it is not there then.
pub(crate) async fn creates(broker: &Arc<Broker>, name: &str) -> Result<(), i16> {
    let (call, _client) = call(broker, 7).await;
    let CreateTopicsResponse { topics, .. } =
        create_topics::handle(call, create_request(name)).await;
    match topics.first().unwrap().error_code {
        0 if broker.topics().named(name).is_some() => Ok(()),
        code => Err(code),
    }
}

/// The sources below a folder, without those of tests: a file's own tests are cut off.
pub(crate) fn sources(below: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if ["tests", "dropped", "testing.rs", "tests.rs"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            all.extend(sources(&path));
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code = code.split("#[cfg(test)]\n#[expect").next().unwrap();
            all.push((path, code.to_owned()));
        }
    }
    all.sort();
    all
}
