//! Tree to text: block style, every scalar so written that a YAML 1.1 reader (PyYAML) and a YAML 1.2 reader both take
//! it for what it was. A plain scalar stays plain with the same letters, a quoted one stays quoted.

use super::{Map, Node, Style, Tag, Value, core, resolve, yaml11_is_string};

/// Gives the comment for the node at a key path, or none.
pub(super) type Comments<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Writes a tree, with a comment after each node for which `comments` gives one. The result ends with a line break.
pub(crate) fn emit(node: &Node, comments: Option<Comments<'_>>) -> String {
    let mut emitter = Emitter { out: String::new(), comments };
    match &node.value {
        Value::Map(map) if !map.is_empty() && node.tag_text().is_empty() => emitter.map(map, 0, "", false),
        Value::List(list) if !list.is_empty() && node.tag_text().is_empty() => emitter.list(list, 0, "", false),
        _ => {
            emitter.value(node, 0, "", None);
            // The first value of a document needs no space before it.
            emitter.out = emitter.out.trim_start_matches([' ', '\n']).to_owned();
        }
    }
    emitter.out
}

/// Writes a document that is a map.
pub(crate) fn emit_map(map: &Map) -> String {
    if map.is_empty() {
        return String::from("{}\n");
    }
    let mut emitter = Emitter { out: String::new(), comments: None };
    emitter.map(map, 0, "", false);
    emitter.out
}

/// The way to write a string of ours: plain where nothing can mistake it, a block where it has lines, else quoted.
pub(crate) fn scalar_for(text: &str) -> (String, Style) {
    let is_plain_string = yaml11_is_string(text) && core(text, Style::Plain, None) == resolve::Core::String;
    let style = if text.contains('\n') && text.len() > 1 {
        Style::Block
    } else if is_plain_string && plain_is_safe(text) {
        Style::Plain
    } else {
        Style::DoubleQuoted
    };
    (text.to_owned(), style)
}

struct Emitter<'a> {
    out: String,
    comments: Option<Comments<'a>>,
}

impl Node {
    /// The tag as text, with a space after it; empty for none and for `!replace`, which a merge has used up.
    fn tag_text(&self) -> String {
        match &self.tag {
            None | Some(Tag::Replace) => String::new(),
            Some(Tag::NonSpecific) => String::from("! "),
            Some(Tag::Core(name)) if is_tag_word(name) => format!("!!{name} "),
            Some(Tag::Core(name)) => format!("!<tag:yaml.org,2002:{}> ", escape_tag(name)),
            Some(Tag::Other(full)) => match full.strip_prefix('!') {
                Some(local) if is_tag_word(local) => format!("!{local} "),
                _ => format!("!<{}> ", escape_tag(full)),
            },
        }
    }
}

/// A word that needs no escapes as a tag's suffix in either YAML.
fn is_tag_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':'))
}

