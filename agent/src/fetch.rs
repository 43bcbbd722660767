//! Bytes from elsewhere: metadata from the controller, blobs from mirrors first and the controller last.
//!
//! A source is never trusted. One that lies, stalls, is slow, sends too much or too little loses its place in the
//! order, and nothing else: what it sent counts only if the whole has the SHA-256 that was asked for, and mirrors
//! have only a share of the time.

mod pace;
mod partial;
mod source;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fleetswap_proto::{
    Explained,
    v1::{self, bytes_service_client::BytesServiceClient},
};
use fleetswap_trust::{Bundle, Digest, TrustError};
use futures_util::{FutureExt, StreamExt};
use reqwest::{Client, Url, redirect};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    durable::{Contents, DurableError},
    link::Identity,
};
use pace::{Pace, Timing};
use partial::{Disk, Partial};
use source::{Fault, Opened, Source};

/// Longest wait for all metadata files together.
const METADATA_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a connection to a mirror.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// So long a source that failed is asked only after those that did not.
const DEMOTION: Duration = Duration::from_secs(600);
/// Most redirects that a mirror may answer with.
const REDIRECTS_MAX: usize = 3;

/// Why bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// No source gave them: a fault of the link. One line per source.
    #[error("no source gave blob {sha256}: {}", .tried.join("; "))]
    NoSource {
        /// The blob.
        sha256: Digest,
        /// Each source and what was wrong with it, in order.
        tried: Vec<String>,
    },
    /// The controller gave no metadata: a fault of the link.
    #[error("the controller gave no metadata: {0}")]
    NoMetadata(String),
    /// The controller offered more metadata than anybody may: a fault of trust.
    #[error("the controller's metadata was refused")]
    Refused(#[from] TrustError),
    /// This host could not keep them: a fault of the host.
    #[error("this host could not keep the bytes")]
    Disk(#[from] DurableError),
    /// Larger than an agent ever fetches: a fault of the release.
    #[error("blob {sha256} has {length} bytes; at most {max} are fetched")]
    TooLarge {
        /// The blob.
        sha256: Digest,
        /// Its length.
        length: u64,
        /// The bound.
        max: u64,
    },
}

impl FetchError {
    /// The stable code of the error's page.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NoSource { .. } => "FETCH_FAILED",
            Self::NoMetadata(_) => "METADATA_UNAVAILABLE",
            Self::Refused(error) => error.code(),
            Self::Disk(error) => error.code(),
            Self::TooLarge { .. } => "BLOB_TOO_LARGE",
        }
    }
}

/// Fetches metadata, and blobs into the state folder.
#[derive(Debug)]
pub(crate) struct Fetcher {
    blobs: Contents,
    controller: Channel,
    identity: Identity,
    /// Mirrors in the config's order, then the controller.
    sources: Vec<Source>,
    timing: Timing,
    /// One blob at a time.
    turns: Arc<tokio::sync::Mutex<()>>,
    /// When each source failed last, so that a mirror that stalls costs its wait once and not for every blob of a
    /// release.
    failed: Mutex<Vec<Option<Instant>>>,
}

impl Fetcher {
    /// `endpoint`: the controller's; a connection of its own is made on first use.
    ///
    /// # Errors
    /// `TLS_UNAVAILABLE`: there is an https mirror, and this machine has no root certificates to check it with.
    pub(crate) fn new(
        blobs: Contents,
        endpoint: &Endpoint,
        identity: Identity,
        mirrors: &[Url],
    ) -> Result<Self, Explained> {
        let controller = endpoint.connect_lazy();
        let mut sources = Vec::new();
        if !mirrors.is_empty() {
            let client = mirror_client()?;
            sources.extend(mirrors.iter().map(|url| Source::mirror(client.clone(), url.clone())));
        }
        sources.push(Source::controller(controller.clone(), identity.clone()));
        let failed = Mutex::new(vec![None; sources.len()]);
        let (timing, turns) = (Timing::default(), Arc::default());
        Ok(Self { blobs, controller, identity, sources, timing, turns, failed })
    }

