//! Packages: what a recipe's names stand for, their files, and their installation.

pub(crate) mod ahead;
pub(crate) mod bootstrap;
mod changes;
mod debs;
mod indices;
mod install;
mod native;
mod normal;
mod order;
mod system;
mod trees;

use crate::{BuildError, BuildRequest, LockMode, Result, base::ImportedBase, stage::Stage};
use aule_deb::{
    index::{Package, Packages},
    resolve::{Reason, Request, ResolveError, Source, Universe},
};
use aule_recipe::{Base, Diagnostics, KeptPackage, Lock, LockedBase, LockedPackage, Merged, Sha256};
use aule_tree::{Timestamp, TreePath};
use indices::{Fetched, Left};
pub use install::SandboxTools;
use serde::Serialize;
use std::collections::BTreeSet;
use system::{System, Trusted, preferences};
pub use trees::{Forgotten, forget_trees};

/// What has to be done to the base; it decides the result together with the base itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// What comes, by name.
    pub(crate) install: Vec<Deb>,
    /// The names of what goes.
    pub(crate) remove: Vec<String>,
    /// Those of the new ones that nobody asked for by name: apt may take them away when nobody needs them.
    pub(crate) automatic: Vec<String>,
    /// Those that the base has and nobody asked for before: from now on somebody does.
    pub(crate) manual: Vec<String>,
    /// What was asked for and is in the base as it should be. It changes nothing of the result.
    #[serde(skip)]
    pub(crate) kept: Vec<KeptPackage>,
    /// Debian's name of the image's architecture.
    pub(crate) architecture: String,
}

/// A package to install, as the lock pins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Deb {
    pub(crate) name: String,
    pub(crate) architecture: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
    // Where it was does not change what it is.
    #[serde(skip)]
    pub(crate) locked: LockedPackage,
    /// How much room it takes, in KiB, as it says itself.
    #[serde(skip)]
    pub(crate) installed_size: Option<u64>,
}

impl Plan {
    /// Nothing has to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.install.is_empty() && self.remove.is_empty() && self.manual.is_empty()
    }

    /// What the lock pins.
    pub(crate) fn pins(&self) -> Vec<LockedPackage> {
        self.install.iter().map(|deb| deb.locked.clone()).collect()
    }
}

/// What a source of the solver brings, beside its packages.
enum Origin {
    Lock(Vec<LockedPackage>),
    Index(Fetched),
}

/// What is asked for, and of which system.
struct Question<'a> {
    merged: &'a Merged,
    /// The recipe key of `install`.
    key: &'static str,
    install: &'a [String],
    remove: &'a [String],
    /// Whether all that is essential is asked for, too.
    essential: bool,
    system: &'a System,
    /// What the lock has of it.
    locked: &'a [LockedPackage],
    /// What the lock says that the base had of it.
    kept: &'a [KeptPackage],
}

/// Finds what has to be done to the base.
pub(crate) fn plan(request: &BuildRequest<'_>, merged: &Merged, imported: &ImportedBase) -> Result<Plan> {
    let is_locked = is_of_this_base(request, &request.lock, merged, imported.lock.as_ref());
    plan_with(request, merged, imported, is_locked)
}

/// As [`plan`], for the base that the lock was written beside, whatever image that was.
pub(crate) fn plan_again(request: &BuildRequest<'_>, merged: &Merged, imported: &ImportedBase) -> Result<Plan> {
    plan_with(request, merged, imported, true)
}

fn plan_with(request: &BuildRequest<'_>, merged: &Merged, imported: &ImportedBase, is_locked: bool) -> Result<Plan> {
    let wanted = &merged.recipe.packages;
    if wanted.is_empty() {
        return Ok(Plan::default());
    }
    let stage = Stage::open(request.store, std::slice::from_ref(&imported.base.layer), Timestamp::from_seconds(0))?;
    let system = System::read(&stage, merged)?;
    let question = Question {
        merged,
        key: "packages.install",
        install: &wanted.install,
        remove: &wanted.remove,
        essential: false,
        system: &system,
        locked: if is_locked { &request.lock.packages } else { &[] },
        kept: if is_locked { &request.lock.kept } else { &[] },
    };
    answer(request, &question, || {
        for path in preferences(&stage)? {
            request.observer.note(&format!("/{path} of the image prefers packages to others, which is not read here"));
        }
        sources(request, merged, &stage)
    })
}

