//! The seeds of the fuzz target that reads layers.

use super::everything::{metadata, node, path, write};
use aule_store::{
    Store, StoreError,
    layer::{ArchiveOptions, ArchiveWriter},
};
use aule_tree::{Kind, LayerEntry, What};
use std::{fs, path::Path};

/// Inputs for the target: layers as blobs, and taken apart.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let options = ArchiveOptions { jobs: 1, table: true, diff_id: true };
    let changes = ArchiveWriter::write(&store, options, |writer| {
        writer.entry(LayerEntry { path: path("etc/gone"), what: What::Whiteout })?;
        writer.entry(node("etc", metadata(0o755), Kind::Directory))?;
        writer.entry(LayerEntry { path: path("etc"), what: What::Opaque })?;
        writer.file(path("etc/new"), metadata(0o644), 3, None, &mut &b"new"[..])?;
        Ok::<_, StoreError>(())
    });
    let layers = [write(&store, 1, 100), changes.unwrap()];
    let blobs = layers.iter().map(|layer| fs::read(store.blob_path(layer.digest)).unwrap());
    blobs.flat_map(|blob| [[vec![0], blob.clone()].concat(), super::exercise::take_apart(&blob)]).collect()
}

/// Inputs that made the target fail once.
pub(crate) fn regressions() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/regressions/layer_table");
    let files = fs::read_dir(directory).into_iter().flatten();
    files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}
