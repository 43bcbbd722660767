//! The way back: the old release takes its place again, with the state where that can be had.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fleetswap_update::{BUSY_WAIT_MS, Carry, Swap};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Tools,
    bench::{Bench, Replaced},
    state,
    swap::{pressed, wake},
};
use crate::service::{Live, Service};

/// Longest wait for the candidate's calls before its worker is ended with them.
const QUIESCE_MAX: Duration = Duration::from_secs(1);
/// So long a planned way back waits for a moment in which it costs no call: three times as long as a call may last.
const MOMENT_MAX: Duration = Duration::from_secs(180);
/// Longest wait between two looks for one.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(4);

/// What is lost where the next start has to take what is on disk.
const AFTER_THE_LAST: &str = "what came after the last saved state";

/// How the way back went.
pub(super) struct Back {
    /// Whether a worker of the old release answers.
    pub(super) answers: bool,
    /// What of the state was lost, in words.
    pub(super) lost: String,
}

/// Gives the old release its place again. If it is `planned`, a moment is awaited in which it costs no call.
pub(super) async fn go_back(
    tools: &Tools,
    service: &Arc<Service>,
    bench: &Bench,
    (swap, planned): (&Swap, bool),
) -> Back {
    let moved = service.live().filter(|live| is(live, swap.from.as_ref()));
    let Some(candidate) = moved else { return pointer_never_moved(tools, service, bench).await };
    let warm = bench.lock().warm.take();
    let Some(warm) = warm.filter(|warm| swap.to.is_some() && !warm.live.instance.is_gone()) else {
        return Box::pin(nothing_to_go_back_to(tools, service, swap)).await;
    };
    if swap.excludes {
        let newest = Box::pin(rest(service, &candidate, &swap.carry, planned)).await;
        return Box::pin(exchange(tools, service, bench, (candidate, warm, newest))).await;
    }
    if let Some(retired) = service.place(warm.live) {
        Replaced::of(retired).dismiss(service);
    }
    Back { answers: true, lost: String::new() }
}

fn is(live: &Live, installed: Option<&fleetswap_update::Installed>) -> bool {
    installed.is_some_and(|installed| installed.release.id == live.installed.release.id)
}

/// The old instance still has its state: it only has to wake.
async fn pointer_never_moved(tools: &Tools, service: &Service, bench: &Bench) -> Back {
    let (fresh, saved) = {
        let mut on = bench.lock();
        (on.fresh.take(), on.saved.take())
    };
    if let Some(fresh) = fresh {
        // It may be active; the old one may not be before it has ended.
        fresh.kill().await;
    }
    let Some(old) = service.live() else { return Back { answers: false, lost: String::new() } };
    let answers = wake(&old).await;
    if answers {
        service.reopen();
        return Back { answers, lost: String::new() };
    }
    let lost = match saved {
        // The next instance goes on from what this one had saved.
        Some(saved) => {
            let kept = state::keep_for_next(tools, &old.installed.release, saved).await;
            kept.err().map_or_else(String::new, |why| format!("{AFTER_THE_LAST}: {why}"))
        }
        None if old.installed.state.has_state() => {
            format!("{AFTER_THE_LAST}: the old release did not wake")
        }
        None => String::new(),
    };
    Back { answers, lost }
}

/// A first install is undone, or the old worker is gone: the core starts the old release, if there is one.
async fn nothing_to_go_back_to(tools: &Tools, service: &Service, swap: &Swap) -> Back {
    let mut left = Ok(None);
    if swap.to.is_none() {
        if let Some(retired) = service.empty() {
            Replaced::of(retired).dismiss(service);
        }
    } else if let Some(candidate) = service.vacate() {
        // Whether they end or not: the old release must not start beside it.
        let drained = timeout(QUIESCE_MAX, service.gate().drained()).await.is_ok();
        left = if drained {
            saved_by(&candidate, &swap.carry).await
        } else {
            Err("calls never ended".to_owned())
        };
        candidate.kill().await;
        // What it has served is not lost with the old worker.
        if let Ok(Some(state)) = &left {
            let release = &candidate.installed.release;
            left = state::keep_for_next(tools, release, state.clone()).await.map(|()| None);
        }
    }
    let stateful = swap.to.as_ref().is_some_and(|to| to.state.has_state());
    let lost = match left {
        Err(why) if stateful => format!("{AFTER_THE_LAST}: the old worker had ended; {why}"),
        Ok(_) | Err(_) => String::new(),
    };
    Back { answers: false, lost }
}

