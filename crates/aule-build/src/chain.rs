//! The chain of steps of a build: each step or output runs, or its result comes from the cache.

use crate::{
    BuildRequest, Result, StepOutcome,
    key::step_key,
    outputs::artifact,
    stage::{LayerRecord, Stage},
};
use aule_store::{StepKey, Store, oci::Descriptor};
use aule_tree::{Digest, Timestamp, Tree, TreePath};
use serde::{Deserialize, Serialize};

/// What is remembered of a step that changes the tree.
#[derive(Serialize, Deserialize)]
pub(crate) struct StepResult {
    /// What it changed; `None` for nothing.
    pub(crate) layer: Option<LayerRecord>,
    /// Paths that are rendered for each node when they are served.
    pub(crate) templates: Vec<TreePath>,
    origins: Vec<(TreePath, String)>,
}

/// The key of a step over these layers, and what is remembered of it.
pub(crate) fn remembered(
    store: &Store,
    layers: &[LayerRecord],
    date: Timestamp,
    name: &str,
    inputs: &impl Serialize,
) -> Result<(StepKey, Option<StepResult>)> {
    let below: Vec<Digest> = layers.iter().map(|layer| layer.descriptor.digest).collect();
    let key = step_key(name, &(&below, date, inputs))?;
    Ok((key, store.step_result(key)?))
}

/// The key of an output by the layers that it is made of.
pub(crate) fn output_by_layers(name: &str, layers: &[LayerRecord], options: &impl Serialize) -> Result<StepKey> {
    let layers: Vec<Digest> = layers.iter().map(|layer| layer.descriptor.digest).collect();
    step_key(&format!("output {name}"), &("layers", layers, options))
}

/// The key of an output by the part of the tree that it is made of.
pub(crate) fn output_by_tree(
    name: &str,
    tree: &Tree,
    subtree: Option<&TreePath>,
    options: &impl Serialize,
) -> Result<StepKey> {
    let tree = match subtree {
        Some(path) => tree.rooted_at(path).map(|tree| tree.digest()),
        None => Some(tree.digest()),
    };
    step_key(&format!("output {name}"), &("tree", tree, options))
}

/// What the provenance says of a step: its outcome, its layer, and which recipe key touched each path.
pub(crate) type StepRecord = (StepOutcome, Option<Digest>, Vec<(TreePath, String)>);

/// The chain of steps so far.
pub(crate) struct Chain<'a> {
    request: &'a BuildRequest<'a>,
    date: Timestamp,
    /// What the steps gave, the lowest first.
    pub(crate) layers: Vec<LayerRecord>,
    /// Which step gave each layer.
    pub(crate) layer_names: Vec<&'static str>,
    /// Paths that are rendered for each node when they are served.
    pub(crate) templates: Vec<TreePath>,
    /// The steps and outputs that are done.
    pub(crate) outcomes: Vec<StepOutcome>,
    /// What there is to say of the steps.
    pub(crate) provenance: Vec<StepRecord>,
    /// The tree after the last step that ran; `None` while all came from the cache.
    stage: Option<Stage>,
}

impl<'a> Chain<'a> {
    /// A chain that begins with the base.
    pub(crate) fn begin(request: &'a BuildRequest<'a>, date: Timestamp, base: StepOutcome, layer: LayerRecord) -> Self {
        Chain {
            request,
            date,
            layer_names: vec!["base"],
            templates: Vec::new(),
            outcomes: vec![base.clone()],
            provenance: vec![(base, Some(layer.descriptor.digest), Vec::new())],
            layers: vec![layer],
            stage: None,
        }
    }

    /// Runs a step, or takes its result from the cache. `inputs` decides the result together with the layers so far.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        inputs: &impl Serialize,
        run: impl FnOnce(&mut Stage) -> Result<()>,
    ) -> Result<()> {
        let store = self.request.store;
        let (key, cached) = remembered(store, &self.layers, self.date, name, inputs)?;
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

    pub(crate) fn done(&mut self, outcome: StepOutcome) {
        self.request.observer.step(&outcome.name, outcome.cached);
        self.outcomes.push(outcome);
    }

    /// Makes an output, or takes it from the cache: by the layers, and where those are new by the part of the tree that
    /// it is made of.
    pub(crate) fn output(
        &mut self,
        name: &str,
        options: &impl Serialize,
        subtree: Option<&TreePath>,
        make: impl FnOnce(&Stage) -> Result<Descriptor>,
    ) -> Result<Descriptor> {
        let store = self.request.store;
        let step = format!("output {name}");
        let by_layers = output_by_layers(name, &self.layers, options)?;
        if let Some(found) = store.step_result::<Descriptor>(by_layers)? {
            self.done(StepOutcome { name: step, key: by_layers, cached: true });
            return Ok(found);
        }
        let stage = match self.stage.take() {
            Some(stage) => stage,
            None => Stage::open(store, &self.layers, self.date)?,
        };
        let by_tree = output_by_tree(name, &stage.tree, subtree, options)?;
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
