//! Attacks on what a host loads: each is refused before one instruction of the library runs.
//!
//! The library's constructor writes a line to the worker's log pipe. After an attack that line must be missing; the
//! same library, pushed without the attack, leaves it.

mod bytes;
mod constructors;
mod elf;
mod metadata;
mod stage;
mod thief;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use fleetswap_integration_tests::harness::{Fleet, Plugin, repository};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::{
    common::{QUICK, fleet, subject},
    impostor::Impostor,
};

const LINE: &str = "constructor of subject";

struct Scene {
    runtime: Runtime,
    fleet: Fleet,
    impostor: Impostor,
    plugin: Plugin,
}

impl Scene {
    fn set() -> Result<Self> {
        let runtime = Runtime::new()?;
        let mut fleet = fleet(1)?;
        let impostor = Impostor::step_between(&runtime, &mut fleet)?;
        let plugin = subject(&fleet, "1.0.0", &["CONSTRUCTOR_SPEAKS"])?;
        Ok(Self { runtime, fleet, impostor, plugin })
    }

    /// Pushes under attack, demands this failure, which ran nothing; then pushes in peace, and demands that
    /// the library runs and speaks.
    fn refuses(&self, fault: &str, code: &str) -> Result<()> {
        let impatient = ["--hosts", "all", "--healthy-deadline", "4s"];
        let outcome = self.fleet.push(&self.plugin, &[&QUICK[..], &impatient].concat())?.expect(3)?;
        let rollout = outcome.json()?["rollout"].clone();
        let failure = &rollout["failure"];
        ensure!(failure["fault"] == fault, "the fault is {failure}");
        ensure!(failure["code"] == code, "the code is not {code}: {failure}");
        ensure!(!self.has_spoken()?, "the library ran under attack");
        self.impostor.lie(None, None);
        self.fleet.push(&self.plugin, &QUICK)?.expect(0)?;
        ensure!(self.has_spoken()?, "the same library in peace leaves its line");
        Ok(())
    }

    fn has_spoken(&self) -> Result<bool> {
        Ok(self.fleet.agents[0].run(["logs", "subject"])?.stdout.contains(LINE))
    }

