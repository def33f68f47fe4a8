//! Tree to types. Every mistake becomes a diagnostic at the node that holds it, and the reading goes on, so that one run
//! shows all of them.

mod base;
mod boot;
mod files;
mod names;
mod recipe;

use std::path::Path;

pub(crate) use recipe::{Fragment, fragment, whole};

use crate::diagnostic::{Diagnostic, Gathered};
use crate::path::LocalPath;
use crate::source::{SourceMap, Span};
use crate::suggest::nearest;
use crate::value::{Url, ValueError};
use crate::yaml::{Core, Map, Node, Tag, Value, core};

/// The keys that each map of a recipe knows. The JSON Schema is tested to have the same ones.
pub(crate) mod keys {
    pub(crate) const RECIPE: &[&str] = &[
        "name",
        "extends",
        "base",
        "date",
        "packages",
        "overlays",
        "files",
        "services",
        "boot",
        "cloud_init",
        "root",
        "outputs",
        "variants",
    ];
    pub(crate) const VARIANT: &[&str] =
        &["date", "packages", "overlays", "files", "services", "boot", "cloud_init", "root", "outputs"];
    pub(crate) const BASE: &[&str] = &["image", "sha256", "checksums", "signature", "keyring", "packages"];
    pub(crate) const BASE_PACKAGES: &[&str] = &["uri", "suite", "components", "key", "architecture", "include"];
    pub(crate) const PACKAGES: &[&str] =
        &["install", "remove", "repositories", "snapshot", "snapshots", "accept_expired"];
    pub(crate) const REPOSITORY: &[&str] = &["uri", "suite", "components", "key"];
    pub(crate) const FILE: &[&str] =
        &["content", "source", "url", "sha256", "symlink", "remove", "directory", "mode", "owner", "group", "template"];
    pub(crate) const SERVICES: &[&str] = &["enable", "disable", "mask"];
    pub(crate) const BOOT: &[&str] = &["cmdline", "config", "size"];
    pub(crate) const CMDLINE: &[&str] = &["set", "add", "remove"];
    pub(crate) const CLOUD_INIT: &[&str] = &["user_data", "meta_data", "vendor_data", "network_config"];
    pub(crate) const ROOT: &[&str] = &["over", "writes", "server", "path", "seed"];
}

/// What a conversion reads from and reports to.
pub(crate) struct Context<'a> {
    pub(crate) sources: &'a SourceMap,
    pub(crate) gathered: Gathered,
}

impl<'a> Context<'a> {
    pub(crate) fn new(sources: &'a SourceMap) -> Self {
        Self { sources, gathered: Gathered::default() }
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.gathered.push(diagnostic);
    }

    /// Reports a mistake with what was expected at its place.
    pub(crate) fn report(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) {
        let diagnostic = self.sources.diagnostic(span, message).label(label);
        self.push(diagnostic);
    }

    /// Reports a node of the wrong kind.
    fn wrong_kind(&mut self, node: &Node, what: &str, expected: &str) {
        let found = node.describe();
        let mut diagnostic = self
            .sources
            .diagnostic(node.span, format!("{what} must be {expected}, not {found}"))
            .label(format!("expected {expected}"));
        diagnostic = match &node.value {
            Value::Scalar { text, .. } if found == "nothing" && text.is_empty() => {
                diagnostic.help("give a value, or leave the key out")
            }
            Value::Scalar { text, .. } if expected.starts_with("a string") => {
                diagnostic.help(format!("quotes make it a string: \"{text}\""))
            }
            Value::Scalar { text, .. } if expected.starts_with("a list") && found == "a string" => {
                diagnostic.help(format!("a list of one is written [{text}]"))
            }
            _ => diagnostic,
        };
        self.push(diagnostic);
    }

    /// Reports a tag that has no meaning where it stands.
    fn check_tag(&mut self, node: &Node, may_replace: bool) -> bool {
        let known = match (&node.tag, &node.value) {
            (None, _) => true,
            (Some(Tag::Replace), Value::List(_) | Value::Map(_)) => may_replace,
            (Some(Tag::Core(name)), Value::Map(_)) => name == "map",
            (Some(Tag::Core(name)), Value::List(_)) => name == "seq",
            (Some(Tag::Core(name)), Value::Scalar { .. }) => name == "str",
            (Some(Tag::NonSpecific), _) => true,
            _ => false,
        };
        if !known {
            self.report(node.span, "this tag has no meaning here", "`!replace` stands before an inherited list or map");
        }
        known
    }

