//! The views of the fleet: lists in pages, and single things.

use std::collections::HashMap;

use fleetswap_proto::{Explained, v1};
use fleetswap_trust::{
    Manifest,
    manifest::{DESCRIPTOR_MAX, Platform},
};
use prost::Message;

use super::{Shared, blocking, identity::HOST_NAME_MAX, publish, validate};
use crate::{explain, store::rollout_name};

/// Releases in a list of plugins: the newest ones.
const RELEASES_MAX: u32 = 1000;

/// Bytes of one page: clients take 4 MiB unless they are told otherwise.
const PAGE_BYTES_MAX: usize = 3 * 1024 * 1024;

/// The error for a rollout that isn't there.
pub(super) fn no_rollout(id: u64) -> Explained {
    Explained::new(
        "ROLLOUT_NOT_FOUND",
        format!("there is no rollout {}", rollout_name(id)),
        "none was started under this number, or it is so old that it was forgotten",
        "list them: controller history",
    )
}

/// How much of a blob is here.
pub(super) async fn stat_blob(
    shared: &Shared,
    request: &v1::StatBlobRequest,
) -> Result<v1::StatBlobResponse, Explained> {
    let sha256 = validate::sha256("sha256", &request.sha256)?;
    let blobs = shared.blobs.clone();
    let stat = blocking(move || blobs.stat(sha256)).await??;
    Ok(v1::StatBlobResponse { complete: stat.complete, offset: stat.offset })
}

/// One rollout.
pub(super) async fn get_rollout(
    shared: &Shared,
    request: &v1::GetRolloutRequest,
) -> Result<v1::GetRolloutResponse, Explained> {
    let id = validate::rollout_id("rollout_id", &request.rollout_id)?;
    let rollout = shared.fleet.rollout(id).await?.ok_or_else(|| no_rollout(id))?;
    Ok(v1::GetRolloutResponse { rollout: Some(rollout) })
}

/// The fleet in numbers.
pub(super) async fn get_status(shared: &Shared) -> Result<v1::GetStatusResponse, Explained> {
    let status = shared.fleet.status().await?;
    Ok(v1::GetStatusResponse {
        metadata: Some(shared.published.wire_versions()),
        dev_trust: shared.published.is_dev(),
        ..status
    })
}

/// A page of rollouts.
pub(super) async fn list_rollouts(
    shared: &Shared,
    request: v1::ListRolloutsRequest,
) -> Result<v1::ListRolloutsResponse, Explained> {
    let v1::ListRolloutsRequest { plugin, page_size, page_token } = request;
    let size = validate::page_size(page_size)?;
    let plugin = Some(plugin).filter(|plugin| !plugin.is_empty());
    plugin.iter().try_for_each(|plugin| validate::plugin("plugin", plugin))?;
    let before = match page_token.as_str() {
        "" => None,
        token => Some(validate::rollout_id("page_token", token)?),
    };
    let mut rollouts = shared.fleet.rollouts(plugin, before, size + 1).await?;
    let next_page_token = cut(&mut rollouts, size, |last| last.rollout_id.clone());
    Ok(v1::ListRolloutsResponse { rollouts, next_page_token })
}

/// A page of hosts.
pub(super) async fn list_hosts(
    shared: &Shared,
    request: v1::ListHostsRequest,
) -> Result<v1::ListHostsResponse, Explained> {
    let v1::ListHostsRequest { page_size, page_token } = request;
    let size = validate::page_size(page_size)?;
    validate::text("page_token", &page_token, HOST_NAME_MAX)?;
    let after = Some(page_token).filter(|token| !token.is_empty());
    let mut hosts = shared.fleet.hosts(after, size + 1).await?;
    let next_page_token = cut(&mut hosts, size, |last| last.name.clone());
    Ok(v1::ListHostsResponse { hosts, next_page_token })
}

/// Cuts a list at the page's size, or earlier where its bytes would not fit into one message; the token of the next
/// page is empty if there is none.
fn cut<T: Message>(entries: &mut Vec<T>, size: u32, token: impl FnOnce(&T) -> String) -> String {
    let mut bytes = 0;
    let fits = |entry: &&T| {
        bytes += entry.encoded_len();
        bytes <= PAGE_BYTES_MAX
    };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let keep = entries.iter().take(size).take_while(fits).count().max(1);
    if entries.len() <= keep {
        return String::new();
    }
    entries.truncate(keep);
    entries.last().map(token).unwrap_or_default()
}

