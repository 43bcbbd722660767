//! What the loop of a plugin does about an order of an operator on the host.

use fleetswap_update::{Event, Life as Standing, LocalOverride, OverrideKind};
use tokio::sync::oneshot;

use super::Life;
use crate::{
    clock,
    run::orders::{Answer, Asked, Done, Refused, Verb},
};

/// A rollback that has not been answered yet.
pub(super) struct Open {
    answer: oneshot::Sender<Answer>,
    before: Option<LocalOverride>,
}

impl Life {
    /// Takes an order in, if it makes sense and can be kept. Whoever gave it hears when it is on disk; of a rollback when
    /// the old release answers.
    pub(super) async fn take_order(&mut self, Asked { verb, order, answer }: Asked) {
        // Whoever has stopped waiting for the answer looks at the status.
        if let Some(refused) = verb.refusal(&self.plugin) {
            drop(answer.send(Err(Box::new(refused))));
            return;
        }
        let before = self.plugin.local_override().cloned();
        let fact = verb.fact(order, false);
        let next = self.plugin.clone().step(Event { now: clock::now(), fact });
        if let Err(problem) = self.save(&next).await {
            drop(answer.send(Err(Box::new(Refused::NotKept(Box::new(problem))))));
            return;
        }
        self.become_(next).await;
        if verb == Verb::RollBack {
            self.open.push(Open { answer, before });
            return self.answer_orders();
        }
        drop(answer.send(Ok(Done::of(before.as_ref(), &self.plugin, false))));
    }

    /// Answers the rollbacks that have come to their end.
    pub(super) fn answer_orders(&mut self) {
        if self.open.is_empty() || self.is_unsaved() {
            return;
        }
        let Some(refused) = self.end_of_way_back() else { return };
        for Open { answer, before } in std::mem::take(&mut self.open) {
            let done = || Done::of(before.as_ref(), &self.plugin, false);
            drop(answer.send(refused.clone().map_or_else(|| Ok(done()), |refused| Err(Box::new(refused)))));
        }
    }

    /// `None`: the way back goes on. `Some(None)`: the old release answers.
    fn end_of_way_back(&self) -> Option<Option<Refused>> {
        let given_up = || {
            let failure = self.plugin.status().trial.and_then(|trial| trial.failure);
            let failure = failure.map(|it| (it.problem.code.into_string(), it.problem.message.into_string()));
            Some(Some(Refused::GivenUp { failure }))
        };
        match self.plugin.local_override().map(|it| &it.kind) {
            None | Some(OverrideKind::Hold) => given_up(),
            Some(OverrideKind::RollingBack { .. }) => None,
            Some(OverrideKind::RolledBack { to, .. }) => {
                let serving = self.plugin.service().serving()?;
                match serving.life {
                    Standing::Running => Some(None),
                    // Its first start goes on.
                    Standing::Restarting { .. } if serving.restarts == 0 => None,
                    Standing::Restarting { .. } | Standing::Down { .. } => {
                        Some(Some(Refused::NotAnswering(to.clone())))
                    }
                }
            }
        }
    }
}
