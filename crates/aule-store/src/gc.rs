//! Garbage collection: removes what no ref, older generation, lease or referrer leads to.

use crate::{
    DOCUMENT_MAX, Result, Store, StoreError,
    index::subject_of,
    oci::{Descriptor, media_type},
    steps::{DERIVED, STEPS, blobs_of},
};
use aule_tree::Digest;
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

/// Documents that name other blobs: ours, and those that Docker's tools write into a layout.
const LISTS: [&str; 4] = [
    media_type::INDEX,
    media_type::MANIFEST,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// What a collection removed, or would remove.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Collected {
    /// How many blobs.
    pub blobs: u64,
    /// How many remembered results of steps and of downloads, as their blobs are gone.
    pub steps: u64,
    /// How many downloads.
    pub downloads: u64,
    /// How many bytes in all.
    pub bytes: u64,
}

impl Store {
    /// Removes every blob that nothing in `index.json` and no lease leads to, step results that name such blobs, and finished or
    /// broken downloads. With `dry_run` it only counts.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process uses the store; a document that cannot be read stops the collection
    /// before anything is removed.
    pub fn collect_garbage(&self, dry_run: bool) -> Result<Collected> {
        self.lock_exclusively()?;
        let reachable = self.reachable()?;
        let mut collected = Collected::default();
        let mut doomed: Vec<PathBuf> = Vec::new();

        let results = [STEPS, DERIVED].map(|directory| files(&self.root().join(directory)));
        for path in results.into_iter().collect::<Result<Vec<_>>>()?.concat() {
            let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
            let kept = blobs_of(&bytes).is_some_and(|blobs| blobs.iter().all(|it| reachable.contains(it)));
            if !kept {
                collected.steps += 1;
                doomed.push(path);
            }
        }
        for path in files(&self.root().join("blobs/sha256"))? {
            let named = path.file_name().and_then(|name| Digest::from_hex(&name.to_string_lossy()).ok());
            if named.is_none_or(|digest| !reachable.contains(&digest)) {
                collected.blobs += 1;
                doomed.push(path);
            }
        }
        for path in files(&self.downloads())? {
            collected.downloads += 1;
            doomed.push(path);
        }
        for path in &doomed {
            collected.bytes += fs::metadata(path).map_err(StoreError::io("read", path))?.len();
        }
        if !dry_run {
            self.remove_referrers(|subject| !reachable.contains(&subject))?;
            // Step results go first (they are first in the list): one must never outlive its blobs.
            for path in doomed {
                fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
            }
        }
        Ok(collected)
    }

    /// Every blob that something in `index.json` leads to.
    fn reachable(&self) -> Result<HashSet<Digest>> {
        let mut reachable = HashSet::new();
        let (entries, unknown) = self.read_index()?;
        if unknown > 0 {
            let reason = format!(
                "index.json has {unknown} entries that aule does not understand, so it cannot tell what they need"
            );
            return Err(StoreError::NotAStore { path: self.root().into(), reason });
        }
        let (referrers, mut queue): (Vec<_>, Vec<_>) = entries.into_iter().partition(|it| subject_of(it).is_some());
        let leased = self.leased()?.into_iter().filter(|it| self.has_blob(*it));
        queue.extend(leased.map(|digest| Descriptor::new(media_type::INDEX, digest, 0)));
        self.follow(&mut queue, &mut reachable)?;
        // A referrer lives as long as what it refers to.
        queue.extend(referrers.into_iter().filter(|it| subject_of(it).is_some_and(|it| reachable.contains(&it))));
        self.follow(&mut queue, &mut reachable)?;
        Ok(reachable)
    }

    fn follow(&self, queue: &mut Vec<Descriptor>, reachable: &mut HashSet<Digest>) -> Result<()> {
        while let Some(descriptor) = queue.pop() {
            if !reachable.insert(descriptor.digest) {
                continue;
            }
            if LISTS.contains(&descriptor.media_type.as_str()) && self.has_blob(descriptor.digest) {
                let bytes = self.read_blob(descriptor.digest, DOCUMENT_MAX, "a document")?;
                let document: serde_json::Value = serde_json::from_slice(&bytes)
                    .map_err(|source| StoreError::Json { what: format!("blob {}", descriptor.digest), source })?;
                for key in ["manifests", "layers", "config"] {
                    let list = match document.get(key).cloned().unwrap_or_default() {
                        serde_json::Value::Null => continue,
                        serde_json::Value::Array(list) => list,
                        one => vec![one],
                    };
                    for it in list {
                        // What is not understood here may be needed: then nothing at all is removed.
                        let it = serde_json::from_value::<Descriptor>(it).map_err(|source| StoreError::Json {
                            what: format!("`{key}` in blob {}", descriptor.digest),
                            source,
                        })?;
                        queue.push(it);
                    }
                }
            }
        }
        Ok(())
    }
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(StoreError::io("read", directory))? {
        paths.push(entry.map_err(StoreError::io("read", directory))?.path());
    }
    paths.sort();
    Ok(paths)
}
