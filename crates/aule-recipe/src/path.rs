//! Paths: those of local files, which a recipe names relative to itself, and those inside the image.

use std::borrow::Borrow;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A file or directory on the machine that builds.
///
/// Serialised as its name alone, so that no path of the building machine reaches an output.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalPath {
    name: String,
    path: PathBuf,
}

impl LocalPath {
    /// A path as a recipe file writes it: `directory` is where that file is, `directory_name` the same relative to the
    /// main recipe's directory.
    pub(crate) fn new(written: &str, directory: &Path, directory_name: &str) -> Self {
        if Path::new(written).is_absolute() {
            let path = normalize(Path::new(written));
            // Where a file lies on this machine is nobody else's business: it is named by its last component.
            let name = path.file_name().map_or_else(|| String::from("/"), |name| name.to_string_lossy().into_owned());
            return Self { name, path };
        }
        let name = join_name(directory_name, written);
        Self { name, path: normalize(&directory.join(written)) }
    }

    /// The path relative to the directory of the main recipe, `/`-separated, without `.` and inner `..`; `.` for that
    /// directory itself. An absolute path is named by its last component.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path to open: joined to the directory of the recipe file that wrote it, and lexically normalised.
    /// In a recipe read by [`from_canonical`](crate::from_canonical) it is the name itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Serialize for LocalPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

impl<'de> Deserialize<'de> for LocalPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name.is_empty() || name.contains('\0') {
            return Err(serde::de::Error::custom("a local path is empty or holds a NUL"));
        }
        Ok(Self { path: PathBuf::from(&name), name })
    }
}

impl fmt::Display for LocalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Joins a `/`-separated relative path to a directory's name, without `.` and inner `..`.
pub(crate) fn join_name(directory: &str, written: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(written.split('/')) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { String::from(".") } else { parts.join("/") }
}

/// Removes `.` and inner `..` from a path by its letters alone, without asking the file system.
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                Some(Component::RootDir) => {}
                _ => out.push(".."),
            },
            other => out.push(other),
        }
    }
    if out.as_os_str().is_empty() { PathBuf::from(".") } else { out }
}

/// A path inside the image: absolute, not `/`, without empty, `.` or `..` components, without NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ImagePath(String);

/// Longest path and longest component that Linux takes, in bytes (`PATH_MAX` without its NUL, `NAME_MAX`).
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 255;

impl ImagePath {
    /// Checks a path.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn new(path: &str) -> Result<Self, ImagePathError> {
        let Some(rest) = path.strip_prefix('/') else {
            return Err(ImagePathError::NotAbsolute);
        };
        if rest.is_empty() {
            return Err(ImagePathError::Root);
        }
        if path.contains('\0') {
            return Err(ImagePathError::Nul);
        }
        if path.len() > MAX_PATH || rest.split('/').any(|part| part.len() > MAX_NAME) {
            return Err(ImagePathError::TooLong);
        }
        if rest.split('/').any(|part| part == "..") {
            return Err(ImagePathError::Parent);
        }
        if rest.split('/').any(|part| part.is_empty() || part == ".") {
            return Err(ImagePathError::NotNormal);
        }
        Ok(Self(path.to_owned()))
    }

    /// The path, with its leading `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without its leading `/`, as archives and trees name it.
    pub fn relative(&self) -> &str {
        self.0.trim_start_matches('/')
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ImagePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for ImagePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What can be wrong with a path inside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImagePathError {
    /// It does not begin with `/`.
    #[error("a path in the image must begin with `/`")]
    NotAbsolute,
    /// It is `/` itself.
    #[error("`/` itself cannot be replaced or removed")]
    Root,
    /// It holds a NUL byte.
    #[error("a path cannot hold a NUL character")]
    Nul,
    /// It holds a `..` component.
    #[error("a path in the image cannot hold `..`")]
    Parent,
    /// It has an empty or `.` component, or ends with `/`.
    #[error("a path in the image must be written without `//`, `/./` and a last `/`")]
    NotNormal,
    /// It, or one component of it, is longer than Linux takes.
    #[error("a path has at most 4095 bytes, each part of it at most 255")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_paths_are_joined_by_their_letters() {
        for (written, directory, directory_name, name, path) in [
            ("../overlays/a", "recipes", "", "../overlays/a", "overlays/a"),
            ("./x", "", "", "x", "x"),
            ("x", "/srv/recipes", "", "x", "/srv/recipes/x"),
            ("../../x", "recipes/lib", "lib", "../x", "x"),
            ("..", "recipes", "", "..", "."),
            (".", "recipes", "", ".", "recipes"),
            ("a/../../b", "../r", "", "../b", "../b"),
            ("/data/img.xz", "recipes", "", "img.xz", "/data/img.xz"),
            ("/../..", "", "", "/", "/"),
        ] {
            let local = LocalPath::new(written, Path::new(directory), directory_name);
            assert_eq!((local.name(), local.path()), (name, Path::new(path)), "{written} in {directory}");
        }
    }

    #[test]
    fn image_paths() {
        let long = format!("/{}", "x".repeat(256));
        for (path, expected) in [
            ("/etc/hostname", Ok(())),
            ("/a b/ü", Ok(())),
            ("etc", Err(ImagePathError::NotAbsolute)),
            ("", Err(ImagePathError::NotAbsolute)),
            ("/", Err(ImagePathError::Root)),
            ("/a/../b", Err(ImagePathError::Parent)),
            ("/..", Err(ImagePathError::Parent)),
            ("/a//b", Err(ImagePathError::NotNormal)),
            ("/a/", Err(ImagePathError::NotNormal)),
            ("/./a", Err(ImagePathError::NotNormal)),
            ("/a\0b", Err(ImagePathError::Nul)),
            (long.as_str(), Err(ImagePathError::TooLong)),
        ] {
            assert_eq!(ImagePath::new(path).map(|_| ()), expected, "{path:?}");
        }
    }
}
