//! A plugin that counts, played in this process: the phases of a worker without the process.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use fleetswap_host::{CallError, Cause, Death, ImageWriter, LoadError};
use fleetswap_trust::{
    Digest, Manifest,
    manifest::{BlobRef, HealthRule, Platform, Probe},
};
use fleetswap_update::{Installed, StateVersions};
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{Instance, Launch, Package, instance::Asked};

pub(crate) const PLATFORM: &str = "x86_64-linux-gnu";

/// What a release of the counting plugin is like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kind {
    /// State versions that it writes and reads; empty: it has no state.
    pub(crate) state: Vec<u32>,
    /// It can't be loaded.
    pub(crate) unloadable: bool,
    /// Its health is always red.
    pub(crate) sick: bool,
    /// It can't take a state over.
    pub(crate) forgetful: bool,
    /// It hands a state over and takes one over only while it is let go.
    pub(crate) ponderous: bool,
    /// It can't save its state.
    pub(crate) tight_lipped: bool,
    /// Once at rest it does not wake again.
    pub(crate) sleepy: bool,
    /// Once at rest, waking it meets a bug of the agent.
    pub(crate) explosive: bool,
    /// It is active at once, and says so only when it is let go.
    pub(crate) stately: bool,
    /// Its health gives no answer.
    pub(crate) mute: bool,
    /// Functional probe of `count`: the expected answer.
    pub(crate) probe: Option<serde_json::Value>,
}

/// Loads counting plugins and remembers them.
#[derive(Default)]
pub(crate) struct Zoo {
    kinds: Mutex<BTreeMap<String, Kind>>,
    /// Every instance that was launched, oldest first.
    pub(crate) launched: Mutex<Vec<Arc<Counter>>>,
    /// Instances with state that are active now.
    active: Arc<AtomicUsize>,
    /// The most that ever were.
    pub(crate) most_active: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Loaded,
    Created,
    Active,
    Deactivated,
}

/// One instance. `count` counts, `slow` answers when it is let go, `die` kills it, `panic` panics.
pub(crate) struct Counter {
    pub(crate) version: String,
    kind: Kind,
    phase: Mutex<Phase>,
    pub(crate) count: AtomicU64,
    pub(crate) calls: AtomicU32,
    sick: AtomicBool,
    death: watch::Sender<Option<Arc<Death>>>,
    pub(crate) let_go: watch::Sender<bool>,
    active: Arc<AtomicUsize>,
    most_active: Arc<AtomicUsize>,
}

impl Zoo {
    /// A package of this version; later launches of it behave like `kind`.
    pub(crate) fn package(&self, version: &str, kind: Kind) -> Arc<Package> {
        let (manifest, descriptor) = (manifest(version, &kind), descriptor(version, &kind));
        self.kinds.lock().unwrap().insert(version.to_owned(), kind);
        let artifact = artifact(version);
        let mut writer = ImageWriter::new(artifact.len() as u64).unwrap();
        writer.write(&artifact).unwrap();
        let image = writer.seal(&Digest::of(&artifact).bytes()).unwrap();
        Arc::new(Package::new(manifest, image, descriptor, Bytes::new()).unwrap())
    }

    /// The instance that was launched last.
    pub(crate) fn newest(&self) -> Arc<Counter> {
        Arc::clone(self.launched.lock().unwrap().last().unwrap())
    }
}

/// The bytes of the library, as they lie on disk.
pub(crate) fn artifact(version: &str) -> Vec<u8> {
    format!("library {version}").into_bytes()
}

/// What the record says of a package.
pub(crate) fn installed(package: &Package) -> Installed {
    let state = &package.descriptor.state;
    Installed {
        release: package.release().clone(),
        state: StateVersions { writes: state.writes.clone(), reads: state.reads.clone() },
        background: false,
        floor: None,
        part: package.release().to_string(),
    }
}

