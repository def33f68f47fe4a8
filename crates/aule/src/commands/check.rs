//! `aule check`.

use super::{lock_file::LockFile, recipe::load};
use crate::{
    arguments::CheckArguments,
    environment,
    failure::Failure,
    output::{self, Format},
    progress::Story,
};
use aule_build::{BuildRequest, LocalInputs, LockMode, check};
use std::path::PathBuf;

#[derive(serde::Serialize)]
struct Checked {
    variant: String,
    findings: Vec<check::Finding>,
}

/// Checks the variants that are named, or all; fails when there is an error among the findings.
pub(super) fn run(arguments: CheckArguments, store: Option<PathBuf>, format: Format) -> Result<(), Failure> {
    let (set, variants) = load(&arguments.recipe, &arguments.variants)?;
    let lock = LockFile::read(&arguments.recipe, &set)?;
    let store = environment::store(store)?;
    let story = Story::new();
    let mut all = Vec::new();
    for merged in &variants {
        let request = BuildRequest {
            store: &store,
            inputs: &LocalInputs,
            jobs: environment::jobs(None),
            base: arguments.base.clone(),
            network: environment::network(arguments.mirror.as_deref()),
            now: environment::now(),
            lock: lock.for_build(&merged.variant),
            lock_mode: LockMode::Add,
            sandbox: environment::sandbox(false),
            observer: &story,
        };
        let findings = check::run(&request, merged)?;
        all.push(Checked { variant: merged.variant.clone(), findings });
    }
    story.end();
    let errors = all.iter().flat_map(|it| &it.findings).filter(|it| it.is_error()).count();
    match format {
        Format::Json => output::json(&serde_json::json!({ "checks": all }))?,
        Format::Text => {
            for Checked { variant, findings } in &all {
                for finding in findings {
                    output::line(format!("{variant}: {finding}"))?;
                }
                if findings.is_empty() {
                    output::line(format!("{variant}: nothing to complain about"))?;
                }
            }
        }
    }
    match errors {
        0 => Ok(()),
        1 => Err(Failure::new("the check found an error")),
        many => Err(Failure::new(format!("the check found {many} errors"))),
    }
}
