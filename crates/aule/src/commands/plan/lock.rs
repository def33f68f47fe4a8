//! How the lock would change.

use aule_recipe::{Lock, LockedBase, LockedFile, LockedPackage};
use aule_store::download::shown;
use std::collections::{BTreeMap, BTreeSet};

/// An entry of the lock that would change.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct LockChange {
    pub(super) change: &'static str,
    /// `base`, `suite`, `package` or `file`.
    pub(super) kind: &'static str,
    /// Of a package its name, else the URL.
    pub(super) name: String,
    /// Of a package its version, else the digest; where that stays, the first thing that does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) old: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) new: Option<String>,
}

/// What an entry says, the most telling first.
type Facts = Vec<String>;

/// An entry by its kind, its name, and what tells it from others of that name.
type Entries = BTreeMap<(&'static str, String, String), Facts>;

/// The entries that differ.
pub(super) fn changes(old: &Lock, new: &Lock) -> Vec<LockChange> {
    let (old, new) = (entries(old), entries(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let change = |key: &&(&'static str, String, String)| {
        let (kind, name, _) = *key;
        let first = |facts: &Facts| facts.first().cloned();
        let (change, old, new) = match (old.get(*key), new.get(*key)) {
            (None, Some(new)) => ("added", None, first(new)),
            (Some(old), None) => ("removed", first(old), None),
            (Some(old), Some(new)) => {
                let (old, new) = old.iter().zip(new).find(|(old, new)| old != new)?;
                ("changed", Some(old.clone()), Some(new.clone()))
            }
            (None, None) => return None,
        };
        // What no URL is stays as it is.
        let plain = |fact: Option<String>| fact.map(|it| shown(&it));
        Some(LockChange { change, kind, name: shown(name), old: plain(old), new: plain(new) })
    };
    keys.iter().filter_map(change).collect()
}

fn entries(lock: &Lock) -> Entries {
    let mut entries = Entries::new();
    if let Some(LockedBase { url, size, sha256, verified }) = &lock.base {
        let facts = vec![sha256.to_string(), size.to_string(), verified.clone()];
        entries.insert(("base", url.clone(), String::new()), facts);
    }
    if let Some(suite) = &lock.suite {
        entries.insert(("suite", suite.clone(), String::new()), Vec::new());
    }
    for LockedPackage { name, architecture, version, url, size, sha256 } in &lock.packages {
        let facts = vec![version.clone(), sha256.to_string(), url.clone(), size.to_string()];
        entries.insert(("package", name.clone(), architecture.clone()), facts);
    }
    for LockedFile { url, size, sha256 } in &lock.files {
        entries.insert(("file", url.clone(), String::new()), vec![sha256.to_string(), size.to_string()]);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use aule_recipe::Sha256;

    fn package(name: &str, version: &str, url: &str) -> LockedPackage {
        let (architecture, version, url) = ("all".into(), version.into(), url.into());
        LockedPackage { name: name.into(), architecture, version, url, size: 1, sha256: Sha256([0; 32]) }
    }

    #[test]
    fn entries_that_differ_are_told_by_what_differs() {
        let old = Lock {
            packages: vec![
                package("a", "1", "u"),
                package("b", "1", "u"),
                package("c", "1", "u"),
                package("d", "1", "u"),
            ],
            ..Lock::default()
        };
        let base = LockedBase { url: "v".into(), size: 2, sha256: Sha256([1; 32]), verified: "not".into() };
        let new = Lock {
            base: Some(base),
            packages: vec![package("a", "1", "u"), package("b", "2", "u"), package("c", "1", "w")],
            ..Lock::default()
        };
        let changes = changes(&old, &new);
        let told: Vec<_> = changes
            .iter()
            .map(|it| format!("{} {} {} {:?} {:?}", it.change, it.kind, it.name, it.old, it.new))
            .collect();
        let digest = "01".repeat(32);
        assert_eq!(
            told,
            [
                format!("added base v None Some(\"{digest}\")"),
                "changed package b Some(\"1\") Some(\"2\")".into(),
                "changed package c Some(\"u\") Some(\"w\")".into(),
                "removed package d Some(\"1\") None".into(),
            ]
        );
        assert_eq!(super::changes(&new, &new), []);
    }
}
