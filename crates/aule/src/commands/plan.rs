//! `aule plan`: what a build would do, compared with the last one, another one or the lock. Nothing is written.

mod lock;
mod text;

use super::{
    lock_file::LockFile,
    look::{self, diff},
    recipe::load,
};
use crate::{
    arguments::PlanArguments,
    environment,
    failure::Failure,
    output::{self, Format},
    progress::Story,
};
use aule_build::{BuildRequest, Comparison, LocalInputs, LockMode, Preview, preview, refuse_unsupported};
use aule_store::{Build, Store, StoreError};
use aule_tree::Tree;
use diff::{Aspect, Counts, Differing, differing};
use lock::LockChange;
use std::{collections::BTreeSet, path::PathBuf};

/// What is planned, as `--format json` shows it.
#[derive(serde::Serialize)]
struct Plans {
    plans: Vec<Plan>,
    download: Total,
    lock: LockChanges,
}

/// What is planned for a variant.
#[derive(serde::Serialize)]
struct Plan {
    #[serde(flatten)]
    preview: Preview,
    files: Files,
}

/// How the root would differ.
#[derive(serde::Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Files {
    Known {
        counts: Counts,
        changes: Vec<FileChange>,
    },
    /// The tree is not known before something has run or is there.
    Unknown {
        why: String,
    },
    /// There is no build to compare with.
    NoBuild,
}

/// A path that would differ.
#[derive(serde::Serialize)]
struct FileChange {
    change: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what: Vec<Aspect>,
    /// As `aule diff` shows it.
    #[serde(skip)]
    line: String,
}

/// All that would be fetched for all variants, each file once.
#[derive(serde::Serialize)]
struct Total {
    count: u64,
    /// In bytes, of those whose size is known.
    size: u64,
    /// How many have no size that is known.
    unknown: u64,
    /// Whether that is all; else packages may come that are not known yet.
    complete: bool,
}

#[derive(serde::Serialize)]
struct LockChanges {
    changes: Vec<LockChange>,
    unknown: BTreeSet<String>,
}

/// Looks ahead at the variants that are named, or all.
pub(super) fn run(arguments: PlanArguments, store: Option<PathBuf>, format: Format) -> Result<(), Failure> {
    let PlanArguments { build: arguments, against } = arguments;
    let (set, variants) = load(&arguments.recipe, &arguments.variants)?;
    let mut lock = LockFile::read(&arguments.recipe, &set)?;
    let mode = if arguments.locked { LockMode::Locked } else { LockMode::Add };
    lock.forget(arguments.update.as_deref(), &variants, arguments.base.is_some())?;
    variants.iter().try_for_each(refuse_unsupported)?;
    if arguments.locked {
        let all = set.variants().into_iter().map(|name| set.variant(name)).collect::<Result<Vec<_>, _>>()?;
        lock.refuse_difference(&all, arguments.base.is_some())?;
    }
    let store = environment::store_to_look(store)?;
    let story = Story::new();
    let mut plans = Vec::new();
    let mut unknown = BTreeSet::new();
    for merged in &variants {
        let reference = against.clone().unwrap_or_else(|| format!("{}:{}", set.name(), merged.variant));
        let build = match against {
            Some(_) => Some(look::open(&store, &reference)?),
            None => last_build(&store, &reference)?,
        };
        let request = BuildRequest {
            store: &store,
            inputs: &LocalInputs,
            jobs: environment::jobs(arguments.jobs.map(usize::from)),
            base: arguments.base.clone(),
            network: environment::network(arguments.mirror.as_deref()),
            now: environment::now(),
            lock: lock.for_build(&merged.variant),
            lock_mode: mode,
            sandbox: None,
            observer: &story,
        };
        let with = Comparison { build: build.as_ref().map(|build| (reference.as_str(), build)), lock: lock.written() };
        let preview = preview(&request, merged, &with)?;
        let files = match (&build, &preview.tree) {
            (None, _) => Files::NoBuild,
            (Some(_), Err(why)) => Files::Unknown { why: why.clone() },
            (Some(build), Ok(tree)) => compare(&build.tree(&store)?.0, tree),
        };
        lock.add(&merged.variant, &preview.lock);
        unknown.extend(preview.lock_unknown.iter().cloned());
        plans.push(Plan { preview, files });
    }
    story.end();
    // Its temporary directory goes, also where the reader of stdout is gone, which ends the process.
    drop(store);
    if plans.len() == set.variants().len() {
        lock.keep_only(&variants);
    }
    let changes = lock::changes(lock.written(), &lock.for_all());
    let download = total(&plans);
    let plans = Plans { plans, download, lock: LockChanges { changes, unknown } };
    match format {
        Format::Json => output::json(&plans),
        Format::Text => output::write(text::of(&plans).as_bytes()),
    }
}

/// What the recipe's own name stands for; `None` where there is none, or it is no build of ours.
fn last_build(store: &Store, name: &str) -> Result<Option<Build>, Failure> {
    let found = name.parse().and_then(|reference| store.resolve(&reference));
    match found.and_then(|descriptor| Build::open(store, descriptor)) {
        Ok(build) => Ok(Some(build)),
        Err(StoreError::UnknownRef { .. } | StoreError::NotABuild { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn compare(old: &Tree, new: &Tree) -> Files {
    let mut counts = Counts::default();
    let changes = differing(old, new).into_iter().map(|Differing { path, change, what }| {
        counts.count(change, &what);
        let line = diff::describe(&path, old.get(&path), new.get(&path), &what, None);
        FileChange { change: diff::word(change), path: diff::shown(&path), what, line }
    });
    let changes = changes.collect();
    Files::Known { counts, changes }
}

/// The sum, with what several variants need counted once.
fn total(plans: &[Plan]) -> Total {
    let mut seen = BTreeSet::new();
    let complete = plans.iter().all(|plan| plan.preview.downloads_complete);
    let mut total = Total { count: 0, size: 0, unknown: 0, complete };
    let downloads = plans.iter().flat_map(|plan| &plan.preview.downloads);
    for download in downloads.filter(|it| seen.insert(it.url.as_str())) {
        total.count += 1;
        match download.rest() {
            Some(rest) => total.size = total.size.saturating_add(rest),
            None => total.unknown += 1,
        }
    }
    total
}
