//! Bytes to tree, within the bounds of [`crate::limits`]: one document, no duplicate keys, aliases expanded.

use std::collections::HashMap;

use indexmap::map::Entry as MapEntry;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as ParserSpan, Tag as ParserTag};

use super::{Entry, Key, Map, Node, Style, Tag, Value, yaml11_is_string};
use crate::diagnostic::{Diagnostic, Diagnostics, Gathered};
use crate::limits::{MAX_DEPTH, MAX_DOCUMENT_BYTES, MAX_EXPANDED_BYTES, MAX_NODES};
use crate::source::{FileId, SourceMap, Span};

/// What makes two keys of a map the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyRule {
    /// The same text: recipes and locks, where every key is a string.
    Text,
    /// The same text and, to a YAML 1.1 reader, both strings or both not: cloud-init's files.
    Yaml11,
}

/// Reads the one document of a file that is already in `sources`.
///
/// `Ok(None)` is an empty file. The first syntax error ends the reading; duplicate keys are gathered.
pub(crate) fn parse(sources: &SourceMap, file: FileId, keys: KeyRule) -> Result<Option<Node>, Diagnostics> {
    let text = sources.text(file);
    if text.len() > MAX_DOCUMENT_BYTES {
        let name = sources.file(file).map(|f| f.path.display().to_string()).unwrap_or_default();
        let message = format!("`{name}` is too long: {} bytes, at most {MAX_DOCUMENT_BYTES} are read", text.len());
        return Err(Diagnostic::new(message).into());
    }
    let mut builder = Builder {
        sources,
        file,
        keys,
        open: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        nodes: 0,
        bytes: 0,
        gathered: Gathered::default(),
    };
    let mut documents = 0_usize;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| builder.error(*error.marker(), &clarify(error.info())))?;
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                let diagnostic = sources
                    .diagnostic(builder.span(span), "a second YAML document in one file")
                    .help("one file holds one document: remove the `---` and what follows it");
                return Err(diagnostic.into());
            }
        }
        builder.event(event, span)?;
    }
    builder.gathered.check()?;
    Ok(builder.root)
}

/// The parser speaks of its own inner life in places; say it as a person would.
fn clarify(info: &str) -> String {
    let hint = match info {
        "mapping values are not allowed in this context" => " (a value that holds `: ` needs quotes)",
        "found character that cannot start any token" => {
            " (a value that begins with `@`, `%` or a backquote needs quotes)"
        }
        _ if info.contains("unknown anchor") => " (`*` begins an alias; as plain text it needs quotes)",
        _ if info.contains("wasn't declared") => " (`!` begins a tag; as plain text it needs quotes)",
        _ if info.contains("recursion limit") => " (nested too deeply)",
        _ => "",
    };
    format!("this is not valid YAML: {info}{hint}")
}

/// A list or map whose end was not seen yet.
struct Open {
    anchor: usize,
    node: Node,
    /// The key that waits for its value, where this is a map.
    key: Option<Node>,
}

/// A copy of a node that an anchor names, with what a use of it costs.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
    depth: usize,
}