/// Does what the plan says to the tree.
pub(crate) fn install(
    request: &BuildRequest<'_>,
    merged: &Merged,
    stage: &mut Stage,
    plan: &Plan,
    boot_mount: Option<&TreePath>,
) -> Result<()> {
    install::install(request, merged, stage, plan, boot_mount, &|stage| sources(request, merged, stage))
}

/// Where packages of a tree come from.
fn sources(request: &BuildRequest<'_>, merged: &Merged, stage: &Stage) -> Result<Vec<Trusted>> {
    let mut sources = System::sources(stage, merged, request.inputs)?;
    // A base of packages whose archive only this machine knows does not say where it is from.
    if let (Base::Packages { packages }, None) = (&merged.recipe.base, &request.base)
        && packages.uri.is_none()
    {
        sources.push(bootstrap::source(request, merged, packages)?);
    }
    Ok(sources)
}

/// Whether what is locked was looked for beside the base of now: packages of another release are no answer.
fn is_of_this_base(request: &BuildRequest<'_>, lock: &Lock, merged: &Merged, now: Option<&LockedBase>) -> bool {
    match (&merged.recipe.base, &request.base) {
        (_, Some(_)) => true,
        (Base::Packages { packages }, None) => lock.suite.as_ref() == Some(&packages.suite_line()),
        (Base::Image(_), None) => match (&lock.base, now) {
            (Some(then), Some(now)) => then.url == now.url,
            // Nothing is known of local images.
            _ => lock.suite.is_none(),
        },
    }
}

/// Finds what has to be done: from the lock alone where that answers the question, else from the signed indices, with what
/// is locked preferred.
fn answer(
    request: &BuildRequest<'_>,
    question: &Question<'_>,
    sources: impl FnOnce() -> Result<Vec<Trusted>>,
) -> Result<Plan> {
    if request.store.is_only_looked_at() {
        return ahead::answer(request, question, sources);
    }
    let (system, locked) = (question.system, question.locked);
    let (there, missing) = match request.lock_mode {
        LockMode::Locked => {
            debs::fetch(request, debs::fitting(locked, &system.architecture))?;
            (locked.to_vec(), Vec::new())
        }
        // What cannot be had any more is looked for in the indices.
        LockMode::Add => {
            let missing = debs::fetch_what_can_be(request, debs::fitting(locked, &system.architecture))?;
            let (missing, there) = locked.iter().cloned().partition(|it| missing.contains(it));
            (there, missing)
        }
    };
    let index = debs::index(request, &system.architecture, &there)?;
    if missing.is_empty() {
        match from_lock(question, &index, &there) {
            Ok(plan) => {
                note_what_goes(request, question, &plan);
                return Ok(plan);
            }
            Err(_) if request.lock_mode == LockMode::Add => {}
            Err(reason) => return Err(not_in_the_lock(request, &reason)),
        }
    }
    let wanted = &question.merged.recipe.packages;
    let fetched = indices::fetch(request, system, &sources()?, wanted, &mut Left::all())?;
    // The very file may be at another place now; else another version takes its place.
    let mut text: String = index.iter().map(|it| format!("{}\n\n", it.paragraph().text())).collect();
    let mut pinned = there;
    for (paragraph, package) in listed(&missing, &fetched).0 {
        text.push_str(&paragraph);
        pinned.push(package);
    }
    let index = Packages::parse(text).map_err(|error| BuildError::Packages(error.to_string()))?;
    from_all(request, question, (index, pinned), fetched)
}

