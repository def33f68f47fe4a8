//! The step cache: what a step with a given key gave last time.

use crate::{Result, Store, StoreError};
use aule_tree::Digest;
use serde::{Serialize, de::DeserializeOwned};
use std::{fs, io, path::PathBuf};

/// The key of a step: a digest over everything that decides its result.
pub type StepKey = Digest;

impl Store {
    fn step_path(&self, key: StepKey) -> PathBuf {
        PathBuf::from("cache/steps").join(format!("{}.json", key.hex()))
    }

    /// What the step gave, if it ran before.
    ///
    /// A file that cannot be understood counts as absent: the step runs again and writes it anew.
    pub fn step_result<T: DeserializeOwned>(&self, key: StepKey) -> Result<Option<T>> {
        let path = self.root().join(self.step_path(key));
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { action: "read", path, source }),
        }
    }

    /// Remembers what a step gave. Every blob that the result names must be in the store by now.
    pub fn set_step_result(&self, key: StepKey, result: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(result)
            .map_err(|source| StoreError::Json { what: format!("the result of step {key}"), source })?;
        self.write_whole(&self.step_path(key), &bytes)
    }
}
