//! Watching a rollout: each of its states once, and the end of the stream at its end.

use std::{sync::Arc, time::Duration};

use fleetswap_proto::{
    Explained,
    v1::{Rollout, WatchRolloutResponse},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tonic::Status;

use super::{Fleet, Shared, views::no_rollout};
use crate::explain;

/// A watcher hears at most so often.
const PAUSE: Duration = Duration::from_millis(100);

/// A state must be taken within this time.
const SEND_MAX: Duration = Duration::from_secs(60);

/// States that wait for the connection.
const STATES_MAX: usize = 2;

/// What a watcher receives.
pub(super) type States = mpsc::Receiver<Result<WatchRolloutResponse, Status>>;

/// Starts to follow a rollout; an unknown one is an error at once.
pub(super) async fn start(shared: &Arc<Shared>, id: u64) -> Result<States, Explained> {
    let changes = shared.fleet.changes();
    let rollout = shared.fleet.rollout(id).await?.ok_or_else(|| no_rollout(id))?;
    let (outbound, states) = mpsc::channel(STATES_MAX);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        tokio::select! {
            () = shared.stop.cancelled() => {
                let _ = outbound.try_send(Err(explain::status(&explain::stopping())));
            }
            end = follow(&*shared.fleet, (id, rollout), changes, &outbound) => {
                if let Err(error) = end {
                    let _ = outbound.try_send(Err(explain::status(&error)));
                }
            }
        }
    });
    Ok(states)
}

/// Sends the present state, and each later one that differs, until the rollout ends or nobody listens.
async fn follow(
    fleet: &dyn Fleet,
    (id, mut rollout): (u64, Rollout),
    mut changes: watch::Receiver<u64>,
    outbound: &mpsc::Sender<Result<WatchRolloutResponse, Status>>,
) -> Result<(), Explained> {
    loop {
        let ended = rollout.state().has_ended();
        let message = Ok(WatchRolloutResponse { rollout: Some(rollout.clone()) });
        let taken = timeout(SEND_MAX, outbound.send(message)).await;
        if ended || !matches!(taken, Ok(Ok(()))) {
            return Ok(());
        }
        loop {
            tokio::select! {
                () = outbound.closed() => return Ok(()),
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
            }
            let next = fleet.rollout(id).await?.ok_or_else(|| no_rollout(id))?;
            if next != rollout {
                rollout = next;
                break;
            }
        }
        if !rollout.state().has_ended() {
            sleep(PAUSE).await;
        }
    }
}
