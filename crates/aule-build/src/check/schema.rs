//! A JSON Schema of cloud-init (draft 4, whatever it declares: cloudinit/config/schema.py) and what it says of a
//! document: errors, and what is deprecated.
//!
//! Where alternatives (`anyOf`, `oneOf`) all fail, the errors of the one that fits best are shown, as cloud-init does.

use super::yaml::Step;
use jsonschema::{
    Draft, ValidationError, Validator,
    error::ValidationErrorKind,
    paths::{Location, LocationSegment},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The most problems that one document is told of.
const PROBLEMS_MAX: usize = 100;
/// The most schemas that are looked at for deprecations.
const VISITS_MAX: usize = 20_000;
/// The deepest nesting of schemas that is followed; a schema may refer to itself.
const DEPTH_MAX: usize = 64;
/// A longer value is not repeated in a message.
const SHOWN_MAX: usize = 80;

/// A schema, ready to use.
pub(super) struct Schema {
    root: Value,
    validator: Validator,
}

/// Something that a schema says of a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    /// Where in the document.
    pub(super) path: Vec<Step>,
    /// What, in the schema's words.
    pub(super) message: String,
    /// A name near to one that is unknown.
    pub(super) nearest: Option<String>,
    /// Still works.
    pub(super) deprecated: bool,
}

fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(Draft::Draft4)
        .should_validate_formats(true)
        .build(schema)
        .map_err(|error| error.to_string().chars().take(200).collect())
}

/// Draft 4 passes over what stands beside a `$ref`; cloud-init's validator does not, and its schemas count on that. So
/// the reference moves into an `allOf`. The depth is bounded by that of the JSON reader.
fn beside_references(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(beside_references),
        Value::Object(map) => {
            map.values_mut().for_each(beside_references);
            // A property may be called `$ref`, too; its value is a schema then, no string.
            if map.len() > 1 && map.get("$ref").is_some_and(Value::is_string) {
                let reference = map.remove("$ref");
                let all = map.entry("allOf").or_insert_with(|| Value::Array(Vec::new()));
                if let (Value::Array(all), Some(reference)) = (all, reference) {
                    all.push(json!({ "$ref": reference }));
                }
            }
        }
        _ => {}
    }
}

impl Schema {
    /// Reads a schema.
    pub(super) fn parse(bytes: &[u8]) -> Result<Schema, String> {
        let mut root: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if let Some(root) = root.as_object_mut() {
            // References are all inside of it; an identifier of its own would only be something to fetch.
            root.remove("$schema");
            root.remove("$id");
            root.remove("id");
        }
        beside_references(&mut root);
        let validator = compile(&root)?;
        Ok(Schema { root, validator })
    }

    /// All that the schema says of a document, in the order of the places.
    pub(super) fn problems(&self, document: &Value) -> Vec<Problem> {
        let mut problems = BTreeSet::new();
        for error in self.validator.iter_errors(document).take(PROBLEMS_MAX) {
            self.leaves(&error, 0, &mut problems);
        }
        let mut visits = VISITS_MAX;
        self.deprecations(&self.root, document, &mut Vec::new(), 0, &mut visits, &mut problems);
        problems.into_iter().take(PROBLEMS_MAX).collect()
    }

