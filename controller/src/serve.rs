//! `controller serve`: opens the data folder, listens, and ends in order.

mod logs;
mod renewal;

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fleetswap_proto::{
    Explained,
    address::{self, Refused},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Mutex,
    task::{JoinError, JoinHandle},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

use crate::{
    api::{self, Fleet, Shared},
    blobs::Blobs,
    cli::ServeArgs,
    published::{self, Published},
    reconcile::Reconciler,
    store::{Sqlite, Store},
};

/// A connection without traffic is asked for a sign of life so often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// An unanswered question ends the connection after this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls of one connection at the same time.
const STREAMS_MAX: u32 = 256;

/// Calls that are under way get so long to end when the server stops.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT; prints `controller ready on ADDRESS`, or the JSON of it, on stdout when it listens.
pub(crate) async fn run(options: &ServeArgs) -> Result<(), Explained> {
    let address = loopback(&options.listen)?;
    published::require_initialised(&options.data_dir)?;
    // Held until this function returns.
    let _lock = lock(&options.data_dir)?;
    logs::start();
    raise_file_limit();
    let stop = CancellationToken::new();
    let running = Box::pin(open(&options.data_dir, stop.clone())).await?;
    renewal::if_due(&running.shared).await;
    let routes = api::routes(Arc::clone(&running.shared))
        .await
        .map_err(|error| failed("make its services", &error))?;
    let listener = TcpListener::bind(address).await.map_err(|error| cannot_listen(address, &error))?;
    let address = listener.local_addr().map_err(|error| cannot_listen(address, &error))?;
    let renewal = tokio::spawn(renewal::run(Arc::clone(&running.shared)));
    let ended = asked_to_end()?;
    let tasks = Tasks {
        server: serve(listener, routes, stop.clone()),
        background: [("planning", running.planning), ("renewing the timestamp", renewal)],
    };
    ready(address, options).map_err(|error| failed("say that it is ready", &error))?;
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "ready");
    let result = tasks.supervise(ended, &stop).await;
    running.loop_stop.cancel();
    result
}

/// The parts that outlive the server.
struct Running {
    shared: Arc<Shared>,
    planning: JoinHandle<()>,
    /// The loop ends after the streams, which still tell it that they do.
    loop_stop: CancellationToken,
}

async fn open(data_dir: &Path, stop: CancellationToken) -> Result<Running, Explained> {
    let now = SystemTime::now();
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&data_dir.join("store.db"))?);
    let blobs = Blobs::open(data_dir, now).map_err(|error| failed("open its blobs", &error))?;
    let published = Arc::new(Published::open(data_dir, now).await?);
    let loop_stop = CancellationToken::new();
    let (fleet, planning): (Arc<dyn Fleet>, _) =
        Reconciler::start(Arc::clone(&store), published.versions(), loop_stop.clone()).await?;
    let shared = Shared { store, blobs, published, fleet, mutations: Mutex::new(()), stop };
    Ok(Running { shared: Arc::new(shared), planning, loop_stop })
}

/// The accept loop; it ends when the token is cancelled and the last call has.
fn serve(
    listener: TcpListener,
    routes: Routes,
    stop: CancellationToken,
) -> JoinHandle<Result<(), tonic::transport::Error>> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_MAX))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    tokio::spawn(server)
}

/// What runs until the end; none of it ends by itself.
struct Tasks {
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    background: [(&'static str, JoinHandle<()>); 2],
}

impl Tasks {
    /// Waits for the signal, then for the server, but not for ever. A task that ends before takes the controller down,
    /// so that whoever watches the process sees it: a server without its loop would accept pushes and move nothing.
    async fn supervise(
        self,
        ended: impl Future<Output = &'static str>,
        stop: &CancellationToken,
    ) -> Result<(), Explained> {
        let Self { mut server, background: [mut first, mut second] } = self;
        let early = tokio::select! {
            early = &mut server => Some(outcome(early)),
            _ = &mut first.1 => Some(Err(died(first.0))),
            _ = &mut second.1 => Some(Err(died(second.0))),
            name = ended => {
                tracing::info!(signal = name, "stopping");
                None
            }
        };
        stop.cancel();
        second.1.abort();
        if let Some(early) = early {
            return early;
        }
        match timeout(STOP_MAX, &mut server).await {
            Ok(end) => outcome(end),
            Err(_) => {
                tracing::warn!(seconds = STOP_MAX.as_secs(), "calls were still under way at the end");
                server.abort();
                Ok(())
            }
        }
    }
}

fn outcome(end: Result<Result<(), tonic::transport::Error>, JoinError>) -> Result<(), Explained> {
    match end {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed("serve", &error)),
        Err(error) => Err(failed("serve", &error)),
    }
}

fn died(doing: &str) -> Explained {
    Explained::new(
        "CONTROLLER_FAILED",
        format!("the controller stopped {doing}"),
        "the task ended by a bug; its last words are in the log",
        "start the controller again: it goes on with what is stored; report the log",
    )
}

/// Ends when the process is asked to; tells the signal's name.
fn asked_to_end() -> Result<impl Future<Output = &'static str>, Explained> {
    let watch = |kind| signal(kind).map_err(|error| failed("watch for signals", &error));
    let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

fn ready(address: SocketAddr, options: &ServeArgs) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", options.ready_line(address))?;
    stdout.flush()
}

