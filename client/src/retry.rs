//! Trying again: growing pauses with jitter, and an end.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    config::ClientConfig,
    error::{Error, Result},
};

/// The tries of one operation.
#[derive(Debug)]
pub(crate) struct Retry {
    started: Instant,
    within: Duration,
    next: Duration,
    max: Duration,
    random: u64,
    /// The last failure that was worth another try.
    last: Option<Error>,
}

impl Retry {
    pub(crate) fn new(config: &ClientConfig, within: Duration) -> Self {
        Self {
            started: Instant::now(),
            within,
            next: config.retry_backoff,
            max: config.retry_backoff_max,
            random: uuid::Uuid::new_v4().as_u64_pair().0,
            last: None,
        }
    }

    /// One try, which ends when the time for all of them does.
    pub(crate) async fn attempt<T>(
        &self,
        what: &str,
        attempt: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        timeout_at(self.started + self.within, attempt)
            .await
            .unwrap_or_else(|_| Err(self.give_up(what, self.last.clone())))
    }

    /// Waits before another try; returns the error instead if trying again is of no use, or if
    /// there is no time left.
    pub(crate) async fn pause(&mut self, error: Error, what: &str) -> Result<()> {
        if !error.is_retriable() {
            return Err(error);
        }
        let pause = self.jittered();
        let now = Instant::now();
        if now + pause >= self.started + self.within {
            return Err(match error {
                // An attempt that was cut off has said so itself.
                Error::GaveUp { .. } => error,
                error => self.give_up(what, Some(error)),
            });
        }
        tracing::debug!(%error, what, "trying again");
        self.last = Some(error);
        self.next = (self.next * 2).min(self.max);
        sleep_until(now + pause).await;
        Ok(())
    }

    fn give_up(&self, what: &str, last: Option<Error>) -> Error {
        Error::GaveUp {
            what: what.to_owned(),
            after: self.within,
            last: last.map(Box::new),
        }
    }

    /// The next pause, up to a fifth longer or shorter: clients that failed together must not
    /// come back together.
    fn jittered(&mut self) -> Duration {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let permille = 800 + u32::try_from((self.random >> 33) % 401).unwrap_or(200);
        self.next * permille / 1000
    }
}
