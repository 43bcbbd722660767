//! The switch: a fresh instance takes the old one's place, with its state, and no call is lost for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fleetswap_host::{CallError, Gate};
use fleetswap_update::{Carry, Fault, Installed, Problem, Swap};
use tokio::time::{Instant, sleep};

use super::{
    Tools,
    bench::{Bench, Replaced},
    load, problem, state,
};
use crate::service::{Instance, Live, Service};

/// Longest wait for calls in flight before a switch that excludes is given up.
const QUIESCE_MAX: Duration = Duration::from_secs(1);
/// Share of the queue, in percent, at which a switch is given up: calls go on coming while the old release wakes.
const QUEUE_SHARE_MAX: usize = 50;
/// How often the queue is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Makes the fresh instance, while the old release answers as before. What an earlier trial or a removal left to its
/// last calls has ended by then, if the two must not be active at once.
pub(super) async fn prepare(
    tools: &Tools,
    service: &Service,
    bench: &Bench,
    installed: &Installed,
) -> Result<(), Problem> {
    service.cleared_for(installed).await;
    let package = load::package(tools, bench, installed).await?;
    let fresh = load::fresh(tools, package, installed.clone()).await?;
    bench.lock().fresh = Some(fresh);
    Ok(())
}

/// If the two exclude each other, brings the old release to rest and takes its state. Says what of the state is
/// lost. When it fails, the old release goes on with the state that it had.
pub(super) async fn pause(
    tools: &Tools,
    service: &Service,
    bench: &Bench,
    swap: &Swap,
) -> Result<String, Problem> {
    let old = in_place(service, swap.from.as_ref());
    let rested = match (&old, swap.excludes) {
        (Some(old), true) => Box::pin(rest(service, old, &swap.carry)).await,
        (Some(_), false) => Ok(Rest::default()),
        (None, _) => Box::pin(without_old(tools, swap)).await,
    };
    let mut on = bench.lock();
    if rested.is_err() {
        // The next try makes its own, so that none lies idle until then.
        on.fresh = None;
    }
    let Rest { held_since, saved, lost } = rested?;
    on.saved = saved;
    on.held_since = held_since;
    Ok(lost)
}

/// An old release at rest.
#[derive(Default)]
struct Rest {
    held_since: Option<Instant>,
    saved: Option<(u32, Bytes)>,
    lost: String,
}

/// The release in place, if it is the one that is to leave and its worker lives.
fn in_place(service: &Service, from: Option<&Installed>) -> Option<Arc<Live>> {
    let live = service.live().filter(|live| !live.instance.is_gone())?;
    from.filter(|from| from.release.id == live.installed.release.id).map(|_| live)
}

/// No worker can hand the state over: what is on disk counts. A first install that the agent's end cut has some as well.
async fn without_old(tools: &Tools, swap: &Swap) -> Result<Rest, Problem> {
    let Some(to) = &swap.to else { return Ok(Rest::default()) };
    let from = swap.from.as_ref().filter(|from| from.state.has_state());
    let state::FromDisk { state, lost, .. } = state::from_disk(tools, to, from.is_some()).await?;
    let lost = match from {
        Some(from) if state.is_none() => format!("{} had no worker that could save its state", from.release),
        Some(_) | None => lost,
    };
    Ok(Rest { held_since: None, saved: state, lost })
}

/// Holds callers back until the calls in flight have ended and the work is done, or until that would cost a call. They
/// are still held back afterwards.
pub(super) async fn while_held<T>(
    service: &Service,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    service.hold();
    let at_rest = async {
        let drained = tokio::time::timeout(QUIESCE_MAX, service.gate().drained()).await;
        drained.map_err(|_| busy(format!("calls were in flight for {} ms", QUIESCE_MAX.as_millis())))?;
        work.await
    };
    tokio::select! {
        done = at_rest => done,
        problem = pressed(service.gate()) => Err(problem),
    }
}

async fn rest(service: &Service, old: &Arc<Live>, carry: &Carry) -> Result<Rest, Problem> {
    let held_since = Instant::now();
    let rested = while_held(service, save(&*old.instance, carry)).await;
    match rested {
        Ok(saved) => {
            let lost = if let Carry::Lost(words) = carry { words.clone() } else { String::new() };
            Ok(Rest { held_since: Some(held_since), saved, lost })
        }
        Err(problem) => {
            if wake(old).await {
                service.reopen();
            }
            Err(problem)
        }
    }
}

