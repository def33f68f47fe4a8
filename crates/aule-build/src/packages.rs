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
    resolve::{Request, ResolveError, Source, Universe},
};
use aule_recipe::{Base, Diagnostics, Lock, LockedBase, LockedPackage, Merged, Sha256};
use aule_tree::{Timestamp, TreePath};
use indices::Fetched;
pub use install::SandboxTools;
use serde::Serialize;
use std::collections::BTreeSet;
use system::{System, Trusted};
pub use trees::forget_trees;

/// What has to be done to the base; it decides the result together with the base itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// What comes, by name.
    pub(crate) install: Vec<Deb>,
    /// The names of what goes.
    pub(crate) remove: Vec<String>,
    /// Those of the new ones that nobody asked for by name: apt may take them away when nobody needs them.
    pub(crate) automatic: Vec<String>,
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
        self.install.is_empty() && self.remove.is_empty()
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
}

/// Finds what has to be done to the base.
pub(crate) fn plan(request: &BuildRequest<'_>, merged: &Merged, imported: &ImportedBase) -> Result<Plan> {
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
        locked: match is_of_this_base(request, &request.lock, merged, imported.lock.as_ref()) {
            true => &request.lock.packages,
            false => &[],
        },
    };
    answer(request, &question, || sources(request, merged, &stage))
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
    let index = debs::index(request, &system.architecture, locked);
    let index = match (index, request.lock_mode) {
        (Ok(index), _) => index,
        // What cannot be had any more is looked for anew.
        (Err(BuildError::Download(error)), LockMode::Add) => {
            request.observer.note(&format!("a package of the lock cannot be fetched: {error}"));
            Packages::default()
        }
        (Err(error), _) => return Err(error),
    };
    let pinned: Vec<LockedPackage> = if index.is_empty() { Vec::new() } else { locked.to_vec() };
    // A suite without anything essential is none: the lock knows nothing of it then.
    let own = match question.essential && index.is_empty() {
        true => Err(BuildError::Packages("the lock holds no packages".into())),
        false => solve(question, &[(&index, LOCKED, &Origin::Lock(pinned.clone()))]),
    };
    match own {
        Ok(plan) => return Ok(plan),
        Err(_) if request.lock_mode == LockMode::Add => {}
        Err(error) => {
            return Err(not_in_the_lock(request, &error));
        }
    }
    let fetched = indices::fetch(request, system, &sources()?, &question.merged.recipe.packages)?;
    let mut sources: Vec<(Packages, i32, Origin)> = vec![(index, LOCKED, Origin::Lock(pinned))];
    for mut fetched in fetched {
        let packages = std::mem::take(&mut fetched.packages);
        sources.push((packages, fetched.priority, Origin::Index(fetched)));
    }
    let sources: Vec<_> = sources.iter().map(|(packages, priority, origin)| (packages, *priority, origin)).collect();
    solve(question, &sources)
}

/// The refusal of `--locked`; the reason is told beside it.
fn not_in_the_lock(request: &BuildRequest<'_>, reason: &BuildError) -> BuildError {
    let message = "the lock does not hold the packages that the recipe asks for, or other ones than its base needs; \
                   run `aule lock` and commit the result";
    request.observer.note(&reason.to_string());
    BuildError::Locked(message.into())
}

/// What the lock pins goes before what any source offers (as a pin would have it, apt_preferences(5)).
const LOCKED: i32 = 990;

fn solve(question: &Question<'_>, sources: &[(&Packages, i32, &Origin)]) -> Result<Plan> {
    let system = question.system;
    let given: Vec<Source<'_>> =
        sources.iter().map(|(packages, priority, _)| Source { packages, priority: *priority }).collect();
    let index = |error: aule_deb::index::IndexError| BuildError::Packages(error.to_string());
    let mut wanted = question.install.to_vec();
    if question.essential {
        let essential = sources.iter().flat_map(|(packages, ..)| packages.iter()).filter(Package::is_essential);
        let fits = |it: &Package<'_>| it.architecture == system.architecture || it.architecture == "all";
        let essential: BTreeSet<&str> = essential.filter(fits).map(|it| it.name).collect();
        wanted.extend(essential.into_iter().map(str::to_owned));
    }
    let universe = Universe::new(&system.architecture, &system.installed, &given, &wanted).map_err(index)?;
    let asked = Request { install: wanted, remove: question.remove.to_vec() };
    let solution = universe.resolve(&asked).map_err(|error| at_its_place(question, error))?;
    let mut install = Vec::new();
    for (source, package) in &solution.install {
        let (_, _, origin) = sources.get(*source).ok_or(BuildError::Internal("a package is of no source"))?;
        install.push(deb(origin, package)?);
    }
    let asked: BTreeSet<&str> = asked.install.iter().filter_map(|it| it.split([':', '=']).next()).collect();
    let there: BTreeSet<&str> =
        system.installed.iter().filter(|it| it.state() == Some("installed")).map(|it| it.name).collect();
    let names = solution.install.iter().map(|(_, package)| package.name);
    let automatic = names.filter(|name| !asked.contains(name) && !there.contains(name)).map(str::to_owned).collect();
    let remove = solution.remove.iter().map(|package| package.name.to_owned()).collect();
    Ok(Plan { install, remove, automatic, architecture: system.architecture.clone() })
}

/// An error at the place of the name that it is about.
fn at_its_place(question: &Question<'_>, error: ResolveError) -> BuildError {
    let name = match &error {
        ResolveError::Index(_) => return BuildError::Packages(error.to_string()),
        ResolveError::Unknown { name, .. }
        | ResolveError::NoVersion { name, .. }
        | ResolveError::Architecture { name, .. }
        | ResolveError::Virtual { name, .. } => Some(name.as_str()),
        ResolveError::Contradiction(_) => None,
    };
    let (merged, install, list) = (question.merged, question.install, question.key);
    let number = name.and_then(|name| install.iter().position(|it| it.split([':', '=']).next() == Some(name)));
    let key = number.map_or_else(|| list.to_owned(), |number| format!("{list}[{number}]"));
    let diagnostic = merged.origins.diagnostic(&key, error.to_string());
    let diagnostic = match &error {
        ResolveError::Unknown { similar, .. } if !similar.is_empty() => {
            diagnostic.help(format!("there is {}", similar.join(", ")))
        }
        _ => diagnostic,
    };
    BuildError::Recipe(Diagnostics::from(diagnostic))
}

fn deb(origin: &Origin, package: &Package<'_>) -> Result<Deb> {
    let locked = match origin {
        Origin::Index(fetched) => locked(fetched, package)?,
        Origin::Lock(pinned) => {
            let same = |it: &&LockedPackage| it.name == package.name && it.version == package.version;
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
    let path = package
        .get("Filename")
        .filter(|path| !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | "..")));
    let sha256: Option<Sha256> = package.get("SHA256").and_then(|it| it.parse().ok());
    Ok(LockedPackage {
        name: package.name.to_owned(),
        architecture: package.architecture.to_owned(),
        version: package.version.to_owned(),
        url: format!("{}/{}", source.uri, path.ok_or_else(|| wrong("path"))?),
        size: package.get("Size").and_then(|it| it.parse().ok()).ok_or_else(|| wrong("size"))?,
        sha256: sha256.ok_or_else(|| wrong("SHA-256"))?,
    })
}
