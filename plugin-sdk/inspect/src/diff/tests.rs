//! Comparison, as operators meet it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A plugin with one function of this input and output.
fn plugin(input: &Value, output: &Value) -> Descriptor {
    let descriptor = json!({
        "format": 1, "name": "clock", "version": "1.0.0", "concurrency": 4,
        "functions": [{"name": "time", "input": input, "output": output,
                       "idempotent": true, "probe_safe": true, "raw": false}],
        "state": {"writes": [], "reads": []}, "background": false, "needs": [], "config": null,
    });
    Descriptor::parse(descriptor.to_string().as_bytes()).unwrap()
}

fn clock() -> Descriptor {
    plugin(&json!({"type": "object"}), &json!({"type": "object"}))
}

/// What changes when a clock is changed.
fn change(change: impl FnOnce(&mut Descriptor)) -> Diff {
    let mut new = clock();
    change(&mut new);
    compare(&clock(), &new)
}

fn input(old: &Value, new: &Value) -> Diff {
    compare(&plugin(old, &json!(true)), &plugin(new, &json!(true)))
}

fn output(old: &Value, new: &Value) -> Diff {
    compare(&plugin(&json!(true), old), &plugin(&json!(true), new))
}

/// Breaking or not, with the text of the only change.
fn only(diff: &Diff) -> (bool, &str) {
    let [change] = diff.changes() else { panic!("one change expected: {diff:?}") };
    assert_eq!(diff.is_breaking(), change.verdict == Verdict::Breaking);
    (diff.is_breaking(), &change.text)
}

/// An object schema with these fields, of which some are required.
fn object(fields: &Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": fields, "required": required})
}

#[test]
fn a_new_function_is_compatible_and_a_lost_one_is_breaking() {
    let gain = change(|new| {
        let mut function = new.functions[0].clone();
        function.name = "friendly_time".to_owned();
        new.functions.push(function);
    });
    assert_eq!(only(&gain), (false, "friendly_time: new function"));
    let loss = change(|new| new.functions.clear());
    assert_eq!(only(&loss), (true, "time: function is gone (callers may call it)"));
}

#[test]
fn a_lost_mark_is_breaking_and_a_gained_one_is_not() {
    let mut marked = clock();
    let mut bare = clock();
    bare.functions[0].idempotent = false;
    assert_eq!(only(&compare(&marked, &bare)), (true, "time: is no longer idempotent"));
    assert_eq!(only(&compare(&bare, &marked)), (false, "time: is now idempotent"));
    marked.functions[0].idempotent = false;
    bare.functions[0].probe_safe = false;
    assert_eq!(only(&compare(&marked, &bare)), (true, "time: is no longer probe_safe"));
    assert_eq!(only(&compare(&bare, &marked)), (false, "time: is now probe_safe"));
}

#[test]
fn raw_bytes_instead_of_json_are_breaking_both_ways() {
    let json = clock();
    let mut raw = clock();
    let function = &mut raw.functions[0];
    (function.raw, function.input, function.output) = (true, None, None);
    assert!(only(&compare(&json, &raw)).0);
    assert!(only(&compare(&raw, &json)).0);
}

#[test]
fn a_reply_that_loses_a_field_is_breaking() {
    let both = object(
        &json!({"text": {"type": "string"}, "unix_seconds": {"type": "integer"}}),
        &["text", "unix_seconds"],
    );
    let one = object(&json!({"text": {"type": "string"}}), &["text"]);
    let diff = output(&both, &one);
    assert_eq!(only(&diff), (true, "time: reply field `unix_seconds` is gone (callers may read it)"));
    assert_eq!(diff.changes()[0].path, "functions.time.output.unix_seconds");
    assert_eq!(only(&output(&one, &both)), (false, "time: reply field `unix_seconds` is new"));
}

#[test]
fn a_reply_field_may_become_sure_but_not_unsure() {
    let fields = json!({"text": {"type": "string"}});
    let (sure, unsure) = (object(&fields, &["text"]), object(&fields, &[]));
    assert_eq!(
        only(&output(&sure, &unsure)),
        (true, "time: reply field `text` may now be missing (callers may read it)")
    );
    assert_eq!(only(&output(&unsure, &sure)), (false, "time: reply field `text` is now always there"));
    assert_eq!(
        only(&output(&unsure, &object(&json!({}), &[]))),
        (false, "time: reply field `text` is gone, which was optional")
    );
}

#[test]
fn an_input_field_may_become_optional_but_not_required() {
    let fields = json!({"zone": {"type": "string"}});
    let (needed, optional, none) =
        (object(&fields, &["zone"]), object(&fields, &[]), object(&json!({}), &[]));
    assert!(only(&input(&optional, &needed)).0);
    assert!(!only(&input(&needed, &optional)).0);
    assert_eq!(
        only(&input(&none, &needed)),
        (true, "time: input field `zone` is new and required (callers don't send it)")
    );
    assert_eq!(only(&input(&none, &optional)), (false, "time: input field `zone` is new and optional"));
    assert_eq!(
        only(&input(&needed, &none)),
        (false, "time: input field `zone` is gone (it is ignored when sent)")
    );
}

