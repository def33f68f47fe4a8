//! The packages that count: of each name the one that is installed and the one that the sources offer.

use super::parts;
use crate::{
    index::{IndexError, Package, Packages},
    relation::Relation,
    version::Version,
};
use std::collections::HashMap;

/// An index with what apt thinks of its source.
#[derive(Debug)]
pub struct Source<'a> {
    /// Its packages.
    pub packages: &'a Packages,
    /// 500; 100 for `NotAutomatic: yes` with `ButAutomaticUpgrades: yes`, 1 without (apt_preferences(5)).
    pub priority: i32,
    /// Whether its packages were chosen before, and are to stay.
    pub is_pinned: bool,
}

/// All packages that can be part of a solution.
#[derive(Debug)]
pub struct Universe<'a> {
    pub(super) architecture: &'a str,
    pub(super) candidates: Vec<Candidate<'a>>,
    /// The candidates of each name, in the order in which they are to be tried: what is installed first.
    pub(super) names: Vec<(&'a str, Vec<usize>)>,
    pub(super) numbers: HashMap<&'a str, usize>,
    /// Which candidates provide a name, and in which version.
    pub(super) providers: HashMap<&'a str, Vec<(usize, Option<Version>)>>,
    /// What else the sources have, for those who ask for a version.
    pub(super) others: HashMap<&'a str, Vec<(usize, Package<'a>)>>,
}

/// A package that can be part of a solution.
#[derive(Debug, Clone)]
pub(super) struct Candidate<'a> {
    pub(super) package: Package<'a>,
    pub(super) version: Version,
    /// The number of its name.
    pub(super) name: usize,
    pub(super) is_installed: bool,
    /// The source that offers it.
    pub(super) source: Option<usize>,
    /// Whether that source pins it.
    pub(super) is_pinned: bool,
}

