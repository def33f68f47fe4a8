//! The question as the solver wants it, and its answer.

use super::{
    Reason, Request, ResolveError, Solution, Universe,
    explain::explain,
    parts,
    universe::{Candidate, Meant},
};
use crate::relation::{Relation, relations};
use resolvo::{
    Candidates, Condition, ConditionId, ConditionalRequirement, Dependencies, DependencyProvider,
    HintDependenciesAvailable, Interner, KnownDependencies, NameId, Problem, Requirement, SolvableId, Solver,
    SolverCache, StringId, UnsolvableOrCancelled, VersionSetId, VersionSetUnionId,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

/// What dpkg's fields say that a package needs.
const NEEDS: [&str; 2] = ["Pre-Depends", "Depends"];
/// What it cannot stand beside.
const REFUSES: [&str; 2] = ["Conflicts", "Breaks"];

/// The solver's view of the universe. It numbers names, candidates and sets of candidates of one name.
pub(super) struct Provider<'u, 'a> {
    universe: &'u Universe<'a>,
    asked: RefCell<Asked>,
}

/// Why a set of candidates is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// A package says so.
    Package,
    /// It was asked for.
    Asked,
    /// It is installed.
    Installed,
    /// It is on hold.
    Held,
}

/// What was asked for while solving.
#[derive(Default)]
struct Asked {
    /// A name, the candidates of it that are meant, how that was written, and why it is asked for.
    sets: Vec<(usize, Vec<usize>, String, Why)>,
    unions: Vec<Vec<VersionSetId>>,
    /// Names that no package has, beyond those of the universe.
    missing: Vec<String>,
    strings: Vec<String>,
}

impl Asked {
    fn set(&mut self, name: usize, candidates: Vec<usize>, text: String) -> VersionSetId {
        self.set_because(name, candidates, text, Why::Package)
    }

    fn set_because(&mut self, name: usize, candidates: Vec<usize>, text: String, why: Why) -> VersionSetId {
        self.sets.push((name, candidates, text, why));
        VersionSetId(self.sets.len() as u32 - 1)
    }
}

