//! `aule size`: where the bytes of a build are, by directory and by layer.

use super::{
    open, step_names,
    text::{self, Columns, Side},
};
use crate::{
    failure::Failure,
    output::{self, Format},
};
use aule_store::{Build, Store, StoreError, layer::LayerTable};
use aule_tree::{Content, Digest, Layer, Metadata, Timestamp, Tree, TreePath, What};
use std::collections::{BTreeMap, HashMap, HashSet};

#[derive(serde::Serialize)]
struct Sizes<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    digest: Digest,
    layers: Vec<LayerSize>,
    /// The largest first.
    directories: Vec<DirectorySize>,
    /// How many directories were left out.
    omitted: usize,
    total: LayerSize,
}

/// Bytes of a layer, or of all.
#[derive(Default, Clone, serde::Serialize)]
struct LayerSize {
    step: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    /// Of the blob.
    compressed: u64,
    /// Of the contents of files that are seen in the finished root; holes count for nothing, a hardlinked file once.
    visible: u64,
    /// Of the contents that a higher layer replaces or removes.
    hidden: u64,
}

#[derive(serde::Serialize)]
struct DirectorySize {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    /// By layer, the lowest first.
    layers: Vec<u64>,
    total: u64,
}

/// Shows the largest directories down to `depth` names, and the layers.
pub(super) fn run(store: &Store, reference: &str, top: usize, depth: usize, format: Format) -> Result<(), Failure> {
    let build = open(store, reference)?;
    let (layers, directories) = measure(store, &build, depth)?;
    let mut directories: Vec<(TreePath, Vec<u64>, u64)> =
        directories.into_iter().map(|(path, sizes)| (path, sizes.clone(), sizes.iter().sum())).collect();
    // The largest first; of the same size in the order of their paths, which the map gave.
    directories.sort_by_key(|(_, _, total)| std::cmp::Reverse(*total));
    let omitted = directories.len().saturating_sub(top);
    directories.truncate(top);
    let total = layers.iter().fold(LayerSize { step: "total".into(), ..LayerSize::default() }, |sum, it| LayerSize {
        compressed: sum.compressed + it.compressed,
        visible: sum.visible + it.visible,
        hidden: sum.hidden + it.hidden,
        ..sum
    });
    let directories = directories.into_iter().map(|(path, layers, total)| {
        let (path, path_hex) = text::for_json(&[b"/", path.as_bytes()].concat());
        DirectorySize { path, path_hex, layers, total }
    });
    let sizes = Sizes {
        reference,
        digest: build.descriptor.digest,
        layers,
        directories: directories.collect(),
        omitted,
        total,
    };
    match format {
        Format::Json => output::json(&sizes),
        Format::Text => show(&sizes),
    }
}

/// For each directory its bytes in each layer, the lowest first.
type DirectoryBytes = BTreeMap<TreePath, Vec<u64>>;

/// The sizes of the layers and of the directories down to `depth` names.
fn measure(store: &Store, build: &Build, depth: usize) -> Result<(Vec<LayerSize>, DirectoryBytes), Failure> {
    let mut tree = Tree::new(Metadata::root_owned(0o755, Timestamp::default()));
    let mut owners: HashMap<TreePath, usize> = HashMap::new();
    let mut layers = Vec::new();
    for ((number, descriptor), step) in build.manifest.layers.iter().enumerate().zip(step_names(build)) {
        let layer: Layer = LayerTable::read(store, descriptor.digest)?.into_layer();
        let mut all = 0;
        for it in &layer.entries {
            if let What::Node(_) | What::Link(_) = it.what {
                owners.insert(it.path.clone(), number);
            }
            if let What::Node(inode) = &it.what {
                all += inode.content().map_or(0, Content::stored_length);
            }
        }
        tree.apply(&layer)
            .map_err(|error| StoreError::Layer { layer: descriptor.digest.to_string(), reason: error.to_string() })?;
        let (digest, compressed) = (Some(descriptor.digest), descriptor.size);
        layers.push(LayerSize { step, digest, compressed, visible: 0, hidden: all });
    }
    let mut directories = DirectoryBytes::new();
    let mut seen = HashSet::new();
    for (path, id, inode) in tree.iter() {
        let Some(length) = inode.content().map(Content::stored_length).filter(|_| seen.insert(id)) else { continue };
        let Some(&owner) = owners.get(path) else { continue };
        if let Some(layer) = layers.get_mut(owner) {
            layer.visible += length;
            layer.hidden = layer.hidden.saturating_sub(length);
        }
        let mut directory = path.parent();
        while let Some(it) = directory {
            directory = it.parent();
            if it.components().count() <= depth {
                let sizes = directories.entry(it).or_insert_with(|| vec![0; layers.len()]);
                if let Some(size) = sizes.get_mut(owner) {
                    *size += length;
                }
            }
        }
    }
    Ok((layers, directories))
}

fn show(sizes: &Sizes<'_>) -> Result<(), Failure> {
    let shown = |bytes: u64| if bytes == 0 { "-".to_owned() } else { output::size(bytes) };
    let mut columns = Columns::new(
        "",
        std::iter::once(Side::Left).chain(vec![Side::Right; sizes.layers.len() + 1]).collect::<Vec<_>>(),
    );
    let mut row = |name: &str, cells: &mut dyn Iterator<Item = String>| {
        columns.row(std::iter::once(name.to_owned()).chain(cells));
    };
    row("", &mut sizes.layers.iter().chain([&sizes.total]).map(|it| it.step.clone()));
    for directory in &sizes.directories {
        let path = text::escape(directory.path.as_bytes());
        row(&path, &mut directory.layers.iter().chain([&directory.total]).map(|size| shown(*size)));
    }
    if sizes.omitted > 0 {
        row(&format!("({} smaller)", sizes.omitted), &mut std::iter::empty());
    }
    let all = || sizes.layers.iter().chain([&sizes.total]);
    row("", &mut std::iter::empty());
    row("visible", &mut all().map(|it| shown(it.visible)));
    row("hidden by layers above", &mut all().map(|it| shown(it.hidden)));
    row("compressed layer", &mut all().map(|it| shown(it.compressed)));
    output::write(columns.render().as_bytes())
}
