//! A few threads that wait for syncs: many files synced one after another take many times as long.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;

use super::target::SyncTarget;

type Job = Box<dyn FnOnce() + Send>;

/// The flush pool. Its threads are started when they are first needed.
pub(super) struct FlushPool {
    threads: usize,
    jobs: Mutex<Option<Sender<Job>>>,
}

impl std::fmt::Debug for FlushPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlushPool")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// Syncs that are under way.
pub(super) struct Pending {
    results: Receiver<(usize, io::Result<()>)>,
    count: usize,
}

impl Pending {
    /// Waits for all of them; the results in the order in which the targets were given.
    pub(super) fn wait(self) -> Vec<io::Result<()>> {
        let mut results: Vec<io::Result<()>> = (0..self.count)
            .map(|_| {
                Err(io::Error::other(
                    "the thread that synced the file has panicked",
                ))
            })
            .collect();
        for (at, result) in self.results {
            if let Some(place) = results.get_mut(at) {
                *place = result;
            }
        }
        results
    }
}

impl FlushPool {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads,
            jobs: Mutex::new(None),
        }
    }

    /// Whether there are threads at all; a simulation has none.
    pub(super) fn is_threaded(&self) -> bool {
        self.threads > 0
    }

    /// Starts `sync` for each target.
    pub(super) fn start(
        &self,
        targets: impl IntoIterator<Item = Arc<dyn SyncTarget>>,
        sync: fn(&dyn SyncTarget) -> io::Result<()>,
    ) -> Pending {
        let (done, results) = channel();
        let mut count = 0;
        let mut jobs = self.jobs.lock();
        let jobs = jobs.get_or_insert_with(|| self.start_threads());
        for (at, target) in targets.into_iter().enumerate() {
            count = at + 1;
            let done = done.clone();
            let job: Job = Box::new(move || {
                // A receiver that is gone no longer wants the answer.
                let _ = done.send((at, sync(&*target)));
            });
            if let Err(refused) = jobs.send(job) {
                (refused.0)();
            }
        }
        Pending { results, count }
    }

    fn start_threads(&self) -> Sender<Job> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for at in 0..self.threads {
            let queue = Arc::clone(&queue);
            let spawned = std::thread::Builder::new()
                .name(format!("flush-{at}"))
                .spawn(move || {
                    loop {
                        let job = queue.lock().recv();
                        let Ok(job) = job else { return };
                        // A panic is answered by the dropped sender; the thread lives on.
                        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                    }
                });
            if let Err(error) = spawned {
                tracing::warn!(%error, "a flush thread could not be started");
            }
        }
        jobs
    }
}

/// Carries out `sync` for all targets, on the pool where there are several and it has threads.
pub(super) fn sync_each(
    pool: &FlushPool,
    targets: &[Arc<dyn SyncTarget>],
    sync: fn(&dyn SyncTarget) -> io::Result<()>,
) -> Vec<io::Result<()>> {
    if targets.len() > 1 && pool.is_threaded() {
        pool.start(targets.iter().cloned(), sync).wait()
    } else {
        targets.iter().map(|target| sync(&**target)).collect()
    }
}
