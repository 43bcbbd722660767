//! Descriptors, good and bad.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn clock() -> Value {
    json!({
        "format": 1, "name": "clock", "version": "1.0.0", "concurrency": 4,
        "functions": [
            {"name": "time", "input": {"type": "object"}, "output": true,
             "idempotent": true, "probe_safe": true, "raw": false},
            {"name": "image", "input": null, "output": null,
             "idempotent": false, "probe_safe": false, "raw": true}],
        "state": {"writes": [1, 2], "reads": [2]}, "background": false, "needs": [], "config": null,
    })
}

fn parse(descriptor: &Value) -> Result<Descriptor, DescriptorError> {
    Descriptor::parse(descriptor.to_string().as_bytes())
}

/// What becomes of the descriptor when the value at `place` is another one.
fn with(place: &str, value: Value) -> Result<Descriptor, DescriptorError> {
    let mut descriptor = clock();
    *descriptor.pointer_mut(place).unwrap() = value;
    parse(&descriptor)
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!({}), |inner, _| json!({ "not": inner }))
}

#[test]
fn a_descriptor_is_read_and_written_alike() {
    let descriptor = parse(&clock()).unwrap();
    assert_eq!(descriptor.function("time").unwrap().output, Some(json!(true)));
    assert_eq!(descriptor.function("image").unwrap().input, None);
    assert_eq!(descriptor.function("date"), None);
    assert_eq!(serde_json::to_value(&descriptor).unwrap(), clock());
}

#[test]
fn each_field_is_needed_and_no_other_is_allowed() {
    let whole = clock();
    for place in ["", "/functions/0", "/state"] {
        let fields = whole.pointer(place).unwrap().as_object().unwrap();
        for field in fields.keys() {
            let mut less = whole.clone();
            less.pointer_mut(place).unwrap().as_object_mut().unwrap().remove(field);
            assert_eq!(parse(&less).unwrap_err().code(), "DESCRIPTOR_MALFORMED", "without {place}/{field}");
        }
        let mut more = whole.clone();
        more.pointer_mut(place).unwrap().as_object_mut().unwrap().insert("colour".into(), json!(1));
        assert_eq!(parse(&more).unwrap_err().code(), "DESCRIPTOR_MALFORMED", "with {place}/colour");
    }
}

#[test]
fn a_newer_format_is_named_before_its_unknown_fields() {
    let error = parse(&json!({"format": 2, "colour": "blue"})).unwrap_err();
    assert_eq!(error, DescriptorError::Format(2));
    assert_eq!(error.code(), "DESCRIPTOR_FORMAT");
}

#[test]
fn impossible_values_are_refused() {
    let functions = |count: usize| {
        let function = |index| {
            json!({"name": format!("f{index}"), "input": true, "output": true,
                   "idempotent": false, "probe_safe": false, "raw": false})
        };
        (0..count).map(function).collect::<Value>()
    };
    assert!(with("/functions", functions(FUNCTIONS_MAX)).is_ok());
    let bad = [
        ("/name", json!("Clock")),
        ("/version", json!(format!("1.0.0-{}", "a".repeat(VERSION_MAX)))),
        ("/concurrency", json!(0)),
        ("/concurrency", json!(CONCURRENCY_MAX + 1)),
        ("/functions", functions(FUNCTIONS_MAX + 1)),
        ("/functions/0/name", json!("get-time")),
        ("/functions/0/name", json!("image")),
        ("/functions/0/raw", json!(true)),
        ("/functions/1/raw", json!(false)),
        ("/functions/0/input", json!(null)),
        ("/functions/0/input", json!("object")),
        ("/functions/0/output", nested(SCHEMA_DEPTH_MAX)),
        ("/config", json!([])),
        ("/config", nested(SCHEMA_DEPTH_MAX)),
        ("/state/reads", json!([])),
        ("/state/writes", json!([])),
        ("/state/reads", json!([3])),
        ("/state/reads", json!([2, 2])),
        ("/state/writes", json!((0..=STATE_VERSIONS_MAX).collect::<Vec<_>>())),
    ];
    for (place, value) in bad {
        let error = with(place, value.clone()).unwrap_err();
        assert_eq!(error.code(), "DESCRIPTOR_INVALID", "{place}: {value}");
        assert!(error.to_string().len() < 500);
    }
}

#[test]
fn a_schema_may_be_nested_up_to_the_bound() {
    assert!(with("/config", nested(SCHEMA_DEPTH_MAX - 1)).is_ok());
}

#[test]
fn json_that_can_not_be_read_is_malformed() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let text = clock().to_string();
    let twice = text.replacen("\"background\":false", "\"background\":false,\"background\":true", 1);
    let trailing = format!("{text} x");
    for text in ["", "{", "[]", "\u{feff}{}", &deep, &twice, &trailing] {
        assert_eq!(Descriptor::parse(text.as_bytes()).unwrap_err().code(), "DESCRIPTOR_MALFORMED");
    }
}

#[test]
fn more_than_256_kib_are_not_even_read() {
    let error = Descriptor::parse(&vec![b' '; DESCRIPTOR_MAX + 1]).unwrap_err();
    assert_eq!(error, DescriptorError::TooLarge { size: DESCRIPTOR_MAX + 1 });
}

#[test]
fn any_need_is_unknown_yet_but_can_be_read() {
    assert_eq!(parse(&clock()).unwrap().unsupported_needs(), None);
    for need in [json!("clock"), json!({"listen": "tcp:80"})] {
        let error = with("/needs", json!([need])).unwrap().unsupported_needs().unwrap();
        assert_eq!(error.code(), "NEEDS_UNKNOWN");
        assert!(error.to_string().contains(&need.to_string()), "{error}");
    }
}

#[test]
fn state_is_handed_over_in_the_highest_version_that_both_know() {
    let old = State { writes: vec![2, 1], reads: vec![1, 2] };
    let new = State { writes: vec![3], reads: vec![1, 2, 3] };
    assert_eq!(old.handover(&new), Some(2));
    assert_eq!(new.handover(&old), None);
    assert!(State::default().is_stateless());
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Descriptor::parse(&bytes);
    }

    #[test]
    fn any_damage_is_judged_without_a_panic(at in 0_usize..400, byte in any::<u8>()) {
        let mut bytes = clock().to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Descriptor::parse(&bytes);
    }
}
