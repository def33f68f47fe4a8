//! `aule lock`.

use super::{lock_file::LockFile, recipe::load};
use crate::{
    arguments::LockArguments,
    environment,
    failure::Failure,
    output::{self, Format},
    progress::Story,
};
use aule_build::{BuildRequest, LocalInputs, LockMode, lock as resolve};
use aule_recipe::Lock;
use std::path::PathBuf;

/// Resolves what the recipe fetches, for all variants, and writes the lock.
pub(super) fn run(arguments: LockArguments, store: Option<PathBuf>, format: Format) -> Result<(), Failure> {
    let (set, variants) = load(&arguments.recipe, &[])?;
    let mut lock = LockFile::read(&arguments.recipe, &set)?;
    lock.forget(arguments.update.as_deref(), &variants, false)?;
    let store = environment::store(store)?;
    let story = Story::new();
    for merged in &variants {
        let request = BuildRequest {
            store: &store,
            inputs: &LocalInputs,
            jobs: environment::jobs(None),
            base: None,
            network: environment::network(arguments.mirror.as_deref()),
            now: environment::now(),
            lock: lock.for_build(&merged.variant),
            lock_mode: LockMode::Add,
            sandbox: environment::sandbox(false),
            observer: &story,
        };
        lock.add(&merged.variant, &resolve(&request, merged)?);
    }
    story.end();
    lock.keep_only(&variants);
    lock.write()?;
    match format {
        Format::Json => output::json(&serde_json::json!({ "lock": pins(&lock.for_all()) })),
        Format::Text => {
            pins(&lock.for_all()).iter().try_for_each(|pin| output::line(format!("{} {}", pin.sha256, pin.url)))
        }
    }
}

/// What a lock pins, as it is shown.
#[derive(serde::Serialize)]
struct Pin {
    url: String,
    size: u64,
    sha256: String,
}

fn pins(lock: &Lock) -> Vec<Pin> {
    let base = lock.base.iter().map(|it| Pin { url: it.url.clone(), size: it.size, sha256: it.sha256.to_string() });
    let packages = lock.all_packages().into_iter();
    let packages = packages.map(|it| Pin { url: it.url.clone(), size: it.size, sha256: it.sha256.to_string() });
    let files = lock.files.iter();
    let files = files.map(|it| Pin { url: it.url.as_str().to_owned(), size: it.size, sha256: it.sha256.to_string() });
    base.chain(packages).chain(files).collect()
}
