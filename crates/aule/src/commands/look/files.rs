//! `aule ls` and `aule cat`.

use super::{
    Root, content,
    entry::{self, Entry},
    no_such_path, place,
    text::{self, Columns, Side},
};
use crate::{
    failure::Failure,
    output::{self, Format},
};
use aule_store::Store;
use aule_tree::{Digest, Inode, TreePath};
use std::ffi::OsStr;

/// The largest file that is put into a JSON object.
const JSON_MAX: u64 = 16 << 20;

#[derive(serde::Serialize)]
struct Listing<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    digest: Digest,
    path: String,
    entries: Vec<Entry>,
}

/// Lists a directory, or everything below it, or one thing that is no directory.
pub(super) fn list(
    store: &Store,
    reference: &str,
    written: &OsStr,
    recursive: bool,
    format: Format,
) -> Result<(), Failure> {
    let Root { build, tree, .. } = Root::open(store, reference)?;
    let path = place(&tree, written, false)?;
    let found = tree.get(&path).ok_or_else(|| no_such_path(&tree, &path, reference))?;
    let listed: Vec<(&TreePath, &Inode)> = match (found.is_directory(), recursive) {
        (false, _) => vec![(&path, found)],
        (true, false) => tree.children(&path),
        (true, true) => {
            tree.subtree(&path).filter(|(it, ..)| **it != path).map(|(path, _, inode)| (path, inode)).collect()
        }
    };
    match format {
        Format::Json => {
            let links = tree.hardlinks();
            let names = |path| tree.id(path).and_then(|id| links.get(&id));
            let entries = listed.into_iter().map(|(path, inode)| Entry::new(path, inode, names(path))).collect();
            let digest = build.descriptor.digest;
            output::json(&Listing { reference, digest, path: text::path(&path), entries })
        }
        Format::Text => {
            let mut columns =
                Columns::new("", [Side::Left, Side::Right, Side::Right, Side::Right, Side::Left, Side::Left]);
            listed.into_iter().for_each(|(path, inode)| columns.row(entry::cells(path, inode)));
            output::write(columns.render().as_bytes())
        }
    }
}

#[derive(serde::Serialize)]
struct File<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    digest: Digest,
    entry: Entry,
    /// The text of a file that is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// The bytes of a file that is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_hex: Option<String>,
}

/// Writes the bytes of a file to stdout; symlinks are followed inside the tree.
pub(super) fn cat(store: &Store, reference: &str, written: &OsStr, format: Format) -> Result<(), Failure> {
    let Root { build, tree, contents } = Root::open(store, reference)?;
    let path = place(&tree, written, true)?;
    let inode = tree.get(&path).ok_or_else(|| no_such_path(&tree, &path, reference))?;
    let shown = text::path(&path);
    let Some(file) = inode.content() else {
        let failure = Failure::new(format!("{shown} is a {}, which has no content", inode.kind.word()));
        return Err(match inode.is_directory() {
            true => failure.hint(format!("`aule ls {reference} {shown}` lists it")),
            false => failure,
        });
    };
    if format == Format::Text {
        return content::copy(&contents, file, output::write);
    }
    if file.size > JSON_MAX {
        return Err(Failure::new(format!("{shown} has {}, too much for a JSON object", output::size(file.size)))
            .hint("without `--format json` files of any size are written as they are"));
    }
    let bytes = contents.read(file, JSON_MAX)?;
    let (content, content_hex) = match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(text::hex(error.as_bytes()))),
    };
    let entry = Entry::new(&path, inode, None);
    output::json(&File { reference, digest: build.descriptor.digest, entry, content, content_hex })
}
