//! The answer to a question of packages: of the lock alone, or of the lock and the indices together.

use super::{Deb, Plan, Question, indices::Fetched, note_what_goes, pins::locked, some_of};
use crate::{BuildError, BuildRequest, Result};
use aule_deb::{
    index::{Package, Packages},
    resolve::{Reason, Request, ResolveError, Source, Universe},
};
use aule_recipe::{Diagnostics, KeptPackage, LockedPackage};
use std::collections::BTreeSet;

/// What the lock pins goes before what any source offers (as a pin would have it, apt_preferences(5)).
pub(super) const LOCKED: i32 = 990;
/// Where that leads to nothing, it counts only for what no source has any more.
const FORGOTTEN: i32 = 0;

/// What a source of the solver brings, beside its packages.
enum Origin {
    Lock(Vec<LockedPackage>),
    Index(Fetched),
}

/// The answer of the lock alone, whose packages `index` describes; else the reason why it is none, in words.
pub(super) fn from_lock(
    question: &Question<'_>,
    index: &Packages,
    pinned: &[LockedPackage],
) -> std::result::Result<Plan, String> {
    // A suite without anything essential is none: the lock knows nothing of it then.
    if question.essential && index.is_empty() {
        return Err("it holds no packages".into());
    }
    let first = solve(question, &[(index, LOCKED, &Origin::Lock(pinned.to_vec()))]);
    // It may hold more than is needed now.
    match first.and_then(|first| alone(question, first)) {
        Ok(plan) => question.unknown(&plan).map_or(Ok(plan), Err),
        Err(Unsolved::Resolve(error)) => Err(in_short(&error)),
        Err(Unsolved::Build(error)) => Err(error.to_string()),
    }
}

/// The answer of the lock and the indices together.
pub(super) fn from_all(
    request: &BuildRequest<'_>,
    question: &Question<'_>,
    (index, pinned): (Packages, Vec<LockedPackage>),
    fetched: Vec<Fetched>,
) -> Result<Plan> {
    let mut offered: Vec<(Packages, i32, Origin)> = Vec::new();
    for mut fetched in fetched {
        let packages = std::mem::take(&mut fetched.packages);
        offered.push((packages, fetched.priority, Origin::Index(fetched)));
    }
    let lock = Origin::Lock(pinned);
    let (mut loosened, mut because) = (BTreeSet::new(), String::new());
    let solved = loop {
        let (pinned, forgotten) = parted(&index, &loosened)?;
        let mut all = vec![(&pinned, LOCKED, &lock), (&forgotten, FORGOTTEN, &lock)];
        all.extend(offered.iter().map(|(packages, priority, origin)| (packages, *priority, origin)));
        let solved = solve(question, &all);
        let Err(Unsolved::Resolve(ResolveError::Contradiction(reasons))) = &solved else { break solved };
        let in_the_way = in_the_way(&pinned, reasons);
        if in_the_way.is_empty() {
            break solved;
        }
        if let (true, Some(reason)) = (loosened.is_empty(), reasons.first()) {
            because.clone_from(&reason.what);
        }
        loosened.extend(in_the_way);
    };
    if solved.is_ok() && !loosened.is_empty() {
        let names: Vec<&str> = loosened.iter().map(String::as_str).collect();
        let names = some_of(&names);
        request.observer.note(&format!(
            "{names} of the lock's packages cannot stay beside what is asked for ({because}) and are chosen anew"
        ));
    }
    let plan = solved.and_then(|first| alone(question, first)).map_err(|error| match error {
        Unsolved::Resolve(error) => at_its_place(question, error),
        Unsolved::Build(error) => error,
    })?;
    note_what_goes(request, question, &plan);
    Ok(plan)
}

/// The packages of an index, without those of some names, and those.
fn parted(index: &Packages, names: &BTreeSet<String>) -> Result<(Packages, Packages)> {
    let (mut others, mut of_names) = (String::new(), String::new());
    for package in index.iter() {
        let text = if names.contains(package.name) { &mut of_names } else { &mut others };
        text.push_str(package.paragraph().text());
        text.push_str("\n\n");
    }
    let parsed = |text| Packages::parse(text).map_err(|error| BuildError::Packages(error.to_string()));
    Ok((parsed(others)?, parsed(of_names)?))
}

