//! The partial file of a download, what is known about it, and the lock beside it.
//!
//! At every moment, also that of a `kill -9`, the partial file holds a prefix of the version that the state file
//! names: to start over the state is removed first, then the bytes, and the new state is written before new bytes.

use super::{
    error::DownloadError,
    response::{Resumption, Validator},
};
use aule_tree::{Digest, Hasher};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The version of the state file's format; another one is as good as no state.
const FORMAT: u32 = 1;

/// A state file larger than this is not one of ours.
const LARGEST_STATE: u64 = 4096;

/// What is known about the file that the partial file is a prefix of.
#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    validator: Validator,
    total: Option<u64>,
}

/// A locked partial file, open at its end.
pub(super) struct Partial {
    path: PathBuf,
    state_path: PathBuf,
    lock_path: PathBuf,
    file: File,
    /// Of all the bytes at hand.
    hasher: Hasher,
    length: u64,
    state: Option<State>,
    /// Held until this value is dropped.
    _lock: File,
}

impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partial").field("path", &self.path).field("length", &self.length).finish_non_exhaustive()
    }
}

impl Partial {
    /// Opens, or begins, the partial file in `directory` for the URL with the digest `name`, once no other process
    /// works on it. What is there is read, and kept where it is known what it is a part of.
    pub(super) fn open(directory: &Path, name: &Digest, max_size: u64) -> Result<Self, DownloadError> {
        let beside = |extension: &str| directory.join(format!("{}.{extension}", name.hex()));
        let (path, state_path, lock_path) = (beside("part"), beside("state"), beside("lock"));
        let lock = lock(&lock_path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open", &path))?;
        let length = file.metadata().map_err(failed("examine", &path))?.len();
        let state = read_state(&state_path)?;
        let mut partial =
            Partial { path, state_path, lock_path, file, hasher: Hasher::new(), length, state, _lock: lock };
        let kept = partial.state.as_ref().is_some_and(|state| length <= state.total.unwrap_or(max_size).min(max_size));
        if kept {
            partial.hash_again()?;
        } else {
            partial.clear()?;
        }
        Ok(partial)
    }

    /// Where the bytes are.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes at hand.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing is at hand.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The size of the entire file, where it is known.
    pub(super) fn total(&self) -> Option<u64> {
        self.state.as_ref()?.total
    }

    /// Whether every byte is at hand, as far as is known.
    pub(super) fn is_complete(&self) -> bool {
        self.total() == Some(self.length)
    }

    /// The digest of the bytes at hand.
    pub(super) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Gives up the last byte of a complete file, so that the server can be asked for something, and its answer tells
    /// whether the rest is still that of the file it has.
    pub(super) fn prepare_to_resume(&mut self) -> Result<(), DownloadError> {
        if self.is_complete() && self.length > 0 {
            self.length -= 1;
            self.file.set_len(self.length).map_err(failed("shorten", &self.path))?;
            self.hash_again()?;
        }
        Ok(())
    }

    /// What to ask the server for; `None` for the entire file.
    pub(super) fn resumption(&self) -> Option<Resumption> {
        let state = self.state.as_ref().filter(|_| self.length > 0)?;
        Some(Resumption { from: self.length, validator: state.validator.clone() })
    }

    /// Forgets everything at hand.
    pub(super) fn clear(&mut self) -> Result<(), DownloadError> {
        self.state = None;
        remove(&self.state_path)?;
        self.length = 0;
        self.hasher = Hasher::new();
        self.file.set_len(0).map_err(failed("shorten", &self.path))?;
        self.file.rewind().map_err(failed("rewind", &self.path))
    }

    /// Begins with a version of the file that has this validator and size.
    pub(super) fn restart(&mut self, validator: Option<Validator>, total: Option<u64>) -> Result<(), DownloadError> {
        self.clear()?;
        let Some(validator) = validator else { return Ok(()) };
        let state = State { format: FORMAT, validator, total };
        let text = serde_json::to_vec(&state)
            .map_err(|error| failed("describe", &self.state_path)(io::Error::other(error)))?;
        // Not atomic, and needs not be: half a state is none, and there are no bytes yet for it to be wrong about.
        fs::write(&self.state_path, text).map_err(|error| DownloadError::writing(self.state_path.clone(), error))?;
        self.state = Some(state);
        Ok(())
    }

    /// Appends what was received.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        self.file.write_all(bytes).map_err(|error| DownloadError::writing(self.path.clone(), error))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Makes the bytes, and their name, survive a loss of power.
    pub(super) fn sync(&self) -> Result<(), DownloadError> {
        self.file.sync_all().map_err(|error| DownloadError::writing(self.path.clone(), error))?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("sync", directory))
    }

    /// Removes the partial file, where it is still there, and what is beside it.
    pub(super) fn remove(&self) -> Result<(), DownloadError> {
        remove(&self.state_path)?;
        remove(&self.path)?;
        // Last, and while it is held: who waits for it then finds that it is no longer the one of that name.
        remove(&self.lock_path)
    }

    /// Reads the file from its start to `length`, and stays there.
    fn hash_again(&mut self) -> Result<(), DownloadError> {
        self.hasher = Hasher::new();
        self.file.rewind().map_err(failed("rewind", &self.path))?;
        let mut buffer = vec![0; super::BUFFER];
        let mut rest = self.length;
        while rest > 0 {
            let wanted = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let read = match self.file.read(buffer.get_mut(..wanted).unwrap_or_default()) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other,
            }
            .map_err(failed("read", &self.path))?;
            self.hasher.update(buffer.get(..read).unwrap_or_default());
            rest -= read as u64;
        }
        Ok(())
    }
}

/// How many bytes there are, of which it is known what they are a part of.
pub(super) fn length(directory: &Path, name: &Digest) -> u64 {
    let beside = |extension: &str| directory.join(format!("{}.{extension}", name.hex()));
    match read_state(&beside("state")) {
        Ok(Some(_)) => fs::metadata(beside("part")).map_or(0, |it| it.len()),
        _ => 0,
    }
}

/// Waits for the lock of this name.
fn lock(path: &Path) -> Result<File, DownloadError> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed("open the lock", path))?;
        file.lock().map_err(failed("lock", path))?;
        // Who held it may have removed it: then it protects nothing, and another process may hold one of this name.
        // Every round means that another process finished, so there is an end to it.
        let held = file.metadata().map_err(failed("examine", path))?;
        match fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("examine", path)(error)),
        }
    }
}

/// The state of an earlier run, if it left a sound one.
fn read_state(path: &Path) -> Result<Option<State>, DownloadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut text = Vec::new();
    file.take(LARGEST_STATE).read_to_end(&mut text).map_err(failed("read", path))?;
    // A damaged state is one we do not have: the download starts over.
    Ok(serde_json::from_slice(&text).ok().filter(|state: &State| state.format == FORMAT))
}

fn remove(path: &Path) -> Result<(), DownloadError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DownloadError + use<> {
    let path = path.to_owned();
    move |source| DownloadError::Io { action, path, source }
}