pub(crate) fn manifest(version: &str, kind: &Kind) -> Manifest {
    let artifact = BlobRef::to(&artifact(version));
    let descriptor = BlobRef::to(&descriptor(version, kind));
    let probe = |expected: &serde_json::Value| Probe {
        function: "count".into(),
        input: json!({}),
        expected: expected.clone(),
    };
    Manifest {
        format: 1,
        plugin: "counter".into(),
        version: version.parse().unwrap(),
        revision: 1,
        min_agent: "0.1.0".parse().unwrap(),
        floor: None,
        probes: kind.probe.iter().map(probe).collect(),
        health: HealthRule { interval_ms: 10, green: 2, timeout_ms: 1_000 },
        config: None,
        data: Vec::new(),
        platforms: BTreeMap::from([(PLATFORM.to_owned(), Platform { artifact, descriptor })]),
    }
}

pub(crate) fn descriptor(version: &str, kind: &Kind) -> Bytes {
    let function = |name: &str, idempotent: bool| json!({"name": name, "input": {}, "output": {}, "idempotent": idempotent, "probe_safe": true, "raw": false});
    let functions: Vec<_> =
        [("count", false), ("slow", false), ("die", false), ("panic", false), ("again", true)]
            .into_iter()
            .map(|(name, idempotent)| function(name, idempotent))
            .collect();
    let descriptor = json!({
        "format": 1, "name": "counter", "version": version, "concurrency": 8, "functions": functions,
        "state": {"writes": kind.state, "reads": kind.state}, "background": false, "needs": [], "config": null,
    });
    Bytes::from(descriptor.to_string())
}

impl Launch for Zoo {
    fn launch<'a>(&'a self, package: &'a Package) -> BoxFuture<'a, Result<Arc<dyn Instance>, LoadError>> {
        let version = package.release().version.to_string();
        let kind = self.kinds.lock().unwrap()[&version].clone();
        async move {
            if kind.unloadable {
                return Err(LoadError::CannotOpen { words: "file too short".into() });
            }
            let counter = Arc::new(Counter {
                version,
                sick: AtomicBool::new(kind.sick),
                kind,
                phase: Mutex::new(Phase::Loaded),
                count: AtomicU64::new(0),
                calls: AtomicU32::new(0),
                death: watch::Sender::new(None),
                let_go: watch::Sender::new(false),
                active: Arc::clone(&self.active),
                most_active: Arc::clone(&self.most_active),
            });
            self.launched.lock().unwrap().push(Arc::clone(&counter));
            Ok(counter as Arc<dyn Instance>)
        }
        .boxed()
    }
}

impl Counter {
    /// Its process ends by itself.
    pub(crate) fn crash(&self) {
        self.die(Cause::Signal(11));
    }

    pub(crate) fn fall_sick(&self) {
        self.sick.store(true, SeqCst);
    }

    pub(crate) fn is_active(&self) -> bool {
        *self.phase.lock().unwrap() == Phase::Active && self.death.borrow().is_none()
    }

    fn die(&self, cause: Cause) {
        let was_active = self.is_active();
        let death = Death { cause, running: Vec::new(), log_tail: "last words".into(), crash: None };
        let first = self.death.send_if_modified(|present| {
            let first = present.is_none();
            present.get_or_insert(Arc::new(death));
            first
        });
        if first && was_active && !self.kind.state.is_empty() {
            self.active.fetch_sub(1, SeqCst);
        }
    }

    fn died(&self, written: bool) -> Option<CallError> {
        let death = self.death.borrow().clone();
        death.map(|death| CallError::Died { written, death })
    }

    fn go(&self, from: &[Phase], to: Phase) -> Result<(), CallError> {
        if let Some(died) = self.died(false) {
            return Err(died);
        }
        let mut phase = self.phase.lock().unwrap();
        if !from.contains(&phase) {
            return Err(CallError::Illegal);
        }
        let was = std::mem::replace(&mut *phase, to);
        if !self.kind.state.is_empty() && was != to {
            if to == Phase::Active {
                self.most_active.fetch_max(self.active.fetch_add(1, SeqCst) + 1, SeqCst);
            } else if was == Phase::Active {
                self.active.fetch_sub(1, SeqCst);
            }
        }
        Ok(())
    }

