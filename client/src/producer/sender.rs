//! The task that sends: it looks at all queues, gathers what may leave into one request for each
//! broker, and takes in what came of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use riverrun_wire::{ErrorCode, api::InitProducerIdRequest};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Shared,
    lane::{self, Job, Sent},
    queue::{Identity, Verdict},
};
use crate::error::{Error, Result, error_code};

/// Something that happened outside.
#[derive(Debug)]
pub(super) enum Event {
    Answered(Answered),
    Identity(Result<Identity>),
    Refreshed,
}

/// What came of one request.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) node: i32,
    pub(super) verdicts: Vec<(Sent, Verdict)>,
    /// The cluster's metadata is out of date.
    pub(super) stale: bool,
}

/// How the task stands towards the outside.
#[derive(Debug)]
struct Sender {
    shared: Arc<Shared>,
    lanes: BTreeMap<i32, mpsc::UnboundedSender<Job>>,
    in_flight: BTreeMap<i32, usize>,
    events: mpsc::UnboundedSender<Event>,
    /// The identity that partitions begin with.
    first_identity: Option<Identity>,
    asking_identity: bool,
    refreshing: bool,
    refresh_wanted: bool,
    refresh_not_before: Instant,
    refreshed: Instant,
}

/// What one look at the queues found.
#[derive(Debug, Default)]
struct Look {
    requests: BTreeMap<i32, Vec<Sent>>,
    next: Option<Instant>,
    identity_wanted: bool,
    leader_wanted: bool,
    is_empty: bool,
}

pub(super) async fn run(shared: Arc<Shared>) {
    let (events, mut inbox) = mpsc::unbounded_channel();
    let mut sender = Sender {
        shared: shared.clone(),
        lanes: BTreeMap::new(),
        in_flight: BTreeMap::new(),
        events,
        first_identity: None,
        asking_identity: false,
        refreshing: false,
        refresh_wanted: false,
        refresh_not_before: Instant::now(),
        refreshed: Instant::now(),
    };
    loop {
        let next = sender.send_all();
        if shared.closed.load(Ordering::Acquire) {
            // Whoever wanted to wait has waited in `close`.
            sender.abandon(&Error::Closed);
            return;
        }
        tokio::select! {
            Some(event) = inbox.recv() => {
                sender.take(event);
                while let Ok(event) = inbox.try_recv() {
                    sender.take(event);
                }
            }
            () = shared.wake.notified() => {}
            () = sleep_until(next.unwrap_or_else(far)), if next.is_some() => {}
        }
    }
}

/// A time that is not reached: the branch that waits for it is off.
fn far() -> Instant {
    Instant::now() + std::time::Duration::from_secs(86_400)
}

impl Sender {
    /// Sends all that may leave. Says when to look again if nothing happens.
    fn send_all(&mut self) -> Option<Instant> {
        loop {
            let now = Instant::now();
            let look = self.look(now);
            if look.identity_wanted && !self.asking_identity {
                self.ask_identity();
            }
            if look.leader_wanted {
                self.refresh_wanted = true;
            }
            let next = self.refresh(now, &look);
            if look.requests.is_empty() {
                return next;
            }
            for (node, batches) in look.requests {
                *self.in_flight.entry(node).or_default() += 1;
                self.post(node, Job { batches });
            }
        }
    }

    /// Looks at every queue once.
    fn look(&self, now: Instant) -> Look {
        let shared = &*self.shared;
        let config = &shared.queue_config;
        let starved = shared.starved.load(Ordering::Acquire) > 0;
        let mut look = Look {
            is_empty: true,
            ..Look::default()
        };
        let mut bytes: BTreeMap<i32, usize> = BTreeMap::new();
        let mut taken = Vec::new();
        let mut queues = shared.queues.lock();
        for (name, partitions) in &mut queues.topics {
            let topic = shared.client.known_topic(name);
            for (&partition, queue) in partitions {
                taken.extend(queue.expire(now, config));
                if queue.is_empty() {
                    continue;
                }
                look.is_empty = false;
                if starved {
                    queue.close_open();
                }
                if queue.wants_identity(config) {
                    match self.first_identity.filter(|_| queue.is_new()) {
                        Some(identity) => queue.set_identity(identity),
                        None => look.identity_wanted = true,
                    }
                }
                if !queue.is_due(config, now) {
                    look.next = look
                        .next
                        .into_iter()
                        .chain(queue.next_event(config, now))
                        .min();
                    continue;
                }
                let leader = topic
                    .as_ref()
                    .and_then(|t| t.partition(partition))
                    .and_then(|p| p.leader);
                let (Some(topic), Some(leader)) = (&topic, leader) else {
                    look.leader_wanted = true;
                    queue.is_held_back(|| {
                        let what = format!("a record for {name}/{partition}");
                        Error::refused(what, ErrorCode::LeaderNotAvailable, None)
                    });
                    let expiry = queue.next_expiry();
                    look.next = look.next.into_iter().chain(expiry).min();
                    continue;
                };
                let size = bytes.entry(leader).or_default();
                let full =
                    *size > 0 && *size + config.batch_bytes > shared.config.max_request_bytes;
                if full
                    || self
                        .in_flight
                        .get(&leader)
                        .is_some_and(|n| *n >= config.max_in_flight)
                {
                    look.next = look.next.into_iter().chain(queue.next_expiry()).min();
                    continue;
                }
                queue.goes_to(topic.id);
                match queue.take(config, now) {
                    Some(Ok(out)) => {
                        *size += out.bytes.len();
                        look.requests.entry(leader).or_default().push(Sent {
                            topic: name.clone(),
                            topic_id: topic.id,
                            partition,
                            batch: out.batch,
                            bytes: out.bytes,
                        });
                    }
                    Some(Err(done)) => taken.push(done),
                    None => {}
                }
                look.next = look.next.into_iter().chain(queue.next_expiry()).min();
            }
        }
        drop(queues);
        shared.give_back(taken);
        look
    }

