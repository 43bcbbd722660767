//! Bytes from elsewhere: metadata from the controller, blobs from mirrors first and the controller last.
//!
//! A source is never trusted. One that lies, stalls, is slow, sends too much or too little loses its place in the
//! order, and nothing else: what it sent counts only if the whole has the SHA-256 that was asked for.

mod pace;
mod partial;
mod source;

use std::{path::PathBuf, time::Duration};

use fleetswap_proto::{
    Explained,
    v1::{self, bytes_service_client::BytesServiceClient},
};
use fleetswap_trust::{Bundle, Digest, TrustError};
use futures_util::StreamExt;
use reqwest::{Client, Url, redirect};
use tokio::{
    sync::Mutex,
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    durable::{Contents, DurableError},
    link::Identity,
};
use pace::Pace;
use partial::Partial;
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

/// When a source is given up; tests shorten it.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// Longest time without a byte, the answer's head included.
    no_progress: Duration,
    /// Over each such time at least `window_bytes` must come.
    window: Duration,
    window_bytes: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            no_progress: Duration::from_secs(30),
            window: Duration::from_secs(20),
            window_bytes: 64 * 1024,
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
    /// One blob at a time: two would write to one partial file. Holds when each source failed last, so that a mirror
    /// that stalls costs its wait once and not for every blob of a release.
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
        Ok(Self { blobs, controller, identity, sources, timing: Timing::default(), failed })
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
        let mut failed = self.failed.lock().await;
        let want = Want { sha256, length };
        if blocking(&self.blobs, move |blobs| blobs.holds(sha256, length)).await? {
            return Ok(self.blobs.path(sha256));
        }
        let mut tried = Vec::new();
        for index in order(&failed) {
            let source = &self.sources[index];
            match Box::pin(self.all_from(source, want)).await? {
                Ok(()) => {
                    failed[index] = None;
                    return Ok(self.blobs.path(sha256));
                }
                Err(fault) => {
                    failed[index] = Some(Instant::now()).filter(|_| !matches!(fault, Fault::Missing));
                    tracing::warn!(source = %source.name(), blob = %sha256, reason = %fault, "next source");
                    tried.push(format!("{}: {fault}", source.name()));
                }
            }
        }
        Err(FetchError::NoSource { sha256, tried })
    }

    /// All that is missing, from one source. The inner error is the source's, the outer one this host's.
    async fn all_from(&self, source: &Source, want: Want) -> Result<Result<(), Fault>, FetchError> {
        let mut partial = Partial::open(&self.blobs, want.sha256, want.length)?;
        let mut mixed = partial.length() > 0;
        loop {
            if let Err(fault) = self.append(source, want, &mut partial).await? {
                return Ok(Err(fault));
            }
            if blocking(&self.blobs, move |blobs| blobs.finish(want.sha256, want.length)).await? {
                return Ok(Ok(()));
            }
            // The wrong bytes may be another source's, from before: this one gets a try with all of its own.
            if !mixed {
                return Ok(Err(Fault::WrongBytes));
            }
            mixed = false;
            partial = Partial::open(&self.blobs, want.sha256, want.length)?;
        }
    }

    /// Appends what is missing. On a fault that shows a liar, its bytes are taken back.
    async fn append(
        &self,
        source: &Source,
        want: Want,
        partial: &mut Partial,
    ) -> Result<Result<(), Fault>, FetchError> {
        if partial.length() == want.length {
            return Ok(Ok(()));
        }
        let opened = timeout(self.timing.no_progress, source.open(want, partial.length())).await;
        let mut opened = match opened.unwrap_or(Err(Fault::Stalled)) {
            Ok(opened) => opened,
            Err(fault) => return Ok(Err(fault)),
        };
        partial.cut(opened.start)?;
        let result = self.copy(&mut opened, want, partial).await?;
        if matches!(result, Err(Fault::TooMany)) {
            partial.cut(opened.start)?;
        }
        Ok(result)
    }

    async fn copy(
        &self,
        opened: &mut Opened,
        want: Want,
        partial: &mut Partial,
    ) -> Result<Result<(), Fault>, FetchError> {
        let mut pace = Pace::new(self.timing, Instant::now());
        loop {
            let chunk = match timeout_at(pace.next_due(), opened.body.next()).await {
                Err(_) => return Ok(Err(Fault::Stalled)),
                Ok(Some(Err(fault))) => return Ok(Err(fault)),
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) if partial.length() == want.length => return Ok(Ok(())),
                Ok(None) => return Ok(Err(Fault::TooFew)),
            };
            if chunk.len() as u64 > want.length - partial.length() {
                return Ok(Err(Fault::TooMany));
            }
            partial.append(&chunk)?;
            if !pace.took(chunk.len() as u64, Instant::now()) && partial.length() < want.length {
                return Ok(Err(Fault::TooSlow));
            }
        }
    }
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

/// Runs work on the disk away from the threads that serve callers.
async fn blocking<T: Send + 'static>(
    blobs: &Contents,
    work: impl FnOnce(&Contents) -> Result<T, DurableError> + Send + 'static,
) -> Result<T, DurableError> {
    let blobs = blobs.clone();
    spawn_blocking(move || work(&blobs)).await.unwrap_or_else(|cut| Err(DurableError::cut_short(cut)))
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