    /// The metadata that the controller has beyond `known`. Nothing in it is verified.
    ///
    /// # Errors
    /// The controller can't be reached or is too slow, or it offered too much.
    pub(crate) async fn metadata(&self, known: v1::MetadataVersions) -> Result<Bundle, FetchError> {
        let read = Box::pin(self.read_metadata(known));
        let late = |_| FetchError::NoMetadata(format!("not complete after {} s", METADATA_MAX.as_secs()));
        timeout(METADATA_MAX, read).await.map_err(late)?
    }

    async fn read_metadata(&self, known: v1::MetadataVersions) -> Result<Bundle, FetchError> {
        let lost = |status: Status| FetchError::NoMetadata(source::words(&status));
        let request = self.identity.request(v1::GetMetadataRequest { known: Some(known) });
        let mut client = BytesServiceClient::new(self.controller.clone());
        let mut files = client.get_metadata(request).await.map_err(lost)?.into_inner();
        let mut bundle = Bundle::new();
        let mut complete = true;
        while let Some(chunk) = files.message().await.map_err(lost)? {
            bundle.append(&chunk.name, &chunk.data)?;
            complete = chunk.last;
        }
        if complete { Ok(bundle) } else { Err(FetchError::NoMetadata("it ended within a file".to_owned())) }
    }

    /// The blob with this SHA-256, from the state folder or from the first source that has it.
    ///
    /// What was fetched before a crash or a failure is kept, and the next try goes on behind it.
    ///
    /// # Errors
    /// No source had it, the disk failed, or it is larger than blobs may be.
    pub(crate) async fn blob(&self, sha256: Digest, length: u64) -> Result<PathBuf, FetchError> {
        let max = self.blobs.max();
        if length > max {
            return Err(FetchError::TooLarge { sha256, length, max });
        }
        let disk = Disk::take(&self.blobs, &self.turns).await;
        let want = Want { sha256, length };
        if !disk.run(move |blobs| blobs.holds(sha256, length)).await? {
            let got = disk.run(move |blobs| blobs.require_room(sha256, length)).await;
            let got = match got {
                Ok(()) => Box::pin(self.ask_in_order(&disk, want)).await,
                Err(error) => Err(error.into()),
            };
            if let Err(FetchError::Disk(error)) = &got
                && error.code() == "DISK_FULL"
            {
                // What can't be completed must not take the room that the verdict needs.
                disk.run(move |blobs| blobs.drop_part(sha256)).await?;
            }
            got?;
        }
        Ok(self.blobs.path(sha256))
    }

    /// Asks one source after the other.
    async fn ask_in_order(&self, disk: &Disk, want: Want) -> Result<(), FetchError> {
        let mirrors_until = Instant::now() + self.timing.share.time;
        let mut tried = Vec::new();
        let mut order = order(&self.failed()).into_iter().peekable();
        while let Some(index) = order.next() {
            let source = &self.sources[index];
            let until = (source.is_mirror() && order.peek().is_some()).then_some(mirrors_until);
            let got = if until.is_some_and(|until| until <= Instant::now()) {
                Err(Fault::NotAsked)
            } else {
                self.turn_of(index, disk, want, until).await?
            };
            let Err(fault) = got else { return Ok(()) };
            tracing::warn!(source = %source.name(), blob = %want.sha256, reason = %fault, "next source");
            tried.push(format!("{}: {fault}", source.name()));
        }
        Err(FetchError::NoSource { sha256: want.sha256, tried })
    }

    /// One source's turn. It counts as failed until the opposite is known: if the fetch is given up meanwhile, the
    /// next one asks another source first.
    async fn turn_of(
        &self,
        index: usize,
        disk: &Disk,
        want: Want,
        until: Option<Instant>,
    ) -> Result<Result<(), Fault>, FetchError> {
        let before = self.failed()[index].replace(Instant::now());
        let got = Box::pin(self.all_from(&self.sources[index], disk, want, until)).await;
        self.failed()[index] = match &got {
            Ok(Ok(()) | Err(Fault::Missing)) => None,
            Ok(Err(_)) => Some(Instant::now()),
            Err(_) => before,
        };
        got
    }

