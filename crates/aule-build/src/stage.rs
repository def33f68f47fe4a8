//! The tree while a step changes it, with the contents that it can read and those that the step brings.

use crate::{BuildError, Result, inputs::Bytes};
use aule_store::{
    Store,
    layer::{Archive, ArchiveOptions, ArchiveWriter, Contents},
    oci::{Descriptor, media_type},
};
use aule_tree::{Content, Digest, Hasher, Inode, Kind, LayerEntry, Metadata, Timestamp, Tree, TreePath, What, diff};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Read, Write},
};

/// The largest file of the image that a step reads or edits whole (unit files, passwd, config.txt).
pub(crate) const TEXT_MAX: u64 = 16 << 20;
/// Files up to this size are kept in memory until the layer is written.
const MEMORY_MAX: u64 = 64 << 10;

/// A finished layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Of the blob.
    pub descriptor: Descriptor,
    /// Of the uncompressed tar.
    pub diff_id: Digest,
}

impl LayerRecord {
    /// The record of a layer that was just written.
    pub(crate) fn of(archive: &Archive) -> Result<Self> {
        let diff_id = archive.diff_id.ok_or(BuildError::Internal("a layer was written without its diff id"))?;
        Ok(LayerRecord { descriptor: Descriptor::new(media_type::LAYER, archive.digest, archive.size), diff_id })
    }
}

/// A tree under change.
pub(crate) struct Stage {
    /// As it is now.
    pub(crate) tree: Tree,
    /// As it was when the step began.
    before: Tree,
    contents: Contents,
    fresh: HashMap<Digest, Bytes>,
    /// Files that fresh contents lie in.
    held: Vec<tempfile::TempPath>,
    /// The time of everything that a step makes.
    pub(crate) date: Timestamp,
    /// Which recipe key put or changed each path.
    pub(crate) origins: BTreeMap<TreePath, String>,
    /// Paths that are rendered for each node when they are served.
    pub(crate) templates: Vec<TreePath>,
}

impl Stage {
    /// The tree that `layers` make up.
    pub(crate) fn open(store: &Store, layers: &[LayerRecord], date: Timestamp) -> Result<Self> {
        let digests: Vec<_> = layers.iter().map(|layer| layer.descriptor.digest).collect();
        let (tree, contents) = Contents::open(store, &digests)?;
        Ok(Stage {
            before: tree.clone(),
            tree,
            contents,
            fresh: HashMap::new(),
            held: Vec::new(),
            date,
            origins: BTreeMap::new(),
            templates: Vec::new(),
        })
    }

    /// A tree that is in no layer yet.
    pub(crate) fn begin(tree: Tree, date: Timestamp) -> Self {
        Stage {
            // Whatever it has is a change.
            before: Tree::new(Metadata::root_owned(0, Timestamp::from_seconds(0))),
            tree,
            contents: Contents::default(),
            fresh: HashMap::new(),
            held: Vec::new(),
            date,
            origins: BTreeMap::new(),
            templates: Vec::new(),
        }
    }

    /// Where the contents of the tree as it was committed last lie.
    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Whether the step that is under way has changed nothing.
    pub(crate) fn is_unchanged(&self) -> bool {
        diff(&self.before, &self.tree).entries.is_empty()
    }

    /// Begins the next step from here, without a layer of the one before.
    pub(crate) fn go_on(&mut self) {
        self.before = self.tree.clone();
    }

    /// Reads a file, following symlinks; `None` when there is none.
    pub(crate) fn read(&self, path: &TreePath) -> Result<Option<Vec<u8>>> {
        let path = self.tree.resolve(path, true)?;
        let Some(content) = self.tree.get(&path).and_then(Inode::content) else { return Ok(None) };
        match self.fresh.get(&content.digest) {
            Some(bytes) => bytes.read(TEXT_MAX).map(Some).map_err(|source| BuildError::ReadFile { path, source }),
            None => Ok(Some(self.contents.read(content, TEXT_MAX)?)),
        }
    }

