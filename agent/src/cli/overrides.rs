//! `agent hold | release | rollback`: what was done, what that means, and how to undo it.

use clap::Args;

use super::Common;
use crate::{
    control::{LocalOverride, OverrideReply},
    run::Verb,
};

/// An order about one plugin.
#[derive(Args, Debug)]
pub(super) struct Order {
    /// The plugin's name.
    pub(super) plugin: String,
    /// Why; shown to everybody who looks at this host. One line, at most 256 bytes.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
    #[command(flatten)]
    pub(super) common: Common,
}

/// The answer, for people.
pub(super) fn text(verb: Verb, reply: &OverrideReply) -> String {
    let name = &reply.plugin.plugin;
    let runs =
        reply.plugin.active.as_ref().map_or_else(|| "nothing".to_owned(), |active| active.version.clone());
    let (done, means) = match verb {
        Verb::Hold => (held(reply, name, &runs), kept(name)),
        Verb::RollBack => (back(reply, name, &runs), kept(name)),
        Verb::Release => (
            format!("{name} is released; {runs} runs here"),
            "the controller decides again: what it offered meanwhile, or offers next, takes its course"
                .to_owned(),
        ),
    };
    let undo = match verb {
        Verb::Hold | Verb::RollBack => format!("undo: agent release {name} --reason TEXT"),
        Verb::Release => format!("undo: agent hold {name} --reason TEXT"),
    };
    let safe = "the agent is in safe mode: nothing is started before it is restarted without --safe";
    let lines = [Some(done), Some(means), reply.safe_mode.then(|| safe.to_owned()), Some(undo)];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn held(reply: &OverrideReply, name: &str, runs: &str) -> String {
    let again = if reply.changed { "" } else { " already" };
    match reply.plugin.trial.as_ref().filter(|trial| trial.is_past_its_switch()) {
        Some(trial) => {
            let version = trial.candidate.as_ref().map_or("-", |candidate| candidate.version.as_str());
            format!(
                "{name} is held{again}; {version} is in {} and ends by its own verdict, as callers are its already \
                 (agent rollback {name} --reason TEXT takes it back at once)",
                trial.state
            )
        }
        None => format!("{name} is held{again} on {runs}"),
    }
}

fn back(reply: &OverrideReply, name: &str, runs: &str) -> String {
    let from = reply.local_override().and_then(|it| it.from.as_ref());
    let from = from.map_or_else(String::new, |from| format!(" from {}", from.version));
    match (reply.changed, reply.local_override().map(|it| it.kind.as_str())) {
        (_, Some("ROLLING_BACK")) => {
            format!("{name} goes back{from} with the next start: a trial was cut, and is judged first")
        }
        (true, _) => format!("{name} is rolled back{from} to {runs}, and held there"),
        (false, _) => format!("{name} was rolled back{from} to {runs} before, and is held there"),
    }
}

fn kept(name: &str) -> String {
    format!(
        "the controller can't change {name} on this host until it is released, restarts included; the controller \
         shows it, and leaves the host out of its rollouts"
    )
}

/// Who holds a plugin, since when and why.
pub(super) fn standing(it: &LocalOverride) -> String {
    let from = it.from.as_ref().map_or_else(String::new, |from| format!(" from {}", from.version));
    let how = match it.kind.as_str() {
        "ROLLED_BACK" => format!("rolled back{from} and held"),
        "ROLLING_BACK" => format!("being rolled back{from}"),
        _ => "held".to_owned(),
    };
    format!("{how} by {} since {}: {}", it.by, it.since, it.reason)
}