impl<'a> Universe<'a> {
    /// What has to be done so that what is wanted is there, or gone.
    ///
    /// # Errors
    /// When it is not possible; why.
    pub fn resolve(&self, request: &Request) -> Result<Solution<'a>, ResolveError> {
        request.remove.iter().try_for_each(|name| self.may_go(parts(name).0))?;
        let wanted = request.install.iter().map(|name| self.wanted(name)).collect::<Result<Vec<_>, _>>()?;
        // First everything that is installed stays, in whatever version; where that cannot be, what is not essential may go.
        let chosen = match self.solve(request, &wanted, true) {
            // (Where that cannot be either, what could have gone is not why.)
            Err(ResolveError::Contradiction(_)) => self.solve(request, &wanted, false)?,
            solved => solved?,
        };
        let mut install = Vec::new();
        let mut kept = vec![false; self.names.len()];
        for number in chosen {
            let Some(candidate) = self.candidates.get(number) else { continue };
            if let Some(kept) = kept.get_mut(candidate.name) {
                *kept = true;
            }
            if let (false, Some(source)) = (candidate.is_installed, candidate.source) {
                install.push((source, candidate.package));
            }
        }
        install.sort_by_key(|(_, package)| package.name);
        let gone =
            |candidate: &&Candidate<'_>| candidate.is_installed && kept.get(candidate.name).is_none_or(|kept| !kept);
        let mut remove: Vec<_> = self.candidates.iter().filter(gone).map(|it| it.package).collect();
        remove.sort_by_key(|package| package.name);
        let asked = wanted.iter().filter_map(|number| self.candidates.get(*number));
        let mut kept: Vec<_> = asked.filter(|it| it.is_installed).map(|it| it.package).collect();
        kept.sort_by_key(|package| package.name);
        kept.dedup_by_key(|package| package.name);
        Ok(Solution { install, remove, kept })
    }

    /// Whether the recipe may remove a package.
    fn may_go(&self, name: &str) -> Result<(), ResolveError> {
        let Some(installed) = self.installed(name) else { return Ok(()) };
        let package = &installed.package;
        let why = match (package.is_essential(), package.is_protected(), package.is_held()) {
            (true, ..) => "essential",
            (_, true, _) => "protected (`Protected: yes`)",
            (.., true) => "on hold (dpkg's selection `hold`)",
            _ => return Ok(()),
        };
        Err(ResolveError::Stays { name: name.to_owned(), why })
    }

    /// The candidate that a wanted name means.
    fn wanted(&self, text: &str) -> Result<usize, ResolveError> {
        let (name, architecture, version) = parts(text);
        if let Some(wanted) = architecture.filter(|it| *it != self.architecture && *it != "all") {
            let architecture = self.architecture.to_owned();
            return Err(ResolveError::Architecture { name: name.into(), wanted: wanted.into(), architecture });
        }
        let of_name = self.of_name(name);
        let at = |number: &usize| self.candidates.get(*number);
        // What is on hold stays as it is, also where its name is given.
        let held = of_name.iter().copied().find(|it| at(it).is_some_and(|it| it.is_installed && it.package.is_held()));
        if let Some((number, held)) = held.and_then(|number| Some((number, at(&number)?))) {
            return match version.filter(|version| *version != held.package.version) {
                None => Ok(number),
                Some(wanted) => Err(ResolveError::Held {
                    name: name.into(),
                    there: held.package.version.to_owned(),
                    wanted: wanted.into(),
                }),
            };
        }
        if let Some(version) = version {
            let found = of_name.iter().copied().find(|it| at(it).is_some_and(|it| it.package.version == version));
            return found.ok_or_else(|| ResolveError::NoVersion {
                name: name.into(),
                version: version.into(),
                there: of_name.iter().filter_map(at).map(|it| it.package.version).collect::<Vec<_>>().join(", "),
            });
        }
        // What is offered; what is installed where that is later, or nothing is offered.
        let best = |numbers: &[usize]| numbers.iter().copied().max_by_key(|it| at(it).map(|it| it.version.clone()));
        if let Some(best) = best(of_name) {
            return Ok(best);
        }
        // Of one package both what is installed and what is offered may provide it.
        let by: Vec<usize> = self.providers.get(name).into_iter().flatten().map(|(number, _)| *number).collect();
        let names: BTreeSet<&str> = by.iter().filter_map(at).map(|it| it.package.name).collect();
        match (best(&by), names.len()) {
            (None, _) => Err(ResolveError::Unknown { name: name.into(), similar: self.similar(name) }),
            (Some(one), 1) => match at(&one) {
                // By its own name, as holds count.
                Some(one) => self.wanted(one.package.name),
                None => Ok(one),
            },
            _ => Err(ResolveError::Virtual { name: name.into(), by: names.into_iter().map(str::to_owned).collect() }),
        }
    }

    fn similar(&self, name: &str) -> Vec<String> {
        let mut names: Vec<_> = self.names.iter().map(|(it, _)| *it).filter(|it| it.contains(name)).collect();
        names.sort_by_key(|it| (it.len(), *it));
        names.into_iter().take(3).map(str::to_owned).collect()
    }

    fn solve(&self, request: &Request, wanted: &[usize], all_stay: bool) -> Result<Vec<usize>, ResolveError> {
        let provider = Provider { universe: self, asked: RefCell::new(Asked::default()) };
        let (mut requirements, mut constraints, mut soft) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut asked = provider.asked.borrow_mut();
            for number in wanted {
                let Some(candidate) = self.candidates.get(*number) else { continue };
                let text = format!("{} (= {})", candidate.package.name, candidate.version);
                requirements.push(asked.set_because(candidate.name, vec![*number], text, Why::Asked).into());
            }
            let is_removed = |name: &str| request.remove.iter().any(|it| parts(it).0 == name);
            for name in request.remove.iter().filter_map(|it| self.numbers.get(parts(it).0)) {
                constraints.push(asked.set(*name, Vec::new(), "(not to be installed)".into()));
            }
            for (number, candidate) in self.candidates.iter().enumerate().filter(|(_, it)| it.is_installed) {
                if is_removed(candidate.package.name) {
                    continue;
                }
                if candidate.package.is_held() {
                    let text = format!("{} (= {})", candidate.package.name, candidate.version);
                    requirements.push(asked.set_because(candidate.name, vec![number], text, Why::Held).into());
                } else if all_stay || candidate.package.is_essential() || candidate.package.is_protected() {
                    let of_name = self.of_name(candidate.package.name).to_vec();
                    let text = candidate.package.name.to_owned();
                    requirements.push(asked.set_because(candidate.name, of_name, text, Why::Installed).into());
                } else {
                    soft.push(id(number));
                }
            }
            // What cannot stay as it is may stay in another version.
            let others = self.candidates.iter().enumerate().filter(|(_, it)| !all_stay && !it.is_installed);
            let is_upgrade = |it: &Candidate<'_>| {
                self.of_name(it.package.name).iter().filter_map(|it| self.candidates.get(*it)).any(|it| it.is_installed)
            };
            soft.extend(others.filter(|(_, it)| is_upgrade(it) && !is_removed(it.package.name)).map(|(it, _)| id(it)));
        }
        let problem = Problem::new().requirements(requirements).constraints(constraints).soft_requirements(soft);
        let mut solver = Solver::new(provider);
        match solver.solve(problem) {
            Ok(chosen) => Ok(chosen.into_iter().map(|it| it.into_raw() as usize).collect()),
            Err(UnsolvableOrCancelled::Unsolvable(conflict)) => {
                Err(ResolveError::Contradiction(explain(solver.provider(), &conflict.graph(&solver))))
            }
            Err(UnsolvableOrCancelled::Cancelled(_)) => {
                let reason = Reason { what: "it was stopped".into(), ..Reason::default() };
                Err(ResolveError::Contradiction(vec![reason]))
            }
        }
    }
}

