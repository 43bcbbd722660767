//! What operators on the host order, on its way to the loop of a plugin, and the answer on its way back.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use fleetswap_proto::v1;
use fleetswap_update::{Fact, LocalOverride, Order, Plugin, Problem, Release};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::convert;

/// Longest wait for an answer: a planned way back waits for a moment that costs no call, for up to 180 s.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(200);
/// Orders that wait for one plugin.
const WAITING_MAX: usize = 16;

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// What runs stays.
    Hold,
    /// The controller decides again.
    Release,
    /// The release before the one that answers takes its place, and stays.
    RollBack,
}

/// What came of an order; the record is on disk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Done {
    /// Something is not as it was before.
    pub(crate) changed: bool,
    /// How the plugin stands now.
    pub(crate) status: v1::PluginStatus,
    /// No plugin runs on this host: it takes effect with the next start.
    pub(crate) at_rest: bool,
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refused {
    /// No plugin of this name is known here.
    UnknownPlugin,
    /// No override stands.
    NotHeld,
    /// There is no release before the one that answers.
    NothingBefore {
        /// What runs, if anything does.
        active: Option<Release>,
    },
    /// The record could not be written; it is not known whether a start finds the order.
    NotKept(Box<Problem>),
    /// The way back was begun and has failed: what runs is held.
    GivenUp {
        /// Code and words of the failure, if it left any.
        failure: Option<(String, String)>,
    },
    /// The old release is the committed one, and does not answer.
    NotAnswering(Release),
    /// No answer in time; the order stands.
    Unfinished,
    /// The agent is stopping, and may have stopped before the order was kept.
    Stopping,
}

/// The answer to an order.
pub(crate) type Answer = Result<Done, Box<Refused>>;

/// An order that waits for its plugin.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(super) verb: Verb,
    pub(super) order: Order,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// The way to the plugins of this host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders(Arc<RwLock<BTreeMap<String, mpsc::Sender<Asked>>>>);

impl Orders {
    /// Where the orders about a plugin arrive from now on.
    pub(super) fn inbox(&self, plugin: &str) -> mpsc::Receiver<Asked> {
        let (sender, inbox) = mpsc::channel(WAITING_MAX);
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(plugin.to_owned(), sender);
        inbox
    }

    /// Gives an order; returns when it is durable, and a rollback when the old release answers, or why not.
    pub(crate) async fn give(&self, plugin: &str, verb: Verb, order: Order) -> Answer {
        let sender = self.0.read().unwrap_or_else(PoisonError::into_inner).get(plugin).cloned();
        let sender = sender.ok_or_else(|| Box::new(Refused::UnknownPlugin))?;
        let (answer, answered) = oneshot::channel();
        let given = async {
            let stopping = || Box::new(Refused::Stopping);
            sender.send(Asked { verb, order, answer }).await.map_err(|_| stopping())?;
            answered.await.unwrap_or_else(|_| Err(stopping()))
        };
        timeout(ANSWER_MAX, given).await.unwrap_or_else(|_| Err(Box::new(Refused::Unfinished)))
    }
}

impl Verb {
    /// What the core is told. `at_rest`: no worker of the plugin runs.
    pub(super) fn fact(self, order: Order, at_rest: bool) -> Fact {
        match self {
            Self::Hold => Fact::Held { order, at_rest },
            Self::Release => Fact::Released,
            Self::RollBack => Fact::OrderedBack { order, at_rest },
        }
    }

    /// Why the order makes no sense for a plugin that stands so; `None`: it does.
    pub(super) fn refusal(self, plugin: &Plugin) -> Option<Refused> {
        match self {
            Self::Hold => None,
            Self::Release => plugin.local_override().is_none().then_some(Refused::NotHeld),
            Self::RollBack => plugin.way_back().is_none().then(|| Refused::NothingBefore {
                active: plugin.service().active().map(|active| active.release.clone()),
            }),
        }
    }
}

impl Done {
    pub(super) fn of(before: Option<&LocalOverride>, plugin: &Plugin, at_rest: bool) -> Self {
        let status = convert::status(plugin.status());
        Self { changed: before != plugin.local_override(), status, at_rest }
    }
}