impl<'a> Universe<'a> {
    /// What can be chosen from: `installed` is dpkg's database, whose packages of other architectures are left alone.
    ///
    /// # Errors
    /// When a version or what a package provides cannot be understood.
    pub fn new(
        architecture: &'a str,
        installed: &'a Packages,
        sources: &[Source<'a>],
        wanted: &[String],
    ) -> Result<Self, IndexError> {
        let fits = |package: &Package<'_>| package.architecture == architecture || package.architecture == "all";
        let mut universe = Universe {
            architecture,
            candidates: Vec::new(),
            names: Vec::new(),
            numbers: HashMap::new(),
            providers: HashMap::new(),
            others: HashMap::new(),
        };
        for package in installed.iter().filter(|it| it.is_installed() && fits(it)) {
            universe.add(package, package.parsed_version()?, true, (None, false));
        }
        // The best that is offered of each name.
        let asked = wanted.iter().map(|it| parts(it)).filter_map(|(name, _, version)| Some((name, version?)));
        let versions: HashMap<&str, &str> = asked.collect();
        let mut best: HashMap<&str, (i32, Option<Version>, usize, Package<'_>)> = HashMap::new();
        let mut order: Vec<&str> = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            for package in source.packages.iter().filter(fits) {
                let asked = versions.get(package.name).is_some_and(|version| *version == package.version);
                let priority = if asked { i32::MAX } else { source.priority };
                let Some((best_priority, best_version, best_source, best_package)) = best.get_mut(package.name) else {
                    order.push(package.name);
                    best.insert(package.name, (priority, None, number, package));
                    continue;
                };
                let version = package.parsed_version()?;
                if best_version.is_none() {
                    *best_version = Some(best_package.parsed_version()?);
                }
                let later = best_version.as_ref().is_none_or(|best| version > *best);
                let mut other = (number, package);
                if priority > *best_priority || priority == *best_priority && later {
                    other = (*best_source, *best_package);
                    (*best_priority, *best_version, *best_source, *best_package) =
                        (priority, Some(version), number, package);
                }
                universe.others.entry(package.name).or_default().push(other);
            }
        }
        for name in order {
            let Some((_, version, source, package)) = best.remove(name) else { continue };
            let version = version.map_or_else(|| package.parsed_version(), Ok)?;
            // What is installed is apt's candidate where only earlier versions are offered.
            let is_asked = versions.get(package.name).is_some_and(|version| *version == package.version);
            if is_asked || universe.installed(package.name).is_none_or(|it| it.version <= version) {
                let is_pinned = sources.get(source).is_some_and(|it| it.is_pinned);
                universe.add(package, version, false, (Some(source), is_pinned));
            }
        }
        universe.find_providers()?;
        Ok(universe)
    }

    fn add(
        &mut self,
        package: Package<'a>,
        version: Version,
        is_installed: bool,
        (source, is_pinned): (Option<usize>, bool),
    ) {
        let next = self.names.len();
        let name = *self.numbers.entry(package.name).or_insert(next);
        if name == next {
            self.names.push((package.name, Vec::new()));
        }
        let Some((_, of_name)) = self.names.get_mut(name) else { return };
        // What is installed is not installed again from a source that has the same.
        let known =
            of_name.iter().copied().find(|number| self.candidates.get(*number).is_some_and(|it| it.version == version));
        if let Some(known) = known.and_then(|number| self.candidates.get_mut(number)) {
            known.source = known.source.or(source);
            known.is_pinned |= is_pinned;
            return;
        }
        of_name.push(self.candidates.len());
        self.candidates.push(Candidate { package, version, name, is_installed, source, is_pinned });
    }

    fn find_providers(&mut self) -> Result<(), IndexError> {
        for (number, candidate) in self.candidates.iter().enumerate() {
            for provided in candidate.package.relations("Provides")?.into_iter().flatten() {
                let version = provided.version.map(|(_, version)| version);
                self.providers.entry(provided.name).or_default().push((number, version));
            }
        }
        Ok(())
    }

    /// What is installed of a name.
    pub(super) fn installed(&self, name: &str) -> Option<&Candidate<'a>> {
        self.of_name(name).iter().filter_map(|number| self.candidates.get(*number)).find(|it| it.is_installed)
    }

    /// The candidates of a name.
    pub(super) fn of_name(&self, name: &str) -> &[usize] {
        self.numbers.get(name).and_then(|number| self.names.get(*number)).map_or(&[], |(_, numbers)| numbers)
    }

    /// The candidates that a relation means: packages of that name, and those that provide it.
    pub(super) fn meant(&self, relation: &Relation<'_>) -> Meant {
        let mut meant = Meant::default();
        // (`:native` stands in what a build needs only; another architecture is none of ours.)
        let foreign = relation.architecture.is_some_and(|it| it != "any" && it != "native" && it != self.architecture);
        if foreign {
            return meant;
        }
        let any = relation.architecture == Some("any");
        let allowed = |candidate: &Candidate<'_>| {
            !any || matches!(candidate.package.multi_arch(), crate::index::MultiArch::Allowed)
        };
        for number in self.of_name(relation.name) {
            let Some(candidate) = self.candidates.get(*number) else { continue };
            if relation.allows(&candidate.version) && allowed(candidate) {
                meant.named.push(*number);
            }
        }
        for (number, version) in self.providers.get(relation.name).into_iter().flatten() {
            // Without a version it stands for none (Policy 7.5).
            let fits = match (&relation.version, version) {
                (None, _) => true,
                (Some(_), Some(version)) => relation.allows(version),
                (Some(_), None) => false,
            };
            if fits && self.candidates.get(*number).is_some_and(allowed) {
                meant.providing.push(*number);
            }
        }
        meant
    }
}

/// The candidates that a relation means.
#[derive(Debug, Default)]
pub(super) struct Meant {
    /// By their own name.
    pub(super) named: Vec<usize>,
    /// By what they provide.
    pub(super) providing: Vec<usize>,
}
