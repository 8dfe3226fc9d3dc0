//! One connection to one broker: requests go out without waiting for the answers of those before
//! them, and each answer finds its request by its correlation id.
//!
//! The connection is one task that reads, writes and watches the clock. Whatever goes wrong ends
//! it, and with it every request that is not answered; nothing is ever sent twice from here. An
//! answer that does not come in time ends it too, whether or not anybody still waits: what is behind
//! that answer would wait as well.

mod negotiate;
mod stream;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use riverrun_wire::{Encoded, Request};
use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use self::negotiate::Versions;
use crate::{
    config::ClientConfig,
    error::{Error, Result},
};

/// A connection; clones share it. It closes when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    versions: Arc<Versions>,
    client_id: Arc<str>,
}

/// What the handles and the task share.
#[derive(Debug)]
struct Shared {
    broker: String,
    next_correlation: AtomicI32,
    pending: Mutex<Pending>,
    close: Notify,
    /// A request was sent whose answer is due before all others.
    due_sooner: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    answers: BTreeMap<i32, Expected>,
    /// Why the connection ended.
    ended: Option<Error>,
}

impl Pending {
    /// The request whose answer is due first.
    fn first_due(&self) -> Option<&Expected> {
        self.answers.values().min_by_key(|expected| expected.due)
    }
}

/// An answer that is to come.
#[derive(Debug)]
struct Expected {
    answer: oneshot::Sender<Result<Bytes>>,
    api: &'static str,
    due: Instant,
    within: Duration,
}

/// A frame to send.
#[derive(Debug)]
struct Outgoing {
    frame: Encoded,
    /// Told when the operating system has taken the frame, where no answer will come.
    sent: Option<oneshot::Sender<Result<Bytes>>>,
}

impl Connection {
    /// Connects, and learns which versions the broker speaks.
    pub(crate) async fn open(broker: &str, config: &ClientConfig) -> Result<Self> {
        let failed = |source: std::io::Error| Error::Connection {
            broker: broker.to_owned(),
            source: Arc::new(source),
        };
        let stream = timeout(config.connect_timeout, TcpStream::connect(broker))
            .await
            .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let shared = Arc::new(Shared {
            broker: broker.to_owned(),
            next_correlation: AtomicI32::new(0),
            pending: Mutex::default(),
            close: Notify::new(),
            due_sooner: Notify::new(),
        });
        // The queue has no bound of its own: its users have one each (requests in flight).
        let (outgoing, queue) = mpsc::unbounded_channel();
        tokio::spawn(stream::run(
            stream,
            shared.clone(),
            queue,
            config.max_frame_bytes,
        ));
        let mut connection = Self {
            shared,
            outgoing,
            versions: Arc::new(Versions::default()),
            client_id: config.client_id.as_str().into(),
        };
        let versions = negotiate::ask(&connection, config.request_timeout).await?;
        connection.versions = Arc::new(versions);
        tracing::debug!(broker, "connected");
        Ok(connection)
    }

    pub(crate) fn broker(&self) -> &str {
        &self.shared.broker
    }

    pub(crate) fn is_open(&self) -> bool {
        self.shared.pending.lock().ended.is_none()
    }

    /// Ends the connection and every request on it.
    pub(crate) fn close(&self) {
        self.shared.end(Error::Disconnected {
            broker: self.broker().to_owned(),
        });
    }

    /// The highest version that both sides speak, at most `cap`.
    pub(crate) fn version<R: Request>(&self, cap: i16) -> Result<i16> {
        self.versions
            .choose(R::API, cap)
            .ok_or_else(|| Error::UnsupportedVersion {
                broker: self.broker().to_owned(),
                api: R::API.name(),
            })
    }

    /// Asks and waits, in the highest version that both sides speak.
    pub(crate) async fn call<R: Request>(
        &self,
        request: &R,
        within: Duration,
    ) -> Result<R::Response> {
        let version = self.version::<R>(i16::MAX)?;
        self.send(request, version, within)?.answer().await
    }

