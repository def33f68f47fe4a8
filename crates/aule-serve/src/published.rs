//! A build that is published: its boot files, its root filesystem and its seed, which always come from one digest.

use crate::export::Export;
use aule_store::{
    Build, DOCUMENT_MAX, Reference, Result, Store, StoreError,
    artifact::{TEMPLATES, types},
    layer::Contents,
    oci::{Descriptor, Manifest, TITLE, media_type},
};
use aule_tree::{Content, Digest, Timestamp, Tree, TreePath};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// The largest document of a seed that is read.
const SEED_MAX: u64 = 4 << 20;

/// A build, opened.
#[derive(Debug)]
pub struct Published {
    /// The digest of its index.
    pub digest: Digest,
    /// Its root filesystem.
    pub root: Arc<Export>,
    /// Its boot files, where it has them.
    pub boot: Option<BootFiles>,
    /// The documents of its seed by their names, before any value of a node.
    pub seed: BTreeMap<String, Vec<u8>>,
    /// The digest of the seed artifact.
    pub seed_digest: Option<Digest>,
    /// Every blob that the build consists of, its index among them: its type and size.
    pub blobs: BTreeMap<Digest, Blob>,
}

/// A blob of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it is an index or a manifest, which the pull API gives by another address.
    pub is_manifest: bool,
}

/// The files of the boot partition.
#[derive(Debug)]
pub struct BootFiles {
    contents: Contents,
    /// By their paths in lower case, as FAT knows no case.
    files: HashMap<Vec<u8>, BootFile>,
    /// With the times at which they were changed last.
    directories: Vec<(TreePath, Timestamp)>,
    /// The FAT image.
    pub image: Option<Descriptor>,
}

/// A file of the boot partition.
#[derive(Debug, Clone)]
pub struct BootFile {
    /// As it is written in the tree.
    pub path: TreePath,
    /// Its bytes.
    pub content: Content,
    /// When it was changed last.
    pub mtime: Timestamp,
    /// Whether it is rendered for each node.
    pub template: bool,
}

impl Published {
    /// Opens what `reference` stands for now.
    ///
    /// # Errors
    /// When there is no such build, or a document or layer of it is missing or damaged.
    pub fn open(store: &Store, reference: &Reference) -> Result<Published> {
        let build = Build::open(store, store.resolve(reference)?)?;
        let root = Arc::new(Export::open(store, &build)?);
        let boot = BootFiles::open(store, &build)?;
        let mut seed = BTreeMap::new();
        for document in build.artifact_manifest(store, "seed")?.iter().flat_map(|it| &it.layers) {
            let bytes = store.read_blob(document.digest, SEED_MAX, "a document of a seed")?;
            seed.insert(document.annotations.get(TITLE).cloned().unwrap_or_default(), bytes);
        }
        let seed_digest = build.artifact("seed").map(|it| it.digest);
        let blobs = blobs(store, &build)?;
        Ok(Published { digest: build.descriptor.digest, root, boot, seed, seed_digest, blobs })
    }
}

/// Every blob of a build.
fn blobs(store: &Store, build: &Build) -> Result<BTreeMap<Digest, Blob>> {
    let index = store.read_blob(build.descriptor.digest, DOCUMENT_MAX, "an index")?;
    let of = |it: &Descriptor, is_manifest| {
        (it.digest, Blob { media_type: it.media_type.clone(), size: it.size, is_manifest })
    };
    let whole = Blob { media_type: media_type::INDEX.into(), size: index.len() as u64, is_manifest: true };
    let mut blobs = BTreeMap::from([(build.descriptor.digest, whole)]);
    let referrers = store.referrers(build.descriptor.digest)?;
    for descriptor in build.index.manifests.iter().chain(&referrers) {
        blobs.extend([of(descriptor, true)]);
        let manifest: Manifest = store.read_document(descriptor.digest)?;
        blobs.extend(manifest.layers.iter().chain([&manifest.config]).map(|it| of(it, false)));
    }
    Ok(blobs)
}

impl BootFiles {
    fn open(store: &Store, build: &Build) -> Result<Option<BootFiles>> {
        let Some(manifest) = build.artifact_manifest(store, "boot")? else { return Ok(None) };
        let of_type = |wanted: &str| manifest.layers.iter().find(|it| it.media_type == wanted);
        let archive = of_type(types::BOOT_ARCHIVE).ok_or_else(|| StoreError::NotAStore {
            path: build.descriptor.digest.to_string().into(),
            reason: "its boot artifact has no archive, so nothing of it can be served".into(),
        })?;
        let (tree, contents) = Contents::open(store, &[archive.digest])?;
        let named = manifest.annotations.get(TEMPLATES).map(String::as_str).unwrap_or_default();
        let templates: HashSet<TreePath> = named.lines().filter_map(|path| below_mount(&tree, path)).collect();
        let files = tree.iter().filter_map(|(path, _, inode)| {
            let content = inode.content()?.clone();
            let mtime = inode.metadata.mtime;
            let file = BootFile { path: path.clone(), content, mtime, template: templates.contains(path) };
            Some((path.as_bytes().to_ascii_lowercase(), file))
        });
        let directories = tree.iter().filter(|(path, _, inode)| inode.is_directory() && !path.is_root());
        let directories = directories.map(|(path, _, inode)| (path.clone(), inode.metadata.mtime)).collect();
        let image = of_type(types::FAT_IMAGE).cloned();
        Ok(Some(BootFiles { files: files.collect(), directories, contents, image }))
    }

    /// The file of this name, whatever its case.
    pub fn find(&self, name: &[u8]) -> Option<&BootFile> {
        let path = TreePath::new(name).ok()?;
        self.files.get(&path.as_bytes().to_ascii_lowercase())
    }

    /// Whether some file lies in this directory.
    pub fn has_directory(&self, name: &[u8]) -> bool {
        let prefix = [name.to_ascii_lowercase().as_slice(), b"/"].concat();
        self.files.keys().any(|path| path.starts_with(&prefix))
    }

    /// All directories but the root, in the order of their paths, with the times at which they were changed last.
    pub fn directories(&self) -> &[(TreePath, Timestamp)] {
        &self.directories
    }

    /// Where the bytes of the files lie.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// All files, in the order of their paths.
    pub fn sorted(&self) -> Vec<&BootFile> {
        let mut files: Vec<_> = self.files.values().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }
}

/// A path of the root filesystem as one of the boot partition, wherever that is mounted.
fn below_mount(tree: &Tree, path: &str) -> Option<TreePath> {
    let path = TreePath::new(path).ok()?;
    let names: Vec<&[u8]> = path.components().collect();
    (0..names.len()).find_map(|from| {
        let path = TreePath::new(names.get(from..)?.join(&b'/')).ok()?;
        tree.get(&path).filter(|inode| inode.content().is_some())?;
        Some(path)
    })
}
