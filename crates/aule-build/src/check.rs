//! `aule check`: does what a recipe makes of an image hang together?
//!
//! The steps run in memory; then the tree and the seed are looked at: cloud-init's documents by the schemas that the
//! image itself carries, and the units, programs, users, kernel modules, mounts and boot files that the recipe names
//! against what the tree has. What only the image brings is not judged.

mod boot;
mod cloud_init;
mod context;
mod documents;
mod modules;
mod programs;
mod scalar;
mod schema;
mod units;
mod users;
mod yaml;

use crate::{BuildError, BuildRequest, Result, pipeline, steps::services};
use aule_recipe::{Diagnostic, Diagnostics, Merged};
use context::Context;
use serde::Serialize;
use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It will not work.
    Error,
    /// It works, or may work, though perhaps not as meant.
    Warning,
}

/// One thing that was found, with its place and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, and where.
    #[serde(flatten)]
    pub diagnostic: Diagnostic,
}

impl Finding {
    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.diagnostic.to_string();
        match self.severity {
            Severity::Error => f.write_str(&text),
            Severity::Warning => write!(f, "warning{}", text.strip_prefix("error").unwrap_or(&text)),
        }
    }
}

/// Checks one variant of a recipe against its image. Nothing is written but the imported base and fetched files, which
/// the store keeps for the next run.
///
/// # Errors
/// When the base, a fetched file or the store cannot be read. What is wrong with the recipe is a finding.
pub fn run(request: &BuildRequest<'_>, merged: &Merged) -> Result<Vec<Finding>> {
    let staged = pipeline::staged(request, merged)?;
    let mut context = Context::new(merged, request.inputs, &staged.stage);
    let mistakes: Vec<Diagnostics> = staged.mistakes;
    for diagnostic in mistakes.iter().flat_map(Diagnostics::iter) {
        context.error(diagnostic.clone());
    }
    named_units(&mut context)?;
    let seed = cloud_init::Documents::read(&context);
    cloud_init::check(&mut context, &staged.seed, &seed)?;
    let accounts = users::Accounts::read(&context)?;
    let first_boot = users::FirstBoot::read(&context, &staged.seed)?;
    users::check(&mut context, &seed, &accounts, &first_boot);
    units::check(&mut context, &accounts, &first_boot)?;
    programs::check(&mut context)?;
    modules::check(&mut context)?;
    boot::check(&mut context, staged.boot_mount.as_ref())?;
    Ok(context.into_findings())
}

/// Every unit of `services:`, as the step itself stops at the first that is missing.
fn named_units(context: &mut Context<'_>) -> Result<()> {
    let wanted = &context.merged.recipe.services;
    for (list, units) in [("disable", &wanted.disable), ("mask", &wanted.mask), ("enable", &wanted.enable)] {
        for (number, unit) in units.iter().enumerate() {
            match services::find(context.stage, context.merged, unit, &format!("services.{list}[{number}]")) {
                Ok(_) => {}
                Err(BuildError::Recipe(diagnostics)) => diagnostics.iter().for_each(|it| context.error(it.clone())),
                Err(other) => return Err(other),
            }
        }
    }
    Ok(())
}
