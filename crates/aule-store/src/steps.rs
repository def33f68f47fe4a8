//! The step cache: what a step with a given key gave last time.

use crate::{Result, Store, StoreError};
use aule_tree::Digest;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fs, io, path::PathBuf};

/// The key of a step: a digest over everything that decides its result.
pub type StepKey = Digest;

/// The file of a step result.
#[derive(Serialize, Deserialize)]
struct StepFile<T> {
    /// The blobs that the result needs; it counts only as long as they are there.
    blobs: Vec<Digest>,
    result: T,
}

/// The blobs that a step result needs; `None` when it cannot be understood.
pub(crate) fn blobs_of(bytes: &[u8]) -> Option<Vec<Digest>> {
    serde_json::from_slice::<StepFile<serde::de::IgnoredAny>>(bytes).ok().map(|file| file.blobs)
}

/// Where they are in the store.
pub(crate) const STEPS: &str = "cache/steps";
pub(crate) const DERIVED: &str = "cache/derived";

impl Store {
    /// What the step gave, if it ran before and all its blobs are still there.
    ///
    /// A file that cannot be understood counts as absent: the step runs again and writes it anew.
    pub fn step_result<T: DeserializeOwned>(&self, key: StepKey) -> Result<Option<T>> {
        self.remembered(STEPS, key)
    }

    /// Whether any step is remembered.
    pub fn remembers_steps(&self) -> Result<bool> {
        let directory = self.root().join(STEPS);
        match fs::read_dir(&directory) {
            Ok(mut entries) => Ok(entries.next().is_some()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(StoreError::Io { action: "read", path: directory, source }),
        }
    }

    /// Remembers what a step gave. Every blob that the result needs must be in the store by now.
    pub fn set_step_result(&self, key: StepKey, blobs: &[Digest], result: &impl Serialize) -> Result<()> {
        self.remember(STEPS, key, blobs, result)
    }

    /// The blob that was made of a download before, if it is still there. (It is no step of a build.)
    pub fn derived(&self, key: StepKey) -> Result<Option<Digest>> {
        self.remembered(DERIVED, key)
    }

    /// Remembers what was made of a download; the blob must be in the store by now.
    pub fn set_derived(&self, key: StepKey, blob: Digest) -> Result<()> {
        self.remember(DERIVED, key, &[blob], &blob)
    }

    fn remembered<T: DeserializeOwned>(&self, directory: &str, key: StepKey) -> Result<Option<T>> {
        let path = self.root().join(place(directory, key));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { action: "read", path, source }),
        };
        let file = serde_json::from_slice::<StepFile<T>>(&bytes).ok();
        Ok(file.filter(|it| it.blobs.iter().all(|blob| self.has_blob(*blob))).map(|it| it.result))
    }

    fn remember(&self, directory: &str, key: StepKey, blobs: &[Digest], result: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(&StepFile { blobs: blobs.to_vec(), result })
            .map_err(|source| StoreError::Json { what: format!("the result of step {key}"), source })?;
        self.write_whole(&place(directory, key), &bytes)
    }
}

fn place(directory: &str, key: StepKey) -> PathBuf {
    PathBuf::from(directory).join(format!("{}.json", key.hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_of_a_download_is_remembered_until_a_collection() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (key, other) = (Digest::of(b"an index"), Digest::of(b"another"));
        let blob = store.put(b"its text").unwrap();
        store.set_derived(key, blob).unwrap();
        assert_eq!((store.derived(key).unwrap(), store.derived(other).unwrap()), (Some(blob), None));
        assert!(!store.remembers_steps().unwrap(), "it is no step");
        assert_eq!(store.step_result::<Digest>(key).unwrap(), None);
        // Nothing of a build leads to it.
        let collected = store.collect_garbage(false).unwrap();
        assert_eq!((collected.blobs, collected.steps), (1, 1));
        assert_eq!((store.derived(key).unwrap(), store.has_blob(blob)), (None, false));
        // Its blob alone may go, too.
        store.set_derived(key, blob).unwrap();
        assert_eq!(store.derived(key).unwrap(), None);
    }
}
