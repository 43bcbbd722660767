//! The trust that the agent starts with: what every install would be refused for is said before there is one.

use std::{path::Path, time::SystemTime};

use fleetswap_proto::Explained;
use fleetswap_trust::{TrustError, Trusted, trusted};

use crate::{
    config::Config,
    durable::TrustDir,
    explain::{self, root_cause},
};

/// Looks at the trusted root. What comes back hinders installs, but not what runs already.
///
/// # Errors
/// There is no root that can be used, what was accepted is damaged, or the root is one for development and the
/// configuration doesn't allow it.
pub(super) fn check(
    trust: &TrustDir,
    config: &Config,
    now: SystemTime,
) -> Result<Option<Explained>, Explained> {
    let is_new = trust.is_new().map_err(|error| explain::durable(&error))?;
    let trusted = trusted(trust).map_err(|error| match error {
        error if is_new => no_root(&error, &config.trust_root),
        error => unreadable(&error),
    })?;
    if trusted.is_dev() && !config.allow_dev_trust {
        return Err(dev_root(&config.trust_root, is_new));
    }
    Ok(trusted.root_expired(now).map(|error| expired(&error, &trusted)))
}

fn no_root(error: &TrustError, trust_root: &Path) -> Explained {
    let why = match error {
        TrustError::StoreDamaged { reason, .. } => {
            format!("it is no root that its own keys have signed ({reason})")
        }
        other => root_cause(other),
    };
    Explained::new(
        "TRUST_STORE_UNUSABLE",
        format!("the agent has no root of trust: `trust_root` ({}) can't be used", trust_root.display()),
        why,
        "copy root.json of the publisher's folder to `trust_root` (`controller init` prints its path), and see that \
         the agent may read it",
    )
}

fn unreadable(error: &TrustError) -> Explained {
    Explained::new(
        error.code(),
        error.to_string(),
        format!("{}; `trust_root` counts only on a new host", root_cause(error)),
        "look for disk errors and restore `state_dir` from a backup; or start with an empty `state_dir`, as on a new \
         host, after a look at `trust_root`",
    )
}

fn dev_root(trust_root: &Path, is_new: bool) -> Explained {
    let (place, elsewhere) = if is_new {
        (format!("`trust_root` ({})", trust_root.display()), "set `trust_root` to the fleet's real root")
    } else {
        (
            "the root that this host trusts (kept in `state_dir`)".to_owned(),
            "start with an empty `state_dir` and `trust_root` set to the fleet's real root",
        )
    };
    Explained::new(
        TrustError::DevRoot.code(),
        format!("{place} was made by `controller init --dev`, and this host doesn't accept such trust"),
        "its keys lie together on one machine, made without care, and the configuration has no \
         `allow_dev_trust = true`: every release would be refused",
        format!(
            "on a host for tests add the line `allow_dev_trust = true` above the first [section] of the \
             configuration; for real work {elsewhere}"
        ),
    )
}

