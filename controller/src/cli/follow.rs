//! Following a rollout to its end: over broken connections, up to a deadline, until Ctrl-C.

use std::{collections::BTreeMap, time::Duration};

use fleetswap_proto::{
    Explained,
    v1::{HostState, Rollout, RolloutState, WatchRolloutRequest},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::{
    signal,
    time::{Instant, sleep, timeout_at},
};

use super::{
    client::Client,
    exit::{Exit, Failure},
    json as views,
    output::Output,
    text,
};

/// How long the command line waits for a rollout unless told otherwise.
const WAIT_DEFAULT: Duration = Duration::from_secs(3600);
/// How long the controller may be away while a rollout is followed.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// Pause between two attempts to follow again.
const PAUSE: Duration = Duration::from_millis(500);

/// How to follow.
#[derive(Clone, Copy)]
pub(super) struct Follow<'a> {
    pub(super) client: &'a Client,
    pub(super) output: &'a Output,
    pub(super) wait: Option<Duration>,
    /// Print every update as a JSON object on a line of its own.
    pub(super) each_update: bool,
}

impl Follow<'_> {
    /// Follows until the rollout has ended, and returns it as it ended.
    pub(super) async fn until_it_ends(&self, rollout: Rollout) -> Result<Rollout, Failure> {
        let id = rollout.rollout_id.clone();
        let detached = detached(&rollout);
        let wait = self.wait.unwrap_or(WAIT_DEFAULT);
        let mut screen = Screen::new(self.output);
        screen.show(&rollout);
        tokio::select! {
            ended = timeout_at(Instant::now() + wait, self.watch(rollout, &mut screen)) => {
                screen.close();
                ended.unwrap_or_else(|_| Err(wait_ran_out(&id, wait)))
            }
            _ = signal::ctrl_c() => {
                screen.close();
                Err(detached)
            }
        }
    }

    async fn watch(&self, mut latest: Rollout, screen: &mut Screen) -> Result<Rollout, Failure> {
        let mut heard = Instant::now();
        while !latest.state().has_ended() {
            match self.watch_once(&mut latest, screen, &mut heard).await {
                Ok(()) => {}
                Err(failure) if failure.is_away() => {
                    if heard.elapsed() > AWAY_MAX {
                        return Err(failure);
                    }
                    screen.note(
                        "the controller is away; the hosts go on, and so does this command once it is back",
                    );
                    sleep(PAUSE).await;
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(latest)
    }

    /// One stream of updates, until the rollout ends or the stream does.
    async fn watch_once(
        &self,
        latest: &mut Rollout,
        screen: &mut Screen,
        heard: &mut Instant,
    ) -> Result<(), Failure> {
        let request = WatchRolloutRequest { rollout_id: latest.rollout_id.clone() };
        let mut operator = self.client.operator();
        let stream = operator.watch_rollout(request).await.map_err(|status| self.failure(&status))?;
        let mut stream = stream.into_inner();
        loop {
            *heard = Instant::now();
            let update = stream.message().await.map_err(|status| self.failure(&status))?;
            let Some(rollout) = update.and_then(|update| update.rollout) else {
                return if latest.state().has_ended() { Ok(()) } else { Err(self.broke_off()) };
            };
            screen.show(&rollout);
            // How it ended is printed once, by whoever asked to follow.
            if self.each_update && self.output.is_json() && !rollout.state().has_ended() {
                self.output.result("", json!({ "rollout": views::rollout(&rollout) }));
            }
            *latest = rollout;
        }
    }

    /// A connection that breaks is a controller that is away, whatever gRPC calls it.
    fn failure(&self, status: &tonic::Status) -> Failure {
        match status.code() {
            tonic::Code::Unknown | tonic::Code::Cancelled | tonic::Code::Internal
                if Explained::from_status(status).is_none() =>
            {
                Failure::unreachable(self.client.address(), status.message())
            }
            _ => self.client.failure(status),
        }
    }

    fn broke_off(&self) -> Failure {
        Failure::unreachable(self.client.address(), "the stream ended before the rollout did")
    }

    /// Prints how the rollout ended, and gives the exit code. `more` is added to the JSON object.
    pub(super) fn finish(&self, rollout: &Rollout, more: Value) -> Result<Exit, Failure> {
        let mut object = more;
        object["rollout"] = views::rollout(rollout);
        object["next"] = text::next_step(rollout).map(|(_, command)| command).into();
        self.output.result(&text::ending(rollout), object);
        Ok(exit_of(rollout))
    }
}

/// The exit code that tells how a rollout ended.
pub(super) fn exit_of(rollout: &Rollout) -> Exit {
    if rollout.state() == RolloutState::Succeeded { Exit::Ok } else { Exit::Failed }
}

/// The controller answered without a rollout: it is not of this version.
pub(super) fn no_rollout(client: &Client) -> Failure {
    let what = format!("the controller at {} did not say which rollout it started", client.address());
    let fix = "see `controller history`; use the command line of the same version as the server";
    Explained::new("CONTROLLER_FAILED", what, "the field `rollout` is missing in its answer", fix).into()
}

fn wait_ran_out(id: &str, wait: Duration) -> Failure {
    let what = format!("stopped waiting for {id} after {}", humantime::format_duration(wait));
    let why = "the wait of this command (--wait-timeout) ran out; the rollout goes on";
    Explained::new("WAIT_TIMEOUT", what, why, format!("controller status {id} --watch")).into()
}

fn detached(rollout: &Rollout) -> Failure {
    let id = &rollout.rollout_id;
    let fix = format!("follow it: controller status {id} --watch; {}", undoing(rollout));
    let why = "Ctrl-C ends this command, not the rollout";
    let mut failure = Failure::from(Explained::new("DETACHED", format!("detached from {id}"), why, fix));
    failure.exit = Exit::Detached;
    failure
}

/// How a rollout under way can be undone; as long as it lasts, it holds its assignment.
fn undoing(rollout: &Rollout) -> String {
    let plugin = &rollout.plugin;
    match &rollout.from {
        None => format!(
            "it is the first release of {plugin} there, so once it has succeeded there is nothing to go back to: push a \
             higher version then; if it fails: {}",
            text::way_back(rollout)
        ),
        Some(from) if rollout.trigger == "rollback" => {
            format!("to undo it once it has ended, push {plugin} {} again", from.version)
        }
        Some(_) => format!("to undo it once it has ended: {}", text::way_back(rollout)),
    }
}

fn is_on_trial(state: HostState) -> bool {
    match state {
        HostState::Offered
        | HostState::Fetching
        | HostState::Verifying
        | HostState::Loading
        | HostState::Probing
        | HostState::Switching
        | HostState::Probation
        | HostState::RollingBack => true,
        HostState::Unspecified
        | HostState::Pending
        | HostState::Committed
        | HostState::RolledBack
        | HostState::Rejected
        | HostState::Lost
        | HostState::Skipped => false,
    }
}

/// What has been shown: one line per change, and a bar where a terminal can draw one.
struct Screen {
    output: Output,
    bar: ProgressBar,
    hosts: BTreeMap<String, (i32, u32)>,
    state: i32,
    waiting: Vec<String>,
    noted: String,
}

impl Screen {
    fn new(output: &Output) -> Self {
        let bar = if output.is_interactive() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} hosts committed  {msg}") {
            bar.set_style(style);
        }
        let (hosts, waiting) = (BTreeMap::new(), Vec::new());
        Self { output: *output, bar, hosts, state: 0, waiting, noted: String::new() }
    }

    fn show(&mut self, rollout: &Rollout) {
        if !rollout.state().has_ended() {
            self.show_state(rollout);
        }
        for host in &rollout.hosts {
            let seen = (host.state, host.attempt);
            let before = self.hosts.insert(host.host.clone(), seen);
            let news = before.map_or_else(|| host.state() != HostState::Pending, |before| before != seen);
            if news {
                self.line(&text::host_change(rollout, host));
            }
        }
        self.show_state(rollout);
        self.show_waiting(rollout);
        let committed = rollout.hosts.iter().filter(|host| host.state() == HostState::Committed).count();
        self.bar.set_length(rollout.hosts.len() as u64);
        self.bar.set_position(committed as u64);
        self.bar.set_message(rollout.rollout_id.clone());
    }

    fn show_state(&mut self, rollout: &Rollout) {
        if self.state != rollout.state {
            self.state = rollout.state;
            self.line(&text::headline(rollout));
        }
    }

    /// Why nothing moves; while a host is on trial, its own lines say what goes on.
    fn show_waiting(&mut self, rollout: &Rollout) {
        let moves = rollout.hosts.iter().any(|host| is_on_trial(host.state()));
        if moves || self.waiting == rollout.waiting {
            return;
        }
        self.waiting.clone_from(&rollout.waiting);
        for reason in &rollout.waiting {
            self.line(&format!("{} waits: {reason}", rollout.rollout_id));
        }
    }

    /// A line that is not said twice in a row.
    fn note(&mut self, words: &str) {
        if self.noted != words {
            words.clone_into(&mut self.noted);
            self.line(words);
        }
    }

    fn line(&self, words: &str) {
        self.bar.suspend(|| self.output.line(words));
    }

    fn close(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use fleetswap_proto::v1::Release;

    use super::*;

    fn ended(state: RolloutState) -> Exit {
        exit_of(&Rollout { state: state.into(), ..Rollout::default() })
    }

    #[test]
    fn only_a_rollout_that_succeeded_exits_with_0() {
        assert_eq!(ended(RolloutState::Succeeded), Exit::Ok);
        for state in
            [RolloutState::Failed, RolloutState::RolledBack, RolloutState::Aborted, RolloutState::Superseded]
        {
            assert_eq!(ended(state), Exit::Failed, "{state:?}");
        }
    }

    #[test]
    fn leaving_with_ctrl_c_says_how_to_come_back() {
        let release = Release { version: "1.2.0".to_owned(), ..Release::default() };
        let rollout = Rollout {
            rollout_id: "r-000007".to_owned(),
            plugin: "clock".to_owned(),
            selector: "zone=a".to_owned(),
            from: Some(release),
            trigger: "push".to_owned(),
            ..Rollout::default()
        };
        let failure = detached(&rollout);
        assert_eq!(failure.exit, Exit::Detached);
        assert!(failure.error.fix.contains("controller status r-000007 --watch"));
        let back = "to undo it once it has ended: controller rollback clock --hosts 'zone=a' --reason TEXT";
        assert!(failure.error.fix.ends_with(back), "{}", failure.error.fix);
        let again = undoing(&Rollout { trigger: "rollback".to_owned(), ..rollout.clone() });
        assert!(again.ends_with("push clock 1.2.0 again"), "{again}");
        let first = undoing(&Rollout { from: None, ..rollout });
        assert!(
            first.contains("there is nothing to go back to: push a higher version then; if it fails:"),
            "{first}"
        );
    }
}
