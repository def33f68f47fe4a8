//! One user-data document out of several, on their own YAML nodes, so that every scalar keeps its spelling: cloud-init
//! reads YAML 1.1 with PyYAML, where `0644` is an octal number and `yes` is true.

mod merge;
mod meta_data;
mod part;

pub use meta_data::with_instance_id;

use std::path::PathBuf;

use crate::diagnostic::{Diagnostics, Gathered};
use crate::source::SourceMap;
use crate::yaml::{Map, emit_map};
use part::{Format, Part};

/// Merges `#cloud-config` documents in order; each is its path (for messages) and its bytes. Also for vendor-data.
///
/// Maps merge by key, scalars are replaced, lists append. `packages` is a set in the order of first appearance, `users`
/// merge by `name`, and an entry of `write_files` takes the place of all earlier ones for its `path` unless it says
/// `append`. A `## template: jinja` header is kept. Comments, anchors and the difference between `|` and `>` are not.
///
/// A single document passes through byte for byte, and only such a one may have another format, such as a script.
/// Without documents the result is empty.
///
/// # Errors
/// A document that is no `#cloud-config`, no YAML map, or that cannot be merged without changing what cloud-init reads.
pub fn merge_user_data(parts: &[(PathBuf, Vec<u8>)]) -> Result<Vec<u8>, Diagnostics> {
    let mut sources = SourceMap::default();
    let mut gathered = Gathered::default();
    let mut read = Vec::new();
    for (path, bytes) in parts {
        match Part::read(&mut sources, path, bytes, parts.len() == 1) {
            Ok(part) => read.push(part),
            Err(diagnostics) => gathered.extend(diagnostics),
        }
    }
    let template = read.iter().find_map(|part| part.template.clone());
    if parts.len() > 1 && template.is_some() {
        for part in read.iter().filter(|part| part.template.is_none()) {
            if let Some(diagnostic) = part.refuse_braces(&sources) {
                gathered.push(diagnostic);
            }
        }
    }
    gathered.check()?;
    if let [(_, bytes)] = parts {
        return Ok(bytes.clone());
    }
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let mut merged = Map::new();
    for part in read {
        if let Format::CloudConfig(map) = part.format {
            merged = merge::documents(merged, map);
        }
    }
    let mut text = String::new();
    if let Some(template) = template {
        text.push_str(&template);
        text.push('\n');
    }
    text.push_str("#cloud-config\n");
    text.push_str(&emit_map(&merged));
    Ok(text.into_bytes())
}
