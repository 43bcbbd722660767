//! From arguments to a signed and published release.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use fleetswap_proto::{
    Explained,
    v1::{
        GetAssignmentRequest, GetMetadataRequest, GetReleaseRequest, GetReleaseResponse, MetadataVersions,
        PublishRequest,
    },
};
use fleetswap_trust::{
    Bundle, Versions,
    manifest::{BlobRef, CONFIG_MAX, FORMAT, HealthRule, Manifest, Platform, Probe},
};
use semver::Version;
use uuid::Uuid;

use super::{
    args::{ARTIFACTS_MAX, Health, ReleaseArgs},
    artifact::Artifact,
    client::Client,
    exit::Failure,
    upload,
};
use crate::publish::{PublishError, Publisher};

/// The oldest agent that understands manifests of this format.
const MIN_AGENT: Version = Version::new(0, 1, 0);
/// How often signing starts again because another publisher was first.
const SIGN_ATTEMPTS: usize = 3;

/// A release that is ready to be signed.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) artifacts: Vec<Artifact>,
    pub(super) manifest: Manifest,
    config: Option<Vec<u8>>,
    published: bool,
}

/// Checks the artifacts of a release; nothing leaves this machine.
pub(super) async fn prepare(args: &ReleaseArgs) -> Result<Vec<Artifact>, Failure> {
    if args.artifacts.len() > ARTIFACTS_MAX {
        let what = format!("{} artifacts are too many", args.artifacts.len());
        let why = format!("a release has one artifact per platform, at most {ARTIFACTS_MAX}");
        return Err(Explained::new("USAGE", what, why, "name one --artifact per platform").into());
    }
    let mut artifacts: Vec<Artifact> = Vec::new();
    for file in &args.artifacts {
        let artifact = Artifact::prepare(file, &args.name, &args.version).await?;
        if artifacts.iter().any(|other| other.platform == artifact.platform) {
            let what = format!("two artifacts are for {}", artifact.platform);
            let fix = "name one --artifact per platform";
            return Err(Explained::new("USAGE", what, "a platform has one artifact", fix).into());
        }
        artifacts.push(artifact);
    }
    Ok(artifacts)
}

impl Draft {
    /// Puts the manifest together. A version that is published already keeps its platforms, and gets the next
    /// revision if anything differs.
    pub(super) async fn assemble(
        args: &ReleaseArgs,
        artifacts: Vec<Artifact>,
        client: &Client,
    ) -> Result<Self, Failure> {
        let config = read_config(args)?;
        let mut manifest = Manifest {
            format: FORMAT,
            plugin: args.name.clone(),
            version: args.version.clone(),
            revision: 1,
            min_agent: MIN_AGENT,
            floor: None,
            probes: probes(args, &artifacts)?,
            health: health(&args.health),
            config: config.as_deref().map(BlobRef::to),
            data: Vec::new(),
            platforms: artifacts
                .iter()
                .map(|artifact| (artifact.platform.to_string(), platform(artifact)))
                .collect(),
        };
        let mut published = false;
        if let Some(latest) = latest_revision(client, &args.name, &args.version).await? {
            for (name, platform) in &latest.platforms {
                let ours = manifest.platforms.entry(name.clone()).or_insert_with(|| platform.clone());
                if ours.artifact.sha256 != platform.artifact.sha256 {
                    return Err(other_bytes(&latest, name, ours, platform));
                }
            }
            manifest.revision = latest.revision;
            published = manifest == latest;
            if !published {
                let running = running_revision(client, &manifest).await?;
                published = running.is_some();
                manifest.revision = running.unwrap_or(latest.revision + 1);
            }
        }
        manifest.check().map_err(|error| {
            let fix = "shorten the probes, or mend what the message names";
            Failure::from(Explained::new(error.code(), "the release can't be made", error.to_string(), fix))
        })?;
        Ok(Self { artifacts, manifest, config, published })
    }

    /// Whether exactly this release is published already.
    pub(super) fn is_published(&self) -> bool {
        self.published
    }

