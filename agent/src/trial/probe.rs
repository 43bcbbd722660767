//! Probing a release: its health, and calls whose answers are known.

use std::time::Duration;

use bytes::Bytes;
use fleetswap_host::CallError;
use fleetswap_trust::manifest::{HealthRule, Probe};
use fleetswap_update::{Fault, Installed, Problem, Proof, Time};
use tokio::time::{Instant, sleep};

use super::{Tools, bench::Bench, load, problem};
use crate::{
    clock,
    service::{Instance, Package, Service},
};

/// Times that a functional probe is tried.
const PROBE_TRIES: u32 = 3;
/// Longest wait for the answer of a functional probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for the wanted count of green health checks in a row, unless they take longer by themselves.
const HEALTHY_WITHIN: Duration = Duration::from_secs(20);
/// Health checks in a row without an answer, after which there will be none.
const UNANSWERED_MAX: u32 = 3;

/// Probes the candidate in its throw-away worker, which is gone afterwards.
pub(super) async fn probe(tools: &Tools, bench: &Bench, installed: &Installed) -> Result<(), Problem> {
    let package = load::package(tools, bench, installed).await?;
    let waiting = bench.lock().throwaway.take();
    let worker = match waiting {
        Some(worker) => worker,
        None => load::launch(tools, &package).await?,
    };
    load::create(&*worker, &package).await?;
    becomes_healthy(&*worker, package.manifest.health).await?;
    run_probes(&*worker, &package).await?;
    worker.close().await;
    Ok(())
}

/// Waits for the wanted count of green checks in a row, within a bound.
async fn becomes_healthy(worker: &dyn Instance, rule: HealthRule) -> Result<(), Problem> {
    let (interval, patience) =
        (Duration::from_millis(rule.interval_ms), Duration::from_millis(rule.timeout_ms));
    let until = Instant::now() + HEALTHY_WITHIN.max((interval + patience) * rule.green);
    let (mut green, mut unanswered, mut checks) = (0, 0, 0);
    loop {
        checks += 1;
        let got = match worker.health(patience).await {
            Ok(_) => {
                (green, unanswered) = (green + 1, 0);
                String::new()
            }
            Err(error @ CallError::Died { .. }) => {
                return Err(problem::asking(Fault::Release, "HEALTH_FAILED", "health", (&error, worker)));
            }
            Err(error) => {
                unanswered = if error == CallError::Deadline { unanswered + 1 } else { 0 };
                green = 0;
                error.to_string()
            }
        };
        if green >= rule.green {
            return Ok(());
        }
        if unanswered >= UNANSWERED_MAX || Instant::now() + interval > until {
            return Err(never_green(worker, rule, (got, checks)));
        }
        sleep(interval).await;
    }
}

fn never_green(worker: &dyn Instance, rule: HealthRule, (got, tries): (String, u32)) -> Problem {
    let wanted = format!("{} green in a row", rule.green);
    let words = format!("its health was never {wanted}; the last check: {got}");
    let problem = Problem::new(Fault::Release, "HEALTH_FAILED", words);
    Problem {
        check: "health".into(),
        got: got.into(),
        wanted: wanted.into(),
        tries,
        log_tail: worker.log_tail().into(),
        ..problem
    }
}

/// Runs every functional probe.
async fn run_probes(worker: &dyn Instance, package: &Package) -> Result<(), Problem> {
    for probe in &package.manifest.probes {
        run_probe(worker, probe).await?;
    }
    Ok(())
}

async fn run_probe(worker: &dyn Instance, probe: &Probe) -> Result<(), Problem> {
    let input = Bytes::from(probe.input.to_string());
    let mut tries = 1;
    loop {
        let answer = worker.call(&probe.function, input.clone(), PROBE_TIMEOUT).await;
        match judge(worker, probe, answer) {
            Ok(()) => return Ok(()),
            Err(problem) if tries == PROBE_TRIES => return Err(Problem { tries, ..problem }),
            Err(_) => tries += 1,
        }
    }
}

fn judge(worker: &dyn Instance, probe: &Probe, answer: Result<Bytes, CallError>) -> Result<(), Problem> {
    let failed = |got: String, wanted: String| {
        let words = format!("probe `{}` got {got}, wanted {wanted}", probe.function);
        let problem = Problem::new(Fault::Release, "PROBE_FAILED", words);
        Problem {
            check: probe.to_string().into(),
            got: got.into(),
            wanted: wanted.into(),
            log_tail: worker.log_tail().into(),
            ..problem
        }
    };
    let wanted = || probe.expected.to_string();
    let bytes = match answer {
        Ok(bytes) => bytes,
        Err(error @ CallError::Died { .. }) => {
            return Err(problem::asking(
                Fault::Release,
                "PROBE_FAILED",
                &probe.to_string(),
                (&error, worker),
            ));
        }
        Err(error) => return Err(failed(error.to_string(), wanted())),
    };
    let value =
        serde_json::from_slice(&bytes).map_err(|error| failed(format!("no JSON ({error})"), wanted()))?;
    probe.matches(&value).map_err(|mismatch| {
        let at = |text: String| format!("{}: {text}", mismatch.path);
        failed(at(mismatch.got_text()), at(mismatch.wanted_text()))
    })
}

/// Watches over the release in place until its probation is over. The first bad sign ends it.
pub(super) async fn watch(service: &Service, installed: &Installed, until: Time) -> Result<Proof, Problem> {
    let gone = || Problem::new(Fault::Release, "WORKER_DIED", "its worker ended before it was watched");
    let live =
        service.live().filter(|live| live.installed.release.id == installed.release.id).ok_or_else(gone)?;
    let last_look = async {
        clock::until(until).await;
        let health =
            live.instance.health(Duration::from_millis(live.package.manifest.health.timeout_ms)).await;
        health
            .map_err(|e| problem::asking(Fault::Release, "HEALTH_FAILED", "health", (&e, &*live.instance)))?;
        run_probes(&*live.instance, &live.package).await
    };
    tokio::select! {
        problem = live.signs.bad() => return Err(problem),
        looked = last_look => looked?,
    }
    Ok(match live.package.manifest.probes.is_empty() {
        _ if live.signs.answered() > 0 => Proof::Calls,
        true => Proof::Health,
        false => Proof::Probes,
    })
}
