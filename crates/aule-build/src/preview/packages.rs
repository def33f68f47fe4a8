//! The packages of a build that is looked ahead at, compared with those of an earlier one, of the lock or of the base.

use super::{
    base::BaseAhead,
    report::{Against, Change, Comparison, Download, DownloadKind, Knowledge, PackageChange, Packages},
};
use crate::{
    BuildError, BuildRequest, Result,
    packages::{
        self, Plan,
        ahead::{self, Installed},
    },
};
use aule_recipe::{LockedPackage, Merged};
use aule_store::layer::Contents;
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

/// What is known of the packages that are installed on the base.
pub(super) enum PlanAhead {
    Known(Plan),
    /// Only what the lock pins, and why.
    Pinned(Vec<LockedPackage>, String),
    Unknown(String),
}

/// Finds out what would be done to the base.
pub(super) fn find(request: &BuildRequest<'_>, merged: &Merged, base: &BaseAhead) -> Result<PlanAhead> {
    if merged.recipe.packages.is_empty() {
        return Ok(PlanAhead::Known(Plan::default()));
    }
    let why = match &base.imported {
        Some(imported) => match packages::plan(request, merged, imported) {
            Ok(plan) => return Ok(PlanAhead::Known(plan)),
            Err(BuildError::NotAtHand(why)) => why,
            Err(error) => return Err(error),
        },
        None => base.why.clone(),
    };
    let pinned = ahead::pinned(request, &request.lock, merged, base.lock.base.as_ref());
    Ok(match pinned.is_empty() {
        true => PlanAhead::Unknown(why),
        false => PlanAhead::Pinned(pinned.to_vec(), why),
    })
}

/// All packages that a build would fetch: those that come, and those of the lock, which it reads before it uses them.
pub(super) fn downloads(
    request: &BuildRequest<'_>,
    merged: &Merged,
    base: &BaseAhead,
    plan: &PlanAhead,
) -> Vec<Download> {
    let mut wanted: BTreeSet<&LockedPackage> = BTreeSet::new();
    if base.lock.suite.is_some() {
        wanted.extend(ahead::pinned_base(request, &request.lock, merged));
    }
    if !merged.recipe.packages.is_empty() {
        wanted.extend(ahead::pinned(request, &request.lock, merged, base.lock.base.as_ref()));
    }
    wanted.extend(base.plan.iter().flat_map(|it| &it.install).map(|it| &it.locked));
    match plan {
        PlanAhead::Known(plan) => wanted.extend(plan.install.iter().map(|it| &it.locked)),
        PlanAhead::Pinned(pinned, _) => wanted.extend(pinned),
        PlanAhead::Unknown(_) => {}
    }
    let missing = wanted.into_iter().filter(|it| ahead::is_missing(request, it));
    let download = |it: &LockedPackage| Download {
        kind: DownloadKind::Package,
        name: Some(format!("{} {}", it.name, it.version)),
        url: it.url.clone(),
        size: Some(it.size),
        received: request.store.received(&it.url),
    };
    missing.map(download).collect()
}

/// A package of the tree that would come out.
struct Coming<'a> {
    installed: Installed,
    /// Its file, unless it comes with an image.
    file: Option<&'a LockedPackage>,
}

impl<'a> Coming<'a> {
    fn of(file: &'a LockedPackage, size: Option<u64>) -> (String, Self) {
        let installed = Installed { architecture: file.architecture.clone(), version: file.version.clone(), size };
        (file.name.clone(), Coming { installed, file: Some(file) })
    }
}

