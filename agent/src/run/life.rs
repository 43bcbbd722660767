//! The loop of one plugin: wait for an event, step, save, do the work; its outcome is the next event.

mod ordered;

use std::{sync::Arc, time::Duration};

use fleetswap_update::{
    Event, Fact, Fault, Installed, Offer, OnDisk, Outcome, Plugin, Problem, ReleaseId, Serve, Task, Time,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    World,
    checkpoints::Checkpoints,
    narrate::narrate,
    orders::Asked,
    task::{Running, Starting, outcome_of, unless_it_panics},
    written::Written,
};
use crate::{
    clock, convert,
    durable::{DurableError, Moment},
    explain,
    service::{Live, Service, WorkerGone, disk},
    trial::{self, Bench},
};

use ordered::Open;

/// Wait before a record that could not be saved is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(1);
/// Longest wait at the end for a switch or a way back that has a state in its hands: what one may take that nobody calls.
const FINISH_MAX: Duration = Duration::from_secs(20);

/// What the controller told, and who waits until it is taken in.
pub(super) type Told = (Offer, oneshot::Sender<()>);

/// What comes from the loop's own tasks.
enum Own {
    Fact(Box<Fact>),
    /// A start put it in place; what of its state is lost, in words.
    Started(Arc<Live>, String),
    /// What a task of the trial came to; the number is the task's.
    Outcome(u64, u64, Box<Outcome>),
    Checkpointed(Result<(), Problem>),
    Slot(OwnedSemaphorePermit),
}

/// One plugin.
pub(super) struct Life {
    world: Arc<World>,
    plugin: Plugin,
    written: Written,
    service: Arc<Service>,
    bench: Arc<Bench>,
    told: mpsc::Receiver<Told>,
    ordered: mpsc::Receiver<Asked>,
    /// Rollbacks that wait for their answer.
    open: Vec<Open>,
    gone: mpsc::UnboundedReceiver<WorkerGone>,
    own: (mpsc::UnboundedSender<Own>, mpsc::UnboundedReceiver<Own>),
    permit: Option<OwnedSemaphorePermit>,
    serving: Option<(Serve, Option<Starting>)>,
    doing: Option<(Doing, Running)>,
    /// Number of the task of a trial that was begun last.
    task: u64,
    checkpoints: Checkpoints,
    on_disk: Option<OnDisk>,
}

/// Which task is under way: the same one is not begun twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doing {
    serial: Option<u64>,
    task: std::mem::Discriminant<Task>,
    at: Option<Time>,
    slot: bool,
}

impl Life {
    /// A plugin as its record has it. Nothing runs before [`Life::run`].
    pub(super) fn new(world: Arc<World>, plugin: Plugin, told: mpsc::Receiver<Told>) -> Self {
        let (gone_sender, gone) = mpsc::unbounded_channel();
        let expected = plugin.service().active().is_some();
        let service = Service::new(plugin.name().to_owned(), expected, gone_sender);
        world.registry.add(plugin.name().to_owned(), Arc::clone(&service));
        let written = Written::new(world.records.of(plugin.name()), plugin.clone());
        world.files.keep(plugin.name(), written.kept_with(&plugin));
        let ordered = world.orders.inbox(plugin.name());
        let checkpoints = Checkpoints::new(world.checkpoints.of(plugin.name()));
        let permit = plugin.trial().and_then(|_| Arc::clone(&world.slot).try_acquire_owned().ok());
        Self {
            world,
            plugin,
            written,
            service,
            bench: Arc::default(),
            told,
            ordered,
            open: Vec::new(),
            gone,
            own: mpsc::unbounded_channel(),
            permit,
            serving: None,
            doing: None,
            task: 0,
            checkpoints,
            on_disk: None,
        }
    }

