//! A look ahead: what a build would do, without doing it.
//!
//! The store is one that is only looked at ([`aule_store::Store::open_to_look`]), so nothing of it can change. What a build would
//! have to run or fetch to know is said not to be known.

mod base;
mod packages;
mod report;
mod steps;

use crate::{
    BuildError, BuildRequest, Result,
    base::fetch_files,
    decisive,
    inputs::Snapshot,
    outputs::boot::BootOptions,
    pins::{inputs_digest, locked_file},
    pipeline::{change_files, configure, pin_base, refuse_other_base, refuse_unsupported, refuse_unused_packages},
    steps::{seed::Seed, services},
};
use aule_recipe::{Lock, LockedFile, Merged, Output, Sha256};
use aule_store::download::{shown, size_of};
use aule_tree::{Digest, Timestamp, Tree, TreePath};
use base::BaseAhead;
use packages::PlanAhead;
pub use report::{
    Against, Change, Comparison, Download, DownloadKind, Knowledge, PackageChange, Packages, Preview, Step, StepState,
};
use std::collections::BTreeMap;
use steps::Walk;

/// Says what [`build()`](crate::build()) would do with the same request.
///
/// # Errors
/// As of a build, as far as it is known without one.
pub fn preview(request: &BuildRequest<'_>, merged: &Merged, with: &Comparison<'_>) -> Result<Preview> {
    if !request.store.is_only_looked_at() {
        return Err(BuildError::Internal("a look ahead could change the store"));
    }
    refuse_unsupported(merged)?;
    let inputs = Snapshot::new(request.inputs);
    let request = &request.with_inputs(&inputs);
    let fetched = Fetched::find(request, merged)?;
    let base = BaseAhead::find(request, merged)?;
    refuse_other_base(request, &base.lock)?;
    let plan = packages::find(request, merged, &base)?;
    let (lock, lock_unknown) = lock(request, &base, &plan, &fetched);
    if lock_unknown.is_empty() {
        refuse_unused_packages(request, &lock)?;
    }

    let (against, compared) = packages::compare(request, merged, &base, &plan, with)?;
    let known_lock = lock_unknown.is_empty().then_some(&lock);
    let (steps, tree) = walk(request, merged, &base, &plan, &fetched, known_lock)?;
    let mut downloads: Vec<Download> = base.download.iter().cloned().collect();
    downloads.extend(packages::downloads(request, merged, &base, &plan));
    let files_run = steps.iter().any(|step| step.name == "files" && step.state != StepState::Cached);
    downloads.extend(fetched.downloads(request, files_run));
    let made_of_unknown = base.lock.suite.is_some() && base.plan.is_none();
    let downloads_complete = matches!(plan, PlanAhead::Known(_)) && !made_of_unknown;
    Ok(Preview {
        recipe: merged.recipe.name.clone(),
        variant: merged.variant.clone(),
        reference: format!("{}:{}", merged.recipe.name, merged.variant),
        against,
        steps,
        downloads,
        downloads_complete,
        packages: compared,
        tree,
        lock,
        lock_unknown,
    })
}

/// The files that `url:` entries name.
struct Fetched {
    /// Each with its digest and size, as far as they are known, and whether it is locked.
    files: BTreeMap<String, (Option<Digest>, Option<u64>, bool)>,
}

impl Fetched {
    fn find(request: &BuildRequest<'_>, merged: &Merged) -> Result<Fetched> {
        let mut files = BTreeMap::new();
        for (path, url, stated) in merged.recipe.fetched_files() {
            let stated = stated.map(|it| Digest::from_bytes(it.0));
            let found = match locked_file(request, merged, path, url, stated)? {
                Some(locked) => (Some(Digest::from_bytes(locked.sha256.0)), Some(locked.size), true),
                None => (stated, size_of(&request.network.request(url.as_str(), u64::MAX)).unwrap_or_default(), false),
            };
            files.insert(url.as_str().to_owned(), found);
        }
        Ok(Fetched { files })
    }

    /// The digests, if all are known; else the URL of one that is not.
    fn digests(&self) -> Result<BTreeMap<String, Digest>, &str> {
        self.files.iter().map(|(url, (digest, ..))| Ok((url.clone(), digest.ok_or(url.as_str())?))).collect()
    }

    /// What would be fetched: what nobody locked to be locked, all else for the step that puts it into the tree.
    fn downloads(&self, request: &BuildRequest<'_>, files_run: bool) -> Vec<Download> {
        let is_missing = |digest: &Option<Digest>| digest.is_none_or(|it| !request.store.has_intact_blob(it));
        let wanted = self.files.iter().filter(|(_, (digest, _, is_locked))| match is_locked {
            true => files_run && is_missing(digest),
            false => true,
        });
        let download = |(url, (_, size, _)): (&String, &(Option<Digest>, Option<u64>, bool))| Download {
            kind: DownloadKind::File,
            name: None,
            url: url.clone(),
            size: *size,
            received: request.store.received(url),
        };
        wanted.map(download).collect()
    }
}

