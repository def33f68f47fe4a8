//! From a recipe to a build in the store: plan, steps, outputs, ref.

use crate::{
    Artifact, ArtifactFile, BuildError, BuildOutcome, BuildRequest, LockMode, Result, StepOutcome,
    base::{ImportedBase, WantedBase, fetch_files},
    chain::Chain,
    decisive,
    inputs::{Bytes, Inputs, Snapshot},
    key::step_key,
    outputs::{
        artifact::{self, types},
        boot::{self, BootOptions},
        image, provenance,
        provenance::{Origin, Provenance, ProvenanceStep},
        source::{self, Source},
    },
    packages,
    pins::{Pins, pin_files},
    sbom,
    stage::{Stage, flatten},
    steps::{boot as boot_step, files, nfs_root, overlays, seed::Seed, services},
};
use aule_recipe::{Base, Diagnostics, Lock, LockedPackage, Merged, Output, Root, RootOver};
use aule_store::{
    ARTIFACT_NAME, Build, Store,
    layer::ArchiveOptions,
    oci::{Annotations, Descriptor, Manifest},
};
use aule_tree::{Digest, Timestamp, TreePath};
use std::collections::BTreeMap;

/// Resolves the base image and every fetched file, and gives the lock that pins them.
///
/// # Errors
/// As [`build`].
pub fn lock(request: &BuildRequest<'_>, merged: &Merged) -> Result<Lock> {
    let mut pins = pin_files(request, merged)?;
    if let (Base::Packages { packages }, None) = (&merged.recipe.base, &request.base)
        && merged.recipe.packages.is_empty()
    {
        // What such a base is made of is known before it is made.
        let wanted = packages::bootstrap::find(request, merged, packages)?;
        let suite = Some(packages.suite_line());
        let base = Lock { suite, base_packages: wanted.plan.pins(), ..Lock::default() };
        pin_base(&mut pins.lock, &base, &packages::Plan::default());
        return Ok(pins.lock);
    }
    let base = Found::find(request, merged)?;
    let plan = packages::plan(request, merged, &base.imported)?;
    base.pin(&mut pins.lock, &plan);
    Ok(pins.lock)
}

/// Builds one variant of a recipe.
///
/// # Errors
/// When the recipe asks for what the image does not have, an input cannot be read, the image is not the right one, or
/// the store cannot be written. The store is valid then, and holds what finished steps gave.
pub fn build(request: &BuildRequest<'_>, merged: &Merged) -> Result<BuildOutcome> {
    refuse_unsupported(merged)?;
    let inputs = Snapshot::new(request.inputs);
    let request = &request.with_inputs(&inputs);
    let mut pins = pin_files(request, merged)?;
    let base = Found::find(request, merged)?;
    request.observer.step("base", base.imported.cached);
    let plan = packages::plan(request, merged, &base.imported)?;
    base.pin(&mut pins.lock, &plan);
    refuse_other_base(request, &pins.lock)?;
    refuse_unused_packages(request, &pins.lock)?;
    finish(request, merged, base.imported, pins, &plan, Some(base.origin))
}

/// `--locked`: refuses another base than the locked one. Files were compared when they were pinned.
pub(crate) fn refuse_other_base(request: &BuildRequest<'_>, now: &Lock) -> Result<()> {
    if request.lock_mode != LockMode::Locked {
        return Ok(());
    }
    if now.base != request.lock.base {
        let message = "the lock has another base image than the recipe; run `aule lock` and commit the result";
        return Err(BuildError::Locked(message.into()));
    }
    Ok(())
}

/// `--locked`: refuses packages in the lock that nothing needs. (What only other variants use is not in the lock of a build.)
pub(crate) fn refuse_unused_packages(request: &BuildRequest<'_>, now: &Lock) -> Result<()> {
    // Another image in place of the recipe's may need less.
    if request.lock_mode != LockMode::Locked || request.base.is_some() {
        return Ok(());
    }
    let unused = |locked: &[LockedPackage], now: &[LockedPackage]| -> Vec<String> {
        let unused = locked.iter().filter(|it| !now.contains(it));
        unused.map(|it| format!("{} {}", it.name, it.version)).collect()
    };
    let mut names = unused(&request.lock.base_packages, &now.base_packages);
    names.extend(unused(&request.lock.packages, &now.packages));
    match names.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            let message = format!(
                "the lock has packages that nothing needs any more ({first}{more}); run `aule lock` and commit the result"
            );
            Err(BuildError::Locked(message))
        }
    }
}

