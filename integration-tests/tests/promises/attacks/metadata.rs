//! Metadata that lies, with valid signatures where they can be had: refused by the agent, and what runs goes on.

use std::{
    fs,
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::eventually;
use serde_json::{Value, json};

use super::{
    stage::{NEW, OLD, Stage, release_of},
    thief::{Chain, sha256},
};
use crate::impostor::Flood;

/// Most metadata of one answer, in bytes; as in `agent/trust`.
const METADATA_MAX: usize = 4 * 1024 * 1024;
/// What the system takes off a sender's hands before a reader asks for it, in bytes.
const ON_ITS_WAY: usize = 4 * 1024 * 1024;
/// What hostile metadata may cost at most, in kB; the table of attacks allows no more.
const HOSTILE_KB: u64 = 64 * 1024;

impl Stage {
    /// Pushes a good release while the host is shown other metadata; returns the rollout at its end.
    fn shown(&self, chain: &Chain) -> Result<Value> {
        let release = self.published()?;
        self.impostor.tell(|lies| lies.files = Some(chain.files()));
        self.roll_out(&release)
    }

    fn look(&self) -> Result<Chain> {
        self.runtime.block_on(self.thief.look())
    }
}

#[test]
fn targets_that_a_signed_snapshot_calls_a_tebibyte_long_are_cut_off_at_the_cap() -> Result<()> {
    let stage = Stage::set()?;
    let release = stage.published()?;
    let mut chain = stage.look()?;
    stage.thief.sign(&mut chain);
    chain.snapshot["signed"]["meta"]["targets.json"]["length"] = json!(1_u64 << 40);
    stage.thief.sign_snapshot(&mut chain);
    let before = stage.memory_kb("VmRSS")?;
    stage.impostor.tell(|lies| {
        lies.files = Some(chain.files());
        lies.flood = Some(Flood::EndlessTargets);
    });
    stage.refused(&stage.roll_out(&release)?, ("trust", "TRUST_TOO_LARGE"))?;
    let (times, bytes) = (&stage.impostor.hung_up, &stage.impostor.flooded);
    let (times, bytes) = (times.load(Ordering::SeqCst), bytes.load(Ordering::SeqCst));
    ensure!(bytes >= METADATA_MAX, "the flood must reach the cap: {bytes}");
    ensure!(bytes <= times.max(1) * (METADATA_MAX + ON_ITS_WAY), "{bytes} bytes in {times} tries");
    let grown = stage.memory_kb("VmHWM")?.saturating_sub(before);
    ensure!(grown < HOSTILE_KB, "the agent grew by {grown} kB");
    stage.recovers("1.2.0")
}

#[test]
fn a_new_snapshot_that_names_old_targets_is_a_rollback() -> Result<()> {
    let stage = Stage::set()?;
    let old = stage.look()?.targets;
    stage.release("1.0.1", stage.library("1.0.1", "", &[])?)?;
    let release = stage.published()?;
    let mut chain = stage.look()?;
    stage.thief.sign(&mut chain);
    let bytes = old.to_string().into_bytes();
    chain.snapshot["signed"]["meta"]["targets.json"] = json!({
        "version": old["signed"]["version"], "length": bytes.len(), "hashes": { "sha256": sha256(&bytes) },
    });
    chain.targets = old;
    stage.thief.sign_snapshot(&mut chain);
    stage.impostor.tell(|lies| lies.files = Some(chain.files()));
    let rollout = stage.roll_out(&release)?;
    let failure = &rollout["failure"];
    ensure!(failure["fault"] == "trust" && failure["code"] == "TRUST_ROLLBACK", "{rollout}");
    ensure!(!stage.has_spoken(NEW)?, "the library ran");
    stage.serves("1.0.1")?;
    stage.recovers("1.2.0")
}

#[test]
fn under_an_expired_timestamp_nothing_is_installed_and_what_is_committed_runs_and_starts_again() -> Result<()>
{
    let mut stage = Stage::set()?;
    let mut chain = stage.look()?;
    stage.thief.sign(&mut chain);
    let ended = humantime::format_rfc3339_seconds(SystemTime::now() - Duration::from_secs(1)).to_string();
    chain.timestamp["signed"]["expires"] = ended.into();
    stage.thief.sign_timestamp(&mut chain);
    let rollout = stage.shown(&chain)?;
    stage.refused(&rollout, ("trust", "TRUST_EXPIRED_TIMESTAMP"))?;
    stage.fleet.agents[0].kill();
    stage.fleet.agents[0].start()?;
    eventually("the committed release answers", || Ok(stage.serves(OLD).ok()))?;
    stage.recovers("1.2.0")
}

#[test]
fn a_release_that_is_older_than_the_committed_one_is_refused_although_it_is_signed() -> Result<()> {
    let stage = Stage::set()?;
    let older = stage.library("0.9.0", "", &[])?;
    let older = super::thief::Forged::subject("0.9.0", older)?;
    stage.runtime.block_on(stage.thief.publish(&older))?;
    let pushed = stage.runtime.block_on(stage.thief.push(&older, 4_000)).err().context("it was pushed")?;
    ensure!(format!("{pushed:?}").contains("PUSH_DOWNGRADE"), "the controller: {pushed:?}");
    // A controller that is the thief's own would offer it all the same.
    let release = stage.published()?;
    let id = older.id();
    stage.impostor.tell(|lies| {
        lies.offer = Some(Box::new(move |state| {
            for release in state.plugins.iter_mut().filter_map(release_of) {
                if release.version == NEW {
                    "0.9.0".clone_into(&mut release.version);
                    release.release_id.clone_from(&id);
                }
            }
        }));
    });
    stage.runtime.block_on(stage.thief.push(&release, 4_000))?;
    let failure = stage.wait_for_failure("DOWNGRADE_REFUSED")?;
    ensure!(failure["fault"] == "trust", "{failure}");
    stage.unharmed("0.9.0")
}

/// Both copies of the record of what was accepted.
fn trusted_files(stage: &Stage) -> [std::path::PathBuf; 2] {
    ["a", "b"].map(|copy| stage.state().join(format!("trust/trusted.{copy}")))
}

/// Changes what a host has accepted, with a checksum that fits.
fn rewrite_trusted(stage: &Stage, change: impl Fn(&mut Value)) -> Result<()> {
    let files = trusted_files(stage);
    let text = fs::read_to_string(&files[0])?;
    let (line, body) = text.split_once('\n').context("a first line")?;
    let [magic, format, sequence, _] = line.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("the first line is {line}")
    };
    let mut body: Value = serde_json::from_str(body)?;
    change(&mut body);
    let sum = sha256(format!("{format} {sequence}\n{body}").as_bytes());
    files
        .iter()
        .try_for_each(|file| fs::write(file, format!("{magic} {format} {sequence} {sum}\n{body}")))?;
    Ok(())
}

