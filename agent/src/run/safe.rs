//! Safe mode: the records are read, and nothing is started. Only an operator's orders change a record.

use std::{collections::BTreeMap, sync::Arc};

use fleetswap_proto::{Explained, v1};
use fleetswap_update::{Event, Plugin};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Running,
    host::HostRecord,
    lives::read,
    orders::{Asked, Done, Orders, Refused},
    written::Written,
};
use crate::{
    calls::{Answer, CallFailure, CallRequest, Calls, PluginInfo},
    clock, convert,
    daemon::Parts,
    durable::DurableError,
    explain,
    keeper::Keeper,
    link::Standing,
    metrics::Metrics,
    service::disk,
};

/// One plugin that is not started.
struct Resting {
    plugin: Plugin,
    written: Written,
    inbox: mpsc::Receiver<Asked>,
    standing: watch::Sender<Standing>,
    metrics: Arc<Metrics>,
    failures: mpsc::Sender<Explained>,
}

/// The plugins that callers can't reach, with the version that would answer.
#[derive(Debug)]
struct Closed(BTreeMap<String, PluginInfo>);

/// Reads the records and takes orders. The host's own record is left as it is: the next start without safe mode judges
/// the end of the last one without it.
///
/// # Errors
/// A record that can't be read.
pub(crate) fn start(parts: Parts) -> Result<Running, Explained> {
    let durable = |error: DurableError| explain::durable(&error);
    let Parts { state, trust, metrics, standing, .. } = parts;
    let host = HostRecord::open(state.host_record()).map_err(durable)?;
    let (records, orders, stop) = (state.records(), Orders::default(), CancellationToken::new());
    let (failure, failures) = mpsc::channel(1);
    let (mut highest, mut closed, mut resting) = (host.highest(), BTreeMap::new(), JoinSet::new());
    let trusted = fleetswap_trust::trusted(&trust).ok();
    standing.send_modify(|standing| {
        standing.safe_mode = true;
        standing.metadata =
            trusted.map_or(standing.metadata, |trusted| convert::versions(trusted.versions()));
    });
    for name in records.plugins().map_err(durable)? {
        let record = records.of(&name);
        let plugin = read(&record, &name).map_err(durable)?;
        highest = highest.max(plugin.generation());
        closed.insert(name.clone(), info(&plugin));
        let resting_plugin = Resting {
            written: Written::new(record, plugin.clone()),
            plugin,
            inbox: orders.inbox(&name),
            standing: standing.clone(),
            metrics: Arc::clone(&metrics),
            failures: failure.clone(),
        };
        resting_plugin.tell();
        resting.spawn(resting_plugin.run(stop.clone()));
    }
    standing.send_modify(|standing| standing.highest = convert::generation(highest));
    let teller = tokio::spawn(async move { while resting.join_next().await.is_some() {} });
    let calls = Arc::new(Closed(closed));
    // Nothing is saved and nothing restored: no run is counted.
    let keeper = Keeper::new(state.states(), 0);
    Ok(Running { calls, orders, keeper, stop, teller, failures, host: None, _state: state })
}

impl Resting {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                asked = self.inbox.recv() => match asked {
                    Some(asked) => self.take_order(asked).await,
                    None => return,
                }
            }
        }
    }

    async fn take_order(&mut self, Asked { verb, order, answer }: Asked) {
        let given = match verb.refusal(&self.plugin) {
            Some(refused) => Err(refused),
            None => {
                let fact = verb.fact(order, true);
                let next = self.plugin.clone().step(Event { now: clock::now(), fact });
                self.become_(next).await
            }
        };
        // Whoever has stopped waiting looks at the status.
        drop(answer.send(given.map_err(Box::new)));
    }

    async fn become_(&mut self, next: Plugin) -> Result<Done, Refused> {
        if let Err(error) = self.written.save(&next).await {
            if matches!(error, DurableError::Damaged { .. } | DurableError::NewerFormat { .. }) {
                // A full channel: the agent is ending for the same reason already.
                let _ = self.failures.try_send(explain::durable(&error));
            }
            return Err(Refused::NotKept(Box::new(disk(&error))));
        }
        super::narrate::narrate(&self.plugin, &next);
        let before = std::mem::replace(&mut self.plugin, next);
        self.tell();
        Ok(Done::of(before.local_override(), &self.plugin, true))
    }

    /// Nothing answers, whatever the record says.
    fn tell(&self) {
        let mut status = convert::status(self.plugin.status());
        self.metrics.held(&status.plugin, status.local_override.is_some());
        if status.service() != v1::ServiceState::Empty {
            status.service = v1::ServiceState::Down.into();
        }
        self.standing.send_modify(|standing| {
            standing.plugins.insert(status.plugin.clone(), status);
        });
    }
}

fn info(plugin: &Plugin) -> PluginInfo {
    let active = plugin.service().active().map(|active| &active.release);
    PluginInfo {
        plugin: plugin.name().to_owned(),
        service: "DOWN",
        release_id: active.map(|release| release.id.to_string()).unwrap_or_default(),
        version: active.map(|release| release.version.to_string()).unwrap_or_default(),
        functions: Vec::new(),
        worker_pid: None,
    }
}

impl Calls for Closed {
    fn call(&self, request: CallRequest) -> BoxFuture<'_, Answer> {
        let failure = match self.0.contains_key(&request.plugin) {
            true => CallFailure::SafeMode,
            false => CallFailure::UnknownPlugin(request.plugin),
        };
        async move { Answer { tag: None, outcome: Err(failure) } }.boxed()
    }

    fn plugins(&self) -> Vec<PluginInfo> {
        self.0.values().cloned().collect()
    }
}