    /// Reads a file as text; bytes that are not UTF-8 are replaced.
    pub(crate) fn read_text(&self, path: &TreePath) -> Result<Option<String>> {
        Ok(self.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Whether something is at `path`, symlinks followed.
    pub(crate) fn exists(&self, path: &TreePath) -> Result<bool> {
        let path = self.tree.resolve(path, true)?;
        Ok(self.tree.get(&path).is_some())
    }

    /// Where `path` really lies when something is put there: directory symlinks are followed, the last name is not.
    pub(crate) fn place(&self, path: &TreePath) -> Result<TreePath> {
        Ok(self.tree.resolve(path, false)?)
    }

    /// The nearest thing above `path` when that is no directory: nothing can be put there then.
    pub(crate) fn blocked_by(&self, path: &TreePath) -> Result<Option<TreePath>> {
        let mut above = self.place(path)?.parent();
        while let Some(path) = above {
            if let Some(inode) = self.tree.get(&path) {
                return Ok((!inode.is_directory()).then_some(path));
            }
            above = path.parent();
        }
        Ok(None)
    }

    /// Puts a file. A file whose content and metadata are the same already stays as it is, with its time.
    pub(crate) fn put_file(
        &mut self,
        path: &TreePath,
        bytes: Bytes,
        metadata: Metadata,
        origin: &str,
    ) -> Result<TreePath> {
        let place = self.place(path)?;
        let failed = |source| BuildError::ReadInput { path: place.clone(), source };
        let (digest, size) = bytes.digest().map_err(failed)?;
        let content = Content { digest, size, sparse: None };
        let same = self.tree.get(&place).is_some_and(|there| {
            there.content() == Some(&content)
                && Metadata { mtime: metadata.mtime, ..there.metadata.clone() } == metadata
        });
        if !same {
            self.bring(digest, bytes);
            self.tree.insert(&place, Inode { metadata, kind: Kind::File(content) });
        }
        self.origins.insert(place.clone(), origin.into());
        Ok(place)
    }

    /// Puts a file of root with these bytes; one that is there keeps its mode and owner.
    pub(crate) fn put_text(&mut self, path: &TreePath, text: &[u8], mode: u16, origin: &str) -> Result<TreePath> {
        let place = self.place(path)?;
        let metadata = match self.tree.get(&place) {
            Some(Inode { metadata, kind: Kind::File(_) }) => Metadata { mtime: self.date, ..metadata.clone() },
            _ => Metadata::root_owned(mode, self.date),
        };
        self.put_file(&place, Bytes::Memory(text.into()), metadata, origin)
    }

    /// Brings a content that something in the tree is about to have.
    pub(crate) fn bring(&mut self, digest: Digest, bytes: Bytes) {
        if !self.contents.has(digest) {
            self.fresh.insert(digest, bytes);
        }
    }

    /// Reads a file that something in the tree is about to have, into memory where it is small, else to a file that is kept
    /// until the layer is written. [`Stage::bring`] takes what this gives.
    pub(crate) fn keep(
        &mut self,
        store: &Store,
        path: &TreePath,
        size: u64,
        bytes: &mut dyn Read,
    ) -> Result<(Content, Bytes)> {
        let failed = |source: io::Error| BuildError::ReadFile { path: path.clone(), source };
        if size <= MEMORY_MAX {
            let mut memory = Vec::new();
            bytes.take(MEMORY_MAX + 1).read_to_end(&mut memory).map_err(failed)?;
            let content = Content { digest: Digest::of(&memory), size: memory.len() as u64, sparse: None };
            return Ok((content, Bytes::Memory(memory.into())));
        }
        let mut file = io::BufWriter::new(store.temporary_file()?);
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        let mut length = 0;
        loop {
            let read = bytes.read(&mut buffer).map_err(failed)?;
            if read == 0 {
                break;
            }
            let piece = buffer.get(..read).unwrap_or_default();
            hasher.update(piece);
            file.write_all(piece).map_err(failed)?;
            length += read as u64;
        }
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        let path = file.into_temp_path();
        let bytes = Bytes::of_file(path.to_path_buf());
        self.held.push(path);
        Ok((Content { digest: hasher.finish(), size: length, sparse: None }, bytes))
    }

    /// Puts a symlink, a directory, or whatever else has no content.
    pub(crate) fn put(&mut self, path: &TreePath, inode: Inode, origin: &str) -> Result<TreePath> {
        let place = self.place(path)?;
        let same = self.tree.get(&place).is_some_and(|there| {
            there.kind == inode.kind
                && Metadata { mtime: inode.metadata.mtime, ..there.metadata.clone() } == inode.metadata
        });
        if !same {
            self.tree.insert(&place, inode);
        }
        self.origins.insert(place.clone(), origin.into());
        Ok(place)
    }

    /// Puts a symlink of root.
    pub(crate) fn put_symlink(&mut self, path: &TreePath, target: &[u8], origin: &str) -> Result<TreePath> {
        let kind = Kind::Symlink(target.to_vec());
        self.put(path, Inode { metadata: Metadata::root_owned(0o777, self.date), kind }, origin)
    }

    /// Removes what is at `path`, with all below it; says whether there was anything.
    pub(crate) fn remove(&mut self, path: &TreePath, origin: &str) -> Result<bool> {
        let place = self.place(path)?;
        let removed = self.tree.remove(&place);
        if removed {
            self.origins.insert(place, origin.into());
        }
        Ok(removed)
    }

    /// Writes what changed since the step began as a layer, and begins the next step from here. Nothing changed: no
    /// layer.
    pub(crate) fn commit(&mut self, store: &Store, jobs: usize) -> Result<Option<LayerRecord>> {
        let layer = diff(&self.before, &self.tree);
        if layer.entries.is_empty() {
            return Ok(None);
        }
        let options = ArchiveOptions { jobs, table: true, diff_id: true };
        let archive = ArchiveWriter::write(store, options, |writer| {
            layer.entries.into_iter().try_for_each(|entry| self.write(writer, entry))
        })?;
        for (path, content) in archive.table.entries.iter().filter_map(|it| content_of(&it.entry)) {
            if self.tree.get(path).and_then(Inode::content) != Some(content) {
                return Err(BuildError::InputChanged(path.clone()));
            }
        }
        self.contents.add(store, archive.digest, &archive.table)?;
        self.fresh.clear();
        self.held.clear();
        self.before = self.tree.clone();
        LayerRecord::of(&archive).map(Some)
    }

    fn write(&self, writer: &mut ArchiveWriter, entry: LayerEntry) -> Result<()> {
        let LayerEntry { path, what: What::Node(Inode { metadata, kind: Kind::File(content) }) } = entry else {
            return Ok(writer.entry(entry)?);
        };
        match self.fresh.get(&content.digest) {
            Some(bytes) => {
                let failed = |source| BuildError::ReadInput { path: path.clone(), source };
                let mut reader = bytes.open().map_err(failed)?;
                Ok(writer.file(path.clone(), metadata, content.size, None, &mut reader)?)
            }
            None => {
                self.contents.check(&content)?;
                Ok(writer.copy_file(path, metadata, &content, &self.contents)?)
            }
        }
    }
}

fn content_of(entry: &LayerEntry) -> Option<(&TreePath, &Content)> {
    match &entry.what {
        What::Node(inode) => Some((&entry.path, inode.content()?)),
        _ => None,
    }
}

/// Flattens a tree into one archive, copying the frames of its contents.
pub(crate) fn flatten(store: &Store, tree: &Tree, contents: &Contents, options: ArchiveOptions) -> Result<Archive> {
    let links = tree.hardlinks();
    contents.check_all(store, tree.contents().into_iter())?;
    ArchiveWriter::write(store, options, |writer| {
        for (path, id, inode) in tree.iter() {
            let first = links.get(&id).and_then(|names| names.first()).filter(|first| **first != path);
            match (first, &inode.kind) {
                (Some(first), _) => {
                    writer.entry(LayerEntry { path: path.clone(), what: What::Link((*first).clone()) })?;
                }
                (None, Kind::File(content)) => {
                    writer.copy_file(path.clone(), inode.metadata.clone(), content, contents)?;
                }
                (None, _) => writer.entry(LayerEntry { path: path.clone(), what: What::Node(inode.clone()) })?,
            }
        }
        Ok(())
    })
}
