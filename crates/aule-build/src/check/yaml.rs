//! YAML as cloud-init reads it, with the place of every node: values for a JSON Schema, places for people.

use super::scalar::{Scalar, plain};
use aule_recipe::limits::{MAX_DEPTH, MAX_DOCUMENT_BYTES, MAX_EXPANDED_BYTES, MAX_NODES};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use serde_json::Value;
use std::collections::HashMap;

/// A place in a text; line and column count from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) length: u32,
}

/// A document that cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) message: String,
}

/// One step from a document to a node in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// A path as people write it: `users[0].name`.
pub(super) fn dotted(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Key(key) if out.is_empty() => out.push_str(key),
            Step::Key(key) => {
                out.push('.');
                out.push_str(key);
            }
            Step::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
    out
}

/// A node.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) place: Place,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum NodeKind {
    Scalar(Value),
    /// A date, as it was written.
    Date(String),
    List(Vec<Node>),
    Map(Vec<Pair>),
}

/// A key, where it stands, and its value.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

impl Node {
    /// The value under a key; of several the last, as in Python.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.pair(key).map(|pair| &pair.value)
    }

    fn pair(&self, key: &str) -> Option<&Pair> {
        match &self.kind {
            NodeKind::Map(pairs) => pairs.iter().rev().find(|pair| pair.key == key),
            _ => None,
        }
    }

    /// The entries of a list; of anything else none.
    pub(super) fn items(&self) -> &[Node] {
        match &self.kind {
            NodeKind::List(items) => items,
            _ => &[],
        }
    }

    /// The pairs of a map; of anything else none.
    pub(super) fn pairs(&self) -> &[Pair] {
        match &self.kind {
            NodeKind::Map(pairs) => pairs,
            _ => &[],
        }
    }

    /// The text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether it is what Python takes for true.
    pub(super) fn is_true(&self) -> bool {
        matches!(self.kind, NodeKind::Scalar(Value::Bool(true)))
    }

    /// The node at a path.
    pub(super) fn at(&self, path: &[Step]) -> Option<&Node> {
        path.iter().try_fold(self, |node, step| match step {
            Step::Key(key) => node.get(key),
            Step::Index(index) => node.items().get(*index),
        })
    }

    /// How many steps of `path`, which leads through `whole`, lead through this node too, and where the last of them
    /// stands. An entry of a list is found by what it is, not by its number: lists grow when documents are merged.
    pub(super) fn trace(&self, whole: &Node, path: &[Step]) -> (usize, Place) {
        let (mut here, mut there) = (self, whole);
        let mut place = self.place;
        for (number, step) in path.iter().enumerate() {
            let found = match step {
                Step::Key(key) => here.pair(key).map(|pair| (pair.place, &pair.value)).zip(there.get(key)),
                Step::Index(index) => there.items().get(*index).and_then(|wanted| {
                    let names = |node: &Node| {
                        let named = |key| node.get(key).map(Node::json);
                        (named("name"), named("path"))
                    };
                    let json = wanted.json();
                    let same = here.items().iter().rev().find(|it| it.json() == json);
                    let alike = || {
                        let wanted = names(wanted);
                        here.items().iter().rev().find(|it| wanted != (None, None) && names(it) == wanted)
                    };
                    same.or_else(alike).map(|it| ((it.place, it), wanted))
                }),
            };
            let Some(((at, mine), theirs)) = found else { return (number, place) };
            (here, there, place) = (mine, theirs, at);
        }
        (path.len(), place)
    }

    /// As JSON; a date is `null`.
    pub(super) fn json(&self) -> Value {
        match &self.kind {
            NodeKind::Scalar(value) => value.clone(),
            NodeKind::Date(_) => Value::Null,
            NodeKind::List(items) => Value::Array(items.iter().map(Node::json).collect()),
            NodeKind::Map(pairs) => {
                Value::Object(pairs.iter().map(|pair| (pair.key.clone(), pair.value.json())).collect())
            }
        }
    }
}

/// Reads the first document of a text; `None` if there is nothing in it.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Fault> {
    let start = Place { line: 1, column: 1, length: 1 };
    if text.len() > MAX_DOCUMENT_BYTES {
        let message = format!("it has {} bytes; at most {MAX_DOCUMENT_BYTES} are read", text.len());
        return Err(Fault { place: start, message });
    }
    let mut reader = Reader { open: Vec::new(), anchors: HashMap::new(), root: None, nodes: 0, bytes: 0 };
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let place = place(Span::new(*error.marker(), *error.marker()));
            Fault { place, message: format!("this is not valid YAML: {}", error.info()) }
        })?;
        documents += usize::from(matches!(event, Event::DocumentStart(_)));
        if documents > 1 {
            return Err(Fault { place: place(span), message: "a second YAML document, which is not read".into() });
        }
        reader.event(event, place(span))?;
    }
    Ok(reader.root)
}

