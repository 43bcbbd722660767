//! Libraries that must not be loaded, each signed and listed as if it were good: the agent itself refuses them.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{
    stage::{NEW, Stage},
    thief::Forged,
};

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_GNU_STACK: u64 = 0x6474_e551;
const SHT_DYNAMIC: u64 = 6;
const DT_RUNPATH: u64 = 29;

/// A kind of library, how it is made of a good one, and the failure.
struct Kind {
    name: &'static str,
    code: &'static str,
    flags: &'static [&'static str],
    bend: fn(&mut Vec<u8>) -> Option<()>,
    failure: (&'static str, &'static str),
}

const fn built(
    name: &'static str,
    code: &'static str,
    flags: &'static [&'static str],
    failure: &'static str,
) -> Kind {
    Kind { name, code, flags, bend: |_| Some(()), failure: ("release", failure) }
}

const fn bent(name: &'static str, bend: fn(&mut Vec<u8>) -> Option<()>, failure: &'static str) -> Kind {
    Kind { name, code: "", flags: &[], bend, failure: ("release", failure) }
}

const KINDS: [Kind; 15] = [
    bent("wrong machine", |bytes| other_machine(bytes), "ELF_ARCH"),
    bent("ET_EXEC", |bytes| put(bytes, 16, &[2, 0]), "ELF_TYPE"),
    bent("32-bit", |bytes| put(bytes, 4, &[1]), "ELF_ARCH"),
    bent("zeros", |bytes| Some(bytes).map(|bytes| bytes.fill(0)), "ELF_MALFORMED"),
    bent("one byte", |bytes| Some(bytes).map(|bytes| bytes.truncate(1)), "ELF_MALFORMED"),
    bent("cut", |bytes| Some(bytes.len() / 2).map(|half| bytes.truncate(half)), "ELF_MALFORMED"),
    built("DT_AUDIT", "", &["-Wl,--audit=spy.so"], "ELF_AUDIT"),
    built("DT_FILTER", "", &["-Wl,-F,other.so"], "ELF_FILTER"),
    built("exec stack", "", &["-Wl,-z,execstack"], "ELF_EXECSTACK"),
    bent(
        "no word about the stack",
        |bytes| header(bytes, PT_GNU_STACK).and_then(|at| put(bytes, at, &[0; 4])),
        "ELF_EXECSTACK",
    ),
    built("TEXTREL", "int aim; __asm__(\".text\\n.quad aim\\n\");", &["-Wl,-z,notext"], "ELF_TEXTREL"),
    bent("W+X", |bytes| header(bytes, PT_LOAD).and_then(|at| put(bytes, at + 4, &[7])), "ELF_WX"),
    bent("RUNPATH behind clean section headers", hide_runpath, "ELF_RPATH"),
    built("missing library", "", &["-Wl,--no-as-needed", "-L.", "-lmissing"], "ELF_NEEDED"),
    Kind {
        name: "too new glibc",
        code: "",
        flags: &[],
        bend: |bytes| need_newer_glibc(bytes),
        failure: ("host", "ELF_GLIBC"),
    },
];

#[test]
fn a_signed_library_that_must_not_be_loaded_is_refused_by_the_agent_before_it_runs() -> Result<()> {
    let stage = Stage::set()?;
    let pid = stage.pid()?;
    for (number, kind) in KINDS.iter().enumerate() {
        let version = format!("1.1.{number}");
        let rollout = offer(&stage, &version, kind).with_context(|| kind.name)?;
        stage.refused(&rollout, kind.failure).with_context(|| kind.name)?;
        ensure!(stage.pid()? == pid, "{}: the agent is another one", kind.name);
    }
    stage.recovers("1.2.0")
}

fn offer(stage: &Stage, version: &str, kind: &Kind) -> Result<serde_json::Value> {
    let link = format!("-L{}", stage.fleet.path("").display());
    let mut flags: Vec<&str> =
        kind.flags.iter().map(|flag| if *flag == "-L." { &*link } else { flag }).collect();
    if kind.name.starts_with("RUNPATH") {
        flags.extend(["-Wl,-rpath,$ORIGIN", "-Wl,--enable-new-dtags"]);
    }
    if kind.flags.contains(&"-lmissing") {
        neighbour(stage, &stage.fleet.path("libmissing.so"))?;
    }
    let good = stage.library(version, kind.code, &flags)?;
    let mut library = good.clone();
    (kind.bend)(&mut library).context("the library can't be bent")?;
    stage.release_forged(&Forged::bent(version, library, &good)?)
}

/// A library whose constructor would be seen.
fn neighbour(stage: &Stage, to: &std::path::Path) -> Result<()> {
    let bytes = stage.library("neighbour", "", &[&format!("-Wl,-soname,{}", "libmissing.so")])?;
    Ok(std::fs::write(to, bytes)?)
}

