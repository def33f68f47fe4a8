//! What packages a build would take, found out without taking any: what locked packages say of themselves is read from those
//! that the store has, and of the others from the signed indices, as far as these list the very same files.

use super::{
    Plan, Question, debs,
    indices::{self, Left},
    is_of_this_base, not_in_the_lock,
    pins::listed,
    solve::{from_all, from_lock},
    some_of,
    system::{STATUS, Trusted},
};
use crate::{BuildError, BuildRequest, LockMode, Result};
use aule_deb::{
    archive::{DebError, What},
    index::Packages,
    version::Version,
};
use aule_recipe::{Base, Lock, LockedBase, LockedPackage, Merged};
use aule_store::layer::Contents;
use aule_tree::{Inode, Tree, TreePath};
use std::{cmp::Ordering, collections::BTreeMap};

/// The largest database of dpkg that is read.
const STATUS_MAX: u64 = 256 << 20;

/// Finds what has to be done, as a build would: from the lock alone where that answers the question, else from the signed
/// indices, too.
///
/// # Errors
/// [`BuildError::NotAtHand`] where it takes packages that nothing describes before they are fetched; else as of a build.
pub(super) fn answer(
    request: &BuildRequest<'_>,
    question: &Question<'_>,
    sources: impl FnOnce() -> Result<Vec<Trusted>>,
) -> Result<Plan> {
    let system = question.system;
    let (there, missing): (Vec<_>, Vec<_>) =
        locked_for(question).cloned().partition(|it| request.store.has_intact_blob(debs::digest(it)));
    let own = debs::index(request, &system.architecture, &there)?;
    let all_there = missing.is_empty();
    if all_there {
        match from_lock(question, &own, question.locked) {
            Ok(plan) => return Ok(plan),
            Err(reason) if request.lock_mode == LockMode::Locked => return Err(not_in_the_lock(request, &reason)),
            Err(_) => {}
        }
    }
    let fetched = sources()
        .and_then(|sources| {
            indices::fetch(request, system, &sources, &question.merged.recipe.packages, &mut Left::all())
        })
        .map_err(|error| match all_there {
            true => error,
            // A build with these packages would perhaps not ask for the indices at all.
            false => BuildError::NotAtHand(format!("{}, and no index describes them: {error}", not_there(&missing))),
        })?;
    let mut text: String = own.iter().map(|it| format!("{}\n\n", it.paragraph().text())).collect();
    let (described, unknown) = listed(&missing, &fetched);
    described.into_iter().for_each(|(paragraph, _)| text.push_str(&paragraph));
    if !unknown.is_empty() {
        return Err(BuildError::NotAtHand(format!("{}, and no index lists them any more", not_there(&unknown))));
    }
    let index = Packages::parse(text).map_err(|error| BuildError::Packages(error.to_string()))?;
    if !all_there {
        match from_lock(question, &index, question.locked) {
            Ok(plan) => return Ok(plan),
            Err(reason) if request.lock_mode == LockMode::Locked => return Err(not_in_the_lock(request, &reason)),
            Err(_) => {}
        }
    }
    let pinned = if index.is_empty() { Vec::new() } else { question.locked.to_vec() };
    from_all(request, question, (index, pinned), fetched)
}

/// The locked packages that could be installed.
fn locked_for<'a>(question: &'a Question<'_>) -> impl Iterator<Item = &'a LockedPackage> {
    let architecture = &question.system.architecture;
    question.locked.iter().filter(move |it| it.architecture == *architecture || it.architecture == "all")
}

/// `the store does not have a, b and 3 more of the lock's packages`
fn not_there(packages: &[LockedPackage]) -> String {
    let names: Vec<&str> = packages.iter().map(|it| it.name.as_str()).collect();
    format!("the store does not have {} of the lock's packages", some_of(&names))
}

/// What `lock` pins for this base of now; nothing where it was written beside another one.
pub(crate) fn pinned<'a>(
    request: &BuildRequest<'_>,
    lock: &'a Lock,
    merged: &Merged,
    now: Option<&LockedBase>,
) -> &'a [LockedPackage] {
    match is_of_this_base(request, lock, merged, now) {
        true => &lock.packages,
        false => &[],
    }
}

/// What `lock` pins for a base that is made of packages.
pub(crate) fn pinned_base<'a>(request: &BuildRequest<'_>, lock: &'a Lock, merged: &Merged) -> &'a [LockedPackage] {
    match (&merged.recipe.base, &request.base) {
        (Base::Packages { packages }, None) if lock.suite.as_ref() == Some(&packages.suite_line()) => {
            &lock.base_packages
        }
        _ => &[],
    }
}

/// Whether a build would have to fetch it.
pub(crate) fn is_missing(request: &BuildRequest<'_>, package: &LockedPackage) -> bool {
    !request.store.has_intact_blob(debs::digest(package))
}

/// How many files a package brings that the store has; `None` where that cannot be told.
pub(crate) fn count_files(request: &BuildRequest<'_>, package: &LockedPackage) -> Option<u64> {
    if is_missing(request, package) {
        return None;
    }
    let mut count = 0;
    let read = debs::open(request, package).ok()?.entries(|entry, _| {
        count += u64::from(!matches!(entry.what, What::Directory));
        Ok::<_, DebError>(())
    });
    read.ok().map(|()| count)
}

/// A package of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) architecture: String,
    pub(crate) version: String,
    /// In KiB, as it says itself.
    pub(crate) size: Option<u64>,
}

/// What dpkg's database of a tree says is installed, by name, and for packages of a foreign architecture by `name:architecture`;
/// empty without a database.
pub(crate) fn installed(tree: &Tree, contents: &Contents) -> Result<BTreeMap<String, Installed>> {
    let place = tree.resolve(&TreePath::new(STATUS)?, true)?;
    let Some(content) = tree.get(&place).and_then(Inode::content) else { return Ok(BTreeMap::new()) };
    let text = String::from_utf8_lossy(&contents.read(content, STATUS_MAX)?).into_owned();
    let packages = Packages::parse(text).map_err(|error| BuildError::Packages(format!("/{STATUS}: {error}")))?;
    let dpkg = packages.iter().find(|it| it.name == "dpkg" && it.architecture != "all");
    let native = dpkg.map_or("all", |it| it.architecture);
    let there = packages.iter().filter(|it| it.state() == Some("installed"));
    let named = there.map(|it| {
        let key = match it.architecture == native || it.architecture == "all" {
            true => it.name.to_owned(),
            false => format!("{}:{}", it.name, it.architecture),
        };
        let size = it.get("Installed-Size").and_then(|it| it.parse().ok());
        (key, Installed { architecture: it.architecture.to_owned(), version: it.version.to_owned(), size })
    });
    Ok(named.collect())
}

/// Which of two versions is the newer one; by their letters where one is no version.
pub(crate) fn compare(old: &str, new: &str) -> Ordering {
    match (old.parse::<Version>(), new.parse::<Version>()) {
        (Ok(old), Ok(new)) => old.cmp(&new),
        _ => old.cmp(new),
    }
}
