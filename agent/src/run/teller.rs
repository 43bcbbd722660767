//! Hears what the controller wants, and tells each plugin its part.

use std::time::Duration;

use fleetswap_proto::v1;
use fleetswap_update::Generation;
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use super::{host::HostRecord, lives::Lives};
use crate::{convert, durable::DurableError};

/// Wait before a generation that could not be kept is tried again.
const KEEP_AGAIN: Duration = Duration::from_secs(1);
/// An epoch further ahead than this is a mistake: it would shut out every right one for ever.
const EPOCH_JUMP_MAX: u64 = 1 << 16;
/// The same for a generation within an epoch.
const GENERATION_JUMP_MAX: u64 = 1 << 32;

/// Tells until the agent stops; returns when every loop has ended.
pub(super) async fn run(
    mut lives: Lives,
    mut desired: watch::Receiver<Option<v1::DesiredState>>,
    mut host: HostRecord,
) {
    let stop = lives.world().stop.clone();
    let mut highest = host.highest().max(lives.highest());
    let mut is_kept = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            changed = desired.changed() => if changed.is_err() {
                stop.cancelled().await;
                break;
            },
            () = sleep(KEEP_AGAIN), if !is_kept => {}
        }
        is_kept = true;
        let state = desired.borrow_and_update().clone();
        let Some(told) = state.and_then(|state| understood(state, highest)) else { continue };
        if told.generation > highest
            && let Err(error) = keep_highest(&mut host, told.generation).await
        {
            // Not kept, so not accepted yet. The controller thinks that it has told it.
            is_kept = false;
            tracing::error!(code = error.code(), "what the controller told could not be kept: {error}");
            continue;
        }
        highest = told.generation;
        for (plugin, offer) in told.offers {
            tokio::select! {
                () = stop.cancelled() => break,
                () = lives.tell(&plugin, offer) => {}
            }
        }
        // Only now, so that a report of this generation is never about what was before it.
        tell_highest(&lives, highest);
    }
    lives.ended().await;
}

/// Away from the threads that serve callers.
async fn keep_highest(host: &mut HostRecord, highest: Generation) -> Result<(), DurableError> {
    let mut kept = host.clone();
    let saved = spawn_blocking(move || kept.set_highest(highest).map(|()| kept)).await;
    *host = saved.unwrap_or_else(|cut| Err(DurableError::cut_short(cut)))?;
    Ok(())
}

/// Reports are about this generation from here on.
pub(super) fn tell_highest(lives: &Lives, highest: Generation) {
    let highest = convert::generation(highest);
    lives.world().tools.standing.send_if_modified(|standing| {
        let changed = standing.highest != highest;
        standing.highest = highest;
        changed
    });
}

/// What is to be followed: a lower generation and an absurd one never are.
fn understood(state: v1::DesiredState, highest: Generation) -> Option<convert::Desired> {
    let told = match convert::desired(state) {
        Ok(told) => told,
        Err(error) => {
            tracing::error!(code = "DESIRED_STATE_INVALID", "the controller's word is not followed: {error}");
            return None;
        }
    };
    let Generation { epoch, n } = told.generation;
    if told.generation < highest {
        tracing::warn!(code = "GENERATION_LOWER", generation = %told.generation, %highest,
            "the controller's word is older than what this host was told, and is not followed");
        return None;
    }
    let base = if epoch == highest.epoch { highest.n } else { 0 };
    if epoch - highest.epoch > EPOCH_JUMP_MAX || n.saturating_sub(base) > GENERATION_JUMP_MAX {
        tracing::error!(code = "GENERATION_ABSURD", generation = %told.generation, %highest,
            "the controller's generation lies absurdly far ahead, and is not followed");
        return None;
    }
    Some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(epoch: u64, n: u64) -> v1::DesiredState {
        let generation = Some(v1::Generation { epoch, n });
        v1::DesiredState { generation, ..v1::DesiredState::default() }
    }

    #[test]
    fn only_a_generation_that_follows_is_followed() {
        let highest = Generation { epoch: 2, n: 10 };
        assert!(understood(told(2, 10), highest).is_some(), "the same again is harmless");
        assert!(understood(told(2, 11), highest).is_some());
        assert!(understood(told(3, 1), highest).is_some());
        assert!(understood(told(2, 9), highest).is_none());
        assert!(understood(told(1, 99), highest).is_none());
    }

    #[test]
    fn an_absurd_jump_is_refused() {
        let highest = Generation { epoch: 2, n: 10 };
        assert!(understood(told(2, u64::MAX), highest).is_none());
        assert!(understood(told(3, u64::MAX), highest).is_none());
        assert!(understood(told(u64::MAX, 1), highest).is_none());
    }
}