    /// Puts a request on its way. Requests leave in the order of these calls.
    pub(crate) fn send<R: Request>(
        &self,
        request: &R,
        version: i16,
        within: Duration,
    ) -> Result<Awaited<R>> {
        let (answer, awaited) = oneshot::channel();
        let correlation_id =
            self.shared.next_correlation.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let frame = self.encode(request, version, correlation_id)?;
        {
            let mut pending = self.shared.pending.lock();
            if let Some(error) = &pending.ended {
                return Err(error.clone());
            }
            let due = Instant::now() + within;
            if pending.first_due().is_none_or(|first| due < first.due) {
                self.shared.due_sooner.notify_one();
            }
            pending.answers.insert(
                correlation_id,
                Expected {
                    answer,
                    api: R::API.name(),
                    due,
                    within,
                },
            );
        }
        self.queue(Outgoing { frame, sent: None })?;
        Ok(Awaited {
            answer: awaited,
            connection: self.clone(),
            version,
            decode: std::marker::PhantomData,
        })
    }

    /// Puts a request on its way that nobody answers; resolves when it has left.
    pub(crate) fn send_unanswered<R: Request>(
        &self,
        request: &R,
        version: i16,
    ) -> Result<impl Future<Output = Result<()>> + use<R>> {
        let correlation_id =
            self.shared.next_correlation.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let frame = self.encode(request, version, correlation_id)?;
        let (sent, left) = oneshot::channel();
        self.queue(Outgoing {
            frame,
            sent: Some(sent),
        })?;
        let disconnected = Error::Disconnected {
            broker: self.broker().to_owned(),
        };
        Ok(async move { left.await.unwrap_or(Err(disconnected)).map(drop) })
    }

    fn encode<R: Request>(
        &self,
        request: &R,
        version: i16,
        correlation_id: i32,
    ) -> Result<Encoded> {
        riverrun_wire::encode_request(request, version, correlation_id, Some(&self.client_id))
            .map_err(|source| Error::Unsendable {
                api: R::API.name(),
                source,
            })
    }

    fn queue(&self, outgoing: Outgoing) -> Result<()> {
        self.outgoing
            .send(outgoing)
            .map_err(|_| self.shared.reason())
    }
}

/// A request on its way. Dropping it leaves the connection as it is.
#[derive(Debug)]
pub(crate) struct Awaited<R> {
    answer: oneshot::Receiver<Result<Bytes>>,
    connection: Connection,
    version: i16,
    decode: std::marker::PhantomData<fn() -> R>,
}

impl<R: Request> Awaited<R> {
    /// Waits for the answer.
    pub(crate) async fn answer(self) -> Result<R::Response> {
        let shared = &self.connection.shared;
        let frame = self.answer.await.unwrap_or_else(|_| Err(shared.reason()))?;
        let version = negotiate::answer_version::<R>(self.version, &frame);
        riverrun_wire::decode_response::<R::Response>(&frame, version).map_err(|source| {
            self.connection.close();
            Error::Malformed {
                broker: shared.broker.clone(),
                api: R::API.name(),
                source,
            }
        })
    }
}

impl Shared {
    /// Ends the connection for a reason, the first of which counts.
    fn end(&self, error: Error) {
        let answers = {
            let mut pending = self.pending.lock();
            pending.ended.get_or_insert_with(|| error.clone());
            std::mem::take(&mut pending.answers)
        };
        for expected in answers.into_values() {
            // Whoever asked may have stopped waiting.
            let _ = expected.answer.send(Err(error.clone()));
        }
        self.close.notify_one();
    }

    /// Waits until an answer is overdue.
    async fn overdue(&self) -> Error {
        loop {
            let first = self
                .pending
                .lock()
                .first_due()
                .map(|first| (first.due, first.api, first.within));
            let Some((due, api, after)) = first else {
                self.due_sooner.notified().await;
                continue;
            };
            if due <= Instant::now() {
                return Error::Timeout {
                    broker: self.broker.clone(),
                    api,
                    after,
                };
            }
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.due_sooner.notified() => {}
            }
        }
    }

    fn reason(&self) -> Error {
        let ended = self.pending.lock().ended.clone();
        ended.unwrap_or_else(|| Error::Disconnected {
            broker: self.broker.clone(),
        })
    }
}
