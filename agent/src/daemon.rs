//! The daemon: puts the parts together, and takes them apart in order.

mod trust;

use std::{
    fs,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use fleetswap_proto::{Explained, v1};
use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, getrlimit, setrlimit, umask},
};
use sd_notify::NotifyState;
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::no_runtime,
    config::{CheckpointRules, Config},
    control::{self, Sources},
    durable::{StateDir, TrustDir},
    explain,
    fetch::Fetcher,
    front,
    link::{Ends, Identity, Link, LinkState, Standing, host_facts},
    logs::{self, Logs},
    metrics::Metrics,
    run::{self, Running},
    sandbox::Sandbox,
    serve::{Inherited, Paths, bind_tcp, bind_unix, serve},
};

/// Longest wait at the end for calls in flight: a call may last 60 s.
const DRAIN_MAX: Duration = Duration::from_secs(61);
/// Longest wait at the end for a switch that is under way, for states to be saved, and for the workers to close.
const CLOSE_MAX: Duration = Duration::from_secs(45);

/// What the agent's loop works with.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Records, blobs, manifests, states.
    pub(crate) state: StateDir,
    /// What was verified before.
    pub(crate) trust: TrustDir,
    /// Accept a root that is marked as made for development.
    pub(crate) allow_dev_trust: bool,
    /// Metadata and blobs from elsewhere.
    pub(crate) fetcher: Fetcher,
    /// Limits of each worker.
    pub(crate) limits: fleetswap_host::Limits,
    /// How each worker is kept.
    pub(crate) sandbox: Sandbox,
    /// How often states are saved.
    pub(crate) checkpoints: CheckpointRules,
    /// Log sinks for workers.
    pub(crate) logs: Logs,
    /// Counters of swaps and restarts.
    pub(crate) metrics: Arc<Metrics>,
    /// This machine, as reports and manifests name it.
    pub(crate) facts: v1::HostFacts,
    /// What the controller last said that the host should run.
    pub(crate) desired: watch::Receiver<Option<v1::DesiredState>>,
    /// How the host stands: the link reports every change.
    pub(crate) standing: watch::Sender<Standing>,
}

/// What the daemon does with its plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// It runs them.
    Normal,
    /// It starts none.
    Safe,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Anything that keeps the agent from starting, or the one thing that ends it: its state can't be kept.
pub(crate) fn run(config: Config, conduct: Conduct) -> Result<(), Explained> {
    logs::set_up();
    // Sockets are born closed to others; their own bits are set afterwards.
    umask(Mode::from_bits_truncate(0o077));
    raise_file_limit();
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(no_runtime)?;
    runtime.block_on(Box::pin(daemon(config, conduct)))
}

/// As many descriptors as the system allows: every connection and every worker takes some.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

async fn daemon(config: Config, conduct: Conduct) -> Result<(), Explained> {
    let mut signals = Signals::listen()?;
    let assembled = Box::pin(assemble(&config, conduct)).await?;
    let ready = if conduct == Conduct::Safe { "ready in safe mode" } else { "ready" };
    notify(NotifyState::Ready);
    println!("agent {} {ready}, front {}", config.name, config.front.socket.display());
    tracing::info!(agent = config.name, version = env!("CARGO_PKG_VERSION"), "{ready}");
    Box::pin(assembled.until_the_end(signals.next())).await
}

/// The running daemon.
struct Daemon {
    /// Keeps the state folder locked to the very end.
    _state: StateDir,
    running: Running,
    /// Stops taking new calls.
    admission: CancellationToken,
    fronts: JoinSet<()>,
    /// Stops link and control socket.
    rest: CancellationToken,
    others: JoinSet<()>,
    /// Sockets that the agent has made, and removes.
    made: Vec<PathBuf>,
}

async fn assemble(config: &Config, conduct: Conduct) -> Result<Daemon, Explained> {
    let state = StateDir::open(&config.state_dir).map_err(|error| explain::durable(&error))?;
    let host_id = state.host_id().map_err(|error| explain::durable(&error))?;
    let trust = state.trust(&config.trust_root);
    if let Some(warning) = trust::check(&trust, config, SystemTime::now())? {
        let Explained { code, what, why, fix } = warning;
        tracing::warn!(code = &*code, why, fix, "{what}");
    }
    let identity = Identity::new(&host_id, &config.name).ok_or_else(bad_identity)?;
    let sandbox = Sandbox::set_up(config.sandbox_min, &config.limits);
    let facts = host_facts(&sandbox.told.level);
    let link = Link::new(config.controller, identity.clone(), config.labels.clone(), facts);
    let fetcher = Fetcher::new(state.blobs(), &link.endpoint, identity, &config.mirrors)?;
    let (standing, standing_seen) = watch::channel(Standing::default());
    let (desired, desired_seen) = watch::channel(None);
    let (link_state, link_seen) = watch::channel(LinkState::default());
    let (logs, metrics) = (Logs::default(), Arc::new(Metrics::new()));
    let sockets = Sockets::open(config).await?;
    let parts = Parts {
        state: state.clone(),
        trust,
        allow_dev_trust: config.allow_dev_trust,
        fetcher,
        limits: config.limits.clone(),
        sandbox: sandbox.clone(),
        checkpoints: config.checkpoints.clone(),
        logs: logs.clone(),
        metrics: metrics.clone(),
        facts: link.facts.clone(),
        desired: desired_seen,
        standing,
    };
    let running = match conduct {
        Conduct::Normal => Box::pin(run::start(parts)).await?,
        Conduct::Safe => run::start_safe(parts)?,
    };
    let rest = CancellationToken::new();
    let sources = Sources {
        name: config.name.clone(),
        host_id,
        controller: config.controller.to_string(),
        calls: running.calls(),
        orders: running.orders(),
        keeper: running.keeper(),
        standing: standing_seen.clone(),
        link: link_seen,
        sandbox: sandbox.told,
        logs,
        stop: rest.clone(),
    };
    let (admission, mut others) = (CancellationToken::new(), JoinSet::new());
    let ends = Ends { standing: standing_seen, desired, state: link_state };
    others.spawn(link.run(ends, rest.clone()));
    let control = control::router(sources);
    others.spawn(serve(sockets.control, move |stream: &_| control::greet(&control, stream), rest.clone()));
    let front = front::Door::open(running.calls(), metrics);
    let made = sockets.made;
    let fronts = fronts(sockets.front, sockets.tcp, front, &admission);
    Ok(Daemon { _state: state, running, admission, fronts, rest, others, made })
}

