//! Launcher: the one thread that starts workers, and the first exchange with each of them.
use crate::{
    Cause, Cgroup, Death, Image, Limits, LoadError, SandboxError, Worker, WorkerSpec, death, error,
    frames::{self, Loading, Refusal, Refused, Start, Step},
    inside,
    log::{self, LogLine, LogSource, Tail},
    process::{Child, Process},
    worker::Loaded,
};
use bytes::{Bytes, BytesMut};
use fleetswap_inspect::Descriptor;
use futures_util::StreamExt;
use prost::Message;
use rustix::pipe::PipeFlags;
use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream as StdStream, process::CommandExt},
    },
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
};
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, pipe},
    },
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, error::Elapsed, timeout, timeout_at},
};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

/// The host's side of the socket, cut into frames.
pub(crate) type Frames = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;

/// Starts workers. Cheap to clone. Workers die with the thread behind it, which lives as long as any clone of
/// the launcher or any [`Worker`].
#[derive(Clone, Debug)]
pub struct Launcher {
    jobs: mpsc::Sender<Job>,
    build: Arc<str>,
}

/// A worker to start, and where to tell.
struct Job {
    socket: OwnedFd,
    image: OwnedFd,
    log: OwnedFd,
    plugin: String,
    version: String,
    limits: Limits,
    started: oneshot::Sender<io::Result<Child>>,
}

impl Launcher {
    /// Starts the thread. Limits are kept by a watch.
    ///
    /// # Errors
    /// No thread to be had, or this program's own file can't be examined.
    pub fn start() -> io::Result<Self> {
        Self::start_within(None)
    }

    /// Starts the thread. Where there is a cgroup, each worker gets a leaf of it, and the watch is its backstop.
    ///
    /// # Errors
    /// As for [`Launcher::start`].
    pub fn start_within(cgroup: Option<Cgroup>) -> io::Result<Self> {
        let build = inside::build_id()?.into();
        let (jobs, queue) = mpsc::channel::<Job>();
        // The kernel ends the workers when the *thread* that started them ends, so it is one of our own, and no
        // thread of a runtime that comes and goes.
        thread::Builder::new().name("launcher".into()).spawn(move || {
            for job in queue {
                let limits = job.limits.clone();
                let (command, started) = job.into_command();
                // A caller that has gone away drops the child, which ends it.
                let _ = started.send(spawn(command, cgroup.as_ref(), &limits));
            }
        })?;
        Ok(Self { jobs, build })
    }

    /// Starts a worker, has it load the image, and compares what it says of itself with `spec.descriptor`.
    /// Dropping the future ends the worker. Needs a runtime with I/O and time.
    ///
    /// # Errors
    /// See [`LoadError`]; the worker is gone then, and reaped.
    pub async fn launch(&self, image: &Image, spec: WorkerSpec) -> Result<Worker, LoadError> {
        // The host's part and the release's have a time each: a slow host must not use up the release's.
        let time = spec.limits.load_timeout;
        let locked_in_by = Instant::now() + time;
        let mut newborn = timeout_at(locked_in_by, self.spawn(image, &spec)).await.unwrap_or_else(|_| {
            let error = LoadError::host("starting a process in time");
            Err(error(io::ErrorKind::TimedOut.into()))
        })?;
        let loaded = async {
            in_time(timeout_at(locked_in_by, newborn.lock_in(&self.build, &spec)).await)?;
            in_time(timeout(time, newborn.load(&spec)).await)
        };
        match loaded.await {
            Ok((descriptor, parsed)) => Ok(newborn.into_worker(self.clone(), descriptor, &parsed, spec)),
            Err(failure) => Err(newborn.bury(failure, &spec).await),
        }
    }

