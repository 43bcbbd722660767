//! What a host refuses although every byte is what was signed.

use fleetswap_host::ImageWriter;
use fleetswap_trust::{Manifest, manifest::Probe};
use semver::Version;
use serde_json::{Value, json};

use super::*;
use crate::service::testing::{Kind, descriptor, manifest};

/// A release whose parts are as they should be, but for these changes.
fn package(in_manifest: impl FnOnce(&mut Manifest), in_descriptor: impl FnOnce(&mut Value)) -> Package {
    let (mut manifest, bytes) = (manifest("1.0.0", &Kind::default()), descriptor("1.0.0", &Kind::default()));
    let mut descriptor: Value = serde_json::from_slice(&bytes).unwrap();
    in_manifest(&mut manifest);
    in_descriptor(&mut descriptor);
    let mut image = ImageWriter::new(1).unwrap();
    image.write(b"x").unwrap();
    let image = image.seal(&Digest::of(b"x").bytes()).unwrap();
    Package::new(manifest, image, descriptor.to_string().into(), bytes::Bytes::new()).unwrap()
}

fn note(name: &str, version: &str) -> Note {
    Note { abi_major: 1, abi_minor: 0, name: name.to_owned(), version: version.parse().unwrap() }
}

#[test]
fn note_descriptor_and_manifest_must_name_the_same_release() {
    let agreeing = note("counter", "1.0.0");
    assert_eq!(says_one_thing(&agreeing, &package(|_| {}, |_| {})), Ok(()));
    let cases = [
        (note("other", "1.0.0"), package(|_| {}, |_| {}), "note", "other 1.0.0"),
        (note("counter", "1.0.1"), package(|_| {}, |_| {}), "note", "counter 1.0.1"),
        (agreeing.clone(), package(|_| {}, |it| it["name"] = json!("other")), "descriptor", "other 1.0.0"),
        (
            agreeing.clone(),
            package(|_| {}, |it| it["version"] = json!("2.0.0")),
            "descriptor",
            "counter 2.0.0",
        ),
        (agreeing, package(|it| it.version = Version::new(3, 0, 0), |_| {}), "note", "counter 1.0.0"),
    ];
    for (note, package, part, got) in cases {
        let problem = says_one_thing(&note, &package).unwrap_err();
        assert_eq!((&*problem.code, problem.fault), ("RELEASE_INCONSISTENT", Fault::Release));
        assert_eq!((&*problem.check, &*problem.got), (part, got));
        let manifest = &package.manifest;
        assert_eq!(*problem.wanted, format!("{} {}", manifest.plugin, manifest.version));
    }
}

#[test]
fn a_probe_may_only_call_a_json_function_that_is_marked_as_safe() {
    let probe = |function: &str| Probe { function: function.into(), input: json!({}), expected: json!({}) };
    let probing = |functions: &[&str], in_descriptor: &dyn Fn(&mut Value)| {
        let probes = functions.iter().map(|function| probe(function)).collect();
        probes_are_safe(&package(|it| it.probes = probes, in_descriptor))
    };
    let raw = |it: &mut Value| {
        let raw = json!({"name": "count", "input": null, "output": null, "idempotent": false, "probe_safe": true, "raw": true});
        it["functions"][0] = raw;
    };
    assert_eq!(probing(&["count", "again"], &|_| {}), Ok(()));
    let unsafe_ = |it: &mut Value| it["functions"][0]["probe_safe"] = json!(false);
    let refused = [
        probing(&["again", "count"], &unsafe_),
        probing(&["count"], &raw),
        probing(&["count", "unheard_of"], &|_| {}),
    ];
    for refused in refused {
        let problem = refused.unwrap_err();
        assert_eq!((&*problem.code, problem.fault), ("PROBE_UNSAFE", Fault::Release));
        assert!(problem.check.contains(" => "), "{}", problem.check);
    }
}

#[test]
fn a_need_that_this_agent_does_not_know_is_no_fault_of_the_release() {
    assert_eq!(needs_are_known(&package(|_| {}, |_| {}).descriptor), Ok(()));
    let needy = package(|_| {}, |it| it["needs"] = json!(["files"]));
    let problem = needs_are_known(&needy.descriptor).unwrap_err();
    assert_eq!((&*problem.code, problem.fault), ("NEEDS_UNKNOWN", Fault::Host));
}