/// What the indices say of locked packages, each with where it is by them; and those of which they say nothing.
fn listed(packages: &[LockedPackage], fetched: &[Fetched]) -> (Vec<(String, LockedPackage)>, Vec<LockedPackage>) {
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    if packages.is_empty() {
        return (found, unknown);
    }
    let by_name: Vec<_> = fetched.iter().map(|it| (it, it.packages.by_name())).collect();
    for package in packages {
        let of_its_name = by_name.iter().flat_map(|(fetched, names)| {
            let numbers = names.get(package.name.as_str()).into_iter().flatten();
            numbers.filter_map(|number| Some((*fetched, fetched.packages.get(*number)?)))
        });
        // The very file that the lock pins, by its digest.
        let mut same = of_its_name.filter_map(|(fetched, listed)| {
            let now = locked(fetched, &listed).ok().filter(|it| it.sha256 == package.sha256)?;
            Some((format!("{}\n\n", listed.paragraph().text()), now))
        });
        match same.next() {
            Some(one) => found.push(one),
            None => unknown.push(package.clone()),
        }
    }
    (found, unknown)
}

/// The answer of the lock alone, whose packages `index` describes; else the reason why it is none, in words.
fn from_lock(question: &Question<'_>, index: &Packages, pinned: &[LockedPackage]) -> std::result::Result<Plan, String> {
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
fn from_all(
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

/// The most names that a sentence has.
const NAMES_MAX: usize = 5;

/// `a, b, c, d, e and 3 more`
fn some_of(names: &[&str]) -> String {
    let more = match names.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", "))
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

/// Says what has to go that nobody named.
fn note_what_goes(request: &BuildRequest<'_>, question: &Question<'_>, plan: &Plan) {
    let is_named = |name: &str| question.remove.iter().any(|it| it.split(':').next() == Some(name));
    let others: Vec<&str> = plan.remove.iter().map(String::as_str).filter(|it| !is_named(it)).collect();
    if !others.is_empty() {
        let others = others.join(", ");
        request
            .observer
            .note(&format!("these packages are removed, too, as they cannot stay without or beside others: {others}"));
    }
}

/// The refusal of `--locked`; the reason is told beside it.
fn not_in_the_lock(request: &BuildRequest<'_>, reason: &str) -> BuildError {
    let message = "the lock does not hold the packages that the recipe asks for, or other ones than its base needs; \
                   run `aule lock` and commit the result";
    request.observer.note(&format!("the lock is not enough: {reason}"));
    BuildError::Locked(message.into())
}

/// What the lock pins goes before what any source offers (as a pin would have it, apt_preferences(5)).
const LOCKED: i32 = 990;
/// Where that leads to nothing, it counts only for what no source has any more.
const FORGOTTEN: i32 = 0;

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

fn locked(source: &Fetched, package: &Package<'_>) -> Result<LockedPackage> {
    let wrong = |field: &str| {
        BuildError::Packages(format!(
            "the index {} says no {field} of {} that could be used",
            source.name, package.name
        ))
    };
    let path = package.get("Filename").and_then(archive_path);
    let sha256: Option<Sha256> = package.get("SHA256").and_then(|it| it.parse().ok());
    Ok(LockedPackage {
        name: package.name.to_owned(),
        architecture: package.architecture.to_owned(),
        version: package.version.to_owned(),
        url: format!("{}/{}", source.uri, path.ok_or_else(|| wrong("path"))?),
        size: package.get("Size").and_then(|it| it.parse().ok()).ok_or_else(|| wrong("size"))?,
        sha256: sha256.ok_or_else(|| wrong("SHA-256"))?,
        variants: Vec::new(),
    })
}

/// The path of a package below its archive; indices of one directory begin it with `./`. It must not lead out.
fn archive_path(name: &str) -> Option<&str> {
    let path = name.trim_start_matches("./");
    path.split('/').all(|part| !matches!(part, "" | "." | "..")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_an_archive() {
        for (name, wanted) in [
            ("pool/main/a/a_1_all.deb", Some("pool/main/a/a_1_all.deb")),
            ("./a_1_all.deb", Some("a_1_all.deb")),
            ("././a.deb", Some("a.deb")),
            (".a/b.deb", Some(".a/b.deb")),
            ("", None),
            ("./", None),
            ("/a.deb", None),
            ("./../a.deb", None),
            (".//a.deb", None),
            ("a//b.deb", None),
            ("a/./b.deb", None),
            ("../a.deb", None),
        ] {
            assert_eq!(archive_path(name), wanted, "{name}");
        }
    }
}