    /// A map whose keys are all known; unknown ones are reported and passed over.
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<&'n Map> {
        let map = self.map(node, what)?;
        for (key, entry) in map {
            if known.contains(&key.text.as_str()) {
                continue;
            }
            let mut diagnostic = self
                .sources
                .diagnostic(entry.key.span, format!("unknown key `{}` in {what}", key.text))
                .label(format!("expected one of: {}", known.join(", ")));
            if key.text == "<<" {
                diagnostic = diagnostic.help("recipes have no YAML merge keys: use `extends` and `variants`");
            } else if let Some(name) = nearest(&key.text, known.iter().copied()) {
                diagnostic = diagnostic.help(format!("did you mean `{name}`?"));
            }
            self.push(diagnostic);
        }
        Some(map)
    }

    /// A map with any keys.
    pub(crate) fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n Map> {
        match &node.value {
            Value::Map(map) => self.check_tag(node, true).then_some(map),
            _ => {
                self.wrong_kind(node, what, "a map (`key: value`)");
                None
            }
        }
    }

    /// A list.
    pub(crate) fn list<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        match &node.value {
            Value::List(list) if self.check_tag(node, true) => list,
            Value::List(_) => &[],
            _ => {
                self.wrong_kind(node, what, "a list (`[…]` or lines that begin with `-`)");
                &[]
            }
        }
    }

    /// A string without NUL.
    pub(crate) fn string<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        let Value::Scalar { text, style } = &node.value else {
            self.wrong_kind(node, what, "a string");
            return None;
        };
        if !self.check_tag(node, false) {
            return None;
        }
        if core(text, *style, node.tag.as_ref()) != Core::String {
            self.wrong_kind(node, what, "a string");
            return None;
        }
        if text.contains('\0') {
            self.report(node.span, format!("{what} holds a NUL character"), "no NUL can stand here");
            return None;
        }
        Some(text)
    }

    /// Any scalar but nothing at all, by its letters: for what reads naturally without quotes (`panic: 10`, a digest).
    pub(crate) fn letters<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar { text, style } if core(text, *style, node.tag.as_ref()) != Core::Null => {
                self.check_tag(node, false).then_some(text.as_str())
            }
            _ => {
                self.wrong_kind(node, what, "a string or number");
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Value::Scalar { text, style } = &node.value
            && let Core::Bool(value) = core(text, *style, node.tag.as_ref())
        {
            return self.check_tag(node, false).then_some(value);
        }
        self.wrong_kind(node, what, "true or false");
        None
    }

    /// Every item of a list of strings that `check` accepts; it says what it expects where it does not.
    pub(crate) fn strings(&mut self, node: &Node, what: &str, check: fn(&str) -> Result<(), String>) -> Vec<String> {
        let item_name = format!("an entry of {what}");
        let mut out = Vec::new();
        for item in self.list(node, what) {
            if let Some(text) = self.string(item, &item_name) {
                match check(text) {
                    Ok(()) => out.push(text.to_owned()),
                    Err(expected) => self.report(item.span, format!("`{text}` cannot stand in {what}"), expected),
                }
            }
        }
        out
    }

    /// Parses letters by a rule that says what it expects.
    pub(crate) fn parsed<T>(
        &mut self,
        node: &Node,
        what: &str,
        text: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        let text = text?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.report(node.span, format!("{what} is not valid: `{text}`"), error.to_string());
                None
            }
        }
    }

    /// One of a closed set of words.
    pub(crate) fn word<T: Copy>(&mut self, node: &Node, what: &str, known: &[(&'static str, T)]) -> Option<T> {
        let text = self.string(node, what)?;
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let mut diagnostic = self
            .sources
            .diagnostic(node.span, format!("unknown {what} `{text}`"))
            .label(format!("expected one of: {}", names.join(", ")));
        if let Some(name) = nearest(text, names) {
            diagnostic = diagnostic.help(format!("did you mean `{name}`?"));
        }
        self.push(diagnostic);
        None
    }

    /// A local path, relative to the file that writes it.
    pub(crate) fn local(&mut self, node: &Node, what: &str, may_be_absolute: bool) -> Option<LocalPath> {
        let text = self.string(node, what)?;
        if text.is_empty() {
            self.report(node.span, format!("{what} is empty"), "expected a path relative to this file");
            return None;
        }
        if Url::looks_like(text) {
            self.report(node.span, format!("{what} must be a local file"), "expected a path, not a URL");
            return None;
        }
        if !may_be_absolute && Path::new(text).is_absolute() {
            let diagnostic = self
                .sources
                .diagnostic(node.span, format!("{what} is an absolute path"))
                .label("expected a path relative to this file")
                .help("a recipe gives the same result on every machine only if its files lie beside it");
            self.push(diagnostic);
            return None;
        }
        let file = self.sources.file(node.span.file)?;
        let directory = file.path.parent().unwrap_or(Path::new(""));
        Some(LocalPath::new(text, directory, &file.directory_name))
    }
}