/// Starts the agent, which refuses to and says this.
fn refuses_to_start(stage: &mut Stage, code: &str) -> Result<()> {
    let refusal = stage.fleet.agents[0].start().err().context("the agent started")?;
    ensure!(format!("{refusal:#}").contains(code), "not {code}: {refusal:#}");
    Ok(())
}

#[test]
fn old_metadata_is_not_accepted_by_a_host_whose_store_was_truncated() -> Result<()> {
    let mut stage = Stage::set()?;
    let old = stage.look()?;
    stage.release("1.0.1", stage.library("1.0.1", "", &[])?)?;
    let release = stage.published()?;
    stage.impostor.tell(|lies| lies.files = Some(old.files()));
    let files = trusted_files(&stage);
    let good = fs::read(&files[0])?;
    // The parts of the record, as a crash would have left them if each were a file of its own.
    stage.fleet.agents[0].kill();
    rewrite_trusted(&stage, |stored| {
        (stored["timestamp"], stored["snapshot"]) = (json!(""), json!(""));
    })?;
    refuses_to_start(&mut stage, "TRUST_STORE_DAMAGED")?;
    // Both copies.
    files.iter().try_for_each(|file| fs::write(file, b""))?;
    refuses_to_start(&mut stage, "RECORD_DAMAGED")?;
    // One copy: the other one remembers.
    fs::write(&files[1], &good)?;
    stage.fleet.agents[0].start()?;
    eventually("the committed release answers", || Ok(stage.serves("1.0.1").ok()))?;
    let rollout = stage.roll_out(&release)?;
    ensure!(rollout["failure"]["code"] == "TRUST_ROLLBACK", "{rollout}");
    ensure!(!stage.has_spoken(NEW)?, "the library ran");
    stage.recovers("1.2.0")
}

