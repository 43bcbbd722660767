//! The memory that `tough` reads from instead of a network.
//!
//! `tough` asks for one file after another, so this is also where each file is chosen and where roots are checked
//! beyond what `tough` does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::stream;
use tough::{
    Bytes, Transport, TransportError, TransportErrorKind, TransportStream,
    schema::{RoleType, Root},
};
use url::Url;

use crate::{
    Bundle, Role, Stored, TrustError,
    files::{Files, check_type, child_version, version},
    root,
    state::State,
};

/// Serves an offered bundle; cheap to clone, all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Mutex<Served>>);

/// What was offered, what is stored, and what has been served so far.
#[derive(Debug)]
struct Served {
    bundle: Bundle,
    stored: Stored,
    allow_dev: bool,
    /// The last root that was served; `tough` asks for the next one only when it has accepted this one.
    root: Root,
    /// A newer root changed the keys of timestamp or snapshot: what is stored of them counts no more.
    rotated: bool,
    refusal: Option<TrustError>,
    timestamp: Option<Vec<u8>>,
    snapshot: Option<Vec<u8>>,
    targets: Option<Vec<u8>>,
}

impl Memory {
    pub(crate) fn new(state: &State, bundle: &Bundle, allow_dev: bool) -> Self {
        Self(Arc::new(Mutex::new(Served {
            bundle: bundle.clone(),
            stored: state.stored.clone(),
            allow_dev,
            root: state.root.signed.clone(),
            rotated: false,
            refusal: None,
            timestamp: None,
            snapshot: None,
            targets: None,
        })))
    }

    /// Why a root was refused here, if one was.
    pub(crate) fn take_refusal(&self) -> Option<TrustError> {
        self.lock().refusal.take()
    }

    /// The files that were served.
    pub(crate) fn files(&self) -> Files {
        let served = self.lock();
        Files {
            root: served.root.clone(),
            timestamp: served.timestamp.clone(),
            snapshot: served.snapshot.clone(),
            targets: served.targets.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Served> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transport for Memory {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let name = file_name(&url);
        match self.lock().file(&name) {
            Ok(Some(bytes)) => Ok(Box::pin(stream::iter([Ok(Bytes::from(bytes))]))),
            Ok(None) => Err(TransportError::new(TransportErrorKind::FileNotFound, url)),
            // An error of `fetch` itself would end the chain of roots quietly; one of the stream is an error.
            Err(Refused) => {
                Ok(Box::pin(stream::iter([Err(TransportError::new(TransportErrorKind::Other, url))])))
            }
        }
    }
}

/// The file was refused; `Served::refusal` says why.
struct Refused;

impl Served {
    fn file(&mut self, name: &str) -> Result<Option<Vec<u8>>, Refused> {
        match file_role(name) {
            // What targets delegate is not supported: no second file of that kind is given out.
            Role::Targets if self.targets.is_some() => Ok(None),
            Role::Root => self.next_root(),
            Role::Timestamp => {
                self.timestamp = self.choose_timestamp();
                self.checked(self.timestamp.clone(), Role::Timestamp)
            }
            Role::Snapshot => {
                self.snapshot = self.choose(name, self.timestamp.as_deref(), self.stored.snapshot());
                self.checked(self.snapshot.clone(), Role::Snapshot)
            }
            Role::Targets => {
                self.targets = self.choose(name, self.snapshot.as_deref(), self.stored.targets());
                self.checked(self.targets.clone(), Role::Targets)
            }
        }
    }

    fn checked(&mut self, file: Option<Vec<u8>>, role: Role) -> Result<Option<Vec<u8>>, Refused> {
        match file.as_deref().map_or(Ok(()), |bytes| check_type(bytes, role)) {
            Ok(()) => Ok(file),
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn next_root(&mut self) -> Result<Option<Vec<u8>>, Refused> {
        let trusted = self.root.version.get();
        let Some(bytes) = self.bundle.root(trusted.saturating_add(1)).map(<[u8]>::to_vec) else {
            return self.refuse_gap(trusted);
        };
        match root::read_next(&self.root, &bytes, self.allow_dev) {
            Ok(next) => {
                let changed = |role| root::keys_differ(&self.root, &next.signed, role);
                self.rotated |= changed(RoleType::Timestamp) || changed(RoleType::Snapshot);
                self.root = next.signed;
                Ok(Some(bytes))
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn refuse_gap(&mut self, trusted: u64) -> Result<Option<Vec<u8>>, Refused> {
        let Some(version) = self.bundle.root_versions().filter(|version| *version > trusted).min() else {
            return Ok(None);
        };
        let reason = format!("v{} is missing between them", trusted.saturating_add(1));
        self.refuse(TrustError::RootChain { version, trusted, reason })
    }

    fn refuse<T>(&mut self, refusal: TrustError) -> Result<T, Refused> {
        self.refusal = Some(refusal);
        Err(Refused)
    }

    /// The offered timestamp. Under a version that is stored already other content is discarded, as TUF has it.
    fn choose_timestamp(&self) -> Option<Vec<u8>> {
        let offered = self.bundle.file("timestamp.json");
        let stored = self.stored.timestamp().filter(|_| !self.rotated);
        let same_version = offered.and_then(version) == stored.and_then(version);
        let chosen = if same_version { stored.or(offered) } else { offered.or(stored) };
        chosen.map(<[u8]>::to_vec)
    }

    /// The file that its parent names: the offered one, or the stored one where the server left it out.
    fn choose(&self, name: &str, parent: Option<&[u8]>, stored: Option<&[u8]>) -> Option<Vec<u8>> {
        let offered = self.bundle.file(name);
        let kept = self.timestamp.as_deref() == self.stored.timestamp();
        let order = if kept { [stored, offered] } else { [offered, stored] };
        let wanted = parent.and_then(child_version);
        let mut candidates = order.into_iter().flatten();
        let named = candidates.clone().find(|bytes| version(bytes) == wanted);
        named.or_else(|| candidates.next()).map(<[u8]>::to_vec)
    }
}

/// The role whose file a name stands for; a name that no other role has is one of targets.
pub(crate) fn file_role(name: &str) -> Role {
    [("root.json", Role::Root), ("timestamp.json", Role::Timestamp), ("snapshot.json", Role::Snapshot)]
        .into_iter()
        .find_map(|(end, role)| name.ends_with(end).then_some(role))
        .unwrap_or(Role::Targets)
}

/// The name of the file that a URL of ours stands for.
pub(crate) fn file_name(url: &Url) -> String {
    url.path().rsplit('/').next().unwrap_or_default().to_owned()
}
