//! `kill -9` in the middle of a push: exactly the old or the new release runs, and the rollout ends by itself.
//!
//! For the moment in which a host fetches see the throttled mirrors in [`crate::mirrors`].

use anyhow::{Result, ensure};
use fleetswap_integration_tests::harness::Fleet;
use serde_json::{Value, json};

use crate::common::{Pushed, QUICK, fleet, install, plugin_status, runs, subject, wait_for_the_end};

/// One host that runs 1.0.0, and a push of 1.1.0 at a certain moment.
struct Moment {
    fleet: Fleet,
    installed: Value,
    pushed: Pushed,
}

impl Moment {
    /// Pushes, and waits until the host's trial is in a state.
    fn reach(candidate: &[&str], more: &[&str], state: &str) -> Result<Self> {
        let fleet = fleet(1)?;
        let installed = install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
        let pushed = Pushed::detached(&fleet, &subject(&fleet, "1.1.0", candidate)?, more)?;
        pushed.wait_for_trial(&fleet.agents[0], state)?;
        Ok(Self { fleet, installed, pushed })
    }

    fn kill_the_agent(mut self) -> Result<Self> {
        self.fleet.agents[0].kill();
        self.fleet.agents[0].start()?;
        Ok(self)
    }

    fn kill_the_controller(mut self) -> Result<Self> {
        self.fleet.controller = None;
        self.fleet.start_controller()?;
        Ok(self)
    }

    /// Waits for the end of the acknowledged rollout, and demands that neither side has forgotten anything.
    fn end(&self) -> Result<Value> {
        let rollout = self.pushed.wait_for_the_end(&self.fleet)?;
        let history = self.fleet.controller(["history", "-o", "json"])?.expect(0)?.json()?;
        let known: Vec<Value> = history["rollouts"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|rollout| json!([rollout["rollout_id"], rollout["state"]]))
            .collect();
        let first = json!([self.installed["rollout_id"], "SUCCEEDED"]);
        assert_eq!(known, [json!([self.pushed.id, rollout["state"]]), first]);
        let host = &rollout["hosts"][0];
        let trial = self.pushed.trial(&self.fleet.agents[0])?;
        assert_eq!(trial["state"], host["state"], "host and controller know the same verdict");
        Ok(rollout)
    }

    fn blames_the_release_and_keeps_the_old_one(&self, verdicts: &[&str]) -> Result<()> {
        let rollout = self.end()?;
        assert_eq!(rollout["state"], "FAILED");
        let verdict = &rollout["hosts"][0]["state"];
        assert!(verdicts.iter().any(|wanted| verdict == wanted), "{verdict}");
        assert_eq!(rollout["failure"]["fault"], "release", "{}", rollout["failure"]);
        assert_eq!(rollout["from"], self.installed["to"]);
        runs(&self.fleet.agents[0], &rollout["from"])
    }

    fn commits_the_new_one(&self) -> Result<()> {
        let rollout = self.end()?;
        assert_eq!(rollout["state"], "SUCCEEDED");
        assert_eq!(rollout["hosts"][0]["state"], "COMMITTED");
        runs(&self.fleet.agents[0], &self.pushed.to)
    }
}

#[test]
fn an_agent_killed_while_probing_blames_the_release_and_keeps_the_old_one() -> Result<()> {
    let moment = Moment::reach(&["HEALTH_BLOCKS"], &QUICK, "PROBING")?;
    moment.kill_the_agent()?.blames_the_release_and_keeps_the_old_one(&["REJECTED"])
}

#[test]
fn an_agent_killed_while_switching_blames_the_release_and_keeps_the_old_one() -> Result<()> {
    let moment = Moment::reach(&["ACTIVATE_BLOCKS"], &QUICK, "SWITCHING")?;
    moment.kill_the_agent()?.blames_the_release_and_keeps_the_old_one(&["REJECTED", "ROLLED_BACK"])
}

#[test]
fn an_agent_killed_in_probation_blames_the_release_and_goes_back() -> Result<()> {
    let moment = Moment::reach(&[], &["--min-healthy-time", "60s"], "PROBATION")?;
    moment.kill_the_agent()?.blames_the_release_and_keeps_the_old_one(&["ROLLED_BACK"])
}

