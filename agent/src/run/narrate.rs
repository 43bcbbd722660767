//! The agent always says what it does, and why: one line per change, with plugin, release and rollout.

use fleetswap_update::{Failure, LocalOverride, OverrideKind, Plugin, ServiceStatus, Stage, Status};

/// Tells what changed from one state to the next.
pub(super) fn narrate(before: &Plugin, after: &Plugin) {
    let (old, new) = (before.status(), after.status());
    if old.trial != new.trial {
        tell_trial(&old, &new);
    }
    for denied in new.denied.iter().filter(|denied| !old.denied.contains(denied)) {
        let (plugin, release) = (&new.plugin, &denied.release);
        tracing::warn!(plugin, %release, code = denied.code, "denied on this host from now on: {}", denied.reason);
    }
    if old.local_override != new.local_override {
        tell_override(&new);
    }
    if (old.service, &old.active) != (new.service, &new.active) {
        tell_service(&new);
    }
}

fn tell_override(new: &Status) {
    let plugin = &new.plugin;
    let Some(LocalOverride { kind, order }) = &new.local_override else {
        return tracing::warn!(plugin, "released: the controller decides again");
    };
    let (by, reason) = (&order.by, &order.reason);
    match kind {
        OverrideKind::Hold => tracing::warn!(plugin, by, reason, "held by an operator on this host"),
        OverrideKind::RollingBack { from, to, .. } => {
            tracing::warn!(plugin, by, reason, %from, %to, "goes back by order of an operator on this host")
        }
        OverrideKind::RolledBack { from, to } => {
            tracing::warn!(plugin, by, reason, %from, %to, "is back, and held there")
        }
    }
}

fn tell_trial(old: &Status, new: &Status) {
    let Some(trial) = &new.trial else { return };
    let plugin = &new.plugin;
    let release = trial.candidate.as_ref().map(ToString::to_string).unwrap_or_default();
    let rollout = &trial.rollout;
    if let Some(failure) = &trial.failure {
        return tell_failure((plugin, &release, rollout), failure, trial.stage);
    }
    let seen = old.trial.as_ref().is_some_and(|old| old.stage == trial.stage && old.rollout == trial.rollout);
    if !seen {
        tracing::info!(plugin, release, rollout, "{}", doing(trial.stage));
    }
    if trial.stage == Stage::Committed && !trial.lost.is_empty() {
        tracing::warn!(plugin, release, rollout, "state was lost: {}", trial.lost);
    }
}

fn tell_failure((plugin, release, rollout): (&str, &str, &str), failure: &Failure, stage: Stage) {
    let problem = &failure.problem;
    tracing::warn!(
        plugin,
        release,
        rollout,
        code = problem.code,
        fault = ?problem.fault,
        failed = ?failure.stage,
        check = problem.check,
        "{}: {}; {}",
        doing(stage),
        problem.message,
        failure.next
    );
}

fn tell_service(new: &Status) {
    let plugin = &new.plugin;
    // On a first trial nothing is committed yet; the trial's own lines tell of it.
    if new.active.is_none() && new.service == ServiceStatus::Serving {
        return;
    }
    let release = new.active.as_ref().map(ToString::to_string).unwrap_or_default();
    match new.service {
        ServiceStatus::Empty => tracing::info!(plugin, "nothing runs"),
        ServiceStatus::Serving => tracing::info!(plugin, release, "answers callers"),
        ServiceStatus::Restarting => tracing::warn!(plugin, release, "is started; callers wait"),
        ServiceStatus::Down => {
            tracing::error!(plugin, release, "died too often and is down; callers are refused")
        }
    }
}

const fn doing(stage: Stage) -> &'static str {
    match stage {
        Stage::Offered => "offered; waits for the host's trial slot",
        Stage::Fetching => "fetches metadata, manifest and blobs",
        Stage::Verifying => "verifies signature, hash and form",
        Stage::Loading => "loads it into a throw-away worker",
        Stage::Probing => "probes it there",
        Stage::Switching => "switches to a fresh instance of it",
        Stage::Probation => "it answers callers, on probation",
        Stage::Committed => "committed",
        Stage::RollingBack => "rolls back",
        Stage::RolledBack => "rolled back",
        Stage::Rejected => "rejected",
    }
}
