//! The checks of what an agent says: hello, report and their parts.

use fleetswap_proto::{Explained, PROTOCOL, v1};

use super::validate::{
    bytes_of, count, invalid, known, line, number, plugin, required, sha256, text, uuid, version,
};

/// Longest short text (a version, a fact, a label's value), in bytes.
const SHORT_MAX: usize = 256;
/// Longest text of a failure record, in bytes.
const TEXT_MAX: usize = 4 * 1024;
/// Longest probe, and longest answer to it, in bytes.
const PROBE_MAX: usize = 16 * 1024;
/// Longest log tail, in bytes; as the proto says.
const LOG_TAIL_MAX: usize = 4 * 1024;
/// Most labels of a host.
const LABELS_MAX: usize = 64;
/// Most features of a program.
const FEATURES_MAX: usize = 64;
/// Most plugins of a host: an agent keeps 1,024, and tells of as many that found no room.
const PLUGINS_MAX: usize = 2_048;
/// Most denied releases of a plugin.
const DENIED_MAX: usize = 256;

/// The first message of a stream.
pub(super) fn hello(hello: &v1::Hello) -> Result<(), Explained> {
    if hello.protocol != PROTOCOL {
        return Err(Explained::new(
            "PROTOCOL_MISMATCH",
            format!("the agent speaks protocol {}", hello.protocol),
            format!("this controller speaks protocol {PROTOCOL}"),
            "update the older of the two programs",
        ));
    }
    version("hello.agent_version", &hello.agent_version)?;
    uuid("hello.session", &hello.session)?;
    count("hello.features", hello.features.len(), FEATURES_MAX)?;
    hello.features.iter().try_for_each(|feature| line("hello.features", feature, SHORT_MAX))?;
    hello.highest.iter().try_for_each(|highest| generation("hello.highest", highest))?;
    hello.metadata.iter().try_for_each(|metadata| versions("hello.metadata", metadata))?;
    hello.audit_head.iter().try_for_each(audit_head)?;
    facts(&required("hello.facts", hello.facts.clone())?)?;
    labels(hello)?;
    count("hello.plugins", hello.plugins.len(), PLUGINS_MAX)?;
    hello.plugins.iter().enumerate().try_for_each(|(index, plugin)| {
        let twice = hello.plugins[..index].iter().any(|earlier| earlier.plugin == plugin.plugin);
        if twice {
            Err(invalid("hello.plugins", format!("it names {} twice", plugin.plugin)))
        } else {
            status("hello.plugins", plugin)
        }
    })
}

/// A change of one plugin.
pub(super) fn report(report: &v1::Report) -> Result<(), Explained> {
    if report.sequence == 0 {
        return Err(invalid("report.sequence", "it is missing"));
    }
    number("report.sequence", report.sequence)?;
    generation("report.generation", &required("report.generation", report.generation)?)?;
    status("report.status", required("report.status", report.status.as_ref())?)
}

/// Versions of the four roles.
pub(super) fn versions(field: &str, versions: &v1::MetadataVersions) -> Result<(), Explained> {
    let all = [versions.root, versions.timestamp, versions.snapshot, versions.targets];
    all.into_iter().try_for_each(|version| number(field, version))
}

fn generation(field: &str, generation: &v1::Generation) -> Result<(), Explained> {
    number(&format!("{field}.epoch"), generation.epoch)?;
    number(&format!("{field}.n"), generation.n)
}

fn audit_head(head: &v1::AuditHead) -> Result<(), Explained> {
    number("hello.audit_head.sequence", head.sequence)?;
    if head.sha256.is_empty() { Ok(()) } else { sha256("hello.audit_head.sha256", &head.sha256).map(drop) }
}

fn facts(facts: &v1::HostFacts) -> Result<(), Explained> {
    line("hello.facts.platform", &facts.platform, SHORT_MAX)?;
    text("hello.facts.kernel", &facts.kernel, SHORT_MAX)?;
    text("hello.facts.glibc", &facts.glibc, SHORT_MAX)?;
    text("hello.facts.sandbox", &facts.sandbox, SHORT_MAX)?;
    text("hello.facts.boot_id", &facts.boot_id, SHORT_MAX)
}

