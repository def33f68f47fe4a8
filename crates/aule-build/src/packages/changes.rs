//! From what a sandbox says that changed to the tree: what is the same stays as it was, and no time of the installation
//! is left.

use super::normal::{
    holds_private_key, is_command_line, is_left_out, is_machine_key, leads_to_machine_key, may_be_drawn,
};
use crate::{BuildError, BuildRequest, Result, inputs::Bytes, stage::Stage};
use aule_sandbox::{Entry, What};
use aule_store::Store;
use aule_tree::{Inode, Kind, Metadata, Timestamp, TreePath};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

/// Where dpkg has a list of the files of each package.
const LISTS: &str = "var/lib/dpkg/info";

/// Takes changes, one after the other, and makes them in the tree.
pub(super) struct Changes<'a> {
    stage: &'a mut Stage,
    store: &'a Store,
    /// When it began: what is newer was made meanwhile.
    began: Option<Timestamp>,
    origin: &'static str,
    /// Where the boot partition is mounted.
    boot_mount: Option<&'a TreePath>,
    /// Directories that the sandbox touched, with what they have now but for the time.
    directories: BTreeMap<TreePath, Metadata>,
    /// Names of directories as they were, of those that were there.
    names: BTreeMap<TreePath, BTreeSet<Vec<u8>>>,
    /// Files of the base that came again.
    touched: BTreeSet<TreePath>,
    /// What was left out: the first of their other names has what they had, the others are names of that one.
    left_out: BTreeMap<TreePath, LeftOut>,
    /// Keys of one machine that were left out.
    keys: Vec<TreePath>,
    /// New files that hold a private key; where no package brings them, somebody drew it.
    drawn: BTreeSet<TreePath>,
    /// How many changes there were.
    count: usize,
}

/// The most changes that are taken: all of them are in memory at the end.
const CHANGES_MAX: usize = 4_000_000;

/// What was left out: a file, or what else may have several names.
struct LeftOut {
    metadata: Metadata,
    kind: Kind,
    bytes: Option<Bytes>,
    /// Which of its other names is the file now.
    place: Option<TreePath>,
    /// It is a key, of which no other name stays either.
    is_key: bool,
}

impl<'a> Changes<'a> {
    pub(super) fn new(
        stage: &'a mut Stage,
        request: &BuildRequest<'a>,
        origin: &'static str,
        boot_mount: Option<&'a TreePath>,
    ) -> Self {
        let (directories, names, touched, left_out, keys, drawn, count) = Default::default();
        let (store, began) = (request.store, request.now);
        Changes { stage, store, began, origin, boot_mount, directories, names, touched, left_out, keys, drawn, count }
    }

    /// One change, with the bytes of a file.
    pub(super) fn take(&mut self, entry: Entry, bytes: &mut dyn Read) -> Result<()> {
        let Entry { path, what } = entry;
        self.count += 1;
        if self.count > CHANGES_MAX {
            return Err(BuildError::Packages(format!("the packages' scripts left more than {CHANGES_MAX} files")));
        }
        let is_key = match &what {
            What::Gone => false,
            What::Symlink { target, .. } => is_machine_key(&path) || leads_to_machine_key(&path, target),
            _ => is_machine_key(&path),
        };
        let is_directory = matches!(what, What::Directory { .. });
        if is_left_out(&path, is_directory) || is_key || is_command_line(&path, self.boot_mount) {
            // (One of the base stays as it was.)
            if is_key && self.stage.tree.get(&path).is_none() && matches!(what, What::File { .. } | What::Link(_)) {
                self.keys.push(path.clone());
            }
            let (metadata, kind, bytes) = match what {
                What::File { metadata, size } => {
                    let (content, bytes) = self.stage.keep(self.store, &path, size, bytes)?;
                    (metadata, Kind::File(content), Some(bytes))
                }
                What::Symlink { metadata, target } => (metadata, Kind::Symlink(target), None),
                What::Fifo { metadata } => (metadata, Kind::Fifo, None),
                What::Link(first) => {
                    if is_key {
                        self.forget(first);
                    }
                    return Ok(());
                }
                What::Directory { .. } | What::Gone => return Ok(()),
            };
            self.left_out.insert(path, LeftOut { metadata, kind, bytes, place: None, is_key });
            return Ok(());
        }
        match what {
            What::Directory { metadata, opaque } => {
                self.directory(&path, metadata, opaque);
                return Ok(());
            }
            What::File { metadata, size } => {
                let (content, bytes) = self.stage.keep(self.store, &path, size, bytes)?;
                let is_new = self.stage.tree.get(&path).is_none();
                if !is_new {
                    self.touched.insert(path.clone());
                }
                // (A larger one is no key.)
                if is_new && may_be_drawn(&path) && matches!(&bytes, Bytes::Memory(bytes) if holds_private_key(bytes)) {
                    self.drawn.insert(path.clone());
                }
                self.put(&path, metadata, Kind::File(content), Some(bytes));
            }
            What::Symlink { metadata, target } => self.put(&path, metadata, Kind::Symlink(target), None),
            What::Fifo { metadata } => self.put(&path, metadata, Kind::Fifo, None),
            What::Link(first) => {
                let first = match self.left_out.get_mut(&first) {
                    Some(LeftOut { is_key: true, .. }) => {
                        // (One of the base stays as it was.)
                        if self.stage.tree.get(&path).is_none() {
                            self.keys.push(path);
                        }
                        return Ok(());
                    }
                    Some(LeftOut { place: Some(place), .. }) => place.clone(),
                    Some(it) => {
                        it.place = Some(path.clone());
                        let (metadata, kind, bytes) = (it.metadata.clone(), it.kind.clone(), it.bytes.clone());
                        self.put(&path, metadata, kind, bytes);
                        path.clone()
                    }
                    None => first,
                };
                let id = self.stage.tree.id(&first);
                let id = id.ok_or(BuildError::Internal("a name of a file that is not there"))?;
                if self.stage.tree.id(&path) != Some(id) {
                    self.stage.tree.link(&path, id);
                }
            }
            What::Gone => {
                self.stage.tree.remove(&path);
            }
        }
        self.stage.origins.insert(path, self.origin.into());
        Ok(())
    }