    fn post(&mut self, node: i32, job: Job) {
        let lane = self.lanes.entry(node).or_insert_with(|| {
            let (lane, jobs) = mpsc::unbounded_channel();
            tokio::spawn(lane::run(
                node,
                self.shared.clone(),
                jobs,
                self.events.clone(),
            ));
            lane
        });
        // The lane lives as long as this end of its queue.
        let _ = lane.send(job);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Answered(answered) => self.answered(answered),
            Event::Refreshed => self.refreshing = false,
            Event::Identity(result) => {
                self.asking_identity = false;
                match result {
                    Ok(identity) => self.identify(identity),
                    // It was tried for as long as a record may take.
                    Err(error) => self.abandon(&error),
                }
            }
        }
    }

    fn answered(&mut self, answered: Answered) {
        if let Some(n) = self.in_flight.get_mut(&answered.node) {
            *n = n.saturating_sub(1);
        }
        self.refresh_wanted |= answered.stale;
        let now = Instant::now();
        let mut taken = Vec::new();
        {
            let mut queues = self.shared.queues.lock();
            for (sent, verdict) in answered.verdicts {
                let queue = queues
                    .topics
                    .get_mut(&sent.topic)
                    .and_then(|t| t.get_mut(&sent.partition));
                if let Some(queue) = queue {
                    taken.extend(queue.complete(
                        sent.batch,
                        verdict,
                        &self.shared.queue_config,
                        now,
                    ));
                }
            }
        }
        self.shared.give_back(taken);
    }

    /// Asks for metadata of all topics in use when that is wanted, but not in a tight loop; says
    /// when to look again.
    fn refresh(&mut self, now: Instant, look: &Look) -> Option<Instant> {
        if look.is_empty {
            self.refresh_wanted = false;
        } else if now >= self.refreshed + self.shared.client.config().metadata_max_age {
            self.refresh_wanted = true;
        }
        if !self.refresh_wanted || self.refreshing {
            return look.next;
        }
        if now < self.refresh_not_before {
            return look.next.into_iter().chain([self.refresh_not_before]).min();
        }
        self.refreshing = true;
        self.refresh_wanted = false;
        self.refreshed = now;
        self.refresh_not_before = now + self.shared.client.config().retry_backoff;
        let topics: Vec<String> = self
            .shared
            .queues
            .lock()
            .topics
            .keys()
            .map(|t| t.to_string())
            .collect();
        let (client, events) = (self.shared.client.clone(), self.events.clone());
        let create = self.shared.config.auto_create_topics;
        tokio::spawn(async move {
            if let Err(error) = client.refresh(&topics, create, None).await {
                tracing::debug!(%error, "metadata could not be refreshed");
            }
            let _ = events.send(Event::Refreshed);
        });
        look.next
    }

    fn ask_identity(&mut self) {
        self.asking_identity = true;
        let (client, events) = (self.shared.client.clone(), self.events.clone());
        let within = self.shared.config.delivery_timeout;
        tokio::spawn(async move {
            let asked = tokio::time::timeout(within, new_identity(&client)).await;
            let identity = asked.unwrap_or_else(|_| {
                let what = "no producer id was given".to_owned();
                Err(Error::GaveUp {
                    what,
                    after: within,
                    last: None,
                })
            });
            let _ = events.send(Event::Identity(identity));
        });
    }

    /// Gives a new identity to whoever waits for one.
    fn identify(&mut self, identity: Identity) {
        let config = &self.shared.queue_config;
        let mut queues = self.shared.queues.lock();
        let waiting = queues
            .topics
            .values_mut()
            .flat_map(BTreeMap::values_mut)
            .filter(|q| q.wants_identity(config));
        for queue in waiting {
            queue.set_identity(identity);
        }
        self.first_identity = Some(identity);
    }

    fn abandon(&mut self, error: &Error) {
        let mut queues = self.shared.queues.lock();
        let all = queues.topics.values_mut().flat_map(BTreeMap::values_mut);
        let taken: Vec<_> = all.flat_map(|queue| queue.abandon(error)).collect();
        drop(queues);
        self.shared.give_back(taken);
    }
}

/// Asks for a producer id until one is given or refused for good.
async fn new_identity(client: &crate::Client) -> Result<Identity> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        ..InitProducerIdRequest::default()
    };
    let mut retry = crate::retry::Retry::new(client.config(), client.config().operation_timeout);
    loop {
        let response = client.ask_any(&request, "no producer id was given").await?;
        let code = error_code(response.error_code);
        if code == ErrorCode::None {
            return Ok(Identity {
                id: response.producer_id,
                epoch: response.producer_epoch,
            });
        }
        let error = Error::refused("a producer id", code, None);
        retry.pause(error, "no producer id was given").await?;
    }
}
