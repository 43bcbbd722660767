//! Publishing: what a publisher signed is taken in only whole, on top of what he saw, and never over something else.

use std::{collections::BTreeMap, time::SystemTime};

use fleetswap_proto::{
    Explained,
    v1::{self, PublishRequest, PublishResponse},
};
use fleetswap_trust::{
    Digest, Manifest, Target, Trusted, Versions,
    manifest::{BlobRef, MANIFEST_MAX, target_name},
};
use semver::Version;

use super::{
    Shared, blocking,
    mutate::{Seen, decode},
    validate,
};
use crate::{
    blobs::{BlobError, Blobs},
    durable::Moment,
    explain,
    published::Current,
    store::{Change, ReleaseHead, ReleaseRow},
};

/// Largest metadata file, in bytes.
const METADATA_MAX: usize = 1024 * 1024;
/// Most manifests of one publish.
const MANIFESTS_MAX: usize = 256;
/// Most revisions of one version that are compared.
const REVISIONS_MAX: u32 = 1000;

/// Takes in what a publisher signed. Blobs come first; this checks that all are here, signs the timestamp, and shows
/// the result to hosts in one step.
pub(super) async fn publish(shared: &Shared, request: PublishRequest) -> Result<PublishResponse, Explained> {
    check(&request)?;
    let _one_at_a_time = shared.mutations.lock().await;
    let seen = Seen::of(shared, &request.request_id, "publish", &request).await?;
    let key = match seen {
        Seen::Answered(response) => return decode(&response),
        Seen::New(key) => key,
    };
    let before = shared.published.current();
    if before.targets() == request.targets && before.snapshot() == request.snapshot {
        // The answer to an earlier try was lost: what it asked for is done.
        return answer(shared);
    }
    expect(&before, request.expected.as_ref())?;
    let next = shared.published.verify(&request.targets, &request.snapshot, SystemTime::now()).await?;
    taken_as_they_are(&request, &next)?;
    let releases = releases(shared, (&before, &next), &request.manifests).await?;
    let manifests = releases.iter().map(|row| row.manifest.clone()).collect();
    store_manifests(shared, manifests).await?;
    Moment::BeforeRows.pass();
    shared.store.commit(Change { releases, ..Change::default() }).await?;
    Moment::BeforeShow.pass();
    let published = std::sync::Arc::clone(&shared.published);
    blocking(move || published.show(next)).await??;
    Moment::AfterShow.pass();
    let response = answer(shared)?;
    shared.store.commit(Change { request: Some(key.row(&response)), ..Change::default() }).await?;
    Ok(response)
}

/// Refuses a release that hosts could not verify now.
pub(super) fn require_published(shared: &Shared, manifest: &Manifest) -> Result<(), Explained> {
    let name = manifest.target_name();
    match shared.published.current().trusted().release(&name) {
        Some(target) if target.sha256 == manifest.release_id() && target.withdrawn => Err(Explained::new(
            "RELEASE_WITHDRAWN",
            format!("{} {} was withdrawn", manifest.plugin, manifest.version),
            "its publisher took it back, so no host would install it",
            "push another version",
        )),
        Some(target) if target.sha256 == manifest.release_id() => Ok(()),
        _ => Err(Explained::new(
            "RELEASE_NOT_PUBLISHED",
            format!("{} {} r{} is not published", manifest.plugin, manifest.version, manifest.revision),
            format!("the signed targets do not list {name} with these bytes"),
            "publish it first; `controller push` does so by itself",
        )),
    }
}

/// Refuses other bytes under a published plugin, version and platform.
pub(super) async fn refuse_other_bytes(shared: &Shared, manifest: &Manifest) -> Result<(), Explained> {
    for row in listed_of(shared, &manifest.plugin, &manifest.version.to_string()).await? {
        let published = Manifest::parse(&row.manifest).map_err(|error| explain::manifest(&error))?;
        for (name, platform) in &manifest.platforms {
            let known = published.platforms.get(name);
            if known.is_some_and(|known| known.artifact != platform.artifact) {
                return Err(version_published(manifest, name));
            }
        }
    }
    Ok(())
}

