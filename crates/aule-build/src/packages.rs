//! Packages: what a recipe asks for, what has to be done to the base for it, and doing it.

pub(crate) mod ahead;
pub(crate) mod bootstrap;
mod changes;
mod debs;
mod indices;
mod install;
mod native;
mod normal;
mod order;
mod pins;
mod solve;
mod system;
mod trees;

use crate::{BuildError, BuildRequest, LockMode, Result, base::ImportedBase, stage::Stage};
use aule_deb::index::Packages;
use aule_recipe::{Base, KeptPackage, Lock, LockedBase, LockedPackage, Merged};
use aule_tree::{Timestamp, TreePath};
use indices::Left;
pub use install::SandboxTools;
use pins::listed;
use serde::Serialize;
use solve::{from_all, from_lock};
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
            request.observer.note(&format!("{path} of the image prefers packages to others, which is not read here"));
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
