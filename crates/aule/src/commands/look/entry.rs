//! One path of a tree, as JSON and as a line of text.

use super::text;
use aule_tree::{Digest, Inode, InodeId, Kind, Tree, TreePath};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The names of each inode that has several.
pub(super) type Hardlinks<'a> = HashMap<InodeId, BTreeSet<&'a TreePath>>;

/// A path with what it names, as `--format json` shows it.
#[derive(Debug, serde::Serialize)]
pub(super) struct Entry {
    path: String,
    /// The bytes, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Octal, as recipes write it.
    mode: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    sparse: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    major: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minor: Option<u32>,
    mtime: String,
    /// Name (escaped) to value (hex).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    /// The other names of the same inode.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hardlinks: Vec<String>,
}

impl Entry {
    /// What `path` names; `others` are all names of the inode.
    pub(super) fn new(path: &TreePath, inode: &Inode, others: Option<&BTreeSet<&TreePath>>) -> Self {
        let (shown, path_hex) = text::for_json(&[b"/", path.as_bytes()].concat());
        let (mut major, mut minor, mut target, mut target_hex) = (None, None, None, None);
        match &inode.kind {
            Kind::CharDevice { major: a, minor: b } | Kind::BlockDevice { major: a, minor: b } => {
                (major, minor) = (Some(*a), Some(*b));
            }
            Kind::Symlink(bytes) => {
                let (text, hex) = text::for_json(bytes);
                (target, target_hex) = (Some(text), hex);
            }
            _ => {}
        }
        let content = inode.content();
        let metadata = &inode.metadata;
        Entry {
            path: shown,
            path_hex,
            kind: inode.kind.word(),
            mode: format!("{:04o}", metadata.mode),
            uid: metadata.uid,
            gid: metadata.gid,
            size: content.map(|content| content.size),
            digest: content.map(|content| content.digest),
            sparse: content.is_some_and(|content| content.sparse.is_some()),
            target,
            target_hex,
            major,
            minor,
            mtime: metadata.mtime.to_string(),
            xattrs: metadata.xattrs.iter().map(|(name, value)| (text::escape(name), text::hex(value))).collect(),
            hardlinks: others.into_iter().flatten().filter(|other| **other != path).map(|it| text::path(it)).collect(),
        }
    }

    /// What `path` names in `tree`.
    pub(super) fn of(tree: &Tree, links: &Hardlinks<'_>, path: &TreePath) -> Option<Self> {
        let (id, inode) = (tree.id(path)?, tree.get(path)?);
        Some(Entry::new(path, inode, links.get(&id)))
    }
}

/// The cells of a line as `ls -ln` has them: mode, owner, group, size or device, time, path and target.
pub(super) fn cells(path: &TreePath, inode: &Inode) -> [String; 6] {
    let metadata = &inode.metadata;
    let size = match &inode.kind {
        Kind::File(content) => content.size.to_string(),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => format!("{major},{minor}"),
        Kind::Symlink(target) => target.len().to_string(),
        Kind::Directory | Kind::Fifo | Kind::Socket => "-".into(),
    };
    let name = match &inode.kind {
        Kind::Symlink(target) => format!("{} -> {}", text::path(path), text::escape(target)),
        _ => text::path(path),
    };
    let (uid, gid) = (metadata.uid.to_string(), metadata.gid.to_string());
    [text::mode(inode), uid, gid, size, metadata.mtime.whole_seconds().to_string(), name]
}
