//! Mounting images in the kernel, for tests that compare with it. Only root may do that.

use crate::tool;
use std::path::{Path, PathBuf};

/// Whether images can be mounted here; tests that need it say so and do nothing otherwise.
pub fn is_possible() -> bool {
    let (_, id, _) = tool::attempt("id", &["-u"], b"");
    id == b"0\n" && Path::new("/dev/loop-control").exists()
}

/// A mounted image; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    directory: tempfile::TempDir,
}

impl Mounted {
    /// Mounts `image` with `options`, for example `ro,noload`. Always through a loop device.
    ///
    /// # Panics
    /// When mounting fails.
    pub fn new(image: &Path, options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        tool::run("mount", &["-o", &format!("loop,{options}"), tool::text(image), tool::text(directory.path())]);
        Mounted { directory }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path below the mount point.
    pub fn join(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        tool::attempt("umount", &[self.directory.path()], b"");
    }
}
