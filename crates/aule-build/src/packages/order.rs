//! In which order packages are unpacked and configured.
//!
//! dpkg takes what it is given one after the other, and two things must be right then. What a package pre-depends on must be
//! configured before it is unpacked (Debian Policy 7.2). So there are rounds: each unpacks what may be unpacked now, and
//! configures what the next ones pre-depend on, with all that it needs. And what refuses the version of a package that is
//! there is unpacked after the new one of that package (Policy 7.3 and 7.4).

use aule_deb::{
    index::{IndexError, Package, Packages},
    relation::Relation,
    version::Version,
};
use std::collections::{BTreeSet, HashMap};

/// What happens between two moments when triggers may run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Unpacked, in this order: numbers of the index.
    pub(super) unpack: Vec<usize>,
    /// The names of those that are configured then; in the last round everything that is not is.
    pub(super) configure: Vec<String>,
}

/// The rounds for all packages of an index, beside what is installed.
pub(super) fn rounds(index: &Packages, installed: &Packages) -> Result<Vec<Round>, IndexError> {
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
    let after = After::find(&packages, installed)?;

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
        let ready = after.order(ready, &unpacked);
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

/// What each package is unpacked after: the new versions of those whose installed version it cannot stand beside.
struct After {
    /// Where dpkg refuses.
    conflicts: Vec<BTreeSet<usize>>,
    /// Where it has to deconfigure the other one, which it does with none that is essential.
    breaks: Vec<BTreeSet<usize>>,
}

impl After {
    fn find(packages: &[Package<'_>], installed: &Packages) -> Result<After, IndexError> {
        let numbers: HashMap<&str, usize> = packages.iter().enumerate().map(|(number, it)| (it.name, number)).collect();
        let mut after =
            After { conflicts: vec![BTreeSet::new(); packages.len()], breaks: vec![BTreeSet::new(); packages.len()] };
        let old = installed.iter().filter(|it| !it.version.is_empty() && numbers.contains_key(it.name));
        let old = old.map(|it| Stand::of(&it)).collect::<Result<Vec<_>, _>>()?;
        let new = if old.is_empty() { &[] } else { packages };
        let new = new.iter().map(Stand::of).collect::<Result<Vec<_>, _>>()?;
        for old in &old {
            let Some(of_old) = numbers.get(old.name) else { continue };
            for (number, new) in new.iter().enumerate().filter(|(number, _)| number != of_old) {
                if let Some(into) = after.conflicts.get_mut(number)
                    && (old.is_refused(&new.conflicts) || new.is_refused(&old.conflicts))
                {
                    into.insert(*of_old);
                }
                if let Some(into) = after.breaks.get_mut(number)
                    && (old.is_refused(&new.breaks) || new.is_refused(&old.breaks))
                {
                    into.insert(*of_old);
                }
            }
        }
        Ok(after)
    }

    /// Those that are unpacked in this round of those that are ready, in their order: none before what it is to come after,
    /// unless each of them comes after the others. What has to wait for one that is not ready is left to the next round.
    fn order(&self, mut ready: Vec<usize>, unpacked: &BTreeSet<usize>) -> Vec<usize> {
        let open = |of: &[BTreeSet<usize>], number: usize, there: &dyn Fn(&usize) -> bool| {
            of.get(number).is_some_and(|before| before.iter().any(|it| !there(it)))
        };
        let all = ready.clone();
        loop {
            let there = |it: &usize| unpacked.contains(it) || ready.contains(it);
            let waits = |number: &usize| open(&self.conflicts, *number, &there) || open(&self.breaks, *number, &there);
            let (left, kept): (Vec<usize>, Vec<usize>) = ready.iter().copied().partition(waits);
            if left.is_empty() {
                break;
            }
            ready = kept;
        }
        if ready.is_empty() {
            ready = all;
        }
        let mut order: Vec<usize> = Vec::new();
        while !ready.is_empty() {
            let there = |it: &usize| unpacked.contains(it) || order.contains(it);
            let conflicts = |number: &usize| open(&self.conflicts, *number, &there);
            let breaks = |number: &usize| open(&self.breaks, *number, &there);
            let next = ready.iter().position(|it| !conflicts(it) && !breaks(it));
            let next = next.or_else(|| ready.iter().position(|it| !conflicts(it))).unwrap_or(0);
            order.push(ready.remove(next));
        }
        order
    }
}

/// What decides whether a package can stand beside another.
struct Stand<'a> {
    name: &'a str,
    version: Version,
    provides: Vec<Relation<'a>>,
    conflicts: Vec<Relation<'a>>,
    breaks: Vec<Relation<'a>>,
}

impl<'a> Stand<'a> {
    fn of(package: &Package<'a>) -> Result<Stand<'a>, IndexError> {
        let relations = |field| Ok(package.relations(field)?.into_iter().flatten().collect::<Vec<_>>());
        Ok(Stand {
            name: package.name,
            version: package.parsed_version()?,
            provides: relations("Provides")?,
            conflicts: relations("Conflicts")?,
            breaks: relations("Breaks")?,
        })
    }

    /// Whether one of these means it, by its name or by what it provides (without a version that stands for none).
    fn is_refused(&self, relations: &[Relation<'_>]) -> bool {
        relations.iter().any(|refused| {
            let is_provided = |it: &Relation<'_>| {
                it.name == refused.name
                    && match &it.version {
                        Some((_, version)) => refused.allows(version),
                        None => refused.version.is_none(),
                    }
            };
            refused.name == self.name && refused.allows(&self.version) || self.provides.iter().any(is_provided)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(text: &str, version: u32) -> Packages {
        let text: String = text
            .lines()
            .map(|line| {
                let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
                format!("Package: {name}\nVersion: {version}\nArchitecture: all\n{}\n\n", rest.replace("; ", "\n"))
            })
            .collect();
        Packages::parse(text.replace("\n\n\n", "\n\n")).unwrap()
    }

    fn rounds_of(text: &str, installed: &str) -> Vec<(Vec<String>, Vec<String>)> {
        let index = packages(text, 2);
        let name = |number: &usize| index.get(*number).unwrap().name.to_owned();
        let rounds = rounds(&index, &packages(installed, 1)).unwrap();
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
            assert_eq!(rounds_of(text, ""), wanted, "{text}");
        }
    }

    #[test]
    fn what_refuses_an_old_version_comes_after_the_new_one() {
        let cases: &[(&str, &str, &str)] = &[
            ("a Conflicts: b (<< 2)\nb", "b", "b a"),
            ("a Breaks: b (<< 2)\nb\nc", "b", "b a c"),
            ("a Breaks: b (<< 1)\nb", "b", "a b"),
            ("a Conflicts: b (<< 2)\nb", "", "a b"),
            ("a\nb", "b Conflicts: a", "b a"),
            ("a Conflicts: v\nb", "b Provides: v", "b a"),
            ("a Conflicts: v (<< 2)\nb", "b Provides: v", "a b"),
            ("a Conflicts: v (<< 2)\nb", "b Provides: v (= 1)", "b a"),
            ("a Conflicts: b (<< 2)\nb Breaks: c (<< 2)\nc", "b\nc", "c b a"),
            // Each after the other: what dpkg can do by deconfiguring is done so.
            ("a Breaks: b (<< 2)\nb Breaks: a (<< 2)", "a\nb", "a b"),
            ("a Conflicts: b (<< 2)\nb Breaks: a (<< 2)", "a\nb", "b a"),
            ("a Conflicts: b (<< 2)\nb Conflicts: a (<< 2)", "a\nb", "a b"),
            // What is there and stays, or goes, is the solver's business.
            ("a Conflicts: c", "c", "a"),
            // One that has to be unpacked later takes it along; what could go on does not wait.
            ("a Conflicts: b (<< 2)\nb Pre-Depends: c\nc\nd", "b", "c d|b a"),
        ];
        for (text, installed, wanted) in cases {
            let rounds = rounds_of(text, installed);
            let unpacked: Vec<String> = rounds.iter().map(|(unpack, _)| unpack.join(" ")).collect();
            assert_eq!(unpacked.join("|"), *wanted, "{text} over {installed}");
        }
    }
}
