//! `aule diff`: how the roots of two builds differ.

use super::{
    Root,
    entry::{self, Entry, Hardlinks},
    text,
};
use crate::{
    failure::Failure,
    output::{self, Format},
};
use aule_store::{Store, layer::Contents};
use aule_tree::{Change, Content, Digest, Inode, Kind, Tree, TreePath, changes};
use similar::TextDiff;
use std::{collections::BTreeSet, fmt};

/// The largest file whose text is compared, in bytes.
const TEXT_MAX: u64 = 1 << 20;
/// The most lines, of both files together, that are compared: the time grows with their square in the worst case.
const LINES_MAX: usize = 40_000;

/// In what two inodes differ, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::commands) enum Aspect {
    Type,
    Content,
    Size,
    Target,
    Device,
    Mode,
    Owner,
    Xattrs,
    Hardlinks,
    /// Told only where nothing else differs: whatever is written anew has a new time.
    Mtime,
}

impl Aspect {
    /// The word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Aspect::Type => "type",
            Aspect::Content => "content",
            Aspect::Size => "size",
            Aspect::Target => "target",
            Aspect::Device => "device",
            Aspect::Mode => "mode",
            Aspect::Owner => "owner",
            Aspect::Xattrs => "xattrs",
            Aspect::Hardlinks => "hardlinks",
            Aspect::Mtime => "mtime",
        }
    }
}

/// In what `old` and `new` at the same path differ.
pub(super) fn aspects(old: &Inode, new: &Inode, same_names: bool) -> Vec<Aspect> {
    let (a, b) = (&old.metadata, &new.metadata);
    let mut found = Vec::new();
    let mut note = |differs: bool, aspect| {
        if differs {
            found.push(aspect);
        }
    };
    note(old.kind.word() != new.kind.word(), Aspect::Type);
    match (&old.kind, &new.kind) {
        (Kind::File(old), Kind::File(new)) => {
            note(old.digest != new.digest, Aspect::Content);
            note(old.size != new.size, Aspect::Size);
        }
        (Kind::Symlink(old), Kind::Symlink(new)) => note(old != new, Aspect::Target),
        (old, new) => note(old.word() == new.word() && old != new, Aspect::Device),
    }
    note(a.mode != b.mode, Aspect::Mode);
    note((a.uid, a.gid) != (b.uid, b.gid), Aspect::Owner);
    note(a.xattrs != b.xattrs, Aspect::Xattrs);
    note(!same_names, Aspect::Hardlinks);
    if found.is_empty() && a.mtime != b.mtime {
        found.push(Aspect::Mtime);
    }
    found
}

/// Whether `path` has the same other names in both trees.
pub(super) fn same_names(
    path: &TreePath,
    (old, old_links): (&Tree, &Hardlinks<'_>),
    (new, new_links): (&Tree, &Hardlinks<'_>),
) -> bool {
    let names = |tree: &Tree, links: &Hardlinks<'_>| -> Vec<TreePath> {
        let names = tree.id(path).and_then(|id| links.get(&id));
        names.into_iter().flatten().map(|name| (*name).clone()).collect()
    };
    names(old, old_links) == names(new, new_links)
}

#[derive(serde::Serialize)]
struct Side<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    digest: Digest,
}

#[derive(serde::Serialize)]
struct Difference {
    change: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what: Vec<Aspect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<Entry>,
    /// How the text differs, in the unified format, or why it is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<TextDifference>,
}

/// How a file's text differs, or why that is not shown.
#[derive(serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::commands) enum TextDifference {
    Unified(String),
    NotShown(String),
}

/// How many paths differ.
#[derive(Default, serde::Serialize)]
pub(in crate::commands) struct Counts {
    added: u64,
    removed: u64,
    changed: u64,
    /// Of the changed ones, those that differ in their time only.
    mtime_only: u64,
}

impl Counts {
    /// Counts one more.
    pub(in crate::commands) fn count(&mut self, change: Change, what: &[Aspect]) {
        match change {
            Change::Added => self.added += 1,
            Change::Removed => self.removed += 1,
            Change::Changed => self.changed += 1,
        }
        self.mtime_only += u64::from(what == [Aspect::Mtime]);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { added, removed, changed, mtime_only } = self;
        match added + removed + changed {
            0 => f.write_str("no path differs"),
            _ if *mtime_only > 0 => {
                write!(f, "{added} added, {removed} removed, {changed} changed ({mtime_only} in their time only)")
            }
            _ => write!(f, "{added} added, {removed} removed, {changed} changed"),
        }
    }
}

