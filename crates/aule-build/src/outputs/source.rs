//! The `source` artifact: everything that a build needs to be made again, but for the base layer, which the build holds.
//!
//! The `.deb` files of its packages, and an archive with `recipe.json` (canonical), `lock`, `base.json`, `inputs.json` and the local inputs below `inputs/`.
//! Modes are normalised and times zero, as they have no say in a build.

use crate::{
    BuildError, Result,
    import::BaseInfo,
    inputs::{Bytes, InputEntry, InputKind, Inputs},
    outputs::artifact::{self, types},
    stage::LayerRecord,
};
use aule_recipe::{FileKind, LocalPath, LockedPackage, Recipe};
use aule_store::{
    Build, Store,
    layer::{ArchiveOptions, ArchiveWriter, Contents},
    oci::{Annotations, Descriptor},
};
use aule_tree::{Digest, Inode, Kind, LayerEntry, Metadata, Timestamp, Tree, TreePath, What};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

/// The base as a build remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceBase {
    pub(crate) layer: LayerRecord,
    pub(crate) info: BaseInfo,
}

/// Where each local input lies in the archive, by the name that the recipe gives it.
type InputNames = BTreeMap<String, String>;

/// What a source holds beside the inputs.
pub(crate) struct Source {
    pub(crate) recipe: Recipe,
    pub(crate) variant: String,
    pub(crate) lock: Vec<u8>,
    pub(crate) base: SourceBase,
}

#[derive(Serialize, Deserialize)]
struct Header {
    variant: String,
    base: SourceBase,
    inputs: InputNames,
}

/// The local inputs that go into the artifact: overlays, files and documents, but not the base image, which stands in the
/// base layer, nor what it was verified with.
fn kept_inputs(recipe: &Recipe) -> Vec<&LocalPath> {
    let mut kept: Vec<&LocalPath> = recipe.overlays.iter().chain(file_sources(recipe)).collect();
    kept.extend(recipe.cloud_init.documents().filter_map(|document| document.as_local()));
    kept.sort();
    kept.dedup();
    kept
}

fn file_sources(recipe: &Recipe) -> impl Iterator<Item = &LocalPath> {
    recipe.files.values().filter_map(|entry| match &entry.kind {
        FileKind::Source(local) => Some(local),
        _ => None,
    })
}

/// Writes the artifact.
pub(crate) fn make(
    store: &Store,
    source: &Source,
    inputs: &dyn Inputs,
    packages: &BTreeSet<&LockedPackage>,
    jobs: usize,
) -> Result<Descriptor> {
    let overlays: Vec<&LocalPath> = source.recipe.overlays.iter().collect();
    let names: InputNames = kept_inputs(&source.recipe)
        .into_iter()
        .enumerate()
        .map(|(number, input)| (input.name().to_owned(), format!("inputs/{number}")))
        .collect();
    let header = Header { variant: source.variant.clone(), base: source.base.clone(), inputs: names.clone() };
    let header =
        serde_json::to_vec_pretty(&header).map_err(|_| BuildError::Internal("the source cannot be written as JSON"))?;
    let recipe = aule_recipe::canonical(&source.recipe);

    let options = ArchiveOptions { jobs, table: true, diff_id: false };
    let mut expected = BTreeMap::new();
    let archive = ArchiveWriter::write(store, options, |writer| {
        put_directory(writer, &TreePath::root())?;
        // Canonical order: "inputs" < "lock" < "recipe.json" < "source.json".
        put_directory(writer, &TreePath::new("inputs")?)?;
        for input in kept_inputs(&source.recipe) {
            let Some(place) = names.get(input.name()) else { continue };
            let place = TreePath::new(place)?;
            let failed = |source| BuildError::ReadInput { path: place.clone(), source };
            if overlays.contains(&input) {
                put_directory(writer, &place)?;
                let mut entries = inputs.directory(input).map_err(failed)?;
                entries.sort_by(|a, b| TreePath::new(&a.path).ok().cmp(&TreePath::new(&b.path).ok()));
                for entry in entries {
                    put(writer, &mut expected, &place.join(&entry.path)?, &entry.kind)?;
                }
            } else {
                let mut kind = inputs.file(input).map_err(failed)?;
                // Whether a document may be executed changes nothing.
                if let InputKind::File { executable, .. } = &mut kind {
                    *executable &= file_sources(&source.recipe).any(|it| it == input);
                }
                put(writer, &mut expected, &place, &kind)?;
            }
        }
        for (name, bytes) in [("lock", &source.lock), ("recipe.json", &recipe), ("source.json", &header)] {
            let metadata = Metadata::root_owned(0o644, Timestamp::default());
            writer.file(TreePath::new(name)?, metadata, bytes.len() as u64, None, &mut bytes.as_slice())?;
        }
        Ok::<_, BuildError>(())
    })?;
    for entry in archive.table.entries.iter().map(|it| &it.entry) {
        if let (Some(digest), What::Node(inode)) = (expected.get(&entry.path), &entry.what)
            && inode.content().is_none_or(|content| content.digest != *digest)
        {
            return Err(BuildError::InputChanged(entry.path.clone()));
        }
    }
    let mut files = vec![artifact::file(types::SOURCE_ARCHIVE, "source.tar.zst", archive.digest, archive.size)];
    // Mirrors drop them; the build goes on having what it was made of.
    for package in packages {
        let name = format!("{}_{}_{}.deb", package.name, package.version.replace(':', "%3a"), package.architecture);
        files.push(artifact::file(types::DEBIAN_PACKAGE, &name, Digest::from_bytes(package.sha256.0), package.size));
    }
    artifact::put(store, "source", types::SOURCE, files, Annotations::new(), None)
}

