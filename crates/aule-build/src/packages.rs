//! Packages: what a recipe's names stand for, their files, and their installation.

mod changes;
mod debs;
mod indices;
mod install;
mod normal;
mod order;
mod system;

use crate::{BuildError, BuildRequest, LockMode, Result, base::ImportedBase, stage::Stage};
use aule_deb::{
    index::{Package, Packages},
    resolve::{Request, ResolveError, Source, Universe},
};
use aule_recipe::{Diagnostics, LockedPackage, Merged, Sha256};
use aule_tree::Timestamp;
use indices::Fetched;
pub use install::SandboxTools;
pub(crate) use install::install;
use serde::Serialize;
use std::collections::BTreeSet;
use system::System;

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

/// Finds what has to be done: from the lock alone where that answers the recipe, else from the signed indices, with what is
/// locked preferred.
pub(crate) fn plan(request: &BuildRequest<'_>, merged: &Merged, imported: &ImportedBase) -> Result<Plan> {
    let wanted = &merged.recipe.packages;
    if wanted.is_empty() {
        return Ok(Plan::default());
    }
    let stage = Stage::open(request.store, std::slice::from_ref(&imported.base.layer), Timestamp::from_seconds(0))?;
    let system = System::read(&stage, merged)?;
    let locked = &request.lock.packages;
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
    let pinned: Vec<LockedPackage> = if index.is_empty() { Vec::new() } else { locked.clone() };
    let own = solve(merged, &system, &[(&index, LOCKED, &Origin::Lock(pinned.clone()))]);
    match own {
        Ok(plan) => return Ok(plan),
        Err(_) if request.lock_mode == LockMode::Add => {}
        Err(error) => {
            let message = "the lock does not hold the packages that the recipe asks for, or other ones than its base needs; \
                           run `aule lock` and commit the result";
            request.observer.note(&error.to_string());
            return Err(BuildError::Locked(message.into()));
        }
    }
    let fetched = indices::fetch(request, &system, &System::sources(&stage, merged, request.inputs)?, wanted)?;
    let mut sources: Vec<(Packages, i32, Origin)> = vec![(index, LOCKED, Origin::Lock(pinned))];
    for mut fetched in fetched {
        let packages = std::mem::take(&mut fetched.packages);
        sources.push((packages, fetched.priority, Origin::Index(fetched)));
    }
    let sources: Vec<_> = sources.iter().map(|(packages, priority, origin)| (packages, *priority, origin)).collect();
    solve(merged, &system, &sources)
}

/// What the lock pins goes before what any source offers (as a pin would have it, apt_preferences(5)).
const LOCKED: i32 = 990;

fn solve(merged: &Merged, system: &System, sources: &[(&Packages, i32, &Origin)]) -> Result<Plan> {
    let wanted = &merged.recipe.packages;
    let given: Vec<Source<'_>> =
        sources.iter().map(|(packages, priority, _)| Source { packages, priority: *priority }).collect();
    let index = |error: aule_deb::index::IndexError| BuildError::Packages(error.to_string());
    let universe = Universe::new(&system.architecture, &system.installed, &given, &wanted.install).map_err(index)?;
    let question = Request { install: wanted.install.clone(), remove: wanted.remove.clone() };
    let solution = universe.resolve(&question).map_err(|error| at_its_place(merged, error))?;
    let mut install = Vec::new();
    for (source, package) in &solution.install {
        let (_, _, origin) = sources.get(*source).ok_or(BuildError::Internal("a package is of no source"))?;
        install.push(deb(origin, package)?);
    }
    let asked: BTreeSet<&str> = wanted.install.iter().filter_map(|it| it.split([':', '=']).next()).collect();
    let there: BTreeSet<&str> =
        system.installed.iter().filter(|it| it.state() == Some("installed")).map(|it| it.name).collect();
    let names = solution.install.iter().map(|(_, package)| package.name);
    let automatic = names.filter(|name| !asked.contains(name) && !there.contains(name)).map(str::to_owned).collect();
    let remove = solution.remove.iter().map(|package| package.name.to_owned()).collect();
    Ok(Plan { install, remove, automatic, architecture: system.architecture.clone() })
}

/// An error at the place of the name that it is about.
fn at_its_place(merged: &Merged, error: ResolveError) -> BuildError {
    let name = match &error {
        ResolveError::Index(_) => return BuildError::Packages(error.to_string()),
        ResolveError::Unknown { name, .. }
        | ResolveError::NoVersion { name, .. }
        | ResolveError::Architecture { name, .. }
        | ResolveError::Virtual { name, .. } => Some(name.as_str()),
        ResolveError::Contradiction(_) => None,
    };
    let install = &merged.recipe.packages.install;
    let number = name.and_then(|name| install.iter().position(|it| it.split([':', '=']).next() == Some(name)));
    let key = number.map_or_else(|| "packages.install".to_owned(), |number| format!("packages.install[{number}]"));
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