/// Whether every document of a text is valid YAML.
pub(super) fn syntax(text: &str) -> Result<(), Fault> {
    for event in Parser::new_from_str(text) {
        event.map_err(|error| {
            let marker: Marker = *error.marker();
            Fault { place: place(Span::new(marker, marker)), message: error.info().to_owned() }
        })?;
    }
    Ok(())
}

fn place(span: Span) -> Place {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let same_line = span.start.line() == span.end.line();
    let length = if same_line { span.end.col().saturating_sub(span.start.col()).max(1) } else { 1 };
    Place {
        line: number(span.start.line()),
        column: number(span.start.col().saturating_add(1)),
        length: number(length),
    }
}

struct Open {
    anchor: usize,
    node: Node,
    key: Option<(String, bool, Place)>,
    /// What `<<` brings in; the map's own pairs come after it.
    inherited: Vec<Pair>,
}

struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    nodes: usize,
    bytes: usize,
}

impl Reader {
    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.charge(place, 1, text.len())?;
                let is_merge = style == ScalarStyle::Plain && text == "<<";
                let kind = scalar(&text, style, tag.as_deref(), place)?;
                self.close(Node { kind, place }, anchor, is_merge, Some(&text))
            }
            Event::SequenceStart(anchor, tag) => self.start(NodeKind::List(Vec::new()), anchor, tag.as_deref(), place),
            Event::MappingStart(anchor, tag) => self.start(NodeKind::Map(Vec::new()), anchor, tag.as_deref(), place),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(mut open) => {
                    if let NodeKind::Map(own) = &mut open.node.kind {
                        let mut pairs = std::mem::take(&mut open.inherited);
                        pairs.append(own);
                        *own = pairs;
                    }
                    self.close(open.node, open.anchor, false, None)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Fault { place, message: "an alias to a node that is not complete yet".into() });
                };
                let (nodes, bytes, depth) = measure(node);
                let mut node = node.clone();
                node.place = place;
                if self.open.len() + depth > MAX_DEPTH {
                    return Err(too_deep(place));
                }
                self.charge(place, nodes, bytes)?;
                self.close(node, 0, false, None)
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, kind: NodeKind, anchor: usize, tag: Option<&Tag>, place: Place) -> Result<(), Fault> {
        self.charge(place, 1, 0)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(place));
        }
        if let Some(tag) = tag.filter(|tag| core_tag(tag).is_none()) {
            return Err(unknown_tag(tag, place));
        }
        self.open.push(Open { anchor, node: Node { kind, place }, key: None, inherited: Vec::new() });
        Ok(())
    }

    fn close(&mut self, node: Node, anchor: usize, is_merge: bool, spelled: Option<&str>) -> Result<(), Fault> {
        if anchor != 0 {
            let (nodes, bytes, _) = measure(&node);
            self.charge(node.place, nodes, bytes)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.node.kind {
            NodeKind::List(items) => items.push(node),
            NodeKind::Map(pairs) => match parent.key.take() {
                None => {
                    let key = match (&node.kind, spelled) {
                        (NodeKind::Scalar(Value::String(text)), _) => text.clone(),
                        (NodeKind::Scalar(_) | NodeKind::Date(_), Some(spelled)) => spelled.to_owned(),
                        (NodeKind::Scalar(value), None) => value.to_string(),
                        (NodeKind::Date(text), None) => text.clone(),
                        _ => return Err(Fault { place: node.place, message: "a key that is a list or a map".into() }),
                    };
                    parent.key = Some((key, is_merge, node.place));
                }
                Some((_, true, place)) => {
                    let maps: Vec<Node> = match node.kind {
                        NodeKind::Map(_) => vec![node],
                        // The first of the list wins, so it comes last.
                        NodeKind::List(items) => items.into_iter().rev().collect(),
                        _ => vec![node],
                    };
                    for map in maps {
                        let NodeKind::Map(more) = map.kind else {
                            return Err(Fault { place, message: "`<<` takes a map or a list of maps".into() });
                        };
                        parent.inherited.extend(more);
                    }
                }
                Some((key, false, place)) => pairs.push(Pair { key, place, value: node }),
            },
            NodeKind::Scalar(_) | NodeKind::Date(_) => {}
        }
        Ok(())
    }

    fn charge(&mut self, place: Place, nodes: usize, bytes: usize) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > MAX_NODES || self.bytes > MAX_EXPANDED_BYTES {
            return Err(Fault {
                place,
                message: "more nodes or text than any document needs, aliases expanded".into(),
            });
        }
        Ok(())
    }
}

