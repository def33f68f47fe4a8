//! In which order packages are unpacked and configured.
//!
//! dpkg orders what it is given at once by itself, but for one thing: what a package pre-depends on must be configured
//! before it is unpacked (Debian Policy 7.2). So there are rounds: each unpacks what may be unpacked now, and configures
//! what the next ones pre-depend on, with all that it needs.

use aule_deb::index::{IndexError, Package, Packages};
use std::collections::{BTreeSet, HashMap};

/// What happens between two moments when triggers may run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Unpacked, in this order: numbers of the index.
    pub(super) unpack: Vec<usize>,
    /// The names of those that are configured then; in the last round everything that is not is.
    pub(super) configure: Vec<String>,
}

/// The rounds for all packages of an index.
pub(super) fn rounds(index: &Packages) -> Result<Vec<Round>, IndexError> {
    let packages: Vec<Package<'_>> = index.iter().collect();
    let mut providers: HashMap<String, Vec<usize>> = HashMap::new();
    for (number, package) in packages.iter().enumerate() {
        providers.entry(package.name.to_owned()).or_default().push(number);
        for alternatives in package.relations("Provides")? {
            for provided in alternatives {
                providers.entry(provided.name.to_owned()).or_default().push(number);
            }
        }
    }
    // The new packages that a field may mean: every alternative counts, as each could be the one that dpkg looks at.
    let needs = |package: &Package<'_>, field: &'static str| -> Result<BTreeSet<usize>, IndexError> {
        let relations = package.relations(field)?;
        let names = relations.iter().flatten();
        Ok(names.filter_map(|relation| providers.get(relation.name)).flatten().copied().collect())
    };
    let mut before: Vec<BTreeSet<usize>> = Vec::new();
    let mut all: Vec<BTreeSet<usize>> = Vec::new();
    for package in &packages {
        let pre = needs(package, "Pre-Depends")?;
        all.push(needs(package, "Depends")?.union(&pre).copied().collect());
        before.push(pre);
    }
    for (number, pre) in before.iter_mut().enumerate() {
        pre.remove(&number);
    }
    let closure = |first: &BTreeSet<usize>| {
        let (mut found, mut open) = (first.clone(), first.iter().copied().collect::<Vec<_>>());
        while let Some(number) = open.pop() {
            for next in all.get(number).into_iter().flatten() {
                if found.insert(*next) {
                    open.push(*next);
                }
            }
        }
        found
    };

    let mut rounds: Vec<Round> = Vec::new();
    let (mut unpacked, mut configured) = (BTreeSet::new(), BTreeSet::new());
    while unpacked.len() < packages.len() {
        let waiting = |number: &usize| !unpacked.contains(number);
        let is_ready =
            |number: &usize| before.get(*number).is_none_or(|pre| pre.iter().all(|it| configured.contains(it)));
        let mut ready: Vec<usize> = (0..packages.len()).filter(waiting).filter(is_ready).collect();
        if ready.is_empty() {
            // They pre-depend on each other: dpkg has the last word.
            ready = (0..packages.len()).filter(waiting).collect();
        }
        unpacked.extend(ready.iter().copied());
        // What the rest pre-depends on and can be configured now.
        let mut configure = BTreeSet::new();
        let waiting = before.iter().enumerate().filter(|(number, _)| !unpacked.contains(number));
        for one in waiting.flat_map(|(_, pre)| pre) {
            let needed = closure(&BTreeSet::from([*one]));
            if needed.is_subset(&unpacked) {
                configure.extend(needed);
            }
        }
        let new: BTreeSet<usize> = configure.difference(&configured).copied().collect();
        configured.extend(new.iter().copied());
        let names = new.iter().filter_map(|number| Some(packages.get(*number)?.name.to_owned())).collect();
        rounds.push(Round { unpack: ready, configure: names });
    }
    Ok(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds_of(text: &str) -> Vec<(Vec<String>, Vec<String>)> {
        let text: String = text
            .lines()
            .map(|line| {
                let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
                format!("Package: {name}\nVersion: 1\nArchitecture: all\n{}\n\n", rest.replace("; ", "\n"))
            })
            .collect();
        let index = Packages::parse(text.replace("\n\n\n", "\n\n")).unwrap();
        let name = |number: &usize| index.get(*number).unwrap().name.to_owned();
        let rounds = rounds(&index).unwrap();
        rounds.iter().map(|it| (it.unpack.iter().map(name).collect(), it.configure.clone())).collect()
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_pre_depended_on_is_configured_first() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("a\nb Depends: a", &[("a b", "")]),
            ("a\nb Pre-Depends: a", &[("a", "a"), ("b", "")]),
            ("a Depends: c\nb Pre-Depends: a\nc\nd", &[("a c d", "a c"), ("b", "")]),
            ("a Provides: v\nb Pre-Depends: v", &[("a", "a"), ("b", "")]),
            ("a\nb Pre-Depends: a\nc Pre-Depends: b", &[("a", "a"), ("b", "b"), ("c", "")]),
            ("b Pre-Depends: there-already", &[("b", "")]),
            ("a Pre-Depends: b\nb Pre-Depends: a", &[("a b", "")]),
            // What a needs waits for a itself.
            ("a Depends: c\nb Pre-Depends: a\nc Pre-Depends: b", &[("a", ""), ("b c", "")]),
        ];
        for (text, wanted) in cases {
            let wanted: Vec<_> = wanted.iter().map(|(unpack, configure)| (words(unpack), words(configure))).collect();
            assert_eq!(rounds_of(text), wanted, "{text}");
        }
    }
}