/// The lock as it would be, and what of it is not known.
fn lock(request: &BuildRequest<'_>, base: &BaseAhead, plan: &PlanAhead, fetched: &Fetched) -> (Lock, Vec<String>) {
    let mut unknown: Vec<String> = base.lock_unknown.iter().cloned().collect();
    let mut lock = Lock::default();
    match plan {
        PlanAhead::Known(plan) => pin_base(&mut lock, &base.lock, plan),
        PlanAhead::Pinned(..) | PlanAhead::Unknown(_) => {
            pin_base(&mut lock, &base.lock, &crate::packages::Plan::default());
            // Those of the lock stay until somebody knows better.
            lock.packages.clone_from(&request.lock.packages);
            lock.kept.clone_from(&request.lock.kept);
            unknown.push("which packages are installed".into());
        }
    }
    for (url, (digest, size, _)) in &fetched.files {
        match (digest, size) {
            (Some(digest), Some(size)) => {
                lock.files.push(LockedFile { url: url.clone(), size: *size, sha256: Sha256(*digest.as_bytes()) });
            }
            (digest, _) => {
                lock.files.extend(request.lock.files.iter().find(|it| it.url == *url).cloned());
                let what = if digest.is_some() { "size" } else { "digest" };
                unknown.push(format!("the {what} of {}", shown(url)));
            }
        }
    }
    (lock, unknown)
}

/// Goes through the steps; `lock` is the lock as it would be, if it is known.
fn walk(
    request: &BuildRequest<'_>,
    merged: &Merged,
    base: &BaseAhead,
    plan: &PlanAhead,
    fetched: &Fetched,
    lock: Option<&Lock>,
) -> Result<(Vec<Step>, Result<Tree, String>)> {
    let recipe = &merged.recipe;
    // Mistakes in these are told whether the base is there or not.
    let seed = Seed::read(merged, request.inputs)?;
    inputs_digest(request, merged)?;
    let Some(imported) = &base.imported else {
        let packages = (!recipe.packages.is_empty()).then_some("packages");
        let outputs = [(Output::Boot, "output boot"), (Output::NfsRoot, "output nfs-root")];
        let outputs = outputs.into_iter().filter(|(output, _)| recipe.outputs.contains(output)).map(|(_, name)| name);
        let names = packages.into_iter().chain(["files", "config"]).chain(outputs);
        let steps = steps::without_base(request, base, names.chain(["output source", "output sbom"]))?;
        return Ok((steps, Err(base.why.clone())));
    };
    let info = &imported.base.info;
    let date = recipe.date.map_or(info.newest, |date| Timestamp::from_seconds(date.seconds()));
    let boot_mount = info.boot_mount.as_ref().map(TreePath::new).transpose()?;
    let mut walk = Walk::begin(request, date, imported);

    match plan {
        PlanAhead::Known(plan) if plan.is_empty() => {}
        PlanAhead::Known(plan) => {
            let cannot = || BuildError::NotAtHand("the packages are not installed yet".into());
            walk.step("packages", plan, |_| Err(cannot()))?;
        }
        PlanAhead::Pinned(_, why) | PlanAhead::Unknown(why) => walk.lose("packages", why),
    }
    match fetched.digests() {
        Err(url) => walk.lose("files", &format!("the digest of {} is known when it is fetched", shown(url))),
        Ok(digests) => walk.step("files", &decisive::files(request, merged, &digests, info)?, |stage| {
            if let Some((url, _)) = digests.iter().find(|(_, digest)| !request.store.has_intact_blob(**digest)) {
                return Err(BuildError::NotAtHand(format!("{} is not fetched yet", shown(url))));
            }
            let bytes = fetch_files(request, merged, &digests)?;
            change_files(stage, merged, request.inputs, &bytes, boot_mount.as_ref())?;
            services::run(stage, merged)
        })?,
    }
    walk.step("config", &decisive::config(recipe, &seed, info), |stage| {
        configure(stage, merged, &seed, boot_mount.as_ref())
    })?;

    let (boot_templates, root_templates) = decisive::templates(&walk.templates, boot_mount.as_ref());
    if recipe.outputs.contains(&Output::Boot) {
        let Some(mount) = &boot_mount else {
            return Err(BuildError::Boot("the image has no boot partition".into()));
        };
        walk.output("boot", &BootOptions::new(recipe.boot.size, info, boot_templates), Some(mount))?;
    }
    if recipe.outputs.contains(&Output::NfsRoot) {
        walk.output("nfs-root", &root_templates, None)?;
    }
    let source = lock.map(|lock| decisive::source_key(request, merged, lock, &imported.base)).transpose()?;
    walk.output_of("source", source.ok_or_else(|| "it depends on the lock".to_owned()))?;
    let reference = format!("{}:{}", recipe.name, merged.variant);
    walk.output("sbom", &(&reference, date.seconds, date.nanoseconds), None)?;
    walk.end()
}
