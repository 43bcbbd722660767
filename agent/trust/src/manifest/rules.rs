//! The bounds of a manifest's fields; an error is the rest of the sentence "the manifest is not valid:".

use semver::Version;

use super::{
    ARTIFACT_MAX, BlobRef, CONFIG_MAX, DATA_MAX, DESCRIPTOR_MAX, DataBlob, FORMAT, HealthRule, Manifest,
    PLATFORMS_MAX, PROBES_MAX,
};

/// Longest name of a plugin, function, platform or data blob, in bytes.
const NAME_MAX: usize = 64;
/// Longest version, in bytes.
const VERSION_MAX: usize = 64;

/// Checks every field.
pub(super) fn check(manifest: &Manifest) -> Result<(), String> {
    if manifest.format != FORMAT {
        return Err(format!("`format` is {}, not {FORMAT}", manifest.format));
    }
    if !is_name(&manifest.plugin, b"_-") {
        return Err("`plugin` must be [a-z][a-z0-9_-]*, at most 64 bytes".to_owned());
    }
    version("version", &manifest.version)?;
    version("min_agent", &manifest.min_agent)?;
    manifest.floor.iter().try_for_each(|floor| version("floor", floor))?;
    if manifest.floor.as_ref().is_some_and(|floor| *floor > manifest.version) {
        return Err("`floor` is above `version`: the release could not be installed".to_owned());
    }
    if manifest.revision == 0 {
        return Err("`revision` counts from 1".to_owned());
    }
    parts(manifest)
}

/// Whether `name` starts with a lower-case letter and goes on with those, digits and `also`.
pub(super) fn is_name(name: &str, also: &[u8]) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || also.contains(&byte);
    name.len() <= NAME_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(plain)
}

fn parts(manifest: &Manifest) -> Result<(), String> {
    count("probes", manifest.probes.len(), PROBES_MAX)?;
    for (index, probe) in manifest.probes.iter().enumerate() {
        probe.check().map_err(|reason| format!("`probes[{index}]`: {reason}"))?;
    }
    health(&manifest.health)?;
    if let Some(config) = &manifest.config {
        blob("config", config, CONFIG_MAX)?;
    }
    data(&manifest.data)?;
    platforms(manifest)
}

fn platforms(manifest: &Manifest) -> Result<(), String> {
    count("platforms", manifest.platforms.len(), PLATFORMS_MAX)?;
    if manifest.platforms.is_empty() {
        return Err("`platforms` is empty".to_owned());
    }
    for (name, platform) in &manifest.platforms {
        if !is_name(name, b"_-") {
            return Err("a name in `platforms` must be like `x86_64-linux-gnu`".to_owned());
        }
        blob(&format!("platforms.{name}.artifact"), &platform.artifact, ARTIFACT_MAX)?;
        blob(&format!("platforms.{name}.descriptor"), &platform.descriptor, DESCRIPTOR_MAX)?;
    }
    Ok(())
}

fn data(blobs: &[DataBlob]) -> Result<(), String> {
    count("data", blobs.len(), DATA_MAX)?;
    for (index, data) in blobs.iter().enumerate() {
        if !is_name(&data.name, b"._-") {
            return Err(format!("`data[{index}].name` must be [a-z][a-z0-9._-]*, at most 64 bytes"));
        }
        if blobs[..index].iter().any(|earlier| earlier.name == data.name) {
            return Err(format!("`data` has the name `{}` twice", data.name));
        }
        blob(&format!("data[{index}]"), &BlobRef { sha256: data.sha256, length: data.length }, ARTIFACT_MAX)?;
    }
    Ok(())
}

fn health(rule: &HealthRule) -> Result<(), String> {
    range("health.interval_ms", rule.interval_ms, 10, 60_000)?;
    range("health.green", u64::from(rule.green), 1, 100)?;
    range("health.timeout_ms", rule.timeout_ms, 1, 60_000)
}

fn blob(field: &str, blob: &BlobRef, max: u64) -> Result<(), String> {
    range(&format!("{field}.length"), blob.length, 1, max)
}

fn version(field: &str, version: &Version) -> Result<(), String> {
    if !version.build.is_empty() {
        return Err(format!("`{field}` has build metadata (`+{}`), which no order knows", version.build));
    }
    count(field, version.to_string().len(), VERSION_MAX)
}

fn count(field: &str, count: usize, max: usize) -> Result<(), String> {
    if count > max { Err(format!("`{field}` has {count}; at most {max} are allowed")) } else { Ok(()) }
}

fn range(field: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(format!("`{field}` is {value}; it must be from {min} to {max}"))
    }
}
