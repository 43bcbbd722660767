//! What operators ask for: pushes and rollbacks, or what they would do.

use std::collections::BTreeSet;

use fleetswap_proto::Explained;
use fleetswap_rollout::{Preview, Release, Rollback, RolloutId, Started, preview};
use fleetswap_trust::Manifest;

use super::{
    Reconciler, changes, unix_ms,
    world::{Head, World},
};
use crate::{
    api::RequestKey,
    convert::{self, PlanView, PushAnswer, Wish},
    explain,
    store::Change,
};

/// Who asks, and how the answer is remembered.
pub(super) struct Order {
    pub(super) actor: String,
    pub(super) reason: String,
    /// Only plans; nothing is stored.
    pub(super) dry_run: bool,
    pub(super) key: Option<RequestKey>,
}

/// Starts a rollout, says that nothing is to be done, or only plans.
pub(super) async fn push(reconciler: &Reconciler, wish: Wish, order: Order) -> Result<PushAnswer, Explained> {
    let Wish { push, manifest } = wish;
    let _one_at_a_time = reconciler.writing.lock().await;
    let started = {
        let world = reconciler.world();
        refuse_if_behind(&world)?;
        let started = push.start(&world.fleet, &world.rollouts, RolloutId(world.next_rollout));
        started.map_err(|refusal| convert::refusal(&refusal))?
    };
    begin(reconciler, started, Some(&manifest), order).await
}

/// Starts a rollout back, says that nothing is to be done, or only plans.
pub(super) async fn rollback(
    reconciler: &Reconciler,
    wish: Rollback,
    order: Order,
) -> Result<PushAnswer, Explained> {
    let _one_at_a_time = reconciler.writing.lock().await;
    let target = {
        let world = reconciler.world();
        refuse_if_behind(&world)?;
        wish.target(&world.fleet, &world.rollouts).map_err(|refusal| convert::refusal(&refusal))?.1
    };
    let manifest = match &target {
        Some(release) => Some(manifest_of(reconciler, release).await?),
        None => None,
    };
    let platforms = manifest.as_ref().map_or_else(BTreeSet::new, convert::platforms);
    let started = {
        let world = reconciler.world();
        let id = RolloutId(world.next_rollout);
        let started = wish.start(&world.fleet, &world.rollouts, id, platforms);
        started.map_err(|refusal| convert::refusal(&refusal))?
    };
    begin(reconciler, started, manifest.as_ref(), order).await
}

fn refuse_if_behind(world: &World) -> Result<(), Explained> {
    match world.behind() {
        None => Ok(()),
        Some(why) => Err(Explained::new(
            "STORE_BEHIND",
            "the store is behind its hosts, so nothing is sent",
            why,
            "stop this controller, bring back the newest copy of its data folder, and start it again",
        )),
    }
}

/// The manifest of a release that hosts are to go back to.
async fn manifest_of(reconciler: &Reconciler, release: &Release) -> Result<Manifest, Explained> {
    let row = reconciler.store.release(&release.id).await?.ok_or_else(|| {
        Explained::new(
            "RELEASE_NOT_FOUND",
            format!("the manifest of {release} is not stored"),
            "the assignment names it, but nothing was published under its id",
            "choose another one with --to, or publish it again",
        )
    })?;
    if row.head.withdrawn {
        return Err(Explained::new(
            "RELEASE_WITHDRAWN",
            format!("{release} has been withdrawn"),
            "its publisher took it back, so no host would install it",
            "choose another one with --to",
        ));
    }
    Manifest::parse(&row.manifest).map_err(|error| explain::manifest(&error))
}

/// Answers: with nothing, with a plan, or with a rollout that is durable.
async fn begin(
    reconciler: &Reconciler,
    started: Started,
    manifest: Option<&Manifest>,
    order: Order,
) -> Result<PushAnswer, Explained> {
    let Started::Start(start) = started else {
        return remember(reconciler, convert::nothing_to_do(), order, Change::default()).await;
    };
    let now_ms = unix_ms();
    let head = Head {
        actor: order.actor.clone(),
        reason: order.reason.clone(),
        created_ms: now_ms,
        ended_ms: None,
        version: 0,
    };
    let (answer, change) = {
        let world = reconciler.world();
        let preview = preview(&world.fleet, &start.rollout);
        let bytes = bytes(&world, &preview, manifest, start.rollout.spec.to.as_ref());
        let plan = PlanView { fleet: &world.fleet, preview: &preview, bytes, spec: &start.rollout.spec };
        if order.dry_run {
            return Ok(convert::begun(None, plan));
        }
        let answer = convert::begun(Some(&world.view(&start.rollout, &head)), plan);
        (answer, changes::of_start(&start, &head, now_ms)?)
    };
    let answer = remember(reconciler, answer, order, change).await?;
    reconciler.world().begin(*start, head);
    reconciler.wake();
    Ok(answer)
}

/// Commits a change with the answer that it gave rise to.
async fn remember(
    reconciler: &Reconciler,
    answer: PushAnswer,
    order: Order,
    mut change: Change,
) -> Result<PushAnswer, Explained> {
    if order.dry_run {
        return Ok(answer);
    }
    change.request = order.key.map(|key| key.row(&answer));
    reconciler.commit(change).await?;
    Ok(answer)
}

/// Bytes that hosts would fetch: what their platform loads, and config and data. A host that still holds the release
/// fetches nothing.
fn bytes(world: &World, preview: &Preview, manifest: Option<&Manifest>, to: Option<&Release>) -> u64 {
    let (Some(manifest), Some(to)) = (manifest, to) else { return 0 };
    let beside = manifest
        .config
        .iter()
        .map(|config| config.length)
        .chain(manifest.data.iter().map(|data| data.length));
    let beside: u64 = beside.sum();
    let hosts = preview.waves.iter().flat_map(|wave| &wave.hosts).chain(&preview.offline);
    let of_host = |host| {
        let host = world.fleet.hosts.get(host)?;
        let reported = host.plugins.get(&to.plugin).and_then(|plugin| plugin.reported.as_ref());
        let holds = reported.is_some_and(|reported| reported.previous.as_ref() == Some(to));
        let platform = manifest.platforms.get(&host.platform).filter(|_| !holds)?;
        Some(platform.artifact.length + platform.descriptor.length + beside)
    };
    hosts.filter_map(of_host).sum()
}
