//! What a rollout would do, before it begins.

use crate::{Fleet, HostId, Rollout, SkipReason, WaveName, order, plan::skip_reason};

/// Who would be changed, in which wave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// In order; hosts in the order of their turn.
    pub waves: Vec<PreviewWave>,
    /// Hosts that match and are offline now; they get it when they are back.
    pub offline: Vec<HostId>,
    /// Hosts that would not be offered it.
    pub skipped: Vec<(HostId, SkipReason)>,
}

/// One wave to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewWave {
    /// What it is called.
    pub name: WaveName,
    /// Who is in it.
    pub hosts: Vec<HostId>,
}

/// Who would be changed by a rollout that has not begun.
#[must_use]
pub fn preview(fleet: &Fleet, rollout: &Rollout) -> Preview {
    let spec = &rollout.spec;
    let mut preview = Preview::default();
    let mut ready = Vec::new();
    for (id, host) in fleet.members(&spec.key) {
        match skip_reason(fleet, spec, host, host.desired(&spec.key.plugin)) {
            Some(reason) => preview.skipped.push((id.clone(), reason)),
            None if host.online => ready.push((order(spec.id, id), id.clone())),
            None => preview.offline.push(id.clone()),
        }
    }
    ready.sort();
    let all = ready.len() + preview.offline.len();
    let mut ready = ready.into_iter().map(|(_, id)| id);
    for wave in &rollout.progress.waves {
        let size = match wave.name {
            WaveName::Canary => spec.policy.canary.map_or(0, |canary| canary.of(all)),
            WaveName::Rest => usize::MAX,
        };
        preview.waves.push(PreviewWave { name: wave.name, hosts: ready.by_ref().take(size).collect() });
    }
    preview
}