fn id(number: usize) -> SolvableId {
    SolvableId::from_raw(number as u32)
}

impl Provider<'_, '_> {
    fn candidate(&self, solvable: SolvableId) -> Option<&Candidate<'_>> {
        self.universe.candidates.get(solvable.into_raw() as usize)
    }

    /// What satisfies alternatives, in the order in which it is to be tried; `None` where there is nothing.
    fn requirement(&self, alternatives: &[Relation<'_>]) -> Option<ConditionalRequirement> {
        let mut sets: Vec<(bool, usize, Vec<usize>, String)> = Vec::new();
        for relation in alternatives {
            let Meant { named, mut providing } = self.universe.meant(relation);
            providing.sort_by_key(|number| self.rank(*number));
            let mut of_name: BTreeMap<usize, usize> = BTreeMap::new();
            for number in named.into_iter().chain(providing) {
                let Some(candidate) = self.universe.candidates.get(number) else { continue };
                match of_name.get(&candidate.name).and_then(|at| sets.get_mut(*at)) {
                    Some((is_installed, _, numbers, _)) => {
                        *is_installed |= candidate.is_installed;
                        numbers.push(number);
                    }
                    None => {
                        of_name.insert(candidate.name, sets.len());
                        sets.push((candidate.is_installed, candidate.name, vec![number], relation.to_string()));
                    }
                }
            }
        }
        // What is there already is enough.
        sets.sort_by_key(|(is_installed, ..)| !is_installed);
        let mut asked = self.asked.borrow_mut();
        let mut ids: Vec<VersionSetId> =
            sets.into_iter().map(|(_, name, numbers, text)| asked.set(name, numbers, text)).collect();
        let first = ids.pop()?;
        if ids.is_empty() {
            return Some(first.into());
        }
        ids.push(first);
        asked.unions.push(ids);
        Some(Requirement::Union(VersionSetUnionId(asked.unions.len() as u32 - 1)).into())
    }

    /// Which of several packages that provide a name comes first: what is pinned, then by priority, then by name.
    fn rank(&self, number: usize) -> (u8, &str) {
        let Some(candidate) = self.universe.candidates.get(number) else { return (u8::MAX, "") };
        // (Archives give packages other priorities than they have themselves: of pinned ones it is not known.)
        if candidate.is_pinned {
            return (0, candidate.package.name);
        }
        let priority = 1 + match candidate.package.get("Priority") {
            Some("required") => 0,
            Some("important") => 1,
            Some("standard") => 2,
            Some("optional") => 3,
            _ => 4,
        };
        (priority, candidate.package.name)
    }

    /// The name of a candidate.
    pub(super) fn name_of(&self, solvable: SolvableId) -> Option<String> {
        self.candidate(solvable).map(|it| it.package.name.to_owned())
    }

    /// The names in a need as it is written.
    pub(super) fn named_in(&self, wanted: &str) -> Vec<String> {
        relations(wanted).unwrap_or_default().into_iter().flatten().map(|it| it.name.to_owned()).collect()
    }

    /// How a need is written.
    pub(super) fn written(&self, set: VersionSetId) -> String {
        self.display_version_set(set).to_string()
    }

    /// The name of a package that was asked for by this need.
    pub(super) fn asked_for(&self, requirement: &Requirement) -> Option<String> {
        let Requirement::Single(set) = requirement else { return None };
        let asked = self.asked.borrow();
        let (name, .., why) = asked.sets.get(set.0 as usize)?;
        (*why == Why::Asked).then(|| self.universe.names.get(*name).map(|(name, _)| (*name).to_owned()))?
    }

    /// Why a need that no package has is one.
    pub(super) fn reason(&self, requirement: &Requirement) -> &'static str {
        let Requirement::Single(set) = requirement else { return "is needed" };
        match self.asked.borrow().sets.get(set.0 as usize).map(|(.., why)| *why) {
            Some(Why::Asked) => "was asked for",
            Some(Why::Installed) => "is installed",
            Some(Why::Held) => "is on hold",
            _ => "is needed",
        }
    }

    /// What there is of the packages that a need names, after a semicolon.
    pub(super) fn there(&self, wanted: &str) -> String {
        let names = self.named_in(wanted);
        let of_name = |name: &str| {
            let numbers = self.universe.of_name(name).iter();
            numbers
                .filter_map(|it| self.universe.candidates.get(*it))
                .map(|it| format!("{name} {}", it.version))
                .collect()
        };
        let there: Vec<String> = names.iter().flat_map(|name| -> Vec<String> { of_name(name) }).collect();
        if there.is_empty() { String::new() } else { format!("; there is {}", there.join(", ")) }
    }

    /// A requirement that nothing satisfies, by the name that it asks for.
    fn missing(&self, alternatives: &[Relation<'_>]) -> ConditionalRequirement {
        let text = alternatives.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        let mut asked = self.asked.borrow_mut();
        asked.missing.push(text);
        let name = self.universe.names.len() + asked.missing.len() - 1;
        let text = asked.missing.last().cloned().unwrap_or_default();
        asked.set(name, Vec::new(), text).into()
    }

    /// What of other packages may be there beside one that refuses this relation.
    fn refused(&self, own: usize, field: &str, relation: &Relation<'_>, into: &mut Vec<VersionSetId>) {
        let Meant { named, providing } = self.universe.meant(relation);
        let mut refused: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for number in named.into_iter().chain(providing) {
            let Some(candidate) = self.universe.candidates.get(number) else { continue };
            // A package does not refuse itself, nor what it provides (Policy 7.4).
            if candidate.name != own {
                refused.entry(candidate.name).or_default().push(number);
            }
        }
        let mut asked = self.asked.borrow_mut();
        for (name, refused) in refused {
            let Some((_, all)) = self.universe.names.get(name) else { continue };
            let allowed = all.iter().copied().filter(|it| !refused.contains(it)).collect();
            into.push(asked.set(name, allowed, format!("{field}: {relation}")));
        }
    }
}

