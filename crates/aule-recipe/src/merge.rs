//! The merge of recipes: scalars and whole `files:` entries are replaced, maps merge by key, lists append, and
//! `!replace` on a list or map puts it in place of the inherited one.

use std::collections::HashSet;

use crate::yaml::{Entry, Key, Map, Node, Tag, Value};

/// Lays `over` on `base`.
pub(crate) fn merge(base: Node, over: Node) -> Node {
    merge_at(base, over, &mut Vec::new())
}

/// Recursion is bounded by the depth that the parser allows.
fn merge_at(base: Node, over: Node, path: &mut Vec<String>) -> Node {
    if over.tag == Some(Tag::Replace) || is_whole(path) {
        return over;
    }
    // A `!replace` in a variant holds against the recipe too, however many files later add to that variant.
    let tag = if base.tag == Some(Tag::Replace) { base.tag } else { over.tag };
    let value = match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) => Value::Map(merge_maps(base, over, path)),
        (Value::List(mut base), Value::List(over)) => {
            base.extend(over);
            Value::List(base)
        }
        (_, over) => over,
    };
    Node { value, tag, span: over.span }
}

fn merge_maps(mut base: Map, over: Map, path: &mut Vec<String>) -> Map {
    for (key, entry) in over {
        let merged = match base.get_mut(&key) {
            None => entry,
            Some(inherited) => {
                path.push(key.text.clone());
                let inherited = std::mem::replace(&mut inherited.value, placeholder(&entry.value));
                let value = merge_at(inherited, entry.value, path);
                path.pop();
                Entry { key: entry.key, value }
            }
        };
        base.insert(key, merged);
    }
    base
}

fn placeholder(like: &Node) -> Node {
    Node { value: Value::List(Vec::new()), tag: None, span: like.span }
}

/// An entry of `files:` is replaced as a whole: half of one and half of another would be neither.
fn is_whole(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(path.as_slice(), ["files", _] | ["variants", _, "files", _])
}

/// The lists of a recipe that are sets: a repeat says nothing, the first stays.
const SETS: [&[&str]; 9] = [
    &["base", "packages", "components"],
    &["base", "packages", "include"],
    &["packages", "install"],
    &["packages", "remove"],
    &["services", "enable"],
    &["services", "disable"],
    &["services", "mask"],
    &["boot", "cmdline", "remove"],
    &["outputs"],
];

/// Drops the repeats in those lists of a merged recipe that are sets.
pub(crate) fn drop_repeats(recipe: &mut Node) {
    for path in SETS {
        let mut node = Some(&mut *recipe);
        for key in path {
            node = node.and_then(|node| match &mut node.value {
                Value::Map(map) => map.get_mut(&Key::text(*key)).map(|entry| &mut entry.value),
                _ => None,
            });
        }
        if let Some(Node { value: Value::List(list), .. }) = node {
            let mut seen = HashSet::new();
            list.retain(|item| item.as_text().is_none_or(|text| seen.insert(text.to_owned())));
        }
    }
}