/// There is no controller that could tell the host again what to run.
#[test]
fn an_agent_killed_just_after_commit_runs_the_new_release_by_its_own_record() -> Result<()> {
    let mut moment = Moment::reach(&[], &QUICK, "COMMITTED")?;
    moment.fleet.agents[0].kill();
    moment.fleet.stop_controller()?;
    moment.fleet.agents[0].start()?;
    let agent = &moment.fleet.agents[0];
    runs(agent, &moment.pushed.to)?;
    assert_eq!(moment.pushed.trial(agent)?["state"], "COMMITTED");
    assert_eq!(agent.status()?["controller"]["connected"], false);
    moment.fleet.start_controller()?;
    moment.commits_the_new_one()
}

#[test]
fn a_controller_killed_while_a_host_probes_learns_the_verdict() -> Result<()> {
    let impatient = [&QUICK[..], &["--healthy-deadline", "8s"]].concat();
    let moment = Moment::reach(&["HEALTH_BLOCKS"], &impatient, "PROBING")?;
    moment.kill_the_controller()?.blames_the_release_and_keeps_the_old_one(&["REJECTED"])
}

#[test]
fn a_controller_killed_while_a_host_switches_learns_the_verdict() -> Result<()> {
    let moment = Moment::reach(&["ACTIVATE_BLOCKS"], &QUICK, "SWITCHING")?;
    moment.kill_the_controller()?.blames_the_release_and_keeps_the_old_one(&["REJECTED"])
}

#[test]
fn a_controller_killed_during_probation_learns_of_the_commit() -> Result<()> {
    let moment = Moment::reach(&[], &["--min-healthy-time", "2s"], "PROBATION")?;
    moment.kill_the_controller()?.commits_the_new_one()
}

#[test]
fn a_controller_killed_just_after_commit_still_knows_it() -> Result<()> {
    let moment = Moment::reach(&[], &QUICK, "COMMITTED")?;
    moment.kill_the_controller()?.commits_the_new_one()
}

#[test]
fn an_acknowledged_push_survives_the_death_of_the_controller() -> Result<()> {
    let fleet = fleet(1)?;
    let installed = install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let pushed = Pushed::detached(&fleet, &subject(&fleet, "1.1.0", &[])?, &QUICK)?;
    let moment = Moment { fleet, installed, pushed };
    moment.kill_the_controller()?.commits_the_new_one()
}

#[test]
fn an_acknowledged_report_survives_the_death_of_the_controller() -> Result<()> {
    let mut fleet = fleet(1)?;
    let installed = install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    // Nobody is left to report it again.
    fleet.agents[0].kill();
    fleet.controller = None;
    fleet.start_controller()?;
    let rollout = wait_for_the_end(&fleet)?;
    assert_eq!(rollout["rollout_id"], installed["rollout_id"]);
    assert_eq!(rollout["hosts"][0]["state"], "COMMITTED");
    let hosts = fleet.controller(["host", "list", "-o", "json"])?.expect(0)?.json()?;
    assert_eq!(hosts["hosts"][0]["plugins"][0]["active"]["version"], "1.0.0");
    Ok(())
}

/// The push has been followed to its failure, so the report of it was acknowledged, and so is what the host refuses from
/// then on.
#[test]
fn a_failure_that_was_reported_is_still_known_after_both_are_killed() -> Result<()> {
    let mut fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let failed = fleet.push(&subject(&fleet, "1.1.0", &["HEALTH_IS_RED"])?, &QUICK)?.expect(3)?;
    let failed = failed.json()?["rollout"].clone();
    fleet.agents[0].kill();
    fleet.controller = None;
    fleet.start_controller()?;
    let known = fleet.controller(["status", "r-000002", "-o", "json"])?.expect(3)?.json()?["rollout"].clone();
    assert_eq!((&known["state"], &known["failure"]), (&failed["state"], &failed["failure"]));
    fleet.agents[0].start()?;
    let denied = plugin_status(&fleet.agents[0], "subject")?["denied"].clone();
    ensure!(denied[0]["release"]["release_id"] == failed["to"]["release_id"], "{denied}");
    runs(&fleet.agents[0], &failed["from"])
}
