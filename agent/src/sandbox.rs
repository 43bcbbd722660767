//! Sandbox: how plugins are kept on this host, found out once at the start.

use fleetswap_host::{Cgroup, Level, Limits, sandbox_level};
use serde::{Deserialize, Serialize};

/// What every worker gets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sandbox {
    /// How strictly it is locked in. Where the host can't give the least that is asked for, workers are refused at it.
    pub(crate) level: Level,
    /// Where its limits are kept by the kernel.
    pub(crate) cgroup: Option<Cgroup>,
    /// The same for people.
    pub(crate) told: Told,
}

/// How plugins are kept, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The level that is reached; empty: no plugin is loaded.
    pub(crate) level: String,
    /// The least that the configuration asks for.
    pub(crate) min: String,
    /// Why no plugin is loaded; empty otherwise.
    pub(crate) problem: String,
    /// What keeps memory, threads and processor time: `cgroup` or `watch`.
    pub(crate) limits: String,
    /// Why it is not a cgroup; empty if it is.
    pub(crate) no_cgroup: String,
}

impl Sandbox {
    /// The highest level that there is, if it is at least `min`; and a cgroup, if one was delegated to the agent, which this
    /// process then moves into. Without a sandbox the agent still serves as a host that can be seen; loading is refused.
    pub(crate) fn set_up(min: Level, limits: &Limits) -> Self {
        let reached = sandbox_level(min).inspect_err(|error| {
            tracing::error!(code = error.code(), %error, "no plugin can be loaded on this host");
        });
        if reached == Ok(Level::Basic) {
            tracing::warn!(
                "plugins can read what the agent's user can read: sandbox.min was lowered to `basic`"
            );
        }
        let claimed = Cgroup::claim();
        if limits.cpu_percent.is_some() && !claimed.as_ref().is_ok_and(Cgroup::has_cpu) {
            tracing::warn!(
                "limits.cpu_percent is not kept: that takes a delegated cgroup with the controller `cpu`"
            );
        }
        let no_cgroup = claimed.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let told = Told {
            level: reached.as_ref().map(ToString::to_string).unwrap_or_default(),
            min: min.to_string(),
            problem: reached.as_ref().err().map(ToString::to_string).unwrap_or_default(),
            limits: if claimed.is_ok() { "cgroup" } else { "watch" }.to_owned(),
            no_cgroup,
        };
        tracing::info!(
            level = told.level,
            limits = told.limits,
            no_cgroup = told.no_cgroup,
            "how plugins are kept"
        );
        Self { level: reached.unwrap_or(min), cgroup: claimed.ok(), told }
    }
}

impl Told {
    /// On one line.
    pub(crate) fn line(&self) -> String {
        if !self.problem.is_empty() {
            return format!("no plugin can be loaded: {}", self.problem);
        }
        let why = if self.no_cgroup.is_empty() { String::new() } else { format!(" ({})", self.no_cgroup) };
        format!("{}, limits kept by the {}{why}", self.level, self.limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_reaches_its_least_says_so_and_one_that_does_not_says_why() {
        let told = Sandbox::set_up(Level::Standard, &Limits::default()).told;
        assert!(told.level.parse::<Level>().unwrap() >= Level::Standard, "{told:?}");
        assert!(
            told.line().starts_with(&told.level) && told.line().contains("limits kept by the "),
            "{told:?}"
        );
        let refused = Told { problem: "no Landlock".to_owned(), ..Told::default() };
        assert_eq!(refused.line(), "no plugin can be loaded: no Landlock");
    }
}