impl Daemon {
    /// Goes on until a signal comes or the loop can't, then ends in order: calls, link, workers.
    async fn until_the_end(mut self, signal: impl Future<Output = ()>) -> Result<(), Explained> {
        let failure = tokio::select! {
            () = signal => None,
            error = self.running.failed() => Some(error),
        };
        notify(NotifyState::Stopping);
        tracing::info!("stopping: no new calls");
        self.admission.cancel();
        if timeout(DRAIN_MAX, all(&mut self.fronts)).await.is_err() {
            tracing::warn!(seconds = DRAIN_MAX.as_secs(), "calls are still in flight; they are given up");
        }
        self.rest.cancel();
        if timeout(CLOSE_MAX, self.running.stop()).await.is_err() {
            tracing::warn!(seconds = CLOSE_MAX.as_secs(), "workers did not close in time; they are killed");
        }
        self.others.shutdown().await;
        self.made.iter().for_each(|socket| remove_socket(socket));
        failure.map_or(Ok(()), Err)
    }
}

/// Sockets that listen already; nobody is answered yet.
struct Sockets {
    front: tokio::net::UnixListener,
    tcp: Option<(tokio::net::TcpListener, SocketAddr)>,
    control: tokio::net::UnixListener,
    made: Vec<PathBuf>,
}

impl Sockets {
    /// Those that were handed over, and the others made.
    async fn open(config: &Config) -> Result<Self, Explained> {
        let paths = Paths { front: &config.front.socket, control: &config.control_socket };
        let Inherited { front, control, tcp } = Inherited::take(paths)?;
        let mut made = Vec::new();
        let front = match front {
            Some(front) => tokio::net::UnixListener::from_std(front).map_err(no_runtime)?,
            None => {
                made.push(paths.front.to_owned());
                bind_unix(paths.front, config.front.mode, config.front.group.as_deref())?
            }
        };
        let control = match control {
            Some(control) => tokio::net::UnixListener::from_std(control).map_err(no_runtime)?,
            None => {
                made.push(paths.control.to_owned());
                bind_unix(paths.control, control::SOCKET_MODE, None)?
            }
        };
        let tcp = match (tcp, config.front.listen) {
            (Some(tcp), _) => Some(tokio::net::TcpListener::from_std(tcp).map_err(no_runtime)?),
            (None, Some(address)) => Some(bind_tcp(address).await?),
            (None, None) => None,
        };
        // With port 0 the system has chosen one.
        let with_address = |tcp: tokio::net::TcpListener| Some((tcp.local_addr().ok()?, tcp));
        let tcp = tcp.and_then(with_address).map(|(address, tcp)| {
            tracing::info!(%address, "the front listens on TCP as well");
            (tcp, address)
        });
        Ok(Self { front, tcp, control, made })
    }
}

/// Tells the service manager, if there is one.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

fn fronts(
    unix: tokio::net::UnixListener,
    tcp: Option<(tokio::net::TcpListener, SocketAddr)>,
    front: front::Door,
    admission: &CancellationToken,
) -> JoinSet<()> {
    let mut fronts = JoinSet::new();
    if let Some((listener, address)) = tcp {
        let guarded = front.clone().guarded(address);
        fronts.spawn(serve(listener, move |_: &_| guarded.clone(), admission.clone()));
    }
    fronts.spawn(serve(unix, move |_: &_| front.clone(), admission.clone()));
    fronts
}

async fn all(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

fn remove_socket(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(%error, path = %path.display(), "the socket was not removed");
    }
}

fn bad_identity() -> Explained {
    Explained::new(
        "CONFIG_INVALID",
        "`name` can't be sent to the controller",
        "it travels as a header, which takes printable ASCII only",
        "correct `name` in the configuration",
    )
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Explained> {
        let listen = |kind| signal(kind).map_err(no_runtime);
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
