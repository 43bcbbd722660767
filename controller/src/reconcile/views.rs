//! What people are shown of the fleet.

use fleetswap_proto::{Explained, v1};

use super::{Reconciler, rows, standing};
use crate::{
    convert::{self, AssignmentView, HostView},
    store::RolloutPage,
};

/// One rollout, live or from the store.
pub(super) async fn rollout(reconciler: &Reconciler, id: u64) -> Result<Option<v1::Rollout>, Explained> {
    if let Some(live) = reconciler.world().live(id) {
        return Ok(Some(convert::rollout(&live)));
    }
    let Some((row, hosts)) = reconciler.store.rollout(id).await? else { return Ok(None) };
    let (rollout, head) = rows::rollout_of(row, &hosts)?;
    Ok(Some(convert::rollout(&reconciler.world().view(&rollout, &head))))
}

/// A page of rollouts, newest first, without their hosts.
pub(super) async fn rollouts(
    reconciler: &Reconciler,
    plugin: Option<String>,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<v1::Rollout>, Explained> {
    let rows = reconciler.store.rollouts(RolloutPage { plugin, before, limit }).await?;
    let mut page = Vec::new();
    for row in rows {
        let rollout = rollout(reconciler, row.id).await?;
        page.extend(rollout.map(|rollout| v1::Rollout { hosts: Vec::new(), ..rollout }));
    }
    Ok(page)
}

/// Hosts whose name sorts after `after`, by name.
pub(super) fn hosts(reconciler: &Reconciler, after: Option<&str>, limit: u32) -> Vec<v1::Host> {
    let (world, links) = (reconciler.world(), reconciler.links());
    let is_after = |name: &str| after.is_none_or(|after| name > after);
    let mut entries: Vec<_> = world.hosts.values().filter(|entry| is_after(&entry.row.name)).collect();
    entries.sort_by(|left, right| left.row.name.cmp(&right.row.name));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let shown = entries.into_iter().take(limit).map(|entry| {
        let id = entry.row.host_id;
        let (online, last_seen_ms) = (links.is_open(id), links.last_seen_ms(id));
        let safe_mode = online && world.host(id).is_some_and(|host| host.safe_mode);
        convert::host(&HostView {
            row: &entry.row,
            reported: &entry.reported,
            online,
            safe_mode,
            last_seen_ms,
        })
    });
    shown.collect()
}

/// The assignments of a plugin, or the one with this selector.
pub(super) fn assignments(
    reconciler: &Reconciler,
    plugin: &str,
    selector: &str,
) -> Result<Vec<v1::Assignment>, Explained> {
    let wanted = convert::selector(selector)?;
    let world = reconciler.world();
    let found = world
        .fleet
        .of_plugin(plugin)
        .filter(|it| wanted.as_ref().is_none_or(|wanted| it.key.selector == *wanted));
    Ok(found
        .map(|assignment| convert::assignment(AssignmentView { assignment, fleet: &world.fleet }))
        .collect())
}

/// The whole at a glance.
pub(super) fn status(reconciler: &Reconciler) -> v1::GetStatusResponse {
    let world = reconciler.world();
    let fleet = &world.fleet;
    let count = |hosts: usize| u32::try_from(hosts).unwrap_or(u32::MAX);
    v1::GetStatusResponse {
        epoch: fleet.epoch,
        hosts_online: count(fleet.hosts.values().filter(|host| host.online).count()),
        hosts_known: count(fleet.hosts.len()),
        assignments: fleet.assignments.values().map(|it| standing::of(&world, it)).collect(),
        unfinished: world.unfinished().map(|view| convert::rollout(&view)).collect(),
        store_behind: world.behind().unwrap_or_default().to_owned(),
        ..v1::GetStatusResponse::default()
    }
}
