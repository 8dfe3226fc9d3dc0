//! Producers with their own settings that send one event after another.

use crate::cluster::ours::{client, runtime};
use crate::installed::java;
use anyhow::{Context, Result, ensure};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use riverrun_client::{Producer, ProducerConfig, ProducerRecord};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A producer to the only partition of a topic.
pub(super) trait Steady {
    /// Sends the event with this number and does not wait for it.
    fn send(&mut self, number: u64) -> Result<()>;

    /// The numbers that have been acknowledged since this was asked last.
    fn acknowledged(&mut self) -> Result<Vec<u64>>;
}

/// librdkafka's.
pub(super) struct Librdkafka {
    producer: ThreadedProducer<Delivered>,
    topic: String,
    acknowledged: Receiver<u64>,
}

struct Delivered(Mutex<Sender<u64>>);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        if result.is_ok() {
            // Nobody listens once the test is over.
            let _ = self.0.lock().unwrap().send(*number);
        }
    }
}

impl Librdkafka {
    pub(super) fn start(brokers: &str, topic: &str) -> Result<Self> {
        let (sender, acknowledged) = channel();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .create_with_context(Delivered(Mutex::new(sender)))?;
        Ok(Self {
            producer,
            topic: topic.to_owned(),
            acknowledged,
        })
    }
}

impl Steady for Librdkafka {
    fn send(&mut self, number: u64) -> Result<()> {
        let value = number.to_string();
        let record = BaseRecord::<(), str, _>::with_opaque_to(&self.topic, Box::new(number));
        let sent = self.producer.send(record.partition(0).payload(&value));
        sent.map_err(|(error, _)| error.into())
    }

    fn acknowledged(&mut self) -> Result<Vec<u64>> {
        Ok(self.acknowledged.try_iter().collect())
    }
}

/// The Java client's.
pub(super) struct Java {
    child: Child,
    stdin: ChildStdin,
    acknowledged: Receiver<u64>,
}

impl Java {
    pub(super) fn start(brokers: &str, topic: &str) -> Result<Self> {
        let mut child = java("the Java client")?
            .client()
            .args(["Steady", brokers, topic])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("no input")?;
        let stdout = child.stdout.take().context("no output")?;
        let (sender, acknowledged) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let number = line.parse();
                if number.map(|number| sender.send(number)).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            stdin,
            acknowledged,
        })
    }
}

impl Steady for Java {
    fn send(&mut self, number: u64) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the client ended: {ended:?}");
        writeln!(self.stdin, "{number}")?;
        Ok(self.stdin.flush()?)
    }

    fn acknowledged(&mut self) -> Result<Vec<u64>> {
        Ok(self.acknowledged.try_iter().collect())
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Our own.
pub(super) struct Ours {
    numbers: UnboundedSender<u64>,
    acknowledged: Receiver<u64>,
}

impl Ours {
    pub(super) fn start(brokers: &str, topic: &str) -> Self {
        let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
        let (numbers, mut to_send) = unbounded_channel::<u64>();
        let (sender, acknowledged) = channel();
        // When it ends with an error, so does what the test sends to it.
        thread::spawn(move || {
            runtime()?.block_on(async {
                let producer = Producer::new(client(&brokers)?, ProducerConfig::default())?;
                while let Some(number) = to_send.recv().await {
                    let record = ProducerRecord::to(&*topic).partition(0);
                    let delivery = producer.send(record.value(number.to_string())).await?;
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        if delivery.wait().await.is_ok() {
                            let _ = sender.send(number);
                        }
                    });
                }
                anyhow::Ok(())
            })
        });
        Self {
            numbers,
            acknowledged,
        }
    }
}

impl Steady for Ours {
    fn send(&mut self, number: u64) -> Result<()> {
        self.numbers.send(number).context("our producer has ended")
    }

    fn acknowledged(&mut self) -> Result<Vec<u64>> {
        Ok(self.acknowledged.try_iter().collect())
    }
}