/// The releases of a version that the targets list, highest revision first.
pub(super) async fn listed_of(
    shared: &Shared,
    plugin: &str,
    version: &str,
) -> Result<Vec<ReleaseRow>, Explained> {
    let current = shared.published.current();
    let mut rows = shared.store.releases_of(plugin, version, REVISIONS_MAX).await?;
    rows.retain(|row| is_listed(current.trusted(), &row.head));
    Ok(rows)
}

/// Whether the targets list a stored release. A publish that was cut leaves rows that they don't.
pub(super) fn is_listed(trusted: &Trusted, head: &ReleaseHead) -> bool {
    let Ok(version) = Version::parse(&head.version) else { return false };
    let target = trusted.release(&target_name(&head.plugin, &version, head.revision));
    target.is_some_and(|target| target.sha256.to_string() == head.release_id)
}

fn check(request: &PublishRequest) -> Result<(), Explained> {
    validate::request_id(&request.request_id)?;
    validate::required("expected", request.expected.as_ref())?;
    validate::bytes("targets", &request.targets, METADATA_MAX)?;
    validate::bytes("snapshot", &request.snapshot, METADATA_MAX)?;
    validate::count("manifests", request.manifests.len(), MANIFESTS_MAX)?;
    request.manifests.iter().try_for_each(|manifest| validate::bytes("manifests", manifest, MANIFEST_MAX))
}

/// Refuses files that verification passed over in favour of those that are current, and targets with names that no
/// release has: hosts would ignore both without a word, and so a publisher would never learn of his mistake.
fn taken_as_they_are(request: &PublishRequest, next: &Current) -> Result<(), Explained> {
    for (field, sent, taken) in
        [("targets", &request.targets, next.targets()), ("snapshot", &request.snapshot, next.snapshot())]
    {
        if sent != taken {
            return Err(validate::invalid(field, "it is not what the snapshot or the timestamp names"));
        }
    }
    match next.trusted().ignored() {
        0 => Ok(()),
        count => Err(validate::invalid("targets", format!("{count} of its targets can't be a release"))),
    }
}

fn answer(shared: &Shared) -> Result<PublishResponse, Explained> {
    Ok(PublishResponse { metadata: Some(shared.published.wire_versions()) })
}

/// Compares what the publisher built on with what is current. The timestamp is ours, and may have been renewed.
fn expect(before: &Current, expected: Option<&v1::MetadataVersions>) -> Result<(), Explained> {
    let Versions { root, timestamp: _, snapshot, targets } = before.trusted().versions();
    let expected = expected.copied().unwrap_or_default();
    if (root, snapshot, targets) == (expected.root, expected.snapshot, expected.targets) {
        return Ok(());
    }
    Err(Explained::new(
        "METADATA_CONFLICT",
        "someone else has published meanwhile",
        format!(
            "this was signed on top of snapshot v{} and targets v{}; current are v{snapshot} and v{targets}",
            expected.snapshot, expected.targets
        ),
        "push again: it starts from what is current",
    ))
}

/// The rows of all releases that the next targets list and the present ones don't, or differently.
async fn releases(
    shared: &Shared,
    (before, next): (&Current, &Current),
    manifests: &[Vec<u8>],
) -> Result<Vec<ReleaseRow>, Explained> {
    let offered: BTreeMap<Digest, &[u8]> =
        manifests.iter().map(|bytes| (Digest::of(bytes), bytes.as_slice())).collect();
    let mut rows = Vec::new();
    for (name, target) in next.trusted().targets() {
        match before.trusted().release(name) {
            Some(known) if known == target => {}
            Some(known) if known.sha256 != target.sha256 => return Err(revision_published(name)),
            Some(_) => rows.extend(withdrawn(shared, target).await?),
            None => rows.push(added(shared, (name, target), offered.get(&target.sha256).copied()).await?),
        }
    }
    Ok(rows)
}