    async fn spawn(&self, image: &Image, spec: &WorkerSpec) -> Result<Newborn, LoadError> {
        let (ours, socket) = StdStream::pair().map_err(LoadError::host("making a socket pair"))?;
        let (log, log_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
            .map_err(|error| LoadError::host("making a log pipe")(error.into()))?;
        let image_bytes = image.bytes();
        let image = image.reopen().map_err(LoadError::host("opening the image again"))?;
        let (plugin, version) = (spec.plugin.clone(), spec.version.clone());
        let (started, child) = oneshot::channel();
        let gone = || LoadError::host("reaching the launcher")(io::ErrorKind::BrokenPipe.into());
        let limits = spec.limits.clone();
        let job = Job { socket: socket.into(), image, log: log_end, plugin, version, limits, started };
        self.jobs.send(job).map_err(|_| gone())?;
        let child = child.await.map_err(|_| gone())?.map_err(LoadError::host("starting a process"))?;
        let tail = Tail::new(spec.log.clone(), death::build_id(image_bytes));
        Newborn::new(child, ours, (log, tail), spec).map_err(LoadError::host("watching a process"))
    }
}

impl Job {
    fn into_command(self) -> (Command, oneshot::Sender<io::Result<Child>>) {
        // Never a path: what runs is this very program, whatever lies at its path by now.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(inside::NAME)
            .args([inside::MARK, &std::process::id().to_string(), &self.plugin, &self.version])
            .env_clear()
            .stdin(Stdio::from(self.socket))
            .stdout(Stdio::from(self.image))
            .stderr(Stdio::from(self.log))
            // A Ctrl-C at the host's terminal is the host's to handle.
            .process_group(0);
        (command, self.started)
    }
}

/// The process is in its cgroup before anybody tells it to begin: it waits for its first frame.
fn spawn(mut command: Command, cgroup: Option<&Cgroup>, limits: &Limits) -> io::Result<Child> {
    let child = Child::adopt(command.spawn()?.id())?;
    Ok(match cgroup.map(|cgroup| cgroup.hold(child.pid, limits)) {
        Some(Ok(group)) => child.held_by(group),
        // The watch keeps its limits as well; a plugin that answers is worth more than the better way to bound it.
        Some(Err(error)) => {
            child.noted(format!("no cgroup for this worker, the watch alone bounds it: {error}"))
        }
        None => child,
    })
}

/// Why loading stopped.
enum Failure {
    /// Known already.
    Known(LoadError),
    /// The socket ended or carried nonsense; how the process ended says more.
    Ended,
    Timeout,
}

fn in_time<T>(result: Result<Result<T, Failure>, Elapsed>) -> Result<T, Failure> {
    result.unwrap_or(Err(Failure::Timeout))
}

/// A worker that has not loaded yet.
struct Newborn {
    process: Process,
    frames: Frames,
    writer: tokio::net::unix::OwnedWriteHalf,
    tail: Arc<Tail>,
    drained: JoinHandle<()>,
    /// Locked in: what goes wrong from now on is the release's doing.
    sandboxed: bool,
}

impl Newborn {
    fn new(
        mut child: Child,
        socket: StdStream,
        (log, tail): (OwnedFd, Tail),
        spec: &WorkerSpec,
    ) -> io::Result<Self> {
        if let Some(text) = child.note.take() {
            spec.log.send(LogLine { source: LogSource::Host, text });
        }
        socket.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(socket)?.into_split();
        let log = pipe::Receiver::from_owned_fd(log)?;
        let process = Process::watch(child, &spec.limits)?;
        let tail = Arc::new(tail);
        let drained = tokio::spawn(log::drain(log, Arc::clone(&tail)));
        let frames = FramedRead::new(reader, frames::codec());
        Ok(Self { process, frames, writer, tail, drained, sandboxed: false })
    }

    /// The exchange up to the sandbox.
    async fn lock_in(&mut self, build: &str, spec: &WorkerSpec) -> Result<(), Failure> {
        let start = Start {
            build: build.into(),
            plugin: spec.plugin.clone(),
            memory_bytes: spec.limits.memory_bytes,
            open_files: spec.limits.open_files,
            level: spec.level as u32,
            pool: pool(spec.descriptor.as_ref()),
        };
        let mut frame = BytesMut::new();
        frames::encode(&start, &mut frame);
        self.writer.write_all(&frame).await.map_err(|_| Failure::Ended)?;
        match self.step().await? {
            Step::Sandboxed(lacking) if lacking.is_empty() => {
                self.sandboxed = true;
                Ok(())
            }
            Step::Sandboxed(lacking) => Err(Failure::Known(LoadError::HostLacks { words: lacking })),
            Step::Refused(refused) if refused.kind == Refusal::NoThreads as i32 => {
                Err(Failure::Known(no_threads(refused.words)))
            }
            Step::OtherBuild(worker) => {
                Err(Failure::Known(LoadError::BuildMismatch { worker, host: build.into() }))
            }
            Step::NoSandbox(no) => {
                let error = SandboxError { level: spec.level, piece: no.piece, words: no.words };
                Err(Failure::Known(error.into()))
            }
            Step::Refused(_) | Step::Loaded(_) => Err(Failure::Ended),
        }
    }