fn put_directory(writer: &mut ArchiveWriter, path: &TreePath) -> Result<()> {
    let inode = Inode { metadata: Metadata::root_owned(0o755, Timestamp::default()), kind: Kind::Directory };
    Ok(writer.entry(LayerEntry { path: path.clone(), what: What::Node(inode) })?)
}

/// Puts an input in the archive, and notes what its bytes should be.
fn put(
    writer: &mut ArchiveWriter,
    expected: &mut BTreeMap<TreePath, Digest>,
    path: &TreePath,
    kind: &InputKind,
) -> Result<()> {
    let metadata = |mode| Metadata::root_owned(mode, Timestamp::default());
    match kind {
        InputKind::Directory => put_directory(writer, path),
        InputKind::Symlink(target) => {
            let inode = Inode { metadata: metadata(0o777), kind: Kind::Symlink(target.clone()) };
            Ok(writer.entry(LayerEntry { path: path.clone(), what: What::Node(inode) })?)
        }
        InputKind::File { bytes, executable } => {
            let failed = |source| BuildError::ReadInput { path: path.clone(), source };
            let (digest, size) = bytes.digest().map_err(failed)?;
            expected.insert(path.clone(), digest);
            let mode = if *executable { 0o755 } else { 0o644 };
            let mut reader = bytes.open().map_err(failed)?;
            Ok(writer.file(path.clone(), metadata(mode), size, None, &mut reader)?)
        }
    }
}

/// The inputs of an earlier build, read from its source artifact.
pub(crate) struct ArchivedInputs {
    tree: Tree,
    contents: Contents,
    names: InputNames,
}

/// The largest single input that is read back.
const INPUT_MAX: u64 = 1 << 30;

/// Opens the source artifact of a build.
pub(crate) fn open(store: &Store, build: &Build) -> Result<(Source, ArchivedInputs)> {
    let broken = |reason: &str| BuildError::NotABuild(build.descriptor.digest, reason.into());
    let manifest = build.artifact_manifest(store, "source")?.ok_or_else(|| broken("it has no `source` artifact"))?;
    let archive = manifest.layers.first().ok_or_else(|| broken("its `source` artifact is empty"))?;
    let (tree, contents) = Contents::open(store, &[archive.digest])?;
    let read = |name: &str| -> Result<Vec<u8>> {
        let content = tree.get(&TreePath::new(name)?).and_then(Inode::content).cloned();
        let content = content.ok_or_else(|| broken(&format!("its source lacks `{name}`")))?;
        Ok(contents.read(&content, INPUT_MAX)?)
    };
    let header: Header =
        serde_json::from_slice(&read("source.json")?).map_err(|error| broken(&format!("source.json: {error}")))?;
    let recipe = aule_recipe::from_canonical(&read("recipe.json")?)?;
    let lock = read("lock")?;
    let source = Source { recipe, variant: header.variant, lock, base: header.base };
    Ok((source, ArchivedInputs { tree, contents, names: header.inputs }))
}

impl ArchivedInputs {
    fn place(&self, path: &LocalPath) -> io::Result<TreePath> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the source of the build does not have it");
        TreePath::new(self.names.get(path.name()).ok_or_else(missing)?).map_err(io::Error::other)
    }

    fn kind(&self, inode: &Inode) -> io::Result<InputKind> {
        Ok(match &inode.kind {
            Kind::Directory => InputKind::Directory,
            Kind::Symlink(target) => InputKind::Symlink(target.clone()),
            Kind::File(content) => InputKind::File {
                bytes: Bytes::Memory(self.contents.read(content, INPUT_MAX).map_err(io::Error::other)?.into()),
                executable: inode.metadata.mode & 0o100 != 0,
            },
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "an input is a device")),
        })
    }
}

impl Inputs for ArchivedInputs {
    fn file(&self, path: &LocalPath) -> io::Result<InputKind> {
        match self.tree.get(&self.place(path)?) {
            Some(inode) => self.kind(inode),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn directory(&self, path: &LocalPath) -> io::Result<Vec<InputEntry>> {
        let top = self.place(path)?;
        let mut entries = Vec::new();
        for (path, _, inode) in self.tree.subtree(&top) {
            if let Some(inner) = path.strip_prefix(&top).filter(|inner| !inner.is_root()) {
                entries.push(InputEntry { path: inner.as_bytes().to_vec(), kind: self.kind(inode)? });
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }
}

/// Whether the recipe fetches files, whose bytes stand in the layers only.
pub(crate) fn fetches(recipe: &Recipe) -> bool {
    recipe.files.values().any(|entry| matches!(entry.kind, FileKind::Url { .. }))
}