fn too_deep(place: Place) -> Fault {
    Fault { place, message: format!("lists and maps are nested more than {MAX_DEPTH} deep") }
}

fn unknown_tag(tag: &Tag, place: Place) -> Fault {
    let message =
        format!("PyYAML, which cloud-init reads this with, does not know the tag `{}{}`", tag.handle, tag.suffix);
    Fault { place, message }
}

/// The name of one of YAML's own tags, `str` for `!`.
fn core_tag(tag: &Tag) -> Option<String> {
    const KNOWN: [&str; 12] =
        ["str", "int", "float", "bool", "null", "binary", "timestamp", "map", "seq", "set", "omap", "pairs"];
    let full = format!("{}{}", tag.handle, tag.suffix);
    if full == "!" {
        return Some("str".into());
    }
    let name = full.strip_prefix("tag:yaml.org,2002:").or_else(|| full.strip_prefix("!!"))?;
    KNOWN.contains(&name).then(|| name.to_owned())
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Result<NodeKind, Fault> {
    let name = match tag {
        None => None,
        Some(tag) => Some(core_tag(tag).ok_or_else(|| unknown_tag(tag, place))?),
    };
    let string = || NodeKind::Scalar(Value::String(text.to_owned()));
    Ok(match name.as_deref() {
        // Bytes pass for a string where cloud-init takes them.
        Some("str" | "binary") => string(),
        None if style != ScalarStyle::Plain => string(),
        _ => match plain(text) {
            Scalar::Json(value) => NodeKind::Scalar(value),
            Scalar::Date => NodeKind::Date(text.to_owned()),
        },
    })
}

/// Nodes, bytes of text and depth. Recursion is bounded by [`MAX_DEPTH`].
fn measure(node: &Node) -> (usize, usize, usize) {
    let mut total = (1, 0, 0);
    let mut add = |child: &Node, key: usize| {
        let (nodes, bytes, depth) = measure(child);
        total = (total.0 + nodes, total.1 + bytes + key, total.2.max(depth));
    };
    match &node.kind {
        NodeKind::Scalar(Value::String(text)) | NodeKind::Date(text) => return (1, text.len(), 0),
        NodeKind::Scalar(_) => return (1, 0, 0),
        NodeKind::List(items) => items.iter().for_each(|item| add(item, 0)),
        NodeKind::Map(pairs) => pairs.iter().for_each(|pair| add(&pair.value, pair.key.len())),
    }
    (total.0, total.1, total.2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(key: &str) -> Step {
        Step::Key(key.into())
    }

    #[test]
    fn values_places_and_merge_keys() {
        let text = "a: &x {mode: 0644, on: yes}\nb:\n  <<: *x\n  mode: '0600'\nc: [2001-12-14, !!str 1, ! 2]\n";
        let root = parse(text).unwrap().unwrap();
        let wanted = json!({
            "a": {"mode": 420, "on": true}, "b": {"mode": "0600", "on": true}, "c": [null, "1", "2"],
        });
        assert_eq!(root.json(), wanted);
        let path = [key("b"), key("mode")];
        assert_eq!(root.trace(&root, &path), (2, Place { line: 4, column: 3, length: 4 }));
        assert!(matches!(root.at(&[key("c"), Step::Index(0)]).unwrap().kind, NodeKind::Date(_)));
        assert_eq!(dotted(&[key("users"), Step::Index(0), key("name")]), "users[0].name");
    }

    #[test]
    fn entries_are_found_by_what_they_are() {
        let part = parse("users:\n- {name: b, x: 1}\n").unwrap().unwrap();
        let whole = parse("users:\n- {name: a}\n- {name: b, x: 1, y: 2}\n").unwrap().unwrap();
        let path = [key("users"), Step::Index(1), key("x")];
        assert_eq!(part.trace(&whole, &path), (3, Place { line: 2, column: 13, length: 1 }));
        assert_eq!(part.trace(&whole, &[key("users"), Step::Index(0)]).0, 1);
    }

    #[test]
    fn refusals_and_bounds() {
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", ")));
        }
        for (text, wanted) in [
            (laughs.as_str(), "aliases expanded"),
            ("a: !vault x\n", "does not know the tag"),
            ("a: [\n", "not valid YAML"),
            ("a: 1\n---\nb: 1\n", "second YAML document"),
            ("? [a]\n: b\n", "a key that is"),
            ("<<: 1\n", "`<<` takes"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.message.contains(wanted), "{text:.40}: {fault:?}");
        }
        assert!(parse(&"- ".repeat(MAX_DEPTH + 1)).is_err());
        assert!(parse("# nothing\n").unwrap().is_none());
    }
}
