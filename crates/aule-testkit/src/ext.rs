//! ext2, ext3 and ext4 images by mke2fs and debugfs, without root.

use crate::tool;
use std::{fs, path::Path};

/// How an image is made.
#[derive(Debug, Clone, Default)]
pub struct Ext<'a> {
    /// Size in KiB.
    pub kib: u64,
    /// More arguments for mke2fs, such as `-O` and `-b`.
    pub options: &'a [&'a str],
    /// A directory with what the filesystem is to hold.
    pub source: Option<&'a Path>,
    /// Commands for `debugfs -w`.
    pub commands: &'a str,
}

/// The UUID of all images made here.
pub const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

impl Ext<'_> {
    /// Makes the image.
    ///
    /// # Panics
    /// When mke2fs or debugfs fails.
    pub fn make(&self) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("ext.img");
        self.make_at(&image);
        fs::read(image).unwrap()
    }

    /// Makes the image as the file `path`.
    ///
    /// # Panics
    /// As [`Ext::make`].
    pub fn make_at(&self, path: &Path) {
        let size = format!("{}k", self.kib);
        let mut arguments = vec!["-q", "-F", "-L", "writable", "-U", UUID, "-E", "root_owner=0:0,lazy_itable_init=0"];
        if !self.options.contains(&"-t") {
            arguments.extend(["-t", "ext4"]);
        }
        arguments.extend(self.options);
        if let Some(source) = self.source {
            arguments.extend(["-d", tool::text(source)]);
        }
        arguments.extend([tool::text(path), &size]);
        tool::run("mke2fs", &arguments);
        debugfs(path, self.commands);
    }
}

/// Runs debugfs commands, one a line, on an image.
///
/// # Panics
/// When debugfs writes an error.
pub fn debugfs(image: &Path, commands: &str) {
    if commands.is_empty() {
        return;
    }
    let (success, _, stderr) = tool::attempt("debugfs", &["-w", "-f", "-", tool::text(image)], commands.as_bytes());
    let stderr = String::from_utf8_lossy(&stderr);
    // The first line is the version; errors are told nowhere else, and the status is always 0.
    let errors: Vec<_> = stderr.lines().skip(1).collect();
    assert!(success && errors.is_empty(), "debugfs: {errors:?}");
}