    /// Signs the release with the publisher's keys and uploads all of it: blobs first, metadata last.
    pub(super) async fn publish(&self, publisher: &Publisher, client: &Client) -> Result<(), Failure> {
        for artifact in &self.artifacts {
            upload::blob(client, &artifact.bytes).await?;
            upload::blob(client, &artifact.descriptor_bytes).await?;
        }
        if let Some(config) = &self.config {
            upload::blob(client, config).await?;
        }
        let mut attempt = 1;
        loop {
            match self.sign_and_publish(publisher, client).await {
                Err(failure) if failure.error.code == "METADATA_CONFLICT" && attempt < SIGN_ATTEMPTS => {
                    attempt += 1
                }
                done => return done,
            }
        }
    }

    async fn sign_and_publish(&self, publisher: &Publisher, client: &Client) -> Result<(), Failure> {
        let current = current_metadata(publisher, client).await?;
        let signed =
            publisher.add_release(&current, &self.manifest, SystemTime::now()).await.map_err(explained)?;
        let Some(signed) = signed else { return Ok(()) };
        let request = PublishRequest {
            request_id: Uuid::new_v4().to_string(),
            expected: Some(versions(signed.expected)),
            targets: signed.targets,
            snapshot: signed.snapshot,
            manifests: vec![self.manifest.canonical()],
        };
        let publish = || {
            let (mut operator, request) = (client.operator(), request.clone());
            async move { operator.publish(request).await }
        };
        client.resend(publish).await.map(drop)
    }
}

/// Opens the publisher's folder.
pub(super) fn publisher(args: &ReleaseArgs) -> Result<Publisher, Failure> {
    let Some(folder) = &args.publisher_dir else {
        let why = "a release is signed here, by the publisher, and never by the controller";
        let fix = "name the folder with --publisher-dir or FLEETSWAP_PUBLISHER_DIR";
        return Err(Explained::new("USAGE", "no publisher folder is named", why, fix).into());
    };
    Publisher::open(folder).map_err(explained)
}

fn explained(error: PublishError) -> Failure {
    Explained::from(error).into()
}

fn read_config(args: &ReleaseArgs) -> Result<Option<Vec<u8>>, Failure> {
    let Some(file) = &args.config else { return Ok(None) };
    let config =
        fs::read(file).map_err(|error| Failure::io(&format!("reading {}", file.display()), &error))?;
    if config.len() as u64 > CONFIG_MAX {
        let why = format!("it has {} bytes, and at most {CONFIG_MAX} are allowed", config.len());
        let what = format!("{} can't be a plugin's config", file.display());
        return Err(
            Explained::new("MANIFEST_INVALID", what, why, "shorten it, or ship the data elsewhere").into()
        );
    }
    Ok(Some(config))
}

