//! `index.json`: the refs of the store with their older generations, and referrers.
//!
//! The current generation of a ref carries `org.opencontainers.image.ref.name`, by which skopeo and podman find it.
//! Every generation carries `dev.aule.ref` and `dev.aule.generation`, a number that only grows. A referrer carries
//! `dev.aule.subject`, so that it is found without being opened. Entries of other tools are left as they are.

use crate::{
    Reference, Result, Store, StoreError,
    oci::{Descriptor, REF_NAME},
};
use aule_tree::Digest;
use std::{fs, path::Path};

/// How many generations of a ref are kept, the current one among them.
pub const GENERATIONS_KEPT: usize = 5;

const OWN_REF: &str = "dev.aule.ref";
const GENERATION: &str = "dev.aule.generation";
const SUBJECT: &str = "dev.aule.subject";

/// One generation of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The ref's name.
    pub name: String,
    /// Counts up with every change of the ref, from 1.
    pub number: u64,
    /// Whether the ref stands for it now.
    pub current: bool,
    /// The index or manifest.
    pub descriptor: Descriptor,
}

/// What an entry of the index refers to, if it is a referrer.
pub(crate) fn subject_of(descriptor: &Descriptor) -> Option<Digest> {
    descriptor.annotations.get(SUBJECT)?.parse().ok()
}

/// `index.json` with its entries as they stand there.
#[derive(serde::Serialize, serde::Deserialize)]
struct RawIndex {
    #[serde(default)]
    manifests: Vec<serde_json::Value>,
    #[serde(flatten)]
    more: serde_json::Map<String, serde_json::Value>,
}

/// An entry, where it is one that this program understands.
fn descriptor(entry: &serde_json::Value) -> Option<Descriptor> {
    serde_json::from_value(entry.clone()).ok()
}

fn generation(descriptor: &Descriptor) -> Option<Generation> {
    let named = descriptor.annotations.get(REF_NAME);
    let name = descriptor.annotations.get(OWN_REF).or(named)?;
    let number = descriptor.annotations.get(GENERATION).and_then(|number| number.parse().ok()).unwrap_or(0);
    Some(Generation { name: name.clone(), number, current: named.is_some(), descriptor: descriptor.clone() })
}

fn entry(descriptor: &Descriptor, name: &str, number: u64, current: bool) -> Descriptor {
    let mut descriptor = descriptor.clone();
    descriptor.annotations.insert(OWN_REF.into(), name.into());
    descriptor.annotations.insert(GENERATION.into(), number.to_string());
    descriptor.annotations.remove(REF_NAME);
    if current {
        descriptor.annotations.insert(REF_NAME.into(), name.into());
    }
    descriptor
}

impl Store {
    fn read_raw_index(&self) -> Result<RawIndex> {
        let path = self.root().join("index.json");
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        serde_json::from_slice(&bytes)
            .map_err(|source| StoreError::Json { what: path.to_string_lossy().into_owned(), source })
    }

    /// The entries of `index.json` that can be understood, and how many cannot.
    pub(crate) fn read_index(&self) -> Result<(Vec<Descriptor>, usize)> {
        let raw = self.read_raw_index()?.manifests;
        let known: Vec<_> = raw.iter().filter_map(descriptor).collect();
        let unknown = raw.len() - known.len();
        Ok((known, unknown))
    }

    /// Changes `index.json` under its lock. What other tools wrote there stays as it is, byte for byte where it can be.
    fn change_index<T>(&self, change: impl FnOnce(&mut Vec<Descriptor>) -> Result<T>) -> Result<T> {
        let _changing = self.lock_index()?;
        let mut index = self.read_raw_index()?;
        let (mut known, mut raw) = (Vec::new(), Vec::new());
        let mut foreign = Vec::new();
        for entry in std::mem::take(&mut index.manifests) {
            match descriptor(&entry) {
                Some(descriptor) => {
                    known.push(descriptor);
                    raw.push(entry);
                }
                None => foreign.push(entry),
            }
        }
        let before = known.clone();
        let value = change(&mut known)?;
        if known != before {
            let failed = |source| StoreError::Json { what: "index.json".into(), source };
            for it in &known {
                // An entry that was not changed keeps its fields, also those that are not known here.
                let kept = before.iter().position(|old| old == it).and_then(|at| raw.get(at).cloned());
                let entry = kept.map_or_else(|| serde_json::to_value(it).map_err(failed), Ok)?;
                index.manifests.push(entry);
            }
            index.manifests.extend(foreign);
            let bytes = serde_json::to_vec_pretty(&index).map_err(failed)?;
            self.write_whole(Path::new("index.json"), &bytes)?;
        }
        Ok(value)
    }

