//! The fleet: a folder, a controller, some agents, and the operator's command line.

use std::{
    ffi::OsStr,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{Binaries, Caller, Outcome, Plugin, Process, surroundings::without_surroundings};

/// How long [`eventually`] waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a fleet is made of.
#[derive(Clone, Debug, Default)]
pub struct FleetOptions {
    /// Count of agents, named `host-1` and so on.
    pub agents: usize,
    /// Lines added to the top of every agent's config, e.g. `mirrors = […]`.
    pub agent_config: String,
}

/// One controller and its agents; all end when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    /// The agents, in the order of their names.
    pub agents: Vec<Agent>,
    /// The running controller.
    pub controller: Option<Process>,
    binaries: Binaries,
    address: String,
    folder: TempDir,
}

/// One host of the fleet.
#[derive(Debug)]
pub struct Agent {
    /// The host's name.
    pub name: String,
    /// The running agent.
    pub process: Option<Process>,
    binaries: Binaries,
    folder: PathBuf,
    runs_as: Option<(u32, PathBuf)>,
}

impl Fleet {
    /// Sets up trust, starts the controller, then the agents, and waits until all are ready.
    ///
    /// # Errors
    /// A part does not start; the error carries the end of its log.
    pub fn start(binaries: &Binaries, options: &FleetOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fleetswap-").tempdir().context("a folder")?;
        let mut fleet = Self {
            agents: Vec::new(),
            controller: None,
            binaries: binaries.clone(),
            address: "127.0.0.1:0".to_owned(),
            folder,
        };
        let (data, publisher) = (fleet.path("controller"), fleet.path("publisher"));
        let init: [&OsStr; 6] = [
            "init".as_ref(),
            "--dev".as_ref(),
            "--data-dir".as_ref(),
            data.as_ref(),
            "--publisher-dir".as_ref(),
            publisher.as_ref(),
        ];
        fleet.controller(init)?.expect(0)?;
        fleet.start_controller()?;
        for number in 1..=options.agents {
            let agent = fleet.add_agent(&format!("host-{number}"), &options.agent_config)?;
            fleet.agents.push(agent);
        }
        fleet.start_agents()?;
        Ok(fleet)
    }

    fn start_agents(&mut self) -> Result<()> {
        for agent in &mut self.agents {
            agent.spawn(&[])?;
        }
        for agent in &self.agents {
            agent.wait_ready()?;
        }
        let wanted = self.agents.len() as u64;
        eventually("every agent is online", || {
            let online = self.status()?["hosts_online"].as_u64().unwrap_or_default();
            Ok((online >= wanted).then_some(()))
        })
    }

    /// SIGTERM to the controller, and waits for its end.
    ///
    /// # Errors
    /// It does not run, or does not end in time.
    pub fn stop_controller(&mut self) -> Result<()> {
        let mut process = self.controller.take().context("the controller runs")?;
        process.stop().map(drop)
    }

    /// Starts the controller, or starts it again on its old port.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_controller(&mut self) -> Result<()> {
        let process = self.spawn_controller_as(&self.binaries.controller(), &[])?;
        let line = process.wait_for_line("controller ready on ")?;
        let address = line.rsplit(' ').next().context("an address in the ready line")?;
        address.clone_into(&mut self.address);
        self.controller = Some(process);
        Ok(())
    }

    /// Starts another program as the controller, with more in its environment; it may end before it is ready.
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn_controller_as(&self, program: &Path, environment: &[(&str, &str)]) -> Result<Process> {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", &self.address, "--data-dir"]).arg(self.path("controller"));
        without_surroundings(&mut command).envs(environment.iter().copied());
        Process::start("controller", &mut command, &self.path("controller.log"))
    }

    /// Makes the folder and the config of one more host; it is not started.
    ///
    /// # Errors
    /// The files can't be written.
    pub fn add_agent(&self, name: &str, config: &str) -> Result<Agent> {
        let folder = self.path(name);
        fs::create_dir_all(&folder)?;
        let text = format!(
            "name = \"{name}\"\nstate_dir = \"{0}/state\"\ncontroller = \"{1}\"\ntrust_root = \"{2}/root.json\"\n\
             allow_dev_trust = true\n{config}\n[labels]\nnumber = \"{3}\"\n[front]\nsocket = \"{0}/front.sock\"\n\
             [control]\nsocket = \"{0}/control.sock\"\n",
            folder.display(),
            self.address,
            self.path("publisher").display(),
            name.trim_start_matches("host-"),
        );
        fs::write(folder.join("agent.toml"), text)?;
        Ok(Agent {
            name: name.to_owned(),
            process: None,
            binaries: self.binaries.clone(),
            folder,
            runs_as: None,
        })
    }

    /// A path in the fleet's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The controller's address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Keeps the folder when the fleet ends, and returns it.
    #[must_use]
    pub fn keep_folder(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// The command `controller …` as the operator of this fleet would type it.
    pub fn controller_command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(self.binaries.controller());
        without_surroundings(&mut command)
            .args(arguments)
            .env("FLEETSWAP_CONTROLLER", &self.address)
            .env("FLEETSWAP_PUBLISHER_DIR", self.path("publisher"));
        command
    }

    /// Runs `controller …` to its end.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn controller<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Outcome> {
        Outcome::of(&mut self.controller_command(arguments))
    }

    /// The arguments of `controller push` for a plugin, with `more` behind them.
    #[must_use]
    pub fn push_arguments(plugin: &Plugin, more: &[&str]) -> Vec<String> {
        let file = plugin.file.display().to_string();
        let arguments = ["push", &plugin.name, "--version", &plugin.version, "--artifact", &file];
        arguments.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
    }

    /// `controller push … -o json`; returns exit code and output.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn push(&self, plugin: &Plugin, more: &[&str]) -> Result<Outcome> {
        let mut arguments = Self::push_arguments(plugin, more);
        arguments.extend(["-o".to_owned(), "json".to_owned()]);
        self.controller(arguments)
    }

    /// `controller status -o json`.
    ///
    /// # Errors
    /// The command fails.
    pub fn status(&self) -> Result<Value> {
        self.controller(["status", "-o", "json"])?.expect(0)?.json()
    }

    /// Fails unless every process of the fleet still runs.
    ///
    /// # Errors
    /// Names the one that ended.
    pub fn check_alive(&self) -> Result<()> {
        let agents = self.agents.iter().map(|agent| (agent.name.as_str(), &agent.process));
        for (name, process) in agents.chain([("controller", &self.controller)]) {
            let process = process.as_ref().with_context(|| format!("{name} was stopped"))?;
            ensure!(Path::new(&format!("/proc/{}", process.pid())).exists(), "{name} has ended");
        }
        Ok(())
    }
}

