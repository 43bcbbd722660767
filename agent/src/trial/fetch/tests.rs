//! What a host refuses before it fetches anything large: every gate, its code and its fault.

use fleetswap_trust::manifest::DataBlob;
use fleetswap_update::ReleaseId;
use serde_json::json;

use super::*;
use crate::service::testing::{Kind, manifest};

fn release(manifest: &Manifest) -> Release {
    Release {
        plugin: manifest.plugin.clone(),
        version: manifest.version.clone(),
        revision: manifest.revision,
        id: ReleaseId::new(manifest.release_id().bytes()),
    }
}

fn good() -> (Release, Target) {
    let manifest = manifest("1.0.0", &Kind::default());
    let length = manifest.canonical().len() as u64;
    (release(&manifest), Target { sha256: manifest.release_id(), length, withdrawn: false })
}

/// Code and fault.
fn refusal<T: std::fmt::Debug>(got: Result<T, Problem>) -> (String, Fault) {
    let problem = got.unwrap_err();
    (problem.code.into(), problem.fault)
}

fn is(code: &str, fault: Fault) -> (String, Fault) {
    (code.to_owned(), fault)
}

#[test]
fn only_a_release_that_is_signed_under_its_name_with_this_very_id_is_fetched() {
    let (release, target) = good();
    assert_eq!(judged("name", Some(target), &release), Ok(target));
    assert_eq!(refusal(judged("name", None, &release)), is("RELEASE_NOT_LISTED", Fault::Trust));
    let other = Target { sha256: Digest::of(b"another"), ..target };
    let problem = judged("name", Some(other), &release).unwrap_err();
    assert_eq!(
        (&*problem.code, problem.fault, &*problem.check),
        ("RELEASE_NOT_LISTED", Fault::Trust, "name")
    );
    assert_eq!((&*problem.got, &*problem.wanted), (&*release.id.to_string(), &*other.sha256.to_string()));
    let withdrawn = Target { withdrawn: true, ..target };
    assert_eq!(refusal(judged("name", Some(withdrawn), &release)), is("RELEASE_WITHDRAWN", Fault::Trust));
}

#[test]
fn a_manifest_that_is_too_large_is_refused_by_its_signed_length() {
    let (release, target) = good();
    let max = MANIFEST_MAX as u64;
    assert!(judged("name", Some(Target { length: max, ..target }), &release).is_ok());
    for length in [max + 1, u64::MAX] {
        let large = Target { length, ..target };
        assert_eq!(refusal(judged("name", Some(large), &release)), is("MANIFEST_TOO_LARGE", Fault::Release));
    }
}

#[test]
fn a_manifest_that_describes_something_else_is_refused() {
    let manifest = manifest("1.0.0", &Kind::default());
    let (bytes, release) = (manifest.canonical(), release(&manifest));
    assert_eq!(read(&bytes, &release).unwrap(), manifest);
    let others = [
        Release { plugin: "other".into(), ..release.clone() },
        Release { version: Version::new(1, 0, 1), ..release.clone() },
        Release { revision: 2, ..release.clone() },
    ];
    for other in others {
        assert_eq!(refusal(read(&bytes, &other)), is("MANIFEST_MISMATCH", Fault::Trust), "{other:?}");
    }
    assert_eq!(refusal(read(b"{}", &release)), is("MANIFEST_INVALID", Fault::Release));
}

/// What a newer agent could do is not the release's fault: it must not be denied for ever.
#[test]
fn an_agent_that_is_too_old_blames_itself() {
    let good = manifest("1.0.0", &Kind::default());
    let release = release(&good);
    let told = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut manifest = json!(good);
        change(&mut manifest);
        refusal(read(manifest.to_string().as_bytes(), &release))
    };
    let newest = env!("CARGO_PKG_VERSION").parse::<Version>().unwrap();
    let next = Version::new(newest.major, newest.minor, newest.patch + 1).to_string();
    assert!(new_enough(&newest).is_ok());
    assert_eq!(told(&|it| it["min_agent"] = json!(next)), is("AGENT_TOO_OLD", Fault::Host));
    assert_eq!(told(&|it| it["format"] = json!(2)), is("MANIFEST_FORMAT_UNKNOWN", Fault::Host));
    let newer = |it: &mut serde_json::Value| {
        (it["format"], it["min_agent"], it["what_came_later"]) = (json!(2), json!(next), json!(true));
    };
    assert_eq!(told(&newer), is("AGENT_TOO_OLD", Fault::Host), "judged before the rest is understood");
    assert_eq!(told(&|it| it["what_came_later"] = json!(true)), is("MANIFEST_INVALID", Fault::Release));
    let blob = DataBlob { name: "words".into(), sha256: Digest::of(b""), length: 1 };
    assert!(suits(&good).is_ok());
    assert_eq!(
        refusal(suits(&Manifest { data: vec![blob], ..good.clone() })),
        is("DATA_UNSUPPORTED", Fault::Host)
    );
}

#[test]
fn a_release_that_is_not_built_for_this_host_names_both_platforms() {
    let dir = tempfile::tempdir().unwrap();
    let state = crate::durable::StateDir::open(dir.path()).unwrap();
    let shelf = |platform: &str| {
        let platform = platform.to_owned();
        crate::service::Shelf { manifests: state.manifests(), blobs: state.blobs(), platform }
    };
    let manifest = manifest("1.0.0", &Kind::default());
    assert!(shelf(crate::service::testing::PLATFORM).platform_of(&manifest).is_ok());
    let problem = shelf("riscv64-linux-gnu").platform_of(&manifest).unwrap_err();
    assert_eq!((&*problem.code, problem.fault), ("PLATFORM_MISSING", Fault::Host));
    assert_eq!((&*problem.got, &*problem.wanted), (crate::service::testing::PLATFORM, "riscv64-linux-gnu"));
}