/// The row of a known release, with its mark changed.
async fn withdrawn(shared: &Shared, target: Target) -> Result<Option<ReleaseRow>, Explained> {
    let row = shared.store.release(&target.sha256.to_string()).await?;
    Ok(row.map(|row| ReleaseRow {
        head: ReleaseHead { withdrawn: target.withdrawn, ..row.head },
        manifest: row.manifest,
    }))
}

/// The row of a new release, after every check that a host would fail on.
async fn added(
    shared: &Shared,
    (name, target): (&str, Target),
    offered: Option<&[u8]>,
) -> Result<ReleaseRow, Explained> {
    let bytes = match offered {
        Some(bytes) => bytes.to_vec(),
        None => stored_manifest(shared, target)
            .await
            .map_err(|_| incomplete(name, "its manifest was not sent"))?,
    };
    let manifest = Manifest::parse(&bytes).map_err(|error| explain::manifest(&error))?;
    if manifest.target_name() != name || target.length != bytes.len() as u64 {
        return Err(incomplete(name, &format!("its manifest is the one of {}", manifest.target_name())));
    }
    refuse_other_bytes(shared, &manifest).await?;
    let (blobs, wanted) = (shared.blobs.clone(), blobs_of(&manifest));
    let missing = blocking(move || missing(&blobs, wanted)).await??;
    if let Some(blob) = missing {
        return Err(incomplete(
            name,
            &format!("blob {} with {} bytes is not here", blob.sha256, blob.length),
        ));
    }
    let head = ReleaseHead {
        release_id: target.sha256.to_string(),
        plugin: manifest.plugin.clone(),
        version: manifest.version.to_string(),
        revision: manifest.revision,
        withdrawn: target.withdrawn,
        platforms: manifest.platforms.into_keys().collect(),
    };
    Ok(ReleaseRow { head, manifest: bytes })
}

async fn stored_manifest(shared: &Shared, target: Target) -> Result<Vec<u8>, Explained> {
    let blobs = shared.blobs.clone();
    Ok(blocking(move || blobs.get(target.sha256, MANIFEST_MAX as u64)).await??)
}

/// Every blob that a host may fetch for a release.
fn blobs_of(manifest: &Manifest) -> Vec<BlobRef> {
    let platforms = manifest.platforms.values().flat_map(|platform| [platform.artifact, platform.descriptor]);
    let data = manifest.data.iter().map(|data| BlobRef { sha256: data.sha256, length: data.length });
    platforms.chain(manifest.config).chain(data).collect()
}

/// The first blob that is not here, whole and of this length.
fn missing(blobs: &Blobs, wanted: Vec<BlobRef>) -> Result<Option<BlobRef>, BlobError> {
    for blob in wanted {
        let stat = blobs.stat(blob.sha256)?;
        if !stat.complete || stat.offset != blob.length {
            return Ok(Some(blob));
        }
    }
    Ok(None)
}

/// Manifests are blobs too: hosts fetch them like any other.
async fn store_manifests(shared: &Shared, manifests: Vec<Vec<u8>>) -> Result<(), Explained> {
    let blobs = shared.blobs.clone();
    let store = move || manifests.iter().try_for_each(|manifest| blobs.put(manifest).map(drop));
    Ok(blocking(store).await??)
}

fn version_published(manifest: &Manifest, platform: &str) -> Explained {
    Explained::new(
        "VERSION_PUBLISHED",
        format!("{} {} for {platform} is published with other bytes", manifest.plugin, manifest.version),
        "the artifact of a plugin, version and platform never changes",
        "raise the plugin's version, build it, and push that",
    )
}

fn revision_published(name: &str) -> Explained {
    Explained::new(
        "REVISION_PUBLISHED",
        format!("{name} is published with other content"),
        "a release never changes; a change of config, probes or platforms is the next revision",
        "push again: it takes the next revision",
    )
}

fn incomplete(name: &str, why: &str) -> Explained {
    Explained::new(
        "RELEASE_INCOMPLETE",
        format!("{name} can't be published"),
        why,
        "upload every blob and send every new manifest first; `controller push` does so by itself",
    )
}
