//! From a recipe to a build in the store: plan, steps, outputs, ref.

use crate::{
    BuildError, Result,
    base::{ImportedBase, WantedBase, fetch_files, fetch_into_store},
    inputs::{Bytes, InputKind, Inputs},
    key::step_key,
    outputs::{
        artifact::{self, types},
        boot::{self, BootOptions},
        image, provenance,
        provenance::{Origin, Provenance, ProvenanceStep},
        source::{self, Source},
    },
    stage::{LayerRecord, Stage, flatten},
    steps::{boot as boot_step, files, nfs_root, overlays, seed::Seed, services},
};
use aule_recipe::{Diagnostics, Lock, LockedFile, Merged, Output, Root, RootOver};
use aule_store::{
    ARTIFACT_NAME, Build, StepKey, Store,
    download::Proxies,
    layer::ArchiveOptions,
    oci::{Annotations, Descriptor, Manifest},
};
use aule_tree::{Digest, Hasher, Timestamp, TreePath};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Told what a build does, for people who wait.
pub trait Observer: Sync {
    /// A step is done.
    fn step(&self, name: &str, cached: bool);
    /// Something worth a line.
    fn note(&self, message: &str);
    /// `done` of `total` bytes.
    fn progress(&self, what: &'static str, done: u64, total: Option<u64>);
}

/// How the network is reached.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// The proxies to use.
    pub proxies: Option<Proxies>,
    /// PEM certificates to trust beside the built-in roots.
    pub extra_roots: Vec<u8>,
}

/// What may happen to the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// What is missing is added, what is unused is dropped.
    Add,
    /// Any difference is an error.
    Locked,
}

/// Everything that a build takes from outside.
pub struct BuildRequest<'a> {
    /// Where it goes.
    pub store: &'a Store,
    /// Where local inputs come from.
    pub inputs: &'a dyn Inputs,
    /// How many threads work; does not show in the result.
    pub jobs: usize,
    /// A local image in place of the recipe's.
    pub base: Option<PathBuf>,
    /// How the network is reached.
    pub network: Network,
    /// The time by which signatures are judged; `None` to judge them whatever the time.
    pub now: Option<Timestamp>,
    /// The lock as it is.
    pub lock: Lock,
    /// What may happen to it.
    pub lock_mode: LockMode,
    /// Told what happens.
    pub observer: &'a dyn Observer,
}

/// A finished step, as `--format json` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepOutcome {
    /// `base`, `files`, `config`, or `output NAME`.
    pub name: String,
    /// Its key.
    pub key: StepKey,
    /// Whether its result was there already.
    pub cached: bool,
}

/// One artifact of a build, as `--format json` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// `boot`, `nfs-root`, `oci`, `seed`, `source`.
    pub name: String,
    /// Of the manifest.
    pub media_type: String,
    /// Of the manifest.
    pub digest: Digest,
    /// Of all its files together, in bytes.
    pub size: u64,
    /// The files that the manifest lists.
    pub files: Vec<ArtifactFile>,
}

/// One file (or layer) of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArtifactFile {
    /// The name that it is exported under; none for the layers of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of the blob.
    pub media_type: String,
    /// Of the blob.
    pub digest: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
}

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildOutcome {
    /// The recipe's name.
    pub recipe: String,
    /// The variant.
    pub variant: String,
    /// The reference under which it is stored.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The digest of its index: its identity.
    pub digest: Digest,
    /// What it is made of.
    pub artifacts: Vec<Artifact>,
    /// What was done.
    pub steps: Vec<StepOutcome>,
    /// The lock as it should be from now on.
    #[serde(skip)]
    pub lock: Lock,
}

/// What is remembered of a step that changes the tree.
#[derive(Serialize, Deserialize)]
struct StepResult {
    layer: Option<LayerRecord>,
    templates: Vec<TreePath>,
    origins: Vec<(TreePath, String)>,
}

/// The parts of a recipe whose pins a build needs.
struct Pins {
    files: BTreeMap<String, Digest>,
    lock: Lock,
}