    /// Goes on until the agent stops; then ends the workers in order. `begun` hears when the start is taken in.
    pub(super) async fn run(mut self, begun: oneshot::Sender<()>) {
        let started =
            Fact::Started { boot_id: self.world.boot_id.clone(), clean_stop: self.world.clean_stop };
        self.take(started).await;
        // Nobody waits for a plugin that is new.
        let _ = begun.send(());
        let stop = self.world.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(own) = self.own.1.recv() => self.take_own(own).await,
                Some(gone) = self.gone.recv() => self.take_gone(gone).await,
                // What can wait is not written while callers do.
                Some((offer, done)) = self.told.recv(), if !self.plugin.is_in_the_pause() => {
                    self.take(Fact::Told(offer)).await;
                    // The teller may have stopped waiting.
                    let _ = done.send(());
                }
                Some(asked) = self.ordered.recv(), if !self.plugin.is_in_the_pause() => {
                    self.take_order(asked).await;
                }
                () = reached(self.checkpoints.due()) => self.checkpoint(),
                () = wake(self.plugin.wakes_at()) => self.take(Fact::TimePassed).await,
                () = sleep(SAVE_AGAIN), if self.is_unsaved() => self.take(Fact::TimePassed).await,
            }
        }
        if timeout(FINISH_MAX, Box::pin(self.finish())).await.is_err() {
            tracing::error!(
                plugin = self.plugin.name(),
                "a switch did not come to its end in time, and is cut"
            );
        }
        self.end().await;
    }

    /// What has a state in its hands comes to its end first: cut, it would be lost.
    async fn finish(&mut self) {
        while self.plugin.is_between_releases() {
            tokio::select! {
                biased;
                Some(own) = self.own.1.recv() => self.take_own(own).await,
                Some(gone) = self.gone.recv() => self.take_gone(gone).await,
            }
        }
    }

    async fn take_own(&mut self, own: Own) {
        match own {
            Own::Fact(fact) => self.take(*fact).await,
            Own::Started(live, lost) => {
                let present = self.service.live().filter(|present| Arc::ptr_eq(present, &live));
                // Its end may have come first, and is told then.
                if !lost.is_empty() {
                    self.state_lost(&live, lost).await;
                }
                if present.is_some_and(|live| !live.instance.is_gone()) {
                    self.take(Fact::Ready(live.installed.release.id)).await;
                }
            }
            // It was asked for before an operator ordered the way back, which doesn't wait for it.
            Own::Slot(_) if self.plugin.is_on_local_way_back() => {}
            Own::Outcome(task, serial, outcome) => {
                // One that was given up meanwhile may have said its word already: it is not about the step that the
                // trial is in now.
                if self.doing.is_some() && task == self.task {
                    self.take(Fact::Trial { serial, outcome: *outcome }).await;
                }
            }
            Own::Checkpointed(outcome) => {
                self.checkpoints.ended(self.plugin.name(), outcome);
                // A switch may have waited for it.
                self.try_on();
            }
            Own::Slot(permit) => {
                self.permit = Some(permit);
                self.doing = None;
                self.take(Fact::SlotGranted).await;
            }
        }
    }

    async fn take_gone(&mut self, gone: WorkerGone) {
        let WorkerGone { release, problem, signs } = gone;
        if !signs.take_end() {
            return;
        }
        self.note_end(release, &problem);
        // It may go by another name meanwhile.
        let present = self.service.live().filter(|live| Arc::ptr_eq(&live.signs, &signs));
        let release = present.map_or(release, |live| live.installed.release.id);
        self.take(Fact::Died(release, problem)).await;
    }

    /// A worker ended unasked: whoever looks for the cause finds it in the plugin's own log.
    fn note_end(&self, release: ReleaseId, problem: &Problem) {
        let (tools, plugin) = (&self.world.tools, self.plugin.name());
        tools.metrics.restarted(plugin);
        tracing::warn!(plugin, %release, "{}", problem.message);
        tools.logs.note(plugin, release, problem.message.to_string());
    }

    /// Told loudly, and shown until another release is committed.
    async fn state_lost(&mut self, live: &Live, lost: String) {
        let (plugin, release) = (self.plugin.name(), &live.installed.release);
        tracing::error!(plugin, %release, code = "STATE_LOST", "lost: {lost}");
        self.world.tools.logs.note(plugin, release.id, format!("lost: {lost}"));
        self.take(Fact::StateLost(release.id, lost)).await;
    }

    fn checkpoint(&mut self) {
        let Some(of) = self.plugin.may_checkpoint() else { return self.checkpoints.plan(false, true) };
        let (tools, service) = (Arc::clone(&self.world.tools), Arc::clone(&self.service));
        let own = self.own.0.clone();
        self.checkpoints.begun(Running::spawn(async move {
            let taken = unless_it_panics(Box::pin(trial::checkpoint(&tools, &service, of))).await;
            let _ = own.send(Own::Checkpointed(taken.and_then(|taken| taken).map(drop)));
        }));
    }

    /// One turn of the loop.
    async fn take(&mut self, fact: Fact) {
        let serial = match &fact {
            Fact::Trial { outcome: Outcome::Failed(_) | Outcome::WentBack { .. }, .. } => None,
            Fact::Trial { serial, .. } => Some(*serial),
            Fact::Started { .. } | Fact::Told(_) | Fact::SlotGranted | Fact::TimePassed => None,
            Fact::Ready(_) | Fact::Died(..) | Fact::StartFailed(..) | Fact::FilesLost(..) => None,
            Fact::Held { .. } | Fact::OrderedBack { .. } | Fact::Released | Fact::StateLost(..) => None,
        };
        let moment = Moment::after(&fact);
        if let Some(moment) = moment {
            moment.pass();
        }
        let next = self.plugin.clone().step(Event { now: clock::now(), fact });
        // Between the closed gate and the moved pointer nothing is written, so nothing can fail for that.
        let serial = serial.filter(|_| next.must_be_saved(&self.plugin));
        match (self.save(&next).await, serial) {
            (Ok(()), _) => {
                if moment == Some(Moment::BeforeCommit) {
                    Moment::AfterCommit.pass();
                }
                self.become_(next).await;
            }
            (Err(problem), Some(serial)) => {
                // What is not on disk has not happened: the step failed.
                let fact = Fact::Trial { serial, outcome: Outcome::Failed(problem) };
                let failed = self.plugin.clone().step(Event { now: clock::now(), fact });
                // Tried again every second; the way back does not wait for it.
                let _ = self.save(&failed).await;
                self.become_(failed).await;
            }
            (Err(_), None) => self.become_(next).await,
        }
    }

    async fn become_(&mut self, next: Plugin) {
        narrate(&self.plugin, &next);
        let trial_ended = self.plugin.trial().is_some() && self.plugin.trial_serial() != next.trial_serial();
        self.plugin = next;
        self.world.tools.logs.learn(&self.plugin);
        self.world.files.keep(self.plugin.name(), self.written.kept_with(&self.plugin));
        if !self.is_unsaved() {
            Moment::BeforeReport.pass();
            self.tell();
        }
        self.serve().await;
        self.tidy_state().await;
        let (may, has_one) = (self.plugin.may_checkpoint().is_some(), self.has_state_on_disk());
        self.checkpoints.plan(may, has_one);
        if trial_ended {
            self.doing = None;
            Moment::BeforeOldEnds.pass();
            self.bench.clear(&self.service);
            if let Some(live) = self.service.live() {
                live.signs.set_on_trial(false);
            }
        }
        if self.permit.is_some() && self.plugin.trial().is_none() {
            self.doing = None;
            self.world.files.tidy().await;
            Moment::Tidied.pass();
            self.permit = None;
        }
        self.try_on();
        self.answer_orders();
    }

    fn has_state_on_disk(&self) -> bool {
        self.world.tools.keeper.view(self.plugin.name()).is_some()
    }

    /// Does with the state on disk what the record says, once that is written.
    async fn tidy_state(&mut self) {
        let on_disk = self.plugin.state_on_disk();
        if self.on_disk == Some(on_disk) || self.is_unsaved() {
            return;
        }
        let (keeper, plugin) = (&self.world.tools.keeper, self.plugin.name());
        let tidied = match on_disk {
            OnDisk::Kept => Ok(()),
            OnDisk::Gone => keeper.forget(plugin).await,
            OnDisk::Aside => {
                keeper.set_aside(plugin, "the release that followed has no state".to_owned()).await
            }
        };
        match tidied {
            Ok(()) => self.on_disk = Some(on_disk),
            // The next turn tries again.
            Err(error) => {
                tracing::warn!(plugin, code = error.code(), "an old state was not removed: {error}")
            }
        }
    }

    fn is_unsaved(&self) -> bool {
        self.written.lacks(&self.plugin)
    }

    /// What is reported is on disk.
    fn tell(&self) {
        let status = convert::status(self.plugin.status());
        self.world.tools.metrics.held(&status.plugin, status.local_override.is_some());
        self.world.tools.standing.send_if_modified(|standing| {
            let old = standing.plugins.insert(status.plugin.clone(), status.clone());
            old.as_ref() != Some(&status)
        });
    }

    async fn save(&mut self, next: &Plugin) -> Result<(), Problem> {
        let Err(error) = self.written.save(next).await else { return Ok(()) };
        tracing::error!(plugin = next.name(), code = error.code(), "the record could not be saved: {error}");
        if matches!(error, DurableError::Damaged { .. } | DurableError::NewerFormat { .. }) {
            // A full channel: the agent is ending for the same reason already.
            let _ = self.world.failures.try_send(explain::durable(&error));
        }
        Err(disk(&error))
    }

    /// Makes the gate what the state says.
    async fn serve(&mut self) {
        let serve = self.plugin.work().serve;
        if self.serving.as_ref().is_some_and(|(present, _)| *present == serve) {
            return;
        }
        if let Some((_, Some(start))) = self.serving.take() {
            // Whoever acts on the gate next finds its release in place, or ended.
            start.give_up().await;
        }
        let task = match &serve {
            Serve::Trial => None,
            Serve::Nothing => {
                if let Some(retired) = self.service.empty() {
                    trial::dismiss(&self.service, retired);
                }
                None
            }
            Serve::Run(id) => {
                self.run_on(*id);
                None
            }
            Serve::Start { release, at, down } => {
                if *down {
                    self.service.down(clock::instant(*at));
                }
                Some(self.start(release, *at))
            }
        };
        self.serving = Some((serve, task));
    }

    /// The release is in place already: after a start, a switch, or a way back. Its end is told by its watch.
    fn run_on(&self, id: ReleaseId) {
        let active = self.plugin.service().active();
        let fact = match (self.service.live(), active) {
            (Some(live), _) if live.installed.release.id == id => {
                if !live.instance.is_gone() {
                    return self.service.reopen();
                }
                self.ended_before(&live)
            }
            (Some(live), Some(active)) if live.installed.part == active.part => {
                return self.service.adopt(active);
            }
            _ => Fact::Died(id, Problem::new(Fault::Release, "WORKER_DIED", "no worker of it is in place")),
        };
        self.send(Own::Fact(Box::new(fact)));
    }

    /// A worker that ended between its taking the place and the word of that: it is started again, and its end counts
    /// once.
    fn ended_before(&self, live: &Live) -> Fact {
        let problem =
            |fault| Problem::new(fault, "WORKER_DIED", "its worker ended as soon as it was in place");
        let id = live.installed.release.id;
        if live.signs.take_end() {
            self.note_end(id, &problem(Fault::Release));
            Fact::Died(id, problem(Fault::Release))
        } else {
            Fact::StartFailed(id, problem(Fault::Host))
        }
    }

    fn start(&self, release: &Installed, at: Time) -> Starting {
        let (tools, service) = (Arc::clone(&self.world.tools), Arc::clone(&self.service));
        let (installed, own) = (release.clone(), self.own.0.clone());
        let previous = self.plugin.service().previous().map(|previous| previous.release.id);
        Starting::spawn(|given_up| async move {
            tokio::select! {
                () = given_up.cancelled() => return,
                () = clock::until(at) => {}
            }
            let start = Box::pin(trial::start(&tools, &service, &installed, &given_up));
            let Some(started) = unless_it_panics(start).await.unwrap_or_else(|bug| Some(Err(bug))) else {
                return;
            };
            let own_fact = match started {
                Ok((live, lost)) => Own::Started(live, lost),
                Err(problem) => {
                    let release = &installed.release;
                    tracing::error!(plugin = release.plugin, %release, code = problem.code,
                        "could not be started: {}", problem.message);
                    let lost = trial::files_are_lost(&tools, &problem, previous).await;
                    let fact = if lost { Fact::FilesLost } else { Fact::StartFailed };
                    Own::Fact(Box::new(fact(release.id, problem)))
                }
            };
            // Without a loop the agent is stopping.
            let _ = own.send(own_fact);
        })
    }

    /// Begins the trial's task, unless it is under way.
    fn try_on(&mut self) {
        let task = self.plugin.work().trial;
        // An operator's way back doesn't wait for the trial of another plugin.
        let slot = self.permit.is_none() && !self.plugin.is_on_local_way_back();
        let at = if let Task::Fetch { at, .. } = &task { Some(*at) } else { None };
        let doing =
            Doing { serial: self.plugin.trial_serial(), task: std::mem::discriminant(&task), at, slot };
        if self.doing.as_ref().is_some_and(|(present, _)| *present == doing) {
            return;
        }
        self.doing = None;
        let must_wait = matches!(task, Task::Pause(_)) && self.checkpoints.is_running();
        if must_wait || matches!(task, Task::Idle | Task::Wait) {
            return;
        }
        let running = match (slot, doing.serial) {
            (false, Some(serial)) => self.perform(serial, task),
            (_, _) => self.await_slot(),
        };
        self.doing = Some((doing, running));
    }

    fn await_slot(&self) -> Running {
        let (slot, own) = (Arc::clone(&self.world.slot), self.own.0.clone());
        Running::spawn(async move {
            if let Ok(permit) = slot.acquire_owned().await {
                // Without a loop the permit falls back.
                let _ = own.send(Own::Slot(permit));
            }
        })
    }

    fn perform(&mut self, serial: u64, task: Task) -> Running {
        self.task += 1;
        let number = self.task;
        let (tools, service, bench) =
            (Arc::clone(&self.world.tools), Arc::clone(&self.service), Arc::clone(&self.bench));
        let own = self.own.0.clone();
        Running::spawn(async move {
            if let Some(moment) = Moment::of(&task) {
                moment.begin().await;
            }
            let work = Box::pin(trial::perform(&tools, &service, &bench, task));
            let outcome = outcome_of(work).await;
            let _ = own.send(Own::Outcome(number, serial, Box::new(outcome)));
        })
    }

    fn send(&self, own: Own) {
        // The receiver lives as long as this loop.
        let _ = self.own.0.send(own);
    }

    /// The record stays as it is: whatever was under way is an interruption.
    async fn end(mut self) {
        self.doing = None;
        if let Some((_, Some(start))) = self.serving.take() {
            start.give_up().await;
        }
        drop(self.checkpoints);
        let retired = self.service.stop();
        self.bench.clear(&self.service);
        let (tools, plugin) = (&self.world.tools, self.plugin.name());
        if let Some(retired) = retired {
            let carry = self.plugin.keeps(&retired.installed);
            trial::end(tools, retired, carry).await;
        }
        if let Err(error) = tools.keeper.pass_on(plugin).await {
            tracing::error!(
                plugin,
                code = error.code(),
                "what is saved counts as a checkpoint only: {error}"
            );
        }
    }
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn wake(at: Option<Time>) {
    match at {
        Some(at) => clock::until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
