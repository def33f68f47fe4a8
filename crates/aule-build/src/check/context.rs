//! What all checks share: the tree, what the recipe brought to it and from where, and the findings so far.

use super::{Finding, Severity, yaml::Place};
use crate::{Result, inputs::Inputs, stage::Stage};
use aule_recipe::{Diagnostic, FileKind, Location, Merged, Snippet};
use aule_tree::{Inode, Kind, TreePath};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The most findings of one run; a recipe that has more is read again after the first are mended.
const FINDINGS_MAX: usize = 500;
/// Larger files are no text that a person wrote.
pub(super) const TEXT_MAX: u64 = 4 << 20;
/// A longer line is not shown.
const LINE_MAX: usize = 4096;

/// A file, directory or symlink that the recipe put into the tree.
#[derive(Debug, Clone)]
pub(super) struct Brought {
    /// Where it is in the tree.
    pub(super) path: TreePath,
    /// The recipe key that put it there.
    pub(super) key: String,
    /// The file of this machine that it was read from, if it is one.
    pub(super) source: Option<PathBuf>,
}

/// The state of a check.
pub(super) struct Context<'a> {
    pub(super) merged: &'a Merged,
    pub(super) inputs: &'a dyn Inputs,
    pub(super) stage: &'a Stage,
    pub(super) brought: Vec<Brought>,
    findings: Vec<Finding>,
}

impl<'a> Context<'a> {
    pub(super) fn new(merged: &'a Merged, inputs: &'a dyn Inputs, stage: &'a Stage) -> Self {
        let mut sources: BTreeMap<(String, TreePath), PathBuf> = BTreeMap::new();
        for (number, overlay) in merged.recipe.overlays.iter().enumerate() {
            for entry in inputs.directory(overlay).unwrap_or_default() {
                let place = TreePath::new(&entry.path).ok().and_then(|path| stage.place(&path).ok());
                if let Some(place) = place {
                    let name = String::from_utf8_lossy(&entry.path).into_owned();
                    sources.insert((format!("overlays[{number}]"), place), overlay.path().join(name));
                }
            }
        }
        for (path, entry) in &merged.recipe.files {
            let place = TreePath::new(path.as_str()).ok().and_then(|path| stage.place(&path).ok());
            if let (FileKind::Source(local), Some(place)) = (&entry.kind, place) {
                sources.insert((format!("files.{path}"), place), local.path().into());
            }
        }
        let brought = stage
            .origins
            .iter()
            .filter(|(path, key)| {
                (key.starts_with("overlays[") || key.starts_with("files.")) && stage.tree.get(path).is_some()
            })
            .map(|(path, key)| {
                let source = sources.get(&(key.clone(), path.clone())).cloned();
                Brought { path: path.clone(), key: key.clone(), source }
            })
            .collect();
        Context { merged, inputs, stage, brought, findings: Vec::new() }
    }

    pub(super) fn error(&mut self, diagnostic: Diagnostic) {
        self.add(Severity::Error, diagnostic);
    }

    pub(super) fn warning(&mut self, diagnostic: Diagnostic) {
        self.add(Severity::Warning, diagnostic);
    }

    pub(super) fn add(&mut self, severity: Severity, diagnostic: Diagnostic) {
        let finding = Finding { severity, diagnostic };
        if self.findings.len() < FINDINGS_MAX && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Errors first, else in the order in which they were found.
    pub(super) fn into_findings(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|finding| finding.severity);
        self.findings
    }

    /// What the recipe brought, as it is in the tree.
    pub(super) fn files(&self) -> Vec<(Brought, Inode)> {
        let node = |it: &Brought| Some((it.clone(), self.stage.tree.get(&it.path)?.clone()));
        self.brought.iter().filter_map(node).collect()
    }

    /// The text of a file, if it is one, of a size that is worth reading.
    pub(super) fn text(&self, path: &TreePath) -> Result<Option<String>> {
        Ok(self.bytes(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// As [`text`](Self::text), as bytes.
    pub(super) fn bytes(&self, path: &TreePath) -> Result<Option<Vec<u8>>> {
        let Ok(place) = self.stage.tree.resolve(path, true) else { return Ok(None) };
        let small = |inode: &Inode| inode.content().is_some_and(|content| content.size <= TEXT_MAX);
        if !self.stage.tree.get(&place).is_some_and(small) {
            return Ok(None);
        }
        self.stage.read(&place)
    }

    /// Whether something is at an absolute or relative path of the tree, symlinks followed.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.node(path).is_some()
    }

    /// What is at a path, symlinks followed.
    pub(super) fn node(&self, path: &str) -> Option<&Inode> {
        let path = TreePath::new(path.trim_start_matches('/')).ok()?;
        let place = self.stage.tree.resolve(&path, true).ok()?;
        self.stage.tree.get(&place)
    }

    /// Whether there is a file that can be run.
    pub(super) fn is_program(&self, path: &str) -> Option<bool> {
        let inode = self.node(path)?;
        Some(matches!(inode.kind, Kind::File(_)) && inode.metadata.mode & 0o111 != 0)
    }

    /// A finding about a line (from 1) of a file that the recipe brought.
    pub(super) fn blame(&self, brought: &Brought, line: Option<u32>, text: &str, message: String) -> Diagnostic {
        let shown = text.lines().nth(line.map_or(0, |it| it.saturating_sub(1)) as usize).unwrap_or_default();
        match (&brought.source, line) {
            (Some(source), Some(line)) => {
                let indent = shown.chars().take_while(|it| it.is_whitespace()).count();
                let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                let length = number(shown.trim().chars().count().max(1));
                let place = Place { line, column: number(indent + 1), length };
                Diagnostic::new(message).at(snippet(source, text, place))
            }
            (Some(source), None) => {
                let diagnostic = self.merged.origins.diagnostic(&brought.key, message);
                diagnostic.label(format!("brings {}", source.display()))
            }
            (None, line) => {
                let diagnostic = self.merged.origins.diagnostic(&brought.key, message);
                match line {
                    Some(line) => diagnostic.help(format!("line {line} of {}: {}", brought.path, shown.trim())),
                    None => diagnostic,
                }
            }
        }
    }
}

/// A place in a file with its line.
pub(super) fn snippet(file: &Path, text: &str, place: Place) -> Snippet {
    let line = text.lines().nth(place.line.saturating_sub(1) as usize).unwrap_or_default();
    Snippet {
        location: Location { file: file.into(), line: place.line, column: place.column },
        text: if line.len() > LINE_MAX { String::new() } else { line.to_owned() },
        length: place.length,
        label: None,
    }
}
