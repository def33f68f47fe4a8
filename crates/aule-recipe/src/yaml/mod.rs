//! YAML as a tree that keeps what people wrote: the text and style of every scalar, tags, and the place of every node.
//! Recipes, locks and cloud-init user-data are all merged on this tree.

mod emit;
mod parse;
mod resolve;

use indexmap::IndexMap;

pub(crate) use emit::{emit, emit_map, scalar_for};
pub(crate) use parse::{KeyRule, parse};
pub(crate) use resolve::{Core, core, yaml11_is_string};

use crate::source::Span;

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    /// A block scalar. Folded ones (`>`) are kept as literal ones (`|`): the text is the same.
    Block,
}

/// A tag that a node carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tag {
    /// `!replace`: take this list or map in place of the inherited one.
    Replace,
    /// `!`: a string whatever it looks like.
    NonSpecific,
    /// `!!suffix`, of YAML's own tags.
    Core(String),
    /// Any other tag, spelled in full.
    Other(String),
}

/// One node of the tree.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) tag: Option<Tag>,
    pub(crate) span: Span,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar { text: String, style: Style },
    List(Vec<Node>),
    Map(Map),
}

/// A map in the order of its keys' first appearance.
pub(crate) type Map = IndexMap<Key, Entry>;

/// What makes two keys the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The key's text.
    pub(crate) text: String,
    /// A YAML 1.1 reader takes the key for something else than a string (`yes:`, `12:`), which differs from the
    /// string of the same spelling. Always false under [`KeyRule::Text`].
    pub(crate) typed: bool,
}

impl Key {
    /// A string as key.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), typed: false }
    }
}

/// A key as it was written, with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Node,
    pub(crate) value: Node,
}

impl Node {
    /// The map, if it is one.
    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The list, if it is one.
    pub(crate) fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The text, if it is a scalar.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The value under a key, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(&Key::text(key)).map(|entry| &entry.value)
    }

    /// What the node is, in the words of a diagnostic.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Scalar { text, style } => match core(text, *style, self.tag.as_ref()) {
                Core::Null => "nothing",
                Core::Bool(_) => "true or false",
                Core::Integer => "a number",
                Core::Float => "a number",
                Core::String => "a string",
            },
        }
    }
}
