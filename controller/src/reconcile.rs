//! The reconcile loop, the only one: look at the fleet, plan, commit, send.
//!
//! Everything that the planner needs is in memory ([`world`]) and comes from the store at the start. A change is
//! committed first and then done to the memory, so what is sent or answered is always durable. One lock, `writing`,
//! keeps changes of shared rows one after the other; reports, which are many and touch only rows of their own, commit
//! beside it.

mod agents;
mod changes;
mod credit;
mod links;
mod operate;
mod rows;
mod standing;
mod views;
mod world;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use fleetswap_proto::{Explained, v1};
use fleetswap_trust::Versions;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Connected, Fleet, HostIdentity, RequestKey, Session},
    convert,
    store::{Change, Store},
};
use credit::Credit;
use links::Links;
use operate::Order;
use world::World;

/// Time between two plans, at least.
const PLAN_PAUSE: Duration = Duration::from_millis(20);
/// Time until a plan is tried again after the store has failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Hosts have so long to connect again after the controller has started.
const RETURN_MAX: Duration = Duration::from_secs(35);
/// While a deadline runs, the loop looks at the time this often, so that time is credited.
const TICK: Duration = Duration::from_secs(1);
/// While a deadline runs, credited time is stored this often: a crash costs a deadline at most so much.
const CREDIT_STORED: Duration = Duration::from_secs(10);

/// The fleet, and the loop that moves it.
pub(crate) struct Reconciler {
    store: Arc<dyn Store>,
    versions: watch::Receiver<Versions>,
    /// Held while rows that others may change as well are read, committed, and done to the memory.
    writing: tokio::sync::Mutex<()>,
    world: Mutex<World>,
    links: Mutex<Links>,
    credit: Mutex<Credit>,
    started: Instant,
    changed: Notify,
    seen: watch::Sender<u64>,
}

