//! Where every value of a merged recipe was written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location};
use crate::source::{SourceMap, Span};
use crate::yaml::{Node, Value};

/// Places by key path: `date`, `overlays[1]`, `services.mask[0]`, `boot.cmdline.set.console`,
/// `files./etc/hostname`, `files./etc/hostname.mode`. An entry of a map has the place of its key, an entry of a list its
/// own. Indices are those of the lists in [`Recipe`](crate::Recipe).
#[derive(Clone, Default)]
pub struct Origins {
    sources: Arc<SourceMap>,
    spans: BTreeMap<String, Span>,
}

impl Origins {
    pub(crate) fn new(sources: Arc<SourceMap>, recipe: &Node) -> Self {
        let mut spans = BTreeMap::new();
        collect(recipe, "", &mut spans);
        Self { sources, spans }
    }

    /// Where the value at a key path was written; the innermost enclosing value where the path itself has no place.
    pub fn get(&self, key: &str) -> Option<Location> {
        self.span(key).map(|span| self.sources.location(span))
    }

    /// As [`get`](Self::get), without enclosing values.
    pub(crate) fn exact(&self, key: &str) -> Option<Location> {
        self.spans.get(key).map(|span| self.sources.location(*span))
    }

    /// A mistake in the value at a key path, found later than the recipe was read: a missing overlay, a unit that the
    /// image does not have. It shows the line like any other.
    pub fn diagnostic(&self, key: &str, message: impl Into<String>) -> Diagnostic {
        match self.span(key) {
            Some(span) => self.sources.diagnostic(span, message),
            None => Diagnostic::new(message),
        }
    }

    /// Every key path with its place, in the order of the paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Location)> {
        self.spans.iter().map(|(key, span)| (key.as_str(), self.sources.location(*span)))
    }

    fn span(&self, key: &str) -> Option<Span> {
        let mut key = key;
        loop {
            if let Some(span) = self.spans.get(key) {
                return Some(*span);
            }
            key = key.get(..key.rfind(['.', '['])?)?;
        }
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(key, location)| (key, location.to_string()))).finish()
    }
}

fn collect(node: &Node, path: &str, spans: &mut BTreeMap<String, Span>) {
    match &node.value {
        Value::Scalar { .. } => {}
        Value::List(list) => {
            for (index, item) in list.iter().enumerate() {
                let path = format!("{path}[{index}]");
                collect(item, &path, spans);
                spans.insert(path, item.span);
            }
        }
        Value::Map(map) => {
            for (key, entry) in map {
                let path = if path.is_empty() { key.text.clone() } else { format!("{path}.{}", key.text) };
                collect(&entry.value, &path, spans);
                spans.insert(path, entry.key.span);
            }
        }
    }
}