/// The base of a build, and what lock and provenance say of it.
struct Found {
    imported: ImportedBase,
    /// What the lock has from now on of base, suite and the packages of the base.
    lock: Lock,
    origin: BaseOrigin,
}

impl Found {
    /// Imports the image, or makes the base of its packages.
    fn find(request: &BuildRequest<'_>, merged: &Merged) -> Result<Found> {
        if let (Base::Packages { packages }, None) = (&merged.recipe.base, &request.base) {
            let (imported, pins) = packages::bootstrap::import(request, merged, packages)?;
            let suite = packages.suite_line();
            let origin = BaseOrigin {
                image: format!("packages of {suite}"),
                replaced: false,
                verified: "indices signed by the recipe's key".into(),
            };
            let lock = Lock { suite: Some(suite), base_packages: pins, ..Lock::default() };
            return Ok(Found { imported, lock, origin });
        }
        let wanted = WantedBase::find(request, merged)?;
        let imported = wanted.import(request)?;
        // Another image in its place is no reason to forget the recipe's own.
        let lock = match wanted.replaced {
            true => Lock { base: request.lock.base.clone(), ..Lock::default() },
            false => Lock { base: imported.lock.clone(), ..Lock::default() },
        };
        let origin = BaseOrigin { image: wanted.name, replaced: wanted.replaced, verified: wanted.verified };
        Ok(Found { imported, lock, origin })
    }

    fn pin(&self, lock: &mut Lock, plan: &packages::Plan) {
        pin_base(lock, &self.lock, plan);
    }
}

/// Pins what `of` says of the base, its suite and its packages, and the packages that are installed on it.
pub(crate) fn pin_base(lock: &mut Lock, of: &Lock, plan: &packages::Plan) {
    lock.base.clone_from(&of.base);
    lock.suite.clone_from(&of.suite);
    lock.base_packages.clone_from(&of.base_packages);
    lock.base_packages.sort_unstable();
    lock.packages = plan.pins();
    lock.packages.sort_unstable();
    lock.kept.clone_from(&plan.kept);
}

/// Builds again what `build` was built from, from its `source` artifact and its own base layer alone.
///
/// # Errors
/// As [`build()`]; also when the source is damaged.
pub fn rebuild(request: &BuildRequest<'_>, of: &Build) -> Result<BuildOutcome> {
    let (source, inputs) = source::open(request.store, of)?;
    let lock = Lock::parse(&source.lock)?;
    let merged = Merged { recipe: source.recipe, variant: source.variant, origins: Default::default() };
    let inputs = Snapshot::new(&inputs);
    let request = BuildRequest { lock: lock.clone(), base: None, ..request.with_inputs(&inputs) };
    // Fetched files stand in the layers of the build.
    let mut pins = pin_files(&request, &merged)?;
    pins.lock.base.clone_from(&lock.base);
    pins.lock.suite.clone_from(&lock.suite);
    if source::fetches(&merged.recipe) {
        let (_, contents) = of.tree(request.store)?;
        for digest in pins.files.values().filter(|digest| !request.store.has_blob(**digest)) {
            let size = lock.files.iter().find(|it| Digest::from_bytes(it.sha256.0) == *digest).map_or(0, |it| it.size);
            let content = aule_tree::Content { digest: *digest, size, sparse: None };
            if contents.has(*digest) {
                request.store.put(&contents.read(&content, u64::from(u32::MAX))?)?;
            }
        }
    }
    let key = step_key("base", &source.base.info.image)?;
    let imported = ImportedBase { base: source.base, key, cached: true, lock: lock.base };
    let plan = packages::plan_again(&request, &merged, &imported)?;
    // Those of a base of packages stand in its layer.
    pins.lock.base_packages = lock.base_packages;
    pins.lock.packages = plan.pins();
    pins.lock.packages.sort_unstable();
    pins.lock.kept.clone_from(&plan.kept);
    finish(&request, &merged, imported, pins, &plan, None)
}