fn escape_tag(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_./:;?@&=+$,*'()!#~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl Emitter<'_> {
    /// Writes the entries of a map, one a line. `inline` leaves out the first indentation, after `- `.
    fn map(&mut self, map: &Map, indent: usize, path: &str, inline: bool) {
        for (index, entry) in map.values().enumerate() {
            if index > 0 || !inline {
                self.indent(indent);
            }
            let (name, key) = match &entry.key.value {
                Value::Scalar { text, style: Style::Plain } if text.is_empty() => ("", String::from("~")),
                Value::Scalar { text, style } => (text.as_str(), one_line(text, *style)),
                // The parser takes no other keys.
                _ => ("", String::from("\"\"")),
            };
            let child = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            // PyYAML and saphyr look for the `:` of a simple key within 1024 characters.
            let tag = entry.key.tag_text();
            if tag.len() + key.len() > 1000 {
                self.out.push_str(&format!("? {tag}{key}\n"));
                self.indent(indent);
                self.out.push(':');
            } else {
                self.out.push_str(&format!("{tag}{key}:"));
            }
            self.value(&entry.value, indent, &child, Some(false));
        }
    }

    fn list(&mut self, list: &[Node], indent: usize, path: &str, inline: bool) {
        for (index, item) in list.iter().enumerate() {
            if index > 0 || !inline {
                self.indent(indent);
            }
            self.out.push('-');
            self.value(item, indent, &format!("{path}[{index}]"), Some(true));
        }
    }

    /// Writes what follows `key:` or `-`, with the line break. `in_list` is none at the root.
    fn value(&mut self, node: &Node, indent: usize, path: &str, in_list: Option<bool>) {
        let tag = node.tag_text();
        let tag = tag.trim_end();
        let comment = self.comments.and_then(|comments| comments(path)).map(|text| format!("  # {text}"));
        let comment = comment.as_deref().unwrap_or_default();
        if !tag.is_empty() {
            self.out.push(' ');
            self.out.push_str(tag);
        }
        // A nested list or map can begin on the line of its `-` where no tag or comment stands between.
        let same_line = in_list == Some(true) && tag.is_empty() && comment.is_empty();
        match &node.value {
            Value::Map(map) if map.is_empty() => self.line(" {}", comment),
            Value::List(list) if list.is_empty() => self.line(" []", comment),
            Value::Map(map) => {
                if same_line {
                    self.out.push(' ');
                } else {
                    self.line("", comment);
                }
                self.map(map, indent + 2, path, same_line);
            }
            Value::List(list) => {
                if same_line {
                    self.out.push(' ');
                } else {
                    self.line("", comment);
                }
                self.list(list, indent + 2, path, same_line);
            }
            Value::Scalar { text, style: Style::Block } if block_is_safe(text) => self.block(text, indent, comment),
            Value::Scalar { text, style } => {
                let written = one_line(text, *style);
                let written = if written.is_empty() { written } else { format!(" {written}") };
                self.line(&written, comment);
            }
        }
    }

    /// Writes a literal block scalar: the header on this line, then the text, indented.
    fn block(&mut self, text: &str, indent: usize, comment: &str) {
        let body = text.trim_end_matches('\n');
        let chomping = match text.len() - body.len() {
            0 => "-",
            1 => "",
            _ => "+",
        };
        // Where the first line begins with a blank, the indentation cannot be seen from it.
        let indicator = if body.starts_with([' ', '\t', '\n']) { "2" } else { "" };
        self.line(&format!(" |{indicator}{chomping}"), comment);
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            if !line.is_empty() {
                self.indent(indent + 2);
                self.out.push_str(line);
            }
            self.out.push('\n');
        }
    }

    fn line(&mut self, text: &str, comment: &str) {
        self.out.push_str(text);
        self.out.push_str(comment);
        self.out.push('\n');
    }

    fn indent(&mut self, columns: usize) {
        self.out.push_str(&" ".repeat(columns));
    }
}

/// A scalar on one line, in its own style where that can be.
fn one_line(text: &str, style: Style) -> String {
    match style {
        Style::Plain if text.is_empty() => String::new(),
        Style::Plain if plain_is_safe(text) => text.to_owned(),
        Style::SingleQuoted if !text.contains('\n') && all_printable(text) => format!("'{}'", text.replace('\'', "''")),
        // A plain scalar that spans lines, or that only flow style or YAML 1.2 lets stand bare, is a string to both.
        _ => double_quoted(text),
    }
}

/// A plain scalar that stands as it is in block style in YAML 1.1 and 1.2 alike.
fn plain_is_safe(text: &str) -> bool {
    let mut characters = text.chars();
    let Some(first) = characters.next() else {
        return false;
    };
    let second = characters.next();
    let second_is_blank = second.is_none_or(|c| c == ' ' || c == '\t');
    let bad_start = match first {
        '-' | '?' | ':' => second_is_blank,
        ' ' | '\t' | ',' | '[' | ']' | '{' | '}' | '#' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => {
            true
        }
        _ => false,
    };
    let bad_inside = text.contains(": ")
        || text.contains(":\t")
        || text.contains(" #")
        || text.contains("\t#")
        || text.contains('\t')
        || text.contains('\n')
        || text.ends_with(':')
        || text.ends_with(' ');
    let document_marker = text.starts_with("---") || text.starts_with("...");
    !bad_start && !bad_inside && !document_marker && all_printable(text)
}

/// Characters that may stand bare in any YAML. NEL, LS and PS are line breaks to YAML 1.1 only; a byte order mark in the
/// middle is nothing that both read alike.
fn is_printable(c: char) -> bool {
    match c {
        '\t' | ' '..='~' => true,
        '\u{2028}' | '\u{2029}' | '\u{feff}' => false,
        '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}' => true,
        _ => false,
    }
}

fn all_printable(text: &str) -> bool {
    text.chars().all(is_printable)
}

/// A text that a literal block gives back unchanged.
fn block_is_safe(text: &str) -> bool {
    let has_text = text.chars().any(|c| c != '\n');
    // A line of blanks only, or a first line that is empty before an indented one, is read differently by readers.
    let blank_line = text.split('\n').any(|line| !line.is_empty() && line.chars().all(|c| c == ' ' || c == '\t'));
    has_text && !blank_line && text.chars().all(|c| c == '\n' || is_printable(c))
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
    out
}
