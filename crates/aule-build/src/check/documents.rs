//! The documents of cloud-init as the recipe has them, part by part, so that what is said of the merged document finds
//! the line that a person wrote.

use super::{
    context::{Context, snippet},
    yaml::{Node, Step, dotted, parse},
};
use crate::steps::seed;
use aule_recipe::{Diagnostic, Document};
use std::path::PathBuf;

/// One part of a document.
pub(super) struct Part {
    /// The recipe key that names it.
    key: String,
    /// Its file; none for what is written in the recipe.
    file: Option<PathBuf>,
    text: String,
    node: Option<Node>,
}

/// All parts of one document, in the order in which they are merged.
#[derive(Default)]
pub(super) struct Parts(Vec<Part>);

impl Parts {
    /// Reads parts; one that cannot be read or parsed is told of elsewhere.
    pub(super) fn read(context: &Context<'_>, documents: &[(String, &Document)]) -> Parts {
        let read = |(key, document): &(String, &Document)| {
            let (file, bytes) = seed::read(context.merged, context.inputs, document, key).ok()?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let node = parse(&text).ok().flatten();
            let file = document.as_local().map(|_| file);
            Some(Part { key: key.clone(), file, text, node })
        };
        Parts(documents.iter().filter_map(read).collect())
    }

    /// A finding about what is at `path` of the merged document.
    pub(super) fn blame(&self, context: &Context<'_>, whole: &Node, path: &[Step], message: String) -> Diagnostic {
        let mut best: Option<(usize, &Part, super::yaml::Place)> = None;
        for part in &self.0 {
            let Some(node) = &part.node else { continue };
            let (depth, place) = node.trace(whole, path);
            // What comes later wins.
            if best.is_none_or(|(deepest, ..)| depth >= deepest) {
                best = Some((depth, part, place));
            }
        }
        match best {
            Some((_, Part { file: Some(file), text, .. }, place)) => {
                Diagnostic::new(message).at(snippet(file, text, place))
            }
            Some((_, part, _)) => context.merged.origins.diagnostic(&format!("{}.{}", part.key, dotted(path)), message),
            None => Diagnostic::new(message),
        }
    }

    /// A finding about a place in the text itself, where it is made of one part; about the whole otherwise.
    pub(super) fn blame_text(&self, context: &Context<'_>, place: super::yaml::Place, message: String) -> Diagnostic {
        match self.0.as_slice() {
            [Part { file: Some(file), text, .. }] => Diagnostic::new(message).at(snippet(file, text, place)),
            [part] => context.merged.origins.diagnostic(&part.key, message),
            _ => Diagnostic::new(message),
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
