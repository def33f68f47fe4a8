//! One document: which format it has, whether it is a template, and its map.

use std::path::Path;

use super::merge;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::limits::MAX_DOCUMENT_BYTES;
use crate::source::{FileId, SourceMap, Span};
use crate::yaml::{KeyRule, Map, Node, Value, parse};

/// A document that was read.
pub(super) struct Part {
    file: FileId,
    /// The `## template: jinja` line, as it was written.
    pub(super) template: Option<String>,
    pub(super) format: Format,
}

/// What a document is.
pub(super) enum Format {
    /// A `#cloud-config` map; merge keys (`<<`) are resolved.
    CloudConfig(Map),
    /// Anything else that cloud-init takes; never merged.
    Other,
}

/// How documents of other formats begin, in lower case (cloudinit/handlers/__init__.py, `INCLUSION_TYPES_MAP`).
const OTHER_FORMATS: [&str; 9] = [
    "#!",
    "#include",
    "#part-handler",
    "#cloud-boothook",
    "#cloud-config-archive",
    "#cloud-config-jsonp",
    "content-type:",
    "mime-version:",
    "received:",
];

/// What begins an expression, a statement and a comment of Jinja.
const BRACES: [&str; 3] = ["{{", "{%", "{#"];

/// Line breaks to a YAML 1.1 reader only.
const YAML11_BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

impl Part {
    /// Reads a document; `alone` if it is not to be merged with another.
    pub(super) fn read(sources: &mut SourceMap, path: &Path, bytes: &[u8], alone: bool) -> Result<Self, Diagnostics> {
        let name = path.display();
        if bytes.len() > MAX_DOCUMENT_BYTES {
            let message = format!("`{name}` is too long: {} bytes, at most {MAX_DOCUMENT_BYTES}", bytes.len());
            return Err(Diagnostic::new(message).into());
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(Diagnostic::new(format!("`{name}` is not UTF-8 text")).help(FIRST_LINE).into());
        };
        let file = sources.add(path.to_owned(), String::new(), text.to_owned());
        let first_line = text.lines().next().unwrap_or_default();
        let template = is_template(first_line).then(|| first_line.trim_end().to_owned());
        // cloud-init passes over blanks before the header.
        let body = if template.is_some() { text.get(first_line.len()..).unwrap_or_default() } else { text };
        let start = body.trim_start().get(..32.min(body.trim_start().len())).unwrap_or(body.trim_start());
        let header = start.lines().next().unwrap_or_default().to_lowercase();
        if OTHER_FORMATS.iter().any(|format| header.starts_with(format)) {
            if alone {
                return Ok(Self { file, template, format: Format::Other });
            }
            let message = format!("`{name}` is no #cloud-config and cannot be merged with other documents");
            let diagnostic = sources.diagnostic(first(file, text), message);
            return Err(diagnostic
                .label("expected #cloud-config")
                .help("only a single document may have this format")
                .into());
        }
        if !is_cloud_config(&header) {
            let diagnostic = sources.diagnostic(first(file, text), format!("`{name}` is no #cloud-config"));
            return Err(diagnostic.label("expected #cloud-config").help(FIRST_LINE).into());
        }
        if template.is_some() && alone {
            // Before it is rendered it need not be YAML.
            return Ok(Self { file, template, format: Format::Other });
        }
        let map = read_map(sources, file, template.is_some(), "user-data")?;
        if let Some(at) = text.find(YAML11_BREAKS).filter(|_| !alone) {
            let message = "this line holds a character that is a line break in YAML 1.1 and none in YAML 1.2";
            let help = "write it as an escape in double quotes: \"\\N\", \"\\L\" or \"\\P\"";
            return Err(sources.diagnostic(span_at(file, text, at), message).help(help).into());
        }
        if template.is_some()
            && let Some(at) = braces_outside(text, &map)
        {
            let message = "a template can only be merged where its braces stand in values";
            let help = "cloud-init renders the merged text, and comments and blank lines do not survive a merge";
            return Err(sources.diagnostic(span_at(file, text, at), message).help(help).into());
        }
        Ok(Self { file, template, format: Format::CloudConfig(merge::resolve_merge_keys(map)) })
    }

    /// A document that is no template must not become one by being merged with one.
    pub(super) fn refuse_braces(&self, sources: &SourceMap) -> Option<Diagnostic> {
        let text = sources.text(self.file);
        let at = BRACES.iter().filter_map(|braces| text.find(braces)).min()?;
        let message = "these braces would be rendered: another document of the merge is a Jinja template";
        let help = "make this one a template too (`## template: jinja` as first line) and write {% raw %} around them";
        Some(sources.diagnostic(span_at(self.file, text, at), message).help(help))
    }
}

const FIRST_LINE: &str = "the first line of cloud-init's user-data says what it is; for YAML it is `#cloud-config`";

/// `## template: jinja` (cloudinit/templater.py, `TYPE_MATCHER`).
fn is_template(line: &str) -> bool {
    let line = line.to_lowercase();
    let rest = line.strip_prefix("##").map(str::trim_start).and_then(|rest| rest.strip_prefix("template:"));
    rest.is_some_and(|engine| engine.trim() == "jinja")
}

fn is_cloud_config(header: &str) -> bool {
    header.strip_prefix("#cloud-config").is_some_and(|rest| !rest.starts_with('-'))
}

/// Reads a document that is a map; `what` it is, for messages.
pub(super) fn read_map(sources: &SourceMap, file: FileId, template: bool, what: &str) -> Result<Map, Diagnostics> {
    let node = match parse(sources, file, KeyRule::Yaml11) {
        Ok(node) => node,
        Err(diagnostics) if template => {
            return Err(
                diagnostics.with_help("a template can only be merged where it is valid YAML before it is rendered")
            );
        }
        Err(diagnostics) => return Err(diagnostics),
    };
    match node {
        None => Ok(Map::new()),
        Some(Node { value: Value::Map(map), .. }) => Ok(map),
        // `#cloud-config` and `---` alone.
        Some(Node { value: Value::Scalar { text, .. }, .. }) if text.is_empty() => Ok(Map::new()),
        Some(node) => {
            let message = format!("{what} must be a map (`key: value`), not {}", node.describe());
            Err(sources.diagnostic(node.span, message).into())
        }
    }
}

/// Where the text has Jinja's braces that are in no key and no value: in comments, or as YAML's own.
fn braces_outside(text: &str, map: &Map) -> Option<usize> {
    fn count(node: &Node, braces: &str) -> usize {
        match &node.value {
            Value::Scalar { text, .. } => text.matches(braces).count(),
            Value::List(list) => list.iter().map(|item| count(item, braces)).sum(),
            Value::Map(map) => count_map(map, braces),
        }
    }
    fn count_map(map: &Map, braces: &str) -> usize {
        map.values().map(|entry| count(&entry.key, braces) + count(&entry.value, braces)).sum()
    }
    let outside = |braces: &&str| text.matches(*braces).count() != count_map(map, braces);
    BRACES.iter().find(|braces| outside(braces)).and_then(|braces| text.find(*braces))
}

fn first(file: FileId, text: &str) -> Span {
    let length = text.lines().next().map_or(1, |line| line.chars().count());
    Span { file, line: 1, column: 1, length: u32::try_from(length).unwrap_or(1).max(1) }
}

fn span_at(file: FileId, text: &str, at: usize) -> Span {
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Span { file, line: number(line), column: number(column), length: 2 }
}
