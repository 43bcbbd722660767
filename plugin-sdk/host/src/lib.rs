//! Runs a plugin in a sandboxed worker process.
//!
//! A hostile or broken plugin can't take its host down: its code never runs in the host's own process. The
//! host copies the artifact into an [`Image`], has a [`Launcher`] start a worker from it, and talks to it
//! through a [`Worker`] handle. A [`Gate`] stands in front of the worker that callers use.
//!
//! A program that launches workers is also the worker: its `main` begins with [`run_worker_if_asked`].
mod cgroup;
mod death;
mod error;
mod fault;
mod frames;
mod gate;
mod image;
mod inside;
mod launcher;
mod limits;
mod log;
mod process;
mod sandbox;
mod worker;

pub use cgroup::{Cgroup, NoCgroup};
pub use death::{Cause, CrashRecord, Death, Frame};
pub use error::{CallError, LoadError};
pub use fault::Fault;
pub use gate::{EnterError, Gate, Guard, Pressure, QUEUE_BYTES_MAX, QUEUE_CALLS_MAX, Retired, WORK_RESERVE};
pub use image::{IMAGE_MAX, Image, ImageError, ImageWriter};
pub use inside::run_worker_if_asked;
pub use launcher::Launcher;
pub use limits::{Limits, POOL_MAX};
pub use log::{LINE_MAX, LogLine, LogSink, LogSource, TAIL_MAX};
pub use sandbox::{Level, SandboxError, UnknownLevel, sandbox_level};
pub use worker::{Worker, WorkerSpec};