impl Reconciler {
    /// Loads the store and starts the loop. `versions` are those of the published metadata, for every
    /// `DesiredState`; the loop ends when `stop` is cancelled.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        versions: watch::Receiver<Versions>,
        stop: CancellationToken,
    ) -> Result<(Arc<dyn Fleet>, JoinHandle<()>), Explained> {
        let reconciler = Self::load(store, versions).await?;
        let planning = tokio::spawn(Arc::clone(&reconciler).run(stop));
        Ok((reconciler, planning))
    }

    async fn load(
        store: Arc<dyn Store>,
        versions: watch::Receiver<Versions>,
    ) -> Result<Arc<Self>, Explained> {
        let snapshot = store.snapshot().await?;
        let credit = Credit::new(snapshot.elapsed_ms, Instant::now());
        let mut world = World::load(snapshot)?;
        let published = *versions.borrow();
        if let Some(why) = world.hosts.values().find_map(|entry| agents::behind(&entry.row, published)) {
            world.fall_behind(why);
        }
        Ok(Arc::new(Self {
            world: Mutex::new(world),
            store,
            versions,
            writing: tokio::sync::Mutex::default(),
            links: Mutex::default(),
            credit: Mutex::new(credit),
            started: Instant::now(),
            changed: Notify::new(),
            seen: watch::Sender::new(0),
        }))
    }

    /// The loop: wait until something has changed or a timer is due, then plan, commit, send.
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut versions = self.versions.clone();
        // What is there at the start may need a plan as well.
        self.changed.notify_one();
        let mut due = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = timer(due) => {}
                Ok(()) = versions.changed() => {}
            }
            due = match self.round().await {
                Ok(due) => due,
                Err(error) => {
                    tracing::error!(code = %error.code, why = error.why, "a plan was not stored");
                    Some(Instant::now() + RETRY_PAUSE)
                }
            };
            sleep(PLAN_PAUSE).await;
        }
    }

    /// One plan, committed and sent. Returns when the next one is due although nothing changes.
    async fn round(&self) -> Result<Option<Instant>, Explained> {
        let _one_at_a_time = self.writing.lock().await;
        let back = self.note_return();
        let now_ms = self.credit().now(Instant::now(), back.is_listening);
        if self.world().behind().is_some() {
            return Ok(None);
        }
        let plan = self.world().plan(now_ms);
        let mut change = changes::of_plan(&self.world(), &plan, unix_ms())?;
        let is_due = plan.next_timer.is_some() && self.credit().is_store_due(CREDIT_STORED);
        if !plan.is_empty() || is_due {
            change.elapsed_ms = Some(now_ms);
            self.commit(change).await?;
            self.credit().stored(now_ms);
        }
        let has_changed = self.world().apply(&plan, unix_ms());
        self.send();
        if has_changed {
            self.show();
        }
        let timer = plan.next_timer.map(|timer| Duration::from_millis(timer.0.saturating_sub(now_ms)));
        let wait = timer.or_else(|| (!back.is_over).then_some(TICK));
        Ok(wait.map(|wait| Instant::now() + wait.min(TICK)))
    }

    /// What the start still means: agents wait up to half a minute between two tries to connect, so until then a host
    /// that was not heard may be on its way. Deadlines stand still while one of these is on trial.
    fn note_return(&self) -> Return {
        let is_early = self.started.elapsed() < RETURN_MAX;
        let (mut world, links) = (self.world(), self.links());
        let heard = |host| !is_early || links.last_seen_ms(host) > 0;
        world.fleet.returning = !world.hosts.values().all(|entry| heard(entry.row.host_id));
        Return { is_listening: !world.awaits(heard), is_over: !world.fleet.returning }
    }

    /// Writes a change. After a conflict, which only another writer could cause, the memory is read anew.
    async fn commit(&self, change: Change) -> Result<(), Explained> {
        let result = self.store.commit(change).await;
        if let Err(crate::store::StoreError::Conflict { .. }) = &result {
            let fresh = World::load(self.store.snapshot().await?)?;
            self.world().replace(fresh);
            self.changed.notify_one();
        }
        Ok(result?)
    }

    /// Sends each connected host what it should run, if that, or the metadata, is news for its stream.
    fn send(&self) {
        let (world, versions) = (self.world(), *self.versions.borrow());
        let desired = |id| world.host(id).map(|host| convert::desired_state(host, versions));
        self.links().send(|id| world.edition(id, versions), desired);
    }

    /// Says to watchers that there is something new to see.
    fn show(&self) {
        self.seen.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Asks for a plan, and tells watchers.
    fn wake(&self) {
        self.changed.notify_one();
        self.show();
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn credit(&self) -> MutexGuard<'_, Credit> {
        self.credit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is back since the start.
struct Return {
    /// Every host on trial is: its deadline runs.
    is_listening: bool,
    /// Every known host is, or had the time for it.
    is_over: bool,
}

async fn timer(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The wall clock, for people to read; no decision depends on it.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Fleet for Reconciler {
    async fn agent_connected(&self, host: HostIdentity, hello: v1::Hello) -> Result<Connected, Explained> {
        agents::connected(self, host, convert::greeting(hello)).await
    }

    async fn agent_report(&self, session: &Session, report: v1::Report) -> Result<(), Explained> {
        agents::report(self, session, convert::report(report)).await
    }

    fn agent_heartbeat(&self, session: &Session) {
        self.links().heard(session, unix_ms());
    }

    async fn agent_gone(&self, session: &Session) {
        agents::gone(self, session);
    }

    async fn push(
        &self,
        request: v1::PushRequest,
        key: Option<RequestKey>,
    ) -> Result<v1::PushResponse, Explained> {
        let wish = convert::push(&request)?;
        let v1::PushRequest { actor, reason, dry_run, .. } = request;
        operate::push(self, wish, Order { actor, reason, dry_run, key }).await
    }

    async fn rollback(
        &self,
        request: v1::RollbackRequest,
        key: Option<RequestKey>,
    ) -> Result<v1::PushResponse, Explained> {
        let wish = convert::rollback(&request)?;
        let v1::RollbackRequest { actor, reason, dry_run, .. } = request;
        operate::rollback(self, wish, Order { actor, reason, dry_run, key }).await
    }

    async fn rollout(&self, id: u64) -> Result<Option<v1::Rollout>, Explained> {
        views::rollout(self, id).await
    }

    async fn rollouts(
        &self,
        plugin: Option<String>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<v1::Rollout>, Explained> {
        views::rollouts(self, plugin, before, limit).await
    }

    async fn hosts(&self, after: Option<String>, limit: u32) -> Result<Vec<v1::Host>, Explained> {
        Ok(views::hosts(self, after.as_deref(), limit))
    }

    async fn assignments(&self, plugin: &str, selector: &str) -> Result<Vec<v1::Assignment>, Explained> {
        views::assignments(self, plugin, selector)
    }

    async fn status(&self) -> Result<v1::GetStatusResponse, Explained> {
        Ok(views::status(self))
    }

    async fn hosts_by_release(&self) -> Result<BTreeMap<String, u32>, Explained> {
        Ok(self.world().hosts_by_release())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.seen.subscribe()
    }
}
