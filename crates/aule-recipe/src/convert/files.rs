//! `files:`: a closed set of kinds, each with the attributes that make sense for it.

use std::collections::BTreeMap;

use super::{Context, keys};
use crate::path::{ImagePath, join_name};
use crate::recipe::{FileEntry, FileKind};
use crate::source::Span;
use crate::value::Mode;
use crate::yaml::{Key, Map, Node};

/// The keys that say what an entry is; exactly one of them stands in each.
const KINDS: [&str; 6] = ["content", "source", "url", "symlink", "remove", "directory"];

/// Longest target of a symbolic link that Linux takes, in bytes.
const MAX_TARGET: usize = 4095;

pub(super) fn files(cx: &mut Context<'_>, node: &Node) -> BTreeMap<ImagePath, FileEntry> {
    let mut out = BTreeMap::new();
    let Some(map) = cx.map(node, "`files`") else {
        return out;
    };
    for (key, entry) in map {
        let path = image_path(cx, &key.text, entry.key.span);
        let file = file(cx, &entry.value, &key.text);
        if let (Some(path), Some(file)) = (path, file) {
            out.insert(path, file);
        }
    }
    out
}

fn image_path(cx: &mut Context<'_>, text: &str, span: Span) -> Option<ImagePath> {
    match ImagePath::new(text) {
        Ok(path) => Some(path),
        Err(error) => {
            let normal = format!("/{}", join_name("", text));
            let mut diagnostic =
                cx.sources.diagnostic(span, format!("`{text}` is no path in the image")).label(error.to_string());
            if ImagePath::new(&normal).is_ok() {
                diagnostic = diagnostic.help(format!("did you mean `{normal}`?"));
            }
            cx.push(diagnostic);
            None
        }
    }
}

fn file(cx: &mut Context<'_>, node: &Node, path: &str) -> Option<FileEntry> {
    let what = format!("the file `{path}`");
    let map = cx.fields(node, &what, keys::FILE)?;
    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| map.contains_key(&Key::text(*kind))).collect();
    let &[kind] = kinds.as_slice() else {
        let message = if kinds.is_empty() {
            format!("{what} does not say what it is")
        } else {
            format!("{what} is said to be several things: {}", kinds.join(", "))
        };
        let span = kinds.get(1).and_then(|kind| map.get(&Key::text(*kind))).map_or(node.span, |entry| entry.key.span);
        cx.report(span, message, format!("expected exactly one of: {}", KINDS.join(", ")));
        return None;
    };
    check_attributes(cx, map, kind);
    let kind = file_kind(cx, map, kind, &what);
    let get = |key: &str| map.get(&Key::text(key)).map(|entry| &entry.value);
    let mode = get("mode").and_then(|node| mode(cx, node, &what));
    let owner = get("owner").and_then(|node| {
        let text = cx.letters(node, &format!("the owner of {what}"));
        cx.parsed(node, "the owner", text, str::parse)
    });
    let group = get("group").and_then(|node| {
        let text = cx.letters(node, &format!("the group of {what}"));
        cx.parsed(node, "the group", text, str::parse)
    });
    let template = get("template").and_then(|node| cx.boolean(node, "`template`")).unwrap_or(false);
    Some(FileEntry { kind: kind?, mode, owner, group, template })
}

fn mode(cx: &mut Context<'_>, node: &Node, what: &str) -> Option<Mode> {
    let text = cx.letters(node, &format!("the mode of {what}"))?;
    if matches!(node.describe(), "a number") {
        // 0644 without quotes is 644 to one YAML reader and 420 to another.
        let digits = if text.parse::<Mode>().is_ok() { text } else { "0644" };
        let diagnostic = cx
            .sources
            .diagnostic(node.span, "a mode must be a string, not a number")
            .label("expected an octal mode as a string")
            .help(format!("quotes make it a string: \"{digits}\""));
        cx.push(diagnostic);
        return None;
    }
    cx.parsed(node, "the mode", Some(text), str::parse)
}

/// Refuses attributes that the kind cannot have.
fn check_attributes(cx: &mut Context<'_>, map: &Map, kind: &str) {
    let allowed: &[&str] = match kind {
        "content" | "source" => &["mode", "owner", "group", "template"],
        "url" => &["mode", "owner", "group", "sha256"],
        "directory" => &["mode", "owner", "group"],
        "symlink" => &["owner", "group"],
        _ => &[],
    };
    for (key, entry) in map {
        let key = key.text.as_str();
        if KINDS.contains(&key) || !keys::FILE.contains(&key) || allowed.contains(&key) {
            continue;
        }
        let expected = match allowed {
            [] => format!("nothing else stands beside `{kind}`"),
            allowed => format!("beside `{kind}` stand only: {}", allowed.join(", ")),
        };
        cx.report(entry.key.span, format!("`{key}` has no meaning for `{kind}`"), expected);
    }
}

fn file_kind(cx: &mut Context<'_>, map: &Map, kind: &str, what: &str) -> Option<FileKind> {
    let get = |key: &str| map.get(&Key::text(key)).map(|entry| &entry.value);
    let node = get(kind)?;
    match kind {
        "content" => cx.string(node, "`content`").map(|text| FileKind::Content(text.to_owned())),
        "source" => cx.local(node, &format!("the source of {what}"), false).map(FileKind::Source),
        "url" => {
            let text = cx.string(node, "`url`");
            let url = cx.parsed(node, "the URL", text, str::parse);
            let sha256 = get("sha256").and_then(|node| {
                let text = cx.letters(node, "`sha256`");
                cx.parsed(node, "the digest", text, str::parse)
            });
            Some(FileKind::Url { url: url?, sha256 })
        }
        "symlink" => {
            let target = cx.string(node, "`symlink`")?;
            if target.is_empty() || target.len() > MAX_TARGET {
                cx.report(node.span, "a link needs a target", "expected a path of 1 to 4095 bytes");
                return None;
            }
            Some(FileKind::Symlink(target.to_owned()))
        }
        "remove" | "directory" => {
            if !cx.boolean(node, &format!("`{kind}`"))? {
                cx.report(node.span, format!("`{kind}: false` says nothing"), format!("expected `{kind}: true`"));
                return None;
            }
            Some(if kind == "remove" { FileKind::Remove } else { FileKind::Directory })
        }
        _ => None,
    }
}
