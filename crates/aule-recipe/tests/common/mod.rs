//! Recipes in memory.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use aule_recipe::{Diagnostics, Merged, RecipeSet, Sources, load};

/// Files by path.
pub(crate) struct Files(HashMap<PathBuf, Vec<u8>>);

impl Sources for Files {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

pub(crate) fn files(files: &[(&str, &str)]) -> Files {
    Files(files.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect())
}

pub(crate) fn load_files(files: &Files, path: &str) -> Result<RecipeSet, Diagnostics> {
    load(files, Path::new(path))
}

/// Loads `recipes/main.yaml` with this text and gives its `default` variant.
pub(crate) fn one(text: &str) -> Result<Merged, Diagnostics> {
    load_files(&files(&[("recipes/main.yaml", text)]), "recipes/main.yaml")?.variant("default")
}

/// What is printed for recipes that are wrong; the first is the main one.
pub(crate) fn errors(list: &[(&str, &str)]) -> String {
    match load_files(&files(list), list[0].0) {
        Ok(_) => String::from("no error"),
        Err(diagnostics) => diagnostics.to_string(),
    }
}
