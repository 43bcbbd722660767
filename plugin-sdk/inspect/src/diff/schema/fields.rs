//! Fields of an object: `properties` and `required`, and what `additionalProperties` makes of a field that only one
//! side knows.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Comparison, Direction, Place, node::Values};
use crate::diff::Kind;

/// What a schema says about fields that it does not list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unlisted {
    /// Anything goes.
    Open,
    /// They are forbidden.
    Closed,
    /// They have rules of their own.
    Ruled,
}

/// One field on both sides.
struct Field<'a> {
    old: Option<&'a Value>,
    new: Option<&'a Value>,
    was_required: bool,
    is_required: bool,
}

impl<'a> Comparison<'a> {
    /// Compares the fields of two object schemas.
    pub(super) fn fields(&mut self, old: &'a Map<String, Value>, new: &'a Map<String, Value>, at: &Place) {
        let (Some(old_fields), Some(new_fields)) = (listed(old), listed(new)) else {
            return self.breaks(Kind::Changed, at, "properties", "has `properties` that can't be read");
        };
        let (Some(was_required), Some(is_required)) =
            (Values::read(old, "required"), Values::read(new, "required"))
        else {
            return self.breaks(Kind::Changed, at, "required", "has a `required` that can't be read");
        };
        let names: BTreeSet<&String> = [old_fields, new_fields]
            .into_iter()
            .flatten()
            .flat_map(Map::keys)
            .chain(required(old))
            .chain(required(new))
            .collect();
        if !self.pairs.spend(names.len()) {
            return self.breaks(Kind::Changed, at, "", "is too large to compare");
        }
        let unlisted = (Unlisted::of(old), Unlisted::of(new));
        for name in names {
            let field = Field {
                old: old_fields.and_then(|fields| fields.get(name)),
                new: new_fields.and_then(|fields| fields.get(name)),
                was_required: was_required.lists(name),
                is_required: is_required.lists(name),
            };
            match self.direction {
                Direction::Input => self.input_field(&field, unlisted, &at.field(name)),
                Direction::Output => self.output_field(&field, unlisted, &at.field(name)),
            }
        }
    }

    fn input_field(&mut self, field: &Field<'a>, (before, after): (Unlisted, Unlisted), at: &Place) {
        if field.is_required && !field.was_required {
            let (kind, text) = if field.old.is_some() {
                (Kind::Changed, "is now required (callers may leave it out)")
            } else {
                (Kind::Added, "is new and required (callers don't send it)")
            };
            self.breaks(kind, at, "", text);
        } else if field.was_required && !field.is_required && field.new.is_some() {
            self.allows(Kind::Changed, at, "", "is no longer required");
        }
        match (field.old, field.new) {
            (Some(old), Some(new)) => self.schemas(old, new, at),
            (Some(_), None) if after == Unlisted::Open => {
                self.allows(Kind::Removed, at, "", "is gone (it is ignored when sent)");
            }
            (Some(_), None) => self.breaks(Kind::Removed, at, "", "is gone (callers may send it)"),
            (None, Some(_)) if before == Unlisted::Ruled => {
                self.breaks(Kind::Added, at, "", "is new (callers may send it by another rule)");
            }
            (None, Some(_)) if field.was_required => {
                self.breaks(Kind::Changed, at, "", "has a rule now (callers may send what it refuses)");
            }
            (None, Some(_)) if field.is_required => {}
            (None, Some(_)) => self.allows(Kind::Added, at, "", "is new and optional"),
            (None, None) => {}
        }
    }

    fn output_field(&mut self, field: &Field<'a>, (before, after): (Unlisted, Unlisted), at: &Place) {
        match (field.old, field.new) {
            (Some(old), Some(new)) => {
                self.output_requirement(field, at);
                self.schemas(old, new, at);
            }
            (Some(_), None) if field.was_required => {
                self.breaks(Kind::Removed, at, "", "is gone (callers may read it)");
            }
            (Some(_), None) if after == Unlisted::Ruled => {
                self.breaks(Kind::Removed, at, "", "now follows another rule (callers may not expect it)");
            }
            (Some(_), None) => self.allows(Kind::Removed, at, "", "is gone, which was optional"),
            (None, Some(_)) => {
                self.output_requirement(field, at);
                if before == Unlisted::Open {
                    self.allows(Kind::Added, at, "", "is new");
                } else {
                    self.breaks(Kind::Added, at, "", "is new (the old reply promised no other fields)");
                }
            }
            (None, None) => self.output_requirement(field, at),
        }
    }

    fn output_requirement(&mut self, field: &Field<'_>, at: &Place) {
        match (field.was_required, field.is_required) {
            (true, false) => self.breaks(Kind::Changed, at, "", "may now be missing (callers may read it)"),
            (false, true) if field.old.is_some() => self.allows(Kind::Changed, at, "", "is now always there"),
            (false | true, true) | (false, false) => {}
        }
    }
}

impl Unlisted {
    fn of(schema: &Map<String, Value>) -> Self {
        if schema.contains_key("patternProperties") || schema.contains_key("unevaluatedProperties") {
            return Self::Ruled;
        }
        match schema.get("additionalProperties") {
            None | Some(Value::Bool(true)) => Self::Open,
            Some(Value::Bool(false)) => Self::Closed,
            Some(_) => Self::Ruled,
        }
    }
}

/// The listed fields, which may be missing altogether; `None` if they can't be read.
fn listed(schema: &Map<String, Value>) -> Option<Option<&Map<String, Value>>> {
    match schema.get("properties") {
        None => Some(None),
        Some(Value::Object(fields)) => Some(Some(fields)),
        Some(_) => None,
    }
}

/// The names of required fields.
fn required(schema: &Map<String, Value>) -> impl Iterator<Item = &String> {
    let names = schema.get("required").and_then(Value::as_array);
    names
        .into_iter()
        .flatten()
        .filter_map(|name| if let Value::String(name) = name { Some(name) } else { None })
}