    fn artifact(&self) -> Result<String> {
        let digest = Sha256::digest(fs::read(&self.plugin.file)?);
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The timestamp with other fields, signed by a key.
fn resigned(
    timestamp: &[u8],
    key: &Ed25519KeyPair,
    keyid: &str,
    change: impl Fn(&mut Value),
) -> Result<Vec<u8>> {
    let mut metadata: Value = serde_json::from_slice(timestamp)?;
    change(&mut metadata["signed"]);
    let signature = key.sign(metadata["signed"].to_string().as_bytes());
    let hex: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    metadata["signatures"] = json!([{ "keyid": keyid, "sig": hex }]);
    Ok(metadata.to_string().into_bytes())
}

fn keyid_of(timestamp: &[u8]) -> Result<String> {
    let metadata: Value = serde_json::from_slice(timestamp)?;
    Ok(metadata["signatures"][0]["keyid"].as_str().context("a key id")?.to_owned())
}

#[test]
fn a_flipped_byte_in_the_artifact_is_refused() -> Result<()> {
    let scene = Scene::set()?;
    let artifact = scene.artifact()?;
    let lie = move |sha256: &str, mut blob: Vec<u8>| {
        if sha256 == artifact {
            let middle = blob.len() / 2;
            blob[middle] ^= 1;
        }
        blob
    };
    scene.impostor.lie(None, Some(Box::new(lie)));
    scene.refuses("link", "FETCH_FAILED")
}

#[test]
fn an_artifact_that_is_one_byte_longer_is_refused() -> Result<()> {
    let scene = Scene::set()?;
    let artifact = scene.artifact()?;
    let lie = move |sha256: &str, mut blob: Vec<u8>| {
        if sha256 == artifact {
            blob.push(0);
        }
        blob
    };
    scene.impostor.lie(None, Some(Box::new(lie)));
    scene.refuses("link", "FETCH_FAILED")
}

#[test]
fn metadata_without_a_signature_is_refused() -> Result<()> {
    let scene = Scene::set()?;
    let lie = |name: &str, data: Vec<u8>| {
        let Ok(mut metadata) = serde_json::from_slice::<Value>(&data) else { return data };
        if name == "timestamp.json" {
            metadata["signatures"] = json!([]);
        }
        metadata.to_string().into_bytes()
    };
    scene.impostor.lie(Some(Box::new(lie)), None);
    scene.refuses("trust", "TRUST_THRESHOLD")
}

#[test]
fn metadata_signed_by_a_wrong_key_is_refused() -> Result<()> {
    let scene = Scene::set()?;
    let key = Ed25519KeyPair::generate()?;
    let keyid: String = Sha256::digest(key.public_key()).iter().map(|byte| format!("{byte:02x}")).collect();
    let lie = move |name: &str, data: Vec<u8>| {
        if name == "timestamp.json" { resigned(&data, &key, &keyid, |_| {}).unwrap_or(data) } else { data }
    };
    scene.impostor.lie(Some(Box::new(lie)), None);
    scene.refuses("trust", "TRUST_THRESHOLD")
}

#[test]
fn expired_metadata_is_refused_although_its_signature_is_good() -> Result<()> {
    let scene = Scene::set()?;
    let key = Ed25519KeyPair::from_pkcs8(&fs::read(scene.fleet.path("controller/timestamp.key"))?)?;
    let ended = humantime::format_rfc3339_seconds(SystemTime::now() - Duration::from_secs(60)).to_string();
    let lie = move |name: &str, data: Vec<u8>| {
        let Ok(keyid) = keyid_of(&data) else { return data };
        if name != "timestamp.json" {
            return data;
        }
        resigned(&data, &key, &keyid, |signed| signed["expires"] = ended.clone().into()).unwrap_or(data)
    };
    scene.impostor.lie(Some(Box::new(lie)), None);
    scene.refuses("trust", "TRUST_EXPIRED_TIMESTAMP")
}

#[test]
fn older_metadata_that_is_played_back_is_refused() -> Result<()> {
    let scene = Scene::set()?;
    // The host sees the metadata of this push, and then that of the next one.
    let other = subject(&scene.fleet, "0.9.0", &[])?;
    scene.fleet.push(&other, &[&QUICK[..], &["--hosts", "all"]].concat())?.expect(0)?;
    let old = scene.impostor.seen();
    scene.fleet.push(&subject(&scene.fleet, "0.9.1", &[])?, &QUICK)?.expect(0)?;
    let lie = move |name: &str, data: Vec<u8>| {
        old.iter().find(|(old_name, _)| old_name == name).map_or(data, |(_, old)| old.clone())
    };
    scene.impostor.lie(Some(Box::new(lie)), None);
    scene.refuses("trust", "TRUST_ROLLBACK")?;
    drop(scene.runtime);
    Ok(())
}

/// What stands between an offer and a library that runs: nothing there may be chosen when the program is built.
const GUARDED: [&str; 4] = ["agent/Cargo.toml", "agent/trust/Cargo.toml", "agent/src", "agent/trust/src"];
/// Words by which a build is made another one. Tests are no build that anybody runs.
const SWITCHES: [&str; 8] = [
    "[features]",
    "optional = true",
    "build = ",
    "cfg(",
    "cfg!(",
    "cfg_attr(",
    "debug_assertions",
    "option_env!(",
];

#[test]
fn no_build_can_switch_verification_off() -> Result<()> {
    for path in GUARDED {
        let files = files_under(&repository().join(path))?;
        ensure!(!files.is_empty(), "{path} is gone");
        for file in files {
            let text = fs::read_to_string(&file)?;
            let found = switches(&text);
            ensure!(found.is_empty(), "{} can be built in another way: {found:?}", file.display());
        }
    }
    ensure!(
        !repository().join("agent/build.rs").exists() && !repository().join("agent/trust/build.rs").exists()
    );
    Ok(())
}

#[test]
fn a_switch_in_a_source_is_noticed() {
    assert_eq!(switches("#[cfg(test)]\nmod tests;"), Vec::<&str>::new());
    assert_eq!(switches("    if cfg!(debug_assertions) {"), ["if cfg!(debug_assertions) {"]);
    assert_eq!(switches("#[cfg(feature = \"fast\")]\n"), ["#[cfg(feature = \"fast\")]"]);
    assert_eq!(switches("#[cfg(any(test, unsigned))]"), ["#[cfg(any(test, unsigned))]"]);
    assert_eq!(switches("[features]\nunsigned = []"), ["[features]"]);
}

fn switches(text: &str) -> Vec<&str> {
    let is_switch = |line: &&str| *line != "#[cfg(test)]" && SWITCHES.iter().any(|word| line.contains(word));
    text.lines().map(str::trim).filter(is_switch).collect()
}

fn files_under(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        files.extend(files_under(&entry?.path())?);
    }
    Ok(files)
}