/// The names of pinned packages that a contradiction is about, with all that were built from the same sources, as these often stand
/// together only; of all where it is about none.
fn in_the_way(pinned: &Packages, reasons: &[Reason]) -> BTreeSet<String> {
    let source = |package: &Package<'_>| {
        let source = package.get("Source").unwrap_or(package.name);
        source.split(' ').next().unwrap_or(source).to_owned()
    };
    let is_named = |package: &Package<'_>| reasons.iter().any(|it| it.names.contains(package.name));
    let sources: BTreeSet<String> = pinned.iter().filter(is_named).map(|it| source(&it)).collect();
    let goes = pinned.iter().filter(|it| sources.is_empty() || sources.contains(&source(it)));
    goes.map(|it| it.name.to_owned()).collect()
}

/// The answer that the chosen packages give when they are all there is, which is what the lock gives the next time: among more of
/// them other alternatives may have been met first.
fn alone(question: &Question<'_>, mut answer: Solved) -> std::result::Result<Plan, Unsolved> {
    loop {
        let index = Packages::parse(answer.chosen).map_err(|error| BuildError::Packages(error.to_string()))?;
        let next = solve(question, &[(&index, LOCKED, &Origin::Lock(answer.plan.pins()))])?;
        // Every round has some fewer packages, or it is the last.
        if next.plan.install.len() >= answer.plan.install.len() {
            return Ok(next.plan);
        }
        answer = next;
    }
}

/// A solution.
struct Solved {
    plan: Plan,
    /// What the packages that come say of themselves, in the form of an index.
    chosen: String,
}

/// Why there is no plan.
enum Unsolved {
    /// There is no solution.
    Resolve(ResolveError),
    /// Something else failed.
    Build(BuildError),
}

impl From<BuildError> for Unsolved {
    fn from(error: BuildError) -> Self {
        Unsolved::Build(error)
    }
}

impl Question<'_> {
    /// What the lock does not know: a name that was asked for, which the base has in a version of which the lock does not say
    /// that it was taken. (With what the sources offer, another one might be.)
    fn unknown(&self, plan: &Plan) -> Option<String> {
        let unknown = plan.kept.iter().find(|kept| !self.kept.contains(kept))?;
        Some(format!("it does not say that {} {} of the base is what was asked for", unknown.name, unknown.version))
    }
}

fn solve(question: &Question<'_>, sources: &[(&Packages, i32, &Origin)]) -> std::result::Result<Solved, Unsolved> {
    let system = question.system;
    let given: Vec<Source<'_>> = sources
        .iter()
        .map(|(packages, priority, _)| Source { packages, priority: *priority, is_pinned: *priority == LOCKED })
        .collect();
    let index = |error: aule_deb::index::IndexError| BuildError::Packages(error.to_string());
    let mut wanted = question.install.to_vec();
    if question.essential {
        let essential = sources.iter().flat_map(|(packages, ..)| packages.iter()).filter(Package::is_essential);
        let fits = |it: &Package<'_>| it.architecture == system.architecture || it.architecture == "all";
        let essential: BTreeSet<&str> = essential.filter(fits).map(|it| it.name).collect();
        wanted.extend(essential.into_iter().map(str::to_owned));
    }
    // A set: the order of a recipe's list changes nothing.
    wanted.sort_unstable();
    wanted.dedup();
    let universe = Universe::new(&system.architecture, &system.installed, &given, &wanted).map_err(index)?;
    let asked = Request { install: wanted, remove: question.remove.to_vec() };
    let solution = universe.resolve(&asked).map_err(Unsolved::Resolve)?;
    let (mut install, mut chosen) = (Vec::new(), String::new());
    for (source, package) in &solution.install {
        chosen.push_str(package.paragraph().text());
        chosen.push_str("\n\n");
        let (_, _, origin) = sources.get(*source).ok_or(BuildError::Internal("a package is of no source"))?;
        install.push(deb(origin, package)?);
    }
    let asked: BTreeSet<&str> = asked.install.iter().filter_map(|it| it.split([':', '=']).next()).collect();
    let there: BTreeSet<&str> = system.installed.iter().filter(|it| it.is_installed()).map(|it| it.name).collect();
    let names = solution.install.iter().map(|(_, package)| package.name);
    let automatic = names.filter(|name| !asked.contains(name) && !there.contains(name)).map(str::to_owned).collect();
    let manual = asked.iter().filter(|name| system.automatic.contains(**name)).map(|it| (*it).to_owned()).collect();
    let remove = solution.remove.iter().map(|package| package.name.to_owned()).collect();
    let kept = |package: &Package<'_>| KeptPackage { name: package.name.into(), version: package.version.into() };
    let kept = solution.kept.iter().map(kept).collect();
    let plan = Plan { install, remove, automatic, manual, kept, architecture: system.architecture.clone() };
    Ok(Solved { plan, chosen })
}

