//! How probes are written, and what matches them.

use serde_json::json;

use super::*;

fn mismatch(expected: Value, got: Value) -> String {
    let probe = Probe { function: "f".to_owned(), input: Value::Null, expected };
    probe.matches(&got).unwrap_err().to_string()
}

#[test]
fn a_probe_reads_back_from_its_text() {
    let probe = Probe::parse(r#"  time {"unix_seconds": 0} => {"text": "a => b"}  "#).unwrap();
    assert_eq!(probe.function, "time");
    assert_eq!(probe.input, json!({ "unix_seconds": 0 }));
    assert_eq!(probe.expected, json!({ "text": "a => b" }));
    assert_eq!(Probe::parse(&probe.to_string()).unwrap(), probe);
}

#[test]
fn the_arrow_may_stand_inside_a_string_of_the_input() {
    let probe = Probe::parse(r#"echo "x => y" => "x => y""#).unwrap();
    assert_eq!((probe.input, probe.expected), (json!("x => y"), json!("x => y")));
}

#[test]
fn a_probe_that_cannot_be_read_says_where() {
    for (text, reason) in [
        ("", "an input in JSON is missing"),
        ("time", "an input in JSON is missing"),
        ("time  ", "an input in JSON is missing"),
        ("time {} {}", "`=>` is missing"),
        ("time => {}", "the input is not JSON"),
        ("time {\"a\":} => {}", "the input is not JSON"),
        ("time {} =>", "after `=>`: EOF"),
        ("time {} => {} {}", "after `=>`: trailing characters"),
        ("Time {} => {}", "`Time` is not the name of a function"),
    ] {
        let error = Probe::parse(text).unwrap_err();
        assert_eq!(error.code(), "PROBE_INVALID");
        assert!(error.to_string().contains(reason), "{error} should say {reason}");
    }
    let long = format!("time \"{}\" => {{}}", "x".repeat(PROBE_MAX));
    assert!(Probe::parse(&long).unwrap_err().to_string().len() < 1000);
}

#[test]
fn objects_match_as_subsets_at_every_depth() {
    let probe = Probe::parse(r#"f null => {"a":{"b":[{"c":1}]}}"#).unwrap();
    assert_eq!(probe.matches(&json!({ "a": { "b": [{ "c": 1, "d": 2 }], "x": 0 }, "y": 0 })), Ok(()));
}

#[test]
fn the_first_difference_is_named_with_its_path() {
    assert_eq!(mismatch(json!({ "text": "x" }), json!({ "text": "y" })), r#"$.text: got "y", wanted "x""#);
    assert_eq!(mismatch(json!({ "a": { "b": 1 } }), json!({ "a": {} })), "$.a.b: got nothing, wanted 1");
    assert_eq!(mismatch(json!([1, 2]), json!([1])), "$[1]: got nothing, wanted 2");
    assert_eq!(mismatch(json!([1]), json!([1, 2])), "$[1]: got 2, wanted nothing");
    assert_eq!(mismatch(json!({}), json!([])), "$: got [], wanted {}");
    assert_eq!(mismatch(json!(null), json!(false)), "$: got false, wanted null");
}

#[test]
fn numbers_are_compared_by_value_and_never_rounded() {
    let matches = |expected: Value, got: Value| {
        Probe { function: "f".to_owned(), input: Value::Null, expected }.matches(&got).is_ok()
    };
    assert!(matches(json!(1), json!(1.0)) && matches(json!(1.5), json!(1.5)));
    assert!(!matches(json!(1), json!(1.000_000_1)) && !matches(json!(1), json!("1")));
    assert!(!matches(json!(u64::MAX), json!(u64::MAX - 1)));
}

#[test]
fn long_values_are_cut_where_they_are_shown() {
    let text = mismatch(json!("é".repeat(1000)), json!(""));
    assert!(text.len() < 1000 && text.ends_with('…'), "{text}");
}