/// A path that differs between two trees.
pub(in crate::commands) struct Differing {
    pub(in crate::commands) path: TreePath,
    pub(in crate::commands) change: Change,
    /// In what, where both trees have it.
    pub(in crate::commands) what: Vec<Aspect>,
}

/// The paths that differ, in canonical order.
pub(in crate::commands) fn differing(old: &Tree, new: &Tree) -> Vec<Differing> {
    let (old_links, new_links) = (old.hardlinks(), new.hardlinks());
    let paths = changes(old, new).into_iter();
    let paths = paths.map(|(path, change)| {
        let what = match (old.get(&path), new.get(&path)) {
            (Some(before), Some(after)) => {
                aspects(before, after, same_names(&path, (old, &old_links), (new, &new_links)))
            }
            _ => Vec::new(),
        };
        Differing { path, change, what }
    });
    paths.collect()
}

/// The word for it.
pub(in crate::commands) fn word(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
    }
}

/// A path from `/`, as it is shown.
pub(in crate::commands) fn shown(path: &TreePath) -> String {
    text::path(path)
}

/// Compares the roots of two builds.
pub(super) fn run(store: &Store, old: &str, new: &str, brief: bool, format: Format) -> Result<(), Failure> {
    let a = Root::open(store, old)?;
    let b = Root::open(store, new)?;
    let (a_links, b_links) = (a.tree.hardlinks(), b.tree.hardlinks());
    let mut counts = Counts::default();
    let mut lines = String::new();
    let mut differences = Vec::new();
    for Differing { path, change, what } in differing(&a.tree, &b.tree) {
        let (before, after) = (a.tree.get(&path), b.tree.get(&path));
        let text = match (before.and_then(Inode::content), after.and_then(Inode::content)) {
            (Some(x), Some(y)) if !brief && what.contains(&Aspect::Content) => {
                Some(text_difference(&path, (&a.contents, x), (&b.contents, y))?)
            }
            _ => None,
        };
        counts.count(change, &what);
        match format {
            Format::Text => lines.push_str(&describe(&path, before, after, &what, text.as_ref())),
            Format::Json => differences.push(Difference {
                change: word(change),
                path: text::path(&path),
                old: Entry::of(&a.tree, &a_links, &path),
                new: Entry::of(&b.tree, &b_links, &path),
                what,
                text,
            }),
        }
    }
    match format {
        Format::Json => output::json(&serde_json::json!({
            "old": Side { reference: old, digest: a.build.descriptor.digest },
            "new": Side { reference: new, digest: b.build.descriptor.digest },
            "counts": counts,
            "changes": differences,
        })),
        Format::Text => {
            output::write(lines.as_bytes())?;
            output::line(counts.to_string())
        }
    }
}

/// A line for the path, and below it how its text differs.
pub(in crate::commands) fn describe(
    path: &TreePath,
    old: Option<&Inode>,
    new: Option<&Inode>,
    what: &[Aspect],
    text: Option<&TextDifference>,
) -> String {
    let shown = text::path(path);
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (there, other) => {
            let letter = if other.is_some() { '+' } else { '-' };
            let Some(inode) = there.or(other) else { return String::new() };
            let [mode, uid, gid, size, _, name] = entry::cells(path, inode);
            return format!("{letter} {name}  {mode} {uid}:{gid} {size}\n");
        }
    };
    let details: Vec<String> = what.iter().map(|aspect| detail(*aspect, old, new)).collect();
    let mut lines = format!("~ {shown}  {}\n", details.join(", "));
    match text {
        Some(TextDifference::Unified(unified)) => lines.push_str(unified),
        Some(TextDifference::NotShown(reason)) => lines.push_str(&format!("  {reason}\n")),
        None => {}
    }
    lines
}