/// Faults of the old release are not the candidate's.
async fn save(old: &dyn Instance, carry: &Carry) -> Result<Option<(u32, Bytes)>, Problem> {
    let failed =
        |code, check| move |error: CallError| problem::asking(Fault::Host, code, check, (&error, old));
    old.deactivate().await.map_err(failed("DEACTIVATE_FAILED", "deactivate of the old release"))?;
    match carry {
        Carry::Version(version) => {
            let state = old.save_state(*version).await;
            Ok(Some((*version, state.map_err(failed("SAVE_STATE_FAILED", "save_state of the old release"))?)))
        }
        Carry::Nothing | Carry::Lost(_) => Ok(None),
    }
}

/// Makes an instance active that may be so already. One that can't be is ended: it has the calls of nobody, and its
/// next worker must not start beside it.
pub(super) async fn wake(old: &Live) -> bool {
    match old.instance.activate().await {
        Ok(()) | Err(CallError::Illegal) => true,
        Err(error) => {
            let release = &old.installed.release;
            tracing::error!(plugin = release.plugin, %release, %error, "it could not be made active again");
            old.kill().await;
            false
        }
    }
}

/// Waits until going on would cost a waiting call.
pub(super) async fn pressed(gate: &Gate<Arc<Live>>) -> Problem {
    loop {
        let pressure = gate.queue_pressure();
        if pressure.is_above(QUEUE_SHARE_MAX) {
            return busy(format!("{} calls were waiting", pressure.calls));
        }
        if pressure.earliest_due.is_some_and(|due| due < Instant::now()) {
            return busy("the deadline of a waiting call came near".to_owned());
        }
        sleep(LOOK_EVERY).await;
    }
}

fn busy(why: String) -> Problem {
    let words = format!("the switch was given up because it would have cost a call: {why}");
    let problem = Problem::new(Fault::Host, "SWAP_BUSY", words);
    Problem { check: "no call is lost".into(), got: why.into(), ..problem }
}

/// Hands the saved state to the fresh instance.
pub(super) async fn restore(service: &Service, bench: &Bench) -> Result<(), Problem> {
    let fresh = fresh(bench)?;
    let saved = bench.lock().saved.clone();
    let Some((version, state)) = saved else { return Ok(()) };
    let worker = &*fresh.instance;
    let restored = async {
        let restored = worker.restore_state(version, state).await;
        restored.map_err(|e| {
            problem::asking(Fault::Release, "RESTORE_STATE_FAILED", "restore_state", (&e, worker))
        })
    };
    unless_pressed(service, restored).await
}

/// Makes the fresh instance active.
pub(super) async fn activate(service: &Service, bench: &Bench) -> Result<(), Problem> {
    let fresh = fresh(bench)?;
    unless_pressed(service, load::activate(&*fresh.instance)).await
}

async fn unless_pressed(
    service: &Service,
    work: impl Future<Output = Result<(), Problem>>,
) -> Result<(), Problem> {
    tokio::select! {
        done = work => done,
        problem = pressed(service.gate()) => Err(problem),
    }
}

fn fresh(bench: &Bench) -> Result<Arc<Live>, Problem> {
    bench.lock().fresh.clone().ok_or_else(|| {
        Problem::new(
            Fault::Host,
            "WORKER_START_FAILED",
            "the fresh instance of the switch is no longer there",
        )
    })
}

/// Callers are answered by the fresh instance from here on. The pause in microseconds.
pub(super) fn move_pointer(
    tools: &Tools,
    service: &Arc<Service>,
    bench: &Bench,
    swap: &Swap,
) -> Result<u64, Problem> {
    let fresh = fresh(bench)?;
    let plugin = fresh.installed.release.plugin.clone();
    tools.keeper.touch(&plugin);
    fresh.signs.set_on_trial(true);
    let old = service.place(fresh);
    let mut on = bench.lock();
    on.fresh = None;
    on.warm = old.map(Replaced::of);
    let pause = on.held_since.take().map_or(Duration::ZERO, |since| since.elapsed());
    tools.metrics.swapped(&plugin);
    // Callers are let in: what the old release handed over serves as a checkpoint.
    if let (Some(saved), Some(from)) = (on.saved.take(), &swap.from) {
        state::keep_aside_of_callers(tools, &from.release, saved);
    }
    Ok(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX))
}