/// What the provenance says of the base.
struct BaseOrigin {
    image: String,
    replaced: bool,
    verified: String,
}

/// Refuses what a recipe may say and a build cannot do yet.
///
/// # Errors
/// [`BuildError::Recipe`], with the place.
pub fn refuse_unsupported(merged: &Merged) -> Result<()> {
    if let Some(at) = merged.recipe.outputs.iter().position(|it| *it == Output::Disk) {
        let diagnostic = merged
            .origins
            .diagnostic(&format!("outputs[{at}]"), "the output `disk` is not supported yet")
            .help("leave it out, or build another variant with `--variant`");
        return Err(Diagnostics::from(diagnostic).into());
    }
    Ok(())
}

/// The step `packages`; without any there is none.
fn install_packages(
    chain: &mut Chain<'_>,
    request: &BuildRequest<'_>,
    merged: &Merged,
    plan: &packages::Plan,
    boot_mount: Option<&TreePath>,
) -> Result<()> {
    match plan.is_empty() {
        true => Ok(()),
        false => chain.step("packages", plan, |stage| packages::install(request, merged, stage, plan, boot_mount)),
    }
}

/// `root: {over: nfs}`, if the recipe says so.
pub(crate) fn over_nfs(merged: &Merged) -> Option<&Root> {
    merged.recipe.root.as_ref().filter(|root| root.over == RootOver::Nfs)
}

/// The step `files` but for its services.
pub(crate) fn change_files(
    stage: &mut Stage,
    merged: &Merged,
    inputs: &dyn Inputs,
    fetched: &BTreeMap<String, Bytes>,
    boot_mount: Option<&TreePath>,
) -> Result<()> {
    let clamp = stage.date;
    stage.tree.update_all(|inode| inode.metadata.mtime = inode.metadata.mtime.min(clamp));
    // First what the root needs, so that what the recipe says itself has the last word.
    if over_nfs(merged).is_some() {
        nfs_root::prepare(stage, boot_mount)?;
    }
    overlays::run(stage, merged, inputs)?;
    files::run(stage, merged, inputs, fetched)
}

/// The step `config`.
pub(crate) fn configure(stage: &mut Stage, merged: &Merged, seed: &Seed, boot_mount: Option<&TreePath>) -> Result<()> {
    let recipe = &merged.recipe;
    let over_nfs = over_nfs(merged);
    let Some(mount) = boot_mount else {
        if recipe.boot != Default::default() || over_nfs.is_some() {
            let key = if over_nfs.is_some() { "root" } else { "boot" };
            let diagnostic = merged.origins.diagnostic(key, "the image has no boot partition that could be changed");
            return Err(Diagnostics::from(diagnostic).into());
        }
        return Ok(());
    };
    boot_step::run(stage, merged, mount)?;
    match over_nfs {
        Some(root) => {
            nfs_root::refuse_contradictions(merged)?;
            nfs_root::command_line(stage, root, mount)
        }
        None if recipe.cloud_init != Default::default() => seed.put_on_boot_partition(stage, &recipe.cloud_init, mount),
        None => Ok(()),
    }
}

/// The tree that a recipe makes, in memory: nothing of it is in the store but the base.
pub(crate) struct Staged {
    /// The tree, with the recipe key of every path that was touched.
    pub(crate) stage: Stage,
    /// The documents for cloud-init; empty where they are wrong.
    pub(crate) seed: Seed,
    /// Where the boot partition is mounted, if the image has one.
    pub(crate) boot_mount: Option<TreePath>,
    /// What is wrong with the recipe; the part of it that is wrong was left out.
    pub(crate) mistakes: Vec<Diagnostics>,
}