impl Interner for Provider<'_, '_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl Display + '_ {
        self.candidate(solvable).map_or_else(String::new, |it| format!("{} {}", it.package.name, it.version))
    }

    fn display_merged_solvables(&self, solvables: &[SolvableId]) -> impl Display + '_ {
        let shown: Vec<String> = solvables.iter().map(|it| self.display_solvable(*it).to_string()).collect();
        shown.join(" | ")
    }

    fn display_name(&self, name: NameId) -> impl Display + '_ {
        let number = name.into_raw() as usize;
        match self.universe.names.get(number) {
            Some((name, _)) => (*name).to_owned(),
            None => self.asked.borrow().missing.get(number - self.universe.names.len()).cloned().unwrap_or_default(),
        }
    }

    fn display_version_set(&self, set: VersionSetId) -> impl Display + '_ {
        self.asked.borrow().sets.get(set.0 as usize).map(|(_, _, text, _)| text.clone()).unwrap_or_default()
    }

    fn display_string(&self, string: StringId) -> impl Display + '_ {
        self.asked.borrow().strings.get(string.0 as usize).cloned().unwrap_or_default()
    }

    fn version_set_name(&self, set: VersionSetId) -> NameId {
        NameId::from_raw(self.asked.borrow().sets.get(set.0 as usize).map_or(0, |(name, ..)| *name as u32))
    }

    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        NameId::from_raw(self.candidate(solvable).map_or(0, |it| it.name as u32))
    }

    fn version_sets_in_union(&self, union: VersionSetUnionId) -> impl Iterator<Item = VersionSetId> {
        self.asked.borrow().unions.get(union.0 as usize).cloned().unwrap_or_default().into_iter()
    }

    fn resolve_condition(&self, _: ConditionId) -> Condition {
        // No requirement here has a condition.
        Condition::Requirement(VersionSetId(0))
    }
}

