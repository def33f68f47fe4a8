//! The recipes of this repository load, and what they name in the repository is there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::io;
use std::path::{Path, PathBuf};

use aule_recipe::{RecipeSet, load};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn recipes() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("recipes")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    assert!(paths.len() >= 3, "{paths:?}");
    paths
}

fn read(path: &Path) -> RecipeSet {
    let sources = |path: &Path| -> io::Result<Vec<u8>> { std::fs::read(path) };
    match load(&sources, path) {
        Ok(set) => set,
        Err(diagnostics) => panic!("{diagnostics}"),
    }
}

#[test]
fn shipped_recipes_load_and_name_what_is_there() {
    for path in recipes() {
        let set = read(&path);
        assert_eq!(set.name(), path.file_stem().unwrap().to_str().unwrap());
        for variant in set.variants() {
            let merged = set.variant(variant).unwrap();
            let made_later = |input: &Path| input.components().any(|part| part.as_os_str() == "target");
            for input in merged.recipe.local_inputs() {
                assert!(made_later(input.path()) || input.path().exists(), "{}: {input}", path.display());
            }
            assert!(
                merged.recipe.base.image().is_none_or(|it| it.keyring.is_some()),
                "{} is not verified by a signature",
                path.display()
            );
        }
    }
}

#[test]
fn the_baked_quickstart_is_the_quickstart_with_addresses() {
    let baked = read(&root().join("recipes/quickstart-baked.yaml")).variant("netboot").unwrap().recipe;
    let plain = read(&root().join("recipes/quickstart.yaml")).variant("netboot").unwrap().recipe;
    let root = baked.root.as_ref().unwrap();
    assert_eq!(root.server.unwrap().to_string(), "192.168.76.1");
    assert_eq!(root.seed.as_ref().unwrap().as_str(), "http://192.168.76.1/seed/");
    assert_eq!((&baked.files, &baked.outputs, &baked.overlays), (&plain.files, &plain.outputs, &plain.overlays));
    // It needs nothing but an archive of Debian packages, which every machine's apt knows.
    assert!(plain.base.image().is_none());
    assert!(plain.local_inputs().iter().any(|it| it.path().ends_with("recipes/keys/debian-13.asc")));
}