/// Runs the steps on the base without writing layers or outputs, and goes on after a mistake in the recipe.
pub(crate) fn staged(request: &BuildRequest<'_>, merged: &Merged) -> Result<Staged> {
    let inputs = Snapshot::new(request.inputs);
    let request = &request.with_inputs(&inputs);
    let mut mistakes = Vec::new();
    let mut gather = |result: Result<()>| match result {
        Err(BuildError::Recipe(diagnostics)) => {
            mistakes.push(diagnostics);
            Ok(())
        }
        other => other,
    };
    gather(refuse_unsupported(merged))?;
    let pins = pin_files(request, merged)?;
    let imported = Found::find(request, merged)?.imported;
    request.observer.step("base", imported.cached);
    let info = &imported.base.info;
    let date = merged.recipe.date.map_or(info.newest, |date| Timestamp::from_seconds(date.seconds()));
    let boot_mount = info.boot_mount.as_ref().map(TreePath::new).transpose()?;
    let plan = packages::plan(request, merged, &imported)?;
    let base = StepOutcome { name: "base".into(), key: imported.key, cached: imported.cached };
    let mut chain = Chain::begin(request, date, base, imported.base.layer.clone());
    install_packages(&mut chain, request, merged, &plan, boot_mount.as_ref())?;
    let mut stage = Stage::open(request.store, &chain.layers, date)?;
    let fetched = fetch_files(request, merged, &pins.files)?;
    gather(change_files(&mut stage, merged, request.inputs, &fetched, boot_mount.as_ref()))?;
    gather(services::run(&mut stage, merged))?;
    let mut seed = Seed::default();
    gather(Seed::read(merged, request.inputs).map(|read| seed = read))?;
    gather(configure(&mut stage, merged, &seed, boot_mount.as_ref()))?;
    Ok(Staged { stage, seed, boot_mount, mistakes })
}

