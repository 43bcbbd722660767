//! An update of the trusted metadata, all of it decided by bytes and a time that the caller brings.
//!
//! `tough` does the workflow of TUF. What stands around it here:
//! - it is given the root that is *stored*; the one that came with the config is only the first of these;
//! - a stored file that can't be read is an error; `tough` would skip the comparison with it;
//! - it works in a folder of its own; everything that was accepted is saved once, at the end, whatever failed later;
//! - floors of our own, lowered only by a newer root that changes a role's keys;
//! - bounds on files and bytes ([`Bundle`]); a timestamp of a stored version with other content is discarded;
//! - keys are counted, not key ids; roots for development stay among themselves;
//! - expiry is judged by the caller's time too, and a clock that went back is an error.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::de::DeserializeOwned;
use tough::{
    ExpirationEnforcement, Limits, RepositoryLoader,
    schema::{Role as Metadata, RoleType, Root, Signed, Snapshot, Targets, Timestamp},
};
use url::Url;

use crate::{
    Bundle, Role, Stored, TrustError, Trusted, TrustedStore,
    bundle::{BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX},
    files::{self, Files},
    root,
    state::{self, State},
    transport::Memory,
    verdict,
};

/// So far may the clock stand behind the time of the last accepted update: clocks are adjusted now and then.
const CLOCK_SLACK: Duration = Duration::from_secs(600);
/// Where `tough` believes that the files are; it never leaves this process.
const BASE: &str = "memory:///";

/// What a host allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Roots that `controller init --dev` made.
    pub allow_dev: bool,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A host, to install.
    Install,
    /// The publisher, to sign snapshot and targets anew: the time of these two doesn't matter.
    Sign,
}

/// Verifies what a server offered and saves what was accepted; `now` is the time by which expiry is judged.
///
/// Fails if any role is refused; roles before it are kept all the same.
pub async fn update(
    store: &dyn TrustedStore,
    bundle: &Bundle,
    now: SystemTime,
    policy: Policy,
) -> Result<Trusted, TrustError> {
    run(store, bundle, now, (policy, Purpose::Install)).await
}

/// As [`update`], for a publisher who is about to sign snapshot and targets anew: it doesn't matter that the time of
/// these two is over. Never to be used before an install.
pub async fn update_for_signing(
    store: &dyn TrustedStore,
    bundle: &Bundle,
    now: SystemTime,
    policy: Policy,
) -> Result<Trusted, TrustError> {
    run(store, bundle, now, (policy, Purpose::Sign)).await
}

async fn run(
    store: &dyn TrustedStore,
    bundle: &Bundle,
    now: SystemTime,
    (policy, purpose): (Policy, Purpose),
) -> Result<Trusted, TrustError> {
    let state = State::read(store.load()?)?;
    let now = seconds(now);
    root::refuse_dev(&state.root.signed, policy.allow_dev)?;
    check_clock(state.stored.verified_at, now)?;
    let attempt = Attempt::make(&state, bundle, (policy, purpose, now)).await?;
    let mut next = state.stored.clone();
    let outcome = attempt.accept_into(&mut next, &state, (now, purpose));
    if next != state.stored {
        store.save(&next)?;
    }
    outcome?;
    Ok(Trusted::of(&State::read(next)?))
}

/// What `tough` accepted, and why it went no further.
struct Attempt {
    root: Option<Signed<Root>>,
    root_bytes: Option<Vec<u8>>,
    files: Files,
    failure: Option<TrustError>,
}

impl Attempt {
    async fn make(
        state: &State,
        bundle: &Bundle,
        (policy, purpose, now): (Policy, Purpose, u64),
    ) -> Result<Self, TrustError> {
        let folder = tempfile::tempdir().map_err(io_error)?;
        stage(folder.path(), &state.stored).map_err(io_error)?;
        let memory = Memory::new(state, bundle, policy.allow_dev);
        let result = load(state, &memory, folder.path(), purpose).await?;
        let served = memory.files();
        let failure = result
            .err()
            .map(|error| memory.take_refusal().unwrap_or_else(|| verdict::translate(&error, &served, now)));
        let root: Option<Signed<Root>> = accepted_root(folder.path()).map_err(io_error)?;
        let root = root.filter(|root| root.signed.version > state.root.signed.version);
        let root_bytes =
            root.as_ref().and_then(|root| bundle.root(root.signed.version.get())).map(<[u8]>::to_vec);
        let files = match failure {
            None => served,
            Some(_) => only_accepted(served, folder.path(), &state.stored).map_err(io_error)?,
        };
        Ok(Self { root, root_bytes, files, failure })
    }

    /// Takes over role by role, until one is refused.
    fn accept_into(
        self,
        next: &mut Stored,
        state: &State,
        (now, purpose): (u64, Purpose),
    ) -> Result<(), TrustError> {
        let root = match (&self.root, &self.root_bytes) {
            (Some(root), Some(bytes)) => {
                follow(next, &state.root.signed, root, state::text(bytes, Role::Root)?);
                &root.signed
            }
            _ => &state.root.signed,
        };
        check_expiry(root, now)?;
        let always = Judge { now, judge_time: true };
        let unless_signing = Judge { now, judge_time: purpose == Purpose::Install };
        always.accept::<Timestamp>(self.files.timestamp, &mut next.timestamp, &mut next.floors.timestamp)?;
        unless_signing.accept::<Snapshot>(
            self.files.snapshot,
            &mut next.snapshot,
            &mut next.floors.snapshot,
        )?;
        unless_signing.accept::<Targets>(self.files.targets, &mut next.targets, &mut next.floors.targets)?;
        match self.failure {
            Some(failure) => Err(failure),
            None => {
                next.verified_at = next.verified_at.max(now);
                Ok(())
            }
        }
    }
}

