//! The merge rules of cloud-init's documents.

use std::collections::{HashMap, HashSet};

use crate::yaml::{Entry, Key, Map, Node, Style, Value, yaml11_is_string};

/// Lays one document on another.
pub(super) fn documents(mut base: Map, over: Map) -> Map {
    for (key, entry) in over {
        let rule = if key.typed { Rule::Append } else { Rule::of(&key.text) };
        let inherited = base.get_mut(&key).map(|entry| take(&mut entry.value));
        let value = match (inherited, entry.value) {
            (None, Node { value: Value::List(list), tag, span }) => {
                Node { value: Value::List(rule.lists(Vec::new(), list)), tag, span }
            }
            (None, value) => value,
            (Some(inherited), value) => nodes(inherited, value, rule),
        };
        base.insert(key, Entry { key: entry.key, value });
    }
    base
}

/// How the lists under a top-level key merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Append,
    Set,
    Users,
    WriteFiles,
}

impl Rule {
    fn of(key: &str) -> Self {
        match key {
            "packages" => Self::Set,
            "users" => Self::Users,
            "write_files" => Self::WriteFiles,
            _ => Self::Append,
        }
    }

    fn lists(self, mut base: Vec<Node>, over: Vec<Node>) -> Vec<Node> {
        match self {
            Self::Append => {
                base.extend(over);
                base
            }
            Self::Set => {
                let mut seen: HashSet<String> = base.iter().map(identity).collect();
                base.extend(over.into_iter().filter(|item| seen.insert(identity(item))));
                base
            }
            Self::Users => users(base, over),
            Self::WriteFiles => write_files(base, over),
        }
    }
}

fn nodes(base: Node, over: Node, rule: Rule) -> Node {
    let value = match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) => Value::Map(maps(base, over)),
        (Value::List(base), Value::List(over)) => Value::List(rule.lists(base, over)),
        (_, over) => over,
    };
    Node { value, tag: over.tag, span: over.span }
}

/// Below the top level every list appends.
fn maps(mut base: Map, over: Map) -> Map {
    for (key, entry) in over {
        let value = match base.get_mut(&key) {
            Some(inherited) => nodes(take(&mut inherited.value), entry.value, Rule::Append),
            None => entry.value,
        };
        base.insert(key, Entry { key: entry.key, value });
    }
    base
}

fn take(node: &mut Node) -> Node {
    let placeholder = Node { value: Value::List(Vec::new()), tag: None, span: node.span };
    std::mem::replace(node, placeholder)
}

/// Users merge by `name`; a bare name (`default`) is a user without more.
fn users(base: Vec<Node>, over: Vec<Node>) -> Vec<Node> {
    let mut out: Vec<Node> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for user in base.into_iter().chain(over) {
        let name = if user.as_text().is_some() { Some(identity(&user)) } else { user.get("name").map(identity) };
        let known = name.as_ref().and_then(|name| places.get(name)).and_then(|place| out.get_mut(*place));
        match (known, name) {
            (Some(known), _) => {
                // A bare name adds nothing to a user that is known already.
                if user.as_text().is_none() {
                    *known = nodes(take(known), user, Rule::Append);
                }
            }
            (None, name) => {
                if let Some(name) = name {
                    places.insert(name, out.len());
                }
                out.push(user);
            }
        }
    }
    out
}

/// A file that is written, not appended to, makes everything before it that concerns its path pointless.
fn write_files(base: Vec<Node>, over: Vec<Node>) -> Vec<Node> {
    let mut out: Vec<Option<Node>> = Vec::new();
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for file in base.into_iter().chain(over) {
        let appends = file.get("append").is_some_and(is_truthy);
        match file.get("path").map(identity) {
            None => out.push(Some(file)),
            Some(path) => {
                let earlier = places.entry(path).or_default();
                let first = earlier.first().copied();
                match first.filter(|_| !appends) {
                    Some(first) => {
                        for place in earlier.drain(..) {
                            if let Some(slot) = out.get_mut(place) {
                                *slot = None;
                            }
                        }
                        earlier.push(first);
                        if let Some(slot) = out.get_mut(first) {
                            *slot = Some(file);
                        }
                    }
                    None => {
                        earlier.push(out.len());
                        out.push(Some(file));
                    }
                }
            }
        }
    }
    out.into_iter().flatten().collect()
}

/// What Python takes for true, of a value as PyYAML reads it.
fn is_truthy(node: &Node) -> bool {
    match &node.value {
        Value::Scalar { text, style: Style::Plain } => {
            !matches!(text.to_ascii_lowercase().as_str(), "" | "~" | "null" | "false" | "no" | "off" | "0" | "0.0")
        }
        Value::Scalar { text, .. } => !text.is_empty(),
        Value::List(list) => !list.is_empty(),
        Value::Map(map) => !map.is_empty(),
    }
}

/// What two nodes share exactly when cloud-init reads the same from them. Errs towards "different".
fn identity(node: &Node) -> String {
    let mut out = String::new();
    write_identity(node, &mut out);
    out
}

fn write_identity(node: &Node, out: &mut String) {
    if let Some(tag) = &node.tag {
        out.push_str(&format!("{tag:?}"));
    }
    match &node.value {
        Value::Scalar { text, style } => {
            let typed = *style == Style::Plain && node.tag.is_none() && !yaml11_is_string(text);
            out.push_str(if typed { "t" } else { "s" });
            out.push_str(&format!("{}:{text}", text.len()));
        }
        Value::List(list) => {
            out.push('[');
            list.iter().for_each(|item| write_identity(item, out));
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for entry in map.values() {
                write_identity(&entry.key, out);
                write_identity(&entry.value, out);
            }
            out.push('}');
        }
    }
}

/// Resolves `<<` everywhere, as PyYAML does (`flatten_mapping`): before a merge by key, or keys would hide each other.
pub(super) fn resolve_merge_keys(map: Map) -> Map {
    let merge_key = Key { text: String::from("<<"), typed: true };
    let mut out = Map::new();
    let mut own = Vec::new();
    for (key, entry) in map {
        let Entry { key: written, value } = entry;
        let value = resolve_in(value);
        if key != merge_key {
            own.push((key, Entry { key: written, value }));
            continue;
        }
        match value.value {
            Value::Map(map) => out.extend(map),
            Value::List(list) if list.iter().all(|item| item.as_map().is_some()) => {
                // The first of the list wins, so it comes last.
                for item in list.into_iter().rev() {
                    if let Value::Map(map) = item.value {
                        out.extend(map);
                    }
                }
            }
            // PyYAML refuses this; cloud-init will say so.
            value_kind => {
                let value = Node { value: value_kind, tag: value.tag, span: value.span };
                own.push((key, Entry { key: written, value }));
            }
        }
    }
    out.extend(own);
    out
}

fn resolve_in(node: Node) -> Node {
    let value = match node.value {
        Value::Map(map) => Value::Map(resolve_merge_keys(map)),
        Value::List(list) => Value::List(list.into_iter().map(resolve_in).collect()),
        scalar => scalar,
    };
    Node { value, tag: node.tag, span: node.span }
}