/// The steps after the base, the outputs, and the ref.
fn finish(
    request: &BuildRequest<'_>,
    merged: &Merged,
    imported: ImportedBase,
    pins: Pins,
    plan: &packages::Plan,
    origin: Option<BaseOrigin>,
) -> Result<BuildOutcome> {
    let store = request.store;
    let recipe = &merged.recipe;
    let info = imported.base.info.clone();
    let date = recipe.date.map_or(info.newest, |date| Timestamp::from_seconds(date.seconds()));
    let boot_mount = info.boot_mount.as_ref().map(TreePath::new).transpose()?;
    let base = StepOutcome { name: "base".into(), key: imported.key, cached: imported.cached };
    let mut chain = Chain::begin(request, date, base, imported.base.layer.clone());

    install_packages(&mut chain, request, merged, plan, boot_mount.as_ref())?;

    let inputs = decisive::files(request, merged, &pins.files, &info)?;
    chain.step("files", &inputs, |stage| {
        change_files(stage, merged, request.inputs, &fetch_files(request, merged, &pins.files)?, boot_mount.as_ref())?;
        services::run(stage, merged)
    })?;

    let seed = Seed::read(merged, request.inputs)?;
    let inputs = decisive::config(recipe, &seed, &info);
    chain.step("config", &inputs, |stage| configure(stage, merged, &seed, boot_mount.as_ref()))?;

    let (boot_templates, root_templates) = decisive::templates(&chain.templates, boot_mount.as_ref());
    let mut manifests = vec![image::put_image(store, &chain.layers, &chain.layer_names, date, &root_templates)?];
    if recipe.outputs.contains(&Output::Boot) {
        let Some(mount) = &boot_mount else {
            return Err(BuildError::Boot("the image has no boot partition".into()));
        };
        let options = BootOptions::new(recipe.boot.size, &info, boot_templates);
        manifests.push(chain.output("boot", &options, Some(mount), |stage| {
            let tree = stage.tree.rooted_at(mount);
            let tree = tree.ok_or_else(|| BuildError::Boot(format!("{mount} is not a directory any more")))?;
            boot::make(store, &tree, stage.contents(), &options, request.jobs)
        })?);
    }
    if recipe.outputs.contains(&Output::NfsRoot) {
        manifests.push(chain.output("nfs-root", &root_templates, None, |stage| {
            let options = ArchiveOptions { jobs: request.jobs, table: false, diff_id: false };
            let archive = flatten(store, &stage.tree, stage.contents(), options)?;
            let file = artifact::file(types::ROOT_ARCHIVE, "root.tar.zst", archive.digest, archive.size);
            let annotations = image::template_annotation(&root_templates);
            artifact::put(store, "nfs-root", types::NFS_ROOT, vec![file], annotations, None)
        })?);
    }
    let mut documents = Vec::new();
    for (name, bytes) in seed.documents() {
        documents.push(artifact::file(types::SEED_DOCUMENT, name, store.put(bytes)?, bytes.len() as u64));
    }
    manifests.push(artifact::put(store, "seed", types::SEED, documents, Annotations::new(), None)?);

    let source = Source {
        recipe: recipe.clone(),
        variant: merged.variant.clone(),
        lock: pins.lock.to_bytes(),
        base: imported.base,
    };
    let key = decisive::source_key(request, merged, &pins.lock, &source.base)?;
    let found: Option<Descriptor> = store.step_result(key)?;
    let cached = found.is_some();
    let descriptor = match found {
        Some(found) => found,
        None => {
            let packages = pins.lock.all_packages();
            let made = source::make(store, &source, request.inputs, &packages, request.jobs)?;
            store.set_step_result(key, &artifact::blobs(store, std::slice::from_ref(&made))?, &made)?;
            made
        }
    };
    chain.done(StepOutcome { name: "output source".into(), key, cached });
    manifests.push(descriptor);

    let reference = format!("{}:{}", recipe.name, merged.variant);
    let bills = match &origin {
        // Their time is the build's date.
        Some(_) => Some(chain.output("sbom", &(&reference, date.seconds, date.nanoseconds), None, |stage| {
            sbom::make(store, stage, &reference)
        })?),
        None => None,
    };

    let artifacts = manifests.iter().map(|it| describe(store, it)).collect::<Result<_>>()?;
    let index = image::put_index(store, &recipe.name, &merged.variant, manifests)?;
    if let Some(bills) = bills {
        sbom::put(store, &index, &bills)?;
    }
    if let Some(origin) = origin {
        let steps = chain.provenance.into_iter().map(|(outcome, layer, origins)| ProvenanceStep {
            name: outcome.name,
            key: outcome.key,
            layer,
            paths: origins
                .into_iter()
                .map(|(path, key)| {
                    let location = merged.origins.get(&key);
                    (path.as_bytes().escape_ascii().to_string(), Origin::new(&key, location))
                })
                .collect(),
        });
        let record = Provenance {
            image: origin.image,
            image_replaced: origin.replaced,
            image_digest: info.image,
            verified: origin.verified,
            steps: steps.collect(),
        };
        provenance::put(store, &index, &record)?;
        store.set_ref(&reference, &index)?;
    }
    Ok(BuildOutcome {
        recipe: recipe.name.clone(),
        variant: merged.variant.clone(),
        reference,
        digest: index.digest,
        artifacts,
        steps: chain.outcomes,
        lock: pins.lock,
    })
}

fn describe(store: &Store, descriptor: &Descriptor) -> Result<Artifact> {
    let manifest: Manifest = store.read_document(descriptor.digest)?;
    let files: Vec<_> = manifest
        .layers
        .iter()
        .map(|layer| ArtifactFile {
            name: layer.annotations.get(aule_store::oci::TITLE).cloned(),
            media_type: layer.media_type.clone(),
            digest: layer.digest,
            size: layer.size,
        })
        .collect();
    Ok(Artifact {
        name: descriptor.annotations.get(ARTIFACT_NAME).cloned().unwrap_or_default(),
        media_type: manifest.artifact_type.unwrap_or_else(|| descriptor.media_type.clone()),
        digest: descriptor.digest,
        size: files.iter().map(|file| file.size).sum(),
        files,
    })
}
