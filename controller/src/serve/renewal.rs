//! The renewal of the timestamp: before the start if it is due, then every hour.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::sleep;

use crate::{api::Shared, publish::timestamp::RENEWAL};

/// It is not tried more often than this.
const RETRY: Duration = Duration::from_secs(60);

/// Renews now if it is due, before the first host asks. A failure only delays new installs, so it is no reason not to
/// serve.
pub(super) async fn if_due(shared: &Shared) {
    let is_due = due_in(shared.published.signed_at(), SystemTime::now()).is_zero();
    #[cfg(feature = "failpoints")]
    let is_due = is_due || fleetswap_faults::is_renewal_due();
    if is_due {
        renew(shared).await;
    }
}

/// Renews for ever; after a failure again long before hosts notice.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut wait = due_in(shared.published.signed_at(), SystemTime::now());
    loop {
        sleep(wait.max(RETRY)).await;
        renew(&shared).await;
        wait = due_in(shared.published.signed_at(), SystemTime::now());
    }
}

async fn renew(shared: &Shared) {
    let _no_publish_meanwhile = shared.mutations.lock().await;
    if let Err(error) = Box::pin(shared.published.renew(SystemTime::now())).await {
        tracing::error!(code = %error.code, why = error.why, fix = error.fix, "the timestamp was not renewed");
    }
}

/// How long a timestamp that was signed at `signed` is still young enough.
fn due_in(signed: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(signed).map_or(RENEWAL, |age| RENEWAL.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_timestamp_is_renewed_at_once_and_a_young_one_when_it_is_due() {
        let signed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_500_000);
        assert_eq!(due_in(signed, signed + 2 * RENEWAL), Duration::ZERO);
        assert_eq!(due_in(signed, signed + Duration::from_secs(600)), RENEWAL - Duration::from_secs(600));
        assert_eq!(due_in(signed, signed - Duration::from_secs(5)), RENEWAL);
    }
}