/// An error in one line.
fn in_short(error: &ResolveError) -> String {
    match error {
        ResolveError::Contradiction(reasons) => {
            let what = reasons.first().map_or("it is not known why", |it| it.what.as_str());
            format!("the packages cannot be installed together: {what}")
        }
        error => error.to_string(),
    }
}

/// An error at the place of the name that it is about.
fn at_its_place(question: &Question<'_>, error: ResolveError) -> BuildError {
    let (mut list, mut key) = (question.install, question.key);
    let name = match &error {
        ResolveError::Index(_) => return BuildError::Packages(error.to_string()),
        ResolveError::Stays { name, .. } => {
            (list, key) = (question.remove, "packages.remove");
            Some(name)
        }
        ResolveError::Unknown { name, .. }
        | ResolveError::NoVersion { name, .. }
        | ResolveError::Architecture { name, .. }
        | ResolveError::Held { name, .. }
        | ResolveError::Virtual { name, .. } => Some(name),
        ResolveError::Contradiction(reasons) => reasons.first().and_then(|it| it.asked.first()),
    };
    let number = list.iter().position(|it| it.split([':', '=']).next() == name.map(String::as_str));
    let key = number.map_or_else(|| key.to_owned(), |number| format!("{key}[{number}]"));
    let diagnostic = question.merged.origins.diagnostic(&key, in_short(&error));
    let diagnostic = match &error {
        ResolveError::Unknown { similar, .. } if !similar.is_empty() => {
            diagnostic.help(format!("there is {}", similar.join(", ")))
        }
        ResolveError::Contradiction(reasons) => {
            // The message has the first of them.
            let reasons = reasons.iter().enumerate();
            let lines = reasons.flat_map(|(number, reason)| {
                let what = (number > 0).then(|| format!("also: {}", reason.what));
                what.into_iter().chain(reason.ways.iter().cloned())
            });
            lines.fold(diagnostic, aule_recipe::Diagnostic::note)
        }
        _ => diagnostic,
    };
    BuildError::Recipe(Diagnostics::from(diagnostic))
}

fn deb(origin: &Origin, package: &Package<'_>) -> Result<Deb> {
    let locked = match origin {
        Origin::Index(fetched) => locked(fetched, package)?,
        Origin::Lock(pinned) => {
            let same = |it: &&LockedPackage| {
                (it.name.as_str(), it.architecture.as_str(), it.version.as_str())
                    == (package.name, package.architecture, package.version)
            };
            pinned.iter().find(same).cloned().ok_or(BuildError::Internal("a package of the lock is not in it"))?
        }
    };
    Ok(Deb {
        name: locked.name.clone(),
        architecture: locked.architecture.clone(),
        version: locked.version.clone(),
        sha256: locked.sha256.to_string(),
        locked,
        installed_size: package.get("Installed-Size").and_then(|it| it.parse().ok()),
    })
}