struct Builder<'a> {
    sources: &'a SourceMap,
    file: FileId,
    keys: KeyRule,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    bytes: usize,
    gathered: Gathered,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: ParserSpan) -> Result<(), Diagnostics> {
        let at = self.span(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted => Style::SingleQuoted,
                    ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                };
                self.charge(at, 1, text.len())?;
                let value = Value::Scalar { text: text.into_owned(), style };
                let node = Node { value, tag: tag.map(|tag| own_tag(&tag)), span: at };
                self.close(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.start(Value::List(Vec::new()), tag.map(|tag| own_tag(&tag)), at, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.start(Value::Map(Map::new()), tag.map(|tag| own_tag(&tag)), at, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.close(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let Some(anchored) = self.anchors.get(&anchor) else {
                    return Err(self.sources.diagnostic(at, "an alias to a node that is not complete yet").into());
                };
                let (nodes, bytes, depth) = (anchored.nodes, anchored.bytes, anchored.depth);
                if self.open.len() + depth > MAX_DEPTH {
                    return Err(self.too_deep(at).into());
                }
                self.charge(at, nodes, bytes)?;
                let mut node = match self.anchors.get(&anchor) {
                    Some(anchored) => anchored.node.clone(),
                    None => return Ok(()),
                };
                // Errors in the value are shown where it is used; its inner nodes stay where they were written.
                node.span = at;
                self.close(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, value: Value, tag: Option<Tag>, at: Span, anchor: usize) -> Result<(), Diagnostics> {
        self.charge(at, 1, 0)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(self.too_deep(at).into());
        }
        self.open.push(Open { anchor, node: Node { value, tag, span: at }, key: None });
        Ok(())
    }

    /// Puts a complete node where it belongs: into the innermost open list or map, or at the root.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), Diagnostics> {
        if anchor != 0 {
            let (nodes, bytes, depth) = measure(&node);
            // The copy that the anchor keeps takes memory like any other node.
            self.charge(node.span, nodes, bytes)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, bytes, depth });
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.node.value {
            Value::List(list) => list.push(node),
            Value::Map(map) => match parent.key.take() {
                None => {
                    if !matches!(node.value, Value::Scalar { .. }) {
                        let message = format!("a key must be a single word or string, not {}", node.describe());
                        return Err(self.sources.diagnostic(node.span, message).into());
                    }
                    parent.key = Some(node);
                }
                Some(key) => match map.entry(identity(&key, self.keys)) {
                    MapEntry::Vacant(vacant) => {
                        vacant.insert(Entry { key, value: node });
                    }
                    MapEntry::Occupied(occupied) => {
                        let first = self.sources.snippet(occupied.get().key.span);
                        let message = format!("the key `{}` is given twice", occupied.key().text);
                        let diagnostic = self.sources.diagnostic(key.span, message);
                        self.gathered.push(diagnostic.label("again here").related(first, "first given here"));
                    }
                },
            },
            Value::Scalar { .. } => {}
        }
        Ok(())
    }

    fn charge(&mut self, at: Span, nodes: usize, bytes: usize) -> Result<(), Diagnostics> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} YAML nodes in one document, counting what aliases stand for");
            return Err(self.sources.diagnostic(at, message).into());
        }
        if self.bytes > MAX_EXPANDED_BYTES {
            let message = format!(
                "more than {MAX_EXPANDED_BYTES} bytes of text in one document, counting what aliases stand for"
            );
            return Err(self.sources.diagnostic(at, message).into());
        }
        Ok(())
    }

    fn too_deep(&self, at: Span) -> Diagnostic {
        self.sources.diagnostic(at, format!("lists and maps are nested more than {MAX_DEPTH} deep"))
    }

    fn error(&self, marker: Marker, message: &str) -> Diagnostic {
        self.sources.diagnostic(self.span(ParserSpan::new(marker, marker)), message)
    }

    fn span(&self, span: ParserSpan) -> Span {
        let length =
            if span.start.line() == span.end.line() { span.end.col().saturating_sub(span.start.col()) } else { 1 };
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span {
            file: self.file,
            line: number(span.start.line()),
            column: number(span.start.col().saturating_add(1)),
            length: number(length.max(1)),
        }
    }
}

/// What two keys must share to be the same key.
pub(super) fn identity(key: &Node, rule: KeyRule) -> Key {
    let Value::Scalar { text, style } = &key.value else {
        return Key::text("");
    };
    let is_string_tag = match &key.tag {
        Some(Tag::NonSpecific) => true,
        Some(Tag::Core(name)) => name == "str",
        _ => false,
    };
    let typed = rule == KeyRule::Yaml11 && *style == Style::Plain && !is_string_tag && !yaml11_is_string(text);
    Key { text: text.clone(), typed }
}

