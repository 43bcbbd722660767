//! An eye on the worker in place: its end, and its health.

use std::{sync::Arc, time::Duration};

use fleetswap_host::{CallError, Death};
use fleetswap_trust::manifest::HealthRule;
use fleetswap_update::{Fault, Problem, ReleaseId};
use tokio::{
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

use super::{Live, Service, live::Signs};

/// Failed checks in a row after which a worker is ended and started again. Not one on trial: the trial takes it back in
/// order, so that its calls are answered.
const RED_MAX: u32 = 3;

/// A worker that ended while it was in place.
#[derive(Clone, Debug)]
pub(crate) struct WorkerGone {
    /// The release.
    pub(crate) release: ReleaseId,
    /// How it ended.
    pub(crate) problem: Problem,
    /// The signs that its worker gave.
    pub(crate) signs: Arc<Signs>,
}

/// Watches until the worker ends or another one takes its place.
pub(super) fn spawn(service: Arc<Service>, live: Arc<Live>) -> AbortHandle {
    let task = tokio::spawn(async move {
        let problem = tokio::select! {
            death = live.instance.ended() => died(&death),
            problem = sick(&service, &live) => {
                live.instance.kill();
                // The next worker must not start beside it.
                live.instance.ended().await;
                problem
            }
        };
        // The worker may be gone before its callers have seen it.
        service.worker_gone(&live);
        live.signs.note_bad(problem.clone());
        let (release, signs) = (live.installed.release.id, Arc::clone(&live.signs));
        let gone = WorkerGone { release, problem, signs };
        // Without a listener the agent is stopping.
        let _ = service.gone.send(gone);
    });
    task.abort_handle()
}

/// Asks for health for ever; returns when it stays bad. A release at rest, whose callers wait for a swap, is not asked.
async fn sick(service: &Service, live: &Live) -> Problem {
    let HealthRule { interval_ms, timeout_ms, green: _ } = live.package.manifest.health;
    let mut ticks = interval(Duration::from_millis(interval_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut red = 0_u32;
    loop {
        ticks.tick().await;
        if service.is_held() {
            continue;
        }
        match live.instance.health(Duration::from_millis(timeout_ms)).await {
            Ok(_) => red = 0,
            // Its end is told by the worker itself.
            Err(CallError::Died { .. }) => std::future::pending().await,
            // It was brought to rest meanwhile.
            Err(CallError::Illegal) if service.is_held() => {}
            Err(error) => {
                red = red.saturating_add(1);
                let problem = unhealthy(live, &error.to_string(), red);
                live.signs.note_bad(problem.clone());
                if red >= RED_MAX && !live.signs.is_on_trial() {
                    return problem;
                }
            }
        }
    }
}

/// A check that failed.
pub(crate) fn unhealthy(live: &Live, got: &str, tries: u32) -> Problem {
    let problem = Problem::new(Fault::Release, "HEALTH_FAILED", format!("its health check failed: {got}"));
    let log_tail = live.instance.log_tail();
    Problem {
        check: "health".into(),
        got: got.into(),
        wanted: "green".into(),
        tries,
        log_tail: log_tail.into(),
        ..problem
    }
}

/// A worker's end as a problem: whoever ended it, the release is what ran.
pub(crate) fn died(death: &Death) -> Problem {
    let problem = Problem::new(Fault::Release, death.code(), death.to_string());
    Problem { check: "the worker runs".into(), log_tail: death.log_tail.as_str().into(), ..problem }
}
