//! Start and stop: in which order a broker's parts come up, and how it goes down.
//!
//! Up: the address is bound, the data directory opened, flusher and ticker run, the cluster is
//! founded or come back to, the image's replicas are there and led; only then is anybody served.
//! Down: no new connections, all that was asked is answered, the threads end, and the data
//! directory is closed with the clean mark.

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use riverrun_replication::founding::Known;
use riverrun_replication::node::{CONTROLLER_GROUP, NodeSettings, OpenError};
use riverrun_replication::retry::Backoff;
use riverrun_replication::runtime::Runtime;
use riverrun_replication::{GroupConfig, GroupSettings};
use riverrun_storage::LogIdentity;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::broker::Broker;
use crate::cluster::host::NodeHost;
use crate::cluster::{asides, duties, founding, leaders, replacement};
use crate::config::{Config, TopicSettings};
use crate::error::StartError;
use crate::hooks::Hooks;
use crate::net::{burst, listener};
use crate::peers::{self, Peers};
use crate::reconcile;
use crate::reopen;
use crate::repair;
use crate::scrub;
use crate::watched::{Fatal, Kind};

/// How long a start waits for its partitions to be led.
const LEADERS_WAIT: Duration = Duration::from_secs(5);
/// One tick of every group (the election timeout of data groups is ten of them and more).
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// How long a stop may take where the node cannot go on.
const FATAL_STOP: Duration = Duration::from_secs(5);