/// The host's clock can't be set here: it is told that it has seen the time of a clock that was ahead.
#[test]
fn a_clock_that_was_ahead_once_stops_installs_with_its_cure_and_nothing_that_runs() -> Result<()> {
    let mut stage = Stage::set()?;
    let release = stage.published()?;
    let before = fs::read(&trusted_files(&stage)[0])?;
    stage.fleet.agents[0].kill();
    rewrite_trusted(&stage, |stored| {
        let seen = stored["verified_at"].as_u64().unwrap_or_default();
        stored["verified_at"] = json!(seen + 23 * 3600);
    })?;
    stage.fleet.agents[0].start()?;
    eventually("the committed release answers", || Ok(stage.serves(OLD).ok()))?;
    let rollout = stage.roll_out(&release)?;
    stage.refused(&rollout, ("host", "TRUST_CLOCK"))?;
    let words = rollout["failure"]["message"].as_str().unwrap_or_default();
    ensure!(words.contains("the clock is 2") && words.contains("behind the time of the last"), "{words}");
    stage.fleet.agents[0].kill();
    trusted_files(&stage).iter().try_for_each(|file| fs::write(file, &before))?;
    stage.fleet.agents[0].start()?;
    stage.recovers("1.2.0")
}

/// Names that would leave a folder, or that no file system likes.
fn hostile_names() -> [String; 6] {
    let long = format!("{}.json", "a".repeat(4096));
    let plain = ["../x.json", "/etc/x.json", "a%2f..%2fb.json", "a\0b.json", "x/../../y.json"];
    let [a, b, c, d, e] = plain.map(str::to_owned);
    [a, b, c, d, e, long]
}

/// Every file of the fleet's folder outside of the host's store.
fn files_outside(stage: &Stage) -> Result<Vec<std::path::PathBuf>> {
    let own = [stage.state(), stage.fleet.path("controller"), stage.fleet.path("publisher")];
    let is_own = |path: &std::path::PathBuf| own.iter().any(|own| path.starts_with(own));
    let mut files: Vec<_> =
        super::files_under(&stage.fleet.path(""))?.into_iter().filter(|path| !is_own(path)).collect();
    files.sort();
    Ok(files)
}

#[test]
fn hostile_names_are_refused_at_publish_and_write_no_file_on_a_host() -> Result<()> {
    let stage = Stage::set()?;
    let release = stage.published()?;
    let before = files_outside(&stage)?;
    for name in hostile_names() {
        let honest = stage.look()?;
        let mut chain = honest.clone();
        chain.list(&name, b"manifest");
        stage.thief.sign(&mut chain);
        let shown = stage.runtime.block_on(stage.thief.show(&honest, &chain, vec![b"manifest".to_vec()]));
        let words = shown.err().with_context(|| format!("{name:.20} was published"))?.to_string();
        let known = ["REQUEST_INVALID", "TRUST_MALFORMED"].iter().any(|code| words.starts_with(code));
        ensure!(known && words.len() < 1024, "{name:.20}: {words}");
        // A controller that is the thief's own.
        stage.impostor.tell(|lies| lies.files = Some(chain.files()));
    }
    let mut chain = stage.look()?;
    hostile_names().iter().for_each(|name| chain.list(name, b"manifest"));
    stage.thief.sign(&mut chain);
    let names: Vec<String> = hostile_names().into();
    stage.impostor.tell(|lies| {
        lies.files = Some(chain.files());
        lies.blobs.insert(sha256(b"manifest"), b"manifest".to_vec());
        lies.offer = Some(Box::new(move |state| {
            if let Some(like) = state.plugins.first().cloned() {
                for name in &names {
                    let mut other = like.clone();
                    other.plugin.clone_from(name);
                    if let Some(release) = release_of(&mut other) {
                        release.plugin.clone_from(name);
                        release.release_id = sha256(b"manifest");
                    }
                    state.plugins.push(other);
                }
            }
        }));
    });
    stage.runtime.block_on(stage.thief.push(&release, 4_000))?;
    eventually("the agent has refused such a state", || {
        let log = fs::read_to_string(stage.agent().folder().join("agent.log"))?;
        Ok(log.contains("it is not a plugin name").then_some(()))
    })?;
    ensure!(files_outside(&stage)? == before, "there are other files than before");
    stage.unharmed(NEW)
}

