//! The steps of a build that is looked ahead at: each is cached, or would run, or nobody knows yet. Steps that only edit the tree
//! are run in memory, so that the tree is known that comes out.

use super::{
    base::BaseAhead,
    report::{Step, StepState},
};
use crate::{
    BuildError, BuildRequest, Result,
    base::ImportedBase,
    chain,
    stage::{LayerRecord, Stage},
};
use aule_store::{StepKey, oci::Descriptor};
use aule_tree::{Timestamp, Tree, TreePath};
use serde::Serialize;

/// What is known of the tree.
enum Known {
    /// Its layers, which are in the store.
    Layers,
    /// The tree in memory; its last layer is not written, so nothing that depends on its digest is known.
    Tree(&'static str),
    /// Nothing, and why.
    Nothing(String),
}

/// The steps of a build whose base is not there: nothing is known of those with `names`, but that they run where the store
/// remembers no step at all.
pub(super) fn without_base<'a>(
    request: &BuildRequest<'_>,
    base: &BaseAhead,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<Step>> {
    let all_run = !request.store.remembers_steps()?;
    let step = |name: &str, runs: bool| match runs {
        true => Step { name: name.into(), state: StepState::Runs, key: None, why: None },
        false => Step { name: name.into(), state: StepState::Unknown, key: None, why: Some(base.why.clone()) },
    };
    // Without a key there may be one that the store remembers.
    let mut steps = vec![Step { key: base.key, ..step("base", base.key.is_some() || all_run) }];
    // There is none where the base turns out to have all packages.
    steps.extend(names.map(|name| step(name, all_run && name != "packages")));
    Ok(steps)
}

/// The steps so far.
pub(super) struct Walk<'a> {
    request: &'a BuildRequest<'a>,
    date: Timestamp,
    layers: Vec<LayerRecord>,
    /// The tree, where it had to be read.
    stage: Option<Stage>,
    known: Known,
    pub(super) templates: Vec<TreePath>,
    pub(super) steps: Vec<Step>,
}

impl<'a> Walk<'a> {
    /// Begins on the base.
    pub(super) fn begin(request: &'a BuildRequest<'a>, date: Timestamp, base: &ImportedBase) -> Self {
        Walk {
            request,
            date,
            layers: vec![base.base.layer.clone()],
            stage: None,
            known: Known::Layers,
            templates: Vec::new(),
            steps: vec![Step { name: "base".into(), state: StepState::Cached, key: Some(base.key), why: None }],
        }
    }

    fn push(&mut self, name: String, state: StepState, key: Option<StepKey>, why: Option<String>) {
        self.steps.push(Step { name, state, key, why });
    }

    /// A step of which only the name is known; nothing after it is.
    pub(super) fn lose(&mut self, name: &str, why: &str) {
        self.push(name.into(), StepState::Unknown, None, Some(why.into()));
        self.known = Known::Nothing(why.into());
    }

    /// From here on the tree is not known.
    fn nothing_more(&mut self, why: String) {
        (self.known, self.stage) = (Known::Nothing(why), None);
    }

    /// A step that is decided by `inputs`; `run` does it in memory, or fails with [`BuildError::NotAtHand`] where that cannot be.
    pub(super) fn step(
        &mut self,
        name: &'static str,
        inputs: &impl Serialize,
        run: impl FnOnce(&mut Stage) -> Result<()>,
    ) -> Result<()> {
        match &self.known {
            Known::Nothing(why) => {
                let why = why.clone();
                self.unknown(name.into(), why);
                return Ok(());
            }
            Known::Layers => {
                let (key, found) = chain::remembered(self.request.store, &self.layers, self.date, name, inputs)?;
                if let Some(found) = found {
                    if let Some(layer) = found.layer {
                        self.layers.push(layer);
                        self.stage = None;
                    }
                    self.templates.extend(found.templates);
                    self.push(name.into(), StepState::Cached, Some(key), None);
                    return Ok(());
                }
                self.push(name.into(), StepState::Runs, Some(key), None);
            }
            Known::Tree(before) => {
                let why = format!("it depends on what the step `{before}` gives");
                self.unknown(name.into(), why);
            }
        }
        self.read_tree()?;
        let Some(mut stage) = self.stage.take() else { return Ok(()) };
        match run(&mut stage) {
            Err(BuildError::NotAtHand(why)) => self.nothing_more(why),
            Err(error) => return Err(error),
            Ok(()) => {
                // What changes nothing gives no layer.
                if matches!(self.known, Known::Layers) && !stage.is_unchanged() {
                    self.known = Known::Tree(name);
                }
                stage.go_on();
                self.templates.append(&mut stage.templates);
                self.stage = Some(stage);
            }
        }
        Ok(())
    }

    fn unknown(&mut self, name: String, why: String) {
        self.push(name, StepState::Unknown, None, Some(why));
    }

    /// An output of the tree, or of the part of it at `subtree`.
    pub(super) fn output(&mut self, name: &str, options: &impl Serialize, subtree: Option<&TreePath>) -> Result<()> {
        let store = self.request.store;
        let step = format!("output {name}");
        let mut first = None;
        match &self.known {
            Known::Nothing(why) => {
                let why = why.clone();
                self.unknown(step, why);
                return Ok(());
            }
            Known::Layers => {
                let key = chain::output_by_layers(name, &self.layers, options)?;
                first = Some(key);
                if store.step_result::<Descriptor>(key)?.is_some() {
                    self.push(step, StepState::Cached, Some(key), None);
                    return Ok(());
                }
            }
            Known::Tree(_) => {}
        }
        self.read_tree()?;
        let Some(stage) = &self.stage else { return Ok(()) };
        let key = chain::output_by_tree(name, &stage.tree, subtree, options)?;
        let state = match store.step_result::<Descriptor>(key)? {
            Some(_) => StepState::Cached,
            None => StepState::Runs,
        };
        self.push(step, state, first, None);
        Ok(())
    }

    /// An output whose key is known, or not for the reason that is given.
    pub(super) fn output_of(&mut self, name: &str, key: Result<StepKey, String>) -> Result<()> {
        let step = format!("output {name}");
        match key {
            Err(why) => self.unknown(step, why),
            Ok(key) => {
                let state = match self.request.store.step_result::<Descriptor>(key)? {
                    Some(_) => StepState::Cached,
                    None => StepState::Runs,
                };
                self.push(step, state, Some(key), None);
            }
        }
        Ok(())
    }

    fn read_tree(&mut self) -> Result<()> {
        if self.stage.is_none() && matches!(self.known, Known::Layers) {
            self.stage = Some(Stage::open(self.request.store, &self.layers, self.date)?);
        }
        Ok(())
    }

    /// The tree that comes out, or why it is not known; and the steps.
    pub(super) fn end(mut self) -> Result<(Vec<Step>, Result<Tree, String>)> {
        self.read_tree()?;
        let tree = match (self.known, self.stage) {
            (Known::Nothing(why), _) => Err(why),
            (_, Some(stage)) => Ok(stage.tree),
            (_, None) => return Err(BuildError::Internal("a tree that is known was not read")),
        };
        Ok((self.steps, tree))
    }
}
