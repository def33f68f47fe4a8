//! Following symlinks inside a tree, never out of it.

use crate::{Kind, PathError, Tree, TreePath};

/// How many symlinks one path may follow (Linux, `path_resolution(7)`).
const SYMLINKS_MAX: usize = 40;

/// A path that cannot be followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ResolveError {
    /// More symlinks than Linux follows.
    #[error("{0} runs through more than 40 symlinks")]
    TooManySymlinks(TreePath),
    /// A symlink's target is not a path.
    #[error("a symlink on the way to {path} has an impossible target: {source}")]
    Target {
        /// The path that was asked for.
        path: TreePath,
        /// What is wrong with the target.
        source: PathError,
    },
}

impl Tree {
    /// Where `path` really is: symlinks among its directories are followed, the last component only with
    /// `follow_last`. What does not exist is kept as written. `..` in a symlink goes up, at the root it stays there, as
    /// with `chroot(2)`.
    ///
    /// # Errors
    /// On a loop of symlinks or a target that is no path.
    pub fn resolve(&self, path: &TreePath, follow_last: bool) -> Result<TreePath, ResolveError> {
        let mut ahead: Vec<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        ahead.reverse();
        let mut here = TreePath::root();
        let mut followed = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                here = here.parent().unwrap_or_else(TreePath::root);
                continue;
            }
            let next = here.join(&name).map_err(|source| ResolveError::Target { path: path.clone(), source })?;
            match self.get(&next).map(|inode| &inode.kind) {
                Some(Kind::Symlink(target)) if follow_last || !ahead.is_empty() => {
                    followed += 1;
                    if followed > SYMLINKS_MAX {
                        return Err(ResolveError::TooManySymlinks(path.clone()));
                    }
                    if target.first() == Some(&b'/') {
                        here = TreePath::root();
                    }
                    let parts = target.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".");
                    ahead.extend(parts.rev().map(<[u8]>::to_vec));
                }
                _ => here = next,
            }
        }
        Ok(here)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inode, Metadata, Timestamp};

    #[test]
    fn follows_symlinks_and_stays_inside() {
        let metadata = Metadata::root_owned(0o777, Timestamp::default());
        let mut tree = Tree::new(metadata.clone());
        for (path, target) in [
            ("lib", "usr/lib"),
            ("usr/lib64", "../../../../lib"),
            ("a", "b"),
            ("b", "/a"),
            ("etc/localtime", "/usr/share/zoneinfo/UTC"),
            ("var/run", "/run"),
        ] {
            let kind = Kind::Symlink(target.into());
            tree.insert(&TreePath::new(path).unwrap(), Inode { metadata: metadata.clone(), kind });
        }
        let resolve = |path: &str, last| tree.resolve(&TreePath::new(path).unwrap(), last).map(|path| path.to_string());
        assert_eq!(resolve("lib/x.so", false).unwrap(), "/usr/lib/x.so");
        assert_eq!(resolve("usr/lib64/y", false).unwrap(), "/usr/lib/y");
        assert_eq!(resolve("etc/localtime", false).unwrap(), "/etc/localtime");
        assert_eq!(resolve("etc/localtime", true).unwrap(), "/usr/share/zoneinfo/UTC");
        assert_eq!(resolve("var/run/not/yet", true).unwrap(), "/run/not/yet");
        assert!(matches!(resolve("a", true), Err(ResolveError::TooManySymlinks(_))));
        assert_eq!(resolve("a", false).unwrap(), "/a");
    }
}