/// Text that costs a careless reader memory, time or its stack.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let keys = (0..1_000_000).map(|key| format!("\"{key}\":0")).collect::<Vec<_>>().join(",");
    let signed = |fields: &str| format!("{{\"signatures\":[],\"signed\":{{{fields}}}}}").into_bytes();
    vec![
        ("a key twice", b"{\"signatures\":[],\"signatures\":[],\"signed\":{}}".to_vec()),
        ("deep", "[".repeat(10_000).into_bytes()),
        ("deep inside", signed(&format!("\"x\":{}", "[".repeat(10_000)))),
        ("a million keys", signed(&keys)),
        ("as many as fit", signed(&keys[..keys[..900_000].rfind(',').unwrap_or_default()])),
        ("a huge number", signed("\"version\":1e400")),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec()),
        ("something behind", b"{\"signatures\":[],\"signed\":{}}{}".to_vec()),
    ]
}

#[test]
fn text_bombs_are_refused_at_publish_and_by_the_agent_and_cost_little() -> Result<()> {
    let stage = Stage::set()?;
    let honest = stage.look()?;
    for (name, bomb) in bombs() {
        let snapshot = honest.snapshot.to_string().into_bytes();
        for files in [(bomb.clone(), snapshot), (honest.targets.to_string().into_bytes(), bomb)] {
            let shown = stage.runtime.block_on(stage.thief.show_bytes(&honest, files, Vec::new()));
            let words = shown.err().with_context(|| format!("{name} was published"))?.to_string();
            let known = ["REQUEST_INVALID", "TRUST_M", "REQUEST_TOO_LARGE"].iter();
            ensure!(known.into_iter().any(|code| words.starts_with(code)), "{name}: {words}");
        }
    }
    let before = stage.memory_kb("VmRSS")?;
    for (number, (name, bomb)) in bombs().into_iter().enumerate() {
        let version = format!("1.1.{number}");
        let library = stage.library(&version, "", &[])?;
        let release = super::thief::Forged::subject(&version, library)?;
        stage.runtime.block_on(stage.thief.publish(&release))?;
        let chain = stage.look()?;
        stage.impostor.tell(|lies| {
            let mut files = chain.files();
            files[number % 3].1 = bomb;
            lies.files = Some(files);
        });
        let rollout = stage.roll_out(&release)?;
        let failure = &rollout["failure"];
        let codes = ["TRUST_MALFORMED", "TRUST_TOO_LARGE", "TRUST_MISMATCH"];
        ensure!(failure["fault"] == "trust", "{name}: {failure}");
        ensure!(codes.iter().any(|code| failure["code"] == *code), "{name}: {failure}");
        stage.unharmed(&version).context(name)?;
    }
    let grown = stage.memory_kb("VmHWM")?.saturating_sub(before);
    ensure!(grown < HOSTILE_KB, "the agent grew by {grown} kB");
    stage.recovers("1.2.0")
}

#[test]
fn older_metadata_that_a_mirror_plays_back_after_a_whole_update_is_a_rollback() -> Result<()> {
    let stage = Stage::set()?;
    let first = stage.look()?;
    stage.release("1.0.1", stage.library("1.0.1", "", &[])?)?;
    let release = stage.published()?;
    stage.impostor.tell(|lies| lies.files = Some(first.files()));
    let rollout = stage.roll_out(&release)?;
    ensure!(rollout["failure"]["code"] == "TRUST_ROLLBACK", "{rollout}");
    ensure!(!stage.has_spoken(NEW)?, "the library ran");
    stage.serves("1.0.1")?;
    stage.recovers("1.2.0")
}