/// Resolves the base image and every fetched file, and gives the lock that pins them.
///
/// # Errors
/// As [`build`].
pub fn lock(request: &BuildRequest<'_>, merged: &Merged) -> Result<Lock> {
    let mut pins = pin_files(request, merged)?;
    let wanted = WantedBase::find(request, merged)?;
    let imported = wanted.import(request)?;
    pins.lock.base = if wanted.replaced { request.lock.base.clone() } else { imported.lock };
    Ok(pins.lock)
}

/// Builds one variant of a recipe.
///
/// # Errors
/// When the recipe asks for what the image does not have, an input cannot be read, the image is not the right one, or
/// the store cannot be written. The store is valid then, and holds what finished steps gave.
pub fn build(request: &BuildRequest<'_>, merged: &Merged) -> Result<BuildOutcome> {
    refuse_unsupported(merged)?;
    let mut pins = pin_files(request, merged)?;
    let wanted = WantedBase::find(request, merged)?;
    let imported = wanted.import(request)?;
    request.observer.step("base", imported.cached);
    pins.lock.base = if wanted.replaced { request.lock.base.clone() } else { imported.lock.clone() };
    // Files were compared when they were pinned. What the lock holds for other variants is not this build's business.
    if request.lock_mode == LockMode::Locked && pins.lock.base != request.lock.base {
        return Err(BuildError::Locked(
            "the lock has another base image than the recipe; run `aule lock` and commit the result".into(),
        ));
    }
    let origin =
        BaseOrigin { image: wanted.name.clone(), replaced: wanted.replaced, verified: wanted.verified.clone() };
    finish(request, merged, imported, pins, Some(origin))
}

/// Builds again what `build` was built from, from its `source` artifact and its own base layer alone.
///
/// # Errors
/// As [`build()`]; also when the source is damaged.
pub fn rebuild(request: &BuildRequest<'_>, of: &Build) -> Result<BuildOutcome> {
    let (source, inputs) = source::open(request.store, of)?;
    let lock = Lock::parse(&source.lock)?;
    let merged = Merged { recipe: source.recipe, variant: source.variant, origins: Default::default() };
    let request =
        BuildRequest { inputs: &inputs, lock: lock.clone(), base: None, network: request.network.clone(), ..*request };
    // Fetched files stand in the layers of the build.
    let mut pins = pin_files(&request, &merged)?;
    pins.lock.base.clone_from(&lock.base);
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
    finish(&request, &merged, imported, pins, None)
}

/// What the provenance says of the base.
struct BaseOrigin {
    image: String,
    replaced: bool,
    verified: String,
}

fn refuse_unsupported(merged: &Merged) -> Result<()> {
    if let Some(diagnostics) = merged.packages_not_supported() {
        return Err(diagnostics.into());
    }
    if let Some(at) = merged.recipe.outputs.iter().position(|it| *it == Output::Disk) {
        let diagnostic = merged
            .origins
            .diagnostic(&format!("outputs[{at}]"), "the output `disk` is not supported yet")
            .help("leave it out, or build another variant with `--variant`");
        return Err(Diagnostics::from(diagnostic).into());
    }
    Ok(())
}

/// Digests of all fetched files: from the lock, else the recipe, else fetched now.
fn pin_files(request: &BuildRequest<'_>, merged: &Merged) -> Result<Pins> {
    let mut pins = Pins { files: BTreeMap::new(), lock: Lock::default() };
    let mut files: BTreeMap<String, LockedFile> = BTreeMap::new();
    for (path, url, stated) in merged.recipe.fetched_files() {
        let stated = stated.map(|it| Digest::from_bytes(it.0));
        let locked =
            request.lock.file(url).filter(|it| stated.is_none_or(|stated| stated == Digest::from_bytes(it.sha256.0)));
        let pin = match locked {
            Some(locked) => locked.clone(),
            None if request.lock_mode == LockMode::Locked => {
                let message = format!("`{}` is not in the lock, or with another digest", url.as_str());
                let diagnostic = merged.origins.diagnostic(&format!("files.{path}.url"), message);
                return Err(Diagnostics::from(diagnostic.help("run `aule lock`, and commit the result")).into());
            }
            None => {
                let (digest, size) = fetch_into_store(request, url.as_str(), stated)?;
                LockedFile { url: url.as_str().into(), size, sha256: aule_recipe::Sha256(*digest.as_bytes()) }
            }
        };
        pins.files.insert(url.as_str().to_owned(), Digest::from_bytes(pin.sha256.0));
        files.insert(url.as_str().to_owned(), pin);
    }
    pins.lock.files = files.into_values().collect();
    Ok(pins)
}