    /// All generations of all refs: by name, the newest number first.
    pub fn generations(&self) -> Result<Vec<Generation>> {
        let mut all: Vec<_> = self.read_index()?.0.iter().filter_map(generation).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name).then(b.number.cmp(&a.number)));
        Ok(all)
    }

    /// Makes `name` stand for `target`. The generation that it stood for is kept, up to [`GENERATIONS_KEPT`].
    /// Says whether anything changed.
    pub fn set_ref(&self, name: &str, target: &Descriptor) -> Result<bool> {
        if !Reference::is_valid_name(name) {
            return Err(StoreError::BadRef(name.into()));
        }
        self.change_index(|manifests| {
            let own: Vec<_> = manifests.iter().filter_map(generation).filter(|it| it.name == name).collect();
            if own.iter().any(|it| it.current && it.descriptor.digest == target.digest) {
                return Ok(false);
            }
            let mut number = own.iter().map(|it| it.number).max().unwrap_or(0) + 1;
            let mut older: Vec<_> = own.into_iter().filter(|it| it.descriptor.digest != target.digest).collect();
            // After a roll-back the current one is not the newest. It is what is in use, so it becomes the generation before
            // the new one: it is kept longest, and a roll-back leads to it.
            if let Some(current) = older.iter_mut().find(|it| it.current && it.number + 1 != number) {
                current.number = number;
                number += 1;
            }
            older.sort_by_key(|it| std::cmp::Reverse(it.number));
            older.truncate(GENERATIONS_KEPT - 1);
            manifests.retain(|it| generation(it).is_none_or(|it| it.name != name));
            manifests.push(entry(target, name, number, true));
            manifests.extend(older.iter().map(|it| entry(&it.descriptor, name, it.number, false)));
            Ok(true)
        })
    }

    /// Forgets `name` with all its generations. The blobs stay until [`Store::collect_garbage`].
    pub fn remove_ref(&self, name: &str) -> Result<()> {
        self.change_index(|manifests| {
            let before = manifests.len();
            let known = names(manifests);
            manifests.retain(|it| generation(it).is_none_or(|it| it.name != name));
            match manifests.len() {
                after if after == before => Err(StoreError::UnknownRef { name: name.into(), known }),
                _ => Ok(()),
            }
        })
    }

    /// Makes `name` stand for the generation before the current one, and gives it. The newer one is kept.
    pub fn roll_back(&self, name: &str) -> Result<Generation> {
        self.change_index(|manifests| {
            let mut own: Vec<_> = manifests.iter().filter_map(generation).filter(|it| it.name == name).collect();
            own.sort_by_key(|it| std::cmp::Reverse(it.number));
            let Some(current) = own.iter().find(|it| it.current).map(|it| it.number) else {
                return Err(StoreError::UnknownRef { name: name.into(), known: names(manifests) });
            };
            let Some(older) = own.iter().find(|it| it.number < current).cloned() else {
                return Err(StoreError::NoOlderGeneration(name.into()));
            };
            for it in manifests.iter_mut() {
                if let Some(found) = generation(it).filter(|found| found.name == name) {
                    *it = entry(&found.descriptor, name, found.number, found.number == older.number);
                }
            }
            Ok(Generation { current: true, ..older })
        })
    }

    /// Adds a manifest that refers to `subject`. It takes the place of an older one of the same artifact type.
    pub fn set_referrer(&self, subject: Digest, descriptor: &Descriptor) -> Result<()> {
        let mut descriptor = descriptor.clone();
        descriptor.annotations.insert(SUBJECT.into(), subject.to_string());
        self.change_index(|manifests| {
            if !manifests.contains(&descriptor) {
                manifests.retain(|it| subject_of(it) != Some(subject) || it.artifact_type != descriptor.artifact_type);
                manifests.push(descriptor);
            }
            Ok(())
        })
    }

    /// What refers to `subject`.
    pub fn referrers(&self, subject: Digest) -> Result<Vec<Descriptor>> {
        Ok(self.read_index()?.0.into_iter().filter(|it| subject_of(it) == Some(subject)).collect())
    }

    /// Forgets the referrers of subjects that are `gone`.
    pub(crate) fn remove_referrers(&self, gone: impl Fn(Digest) -> bool) -> Result<()> {
        self.change_index(|manifests| {
            manifests.retain(|it| !subject_of(it).is_some_and(&gone));
            Ok(())
        })
    }

    /// What a reference stands for.
    ///
    /// # Errors
    /// When there is no such ref, when a ref has no such digest among its generations, or when a digest alone names a
    /// blob that is not there.
    pub fn resolve(&self, reference: &Reference) -> Result<Descriptor> {
        let generations = self.generations()?;
        let Some(asked) = &reference.name else {
            let Some(digest) = reference.digest else { return Err(StoreError::BadRef(String::new())) };
            if let Some(found) = generations.into_iter().find(|it| it.descriptor.digest == digest) {
                return Ok(found.descriptor);
            }
            let document: serde_json::Value = self.read_document(digest)?;
            let media_type = document.get("mediaType").and_then(|it| it.as_str()).unwrap_or_default();
            let size = self.read_blob(digest, crate::DOCUMENT_MAX, "a document")?.len() as u64;
            return Ok(Descriptor::new(media_type, digest, size));
        };
        let unknown = || {
            let mut known: Vec<_> = generations.iter().map(|it| it.name.clone()).collect();
            known.dedup();
            StoreError::UnknownRef { name: reference.to_string(), known }
        };
        let name = self.full_name(asked, &generations).ok_or_else(unknown)?;
        generations
            .iter()
            .find(|it| it.name == name && reference.digest.map_or(it.current, |digest| it.descriptor.digest == digest))
            .map(|it| it.descriptor.clone())
            .ok_or_else(unknown)
    }

    /// `name` itself, or for a name without a variant the only ref `name:…`.
    fn full_name(&self, name: &str, generations: &[Generation]) -> Option<String> {
        if generations.iter().any(|it| it.name == name) {
            return Some(name.into());
        }
        let mut names: Vec<_> = generations.iter().map(|it| &it.name).collect();
        names.dedup();
        let mut matching = names.into_iter().filter(|it| it.split_once(':').is_some_and(|(first, _)| first == name));
        match (matching.next(), matching.next()) {
            (Some(only), None) => Some(only.clone()),
            _ => None,
        }
    }
}