fn expired(error: &TrustError, trusted: &Trusted) -> Explained {
    let fix = if trusted.is_dev() {
        "run `controller init --dev` with new folders, and start this agent with its root.json as `trust_root` and \
         an empty `state_dir`"
    } else {
        "publish the next version of the root, signed by the keys of this one and its own"
    };
    let why = format!(
        "a root has an end so that old keys don't count for ever; this is v{}",
        trusted.versions().root
    );
    Explained::new(error.code(), error.to_string(), why, fix)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        time::{Duration, UNIX_EPOCH},
    };

    use fleetswap_trust::{Stored, TrustedStore};

    use super::*;
    use crate::durable::StateDir;

    /// `controller init --dev` made it; it ends on 24 December 2026.
    const DEV_ROOT: &[u8] = include_bytes!("dev-root.json");

    fn december(day: u64) -> SystemTime {
        const FIRST: u64 = 1_796_083_200;
        UNIX_EPOCH + Duration::from_secs(FIRST + (day - 1) * 86_400)
    }

    /// A new host whose `trust_root` has these bytes.
    struct Host {
        dir: tempfile::TempDir,
        trust: TrustDir,
        config: Config,
    }

    impl Host {
        fn new(root: &[u8], more: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            fs::write(at("root.json"), root).unwrap();
            let text = format!(
                "name = \"a\"\nstate_dir = {:?}\ncontroller = \"127.0.0.1:1\"\ntrust_root = {:?}\n{more}\n",
                at("state"),
                at("root.json"),
            );
            fs::write(at("agent.toml"), text).unwrap();
            let config = Config::load(&at("agent.toml")).unwrap();
            let trust = StateDir::open(&config.state_dir).unwrap().trust(&config.trust_root);
            Self { dir, trust, config }
        }

        fn check(&self, now: SystemTime) -> Result<Option<Explained>, Explained> {
            check(&self.trust, &self.config, now)
        }
    }

    #[test]
    fn a_root_for_development_needs_its_line_in_the_configuration() {
        let host = Host::new(DEV_ROOT, "");
        let error = host.check(december(1)).unwrap_err();
        assert_eq!(error.code, "TRUST_DEV_ROOT");
        assert!(error.what.contains("root.json") && error.fix.contains("allow_dev_trust = true"), "{error}");
        assert_eq!(Host::new(DEV_ROOT, "allow_dev_trust = true").check(december(1)), Ok(None));
    }

    #[test]
    fn a_root_for_development_that_is_trusted_already_is_refused_as_well() {
        let host = Host::new(DEV_ROOT, "");
        host.trust.save(&Stored::from_root(DEV_ROOT).unwrap()).unwrap();
        let error = host.check(december(1)).unwrap_err();
        assert_eq!(error.code, "TRUST_DEV_ROOT");
        assert!(
            error.fix.contains("empty `state_dir`"),
            "another trust_root alone would change nothing: {error}"
        );
    }

    #[test]
    fn a_root_whose_time_is_over_is_a_warning_since_what_runs_goes_on() {
        let host = Host::new(DEV_ROOT, "allow_dev_trust = true");
        let warning = host.check(december(28)).unwrap().unwrap();
        assert_eq!(warning.code, "TRUST_EXPIRED_ROOT");
        assert!(warning.what.contains("ended 3 d ago") && warning.fix.contains("init --dev"), "{warning}");
    }

    #[test]
    fn a_trust_root_that_is_none_says_what_is_wrong_with_the_file() {
        let changed = String::from_utf8(DEV_ROOT.to_vec()).unwrap().replacen("2026-12-24", "2036-12-24", 1);
        for (root, wrong) in [(&b"{}"[..], "missing field"), (b"", "EOF"), (changed.as_bytes(), "ignature")] {
            let error = Host::new(root, "").check(december(1)).unwrap_err();
            assert_eq!(error.code, "TRUST_STORE_UNUSABLE");
            assert!(error.what.contains("root.json") && error.why.contains(wrong), "{error}");
            assert!(!error.why.contains("stored"), "nothing was stored yet: {error}");
        }
        let host = Host::new(DEV_ROOT, "");
        fs::remove_file(host.dir.path().join("root.json")).unwrap();
        let error = host.check(december(1)).unwrap_err();
        assert!(error.why.contains("names no file"), "{error}");
    }

    #[test]
    fn damage_to_what_was_accepted_is_not_blamed_on_the_trust_root() {
        let host = Host::new(DEV_ROOT, "allow_dev_trust = true");
        host.trust.save(&Stored::from_root(DEV_ROOT).unwrap()).unwrap();
        for copy in ["a", "b"] {
            fs::write(host.dir.path().join(format!("state/trust/trusted.{copy}")), "x").unwrap();
        }
        let error = host.check(december(1)).unwrap_err();
        assert_eq!(error.code, "RECORD_DAMAGED");
        assert!(error.what.contains("trusted"), "{error}");
    }
}
