//! Paths inside a tree: bytes, relative to the root, never with `.`, `..`, empty components or NUL.

use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, fmt};

/// The longest path that Linux takes (`PATH_MAX` in `linux/limits.h`, without its NUL).
const PATH_MAX: usize = 4095;
/// The longest name in a directory (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// A path in a tree: components joined by `/`, without a leading slash; the root is the empty path.
///
/// The order is by components, so that a directory comes right before what it holds. This is the canonical order of
/// every archive and table.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TreePath(Box<[u8]>);

/// Bytes that are not a path inside a tree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathError {
    /// A component is `..`.
    #[error("`{0}` has a `..` component; a path in a tree never leaves it")]
    Parent(String),
    /// A component holds a NUL byte.
    #[error("`{0}` holds a NUL byte")]
    Nul(String),
    /// Longer than Linux takes.
    #[error("`{0}…` is too long: a path has at most 4095 bytes, a name 255")]
    TooLong(String),
}

impl TreePath {
    /// The root of the tree.
    pub fn root() -> Self {
        TreePath(Box::default())
    }

    /// A path from bytes as tar archives and people write them: leading slashes, `./` and doubled slashes are dropped.
    ///
    /// # Errors
    /// When a component is `..` or holds NUL, or when the path or a name is longer than Linux takes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let bytes = bytes.as_ref();
        let shown = || String::from_utf8_lossy(bytes.get(..80).unwrap_or(bytes)).into_owned();
        if bytes.contains(&0) {
            return Err(PathError::Nul(shown()));
        }
        let mut path = Vec::with_capacity(bytes.len());
        for component in bytes.split(|&b| b == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(PathError::Parent(shown())),
                name if name.len() > NAME_MAX => return Err(PathError::TooLong(shown())),
                name => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name);
                }
            }
        }
        if path.len() > PATH_MAX {
            return Err(PathError::TooLong(shown()));
        }
        Ok(TreePath(path.into()))
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// This path with `name` (one component or several) appended.
    ///
    /// # Errors
    /// As [`TreePath::new`].
    pub fn join(&self, name: impl AsRef<[u8]>) -> Result<Self, PathError> {
        TreePath::new([self.as_bytes(), name.as_ref()].join(&b'/'))
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<TreePath> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(TreePath(self.0.get(..end).unwrap_or_default().into()))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }

    /// The components from the root down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|name| !name.is_empty())
    }

    /// Whether this path is `other` or lies below it.
    pub fn starts_with(&self, other: &TreePath) -> bool {
        self.strip_prefix(other).is_some()
    }

    /// This path as seen from `directory`; `None` when it lies elsewhere.
    pub fn strip_prefix(&self, directory: &TreePath) -> Option<TreePath> {
        if directory.is_root() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(&*directory.0)?;
        match rest.first() {
            None => Some(TreePath::root()),
            Some(b'/') => Some(TreePath(rest.get(1..).unwrap_or_default().into())),
            Some(_) => None,
        }
    }

    /// A key that sorts after everything below this path and before everything that follows. Only for range searches:
    /// it is no path that a tree can hold, as 0x01 ends it.
    pub(crate) fn after_subtree(&self) -> TreePath {
        let mut bytes = self.0.to_vec();
        bytes.push(1);
        TreePath(bytes.into())
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // `/` sorts before every byte that a name may hold, which makes the order one by components.
        let common = self.0.len().min(other.0.len());
        let (Some(a), Some(b)) = (self.0.get(..common), other.0.get(..common)) else { return Ordering::Equal };
        match a.iter().zip(b).find(|(a, b)| a != b) {
            None => self.0.len().cmp(&other.0.len()),
            Some((b'/', _)) => Ordering::Less,
            Some((_, b'/')) => Ordering::Greater,
            Some((a, b)) => a.cmp(b),
        }
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Shows the path as people write it, from `/`; bytes that are not UTF-8 are replaced.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"/{}\"", self.0.escape_ascii())
    }
}

impl Serialize for TreePath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let path = TreePath::new(&bytes).map_err(serde::de::Error::custom)?;
        if path.as_bytes() != bytes {
            return Err(serde::de::Error::custom("a path that is not in its shortest form"));
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_and_refuses() {
        for (given, wanted) in [("/", ""), ("./a//b/", "a/b"), ("a/./b", "a/b"), ("/etc/hosts", "etc/hosts")] {
            assert_eq!(TreePath::new(given).unwrap().as_bytes(), wanted.as_bytes(), "{given}");
        }
        for given in ["..", "a/../b", "/../etc", "a\0b"] {
            assert!(TreePath::new(given).is_err(), "{given:?}");
        }
        assert!(TreePath::new(vec![b'a'; 256]).is_err());
        assert!(TreePath::new("a/".repeat(3000)).is_err());
    }

    #[test]
    fn a_directory_comes_right_before_its_contents() {
        let mut paths: Vec<_> = ["a.b", "a/z", "a", "a-b", "a/b/c", "", "b"].map(|p| TreePath::new(p).unwrap()).into();
        paths.sort();
        let shown: Vec<_> = paths.iter().map(|p| p.to_string()).collect();
        assert_eq!(shown, ["/", "/a", "/a/b/c", "/a/z", "/a-b", "/a.b", "/b"]);
    }

    #[test]
    fn parents_and_prefixes() {
        let path = TreePath::new("usr/lib/x").unwrap();
        assert_eq!(path.parent().unwrap().as_bytes(), b"usr/lib");
        assert_eq!(path.name(), b"x");
        assert!(path.starts_with(&TreePath::new("usr/lib").unwrap()));
        assert!(!path.starts_with(&TreePath::new("usr/li").unwrap()));
        assert_eq!(path.strip_prefix(&path).unwrap(), TreePath::root());
        assert_eq!(TreePath::new("usr").unwrap().parent().unwrap(), TreePath::root());
    }
}
