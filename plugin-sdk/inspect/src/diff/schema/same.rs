//! Whether two schemas mean the same: comments ignored, references followed, order kept only where it counts.

use serde_json::{Map, Value};

use super::{
    COMMENTS, DEPTH_MAX, Pairs,
    node::{Values, keywords, resolve, target},
};

/// Whether two schemas mean the same. Where that can't be told, they don't.
pub(super) fn same<'a>(pairs: &mut Pairs<'a>, old: &'a Value, new: &'a Value, depth: usize) -> bool {
    if depth > DEPTH_MAX || !pairs.spend(1) {
        return false;
    }
    let (Some(old), Some(new)) = (resolve(pairs.old, old), resolve(pairs.new, new)) else { return false };
    if !pairs.seen_same.insert((old, new)) {
        return true;
    }
    match (keywords(old), keywords(new)) {
        (Some(old), Some(new)) => same_keywords(pairs, old, new, depth),
        _ => old.is_boolean() && old == new,
    }
}

/// Whether one keyword means the same in both schemas.
pub(super) fn same_keyword<'a>(
    pairs: &mut Pairs<'a>,
    keyword: &str,
    (old, new): (&'a Value, &'a Value),
    depth: usize,
) -> bool {
    match keyword {
        "properties" | "patternProperties" | "dependentSchemas" => same_map(pairs, old, new, depth),
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => same_list(pairs, old, new, depth),
        "additionalProperties"
        | "contains"
        | "else"
        | "if"
        | "items"
        | "not"
        | "propertyNames"
        | "then"
        | "unevaluatedItems"
        | "unevaluatedProperties" => same(pairs, old, new, depth + 1),
        "$ref" => match (target(pairs.old, old), target(pairs.new, new)) {
            (Some(old), Some(new)) => same(pairs, old, new, depth + 1),
            _ => false,
        },
        // These name places, or point to places, that are not followed here, and the documents differ somewhere.
        "$anchor" | "$dynamicAnchor" | "$dynamicRef" | "$id" | "$recursiveRef" | "definitions" => false,
        _ => old == new,
    }
}

fn same_keywords<'a>(
    pairs: &mut Pairs<'a>,
    old: &'a Map<String, Value>,
    new: &'a Map<String, Value>,
    depth: usize,
) -> bool {
    let sets = ["enum", "required", "type"];
    let counts = |keyword: &&String| {
        !(COMMENTS.contains(&keyword.as_str()) || sets.contains(&keyword.as_str()) || *keyword == "$defs")
    };
    sets.iter().all(|set| Values::read(old, set).is_some_and(|values| Some(values) == Values::read(new, set)))
        && new.keys().filter(counts).all(|keyword| old.contains_key(keyword))
        && old.keys().filter(counts).all(|keyword| {
            let values = old.get(keyword).zip(new.get(keyword));
            values.is_some_and(|values| same_keyword(pairs, keyword, values, depth))
        })
}

fn same_map<'a>(pairs: &mut Pairs<'a>, old: &'a Value, new: &'a Value, depth: usize) -> bool {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return false };
    old.len() == new.len()
        && old.iter().all(|(name, old)| new.get(name).is_some_and(|new| same(pairs, old, new, depth + 1)))
}

fn same_list<'a>(pairs: &mut Pairs<'a>, old: &'a Value, new: &'a Value, depth: usize) -> bool {
    let (Value::Array(old), Value::Array(new)) = (old, new) else { return false };
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(pairs, old, new, depth + 1))
}
