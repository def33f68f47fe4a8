//! Local inputs of a recipe: files and directories, read from disk or from the `source` artifact of an earlier build.

use aule_recipe::LocalPath;
use aule_tree::Digest;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// The bytes of an input file.
#[derive(Debug, Clone)]
pub enum Bytes {
    /// In memory.
    Memory(Arc<[u8]>),
    /// In a file of this machine.
    Disk(Arc<DiskFile>),
}

/// A file of this machine, with what it was when it was read first: whoever reads it later must find the same.
#[derive(Debug)]
pub struct DiskFile {
    path: PathBuf,
    seen: OnceLock<(Digest, u64)>,
}

impl DiskFile {
    fn see(&self, found: (Digest, u64)) -> io::Result<(Digest, u64)> {
        if *self.seen.get_or_init(|| found) == found {
            return Ok(found);
        }
        Err(io::Error::other("it changed while the build ran; build again"))
    }
}

impl Bytes {
    /// The bytes of a file of this machine.
    pub fn of_file(path: impl Into<PathBuf>) -> Bytes {
        Bytes::Disk(Arc::new(DiskFile { path: path.into(), seen: OnceLock::new() }))
    }

    /// A reader from the first byte. Whether they are those of [`Bytes::digest`] is for the caller to see.
    pub fn open(&self) -> io::Result<Box<dyn io::Read + '_>> {
        Ok(match self {
            Bytes::Memory(bytes) => Box::new(&**bytes),
            Bytes::Disk(file) => Box::new(fs::File::open(&file.path)?),
        })
    }

    /// All bytes, at most `limit` of them.
    pub fn read(&self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(self.open()?, limit + 1), &mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
        }
        if let Bytes::Disk(file) = self {
            file.see((Digest::of(&bytes), bytes.len() as u64))?;
        }
        Ok(bytes)
    }

    /// Digest and length; of a file what they were when it was read first.
    pub fn digest(&self) -> io::Result<(Digest, u64)> {
        if let Bytes::Disk(file) = self
            && let Some(seen) = file.seen.get()
        {
            return Ok(*seen);
        }
        let mut hasher = aule_tree::Hasher::new();
        let length = io::copy(&mut self.open()?, &mut hasher)?;
        let found = (hasher.finish(), length);
        match self {
            Bytes::Disk(file) => file.see(found),
            Bytes::Memory(_) => Ok(found),
        }
    }
}

/// What stands at one path of an overlay directory.
#[derive(Debug, Clone)]
pub enum InputKind {
    /// A directory.
    Directory,
    /// A file; `executable` by its owner's executable bit, the only one that is looked at.
    File {
        /// Its bytes.
        bytes: Bytes,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Symlink(Vec<u8>),
}

/// One entry of an overlay directory.
#[derive(Debug, Clone)]
pub struct InputEntry {
    /// Path relative to the directory, bytes with `/`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: InputKind,
}

/// Where local inputs come from.
pub trait Inputs: Sync {
    /// One file.
    fn file(&self, path: &LocalPath) -> io::Result<InputKind>;

    /// Everything below a directory, without the directory itself, in byte order of the paths.
    fn directory(&self, path: &LocalPath) -> io::Result<Vec<InputEntry>>;
}

/// Inputs as they were when they were asked for first, so that everything in one build (keys, layers, the source) speaks of
/// the same, whatever happens to the files meanwhile.
pub(crate) struct Snapshot<'a> {
    inputs: &'a dyn Inputs,
    files: Mutex<BTreeMap<LocalPath, InputKind>>,
    directories: Mutex<BTreeMap<LocalPath, Vec<InputEntry>>>,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn new(inputs: &'a dyn Inputs) -> Self {
        Snapshot { inputs, files: Mutex::default(), directories: Mutex::default() }
    }
}

fn remember<T: Clone>(
    known: &Mutex<BTreeMap<LocalPath, T>>,
    path: &LocalPath,
    read: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(it) = known.get(path) {
        return Ok(it.clone());
    }
    let it = read()?;
    known.insert(path.clone(), it.clone());
    Ok(it)
}

impl Inputs for Snapshot<'_> {
    fn file(&self, path: &LocalPath) -> io::Result<InputKind> {
        remember(&self.files, path, || self.inputs.file(path))
    }

    fn directory(&self, path: &LocalPath) -> io::Result<Vec<InputEntry>> {
        remember(&self.directories, path, || self.inputs.directory(path))
    }
}

/// The most entries that an overlay may have.
const ENTRIES_MAX: usize = 1_000_000;

/// Inputs on this machine's disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalInputs;

impl Inputs for LocalInputs {
    fn file(&self, path: &LocalPath) -> io::Result<InputKind> {
        let metadata = fs::metadata(path.path())?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
        }
        let executable = metadata.permissions().mode() & 0o100 != 0;
        Ok(InputKind::File { bytes: Bytes::of_file(path.path()), executable })
    }

    fn directory(&self, path: &LocalPath) -> io::Result<Vec<InputEntry>> {
        let mut entries = Vec::new();
        walk(path.path(), b"", &mut entries)?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }
}

fn walk(directory: &Path, prefix: &[u8], entries: &mut Vec<InputEntry>) -> io::Result<()> {
    let named = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let full = entry.path();
        let mut path = prefix.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(entry.file_name().as_bytes());
        let metadata = fs::symlink_metadata(&full).map_err(|error| named(&full, error))?;
        let kind = if metadata.is_dir() {
            InputKind::Directory
        } else if metadata.is_file() {
            let executable = metadata.permissions().mode() & 0o100 != 0;
            InputKind::File { bytes: Bytes::of_file(full.clone()), executable }
        } else if metadata.is_symlink() {
            InputKind::Symlink(
                fs::read_link(&full).map_err(|error| named(&full, error))?.as_os_str().as_bytes().to_vec(),
            )
        } else {
            let what = "it is neither a file nor a directory nor a symlink; an overlay holds nothing else";
            return Err(named(&full, io::Error::new(io::ErrorKind::InvalidInput, what)));
        };
        let is_directory = matches!(kind, InputKind::Directory);
        if entries.len() >= ENTRIES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it holds more than a million entries"));
        }
        entries.push(InputEntry { path: path.clone(), kind });
        if is_directory {
            walk(&full, &path, entries)
                .map_err(|error| if error.to_string().contains('/') { error } else { named(&full, error) })?;
        }
    }
    Ok(())
}