    async fn run(&self, function: &str) -> Result<Bytes, CallError> {
        self.calls.fetch_add(1, SeqCst);
        match function {
            "count" => Ok(self.reply(self.count.fetch_add(1, SeqCst) + 1)),
            "slow" => {
                let (mut death, mut go) = (self.death.subscribe(), self.let_go.subscribe());
                tokio::select! {
                    _ = death.wait_for(Option::is_some) => Err(self.died(true).unwrap()),
                    _ = go.wait_for(|go| *go) => Ok(self.reply(self.count.fetch_add(1, SeqCst) + 1)),
                }
            }
            "panic" => Err(CallError::Panic("on purpose".into())),
            "again" if self.version == "2.0.0" => Ok(self.reply(0)),
            _ => {
                self.crash();
                Err(self.died(true).unwrap())
            }
        }
    }

    async fn ponder(&self) {
        if self.kind.ponderous {
            let _ = self.let_go.subscribe().wait_for(|go| *go).await;
        }
    }

    fn reply(&self, count: u64) -> Bytes {
        Bytes::from(json!({"version": self.version, "count": count}).to_string())
    }
}

impl Instance for Counter {
    fn create(&self, _config: Bytes) -> Asked<'_, ()> {
        async { self.go(&[Phase::Loaded], Phase::Created) }.boxed()
    }

    fn health(&self, timeout: Duration) -> Asked<'_, String> {
        async move {
            if self.kind.mute {
                sleep(timeout).await;
                return Err(CallError::Deadline);
            }
            match self.died(false) {
                Some(died) => Err(died),
                None if self.sick.load(SeqCst) => {
                    Err(CallError::Plugin { code: "SICK".into(), message: "red".into() })
                }
                None => Ok(String::new()),
            }
        }
        .boxed()
    }

    fn call<'a>(&'a self, function: &'a str, _input: Bytes, within: Duration) -> Asked<'a, Bytes> {
        async move {
            if let Some(died) = self.died(false) {
                return Err(died);
            }
            timeout(within, self.run(function)).await.unwrap_or(Err(CallError::Deadline))
        }
        .boxed()
    }

    fn activate(&self) -> Asked<'_, ()> {
        async {
            let at_rest = *self.phase.lock().unwrap() == Phase::Deactivated;
            assert!(!(at_rest && self.kind.explosive), "on purpose");
            if self.kind.sleepy && at_rest {
                return Err(CallError::Deadline);
            }
            self.go(&[Phase::Created, Phase::Deactivated], Phase::Active)?;
            if self.kind.stately {
                let _ = self.let_go.subscribe().wait_for(|go| *go).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn deactivate(&self) -> Asked<'_, ()> {
        async { self.go(&[Phase::Active], Phase::Deactivated) }.boxed()
    }

    fn save_state(&self, version: u32) -> Asked<'_, Bytes> {
        async move {
            let phase = *self.phase.lock().unwrap();
            self.go(&[Phase::Active, Phase::Deactivated], phase)?;
            self.ponder().await;
            if self.kind.tight_lipped || !self.kind.state.contains(&version) {
                return Err(CallError::Unsupported);
            }
            Ok(Bytes::from(self.count.load(SeqCst).to_string()))
        }
        .boxed()
    }

    fn restore_state(&self, version: u32, state: Bytes) -> Asked<'_, ()> {
        async move {
            self.go(&[Phase::Created], Phase::Created)?;
            self.ponder().await;
            if self.kind.forgetful || !self.kind.state.contains(&version) {
                return Err(CallError::Unsupported);
            }
            self.count.store(std::str::from_utf8(&state).unwrap().parse().unwrap(), SeqCst);
            Ok(())
        }
        .boxed()
    }

    fn destroy(&self) -> Asked<'_, ()> {
        async { self.go(&[Phase::Created, Phase::Deactivated], Phase::Loaded) }.boxed()
    }

    fn ended(&self) -> BoxFuture<'_, Arc<Death>> {
        async {
            let mut death = self.death.subscribe();
            let death = death.wait_for(Option::is_some).await.unwrap();
            Arc::clone(death.as_ref().unwrap())
        }
        .boxed()
    }

    fn is_gone(&self) -> bool {
        self.death.borrow().is_some()
    }

    fn kill(&self) {
        self.die(Cause::Killed);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async { self.die(Cause::Closed) }.boxed()
    }

    fn pid(&self) -> u32 {
        0
    }

    fn log_tail(&self) -> String {
        "last words".into()
    }
}
