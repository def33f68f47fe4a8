//! Disk images with partition tables by sfdisk, without root.

use crate::tool;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

/// Makes a sparse disk image of `mib` MiB at `path` with the partition table that an sfdisk script describes.
///
/// # Panics
/// When sfdisk refuses it.
pub fn make_at(path: &Path, mib: u64, script: &str) {
    File::create(path).unwrap().set_len(mib << 20).unwrap();
    tool::run_with_input("sfdisk", &["-q", "--no-reread", "--no-tell-kernel", tool::text(path)], script.as_bytes());
}

/// As [`make_at`], into memory.
///
/// # Panics
/// As [`make_at`].
pub fn make(mib: u64, script: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    make_at(&path, mib, script);
    fs::read(path).unwrap()
}

/// Writes `bytes` at `offset` of the file `path`.
///
/// # Panics
/// When writing fails.
pub fn put(path: &Path, offset: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}