/// The digest of all local inputs that the tree takes in: paths, kinds, executable bits and bytes.
fn inputs_digest(request: &BuildRequest<'_>, merged: &Merged) -> Result<Digest> {
    let mut hasher = Hasher::new();
    let recipe = &merged.recipe;
    let failed = |key: &str, path: &aule_recipe::LocalPath, error: std::io::Error| {
        let message = format!("cannot read `{path}`: {error}");
        BuildError::Recipe(Diagnostics::from(merged.origins.diagnostic(key, message)))
    };
    for (number, overlay) in recipe.overlays.iter().enumerate() {
        let key = format!("overlays[{number}]");
        for entry in request.inputs.directory(overlay).map_err(|error| failed(&key, overlay, error))? {
            hasher.field(&entry.path);
            hash_input(&mut hasher, &entry.kind).map_err(|error| failed(&key, overlay, error))?;
        }
        hasher.field(b"end of overlay");
    }
    for (path, entry) in &recipe.files {
        if let aule_recipe::FileKind::Source(local) = &entry.kind {
            let key = format!("files.{path}");
            let kind = request.inputs.file(local).map_err(|error| failed(&key, local, error))?;
            hash_input(&mut hasher, &kind).map_err(|error| failed(&key, local, error))?;
        }
    }
    Ok(hasher.finish())
}

fn hash_input(hasher: &mut Hasher, kind: &InputKind) -> std::io::Result<()> {
    match kind {
        InputKind::Directory => hasher.field(b"directory"),
        InputKind::Symlink(target) => {
            hasher.field(b"symlink");
            hasher.field(target);
        }
        InputKind::File { bytes, executable } => {
            hasher.field(if *executable { b"program" } else { b"file" });
            hasher.field(bytes.digest()?.0.as_bytes());
        }
    }
    Ok(())
}

/// What the provenance says of a step: its outcome, its layer, and which recipe key touched each path.
type StepRecord = (StepOutcome, Option<Digest>, Vec<(TreePath, String)>);

/// The chain of steps so far.
struct Chain<'a> {
    request: &'a BuildRequest<'a>,
    date: Timestamp,
    layers: Vec<LayerRecord>,
    layer_names: Vec<&'static str>,
    templates: Vec<TreePath>,
    outcomes: Vec<StepOutcome>,
    provenance: Vec<StepRecord>,
    /// The tree after the last step that ran; `None` while all came from the cache.
    stage: Option<Stage>,
}