/// The rule that the arguments name; what they leave out has its default.
fn health(args: &Health) -> HealthRule {
    let rule = HealthRule::default();
    let or = |time: Option<Duration>, default| {
        time.map_or(default, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    };
    HealthRule {
        interval_ms: or(args.health_interval, rule.interval_ms),
        green: args.health_checks.unwrap_or(rule.green),
        timeout_ms: or(args.health_timeout, rule.timeout_ms),
    }
}

fn probes(args: &ReleaseArgs, artifacts: &[Artifact]) -> Result<Vec<Probe>, Failure> {
    let probes = args.probes.iter().map(|text| {
        let probe = Probe::parse(text).map_err(|error| {
            let fix =
                "write it as FUNCTION INPUT => EXPECTED, both JSON, e.g. time {\"unix_seconds\":0} => {}";
            Failure::from(Explained::new("PROBE_INVALID", "a probe can't be read", error.to_string(), fix))
        })?;
        check_probe(&probe, artifacts)?;
        Ok(probe)
    });
    probes.collect()
}

fn check_probe(probe: &Probe, artifacts: &[Artifact]) -> Result<(), Failure> {
    for artifact in artifacts {
        let why = match artifact.descriptor.function(&probe.function) {
            Some(function) if function.probe_safe && !function.raw => continue,
            Some(function) if function.raw => "the function takes raw bytes, and a probe is written in JSON",
            Some(_) => {
                "the function is not marked probe_safe, so it must not be called before the release serves"
            }
            None => "the plugin has no such function",
        };
        let what = format!("the probe of `{}` can't run", probe.function);
        let fix = "probe a function that the plugin marks probe_safe; `controller describe FILE` lists them";
        return Err(Explained::new("PROBE_UNSAFE", what, why, fix).into());
    }
    Ok(())
}

fn platform(artifact: &Artifact) -> Platform {
    Platform { artifact: BlobRef::to(&artifact.bytes), descriptor: BlobRef::to(&artifact.descriptor_bytes) }
}

fn other_bytes(latest: &Manifest, name: &str, ours: &Platform, theirs: &Platform) -> Failure {
    let what = format!("{} {} is published for {name} with other bytes", latest.plugin, latest.version);
    let why = format!(
        "the artifact of a version never changes: published is {}, this one is {}",
        theirs.artifact.sha256, ours.artifact.sha256
    );
    Explained::new("VERSION_PUBLISHED", what, why, "give the new build a new version").into()
}

/// The newest revision of a version, if the version is published.
async fn latest_revision(
    client: &Client,
    plugin: &str,
    version: &Version,
) -> Result<Option<Manifest>, Failure> {
    match release(client, plugin, version).await {
        Ok(release) => parse_manifest(&release.manifest).map(Some),
        Err(failure) if failure.error.code.ends_with("_NOT_FOUND") => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The revision under which a host set runs the very same, though a newer one was published since: pushing it again is
/// meant for hosts that lack it.
async fn running_revision(client: &Client, manifest: &Manifest) -> Result<Option<u64>, Failure> {
    let request = GetAssignmentRequest { plugin: manifest.plugin.clone(), selector: String::new() };
    let response =
        client.operator().get_assignment(request).await.map_err(|status| client.failure(&status))?;
    let running = response.into_inner().assignments.into_iter().filter(|it| !it.manifest.is_empty());
    for assignment in running {
        let running = parse_manifest(&assignment.manifest)?;
        if (Manifest { revision: running.revision, ..manifest.clone() }) == running {
            return Ok(Some(running.revision));
        }
    }
    Ok(None)
}

/// A published version with its manifest and descriptors.
pub(super) async fn release(
    client: &Client,
    plugin: &str,
    version: &Version,
) -> Result<GetReleaseResponse, Failure> {
    let request = GetReleaseRequest { plugin: plugin.to_owned(), version: version.to_string() };
    let response = client.operator().get_release(request).await.map_err(|status| client.failure(&status))?;
    Ok(response.into_inner())
}

fn parse_manifest(bytes: &[u8]) -> Result<Manifest, Failure> {
    Manifest::parse(bytes).map_err(|error| {
        let fix = "use the controller command line of the same version as the server";
        Explained::new(
            error.code(),
            "the controller sent a manifest that can't be read",
            error.to_string(),
            fix,
        )
        .into()
    })
}

/// What the controller shows of its metadata, bounded as it arrives.
async fn current_metadata(publisher: &Publisher, client: &Client) -> Result<Bundle, Failure> {
    let known = versions(publisher.versions().map_err(explained)?);
    let request = GetMetadataRequest { known: Some(known) };
    let response = client.bytes().get_metadata(request).await.map_err(|status| client.failure(&status))?;
    let mut stream = response.into_inner();
    let mut bundle = Bundle::new();
    while let Some(chunk) = stream.message().await.map_err(|status| client.failure(&status))? {
        bundle.append(&chunk.name, &chunk.data).map_err(|error| {
            let what = format!("the controller at {} sent metadata that can't be used", client.address());
            Failure::from(Explained::new(error.code(), what, error.to_string(), error.fix()))
        })?;
    }
    Ok(bundle)
}

fn versions(versions: Versions) -> MetadataVersions {
    MetadataVersions {
        root: versions.root,
        timestamp: versions.timestamp,
        snapshot: versions.snapshot,
        targets: versions.targets,
    }
}