/// Compares them.
pub(super) fn compare(
    request: &BuildRequest<'_>,
    merged: &Merged,
    base: &BaseAhead,
    plan: &PlanAhead,
    with: &Comparison<'_>,
) -> Result<(Against, Packages)> {
    let of_base = match &base.imported {
        Some(imported) => {
            let (tree, contents) = Contents::open(request.store, &[imported.base.layer.descriptor.digest])?;
            Some(ahead::installed(&tree, &contents)?)
        }
        None => None,
    };

    let mut new: BTreeMap<String, Coming<'_>> = BTreeMap::new();
    for (name, installed) in of_base.iter().flatten() {
        new.insert(name.clone(), Coming { installed: installed.clone(), file: None });
    }
    let made_of = base.plan.iter().flat_map(|it| &it.install);
    new.extend(made_of.map(|deb| Coming::of(&deb.locked, deb.installed_size)));
    let (mut state, mut why) = match (&of_base, &base.plan) {
        (None, None) => (Knowledge::Unknown, Some(base.why.clone())),
        _ => (Knowledge::Resolved, None),
    };
    match plan {
        PlanAhead::Known(plan) => {
            for name in &plan.remove {
                new.remove(name);
            }
            new.extend(plan.install.iter().map(|deb| Coming::of(&deb.locked, deb.installed_size)));
        }
        PlanAhead::Pinned(pinned, reason) => {
            new.extend(pinned.iter().map(|file| Coming::of(file, None)));
            (state, why) = (Knowledge::Pinned, Some(reason.clone()));
        }
        PlanAhead::Unknown(reason) => (state, why) = (Knowledge::Unknown, Some(reason.clone())),
    }

    let pinned = ahead::pinned(request, with.lock, merged, base.lock.base.as_ref());
    let (against, old) = match with.build {
        Some((reference, build)) => {
            let (tree, contents) = build.tree(request.store)?;
            let against = Against::Build { reference: reference.to_owned(), digest: build.descriptor.digest };
            (against, ahead::installed(&tree, &contents)?)
        }
        None => {
            let mut old = of_base.unwrap_or_default();
            // What is installed takes the place of what the base has.
            let of_base = ahead::pinned_base(request, with.lock, merged).iter();
            // What other variants have is in the lock, too.
            let of_this = pinned.iter().filter(|it| it.is_of(&merged.variant));
            old.extend(of_base.chain(of_this).map(|file| {
                let (name, coming) = Coming::of(file, None);
                (name, coming.installed)
            }));
            let is_locked = !pinned.is_empty() || *with.lock != Default::default();
            (if is_locked { Against::Lock } else { Against::Base }, old)
        }
    };

    let mut packages = Packages { state, why, unchanged: 0, changes: Vec::new() };
    for (name, coming) in &new {
        let there = old.get(name);
        let change = match there.map(|old| ahead::compare(&old.version, &coming.installed.version)) {
            Some(Ordering::Equal) => {
                packages.unchanged += 1;
                continue;
            }
            None => Change::Added,
            Some(Ordering::Less) => Change::Upgraded,
            Some(Ordering::Greater) => Change::Downgraded,
        };
        packages.changes.push(PackageChange {
            change,
            name: name.clone(),
            architecture: coming.installed.architecture.clone(),
            old: there.map(|it| it.version.clone()),
            new: Some(coming.installed.version.clone()),
            download: coming.file.map(|file| if ahead::is_missing(request, file) { file.size } else { 0 }),
            installed_size: bytes(coming.installed.size),
            old_installed_size: there.and_then(|it| bytes(it.size)),
            files: coming.file.and_then(|file| ahead::count_files(request, file)),
        });
    }
    // What would go is known only where all is that would be there.
    if packages.state == Knowledge::Resolved {
        let gone = old.iter().filter(|(name, _)| !new.contains_key(*name));
        packages.changes.extend(gone.map(|(name, it)| PackageChange {
            change: Change::Removed,
            name: name.clone(),
            architecture: it.architecture.clone(),
            old: Some(it.version.clone()),
            new: None,
            download: None,
            installed_size: None,
            old_installed_size: bytes(it.size),
            files: None,
        }));
        packages.changes.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok((against, packages))
}

/// KiB as bytes.
fn bytes(size: Option<u64>) -> Option<u64> {
    size.and_then(|size| size.checked_mul(1024))
}