impl Agent {
    /// Starts the agent, or starts it again, and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(&[])
    }

    /// The same, with more arguments of `agent daemon`.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_with(&mut self, more: &[&str]) -> Result<()> {
        self.spawn(more)?;
        self.wait_ready()
    }

    /// From its next start on the agent runs as this user and group, without further groups; `program` is a copy of
    /// the agent that the user may execute. Its folder has to be the user's.
    pub fn run_as(&mut self, user: u32, program: &Path) {
        self.runs_as = Some((user, program.to_owned()));
    }

    fn spawn(&mut self, more: &[&str]) -> Result<()> {
        let mut command = match &self.runs_as {
            Some((user, program)) => {
                let mut command = Command::new(program);
                command.uid(*user).gid(*user);
                command
            }
            None => Command::new(self.binaries.agent()),
        };
        command.args(["daemon", "--config"]).arg(self.config()).args(more);
        self.spawn_command(command)
    }

    /// Starts another program as this agent, with more in its environment; it may end before it is ready.
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn_as(&mut self, program: &Path, environment: &[(&str, &str)]) -> Result<()> {
        let mut command = Command::new(program);
        command.args(["daemon", "--config"]).arg(self.config()).envs(environment.iter().copied());
        self.spawn_command(command)
    }

    fn spawn_command(&mut self, mut command: Command) -> Result<()> {
        without_surroundings(&mut command);
        self.process = Some(Process::start(&self.name, &mut command, &self.log())?);
        Ok(())
    }

    pub(super) fn program(&self) -> PathBuf {
        self.binaries.agent()
    }

    /// Where the agent logs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It ended or stayed silent.
    pub fn wait_ready(&self) -> Result<()> {
        self.process.as_ref().context("the agent is started")?.wait_for_line(" ready").map(drop)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not run, or does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.take().context("the agent runs")?.stop()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The agent's config file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("agent.toml")
    }

    /// The folder of this host.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The socket of the front.
    #[must_use]
    pub fn front(&self) -> PathBuf {
        self.folder.join("front.sock")
    }

    /// Calls this host's plugins.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller::new(&self.front())
    }

    /// Runs `agent VERB … --config …` to its end.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Outcome> {
        Outcome::of(&mut self.command(arguments))
    }

    /// The command `agent …` as the operator of this host would type it.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(self.binaries.agent());
        without_surroundings(&mut command).args(arguments).env("FLEETSWAP_AGENT_CONFIG", self.config());
        command
    }

    /// `agent status -o json`.
    ///
    /// # Errors
    /// The command fails.
    pub fn status(&self) -> Result<Value> {
        self.run(["status", "-o", "json"])?.expect(0)?.json()
    }
}

/// Waits until a look at the world gives something, with a pause of 20 ms between looks.
///
/// # Errors
/// It gives nothing for a minute, or the look itself fails at the end; the error names `what`.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = look();
        match seen {
            Ok(Some(found)) => return Ok(found),
            Ok(None) if Instant::now() > end => bail!("it never came true that {what}"),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("it never came true that {what}")));
            }
            Ok(None) | Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
