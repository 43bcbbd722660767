//! How much of each plugin the hello tells: it is one message, and the controller takes messages of bounded size.

use fleetswap_proto::v1;
use prost::Message;

use super::Standing;

/// Most bytes of all plugins together in a hello. The controller takes messages of 4 MiB; what else a hello has
/// (labels, facts, versions) is far below the rest of that.
const PLUGINS_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Longest text of a plugin in a hello that is cut, in bytes.
const TEXT_TOLD: usize = 96;
/// The same of an operator's order, whose reason follows in full.
const ORDER_TOLD: usize = 24;
/// Denied releases of a plugin in a hello that is cut: the newest.
const DENIED_TOLD: usize = 1;

/// The standing as a hello tells it: complete if it fits. Else each plugin is told in brief, and in full by a report
/// right after.
pub(super) fn within_bounds(mut standing: Standing) -> Standing {
    let bytes: usize = standing.plugins.values().map(Message::encoded_len).sum();
    if bytes > PLUGINS_BYTES_MAX {
        standing.plugins.values_mut().for_each(brief);
    }
    standing
}

/// What a rollout is decided by stays: what runs, where the trial stands, whose fault a failure is.
fn brief(status: &mut v1::PluginStatus) {
    let surplus = status.denied.len().saturating_sub(DENIED_TOLD);
    status.denied.drain(..surplus);
    for denied in &mut status.denied {
        cut(&mut denied.code);
        cut(&mut denied.reason);
    }
    if let Some(local_override) = &mut status.local_override {
        let v1::LocalOverride { reason, by, .. } = local_override;
        [reason, by].into_iter().for_each(|text| text.truncate(text.floor_char_boundary(ORDER_TOLD)));
        local_override.from = None;
    }
    status.state_lost.clear();
    let Some(trial) = &mut status.trial else { return };
    cut(&mut trial.state_lost);
    let Some(failure) = &mut trial.failure else { return };
    failure.log_tail.clear();
    let v1::Failure { code, check, got, wanted, message, next, .. } = failure;
    [code, check, got, wanted, message, next].into_iter().for_each(cut);
}

fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(TEXT_TOLD));
}

#[cfg(test)]
mod tests {
    use fleetswap_update::{DENIED_MAX, LOG_TAIL_MAX, ORDERED_BY_MAX, REASON_MAX, TEXT_MAX};

    use super::*;
    use crate::run::PLUGINS_MAX;

    fn release(plugin: &str) -> v1::Release {
        let (version, release_id) = (format!("1.0.0-{}", "a".repeat(58)), "ab".repeat(32));
        v1::Release { plugin: plugin.to_owned(), version, revision: u64::MAX, release_id }
    }

    /// As long as a status can be.
    fn longest(number: usize) -> v1::PluginStatus {
        let plugin = format!("p{number:063}");
        let (release, text) = (release(&plugin), || "é".repeat(TEXT_MAX / 2));
        let failure = v1::Failure {
            failed_state: v1::HostState::Skipped.into(),
            fault: v1::Fault::Withdrawn.into(),
            code: text(),
            check: text(),
            got: text(),
            wanted: text(),
            tries: u32::MAX,
            message: text(),
            log_tail: "x".repeat(LOG_TAIL_MAX),
            next: text(),
        };
        let trial = v1::TrialStatus {
            rollout_id: "r".repeat(64),
            attempt: u32::MAX,
            candidate: Some(release.clone()),
            state: v1::HostState::Skipped.into(),
            failure: Some(failure),
            swap_pause_us: u64::MAX,
            proven_by: "unchanged".into(),
            state_lost: text(),
        };
        let denied = |n: usize| v1::Denied {
            release: Some(v1::Release { revision: n as u64, ..release.clone() }),
            code: text(),
            reason: text(),
        };
        v1::PluginStatus {
            denied: (0..DENIED_MAX).map(denied).collect(),
            service: v1::ServiceState::Down.into(),
            active: Some(release.clone()),
            previous: Some(release.clone()),
            trial: Some(trial),
            local_override: Some(v1::LocalOverride {
                kind: v1::LocalOverrideKind::RollingBack.into(),
                reason: "r".repeat(REASON_MAX),
                by: "b".repeat(ORDERED_BY_MAX),
                since_ms: u64::MAX,
                from: Some(release),
            }),
            state_lost: text(),
            plugin,
        }
    }

    /// One for which there was no room: it never ran, and nothing of it is kept.
    fn turned_away(number: usize) -> v1::PluginStatus {
        let denied = Vec::new();
        v1::PluginStatus { active: None, previous: None, local_override: None, denied, ..longest(number) }
    }

    #[test]
    fn the_longest_hello_there_can_be_fits() {
        let plugins = (0..PLUGINS_MAX).map(longest).chain((0..PLUGINS_MAX).map(turned_away));
        let told: usize = plugins
            .map(|mut status| {
                brief(&mut status);
                // Each has a tag and its length in front of it.
                status.encoded_len() + 8
            })
            .sum();
        assert!(told <= PLUGINS_BYTES_MAX, "{told}");
    }

    #[test]
    fn what_fits_is_told_whole_and_what_does_not_in_brief() {
        let of = |plugins: usize| Standing {
            plugins: (0..plugins).map(|number| (number.to_string(), longest(number))).collect(),
            ..Standing::default()
        };
        assert_eq!(within_bounds(of(2)), of(2));
        let brief = within_bounds(of(40));
        let (told, whole) = (&brief.plugins["7"], longest(7));
        assert_eq!((brief.plugins.len(), &told.active), (40, &whole.active));
        assert_eq!(told.denied.len(), DENIED_TOLD);
        assert_eq!(told.denied[0].release, whole.denied[DENIED_MAX - 1].release, "the newest");
        let failure = told.trial.as_ref().unwrap().failure.as_ref().unwrap();
        assert!(failure.log_tail.is_empty() && failure.message.len() == TEXT_TOLD);
        assert_eq!(failure.fault(), v1::Fault::Withdrawn);
    }
}