impl Chain<'_> {
    /// Runs a step, or takes its result from the cache. `inputs` decides the result together with the layers so far.
    fn step(
        &mut self,
        name: &'static str,
        inputs: &impl Serialize,
        run: impl FnOnce(&mut Stage) -> Result<()>,
    ) -> Result<()> {
        let store = self.request.store;
        let below: Vec<Digest> = self.layers.iter().map(|layer| layer.descriptor.digest).collect();
        let key = step_key(name, &(&below, self.date, inputs))?;
        let cached: Option<StepResult> = store.step_result(key)?;
        let was_cached = cached.is_some();
        let result = match cached {
            Some(result) => {
                if result.layer.is_some() {
                    self.stage = None;
                }
                result
            }
            None => {
                let mut stage = match self.stage.take() {
                    Some(stage) => stage,
                    None => Stage::open(store, &self.layers, self.date)?,
                };
                run(&mut stage)?;
                let layer = stage.commit(store, self.request.jobs)?;
                let result = StepResult {
                    layer,
                    templates: std::mem::take(&mut stage.templates),
                    origins: std::mem::take(&mut stage.origins).into_iter().collect(),
                };
                let blobs: Vec<_> = result.layer.iter().map(|layer| layer.descriptor.digest).collect();
                store.set_step_result(key, &blobs, &result)?;
                self.stage = Some(stage);
                result
            }
        };
        let outcome = StepOutcome { name: name.into(), key, cached: was_cached };
        let digest = result.layer.as_ref().map(|layer| layer.descriptor.digest);
        self.provenance.push((outcome.clone(), digest, result.origins));
        self.done(outcome);
        self.templates.extend(result.templates);
        if let Some(layer) = result.layer {
            self.layers.push(layer);
            self.layer_names.push(name);
        }
        Ok(())
    }

    fn done(&mut self, outcome: StepOutcome) {
        self.request.observer.step(&outcome.name, outcome.cached);
        self.outcomes.push(outcome);
    }

    /// Makes an output, or takes it from the cache: by the layers, and where those are new by the part of the tree that
    /// it is made of.
    fn output(
        &mut self,
        name: &str,
        options: &impl Serialize,
        subtree: Option<&TreePath>,
        make: impl FnOnce(&Stage) -> Result<Descriptor>,
    ) -> Result<Descriptor> {
        let store = self.request.store;
        let step = format!("output {name}");
        let layers: Vec<Digest> = self.layers.iter().map(|layer| layer.descriptor.digest).collect();
        let by_layers = step_key(&step, &("layers", layers, options))?;
        if let Some(found) = store.step_result::<Descriptor>(by_layers)? {
            self.done(StepOutcome { name: step, key: by_layers, cached: true });
            return Ok(found);
        }
        let stage = match self.stage.take() {
            Some(stage) => stage,
            None => Stage::open(store, &self.layers, self.date)?,
        };
        let tree = match subtree {
            Some(path) => stage.tree.rooted_at(path).map(|tree| tree.digest()),
            None => Some(stage.tree.digest()),
        };
        let by_tree = step_key(&step, &("tree", tree, options))?;
        let found: Option<Descriptor> = store.step_result(by_tree)?;
        let cached = found.is_some();
        let descriptor = match found {
            Some(found) => found,
            None => make(&stage)?,
        };
        let blobs = artifact::blobs(store, std::slice::from_ref(&descriptor))?;
        for key in [by_layers, by_tree] {
            store.set_step_result(key, &blobs, &descriptor)?;
        }
        self.stage = Some(stage);
        self.done(StepOutcome { name: step, key: by_layers, cached });
        Ok(descriptor)
    }
}

/// `root: {over: nfs}`, if the recipe says so.
fn over_nfs(merged: &Merged) -> Option<&Root> {
    merged.recipe.root.as_ref().filter(|root| root.over == RootOver::Nfs)
}

/// The step `files` but for its services.
fn change_files(
    stage: &mut Stage,
    merged: &Merged,
    inputs: &dyn Inputs,
    fetched: &BTreeMap<String, Bytes>,
    boot_mount: Option<&TreePath>,
) -> Result<()> {
    let clamp = stage.date;
    stage.tree.update_all(|inode| inode.metadata.mtime = inode.metadata.mtime.min(clamp));
    overlays::run(stage, merged, inputs)?;
    files::run(stage, merged, inputs, fetched)?;
    if over_nfs(merged).is_some() {
        nfs_root::prepare(stage, boot_mount)?;
    }
    Ok(())
}

