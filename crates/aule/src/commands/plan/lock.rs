//! How the lock would change.

use aule_recipe::{KeptPackage, Lock, LockedBase, LockedFile, LockedPackage};
use aule_store::download::shown;
use std::collections::{BTreeMap, BTreeSet};

/// An entry of the lock that would change.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct LockChange {
    pub(super) change: &'static str,
    /// `base`, `suite`, `base_package`, `package`, `kept` (a package that was asked for and that the base has) or `file`.
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

/// The kind of entries, their name, and what tells them from others of that name.
type Key = (&'static str, String, String);
type Entries = BTreeMap<Key, Vec<Facts>>;

/// The entries that differ.
pub(super) fn changes(old: &Lock, new: &Lock) -> Vec<LockChange> {
    let (old, new) = (entries(old), entries(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    keys.into_iter().flat_map(|key| of_one(key, old.get(key), new.get(key))).collect()
}

/// How the entries of a name differ: most names have one, and with two variants some have two.
fn of_one((kind, name, _): &Key, old: Option<&Vec<Facts>>, new: Option<&Vec<Facts>>) -> Vec<LockChange> {
    let gone_from = |some: Option<&Vec<Facts>>, others: Option<&Vec<Facts>>| -> Vec<Facts> {
        let stays = |facts: &&Facts| !others.is_some_and(|others| others.contains(facts));
        some.into_iter().flatten().filter(stays).cloned().collect()
    };
    let (gone, come) = (gone_from(old, new), gone_from(new, old));
    // What no URL is stays as it is.
    let told = |change: &'static str, old: Option<&String>, new: Option<&String>| LockChange {
        change,
        kind,
        name: shown(name),
        old: old.map(|it| shown(it)),
        new: new.map(|it| shown(it)),
    };
    if let ([gone], [come]) = (gone.as_slice(), come.as_slice())
        && let Some((old, new)) = gone.iter().zip(come).find(|(old, new)| old != new)
    {
        return vec![told("changed", Some(old), Some(new))];
    }
    let gone = gone.iter().map(|facts| told("removed", facts.first(), None));
    gone.chain(come.iter().map(|facts| told("added", None, facts.first()))).collect()
}

fn entries(lock: &Lock) -> Entries {
    let mut entries = Entries::new();
    let mut add = |kind, name: &String, other: &str, facts: Facts| {
        entries.entry((kind, name.clone(), other.to_owned())).or_default().push(facts);
    };
    if let Some(LockedBase { url, size, sha256, verified }) = &lock.base {
        add("base", url, "", vec![sha256.to_string(), size.to_string(), verified.clone()]);
    }
    if let Some(suite) = &lock.suite {
        add("suite", suite, "", Vec::new());
    }
    for (kind, packages) in [("base_package", &lock.base_packages), ("package", &lock.packages)] {
        for LockedPackage { name, architecture, version, url, size, sha256, variants } in packages {
            let users = if variants.is_empty() { "all variants".to_owned() } else { variants.join(", ") };
            let facts = vec![version.clone(), sha256.to_string(), url.clone(), size.to_string(), users];
            add(kind, name, architecture, facts);
        }
    }
    for KeptPackage { name, version } in &lock.kept {
        add("kept", name, "", vec![version.clone()]);
    }
    for LockedFile { url, size, sha256 } in &lock.files {
        add("file", url, "", vec![sha256.to_string(), size.to_string()]);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use aule_recipe::Sha256;

    fn package(name: &str, version: &str, url: &str) -> LockedPackage {
        let (architecture, version, url) = ("all".into(), version.into(), url.into());
        LockedPackage {
            name: name.into(),
            architecture,
            version,
            url,
            size: 1,
            sha256: Sha256([0; 32]),
            variants: Vec::new(),
        }
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

    #[test]
    fn of_two_versions_only_those_that_differ_are_told() {
        let of = |version: &str, variant: &str| LockedPackage {
            variants: vec![variant.into()],
            ..package("a", version, "u")
        };
        let told = |old: Vec<LockedPackage>, new: Vec<LockedPackage>| -> Vec<String> {
            let (old, new) = (Lock { packages: old, ..Lock::default() }, Lock { packages: new, ..Lock::default() });
            let changes = super::changes(&old, &new).into_iter();
            changes.map(|it| format!("{} {:?} {:?}", it.change, it.old, it.new)).collect()
        };
        let (one, two, three) = (of("1", "x"), of("2", "y"), of("3", "y"));
        assert_eq!(told(vec![one.clone(), two.clone()], vec![one.clone(), three]), ["changed Some(\"2\") Some(\"3\")"]);
        assert_eq!(told(vec![one.clone(), two], vec![one.clone()]), ["removed Some(\"2\") None"]);
        assert_eq!(told(vec![one], vec![package("a", "1", "u")]), ["changed Some(\"x\") Some(\"all variants\")"]);
    }
}