/// Nodes, bytes of text and depth of a tree. Recursion is bounded by [`MAX_DEPTH`].
fn measure(node: &Node) -> (usize, usize, usize) {
    let mut total = (1, 0, 0);
    let mut add = |child: &Node| {
        let (nodes, bytes, depth) = measure(child);
        total = (total.0 + nodes, total.1 + bytes, total.2.max(depth));
    };
    match &node.value {
        Value::Scalar { text, .. } => return (1, text.len(), 0),
        Value::List(list) => list.iter().for_each(&mut add),
        Value::Map(map) => map.values().for_each(|entry| {
            add(&entry.key);
            add(&entry.value);
        }),
    }
    (total.0, total.1, total.2 + 1)
}

fn own_tag(tag: &ParserTag) -> Tag {
    const CORE: &str = "tag:yaml.org,2002:";
    match (tag.handle.as_str(), tag.suffix.as_str()) {
        ("!", "replace") => Tag::Replace,
        ("", "!") | ("!", "") => Tag::NonSpecific,
        (handle, suffix) => {
            let full = format!("{handle}{suffix}");
            match full.strip_prefix(CORE) {
                Some(name) => Tag::Core(name.to_owned()),
                None => Tag::Other(full),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Node>, Diagnostics> {
        let mut sources = SourceMap::default();
        let file = sources.add("t.yaml".into(), String::new(), text.to_owned());
        parse(&sources, file, KeyRule::Text)
    }

    fn first_error(text: &str) -> String {
        match read(text) {
            Ok(_) => String::from("no error"),
            Err(diagnostics) => diagnostics.first().map(|d| d.message.clone()).unwrap_or_default(),
        }
    }

    #[test]
    fn places_are_one_based() {
        let root = read("a: 1\nbb: [x, 'y']\n").unwrap().unwrap();
        let list = root.get("bb").unwrap().as_list().unwrap();
        let places: Vec<_> = list.iter().map(|n| (n.span.line, n.span.column, n.span.length)).collect();
        assert_eq!(places, [(2, 6, 1), (2, 9, 3)]);
    }

    #[test]
    fn tags() {
        let root = read("a: !replace [x]\nb: !!str 1\nc: ! 1\nd: !foo 1\ne: !<tag:yaml.org,2002:int> 1\nf: !<x:y> 1\n")
            .unwrap()
            .unwrap();
        let tags: Vec<_> = root.as_map().unwrap().values().map(|e| e.value.tag.clone().unwrap()).collect();
        assert_eq!(
            tags,
            [
                Tag::Replace,
                Tag::Core("str".into()),
                Tag::NonSpecific,
                Tag::Other("!foo".into()),
                Tag::Core("int".into()),
                Tag::Other("x:y".into())
            ]
        );
    }

    #[test]
    fn refusals() {
        for (text, part) in [
            ("a: 1\n---\nb: 2\n", "second YAML document"),
            ("a: 1\na: 2\n", "`a` is given twice"),
            ("? [a]\n: b\n", "a key must be"),
            ("a: &x [*x]\n", "not complete yet"),
            ("a: *x\n", "unknown anchor"),
            ("a: b: c\n", "needs quotes"),
            ("a: \"x\n", "not valid YAML"),
        ] {
            assert!(first_error(text).contains(part), "{text:?}: {}", first_error(text));
        }
        assert!(read("").unwrap().is_none());
        assert!(read("# a comment\n").unwrap().is_none());
    }

    #[test]
    fn bombs_are_refused() {
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..20 {
            let uses = format!("*a{}, ", level - 1).repeat(9);
            laughs.push_str(&format!("a{level}: &a{level} [{}]\n", uses.trim_end_matches(", ")));
        }
        assert!(first_error(&laughs).contains("YAML nodes"), "{}", first_error(&laughs));
        let wide = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(200));
        assert!(first_error(&wide).contains("bytes of text"), "{}", first_error(&wide));
        assert!(first_error(&"- ".repeat(MAX_DEPTH + 1)).contains("deep"));
        let mut chain = String::from("a0: &a0 [x]\n");
        for level in 1..=MAX_DEPTH {
            chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert!(first_error(&chain).contains("deep"), "{}", first_error(&chain));
        assert!(first_error(&" ".repeat(MAX_DOCUMENT_BYTES + 1)).contains("too long"));
        assert!(first_error(&"[".repeat(100_000)).contains("nested too deeply"));
    }
}