/// Holds callers back; says whether the calls in flight ended before that would cost one.
async fn come_to_rest(service: &Service) -> bool {
    service.hold();
    tokio::select! {
        drained = timeout(QUIESCE_MAX, service.gate().drained()) => drained.is_ok(),
        _ = pressed(service.gate()) => false,
    }
}

/// What the candidate leaves: its state, or why there is none.
type Left = Result<Option<(u32, Bytes)>, String>;

/// Brings the candidate to rest and takes its state. If it is `planned`, a moment is awaited in which that costs no
/// call, the candidate answering meanwhile; at last it is done anyhow.
async fn rest(service: &Service, candidate: &Live, carry: &Carry, planned: bool) -> Left {
    let until = Instant::now() + MOMENT_MAX;
    let mut wait = Duration::from_millis(BUSY_WAIT_MS);
    while planned && Instant::now() < until {
        if come_to_rest(service).await {
            tokio::select! {
                left = saved_by(candidate, carry) => return left,
                _ = pressed(service.gate()) => {}
            }
            if !wake(candidate).await {
                return Err("it could not be made active again".to_owned());
            }
        }
        service.reopen();
        sleep(wait).await;
        wait = LOOK_AGAIN_MAX.min(wait * 2);
    }
    if come_to_rest(service).await {
        saved_by(candidate, carry).await
    } else {
        Err("calls never ended".to_owned())
    }
}

/// One of the two has state or background work: the candidate comes to rest before the old release wakes.
async fn exchange(
    tools: &Tools,
    service: &Arc<Service>,
    bench: &Bench,
    (candidate, warm, newest): (Arc<Live>, Replaced, Left),
) -> Back {
    candidate.kill().await;
    let (state, mut lost) = match newest {
        Ok(state) => (state, String::new()),
        Err(why) if candidate.installed.state.has_state() => {
            (None, format!("changes since the switch: {why}"))
        }
        Err(_) => (None, String::new()),
    };
    let old = warm.live;
    let answers = match state.clone() {
        Some((version, bytes)) => wake_with(&old, version, bytes).await,
        None => wake(&old).await,
    };
    let release = &candidate.installed.release;
    if answers {
        drop(service.place(old));
        if let Some(state) = state {
            state::keep_aside_of_callers(tools, release, state);
        }
    } else {
        // The core starts a new worker; the state that the old one had went with it.
        drop(service.vacate());
        lost = match state {
            Some(state) => {
                let kept = state::keep_for_next(tools, release, state).await;
                kept.err().map_or_else(String::new, |why| format!("{AFTER_THE_LAST}: {why}"))
            }
            None if old.installed.state.has_state() => {
                format!("{AFTER_THE_LAST}: the old release did not wake")
            }
            None => lost,
        };
    }
    bench.lock().saved = None;
    Back { answers, lost }
}

/// The candidate's state, in a version that the old release reads.
async fn saved_by(candidate: &Live, carry: &Carry) -> Left {
    let worker = &candidate.instance;
    worker.deactivate().await.map_err(|error| error.to_string())?;
    match carry {
        Carry::Nothing => Ok(None),
        Carry::Lost(words) => Err(words.clone()),
        Carry::Version(version) => {
            let state = worker.save_state(*version).await.map_err(|error| error.to_string())?;
            Ok(Some((*version, state)))
        }
    }
}

/// A state can only be handed to a new instance: the old one goes, its worker stays.
async fn wake_with(old: &Live, version: u32, state: Bytes) -> bool {
    let worker = &old.instance;
    let woken = async {
        worker.destroy().await?;
        worker.create(old.package.config.clone()).await?;
        worker.restore_state(version, state).await?;
        worker.activate().await
    };
    match woken.await {
        Ok(()) => true,
        Err(error) => {
            let release = &old.installed.release;
            tracing::error!(plugin = release.plugin, %release, %error, "the state could not go back");
            old.kill().await;
            false
        }
    }
}