/// The step `config`.
fn configure(stage: &mut Stage, merged: &Merged, seed: &Seed, boot_mount: Option<&TreePath>) -> Result<()> {
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
        Some(root) => nfs_root::command_line(stage, root, mount),
        None if recipe.cloud_init != Default::default() => seed.put_on_boot_partition(stage, mount),
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
    let imported = WantedBase::find(request, merged)?.import(request)?;
    request.observer.step("base", imported.cached);
    let info = &imported.base.info;
    let date = merged.recipe.date.map_or(info.newest, |date| Timestamp::from_seconds(date.seconds()));
    let boot_mount = info.boot_mount.as_ref().map(TreePath::new).transpose()?;
    let mut stage = Stage::open(request.store, std::slice::from_ref(&imported.base.layer), date)?;
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
    origin: Option<BaseOrigin>,
) -> Result<BuildOutcome> {
    let store = request.store;
    let recipe = &merged.recipe;
    let info = imported.base.info.clone();
    let date = recipe.date.map_or(info.newest, |date| Timestamp::from_seconds(date.seconds()));
    let base = StepOutcome { name: "base".into(), key: imported.key, cached: imported.cached };
    let base_layer = imported.base.layer.clone();
    let mut chain = Chain {
        request,
        date,
        layers: vec![base_layer.clone()],
        layer_names: vec!["base"],
        templates: Vec::new(),
        outcomes: vec![base.clone()],
        provenance: vec![(base, Some(base_layer.descriptor.digest), Vec::new())],
        stage: None,
    };
    let boot_mount = info.boot_mount.as_ref().map(TreePath::new).transpose()?;
    let over_nfs = over_nfs(merged);

    let inputs = (
        &recipe.files,
        recipe.overlays.len(),
        inputs_digest(request, merged)?,
        &pins.files,
        &recipe.services,
        over_nfs.is_some(),
        &info.boot_mount,
    );
    chain.step("files", &inputs, |stage| {
        change_files(stage, merged, request.inputs, &fetch_files(request, merged, &pins.files)?, boot_mount.as_ref())?;
        services::run(stage, merged)
    })?;

    let seed = Seed::read(merged, request.inputs)?;
    let seed_digests = seed.documents().map(|(_, bytes)| Digest::of(bytes));
    let has_seed = recipe.cloud_init != Default::default();
    let inputs = (&recipe.boot, &recipe.root, has_seed.then_some(seed_digests), &info.boot_mount);
    chain.step("config", &inputs, |stage| configure(stage, merged, &seed, boot_mount.as_ref()))?;

    let in_boot = |path: &TreePath| boot_mount.as_ref().is_some_and(|mount| path.starts_with(mount));
    let (boot_templates, root_templates): (Vec<_>, Vec<_>) = std::mem::take(&mut chain.templates)
        .into_iter()
        .map(|path| (in_boot(&path), String::from_utf8_lossy(path.as_bytes()).into_owned()))
        .partition(|(in_boot, _)| *in_boot);
    let names = |templates: Vec<(bool, String)>| templates.into_iter().map(|(_, path)| path).collect::<Vec<_>>();
    let (boot_templates, root_templates) = (names(boot_templates), names(root_templates));
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
    let canonical = (
        Digest::of(&aule_recipe::canonical(recipe)),
        &merged.variant,
        Digest::of(&source.lock),
        &source.base,
        inputs_digest(request, merged)?,
        seed_inputs(request, merged)?,
    );
    let key = step_key("output source", &canonical)?;
    let found: Option<Descriptor> = store.step_result(key)?;
    let cached = found.is_some();
    let descriptor = match found {
        Some(found) => found,
        None => {
            let made = source::make(store, &source, request.inputs, request.jobs)?;
            store.set_step_result(key, &artifact::blobs(store, std::slice::from_ref(&made))?, &made)?;
            made
        }
    };
    chain.done(StepOutcome { name: "output source".into(), key, cached });
    manifests.push(descriptor);

    let artifacts = manifests.iter().map(|it| describe(store, it)).collect::<Result<_>>()?;
    let index = image::put_index(store, &recipe.name, &merged.variant, manifests)?;
    let reference = format!("{}:{}", recipe.name, merged.variant);
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

/// Digests of the local documents of the seed: the source holds them as they are, not merged.
fn seed_inputs(request: &BuildRequest<'_>, merged: &Merged) -> Result<Vec<Digest>> {
    let cloud_init = &merged.recipe.cloud_init;
    let documents = cloud_init.user_data.iter().chain(&cloud_init.meta_data);
    let documents = documents.chain(&cloud_init.vendor_data).chain(&cloud_init.network_config);
    let mut digests = Vec::new();
    for local in documents.filter_map(|document| document.as_local()) {
        if let Ok(InputKind::File { bytes, .. }) = request.inputs.file(local) {
            let place = TreePath::new(local.name()).unwrap_or_else(|_| TreePath::root());
            digests.push(bytes.digest().map_err(|source| BuildError::ReadInput { path: place, source })?.0);
        }
    }
    Ok(digests)
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