/// A broker that serves. Dropped, it ends as if its process had been killed.
#[derive(Debug)]
pub struct Running {
    begun: Begun,
    address: SocketAddr,
    accepting: JoinHandle<()>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// What a start has begun. Whoever waits for a start or a stop may be gone at any await: then everything
/// ends that was begun.
#[derive(Debug)]
struct Begun(Arc<Broker>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Starts a broker: returns when it accepts connections and can answer them.
///
/// # Errors
/// See [`StartError`].
pub async fn start(mut config: Config) -> Result<Running, StartError> {
    let (listener, address) = bind(config.listen, config.insecure)?;
    config.listen = address;
    let for_nodes = match config.controller_listen {
        Some(listen) => {
            let (listener, address) = bind(listen, config.insecure)?;
            config.controller_listen = Some(address);
            Some(listener)
        }
        None => None,
    };
    let broker = Arc::new(Broker::new(config));
    let begun = Begun(Arc::clone(&broker));
    let watch = broker.watch();
    open(&broker).await?;
    let threads = start_threads(&broker)?;
    begin_links(&broker, for_nodes)?;
    let boot = async {
        founding::found_or_join(&broker).await?;
        let weak = || Arc::downgrade(&broker);
        let checking = founding::check_cluster(Arc::clone(&broker));
        watch.task(Kind::CheckCluster, checking);
        watch.task(Kind::Duties, duties::follow(weak()));
        watch.task(Kind::Leaders, leaders::follow(weak()));
        watch.task(Kind::Replacement, replacement::follow(weak()));
        watch.task(Kind::Asides, asides::follow(weak()));
        watch.task(Kind::Reopen, reopen::follow(weak()));
        watch.task(Kind::Repair, repair::follow(weak()));
        if let Some(interval) = broker.config().scrub_interval {
            watch.task(Kind::Scrub, scrub::follow(weak(), interval));
        }
        if broker.runtime().handle(CONTROLLER_GROUP).is_some() {
            register(&broker).await?;
        } else {
            announce(&broker);
        }
        let applied = broker.catalog().watch();
        let done = reconcile::once(&broker).await;
        let following = reconcile::follow(Arc::clone(&broker), applied, done);
        watch.task(Kind::Reconcile, following);
        let led = async {
            for topic in broker.topics().all() {
                broker.until_led(&topic.id).await;
            }
        };
        // One partition that is not led must not keep the others from being served.
        let _ = tokio::time::timeout(LEADERS_WAIT, led).await;
        Ok(())
    };
    let mut fatal = watch.fatal();
    let booted = tokio::select! {
        booted = boot => booted,
        why = until_fatal(&mut fatal) => Err(why),
    };
    let accepting = listener::accept(Arc::clone(&broker), listener);
    let running = Running {
        begun,
        address,
        accepting: watch.task(Kind::Accept, accepting),
        threads,
    };
    match booted {
        Ok(()) => Ok(running),
        Err(error) => {
            let _ = running.stop().await;
            Err(error)
        }
    }
}

async fn until_fatal(fatal: &mut watch::Receiver<Option<Fatal>>) -> StartError {
    if let Ok(why) = fatal.wait_for(Option::is_some).await
        && let Some(why) = why.clone()
    {
        return why.into();
    }
    std::future::pending().await
}

fn bind(address: SocketAddr, insecure: bool) -> Result<(TcpListener, SocketAddr), StartError> {
    let listener = listener::bind(address, insecure)?;
    let bound = listener
        .local_addr()
        .map_err(|source| StartError::Bind { address, source })?;
    Ok((listener, bound))
}

/// Begins the links to other nodes, which may ask from now on.
fn begin_links(broker: &Arc<Broker>, listener: Option<TcpListener>) -> Result<(), StartError> {
    let host = Arc::new(NodeHost::new(broker));
    let watch = broker.watch();
    let peers = Arc::new(Peers::start(host, watch).map_err(StartError::Thread)?);
    if let Some(listen) = broker.config().controller_listen {
        let advertised = broker.config().controller_advertised.clone();
        let bound = || (listen.ip().to_string(), listen.port());
        broker.set_peer_address(advertised.unwrap_or_else(bound));
    }
    let accepting = listener.map(|listener| peers::serve(listener, Arc::clone(&peers)));
    if !broker.set_peers(peers) {
        return Err(StartError::Fatal("the links were begun twice".to_owned()));
    }
    if let Some(accepting) = accepting {
        watch.task(Kind::AcceptNodes, accepting);
    }
    Ok(())
}

/// Makes this start known. A node that knows its cluster serves what it leads when that takes long:
/// while nobody leads group 0 what it says is still true.
async fn register(broker: &Arc<Broker>) -> Result<(), StartError> {
    let is_known = broker
        .catalog()
        .read(|image| image.brokers.contains_key(&broker.config().node_id));
    let registering = founding::register(broker);
    if !is_known {
        registering.await?;
    } else if let Ok(registered) = tokio::time::timeout(LEADERS_WAIT, registering).await {
        registered?;
    } else {
        warn!("nobody leads the controller's group: serving what was known before");
        let (watch, broker) = (broker.watch().clone(), Arc::clone(broker));
        watch.task(Kind::LateRegistration, async move {
            if let Err(error) = founding::register(&broker).await {
                broker.fail(&error.to_string());
            }
        });
    }
    announce(broker);
    Ok(())
}

/// Starts a broker, says where it listens, and serves until `shutdown`.
///
/// # Errors
/// See [`StartError`].
pub async fn run(
    config: Config,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let running = tokio::select! {
        running = start(config) => running?,
        // It may be waiting for others, for ever.
        () = &mut shutdown => {
            info!("stopped before anything was served");
            return Ok(());
        }
    };
    ready(running.address());
    running.serve(shutdown).await
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often the flusher was woken, for tests of what a produce costs.
    #[must_use]
    pub fn flusher_wakes(&self) -> u64 {
        self.begun.0.runtime().flusher_wakes()
    }

    /// Serves until `shutdown`, or until it must not go on.
    async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
        let mut fatal = self.begun.0.watch().fatal();
        tokio::select! {
            () = shutdown => self.stop().await,
            why = until_fatal(&mut fatal) => {
                // Whatever is wrong may hold up what a stop waits for.
                let _ = tokio::time::timeout(FATAL_STOP, self.stop()).await;
                Err(why)
            }
        }
    }

    /// The node, for tests of its parts.
    #[cfg(test)]
    pub(crate) fn broker(&self) -> &Arc<Broker> {
        &self.begun.0
    }

    /// The same as [`run`] does once it has started, for tests of its end.
    #[cfg(test)]
    pub(crate) async fn until_it_ends(self) -> Result<(), StartError> {
        self.serve(std::future::pending()).await
    }

    /// Stops: answers what has been asked, then makes everything durable and closes the data
    /// directory cleanly.
    ///
    /// # Errors
    /// Where the disk refuses, or had failed before.
    pub async fn stop(self) -> Result<(), StartError> {
        let Self {
            begun,
            mut accepting,
            threads,
            ..
        } = self;
        let broker = Arc::clone(&begun.0);
        let fatal = broker.watch().fatal();
        broker.watch().drain();
        // After a failed flush there is nothing to wait for: what is asked can never be answered.
        let failed = fatal.borrow().is_some();
        let drain = if failed {
            Duration::ZERO
        } else {
            broker.config().drain
        };
        if tokio::time::timeout(drain, &mut accepting).await.is_err() {
            if !failed {
                warn!("connections were cut off: they did not drain in time");
            }
            broker.connections().hang_up_all();
            if tokio::time::timeout(Duration::from_secs(1), &mut accepting)
                .await
                .is_err()
            {
                accepting.abort();
            }
        }
        broker.end_threads();
        let failed = fatal.borrow().clone();
        let closing = Arc::clone(&broker);
        let closed = closing.blocking(Kind::Files, move || {
            for thread in threads {
                // How it ended is known.
                let _ = thread.join();
            }
            broker.finish_files();
            broker.checkpointer().finish();
            match failed {
                Some(why) => Err(StartError::from(why)),
                None => broker
                    .runtime()
                    .close()
                    .map_err(|e| StartError::Fatal(e.to_string())),
            }
        });
        closed
            .await
            .unwrap_or_else(|e| Err(StartError::Fatal(e.to_string())))
    }
}

fn data_error(path: &Path, what: impl ToString) -> StartError {
    StartError::Data {
        path: path.to_owned(),
        what: what.to_string(),
    }
}

/// Opens the data directory; commands that group 0 committed before are applied on the way. What the machine
/// lacks it may have later: that is waited out here, since no start after this one would find it sooner.
async fn open(broker: &Arc<Broker>) -> Result<(), StartError> {
    let mut backoff = Backoff::default();
    loop {
        let on_thread = Arc::clone(broker);
        let opening = broker.blocking(Kind::Files, move || open_once(&on_thread));
        let opened = opening.await;
        let data = &broker.config().data_dir;
        match opened.unwrap_or_else(|e| Err(Opening::Ends(StartError::Fatal(e.to_string())))) {
            Ok(()) => return Ok(()),
            Err(Opening::Ends(error)) => return Err(error),
            Err(Opening::Data(error)) if !error.may_pass() => return Err(data_error(data, error)),
            Err(Opening::Data(error)) => {
                let pause = backoff.next(broker.seed());
                warn!(%error, ?pause, "the data directory cannot be opened yet");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Why an opening did not succeed.
enum Opening {
    /// The directory could not be opened.
    Data(OpenError),
    /// There is no use in another try.
    Ends(StartError),
}

fn open_once(broker: &Arc<Broker>) -> Result<(), Opening> {
    let hooks = Arc::new(Hooks::new(Arc::downgrade(broker)));
    let data = broker.config().data_dir.clone();
    prepare(&data).map_err(Opening::Ends)?;
    broker.descriptors().take();
    let shards = match broker.config().shards {
        0 => thread::available_parallelism().map_or(1, usize::from),
        shards => shards,
    };
    let settings = NodeSettings {
        node_id: broker.config().node_id,
        kernel_boot_id: kernel_boot_id(),
        new_directory_id: Uuid::new_v4(),
        start_token: broker.start_token(),
        store: broker.config().store.clone(),
        group: GroupConfig {
            lag_ticks: ticks(broker.config().replica_lag),
            caching_window: broker.config().caching_window,
            seed: broker.seed(),
            ..GroupConfig::default()
        },
        shards,
        most_replicas: broker.descriptors().replicas(),
    };
    let disk = riverrun_storage::StdDisk::shared();
    // What would end the start is looked for before the start is counted (R15).
    founding_record(&*disk, &data).map_err(Opening::Data)?;
    let of_group = |identity: &LogIdentity| group_settings(broker, identity);
    let (runtime, report) =
        Runtime::open(disk, &data, settings, of_group, hooks).map_err(Opening::Data)?;
    if report.unclean_power_loss {
        warn!("the machine stopped hard since the last start");
    }
    if let Some(id) = report.cluster_id {
        broker.set_cluster_id(id);
    }
    if broker.set_runtime(runtime) {
        Ok(())
    } else {
        Err(Opening::Ends(data_error(&data, "it was opened twice")))
    }
}

/// Looks whether the record of the cluster can be read.
fn founding_record(disk: &dyn riverrun_storage::Disk, data: &Path) -> Result<(), OpenError> {
    Known::read(disk, data)
        .map(drop)
        .map_err(|source| OpenError::Io {
            what: "read node/cluster, the record of the cluster",
            source,
        })
}

/// What the image that was found says of a group's settings. What has been committed behind it is
/// made good before anybody is served.
pub(crate) fn group_settings(broker: &Broker, identity: &LogIdentity) -> GroupSettings {
    if identity.group == CONTROLLER_GROUP {
        return TopicSettings::controller_settings();
    }
    let defaults = &broker.config().topic;
    let given = broker.catalog().read(|image| {
        let topic = image.topics.get(&identity.topic_id);
        topic.map(|topic| defaults.with(&topic.configs))
    });
    match given {
        Some(Ok(settings)) => settings.group_settings(),
        Some(Err(error)) => {
            let (group, topic) = (identity.group, identity.topic_id);
            error!(group, %topic, %error, "a topic's settings are not known here: it is not served");
            defaults.group_settings()
        }
        None => defaults.group_settings(),
    }
}

/// Creates the directory for its owner alone, durable with its name. A link in its place is refused:
/// it may point anywhere.
fn prepare(data: &Path) -> Result<(), StartError> {
    match std::fs::symlink_metadata(data) {
        Ok(found) if found.is_symlink() => Err(data_error(
            data,
            "it is a symbolic link; give the directory itself",
        )),
        Ok(found) if !found.is_dir() => Err(data_error(data, "it is not a directory")),
        Ok(_) => {
            // Whoever made it, and perhaps stopped hard right after, may not have synced its name.
            // Where the directory above is closed to us we can do nothing about that.
            if let Err(error) = sync_name(data)
                && error.kind() != ErrorKind::PermissionDenied
            {
                warn!(%error, data = %data.display(), "the directory's name could not be synced");
            }
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create_durably(data).map_err(|e| data_error(data, e))
        }
        Err(error) => Err(data_error(data, error)),
    }
}

/// Creates a directory and those above it.
fn create_durably(path: &Path) -> std::io::Result<()> {
    let above = above(path);
    if !above.is_dir() {
        create_durably(above)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    sync_name(path)
}

/// Makes a name durable in the directory above it: what is acknowledged in a directory is lost with
/// the directory's own name.
fn sync_name(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(above(path))?.sync_all()
}

fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    }
}

/// What the kernel calls this boot: another one means that page caches were lost.
fn kernel_boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    // Without it every start counts as after a power cut, which is the safe side.
    read.map_or_else(|_| Uuid::new_v4().to_string(), |id| id.trim().to_owned())
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
}

fn start_threads(broker: &Arc<Broker>) -> Result<Vec<thread::JoinHandle<()>>, StartError> {
    let start = |kind, step: fn(Arc<Broker>) -> ControlFlow<()>| {
        let (watch, broker) = (broker.watch(), Arc::downgrade(broker));
        let step = move || match broker.upgrade() {
            Some(broker) => step(broker),
            None => ControlFlow::Break(()),
        };
        watch.thread(kind, step).map_err(StartError::Thread)
    };
    let flusher = start(Kind::Flusher, flush)?;
    broker.set_flusher(flusher.thread().clone());
    flusher.thread().unpark();
    let ticker = start(Kind::Ticker, tick)?;
    Ok(vec![flusher, ticker])
}

/// The flusher: a round starts when the last one ends and takes all that has come meanwhile.
fn flush(broker: Arc<Broker>) -> ControlFlow<()> {
    match burst::run(&broker, || broker.runtime().flush_once()) {
        Ok(true) => {}
        Ok(false) => {
            drop(broker);
            thread::park();
        }
        Err(error) => {
            broker.fail(&format!("the node's write-ahead log failed: {error}"));
            return ControlFlow::Break(());
        }
    }
    ControlFlow::Continue(())
}

fn tick(broker: Arc<Broker>) -> ControlFlow<()> {
    burst::run(&broker, || broker.runtime().tick());
    drop(broker);
    thread::sleep(TICK);
    ControlFlow::Continue(())
}

/// Says what was started, in a few lines.
pub(crate) fn announce(broker: &Broker) {
    let config = broker.config();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        data = %config.data_dir.display(),
        cluster = broker.cluster_id(),
        node = config.node_id,
        "serving"
    );
}