fn names(manifests: &[Descriptor]) -> Vec<String> {
    let mut names: Vec<_> = manifests.iter().filter_map(generation).map(|it| it.name).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type;

    fn target(store: &Store, text: &str) -> Descriptor {
        store.put_document(media_type::INDEX, &text).unwrap()
    }

    #[test]
    fn refs_keep_generations_and_roll_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let targets: Vec<_> = (0..7).map(|n| target(&store, &format!("build {n}"))).collect();
        for it in &targets {
            assert!(store.set_ref("lab:netboot", it).unwrap());
            assert!(!store.set_ref("lab:netboot", it).unwrap());
        }
        let resolve = |text: &str| store.resolve(&text.parse().unwrap()).map(|it| it.digest);
        assert_eq!(store.generations().unwrap().len(), GENERATIONS_KEPT);
        assert_eq!(resolve("lab:netboot").unwrap(), targets[6].digest);
        assert_eq!(resolve("lab").unwrap(), targets[6].digest);
        assert_eq!(store.roll_back("lab:netboot").unwrap().descriptor.digest, targets[5].digest);
        assert_eq!(store.roll_back("lab:netboot").unwrap().number, 5);
        assert_eq!(resolve("lab:netboot").unwrap(), targets[4].digest);
        assert_eq!(resolve(&format!("lab:netboot@{}", targets[6].digest)).unwrap(), targets[6].digest);
        assert!(resolve(&format!("lab:netboot@{}", targets[0].digest)).is_err());
        // A build after a roll-back is a new generation, and rolling back from it leads to the one before it.
        store.set_ref("lab:netboot", &target(&store, "fixed")).unwrap();
        let current = store.generations().unwrap().into_iter().find(|it| it.current).unwrap();
        assert_eq!(current.number, 9);
        let rolled_back = store.roll_back("lab:netboot").unwrap();
        assert_eq!((rolled_back.number, rolled_back.descriptor.digest), (8, targets[4].digest));
        store.set_ref("lab:sdcard", &targets[0]).unwrap();
        assert!(resolve("lab").is_err(), "two variants: the name alone is ambiguous");
        store.remove_ref("lab:netboot").unwrap();
        assert!(matches!(resolve("lab:netboot"), Err(StoreError::UnknownRef { .. })));
        assert!(matches!(store.roll_back("lab:sdcard"), Err(StoreError::NoOlderGeneration(_))));
        assert!(store.remove_ref("lab:netboot").is_err());
    }

    /// What was in use when a build came is kept, however far back it was.
    #[test]
    fn a_build_after_roll_backs_keeps_what_was_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let targets: Vec<_> = (0..6).map(|n| target(&store, &format!("build {n}"))).collect();
        for it in &targets[..5] {
            store.set_ref("lab:netboot", it).unwrap();
        }
        for _ in 0..4 {
            store.roll_back("lab:netboot").unwrap();
        }
        store.set_ref("lab:netboot", &targets[5]).unwrap();
        assert_eq!(store.generations().unwrap().len(), GENERATIONS_KEPT);
        assert_eq!(store.roll_back("lab:netboot").unwrap().descriptor.digest, targets[0].digest);
    }

    #[test]
    fn entries_of_other_tools_stay_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let path = directory.path().join("index.json");
        let digest = target(&store, "x").digest.to_string();
        let foreign = serde_json::json!([
            {"mediaType": media_type::MANIFEST, "digest": digest, "size": 3, "urls": ["https://example.org/x"],
             "platform": {"architecture": "arm", "os": "linux", "variant": "v7"}},
            {"mediaType": media_type::MANIFEST, "digest": format!("sha512:{}", "0".repeat(128)), "size": 3},
        ]);
        let index = serde_json::json!({"schemaVersion": 2, "manifests": foreign, "annotations": {"a": "b"}});
        fs::write(&path, index.to_string()).unwrap();
        store.set_ref("lab:netboot", &target(&store, "y")).unwrap();
        let after: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for (at, it) in [(0, 0), (2, 1)] {
            assert_eq!(after["manifests"][at], foreign[it]);
        }
        assert_eq!(after["annotations"], index["annotations"]);
        assert_eq!(store.generations().unwrap().len(), 1);
        assert!(store.collect_garbage(true).is_err(), "nothing is removed while something cannot be followed");
    }

    #[test]
    fn two_processes_change_the_index_without_losing_a_ref() {
        let directory = tempfile::tempdir().unwrap();
        let stores: Vec<_> = (0..4).map(|_| Store::open(directory.path()).unwrap()).collect();
        let it = target(&stores[0], "x");
        std::thread::scope(|scope| {
            for (n, store) in stores.iter().enumerate() {
                let it = &it;
                scope.spawn(move || (0..20).for_each(|i| assert!(store.set_ref(&format!("r{n}:v{i}"), it).unwrap())));
            }
        });
        assert_eq!(stores[0].generations().unwrap().len(), 80);
    }
}
