//! The loops of all plugins of this host.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, path::PathBuf, sync::Arc};

use fleetswap_proto::Explained;
use fleetswap_update::{Event, Fact, Fault, Generation, Offer, Plugin, Problem, RECORD_FORMAT};
use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    World,
    life::{Life, Told},
    written::Saved,
};
use crate::{
    clock, convert,
    durable::{DurableError, Record},
};

/// Most plugins of one host.
pub(crate) const PLUGINS_MAX: usize = 1_024;
/// Most plugins that are reported, those included that found no room.
const REPORTS_MAX: usize = 2 * PLUGINS_MAX;
/// Offers that wait for one loop.
const TOLD_MAX: usize = 4;

/// The loops by plugin.
pub(super) struct Lives {
    world: Arc<World>,
    loops: BTreeMap<String, mpsc::Sender<Told>>,
    tasks: JoinSet<()>,
    highest: Generation,
}

impl Lives {
    /// Starts a loop for every record; returns when each has taken in the start, so that what is reported from here
    /// on is complete.
    ///
    /// # Errors
    /// A record can't be read. Nothing is ever reset.
    pub(super) async fn resume(world: Arc<World>) -> Result<Self, DurableError> {
        let (loops, tasks) = (BTreeMap::new(), JoinSet::new());
        let mut lives = Self { world, loops, tasks, highest: Generation::default() };
        let names = lives.world.records.plugins()?;
        let mut plugins = names
            .iter()
            .map(|name| read(&lives.world.records.of(name), name))
            .collect::<Result<Vec<_>, _>>()?;
        // One that is on trial gets the slot before the others ask for it.
        plugins.sort_by_key(|plugin| plugin.trial().is_none());
        let mut begun = Vec::new();
        for plugin in plugins {
            lives.highest = lives.highest.max(plugin.generation());
            begun.push(lives.begin(plugin));
        }
        for first in begun {
            // An error means that the loop panicked; its end is told when the agent stops.
            let _ = first.await;
        }
        Ok(lives)
    }

    /// The highest generation that any plugin was told.
    pub(super) const fn highest(&self) -> Generation {
        self.highest
    }

    pub(super) const fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Tells one plugin what it should run; returns when that is taken in and saved.
    pub(super) async fn tell(&mut self, name: &str, offer: Offer) {
        if !self.loops.contains_key(name) {
            if self.loops.len() >= PLUGINS_MAX {
                return self.turn_away(name, offer);
            }
            drop(self.begin(Plugin::new(name.to_owned())));
        }
        let (done, taken) = oneshot::channel();
        if let Some(told) = self.loops.get(name)
            && told.send((offer, done)).await.is_ok()
        {
            // An error means that the loop has ended, because the agent stops.
            let _ = taken.await;
        }
    }

    /// Reports that there is no room for the plugin. Nothing of it is kept.
    fn turn_away(&self, name: &str, offer: Offer) {
        let words = format!("a host has at most {PLUGINS_MAX} plugins, removed ones included");
        tracing::error!(plugin = name, code = "TOO_MANY_PLUGINS", "not installed: {words}");
        let told = Event { now: clock::now(), fact: Fact::Told(offer) };
        let problem = Problem::new(Fault::Host, "TOO_MANY_PLUGINS", words);
        let status = convert::status(Plugin::new(name.to_owned()).step(told).refused(problem).status());
        self.world.tools.standing.send_if_modified(|standing| {
            let has_room = standing.plugins.len() < REPORTS_MAX || standing.plugins.contains_key(name);
            has_room && standing.plugins.insert(name.to_owned(), status.clone()).as_ref() != Some(&status)
        });
    }

    fn begin(&mut self, plugin: Plugin) -> oneshot::Receiver<()> {
        let (told, inbox) = mpsc::channel(TOLD_MAX);
        let (begun, first) = oneshot::channel();
        self.loops.insert(plugin.name().to_owned(), told);
        let (life, failures) =
            (Life::new(Arc::clone(&self.world), plugin, inbox), self.world.failures.clone());
        self.tasks.spawn(async move {
            if AssertUnwindSafe(life.run(begun)).catch_unwind().await.is_err() {
                // A full channel: the agent is ending already.
                let _ = failures.try_send(bug());
            }
        });
        first
    }

    /// The process ends without a word.
    #[cfg(test)]
    pub(super) fn abort(&mut self) {
        self.tasks.abort_all();
    }

    /// Waits for the end of every loop.
    pub(super) async fn ended(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the loop of a plugin did not end in order");
            }
        }
    }
}

/// A plugin without its loop would never be restarted, swapped or reported again: better to start anew.
fn bug() -> Explained {
    Explained::new(
        "AGENT_BUG",
        "the loop of a plugin failed",
        "an error in the agent itself; the log has the place",
        "start the agent again (a service manager does), and report this with the log",
    )
}

/// The state in a record; a newer format is told from damage.
pub(super) fn read(record: &Record, name: &str) -> Result<Plugin, DurableError> {
    let value: Option<serde_json::Value> = record.load()?;
    let Some(value) = value else { return Ok(Plugin::new(name.to_owned())) };
    let path = PathBuf::from("records").join(name);
    let found = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or_default();
    if found > u64::from(RECORD_FORMAT) {
        return Err(DurableError::NewerFormat { path, found: u32::try_from(found).unwrap_or(u32::MAX) });
    }
    let saved: Result<Saved, _> = serde_json::from_value(value);
    saved.map(|saved| saved.plugin).map_err(|error| DurableError::Damaged { path, why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use fleetswap_proto::v1;

    use super::*;
    use crate::{
        durable::StateDir,
        run::tests::{Host, offer},
        service::testing::Kind,
    };

    #[tokio::test]
    async fn an_offer_that_finds_no_room_is_reported_as_the_hosts_fault() {
        let host = Host::new();
        let release = host.shelve("1.0.0", Kind::default());
        let state = StateDir::open(host.dir.path()).unwrap();
        let (world, standing) = host.world(&state, true);
        let mut lives = Lives::resume(Arc::new(world)).await.unwrap();
        lives.loops.extend((0..PLUGINS_MAX).map(|n| (format!("p{n}"), mpsc::channel(1).0)));
        lives.tell("counter", offer(1, &release)).await;
        let trial = standing.borrow().plugins["counter"].trial.clone().unwrap();
        let failure = trial.failure.clone().unwrap();
        assert_eq!((trial.state(), failure.fault()), (v1::HostState::Rejected, v1::Fault::Host));
        assert_eq!(failure.code, "TOO_MANY_PLUGINS");
        assert!(state.records().plugins().unwrap().is_empty());
    }
}
