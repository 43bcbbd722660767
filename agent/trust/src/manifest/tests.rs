//! What a manifest may say, and what it may not.

use serde_json::json;

use super::*;

fn manifest() -> Manifest {
    let blob = BlobRef::to(b"bytes");
    Manifest {
        format: FORMAT,
        plugin: "clock".to_owned(),
        version: Version::new(1, 2, 0),
        revision: 1,
        min_agent: Version::new(0, 1, 0),
        floor: None,
        probes: vec![
            Probe::parse(r#"time {"unix_seconds":0} => {"text":"1970-01-01\n00:00:00","factor":1.10}"#)
                .unwrap(),
        ],
        health: HealthRule::default(),
        config: None,
        data: Vec::new(),
        platforms: BTreeMap::from([(
            "x86_64-linux-gnu".to_owned(),
            Platform { artifact: blob, descriptor: blob },
        )]),
    }
}

/// The reason why a changed manifest is refused.
fn reason(change: impl FnOnce(&mut Manifest)) -> String {
    let mut changed = manifest();
    change(&mut changed);
    let error = changed.check().unwrap_err();
    assert_eq!(Manifest::parse(&changed.canonical()), Err(error.clone()));
    error.to_string()
}

#[test]
fn a_manifest_reads_back_from_its_bytes_and_its_id_is_their_hash() {
    let manifest = manifest();
    let bytes = manifest.canonical();
    assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
    assert_eq!(manifest.release_id(), Digest::of(&bytes));
    assert_eq!(manifest.blob(), BlobRef { sha256: Digest::of(&bytes), length: bytes.len() as u64 });
    assert_eq!(manifest.target_name(), "clock-1.2.0-r1.json");
}

/// Hosts and publishers of different builds must agree on the bytes: this text never changes within a format.
#[test]
fn the_bytes_are_sorted_and_without_spaces() {
    let hash = "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9";
    let expected = format!(
        concat!(
            r#"{{"config":null,"data":[],"floor":null,"format":1,"#,
            r#""health":{{"green":3,"interval_ms":1000,"timeout_ms":2000}},"min_agent":"0.1.0","#,
            r#""platforms":{{"x86_64-linux-gnu":{{"artifact":{{"length":5,"sha256":"{hash}"}},"#,
            r#""descriptor":{{"length":5,"sha256":"{hash}"}}}}}},"plugin":"clock","#,
            r#""probes":[{{"expected":{{"factor":1.1,"text":"1970-01-01\n00:00:00"}},"function":"time","#,
            r#""input":{{"unix_seconds":0}}}}],"revision":1,"version":"1.2.0"}}"#
        ),
        hash = hash
    );
    assert_eq!(String::from_utf8(manifest().canonical()).unwrap(), expected);
}

#[test]
fn numbers_keep_their_value_through_bytes_and_back() {
    for number in
        ["0.1", "1.1", "4.35", "2.2250738585072014e-308", "9007199254740993", "18446744073709551615"]
    {
        let mut manifest = manifest();
        manifest.probes = vec![Probe::parse(&format!("f {number} => {number}")).unwrap()];
        let bytes = manifest.canonical();
        assert_eq!(Manifest::parse(&bytes).unwrap().canonical(), bytes, "{number}");
    }
}

#[test]
fn other_spellings_of_the_same_content_are_refused() {
    let text = String::from_utf8(manifest().canonical()).unwrap();
    for other in [
        text.replace("\"revision\":1", "\"revision\": 1"),
        text.replace("\"floor\":null,", ""),
        text.replace("\"floor\":null", "\"floor\":null,\"floor\":null"),
        format!("{text}\n"),
        text.replace("\"text\"", "\"te\\u0078t\""),
    ] {
        assert_eq!(Manifest::parse(other.as_bytes()).unwrap_err().code(), "MANIFEST_INVALID", "{other}");
    }
}

#[test]
fn unknown_fields_are_refused_and_newer_formats_say_so() {
    let text = String::from_utf8(manifest().canonical()).unwrap();
    let unknown = Manifest::parse(text.replacen('{', "{\"a\":1,", 1).as_bytes()).unwrap_err();
    assert!(unknown.to_string().contains("unknown field `a`"), "{unknown}");
    let newer = text.replace("\"format\":1", "\"format\":2").replacen('{', "{\"a\":1,", 1);
    let error = Manifest::parse(newer.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "the manifest has format 2; this program knows format 1");
    assert_eq!(error.code(), "MANIFEST_FORMAT_UNKNOWN");
    assert_eq!(
        Manifest::min_agent_in(newer.as_bytes()),
        Some(Version::new(0, 1, 0)),
        "that much is understood"
    );
    assert_eq!(Manifest::min_agent_in(b"{}"), None);
}

#[test]
fn every_bound_is_checked_and_names_its_field() {
    let blob = |length| BlobRef { sha256: Digest::of(b""), length };
    let platform = |artifact, descriptor| Platform { artifact: blob(artifact), descriptor: blob(descriptor) };
    let put = |change: &dyn Fn() -> Platform| {
        let platform = change();
        reason(move |it| it.platforms = BTreeMap::from([("x86_64-linux-gnu".to_owned(), platform)]))
    };
    for (reason, named) in [
        (reason(|it| it.plugin = "Clock".to_owned()), "`plugin`"),
        (reason(|it| it.plugin = "a".repeat(65)), "`plugin`"),
        (reason(|it| it.version = "1.0.0+linux".parse().unwrap()), "`version` has build metadata"),
        (reason(|it| it.revision = 0), "`revision`"),
        (reason(|it| it.floor = Some(Version::new(1, 2, 1))), "`floor` is above"),
        (reason(|it| it.probes = vec![it.probes[0].clone(); PROBES_MAX + 1]), "`probes` has 17"),
        (reason(|it| it.probes[0].function = "Time".to_owned()), "`probes[0]`"),
        (reason(|it| it.probes[0].input = json!("x".repeat(PROBE_MAX))), "`probes[0]`: it has"),
        (reason(|it| it.health.green = 0), "`health.green`"),
        (reason(|it| it.health.interval_ms = 60_001), "`health.interval_ms`"),
        (reason(|it| it.health.timeout_ms = 0), "`health.timeout_ms`"),
        (reason(|it| it.config = Some(blob(CONFIG_MAX + 1))), "`config.length`"),
        (reason(|it| it.platforms.clear()), "`platforms` is empty"),
        (put(&|| platform(ARTIFACT_MAX + 1, 1)), "`platforms.x86_64-linux-gnu.artifact.length`"),
        (put(&|| platform(1, DESCRIPTOR_MAX + 1)), "`platforms.x86_64-linux-gnu.descriptor.length`"),
    ] {
        assert!(reason.contains(named), "{reason} should name {named}");
    }
}

#[test]
fn data_blobs_have_flat_names_once_each() {
    let data = |name: &str| DataBlob { name: name.to_owned(), sha256: Digest::of(b""), length: 1 };
    assert!(reason(|it| it.data = vec![data("../x")]).contains("`data[0].name`"));
    assert!(reason(|it| it.data = vec![data("a"), data("a")]).contains("twice"));
    let mut good = manifest();
    good.data = vec![data("geo.db"), data("zones")];
    assert_eq!(good.check(), Ok(()));
}

#[test]
fn a_manifest_that_is_too_large_is_refused_before_it_is_read() {
    let error = Manifest::parse(&vec![b'['; MANIFEST_MAX + 1]).unwrap_err();
    assert_eq!(error.code(), "MANIFEST_TOO_LARGE");
    let mut large = manifest();
    large.probes = vec![Probe { input: json!("x".repeat(8000)), ..large.probes[0].clone() }; 9];
    assert_eq!(large.check().unwrap_err().code(), "MANIFEST_TOO_LARGE");
}

#[test]
fn a_target_name_is_flat_and_plain() {
    for good in ["clock-1.2.0-r1.json", "my_plugin-1.0.0-rc.1-r12.json"] {
        assert!(is_target_name(good), "{good}");
    }
    for bad in ["", ".json", "../x.json", "a/b.json", "a%2fb.json", "a\0.json", "clock.so", "é.json"] {
        assert!(!is_target_name(bad), "{bad}");
    }
}