impl DependencyProvider for Provider<'_, '_> {
    async fn filter_candidates(&self, candidates: &[SolvableId], set: VersionSetId, inverse: bool) -> Vec<SolvableId> {
        let asked = self.asked.borrow();
        let meant = asked.sets.get(set.0 as usize).map(|(_, numbers, ..)| numbers.as_slice()).unwrap_or_default();
        let is_meant = |it: &SolvableId| meant.contains(&(it.into_raw() as usize));
        candidates.iter().copied().filter(|it| is_meant(it) != inverse).collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates<SolvableId>> {
        let (_, numbers) = self.universe.names.get(name.into_raw() as usize)?;
        let candidates: Vec<SolvableId> = numbers.iter().map(|it| id(*it)).collect();
        let hint_dependencies_available = HintDependenciesAvailable::None;
        Some(Candidates { candidates, hint_dependencies_available, ..Candidates::default() })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, solvables: &mut [SolvableId]) {
        solvables.sort_by(|one, other| {
            let (one, other) = (self.candidate(*one), self.candidate(*other));
            let key = |it: Option<&Candidate<'_>>| it.map(|it| it.is_installed);
            key(other).cmp(&key(one)).then_with(|| other.map(|it| &it.version).cmp(&one.map(|it| &it.version)))
        });
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        let mut known = KnownDependencies::default();
        let Some(candidate) = self.candidate(solvable) else { return Dependencies::Known(known) };
        let text = |field: &str| candidate.package.get(field).unwrap_or_default();
        for field in NEEDS {
            match relations(text(field)) {
                Ok(all) => known
                    .requirements
                    .extend(all.iter().map(|it| self.requirement(it).unwrap_or_else(|| self.missing(it)))),
                Err(error) => {
                    let mut asked = self.asked.borrow_mut();
                    asked.strings.push(format!("its field {field} cannot be understood: {error}"));
                    return Dependencies::Unknown(StringId(asked.strings.len() as u32 - 1));
                }
            }
        }
        for field in REFUSES {
            let Ok(all) = relations(text(field)) else { continue };
            all.iter().flatten().for_each(|it| self.refused(candidate.name, field, it, &mut known.constrains));
        }
        Dependencies::Known(known)
    }
}