    fn failed(&self) -> MutexGuard<'_, Vec<Option<Instant>>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that is missing, from one source. The inner error is the source's, the outer one this host's.
    async fn all_from(
        &self,
        source: &Source,
        disk: &Disk,
        want: Want,
        until: Option<Instant>,
    ) -> Result<Result<(), Fault>, FetchError> {
        let mut partial = Partial::open(disk, want.sha256, want.length).await?;
        let mut mixed = partial.length() > 0;
        loop {
            if let Err(fault) = self.append(source, want, until, &mut partial).await? {
                return Ok(Err(fault));
            }
            if disk.run(move |blobs| blobs.finish(want.sha256, want.length)).await? {
                return Ok(Ok(()));
            }
            // The wrong bytes may be another source's, from before: this one gets a try with all of its own.
            if !mixed {
                return Ok(Err(Fault::WrongBytes));
            }
            mixed = false;
            partial = Partial::open(disk, want.sha256, want.length).await?;
        }
    }

    /// Appends what is missing. On a fault that shows a liar, its bytes are taken back.
    async fn append(
        &self,
        source: &Source,
        want: Want,
        until: Option<Instant>,
        partial: &mut Partial,
    ) -> Result<Result<(), Fault>, FetchError> {
        if partial.length() == want.length {
            return Ok(Ok(()));
        }
        let (now, Timing { no_progress, share, .. }) = (Instant::now(), self.timing);
        let head_due = until.map_or(now + no_progress, |until| until.min(now + share.head));
        let opened = timeout_at(head_due, source.open(want, partial.length())).await;
        let mut opened = match opened.unwrap_or(Err(Fault::Stalled)) {
            Ok(opened) => opened,
            Err(fault) => return Ok(Err(fault)),
        };
        partial.cut(opened.start).await?;
        let pace = Pace::new(self.timing, until.map(|until| (want.length, until)), Instant::now());
        let result = copy(&mut opened, want, pace, partial).await?;
        if matches!(result, Err(Fault::TooMany)) {
            partial.cut(opened.start).await?;
        }
        Ok(result)
    }
}

/// Copies until the source ends or is given up; what it brought until then is kept.
async fn copy(
    opened: &mut Opened,
    want: Want,
    mut pace: Pace,
    partial: &mut Partial,
) -> Result<Result<(), Fault>, FetchError> {
    let copied = loop {
        let ready = if partial.is_full() { None } else { opened.body.next().now_or_never() };
        let next = match ready {
            Some(next) => Ok(next),
            None => {
                partial.flush().await?;
                timeout_at(pace.next_due(), opened.body.next()).await
            }
        };
        let chunk = match next {
            Err(_) => break Err(pace.overdue(Instant::now())),
            Ok(Some(Err(fault))) => break Err(fault),
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) if partial.length() == want.length => break Ok(()),
            Ok(None) => break Err(Fault::TooFew),
        };
        let bytes = chunk.len() as u64;
        if bytes > want.length - partial.length() {
            break Err(Fault::TooMany);
        }
        partial.add(chunk);
        if !pace.took(bytes, Instant::now()) && partial.length() < want.length {
            break Err(Fault::TooSlow);
        }
    };
    partial.flush().await?;
    Ok(copied)
}

/// A blob that is wanted.
#[derive(Clone, Copy, Debug)]
struct Want {
    sha256: Digest,
    length: u64,
}

fn mirror_client() -> Result<Client, Explained> {
    let client = Client::builder()
        .connect_timeout(CONNECT_MAX)
        // Where blobs come from is said in the config alone.
        .no_proxy()
        .redirect(redirect::Policy::limited(REDIRECTS_MAX))
        .user_agent(concat!("fleetswap-agent/", env!("CARGO_PKG_VERSION")));
    client.build().map_err(|error| {
        Explained::new(
            "TLS_UNAVAILABLE",
            "the client for the mirrors can't be made",
            error.to_string(),
            "install the system's root certificates (package ca-certificates), or remove `mirrors`",
        )
    })
}

/// The sources' numbers, those that failed lately behind the others.
fn order(failed: &[Option<Instant>]) -> Vec<usize> {
    let lately = |index: &usize| failed[*index].is_some_and(|at| at.elapsed() < DEMOTION);
    let (behind, mut ahead): (Vec<usize>, Vec<usize>) = (0..failed.len()).partition(lately);
    ahead.extend(behind);
    ahead
}

#[cfg(test)]
mod tests;