#[test]
fn a_closed_object_makes_other_fields_breaking() {
    let closed = |fields: Value| json!({"properties": fields, "additionalProperties": false});
    let ruled = |fields: Value| json!({"properties": fields, "additionalProperties": {"type": "string"}});
    let (none, one) = (json!({}), json!({"zone": {"type": "string"}}));
    assert!(only(&input(&closed(one.clone()), &closed(none.clone()))).0);
    assert!(!only(&input(&closed(none.clone()), &closed(one.clone()))).0);
    assert!(only(&output(&closed(none.clone()), &closed(one.clone()))).0);
    assert!(!only(&output(&closed(one.clone()), &closed(none.clone()))).0);
    for (old, new) in [(&none, &one), (&one, &none)] {
        assert!(only(&input(&ruled(old.clone()), &ruled(new.clone()))).0);
        assert!(only(&output(&ruled(old.clone()), &ruled(new.clone()))).0);
    }
    let open = json!({"properties": {"zone": {"type": "string"}}});
    assert!(only(&input(&closed(one.clone()), &open)).0, "closed or not is a difference of its own");
    assert!(only(&output(&open, &closed(one))).0);
}

#[test]
fn inputs_may_take_more_types_and_replies_fewer() {
    let (one, two) = (json!({"type": "string"}), json!({"type": ["null", "string"]}));
    for (narrow, wide) in
        [(&one, &two), (&one, &json!(true)), (&json!({"type": "integer"}), &json!({"type": "number"}))]
    {
        assert!(!only(&input(narrow, wide)).0);
        assert!(only(&input(wide, narrow)).0);
        assert!(only(&output(narrow, wide)).0);
        assert!(!only(&output(wide, narrow)).0);
    }
    let text = "time: reply is now null or string, was string (callers may not expect it)";
    assert_eq!(only(&output(&one, &two)), (true, text));
    assert!(input(&two, &json!({"type": ["string", "null"]})).is_empty());
}

#[test]
fn inputs_may_take_more_values_and_replies_fewer() {
    let (one, two) = (json!({"enum": ["utc"]}), json!({"enum": ["utc", "local time"]}));
    for (narrow, wide) in [(&one, &two), (&one, &json!({}))] {
        assert!(!only(&input(narrow, wide)).0);
        assert!(only(&input(wide, narrow)).0);
        assert!(only(&output(narrow, wide)).0);
        assert!(!only(&output(wide, narrow)).0);
    }
    let text = "time: input can no longer be `\"local time\"` (callers may send it)";
    assert_eq!(only(&input(&two, &one)), (true, text));
    let text = "time: reply can now be local, and no longer utc (callers may not know it)";
    assert_eq!(only(&output(&one, &json!({"enum": ["local"]}))), (true, text));
}

#[test]
fn references_are_followed_on_either_side() {
    let inline = object(&json!({"at": object(&json!({"text": {"type": "string"}}), &["text"])}), &[]);
    let named = |fields: &Value, required: &[&str]| {
        let mut schema = object(&json!({"at": {"$ref": "#/$defs/At", "description": "the moment"}}), &[]);
        schema["$defs"] = json!({"At": {"$ref": "#/$defs/Moment"}, "Moment": object(fields, required)});
        schema
    };
    let text = json!({"text": {"type": "string"}});
    assert!(output(&inline, &named(&text, &["text"])).is_empty());
    assert!(output(&named(&text, &["text"]), &inline).is_empty());
    let diff = output(&named(&text, &["text"]), &named(&json!({}), &[]));
    assert_eq!(only(&diff), (true, "time: reply field `at.text` is gone (callers may read it)"));
}

#[test]
fn a_recursive_schema_is_compared_to_its_end() {
    let tree = |leaf: &str| {
        json!({"$ref": "#/$defs/Tree", "$defs": {"Tree": {"properties": {
            "left": {"$ref": "#/$defs/Tree"}, "right": {"$ref": "#/$defs/Tree"}, "leaf": {"type": leaf}}}}})
    };
    let mut retold = tree("string");
    retold["title"] = json!("a tree");
    assert!(output(&tree("string"), &retold).is_empty());
    assert!(only(&output(&tree("string"), &tree("integer"))).0);
}