/// The newest releases that the targets list.
pub(super) async fn list_plugins(shared: &Shared) -> Result<v1::ListPluginsResponse, Explained> {
    let hosts = shared.fleet.hosts_by_release().await?;
    let heads = shared.store.releases(RELEASES_MAX).await?;
    let current = shared.published.current();
    let listed = heads.into_iter().filter(|head| publish::is_listed(current.trusted(), head));
    let published = listed.map(|head| v1::PublishedRelease {
        hosts: hosts.get(&head.release_id).copied().unwrap_or(0),
        platforms: head.platforms,
        withdrawn: head.withdrawn,
        release: Some(v1::Release {
            plugin: head.plugin,
            version: head.version,
            revision: head.revision,
            release_id: head.release_id,
        }),
    });
    Ok(v1::ListPluginsResponse { releases: published.collect() })
}

/// The highest revision of a version.
pub(super) async fn get_release(
    shared: &Shared,
    request: &v1::GetReleaseRequest,
) -> Result<v1::GetReleaseResponse, Explained> {
    validate::plugin("plugin", &request.plugin)?;
    let version = validate::version("version", &request.version)?.to_string();
    let found = publish::listed_of(shared, &request.plugin, &version).await?;
    let row = found.into_iter().next().ok_or_else(|| no_release(&request.plugin, &version))?;
    let head = row.head;
    Ok(v1::GetReleaseResponse {
        descriptors: descriptors(shared, &row.manifest).await?,
        manifest: row.manifest,
        release: Some(v1::Release {
            plugin: head.plugin,
            version: head.version,
            revision: head.revision,
            release_id: head.release_id,
        }),
    })
}

/// What a plugin's assignments run, with what a push is compared to.
pub(super) async fn get_assignment(
    shared: &Shared,
    request: &v1::GetAssignmentRequest,
) -> Result<v1::GetAssignmentResponse, Explained> {
    validate::plugin("plugin", &request.plugin)?;
    validate::selector("selector", &request.selector)?;
    let mut assignments = shared.fleet.assignments(&request.plugin, &request.selector).await?;
    for assignment in &mut assignments {
        let Some(release) = &assignment.release else { continue };
        if let Some(row) = shared.store.release(&release.release_id).await? {
            assignment.descriptors = descriptors(shared, &row.manifest).await?;
            assignment.manifest = row.manifest;
        }
    }
    Ok(v1::GetAssignmentResponse { assignments, metadata: Some(shared.published.wire_versions()) })
}

fn no_release(plugin: &str, version: &str) -> Explained {
    Explained::new(
        "RELEASE_NOT_FOUND",
        format!("there is no release of {plugin} {version}"),
        "nothing was published under this name and version",
        "list what there is: controller plugin list",
    )
}

/// The descriptor of each platform of a published release.
async fn descriptors(shared: &Shared, manifest: &[u8]) -> Result<HashMap<String, Vec<u8>>, Explained> {
    let manifest = Manifest::parse(manifest).map_err(|error| explain::manifest(&error))?;
    let blobs = shared.blobs.clone();
    let read = blocking(move || {
        let one = |(name, platform): (String, Platform)| {
            blobs.get(platform.descriptor.sha256, DESCRIPTOR_MAX).map(|bytes| (name, bytes))
        };
        manifest.platforms.into_iter().map(one).collect::<Result<_, _>>()
    });
    Ok(read.await??)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(sizes: &[usize], size: u32) -> (usize, String) {
        let host = |(index, bytes): (usize, &usize)| v1::Host {
            name: index.to_string(),
            agent_version: "x".repeat(*bytes),
            ..v1::Host::default()
        };
        let mut hosts: Vec<_> = sizes.iter().enumerate().map(host).collect();
        let token = cut(&mut hosts, size, |last| last.name.clone());
        (hosts.len(), token)
    }

    #[test]
    fn a_page_ends_at_its_size_or_where_its_bytes_do() {
        assert_eq!(page(&[1, 1, 1], 3), (3, String::new()));
        assert_eq!(page(&[1, 1, 1], 2), (2, "1".to_owned()));
        assert_eq!(page(&[PAGE_BYTES_MAX / 2; 3], 10), (1, "0".to_owned()));
        assert_eq!(page(&[PAGE_BYTES_MAX / 3, 1, PAGE_BYTES_MAX], 10), (2, "1".to_owned()));
    }

    #[test]
    fn an_entry_that_alone_is_too_large_does_not_stop_the_list() {
        assert_eq!(page(&[2 * PAGE_BYTES_MAX, 1], 10), (1, "0".to_owned()));
        assert_eq!(page(&[], 10), (0, String::new()));
    }
}