    /// The exchange from there up to the descriptor.
    async fn load(&mut self, spec: &WorkerSpec) -> Result<(Bytes, Descriptor), Failure> {
        match self.step().await? {
            Step::Loaded(descriptor) => accept(descriptor, spec).map_err(Failure::Known),
            // Its threads run already: the release claims what only the host can lack, to escape the blame.
            Step::Refused(refused)
                if refused.kind == Refusal::NoThreads as i32 && pool(spec.descriptor.as_ref()) > 0 =>
            {
                let words = "it said that the host has no threads, after those had been started".into();
                self.process.kill(Cause::Protocol(words));
                Err(Failure::Ended)
            }
            Step::Refused(refused) => Err(Failure::Known(refusal(refused))),
            Step::OtherBuild(_) | Step::NoSandbox(_) | Step::Sandboxed(_) => Err(Failure::Ended),
        }
    }

    async fn step(&mut self) -> Result<Step, Failure> {
        let frame = self.frames.next().await.and_then(Result::ok).ok_or(Failure::Ended)?;
        Loading::decode(frame).ok().and_then(|loading| loading.step).ok_or(Failure::Ended)
    }

    fn into_worker(
        self,
        launcher: Launcher,
        descriptor: Bytes,
        parsed: &Descriptor,
        spec: WorkerSpec,
    ) -> Worker {
        Worker::new(Loaded {
            launcher,
            process: self.process,
            frames: self.frames,
            writer: self.writer,
            tail: self.tail,
            drained: self.drained,
            descriptor,
            concurrency: parsed.concurrency,
            limits: spec.limits,
        })
    }

    /// Ends the process, waits until it is reaped, and says why there is no worker.
    async fn bury(self, failure: Failure, spec: &WorkerSpec) -> LoadError {
        if matches!(failure, Failure::Ended) {
            // It is about to end by itself, and its own way is the better report.
            let _ = timeout(spec.limits.close_timeout, self.process.exited()).await;
        }
        self.process.kill(Cause::Killed);
        let cause = self.process.exited().await;
        log::drained(self.drained, &self.tail).await;
        let log_tail = self.tail.text();
        match failure {
            Failure::Known(error) => error,
            Failure::Timeout if !self.sandboxed => {
                LoadError::host("setting up a worker in time")(io::ErrorKind::TimedOut.into())
            }
            Failure::Ended if !self.sandboxed => {
                let last = log_tail.lines().last().unwrap_or_default();
                let error = io::Error::other(format!("the worker {cause}. {last}"));
                LoadError::Host { what: "setting up a worker", error }
            }
            // The watch may have ended it just before the time was over.
            Failure::Timeout if cause == Cause::Killed => {
                LoadError::Timeout { after: spec.limits.load_timeout, log_tail }
            }
            Failure::Timeout | Failure::Ended => {
                LoadError::Crashed(Arc::new(Death::report(cause, vec!["the loading".into()], &self.tail)))
            }
        }
    }
}

fn refusal(refused: Refused) -> LoadError {
    let words = refused.words;
    match Refusal::try_from(refused.kind) {
        Ok(Refusal::CannotOpen) | Err(_) => LoadError::CannotOpen { words },
        Ok(Refusal::SymbolMissing) => LoadError::SymbolMissing { words },
        Ok(Refusal::AbiMismatch) => LoadError::AbiMismatch { words },
        Ok(Refusal::DescriptorInvalid) => LoadError::DescriptorInvalid { words },
        Ok(Refusal::NoThreads) => no_threads(words),
    }
}

fn no_threads(words: String) -> LoadError {
    LoadError::host("starting the threads of a worker")(io::Error::other(words))
}

/// Threads that will run calls, as the signed descriptor says; 0 where there is none to go by.
fn pool(descriptor: Option<&Bytes>) -> u32 {
    let parsed = descriptor.and_then(|bytes| Descriptor::parse(bytes).ok());
    parsed.map_or(0, |parsed| parsed.concurrency.max(1))
}

/// Demands the signed descriptor, where there is one, byte by byte.
fn accept(got: Bytes, spec: &WorkerSpec) -> Result<(Bytes, Descriptor), LoadError> {
    if let Some(wanted) = &spec.descriptor
        && *wanted != got
    {
        return Err(LoadError::DescriptorDiffers { words: error::first_difference(wanted, &got) });
    }
    let parsed =
        Descriptor::parse(&got).map_err(|error| LoadError::DescriptorInvalid { words: error.to_string() })?;
    Ok((got, parsed))
}