    fn leaves(&self, error: &ValidationError<'_>, depth: usize, out: &mut BTreeSet<Problem>) {
        if let ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } = error.kind() {
            if let Some(best) =
                best_alternative(context, error.instance(), error.instance_path()).filter(|_| depth < DEPTH_MAX)
            {
                best.iter().for_each(|error| self.leaves(error, depth + 1, out));
                return;
            }
            if let Some(kind) = error.instance().get("type") {
                let types: Vec<String> = known_types(context).iter().map(Value::to_string).collect();
                if !types.is_empty() {
                    let mut path = steps(error.instance_path());
                    path.push(Step::Key("type".into()));
                    let message = format!("{kind} is not one of {}", types.join(", "));
                    out.insert(Problem { path, message, nearest: None, deprecated: false });
                    return;
                }
            }
            let mut reasons: Vec<String> = Vec::new();
            for reason in context.iter().flatten().map(|it| message(it)) {
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
            if !reasons.is_empty() && reasons.len() <= 4 {
                let path = steps(error.instance_path());
                out.insert(Problem { path, message: reasons.join(", or "), nearest: None, deprecated: false });
                return;
            }
        }
        let path = steps(error.instance_path());
        if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
            let known = self.siblings(error.schema_path());
            for name in unexpected {
                let nearest = aule_recipe::nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
                let mut path = path.clone();
                path.push(Step::Key(name.clone()));
                out.insert(Problem {
                    path,
                    message: format!("`{name}` is not a known key"),
                    nearest,
                    deprecated: false,
                });
            }
            return;
        }
        out.insert(Problem { path, message: message(error), nearest: None, deprecated: false });
    }

    /// The keys that the schema beside `additionalProperties` knows.
    fn siblings(&self, place: &Location) -> Vec<String> {
        let parent = place.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
        let properties = self.root.pointer(&format!("{parent}/properties")).and_then(Value::as_object);
        properties.map(|it| it.keys().cloned().collect()).unwrap_or_default()
    }

    /// Walks schema and document side by side, along what is valid, for `deprecated` and `changed`.
    fn deprecations(
        &self,
        schema: &Value,
        value: &Value,
        path: &mut Vec<Step>,
        depth: usize,
        visits: &mut usize,
        out: &mut BTreeSet<Problem>,
    ) {
        let Some(schema) = schema.as_object().filter(|_| depth < DEPTH_MAX && *visits > 0) else { return };
        *visits -= 1;
        let depth = depth + 1;
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            // `beside_references` left nothing beside it.
            if let Some(there) = reference.strip_prefix('#').and_then(|it| self.root.pointer(it)) {
                self.deprecations(there, value, path, depth, visits, out);
            }
            return;
        }
        for key in ["deprecated", "changed"] {
            if schema.get(key) == Some(&Value::Bool(true)) {
                let text = |name: String| schema.get(&name).and_then(Value::as_str).unwrap_or_default().to_owned();
                let version = text(format!("{key}_version"));
                let why = text(format!("{key}_description"));
                let since = if version.is_empty() { String::new() } else { format!(" since cloud-init {version}") };
                let why = if why.is_empty() { String::new() } else { format!(": {}", why.trim()) };
                let message = format!("{key}{since}{why}");
                out.insert(Problem { path: path.clone(), message, nearest: None, deprecated: true });
            }
        }
        let list = |key: &str| schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for every in list("allOf") {
            self.deprecations(every, value, path, depth, visits, out);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(first) = list(key).iter().find(|it| self.fits(it, value, visits)) {
                self.deprecations(first, value, path, depth, visits, out);
            }
        }
        match value {
            Value::Object(map) => {
                let properties = schema.get("properties").and_then(Value::as_object);
                let patterns = schema.get("patternProperties").and_then(Value::as_object);
                for (name, value) in map {
                    path.push(Step::Key(name.clone()));
                    let own = properties.and_then(|it| it.get(name));
                    let mut known = own.is_some();
                    if let Some(schema) = own {
                        self.deprecations(schema, value, path, depth, visits, out);
                    }
                    for (pattern, schema) in patterns.into_iter().flatten() {
                        if self.fits(&json!({ "pattern": pattern }), &Value::String(name.clone()), visits) {
                            known = true;
                            self.deprecations(schema, value, path, depth, visits, out);
                        }
                    }
                    if let Some(schema) = schema.get("additionalProperties").filter(|_| !known) {
                        self.deprecations(schema, value, path, depth, visits, out);
                    }
                    path.pop();
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let schema = match schema.get("items") {
                        Some(Value::Array(each)) => each.get(index),
                        other => other,
                    };
                    if let Some(schema) = schema {
                        path.push(Step::Index(index));
                        self.deprecations(schema, item, path, depth, visits, out);
                        path.pop();
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether a part of the schema takes a value.
    fn fits(&self, part: &Value, value: &Value, visits: &mut usize) -> bool {
        *visits = visits.saturating_sub(10);
        let mut whole = json!({ "allOf": [part] });
        if let Some(whole) = whole.as_object_mut() {
            for key in ["$defs", "definitions"] {
                if let Some(there) = self.root.get(key) {
                    whole.insert(key.into(), there.clone());
                }
            }
        }
        compile(&whole).is_ok_and(|validator| validator.is_valid(value))
    }
}

/// The values of `type` that alternatives ask for, where each asks for another than there is.
fn known_types(context: &[Vec<ValidationError<'static>>]) -> Vec<Value> {
    let mut types = Vec::new();
    for errors in context {
        let asked = errors.iter().find_map(|error| match error.kind() {
            ValidationErrorKind::Enum { options } if error.instance_path().as_str().ends_with("/type") => {
                options.as_array()
            }
            _ => None,
        });
        match asked {
            Some(asked) => types.extend(asked.iter().filter(|it| it.is_string()).cloned()),
            None => return Vec::new(),
        }
    }
    types
}

/// The alternative whose errors say best what is wrong; `None` where none stands out.
fn best_alternative<'a>(
    context: &'a [Vec<ValidationError<'static>>],
    instance: &Value,
    place: &Location,
) -> Option<&'a [ValidationError<'static>]> {
    let here = place.as_str();
    let has_type = instance.get("type").is_some();
    let below =
        |error: &ValidationError<'_>| error.instance_path().as_str().strip_prefix(here).unwrap_or("").to_owned();
    let score = |errors: &Vec<ValidationError<'static>>| -> usize {
        let wrong_kind = errors.iter().any(|error| {
            let below = below(error);
            (below.is_empty()
                && matches!(error.kind(), ValidationErrorKind::Type { .. } | ValidationErrorKind::Enum { .. }))
                || (has_type && below == "/type")
        });
        if wrong_kind { 0 } else { 1 + errors.iter().map(|error| below(error).matches('/').count()).max().unwrap_or(0) }
    };
    let best = context.iter().map(score).max().filter(|best| *best > 0)?;
    let mut top = context.iter().filter(|errors| score(errors) == best);
    match (top.next(), top.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

fn steps(place: &Location) -> Vec<Step> {
    place
        .segments()
        .map(|segment| match segment {
            LocationSegment::Property(name) => Step::Key(name.into_owned()),
            LocationSegment::Index(index) => Step::Index(index),
        })
        .collect()
}

/// An error in words, without a value that would fill the screen.
fn message(error: &ValidationError<'_>) -> String {
    let long =
        error.instance().is_object() || error.instance().is_array() || error.instance().to_string().len() > SHOWN_MAX;
    let text = if long { error.masked_with("this value").to_string() } else { error.to_string() };
    if text.chars().count() > 400 { text.chars().take(400).chain(['…']).collect() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::yaml::dotted;

    /// A schema with the turns that cloud-init's takes.
    const SCHEMA: &str = r##"{
      "$schema": "http://json-schema.org/draft-04/schema#",
      "$id": "https://example.invalid/schema.json",
      "$defs": {
        "user": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string"},
            "old": {"type": "boolean", "deprecated": true, "deprecated_version": "22.3", "deprecated_description": "Use **new**."},
            "uid": {"oneOf": [{"type": "integer"}, {"type": "string", "deprecated": true, "deprecated_version": "1"}]}
          }, "additionalProperties": false},
        "thing": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]},
        "a": {"type": "object", "required": ["type"], "properties": {"type": {"enum": ["a"]}, "n": {"type": "integer"}}},
        "b": {"type": "object", "required": ["type"], "properties": {"type": {"enum": ["b"]}, "n": {"type": "string"}}},
        "all": {"properties": {
            "users": {"type": "array", "items": {"oneOf": [{"type": "string"}, {"$ref": "#/$defs/user"}]}},
            "things": {"type": "array", "items": {"$ref": "#/$defs/thing"}},
            "tree": {"$ref": "#/$defs/tree"},
            "beside": {"$ref": "#/$defs/beside"}
        }},
        "beside": {"$ref": "#/$defs/tree", "minProperties": 1, "deprecated": true},
        "tree": {"type": "object", "patternProperties": {"^x_": {"$ref": "#/$defs/tree"}}, "properties": {"dead": {"deprecated": true}}}
      },
      "type": "object",
      "properties": {"users": {}, "things": {}, "tree": {}, "beside": {}},
      "additionalProperties": false,
      "allOf": [{"$ref": "#/$defs/all"}]
    }"##;

    fn said(document: Value) -> Vec<String> {
        let schema = Schema::parse(SCHEMA.as_bytes()).unwrap();
        let show = |it: Problem| {
            let kind = if it.deprecated { "deprecated" } else { "error" };
            let nearest = it.nearest.map(|it| format!(" ({it}?)")).unwrap_or_default();
            format!("{kind} {}: {}{nearest}", dotted(&it.path), it.message)
        };
        schema.problems(&document).into_iter().map(show).collect()
    }

    #[test]
    fn problems_name_their_place() {
        for (document, wanted) in [
            (json!({"things": [{"type": "c"}]}), vec!["error things[0].type: \"c\" is not one of \"a\", \"b\""]),
            (json!({"users": ["x", {"name": "y", "uid": 1}], "things": [{"type": "b", "n": "1"}]}), vec![]),
            (json!({"user": []}), vec!["error user: `user` is not a known key (users?)"]),
            (json!({"users": [{"name": 12}]}), vec!["error users[0].name: 12 is not of type \"string\""]),
            (
                json!({"users": [{"naem": "x"}]}),
                vec![
                    "error users[0]: \"name\" is a required property",
                    "error users[0].naem: `naem` is not a known key (name?)",
                ],
            ),
            (
                json!({"users": [7]}),
                vec!["error users[0]: 7 is not of type \"string\", or 7 is not of type \"object\""],
            ),
            (json!({"things": [{"type": "b", "n": 1}]}), vec!["error things[0].n: 1 is not of type \"string\""]),
            (
                json!({"users": [{"name": "x", "old": true}]}),
                vec!["deprecated users[0].old: deprecated since cloud-init 22.3: Use **new**."],
            ),
            (
                json!({"users": [{"name": "x", "uid": "1"}]}),
                vec!["deprecated users[0].uid: deprecated since cloud-init 1"],
            ),
            (json!({"tree": {"x_": {"x_": {"dead": 1}}}}), vec!["deprecated tree.x_.x_.dead: deprecated"]),
            (
                json!({"beside": {"dead": 1}}),
                vec!["deprecated beside: deprecated", "deprecated beside.dead: deprecated"],
            ),
            (json!({"beside": 7}), vec!["error beside: 7 is not of type \"object\"", "deprecated beside: deprecated"]),
        ] {
            assert_eq!(said(document.clone()), wanted, "{document}");
        }
    }

    #[test]
    fn hostile_schemas_end() {
        for (text, document) in [
            (r##"{"$ref": "#"}"##, json!({"a": 1})),
            (r##"{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}"##, json!(1)),
            (r##"{"$ref": "https://example.invalid/other.json"}"##, json!(1)),
            ("[", json!(1)),
            ("7", json!(1)),
        ] {
            if let Ok(schema) = Schema::parse(text.as_bytes()) {
                let _: Vec<Problem> = schema.problems(&document);
            }
        }
    }
}
