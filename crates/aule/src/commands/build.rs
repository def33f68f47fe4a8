//! `aule build`.

use super::{lock_file::LockFile, recipe::load};
use crate::{
    arguments::BuildArguments,
    environment,
    failure::Failure,
    output::{self, Format},
    progress::Story,
};
use aule_build::{BuildOutcome, BuildRequest, LocalInputs, LockMode, build, refuse_unsupported};
use std::path::PathBuf;

#[derive(serde::Serialize)]
struct Builds {
    builds: Vec<BuildOutcome>,
}

/// Builds the variants that are named, or all.
pub(super) fn run(arguments: BuildArguments, store: Option<PathBuf>, format: Format) -> Result<(), Failure> {
    let (set, variants) = load(&arguments.recipe, &arguments.variants)?;
    let mut lock = LockFile::read(&arguments.recipe, &set)?;
    let mode = if arguments.locked { LockMode::Locked } else { LockMode::Add };
    lock.forget(arguments.update.as_deref(), &variants, arguments.base.is_some())?;
    // Before the first variant is built, or an hour later the second would be refused.
    variants.iter().try_for_each(refuse_unsupported)?;
    if arguments.locked {
        let all = set.variants().into_iter().map(|name| set.variant(name)).collect::<Result<Vec<_>, _>>()?;
        lock.refuse_difference(&all, arguments.base.is_some())?;
    }
    let store = environment::store(store)?;
    let story = Story::new();
    let mut builds = Vec::new();
    for merged in &variants {
        story.say(&format!("{:>9} {}:{}", "building", set.name(), merged.variant));
        let request = BuildRequest {
            store: &store,
            inputs: &LocalInputs,
            jobs: environment::jobs(arguments.jobs.map(usize::from)),
            base: arguments.base.clone(),
            network: environment::network(arguments.mirror.as_deref()),
            now: environment::now(),
            lock: lock.for_build(&merged.variant),
            lock_mode: mode,
            sandbox: environment::sandbox(arguments.emulate),
            observer: &story,
        };
        let outcome = match build(&request, merged) {
            Ok(outcome) => outcome,
            Err(error) => {
                // What earlier variants pinned stays pinned; the reason that people want to read is the build's.
                if mode == LockMode::Add
                    && let Err(failure) = lock.write_what_is_done(&builds)
                {
                    story.say(&format!("{:>9} the lock was not written: {failure}", "note"));
                }
                return Err(error.into());
            }
        };
        lock.add(&outcome.variant, &outcome.lock);
        if arguments.base.is_some() {
            story.say(&format!("{:>9} the image was given with --base and not verified", "note"));
        }
        builds.push(outcome);
    }
    story.end();
    // Only when all variants were built is it known what the lock holds in vain.
    if builds.len() == set.variants().len() {
        lock.keep_only(&variants);
    }
    if mode == LockMode::Add {
        lock.write()?;
    }
    match format {
        Format::Json => output::json(&Builds { builds }),
        Format::Text => builds.iter().try_for_each(show),
    }
}

fn show(build: &BuildOutcome) -> Result<(), Failure> {
    output::line(format!("{} {}", build.reference, build.digest))?;
    for artifact in &build.artifacts {
        output::line(format!("  {:<9} {:>11}  {}", artifact.name, output::size(artifact.size), artifact.digest))?;
    }
    Ok(())
}