async fn load(
    state: &State,
    memory: &Memory,
    folder: &Path,
    purpose: Purpose,
) -> Result<Result<(), tough::error::Error>, TrustError> {
    let base = Url::parse(BASE).map_err(|cause| TrustError::Io { reason: cause.to_string() })?;
    let loader = RepositoryLoader::new(&state.stored.root, base.clone(), base)
        .transport(memory.clone())
        .datastore(folder)
        .limits(limits())
        .expiration_enforcement(match purpose {
            Purpose::Install => ExpirationEnforcement::Safe,
            Purpose::Sign => ExpirationEnforcement::Unsafe,
        });
    Ok(Box::pin(loader.load()).await.map(drop))
}

/// The bounds of [`Bundle`] hold already; these are the same for `tough`.
const fn limits() -> Limits {
    Limits {
        max_root_size: BUNDLE_BYTES_MAX as u64,
        max_targets_size: BUNDLE_BYTES_MAX as u64,
        max_timestamp_size: BUNDLE_BYTES_MAX as u64,
        max_snapshot_size: BUNDLE_BYTES_MAX as u64,
        max_root_updates: BUNDLE_FILES_MAX as u64 + 1,
    }
}

/// Puts what is stored where `tough` looks for older metadata.
fn stage(folder: &Path, stored: &Stored) -> io::Result<()> {
    let files = [("timestamp.json", stored.timestamp()), ("snapshot.json", stored.snapshot())];
    files
        .into_iter()
        .filter_map(|(name, bytes)| Some((name, bytes?)))
        .try_for_each(|(name, bytes)| fs::write(folder.join(name), bytes))
}

/// The last root that `tough` accepted.
fn accepted_root(folder: &Path) -> io::Result<Option<Signed<Root>>> {
    let bytes = read_if_there(&folder.join("root.json"))?;
    Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
}

/// Of the served files those that `tough` accepted: it writes a file when it has.
fn only_accepted(served: Files, folder: &Path, stored: &Stored) -> io::Result<Files> {
    let accepted = |name: &str, before: Option<&[u8]>, served: Option<Vec<u8>>| {
        let written = read_if_there(&folder.join(name))?;
        let changed = written.is_some() && written.as_deref() != before;
        Ok::<_, io::Error>(served.filter(|_| changed))
    };
    Ok(Files {
        root: served.root,
        timestamp: accepted("timestamp.json", stored.timestamp(), served.timestamp)?,
        snapshot: accepted("snapshot.json", stored.snapshot(), served.snapshot)?,
        targets: accepted("targets.json", None, served.targets)?,
    })
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes over a newer root. Where it changes the keys of timestamp or snapshot both floors fall, and where it changes
/// those of the targets theirs: otherwise a thief who signed version 2^63 had stopped the fleet for good.
fn follow(next: &mut Stored, old: &Root, new: &Signed<Root>, bytes: String) {
    let changed = |role| root::keys_differ(old, &new.signed, role);
    if changed(RoleType::Timestamp) || changed(RoleType::Snapshot) {
        (next.timestamp, next.snapshot) = (None, None);
        (next.floors.timestamp, next.floors.snapshot) = (0, 0);
    }
    if changed(RoleType::Targets) {
        (next.targets, next.floors.targets) = (None, 0);
    }
    keep_if_signed::<Timestamp>(&mut next.timestamp, &new.signed);
    keep_if_signed::<Snapshot>(&mut next.snapshot, &new.signed);
    keep_if_signed::<Targets>(&mut next.targets, &new.signed);
    next.root = bytes;
    next.floors.root = new.signed.version.get();
}

/// Drops stored metadata that the new root doesn't vouch for, e.g. because it wants more signatures; its floor stays.
fn keep_if_signed<T: Metadata + DeserializeOwned>(stored: &mut Option<String>, root: &Root) {
    let signed = |text: &String| {
        serde_json::from_str::<Signed<T>>(text).is_ok_and(|signed| root.verify_role(&signed).is_ok())
    };
    *stored = stored.take().filter(signed);
}

/// Judges one file after the other by floor and time.
#[derive(Clone, Copy)]
struct Judge {
    now: u64,
    judge_time: bool,
}

impl Judge {
    /// Takes over a file that `tough` accepted, if it was.
    fn accept<T: Metadata + DeserializeOwned>(
        self,
        file: Option<Vec<u8>>,
        stored: &mut Option<String>,
        floor: &mut u64,
    ) -> Result<(), TrustError> {
        let Some(bytes) = file else { return Ok(()) };
        let role = state::role(T::TYPE);
        let signed: Signed<T> = serde_json::from_slice(&bytes)
            .map_err(|cause| TrustError::Malformed { role, reason: cause.to_string() })?;
        let offered = signed.signed.version().get();
        if offered < *floor {
            return Err(TrustError::Rollback { role, offered, seen: *floor });
        }
        if self.judge_time {
            check_expiry(&signed.signed, self.now)?;
        }
        *stored = Some(state::text(&bytes, role)?);
        *floor = offered;
        Ok(())
    }
}

fn check_expiry<T: Metadata>(metadata: &T, now: u64) -> Result<(), TrustError> {
    match now.checked_sub(files::end(metadata)) {
        Some(ago) if ago > 0 => {
            Err(TrustError::Expired { role: state::role(T::TYPE), ago: Duration::from_secs(ago) })
        }
        _ => Ok(()),
    }
}

fn check_clock(verified_at: u64, now: u64) -> Result<(), TrustError> {
    let behind = Duration::from_secs(verified_at.saturating_sub(now));
    if behind > CLOCK_SLACK { Err(TrustError::Clock { behind }) } else { Ok(()) }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn io_error(error: io::Error) -> TrustError {
    TrustError::Io { reason: error.to_string() }
}