#[test]
fn recursion_of_different_periods_ends_by_its_bound() {
    let ring = |length: usize| {
        let defs: serde_json::Map<String, Value> = (0..length)
            .map(|index| {
                let next = format!("#/$defs/{}", (index + 1) % length);
                (index.to_string(), json!({"properties": {"next": {"$ref": next}}}))
            })
            .collect();
        json!({"$ref": "#/$defs/0", "$defs": defs})
    };
    assert!(output(&ring(2), &ring(3)).is_empty());
    let diff = output(&ring(97), &ring(101));
    assert!(only(&diff).1.ends_with("is too large or too deep to compare"));
    assert!(diff.is_breaking());
}

#[test]
fn a_reference_that_leads_nowhere_is_breaking_unless_nothing_changed() {
    for reference in ["#/$defs/Gone", "#", "https://example.com/schema", "#/properties/a"] {
        let old = json!({"properties": {"a": {"$ref": reference}}});
        assert!(input(&old, &old).is_empty());
        let new = json!({"title": "new", "properties": {"a": {"$ref": reference}}});
        assert!(only(&input(&old, &new)).0, "{reference}");
    }
    let circle =
        json!({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}});
    assert!(only(&input(&circle, &json!(true))).0);
}

#[test]
fn any_keyword_that_is_not_understood_is_breaking_when_it_differs() {
    let schema = |minimum: i64| json!({"type": "integer", "minimum": minimum});
    assert_eq!(only(&input(&schema(1), &schema(0))), (true, "time: input has another `minimum`"));
    assert_eq!(
        only(&output(&schema(1), &json!({"type": "integer"}))),
        (true, "time: reply lost its `minimum`")
    );
    assert_eq!(
        only(&output(&json!({"type": "integer"}), &schema(1))),
        (true, "time: reply has a new `minimum`")
    );
    assert!(only(&input(&json!({"items": {"type": "integer"}}), &json!({"items": {"type": "number"}}))).0);
    assert!(only(&input(&json!(true), &json!(false))).0);
}

#[test]
fn comments_are_no_structure_but_fields_of_their_names_are() {
    let told = json!({"title": "T", "description": "D", "$comment": "C", "examples": [1], "default": 1,
                      "deprecated": true, "$schema": "https://json-schema.org/draft/2020-12/schema"});
    assert!(input(&told, &json!({})).is_empty());
    let titled = |kind: &str| json!({"oneOf": [{"properties": {"title": {"type": kind}}}]});
    assert!(only(&input(&titled("string"), &titled("integer"))).0);
}

#[test]
fn a_change_behind_a_reference_is_found_inside_keywords_that_are_not_understood() {
    let choice = |kind: &str, told: &str| {
        json!({"anyOf": [{"$ref": "#/$defs/A", "description": told}, {"type": "null"}],
               "$defs": {"A": {"properties": {"a": {"type": kind}}}}})
    };
    assert!(output(&choice("string", "one"), &choice("string", "two")).is_empty());
    assert_eq!(
        only(&output(&choice("string", ""), &choice("integer", ""))),
        (true, "time: reply has another `anyOf`")
    );
}

#[test]
fn keywords_beside_a_reference_are_compared_with_it() {
    let schema = |minimum: i64, kind: &str| json!({"$ref": "#/$defs/A", "minimum": minimum, "$defs": {"A": {"type": kind}}});
    assert_eq!(
        only(&input(&schema(1, "integer"), &schema(2, "integer"))).1,
        "time: input has another `minimum`"
    );
    assert_eq!(only(&input(&schema(1, "integer"), &schema(1, "string"))).1, "time: input has another `$ref`");
}

#[test]
fn state_must_find_its_way_forward() {
    let state = |writes: &[u32], reads: &[u32]| State { writes: writes.to_vec(), reads: reads.to_vec() };
    let diff = |old: &State, new: &State| {
        let (mut before, mut after) = (clock(), clock());
        (before.state, after.state) = (old.clone(), new.clone());
        compare(&before, &after)
    };
    let (none, one, both) = (State::default(), state(&[1], &[1]), state(&[1, 2], &[1, 2]));
    let (two, upgraded) = (state(&[2], &[2]), state(&[2], &[1, 2]));
    let facts = |diff: Diff| (diff.is_empty(), diff.is_breaking(), diff.one_way());
    assert_eq!(facts(diff(&both, &state(&[2, 1], &[2, 1]))), (true, false, false));
    assert_eq!(facts(diff(&one, &both)), (false, false, false));
    assert_eq!(facts(diff(&one, &upgraded)), (false, false, true));
    assert_eq!(facts(diff(&one, &two)), (false, true, true));
    assert_eq!(facts(diff(&one, &none)), (false, true, false));
    assert_eq!(facts(diff(&none, &one)), (false, false, true));
    let diff = diff(&one, &two);
    assert_eq!(only(&diff).1, "state: the new release reads 2, and the old one writes 1");
}

