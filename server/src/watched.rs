//! Every thread and task of a node is started here, and what becomes of the node when one ends is written
//! down here: a node that has lost its ticker must not go on looking alive.
//!
//! [`Kind`] lists them; docs/ARCHITECTURE.md has the same table, and tests hold the two together, end each
//! of them and look whether that comes of it which is promised.

mod kind;
#[cfg(test)]
pub(crate) mod tests;
mod trap;

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tracing::error;

pub(crate) use self::kind::{End, Kind};
use self::trap::Trap;
use crate::error::StartError;

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// By a panic.
    Panicked,
    /// It returned, though the node serves.
    Returned,
}

/// Why the node must not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fatal {
    /// Something that it cannot do without failed.
    Failed(String),
    /// Something that it cannot do without ended.
    Ended(Kind, How),
}

impl From<Fatal> for StartError {
    fn from(fatal: Fatal) -> Self {
        match fatal {
            Fatal::Failed(why) => Self::Fatal(why),
            Fatal::Ended(kind, how) => Self::Ended {
                what: kind.name(),
                how: how.text(),
            },
        }
    }
}

impl How {
    fn text(self) -> &'static str {
        match self {
            Self::Panicked => "panicked",
            Self::Returned => "returned",
        }
    }
}

/// What watches the threads and tasks of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fatal: watch::Sender<Option<Fatal>>,
    /// Nothing new is begun; what was asked is answered.
    draining: watch::Sender<bool>,
    /// Threads and tasks end.
    stopping: watch::Sender<bool>,
    trap: Trap,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            fatal: watch::Sender::new(None),
            draining: watch::Sender::new(false),
            stopping: watch::Sender::new(false),
            trap: Trap::default(),
        }
    }
}

impl Watch {
    /// To be told of what ends the process's service.
    pub(crate) fn fatal(&self) -> watch::Receiver<Option<Fatal>> {
        self.0.fatal.subscribe()
    }

    /// Ends the process's service: nothing may be acknowledged any more.
    pub(crate) fn fail(&self, why: &str) {
        error!(why, "the broker stops");
        self.end_with(Fatal::Failed(why.to_owned()));
    }

    fn end_with(&self, fatal: Fatal) {
        self.0.fatal.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(fatal);
            is_first
        });
    }

    /// Nothing new is begun from now on.
    pub(crate) fn drain(&self) {
        self.0.draining.send_replace(true);
    }

    /// To be told when nothing new is to be begun.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.0.draining.subscribe()
    }

    /// Lets threads and tasks end.
    pub(crate) fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.stopping.borrow()
    }

    /// Something ended as it should not have.
    pub(crate) fn ended(&self, kind: Kind, how: How) {
        let what = kind.name();
        match kind.end() {
            End::Process => {
                error!(
                    what,
                    how = how.text(),
                    "the node ends: it cannot go on without"
                );
                self.end_with(Fatal::Ended(kind, how));
            }
            End::Connection | End::Asker => {
                error!(
                    what,
                    how = how.text(),
                    "something went wrong in a task of the node"
                );
            }
        }
    }

    fn guard(&self, kind: Kind) -> Guard {
        Guard {
            watch: self.clone(),
            kind,
        }
    }

    /// Starts a thread that takes one step after the other until it has to end, or the node stops.
    pub(crate) fn thread(
        &self,
        kind: Kind,
        mut step: impl FnMut() -> ControlFlow<()> + Send + 'static,
    ) -> io::Result<thread::JoinHandle<()>> {
        let watch = self.clone();
        thread::Builder::new()
            .name(kind.name().to_owned())
            .spawn(move || {
                let guard = watch.guard(kind);
                while !watch.is_stopping() {
                    if watch.0.trap.is_sprung(kind).is_break() || step().is_break() {
                        return guard.returned();
                    }
                }
            })
    }

    /// Starts a thread that drives a runtime of its own until `task` ends.
    pub(crate) fn runtime(
        &self,
        kind: Kind,
        runtime: Runtime,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<thread::JoinHandle<()>> {
        let task = self.watched(kind, task);
        thread::Builder::new()
            .name(kind.name().to_owned())
            .spawn(move || runtime.block_on(task))
    }

    /// Starts a task on this runtime.
    pub(crate) fn task(
        &self,
        kind: Kind,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.task_on(&Handle::current(), kind, task)
    }

    /// Starts a task. It is dropped, wherever it is, when the node stops, unless its kind outlives that.
    pub(crate) fn task_on(
        &self,
        runtime: &Handle,
        kind: Kind,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let task = self.watched(kind, task);
        let mut stopping = self.0.stopping.subscribe();
        if kind.outlives_stop() {
            return runtime.spawn(task);
        }
        runtime.spawn(async move {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => {}
                () = task => {}
            }
        })
    }

    /// Starts a task in the set of somebody who ends it with himself.
    pub(crate) fn in_set<T: Default + Send + 'static>(
        &self,
        set: &mut JoinSet<T>,
        kind: Kind,
        task: impl Future<Output = T> + Send + 'static,
    ) {
        set.spawn(self.watched(kind, task));
    }

    fn watched<T: Default, F: Future<Output = T> + Send>(
        &self,
        kind: Kind,
        task: F,
    ) -> impl Future<Output = T> + Send + use<T, F> {
        let watch = self.clone();
        async move {
            let guard = watch.guard(kind);
            let done = watch.0.trap.over(kind, task).await;
            guard.returned();
            done
        }
    }

    /// Does something on a thread that may block.
    pub(crate) fn blocking<T: Send + 'static>(
        &self,
        runtime: &Handle,
        kind: Kind,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let guard = self.guard(kind);
        runtime.spawn_blocking(move || {
            let _ = guard.watch.0.trap.is_sprung(kind);
            let done = work();
            guard.returned();
            done
        })
    }

    /// Ends what is of a kind, as a test of what comes of that.
    #[cfg(test)]
    pub(crate) fn spring(&self, kind: Kind, how: How) {
        self.0.trap.spring(kind, how);
    }

    /// Ends nothing any more.
    #[cfg(test)]
    pub(crate) fn disarm(&self) {
        self.0.trap.disarm();
    }
}

/// Notices how something ends. That it is dropped before its end, with the set or the runtime that it
/// belongs to, is no end of its own.
struct Guard {
    watch: Watch,
    kind: Kind,
}

impl Guard {
    fn returned(self) {
        let expected = self.kind.may_return() || *self.watch.0.draining.borrow();
        if !expected && !self.watch.is_stopping() {
            self.watch.ended(self.kind, How::Returned);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.watch.ended(self.kind, How::Panicked);
        }
    }
}
