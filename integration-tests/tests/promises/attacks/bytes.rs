//! Artifacts that are not what was signed: on the way, and on the disk. Those that change between two looks are in the mutants' test.

use std::{fs, path::PathBuf, sync::atomic::Ordering};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{Binaries, compile_c, eventually, repository};

use super::{
    files_under,
    stage::{NEW, OLD, Stage},
    thief::sha256,
};
use crate::{
    common::{QUICK, call, plugin_status},
    impostor::Flood,
};

/// What the system takes off a sender's hands before a reader asks for it, in bytes.
const ON_ITS_WAY: usize = 4 * 1024 * 1024;
/// A source that sends a byte a second is given up within so many bytes.
const SLOW_BYTES_MAX: usize = 30;
/// Calls that are answered while a source is slow, at least.
const CALLS_MEANWHILE: usize = 500;

#[test]
fn a_flipped_byte_in_the_artifact_is_refused_on_the_way_and_on_the_disk() -> Result<()> {
    let mut stage = Stage::set()?;
    let release = stage.published()?;
    let artifact = sha256(&release.artifact);
    let flipped = artifact.clone();
    stage.impostor.tell(|lies| {
        lies.blob = Some(Box::new(move |sha256, mut blob| {
            if sha256 == flipped {
                let middle = blob.len() / 2;
                blob[middle] ^= 1;
            }
            blob
        }));
    });
    stage.refused_on_the_way(&stage.roll_out(&release)?, "the SHA-256 is wrong")?;
    ensure!(!stage.state().join("blobs").join(&artifact).exists(), "wrong bytes lie where right ones belong");
    stage.recovers("1.2.0")?;
    // The disk: what is committed turned bad, and the release before it serves.
    let committed = stage.library("1.2.0", "", &[])?;
    let file = stage.state().join("blobs").join(sha256(&committed));
    let mut bad = fs::read(&file)?;
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    stage.fleet.agents[0].kill();
    let spoken = stage.log_lines("1.2.0");
    fs::write(&file, bad)?;
    stage.fleet.agents[0].start()?;
    eventually("the release before it serves", || Ok(stage.serves(OLD).ok()))?;
    ensure!(stage.log_lines("1.2.0") <= spoken, "bytes that nobody signed were run");
    let log = fs::read_to_string(stage.agent().folder().join("agent.log"))?;
    ensure!(log.contains("ARTIFACT_HASH"), "the log says why");
    Ok(())
}

impl Stage {
    /// No source gave what was signed, and that is why: bytes are asked for again until the host's time is over, which
    /// may be in the middle of a try.
    fn refused_on_the_way(&self, rollout: &serde_json::Value, why: &str) -> Result<()> {
        let code = &rollout["failure"]["code"];
        let codes = ["FETCH_FAILED", "FETCH_DEADLINE"];
        let code = codes.into_iter().find(|known| code == known).with_context(|| format!("{rollout}"))?;
        self.refused(rollout, ("link", code))?;
        let log = fs::read_to_string(self.agent().folder().join("agent.log"))?;
        ensure!(log.contains(why), "the log doesn't say: {why}");
        Ok(())
    }

    /// How often the constructor of a version has spoken; 0 if nobody can tell.
    fn log_lines(&self, version: &str) -> usize {
        let line = format!("constructor of subject {version} ran");
        self.log().map_or(0, |log| log.matches(&line).count())
    }
}

#[test]
fn an_artifact_without_end_is_cut_off_at_its_signed_length() -> Result<()> {
    let stage = Stage::set()?;
    let release = stage.published()?;
    let artifact = sha256(&release.artifact);
    stage.impostor.tell(|lies| lies.flood = Some(Flood::EndlessBlob(artifact.clone())));
    stage.refused_on_the_way(&stage.roll_out(&release)?, "more bytes than the blob has")?;
    let (times, bytes) = (&stage.impostor.hung_up, &stage.impostor.flooded);
    let (times, bytes) = (times.load(Ordering::SeqCst), bytes.load(Ordering::SeqCst));
    ensure!(times > 0, "the agent never hung up");
    let each = release.artifact.len() + ON_ITS_WAY;
    ensure!(bytes <= (times + 1) * each, "{bytes} bytes were taken in {times} tries");
    for file in files_under(&stage.state())? {
        let length = fs::metadata(&file)?.len();
        ensure!(length <= release.artifact.len() as u64, "{} has {length} bytes", file.display());
    }
    stage.recovers("1.2.0")
}

#[test]
fn a_source_that_sends_a_byte_a_second_is_given_up_while_callers_are_served() -> Result<()> {
    let stage = Stage::set()?;
    let release = stage.published()?;
    stage.impostor.tell(|lies| lies.flood = Some(Flood::SlowBlob(sha256(&release.artifact))));
    stage.runtime.block_on(stage.thief.push(&release, 60_000))?;
    let mut calls = 0;
    eventually("the agent gives the source up", || {
        for _ in 0..20 {
            stage.serves(OLD)?;
            calls += 1;
        }
        Ok((stage.impostor.hung_up.load(Ordering::SeqCst) > 0).then_some(()))
    })?;
    let bytes = stage.impostor.flooded.load(Ordering::SeqCst);
    ensure!(bytes <= SLOW_BYTES_MAX, "the agent waited {bytes} s");
    ensure!(calls >= CALLS_MEANWHILE, "only {calls} calls were answered meanwhile");
    stage.unharmed(NEW)
}

#[test]
fn two_plugins_under_the_same_descriptor_number_are_each_themselves() -> Result<()> {
    let stage = Stage::set()?;
    let folder = stage.fleet.path("");
    let source = repository().join("plugin-sdk/examples/checksum/checksum.c");
    let checksum = compile_c(&source, "checksum", "1.0.0", &[], &folder)?;
    stage.fleet.push(&checksum, &[&QUICK[..], &["--hosts", "all"]].concat())?.expect(0)?;
    let clock = Binaries::find()?.example("clock", "1.0.0")?;
    stage.fleet.push(&clock, &[&QUICK[..], &["--hosts", "all"]].concat())?.expect(0)?;
    let workers = stage.children()?;
    ensure!(workers.len() == 3, "a worker each: {workers:?}");
    let images: Vec<PathBuf> =
        workers.iter().map(|pid| fs::read_link(format!("/proc/{pid}/fd/4"))).collect::<Result<_, _>>()?;
    ensure!(images.iter().all(|image| image.starts_with("/memfd:fleetswap-image (deleted)")), "{images:?}");
    for _ in 0..10 {
        stage.serves(OLD)?;
        let crc = call(&stage.agent().caller(), "checksum", "crc32", "123456789")?;
        ensure!(crc.status == 200 && crc.version == "1.0.0", "{crc:?}");
        let time = call(&stage.agent().caller(), "clock", "time", "{\"unix_seconds\":0}")?;
        ensure!(time.status == 200 && time.body.to_string().contains("1970"), "{time:?}");
    }
    // And one after the other: the next release of a plugin is not the last one's code.
    for version in ["1.1.0", "1.1.1", "1.1.2"] {
        let rollout = stage.release(version, stage.library(version, "", &[])?)?;
        ensure!(rollout["state"] == "SUCCEEDED", "{rollout}");
        stage.serves(version)?;
        ensure!(plugin_status(stage.agent(), "subject")?["active"]["version"] == version);
    }
    Ok(())
}
