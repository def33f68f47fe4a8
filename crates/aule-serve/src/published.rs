//! A build that is published: its boot files, its root filesystem and its seed, which always come from one digest.

use crate::export::Export;
use aule_store::{
    Build, Reference, Result, Store, StoreError,
    artifact::{TEMPLATES, types},
    layer::Contents,
    oci::{Descriptor, TITLE},
};
use aule_tree::{Content, Digest, Tree, TreePath};
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
}

/// The files of the boot partition.
#[derive(Debug)]
pub struct BootFiles {
    contents: Contents,
    /// By their paths in lower case, as FAT knows no case.
    files: HashMap<Vec<u8>, BootFile>,
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
        Ok(Published { digest: build.descriptor.digest, root, boot, seed, seed_digest })
    }
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
            let file = BootFile { path: path.clone(), content, template: templates.contains(path) };
            Some((path.as_bytes().to_ascii_lowercase(), file))
        });
        Ok(Some(BootFiles { files: files.collect(), contents, image: of_type(types::FAT_IMAGE).cloned() }))
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

    /// Where the bytes of the files lie.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The files that are rendered for each node, in the order of their paths.
    pub fn templates(&self) -> Vec<&BootFile> {
        let mut templates: Vec<_> = self.files.values().filter(|file| file.template).collect();
        templates.sort_by(|a, b| a.path.cmp(&b.path));
        templates
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