/// `mode 0644 -> 0755`
pub(super) fn detail(aspect: Aspect, old: &Inode, new: &Inode) -> String {
    let value = |inode: &Inode| match (aspect, &inode.kind) {
        (Aspect::Type, kind) => Some(kind.word().to_owned()),
        (Aspect::Size, Kind::File(content)) => Some(content.size.to_string()),
        (Aspect::Target, Kind::Symlink(target)) => Some(text::escape(target)),
        (Aspect::Device, Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }) => {
            Some(format!("{major},{minor}"))
        }
        (Aspect::Mode, _) => Some(format!("{:04o}", inode.metadata.mode)),
        (Aspect::Owner, _) => Some(format!("{}:{}", inode.metadata.uid, inode.metadata.gid)),
        (Aspect::Mtime, _) => Some(inode.metadata.mtime.to_string()),
        _ => None,
    };
    if aspect == Aspect::Xattrs {
        let (a, b) = (&old.metadata.xattrs, &new.metadata.xattrs);
        let differing: BTreeSet<&Vec<u8>> =
            a.keys().chain(b.keys()).filter(|name| a.get(*name) != b.get(*name)).collect();
        let names: Vec<String> = differing.into_iter().map(|name| text::escape(name)).collect();
        return format!("xattrs {}", names.join(" "));
    }
    match (value(old), value(new)) {
        (Some(old), Some(new)) => format!("{} {old} -> {new}", aspect.word()),
        _ => aspect.word().to_owned(),
    }
}

fn text_difference(
    path: &TreePath,
    (old_contents, old): (&Contents, &Content),
    (new_contents, new): (&Contents, &Content),
) -> Result<TextDifference, Failure> {
    let sizes = format!("{} and {}", output::size(old.size), output::size(new.size));
    if old.size.max(new.size) > TEXT_MAX {
        return Ok(TextDifference::NotShown(format!("large files differ: {sizes}")));
    }
    let (a, b) = (old_contents.read(old, TEXT_MAX)?, new_contents.read(new, TEXT_MAX)?);
    let (Ok(a), Ok(b)) = (std::str::from_utf8(&a), std::str::from_utf8(&b)) else {
        return Ok(TextDifference::NotShown(format!("binary files differ: {sizes}")));
    };
    if a.contains('\0') || b.contains('\0') {
        return Ok(TextDifference::NotShown(format!("binary files differ: {sizes}")));
    }
    if a.lines().count() + b.lines().count() > LINES_MAX {
        return Ok(TextDifference::NotShown(format!("files of more than {LINES_MAX} lines together differ: {sizes}")));
    }
    let name = text::escape(path.as_bytes());
    let diff = TextDiff::from_lines(a, b);
    let unified = diff.unified_diff().context_radius(3).header(&format!("a/{name}"), &format!("b/{name}")).to_string();
    Ok(TextDifference::Unified(unified))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aule_tree::{Metadata, Timestamp};

    fn inode(mode: u16, seconds: i64, kind: Kind) -> Inode {
        Inode { metadata: Metadata::root_owned(mode, Timestamp::from_seconds(seconds)), kind }
    }

    #[test]
    fn what_differs_is_named_and_the_time_only_by_itself() {
        let file = |text: &str| Kind::File(Content::of(text.as_bytes()));
        let link = |target: &str| Kind::Symlink(target.into());
        let old = inode(0o644, 1, file("a\n"));
        for (new, same_names, wanted) in [
            (inode(0o644, 1, file("a\n")), true, ""),
            (inode(0o644, 2, file("a\n")), true, "mtime 1970-01-01T00:00:01Z -> 1970-01-01T00:00:02Z"),
            (inode(0o755, 2, file("a\n")), true, "mode 0644 -> 0755"),
            (inode(0o644, 2, file("b\n")), true, "content"),
            (inode(0o644, 1, file("ab\n")), false, "content, size 2 -> 3, hardlinks"),
            (inode(0o777, 1, link("a")), true, "type file -> symlink, mode 0644 -> 0777"),
        ] {
            let found: Vec<_> = aspects(&old, &new, same_names).into_iter().map(|it| detail(it, &old, &new)).collect();
            assert_eq!(found.join(", "), wanted);
        }
        let device = |minor| inode(0o600, 1, Kind::CharDevice { major: 1, minor });
        assert_eq!(aspects(&device(3), &device(5), true), [Aspect::Device]);
        assert_eq!(aspects(&inode(0, 1, link("a")), &inode(0, 1, link("b")), true), [Aspect::Target]);
    }
}