fn labels(hello: &v1::Hello) -> Result<(), Explained> {
    count("hello.labels", hello.labels.len(), LABELS_MAX)?;
    hello.labels.iter().try_for_each(|(key, value)| {
        line("hello.labels", key, SHORT_MAX)?;
        text("hello.labels", value, SHORT_MAX)
    })
}

fn status(field: &str, status: &v1::PluginStatus) -> Result<(), Explained> {
    plugin(&format!("{field}.plugin"), &status.plugin)?;
    known::<v1::ServiceState>(&format!("{field}.service"), status.service)?;
    status.active.iter().try_for_each(|active| release(&format!("{field}.active"), active))?;
    status.previous.iter().try_for_each(|previous| release(&format!("{field}.previous"), previous))?;
    status.trial.iter().try_for_each(|running| trial(&format!("{field}.trial"), running))?;
    status.local_override.iter().try_for_each(|it| local_override(&format!("{field}.local_override"), it))?;
    count(&format!("{field}.denied"), status.denied.len(), DENIED_MAX)?;
    status.denied.iter().try_for_each(|denied| {
        release(
            &format!("{field}.denied.release"),
            required(&format!("{field}.denied.release"), denied.release.as_ref())?,
        )?;
        text(&format!("{field}.denied.code"), &denied.code, SHORT_MAX)?;
        bytes_of(&format!("{field}.denied.reason"), &denied.reason, TEXT_MAX)
    })
}

fn local_override(field: &str, it: &v1::LocalOverride) -> Result<(), Explained> {
    known::<v1::LocalOverrideKind>(&format!("{field}.kind"), it.kind)?;
    text(&format!("{field}.reason"), &it.reason, SHORT_MAX)?;
    text(&format!("{field}.by"), &it.by, SHORT_MAX)?;
    it.from.iter().try_for_each(|from| release(&format!("{field}.from"), from))
}

fn trial(field: &str, trial: &v1::TrialStatus) -> Result<(), Explained> {
    text(&format!("{field}.rollout_id"), &trial.rollout_id, SHORT_MAX)?;
    trial.candidate.iter().try_for_each(|candidate| release(&format!("{field}.candidate"), candidate))?;
    known::<v1::HostState>(&format!("{field}.state"), trial.state)?;
    number(&format!("{field}.swap_pause_us"), trial.swap_pause_us)?;
    text(&format!("{field}.proven_by"), &trial.proven_by, SHORT_MAX)?;
    bytes_of(&format!("{field}.state_lost"), &trial.state_lost, TEXT_MAX)?;
    trial.failure.iter().try_for_each(|record| failure(&format!("{field}.failure"), record))
}

fn failure(field: &str, failure: &v1::Failure) -> Result<(), Explained> {
    known::<v1::HostState>(&format!("{field}.failed_state"), failure.failed_state)?;
    known::<v1::Fault>(&format!("{field}.fault"), failure.fault)?;
    line(&format!("{field}.code"), &failure.code, SHORT_MAX)?;
    // A probe and what a plugin answered may be long, and hold anything.
    bytes_of(&format!("{field}.check"), &failure.check, PROBE_MAX)?;
    bytes_of(&format!("{field}.got"), &failure.got, PROBE_MAX)?;
    bytes_of(&format!("{field}.wanted"), &failure.wanted, PROBE_MAX)?;
    bytes_of(&format!("{field}.message"), &failure.message, TEXT_MAX)?;
    bytes_of(&format!("{field}.log_tail"), &failure.log_tail, LOG_TAIL_MAX)?;
    bytes_of(&format!("{field}.next"), &failure.next, TEXT_MAX)
}

fn release(field: &str, release: &v1::Release) -> Result<(), Explained> {
    plugin(&format!("{field}.plugin"), &release.plugin)?;
    version(&format!("{field}.version"), &release.version)?;
    number(&format!("{field}.revision"), release.revision)?;
    sha256(&format!("{field}.release_id"), &release.release_id).map(drop)
}

#[cfg(test)]
pub(super) mod tests;