/// Reads the address; only this machine may connect as long as connections carry no identity.
fn loopback(listen: &str) -> Result<SocketAddr, Explained> {
    address::loopback(listen).map_err(|refused| match refused {
        Refused::NotLoopback => Explained::new(
            "ADDRESS_NOT_LOOPBACK",
            format!("{listen} is not a loopback address"),
            "this version has neither TLS nor operator identity: whoever can connect could start a rollout",
            "listen on 127.0.0.1 or [::1]",
        ),
        Refused::Unreadable | Refused::Name => Explained::new(
            "LISTEN_INVALID",
            format!("{listen} is no address to listen on"),
            "it is not an IP address with a port",
            "write it like 127.0.0.1:7443",
        ),
    })
}

/// Makes this process the only controller of the folder.
fn lock(data_dir: &Path) -> Result<File, Explained> {
    let path = data_dir.join("lock");
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| failed("open the lock of its data folder", &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Explained::new(
            "DATA_DIR_LOCKED",
            format!("another controller uses {}", data_dir.display()),
            "two controllers on one store would give hosts contradicting orders",
            "stop the other one, or use another --data-dir",
        )),
        Err(TryLockError::Error(error)) => Err(failed("lock its data folder", &error)),
    }
}

/// Every agent takes two connections: as many files as the system allows.
fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> Explained {
    Explained::new(
        "LISTEN_FAILED",
        format!("the controller can't listen on {address}"),
        error.to_string(),
        "stop what uses the port, or choose another one with --listen",
    )
}

fn failed(what: &str, error: &dyn std::error::Error) -> Explained {
    Explained::new(
        "CONTROLLER_FAILED",
        format!("the controller could not {what}"),
        crate::explain::chain(error),
        "look at the controller's log, and at the disk and permissions of the data folder",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loopback_address_is_listened_on() {
        assert!(loopback("127.0.0.1:0").is_ok() && loopback("localhost:7443").is_ok());
        for open in ["0.0.0.0:7443", "[::]:7443", "192.0.2.1:7443"] {
            assert_eq!(loopback(open).unwrap_err().code, "ADDRESS_NOT_LOOPBACK", "{open}");
        }
        for wrong in ["", "127.0.0.1", "localhost", "example.net:7443", ":7443", "127.0.0.1:99999"] {
            assert_eq!(loopback(wrong).unwrap_err().code, "LISTEN_INVALID", "{wrong}");
        }
    }

    #[test]
    fn a_data_folder_has_one_controller_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        assert_eq!(lock(dir.path()).unwrap_err().code, "DATA_DIR_LOCKED");
        drop(first);
        assert!(lock(dir.path()).is_ok());
    }

    #[tokio::test]
    async fn a_folder_that_was_never_initialised_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let options = ServeArgs::text(dir.path().join("data"), "127.0.0.1:0");
        assert_eq!(run(&options).await.unwrap_err().code, "NOT_INITIALISED");
        assert!(!dir.path().join("data").exists());
    }

    /// Tasks that never end by themselves.
    fn tasks() -> Tasks {
        let never = || tokio::spawn(std::future::pending());
        Tasks {
            server: tokio::spawn(std::future::pending()),
            background: [("planning", never()), ("renewing", never())],
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_end_is_left_behind_at_the_deadline() {
        tokio::time::pause();
        let stop = CancellationToken::new();
        tasks().supervise(std::future::ready("SIGTERM"), &stop).await.unwrap();
        assert!(stop.is_cancelled());
    }

    #[tokio::test]
    async fn a_controller_whose_loop_has_died_ends_with_an_error() {
        let stop = CancellationToken::new();
        let tasks = tasks();
        tasks.background[0].1.abort();
        let error = tasks.supervise(std::future::pending(), &stop).await.unwrap_err();
        assert_eq!(
            (&*error.code, error.what.as_str()),
            ("CONTROLLER_FAILED", "the controller stopped planning")
        );
        assert!(stop.is_cancelled(), "streams are told");
    }
}