    /// What was found by this name first is a key by another one: none of its names stays. (A file of the base does.)
    fn forget(&mut self, first: TreePath) {
        match self.left_out.get_mut(&first) {
            Some(it) => {
                it.is_key = true;
                self.drawn.extend(it.place.take());
            }
            None if self.touched.contains(&first) => {}
            None => drop(self.drawn.insert(first)),
        }
    }

    fn directory(&mut self, path: &TreePath, metadata: Metadata, opaque: bool) {
        let is_there = self.stage.tree.get(path).is_some_and(Inode::is_directory);
        if is_there {
            let children = self.stage.tree.children(path).into_iter();
            let children: Vec<TreePath> = children.map(|(path, _)| path.clone()).collect();
            self.names.insert(path.clone(), children.iter().map(|it| it.name().to_vec()).collect());
            if opaque {
                children.iter().filter(|it| !is_left_out(it, false)).for_each(|it| {
                    self.stage.tree.remove(it);
                });
            }
        } else {
            let metadata = Metadata { mtime: self.stage.date, ..metadata.clone() };
            self.stage.tree.insert(path, Inode { metadata, kind: Kind::Directory });
            self.stage.origins.insert(path.clone(), self.origin.into());
        }
        self.directories.insert(path.clone(), metadata);
    }

    /// Puts something; what is the same but for its time stays as it is.
    fn put(&mut self, path: &TreePath, metadata: Metadata, kind: Kind, bytes: Option<Bytes>) {
        let is_new = self.began.is_some_and(|began| metadata.mtime >= began);
        let mtime = if is_new { self.stage.date } else { metadata.mtime.min(self.stage.date) };
        let metadata = Metadata { mtime, ..metadata };
        let same = self.stage.tree.get(path).is_some_and(|there| {
            there.kind == kind && Metadata { mtime: metadata.mtime, ..there.metadata.clone() } == metadata
        });
        if same {
            return;
        }
        if let (Kind::File(content), Some(bytes)) = (&kind, bytes) {
            self.stage.bring(content.digest, bytes);
        }
        self.stage.tree.insert(path, Inode { metadata, kind });
    }

    /// Takes drawn keys out, and puts directories right: one in which nothing came or went, and that is as it was, keeps its time.
    /// Gives the keys that were left out.
    pub(super) fn finish(mut self) -> Result<Vec<TreePath>> {
        let drawn = std::mem::take(&mut self.drawn);
        let links = if drawn.is_empty() { Default::default() } else { self.stage.tree.hardlinks() };
        let with_other_names = |path: TreePath| -> Vec<TreePath> {
            let names = self.stage.tree.id(&path).and_then(|id| links.get(&id));
            names.map_or_else(|| vec![path], |names| names.iter().map(|it| (*it).clone()).collect())
        };
        let drawn: Vec<Vec<TreePath>> = drawn.into_iter().map(with_other_names).collect();
        let of_packages = self.of_packages(&drawn.iter().flatten().collect())?;
        let is_drawn = |names: &Vec<TreePath>| !names.iter().any(|it| of_packages.contains(it));
        for path in drawn.into_iter().filter(is_drawn).flatten() {
            self.stage.tree.remove(&path);
            self.stage.origins.remove(&path);
            self.keys.push(path);
        }
        let date = self.stage.date;
        for (path, metadata) in self.directories {
            let children = self.stage.tree.children(&path).into_iter();
            let names: BTreeSet<Vec<u8>> = children.map(|(path, _)| path.name().to_vec()).collect();
            let same_names = self.names.get(&path) == Some(&names);
            let changed = self.stage.tree.get(&path).is_some_and(|there| {
                !same_names || Metadata { mtime: metadata.mtime, ..there.metadata.clone() } != metadata
            });
            // The root is the directory of the sandbox itself: only its names are looked at.
            if changed && !(path.is_root() && same_names) {
                self.stage.tree.update(&path, |inode| inode.metadata = Metadata { mtime: date, ..metadata });
            }
        }
        Ok(self.keys)
    }

    /// Which of these files a package brings, by dpkg's lists.
    fn of_packages(&self, files: &BTreeSet<&TreePath>) -> Result<BTreeSet<TreePath>> {
        let mut found = BTreeSet::new();
        if files.is_empty() {
            return Ok(found);
        }
        let lists = self.stage.tree.resolve(&TreePath::new(LISTS)?, true)?;
        let children = self.stage.tree.children(&lists).into_iter();
        let lists: Vec<TreePath> = children.map(|(path, _)| path.clone()).collect();
        for list in lists.iter().filter(|it| it.as_bytes().ends_with(b".list")) {
            let Some(bytes) = self.stage.read(list)? else { continue };
            for line in bytes.split(|byte| *byte == b'\n') {
                let Ok(path) = TreePath::new(line.strip_prefix(b"/").unwrap_or(line)) else { continue };
                // A list may name what is not there any more, below what is no directory.
                let place = self.stage.place(&path).unwrap_or(path);
                if files.contains(&place) {
                    found.insert(place);
                }
            }
        }
        Ok(found)
    }
}