#[test]
fn a_library_beside_the_artifact_is_never_loaded_by_a_search_path_of_the_artifact() -> Result<()> {
    let stage = Stage::set()?;
    let beside = stage.state().join("blobs/libmissing.so");
    neighbour(&stage, &beside)?;
    std::fs::copy(&beside, stage.fleet.path("libmissing.so"))?;
    let link = format!("-L{}", stage.fleet.path("").display());
    for (version, tags) in [("1.1.0", "--enable-new-dtags"), ("1.1.1", "--disable-new-dtags")] {
        let tags = format!("-Wl,{tags}");
        let flags = ["-Wl,--no-as-needed", &link, "-lmissing", "-Wl,-rpath,$ORIGIN", &tags];
        let rollout = stage.release(version, stage.library(version, "", &flags)?)?;
        stage.refused(&rollout, ("release", "ELF_RPATH"))?;
        ensure!(!stage.has_spoken("neighbour")?, "the neighbour was run");
    }
    Ok(())
}

#[test]
fn a_library_without_section_headers_runs_since_the_loader_never_reads_them() -> Result<()> {
    let stage = Stage::set()?;
    let mut library = stage.library(NEW, "", &[])?;
    put(&mut library, 40, &[0; 8]).and_then(|()| put(&mut library, 60, &[0; 4])).context("a header")?;
    let rollout = stage.release(NEW, library)?;
    ensure!(rollout["state"] == "SUCCEEDED", "{rollout}");
    ensure!(stage.has_spoken(NEW)?, "its constructor ran");
    stage.serves(NEW)
}

/// The controller would refuse such manifests, so an impostor shows them to the host.
#[test]
fn an_artifact_that_is_signed_as_empty_or_as_a_gibibyte_is_refused_before_a_byte_of_it_is_fetched()
-> Result<()> {
    for length in [0_u64, 1 << 30] {
        let stage = Stage::set()?;
        let honest = stage.published()?;
        let mut forged = honest.clone();
        let platform = forged.manifest["platforms"].as_object_mut().context("platforms")?;
        platform.values_mut().for_each(|platform| platform["artifact"]["length"] = json!(length));
        let published = stage.runtime.block_on(stage.thief.publish(&Forged {
            manifest: {
                let mut other = forged.manifest.clone();
                other["version"] = json!("1.1.1");
                other
            },
            ..forged.clone()
        }));
        let words = published.err().context("it was published")?.to_string();
        ensure!(words.starts_with("MANIFEST_INVALID"), "{words}");
        stage.smuggle(&honest, &forged)?;
        let failure = stage.wait_for_failure("MANIFEST_INVALID")?;
        ensure!(failure["fault"] == "release", "{failure}");
        stage.unharmed(NEW)?;
    }
    Ok(())
}

/// x86_64 becomes aarch64, and the other way round.
fn other_machine(bytes: &mut [u8]) -> Option<()> {
    let other = if bytes[18] == 62 { 183 } else { 62 };
    put(bytes, 18, &[other, 0])
}

/// The section `.dynamic` becomes a copy without the entry; the segment, which the loader reads, keeps it.
fn hide_runpath(bytes: &mut Vec<u8>) -> Option<()> {
    let segment = header(bytes, PT_DYNAMIC)?;
    let (start, size) = (number(bytes, segment + 8, 8)?, number(bytes, segment + 32, 8)?);
    let mut clean = bytes.get(start..start + size)?.to_vec();
    let entry = (0..size).step_by(16).find(|at| number(&clean, *at, 8) == Some(DT_RUNPATH as usize))?;
    clean.drain(entry..entry + 16);
    let sections = number(bytes, 40, 8)?;
    let section = (0..number(bytes, 60, 2)?)
        .map(|index| sections + index * 64)
        .find(|at| number(bytes, at + 4, 4) == Some(SHT_DYNAMIC as usize))?;
    let end = bytes.len() as u64;
    put(bytes, section + 24, &end.to_le_bytes())?;
    put(bytes, section + 32, &(clean.len() as u64).to_le_bytes())?;
    bytes.extend(clean);
    Some(())
}

/// Turns the glibc version that is needed into one to come.
fn need_newer_glibc(bytes: &mut [u8]) -> Option<()> {
    let name = b"GLIBC_2.";
    let at = bytes.windows(name.len()).position(|window| window == name)? + name.len();
    let end = at + bytes[at..].iter().position(|byte| *byte == 0)?;
    bytes[at..end].fill(0);
    put(bytes, at, b"99")
}

/// Place of the first program header of a type; of the loadable ones the first that holds code.
fn header(bytes: &[u8], wanted: u64) -> Option<usize> {
    let (at, count) = (number(bytes, 32, 8)?, number(bytes, 56, 2)?);
    let is_code = |at: usize| number(bytes, at + 4, 4).is_some_and(|flags| flags & 1 == 1);
    (0..count)
        .map(|index| at + index * 56)
        .find(|at| number(bytes, *at, 4) == Some(wanted as usize) && (wanted != PT_LOAD || is_code(*at)))
}

fn number(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    let mut value = [0; 8];
    value[..width].copy_from_slice(bytes.get(at..at + width)?);
    usize::try_from(u64::from_le_bytes(value)).ok()
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) -> Option<()> {
    bytes.get_mut(at..at + new.len())?.copy_from_slice(new);
    Some(())
}
