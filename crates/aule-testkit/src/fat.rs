//! FAT images by mkfs.vfat and mtools, without root.

use crate::tool;
use std::{fs, path::Path};

/// Makes a FAT image of `kib` KiB with more arguments for mkfs.vfat, and copies everything in `source` into it.
///
/// # Panics
/// When a tool fails.
pub fn make(kib: u64, options: &[&str], source: Option<&Path>) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("fat.img");
    let path = tool::text(&image);
    let size = kib.to_string();
    let arguments = [&["-C", "-n", "system-boot", "-i", "1234abcd", "--invariant"], options, &[path, &size]].concat();
    tool::run("mkfs.vfat", &arguments);
    if let Some(source) = source {
        let mut children: Vec<_> = fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path()).collect();
        children.sort();
        for child in children {
            tool::run("mcopy", &["-i", path, "-s", "-m", "-Q", tool::text(&child), "::/"]);
        }
    }
    fs::read(&image).unwrap()
}

/// What `fsck.vfat -n` says, when it finds anything wrong.
///
/// # Panics
/// When it is missing.
pub fn check(image: &Path) -> Result<(), String> {
    let (success, stdout, stderr) = tool::attempt("fsck.vfat", &["-n", "-v", tool::text(image)], b"");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    if success { Ok(()) } else { Err(text) }
}

/// Copies everything out of an image into `target`, keeping times.
///
/// # Panics
/// When mcopy fails.
pub fn extract(image: &Path, target: &Path) {
    let source = format!("{}/", tool::text(target));
    tool::run("mcopy", &["-i", tool::text(image), "-s", "-m", "-n", "-Q", "::/*", &source]);
}
