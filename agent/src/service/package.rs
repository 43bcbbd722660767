//! A release as it lies on disk, read and hashed again each time that it is to be loaded.

use bytes::Bytes;
use fleetswap_host::{Image, ImageError};
use fleetswap_inspect::{Descriptor, DescriptorError};
use fleetswap_trust::{
    Digest, Manifest,
    manifest::{BlobRef, Platform},
};
use fleetswap_update::{Fault, Problem, Release, ReleaseId};

use crate::durable::{Contents, DurableError};

/// Everything that loading a release takes. Its bytes can't change any more.
#[derive(Debug)]
pub(crate) struct Package {
    /// What was signed.
    pub(crate) manifest: Manifest,
    /// The library, sealed.
    pub(crate) image: Image,
    /// What it offers.
    pub(crate) descriptor: Descriptor,
    /// The same, as it was signed.
    pub(crate) descriptor_bytes: Bytes,
    /// What `create` is given.
    pub(crate) config: Bytes,
    release: Release,
}

impl Package {
    /// Which release it is.
    pub(crate) const fn release(&self) -> &Release {
        &self.release
    }

    /// Puts the parts together.
    pub(crate) fn new(
        manifest: Manifest,
        image: Image,
        descriptor_bytes: Bytes,
        config: Bytes,
    ) -> Result<Self, Problem> {
        let descriptor = Descriptor::parse(&descriptor_bytes).map_err(|error| {
            // A format to come is what this agent is too old for.
            let is_newer = matches!(error, DescriptorError::Format(_));
            let fault = if is_newer { Fault::Host } else { Fault::Release };
            Problem::new(fault, error.code(), error.to_string())
        })?;
        let release = Release {
            plugin: manifest.plugin.clone(),
            version: manifest.version.clone(),
            revision: manifest.revision,
            id: ReleaseId::new(manifest.release_id().bytes()),
        };
        Ok(Self { manifest, image, descriptor, descriptor_bytes, config, release })
    }
}

/// Where verified releases lie.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    /// Verified manifests, by release id.
    pub(crate) manifests: Contents,
    /// Everything else, by SHA-256.
    pub(crate) blobs: Contents,
    /// This host's key in a manifest's platforms.
    pub(crate) platform: String,
}

impl Shelf {
    /// The manifest of a release that was verified here before.
    pub(crate) fn manifest(&self, id: ReleaseId) -> Result<Manifest, Problem> {
        let bytes = self.manifests.get(Digest::from(*id.bytes())).map_err(|error| disk(&error))?;
        let bytes = bytes.ok_or_else(|| missing("manifest", &id.to_string()))?;
        Manifest::parse(&bytes).map_err(|error| Problem::new(Fault::Host, error.code(), error.to_string()))
    }

    /// The release with this id, re-hashed into fresh memory. Blocks.
    pub(crate) fn package(&self, id: ReleaseId) -> Result<Package, Problem> {
        let manifest = self.manifest(id)?;
        let platform = self.platform_of(&manifest)?;
        let artifact = platform.artifact;
        let path = self.blobs.path(artifact.sha256);
        if !self.blobs.has(artifact.sha256).map_err(|error| disk(&error))? {
            return Err(missing("artifact", &artifact.sha256.to_string()));
        }
        let image = Image::from_file(&path, &artifact.sha256.bytes(), artifact.length)
            .map_err(|e| image_problem(&e))?;
        let descriptor = self.blob(platform.descriptor, "descriptor")?;
        let config = manifest.config.map_or(Ok(Bytes::new()), |config| self.blob(config, "config"))?;
        Package::new(manifest, image, descriptor, config)
    }

    /// Whether every file that the release with this id needs is here. Blocks.
    pub(crate) fn holds(&self, id: ReleaseId) -> bool {
        let files = self.files_of(id);
        !files.is_empty() && files.iter().all(|file| self.blobs.has(*file).unwrap_or(false))
    }

    /// What this host's platform loads.
    pub(crate) fn platform_of(&self, manifest: &Manifest) -> Result<Platform, Problem> {
        manifest.platforms.get(&self.platform).cloned().ok_or_else(|| {
            let built: Vec<&str> = manifest.platforms.keys().map(String::as_str).collect();
            let words = format!("the release is not built for {}", self.platform);
            let problem = Problem::new(Fault::Host, "PLATFORM_MISSING", words);
            Problem { got: built.join(", ").into(), wanted: self.platform.as_str().into(), ..problem }
        })
    }

    /// Every file that the release with this id needs here.
    pub(crate) fn files_of(&self, id: ReleaseId) -> Vec<Digest> {
        let Ok(manifest) = self.manifest(id) else { return Vec::new() };
        let Ok(platform) = self.platform_of(&manifest) else { return Vec::new() };
        let blobs = [Some(platform.artifact), Some(platform.descriptor), manifest.config];
        blobs.into_iter().flatten().map(|blob| blob.sha256).collect()
    }

    fn blob(&self, blob: BlobRef, what: &str) -> Result<Bytes, Problem> {
        let bytes = self.blobs.get(blob.sha256).map_err(|error| disk(&error))?;
        bytes.map(Bytes::from).ok_or_else(|| missing(what, &blob.sha256.to_string()))
    }
}

/// A problem of the state folder.
pub(crate) fn disk(error: &DurableError) -> Problem {
    Problem::new(Fault::Host, error.code(), crate::explain::chain(error))
}

/// Code of a start that failed since files of the release are no longer on disk.
pub(crate) const RELEASE_FILES_MISSING: &str = "RELEASE_FILES_MISSING";

fn missing(what: &str, name: &str) -> Problem {
    let words = format!("the {what} {name} of the release is no longer in the state folder");
    Problem::new(Fault::Host, RELEASE_FILES_MISSING, words)
}

/// What lies on disk was right when it was fetched: if it no longer is, that is the disk's doing.
fn image_problem(error: &ImageError) -> Problem {
    let problem = Problem::new(Fault::Host, error.code(), crate::explain::chain(error));
    Problem { check: "artifact on disk".into(), ..problem }
}

#[cfg(test)]
mod tests {
    use fleetswap_host::ImageWriter;

    use super::{
        super::testing::{Kind, artifact, manifest},
        *,
    };

    #[test]
    fn a_descriptor_of_a_format_to_come_is_not_the_releases_fault() {
        for (descriptor, code, fault) in [
            (r#"{"format":2}"#, "DESCRIPTOR_FORMAT", Fault::Host),
            ("{", "DESCRIPTOR_MALFORMED", Fault::Release),
        ] {
            let bytes = artifact("1.0.0");
            let mut writer = ImageWriter::new(bytes.len() as u64).unwrap();
            writer.write(&bytes).unwrap();
            let image = writer.seal(&Digest::of(&bytes).bytes()).unwrap();
            let manifest = manifest("1.0.0", &Kind::default());
            let problem =
                Package::new(manifest, image, descriptor.into(), Bytes::new()).map(drop).unwrap_err();
            assert_eq!((&*problem.code, problem.fault), (code, fault));
        }
    }
}