#[test]
fn what_callers_can_not_see_is_reported_and_compatible() {
    assert_eq!(only(&change(|new| new.concurrency = 8)), (false, "concurrency: 8 instead of 4"));
    assert_eq!(only(&change(|new| new.background = true)), (false, "background: now works between calls"));
    assert_eq!(only(&change(|new| new.config = Some(json!({})))), (false, "config: now has a schema"));
    assert!(only(&change(|new| new.needs = vec![json!("net")])).0);
}

#[test]
fn another_config_schema_is_reported_unless_only_its_comments_differ() {
    let with = |config: Value| {
        let mut descriptor = clock();
        descriptor.config = Some(config);
        descriptor
    };
    let old = with(json!({"type": "object"}));
    assert!(compare(&old, &with(json!({"type": "object", "title": "Config"}))).is_empty());
    assert_eq!(
        only(&compare(&old, &with(json!({"type": "string"})))),
        (false, "config: its schema changed (check the config of this push)")
    );
}

#[test]
fn a_recursive_config_that_only_tells_more_is_the_same() {
    let with = |title: &str| {
        let mut descriptor = clock();
        let tree = json!({"properties": {"next": {"$ref": "#/$defs/Tree"}}});
        descriptor.config = Some(json!({"title": title, "$ref": "#/$defs/Tree", "$defs": {"Tree": tree}}));
        descriptor
    };
    assert!(compare(&with("one"), &with("two")).is_empty());
}

#[test]
fn a_field_may_be_required_without_being_listed() {
    let (needed, free) = (json!({"required": ["zone"]}), json!({}));
    assert!(only(&input(&free, &needed)).0);
    assert!(only(&output(&needed, &free)).0);
    assert!(input(&needed, &free).is_empty());
    assert!(output(&free, &needed).is_empty());
    let ruled = json!({"required": ["zone"], "properties": {"zone": {"type": "integer"}}});
    let optional = json!({"properties": {"zone": {"type": "integer"}}});
    assert_eq!(
        only(&input(&needed, &ruled)),
        (true, "time: input field `zone` has a rule now (callers may send what it refuses)")
    );
    assert!(input(&needed, &optional).is_breaking());
}

#[test]
fn a_breaking_change_is_refused_only_under_a_compatible_number() {
    let breaking = change(|new| new.functions.clear());
    let standing =
        |old: &str, new: &str| breaking.verdict_under(&old.parse().unwrap(), &new.parse().unwrap());
    for (old, new) in [("1.2.0", "1.3.0"), ("1.3.0", "1.2.0"), ("0.1.0", "0.1.9"), ("1.0.0", "1.0.0")] {
        assert_eq!(standing(old, new), Standing::RefusedBreaking, "{old} {new}");
    }
    for (old, new) in [("1.2.0", "2.0.0"), ("0.1.0", "0.2.0"), ("0.1.0", "1.1.0"), ("2.0.0", "1.0.0")] {
        assert_eq!(standing(old, new), Standing::BreakingUnderMajor, "{old} {new}");
    }
    let harmless = change(|new| new.concurrency = 1);
    assert_eq!(harmless.verdict_under(&Version::new(1, 0, 0), &Version::new(1, 0, 0)), Standing::Acceptable);
}

#[test]
fn the_json_form_is_what_programs_rely_on() {
    let diff = change(|new| new.concurrency = 8);
    let expected = json!({"breaking": false, "one_way": false, "changes": [
        {"path": "concurrency", "kind": "changed", "verdict": "compatible", "text": "concurrency: 8 instead of 4"}]});
    assert_eq!(serde_json::to_value(&diff).unwrap(), expected);
}

/// JSON that often is nearly a schema.
fn schema() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "type",
        "properties",
        "required",
        "enum",
        "$ref",
        "$defs",
        "items",
        "anyOf",
        "A",
        "#/$defs/A",
        "string",
        "title",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_differs_from_itself(schema in schema()) {
        let mut same = clock();
        (same.functions[0].input, same.functions[0].output) = (Some(schema.clone()), Some(schema));
        prop_assert!(compare(&same, &same).is_empty());
    }

    #[test]
    fn any_json_is_compared_without_a_panic(old in schema(), new in schema()) {
        let (mut before, mut after) = (clock(), clock());
        (before.functions[0].input, after.functions[0].input) = (Some(old.clone()), Some(new.clone()));
        (before.functions[0].output, after.functions[0].output) = (Some(new), Some(old));
        let _ = compare(&before, &after);
    }

    #[test]
    fn what_an_input_may_gain_a_reply_may_lose(
        old in prop::sample::subsequence(vec!["null", "string", "integer", "number"], 1..4),
        new in prop::sample::subsequence(vec!["null", "string", "integer", "number"], 1..4),
    ) {
        let (old, new) = (json!({"type": old}), json!({"type": new}));
        prop_assert_eq!(input(&old, &new).is_breaking(), output(&new, &old).is_breaking());
    }
}
