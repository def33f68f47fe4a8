//! What a tree holds: the packages of dpkg's database, and the files that are of none of them.

use super::licence::{Licences, licences};
use crate::{BuildError, Result, stage::Stage};
use aule_deb::index::{Package, Packages};
use aule_tree::{Digest, Hasher, Inode, Kind, TreePath};
use sha1::{Digest as _, Sha1};
use std::collections::BTreeSet;

/// dpkg's database. What lies here is the record of the packages, and none of their files.
const DATABASE: &str = "var/lib/dpkg";
/// The largest sparse file that is read, in bytes: its holes cost whoever made it nothing.
const SPARSE_MAX: u64 = 4 << 30;
/// How much of a file is read at a time.
const PIECE: u64 = 1 << 20;

/// What a tree holds.
pub(super) struct Inventory {
    /// What the tree is called.
    pub(super) name: String,
    /// The digest of the tree.
    pub(super) tree: Digest,
    /// The newest time in the tree, as RFC 3339 in whole seconds.
    pub(super) time: String,
    /// `ID` and `VERSION_ID` of os-release(5); where it has no number yet, `VERSION_CODENAME`.
    pub(super) system: (String, String),
    /// By name and architecture.
    pub(super) packages: Vec<Item>,
    /// Regular files that are of no package, in the order of their paths.
    pub(super) files: Vec<Loose>,
}

/// A package.
pub(super) struct Item {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    /// Name and version of what it was built from.
    pub(super) source: (String, String),
    pub(super) maintainer: String,
    pub(super) summary: String,
    pub(super) licences: Licences,
}

/// A file of no package.
pub(super) struct Loose {
    /// Bytes that are not UTF-8 are escaped.
    pub(super) path: String,
    pub(super) sha256: Digest,
    /// SPDX wants it.
    pub(super) sha1: String,
}

impl Inventory {
    pub(super) fn read(stage: &Stage, name: &str) -> Result<Inventory> {
        let status = stage.read_text(&TreePath::new(DATABASE)?.join("status")?)?.unwrap_or_default();
        let status =
            Packages::parse(status).map_err(|error| BuildError::Packages(format!("/{DATABASE}/status: {error}")))?;
        let mut packages = Vec::new();
        let mut owned = BTreeSet::new();
        for package in status
            .iter()
            .filter(|it| it.state().is_some_and(|state| state != "not-installed" && state != "config-files"))
        {
            owned_files(stage, &package, &mut owned)?;
            packages.push(item(stage, &package)?);
        }
        packages.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
        let release = match stage.read_text(&TreePath::new("etc/os-release")?)? {
            Some(text) => text,
            None => stage.read_text(&TreePath::new("usr/lib/os-release")?)?.unwrap_or_default(),
        };
        let value = |key: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        let number = value("VERSION_ID");
        Ok(Inventory {
            name: name.to_owned(),
            tree: stage.tree.digest(),
            time: stage.date.whole_seconds().to_string(),
            system: (value("ID"), if number.is_empty() { value("VERSION_CODENAME") } else { number }),
            packages,
            files: loose(stage, &owned)?,
        })
    }
}

fn item(stage: &Stage, package: &Package<'_>) -> Result<Item> {
    // `Source: name (version)`, where either differs from the package's own.
    let source = package.get("Source").unwrap_or(package.name);
    let (source, version) = match source.split_once(' ') {
        Some((name, version)) => (name, version.trim_matches(['(', ')', ' '])),
        None => (source, package.version),
    };
    let path = TreePath::new(format!("usr/share/doc/{}/copyright", package.name))?;
    // A name that leads nowhere, or a directory, is no copyright file.
    let copyright = stage.read_text(&path).ok().flatten().unwrap_or_default();
    Ok(Item {
        name: package.name.to_owned(),
        version: package.version.to_owned(),
        architecture: package.architecture.to_owned(),
        source: (source.to_owned(), version.to_owned()),
        maintainer: package.get("Maintainer").unwrap_or_default().to_owned(),
        summary: package.get("Description").and_then(|it| it.lines().next()).unwrap_or_default().to_owned(),
        licences: licences(&copyright),
    })
}

/// Adds what a package has put into the tree: its list, where its directories really are.
fn owned_files(stage: &Stage, package: &Package<'_>, owned: &mut BTreeSet<TreePath>) -> Result<()> {
    let info = TreePath::new(DATABASE)?.join("info")?;
    let names = [format!("{}:{}.list", package.name, package.architecture), format!("{}.list", package.name)];
    for name in names {
        let Some(bytes) = stage.read(&info.join(&name)?)? else { continue };
        for line in bytes.split(|byte| *byte == b'\n') {
            let Ok(path) = TreePath::new(line.strip_prefix(b"/").unwrap_or(line)) else { continue };
            // A list may name what is not there any more, below what is no directory.
            owned.insert(stage.place(&path).unwrap_or(path));
        }
        break;
    }
    Ok(())
}

fn loose(stage: &Stage, owned: &BTreeSet<TreePath>) -> Result<Vec<Loose>> {
    let database = TreePath::new(DATABASE)?;
    let mut files = Vec::new();
    let mut buffer = vec![0; PIECE as usize];
    for (path, _, inode) in stage.tree.iter() {
        let Inode { kind: Kind::File(content), .. } = inode else { continue };
        if owned.contains(path) || path.starts_with(&database) {
            continue;
        }
        let (mut hasher, mut offset) = (Sha1::new(), 0);
        if content.sparse.is_some() && content.size > SPARSE_MAX {
            continue;
        }
        // The digest of a sparse content is that of its form in an archive.
        let mut whole = content.sparse.is_some().then(Hasher::new);
        while offset < content.size {
            let length = PIECE.min(content.size - offset);
            let Some(piece) = buffer.get_mut(..length as usize) else { break };
            stage.contents().read_at(content, offset, piece)?;
            hasher.update(&piece);
            if let Some(whole) = &mut whole {
                whole.update(piece);
            }
            offset += length;
        }
        let sha256 = whole.map_or(content.digest, Hasher::finish);
        let sha1 = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let path = match str::from_utf8(path.as_bytes()) {
            Ok(text) => text.to_owned(),
            Err(_) => path.as_bytes().escape_ascii().to_string(),
        };
        files.push(Loose { path, sha256, sha1 });
    }
    Ok(files)
}
