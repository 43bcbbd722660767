//! Sockets that outlive an agent: the harness holds them as a service manager would, so that callers wait while the agent
//! is started anew.

use std::{
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use super::{Agent, Process, surroundings::without_surroundings};

/// A shell puts the sockets where systemd would, names its own process id, and becomes the agent.
const HAND_OVER: &str =
    r#"export LISTEN_PID=$$; exec "$0" daemon --config "$1" 3<&0 4<&2 0</dev/null 2>>"$2""#;

/// The front's sockets, listening.
#[derive(Debug)]
pub struct HeldSockets {
    front: UnixListener,
    tcp: TcpListener,
}

impl HeldSockets {
    /// Makes the sockets of an agent that doesn't run: the unix socket of its config, and a free TCP port.
    ///
    /// # Errors
    /// They can't be made.
    pub fn make(agent: &Agent) -> Result<Self> {
        let front = UnixListener::bind(agent.front()).context("binding the front")?;
        let tcp = TcpListener::bind("127.0.0.1:0").context("binding a port")?;
        Ok(Self { front, tcp })
    }

    /// The address of the TCP socket.
    ///
    /// # Errors
    /// The system doesn't say.
    pub fn address(&self) -> Result<SocketAddr> {
        self.tcp.local_addr().context("an address")
    }

    /// The command that runs an agent on these sockets; standard output is the caller's to set.
    pub(super) fn command(&self, agent: &Agent) -> Result<Command> {
        let stdio = |socket: &dyn AsFd| -> Result<Stdio> {
            let socket: OwnedFd = socket.as_fd().try_clone_to_owned().context("a descriptor")?;
            Ok(Stdio::from(socket))
        };
        let mut command = Command::new("/bin/sh");
        without_surroundings(&mut command)
            .args(["-c", HAND_OVER])
            .arg(agent.program())
            .arg(agent.config())
            .arg(agent.log())
            .env("LISTEN_FDS", "2")
            .env("LISTEN_FDNAMES", "front:tcp")
            .stdin(stdio(&self.front)?)
            .stderr(stdio(&self.tcp)?);
        Ok(command)
    }
}

impl Agent {
    /// Starts the agent on sockets that are held for it, with more variables in its environment, and waits until it is
    /// ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_on(&mut self, held: &HeldSockets, environment: &[(&str, &str)]) -> Result<()> {
        let mut command = held.command(self)?;
        command.envs(environment.iter().copied());
        self.process = Some(Process::spawn(&self.name, &mut command, &self.log())?);
        self.wait_ready()
    }
}
