//! `aule why`: where a path comes from. The layers are laid over each other one by one; where the path is another thing
//! after a layer than before, the layer's step did it, and the provenance says what in the recipe asked for that.

use super::{
    diff::{self, Aspect},
    entry::{Entry, Hardlinks},
    no_such_path, open, place, step_names,
    text::{self, Columns, Side},
};
use crate::{
    failure::Failure,
    output::{self, Format},
};
use aule_build::{Origin, Provenance, ProvenanceStep, read_provenance};
use aule_store::{Build, Store, StoreError, layer::LayerTable};
use aule_tree::{Digest, Inode, Layer, Metadata, Timestamp, Tree, TreePath, What};
use std::ffi::OsStr;

#[derive(serde::Serialize)]
struct Answer<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    digest: Digest,
    path: String,
    /// As it is in the finished root; nothing where it is gone.
    entry: Option<Entry>,
    /// What happened to it, the last first.
    history: Vec<Event>,
}

/// What a step did to the path.
#[derive(Debug, serde::Serialize)]
struct Event {
    step: String,
    /// None where the step changed nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<Digest>,
    action: Action,
    /// What it changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what: Vec<Aspect>,
    /// The other path that the layer or the recipe speaks of: the directory that was removed, the file for which a
    /// directory was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<String>,
    /// What in the recipe asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    /// The upstream image that it stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Image>,
    /// Why, where nothing in the recipe names the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Added,
    Changed,
    Removed,
    /// It was so already.
    Kept,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Added => "added",
            Action::Changed => "changed",
            Action::Removed => "removed",
            Action::Kept => "kept",
        }
    }
}

#[derive(Debug, Clone, serde::Serialize)]
struct Image {
    name: String,
    digest: Digest,
}

/// A layer with the trees before and after it.
struct Stage {
    step: String,
    digest: Digest,
    layer: Layer,
    before: Tree,
    after: Tree,
}

/// Says where `written` comes from.
pub(super) fn run(store: &Store, reference: &str, written: &OsStr, format: Format) -> Result<(), Failure> {
    let build = open(store, reference)?;
    let stages = stages(store, &build)?;
    let provenance = read_provenance(store, build.descriptor.digest)?;
    let empty = Tree::new(Metadata::root_owned(0o755, Timestamp::default()));
    let tree = stages.last().map_or(&empty, |stage| &stage.after);
    let mut path = place(tree, written, false)?;
    let mut history = history(&stages, provenance.as_ref(), &path);
    if history.is_empty() {
        // Perhaps it lay behind a symlink that is gone, or that took the directory's place.
        let literal = place(&empty, written, false)?;
        let of_literal = self::history(&stages, provenance.as_ref(), &literal);
        if of_literal.is_empty() {
            return Err(no_such_path(tree, &path, reference));
        }
        (path, history) = (literal, of_literal);
    }
    let links = tree.hardlinks();
    let entry = Entry::of(tree, &links, &path);
    match format {
        Format::Json => {
            let digest = build.descriptor.digest;
            output::json(&Answer { reference, digest, path: text::path(&path), entry, history })
        }
        Format::Text => show(tree.get(&path), &path, reference, &history, provenance.is_some()),
    }
}

fn stages(store: &Store, build: &Build) -> Result<Vec<Stage>, Failure> {
    let mut tree = Tree::new(Metadata::root_owned(0o755, Timestamp::default()));
    let mut stages = Vec::new();
    for (descriptor, step) in build.manifest.layers.iter().zip(step_names(build)) {
        let digest = descriptor.digest;
        let layer = LayerTable::read(store, digest)?.into_layer();
        let before = tree.clone();
        tree.apply(&layer)
            .map_err(|error| StoreError::Layer { layer: digest.to_string(), reason: error.to_string() })?;
        stages.push(Stage { step, digest, layer, before, after: tree.clone() });
    }
    Ok(stages)
}

/// What happened to `path`, the last first.
fn history(stages: &[Stage], provenance: Option<&Provenance>, path: &TreePath) -> Vec<Event> {
    let mut events = Vec::new();
    // Steps that gave no layer stand only in the provenance, which has all of them in their order.
    let steps = provenance.map(|it| it.steps.as_slice()).unwrap_or_default();
    for step in steps.iter().filter(|step| step.layer.is_none_or(|layer| !stages.iter().any(|it| it.digest == layer))) {
        events.extend(kept(step, path));
    }
    for (number, stage) in stages.iter().enumerate() {
        let step = steps.iter().find(|step| step.layer == Some(stage.digest));
        let image =
            provenance.filter(|_| number == 0).map(|it| Image { name: it.image.clone(), digest: it.image_digest });
        match event(stage, step, path) {
            Some(event) if number == 0 => {
                let note = image.is_none().then(|| "in the upstream image".to_owned());
                events.push(Event { image, note, ..event });
            }
            Some(event) => events.push(event),
            None => events.extend(step.and_then(|step| kept(step, path))),
        }
    }
    let position = |event: &Event| steps.iter().position(|step| step.name == event.step).unwrap_or(usize::MAX);
    if !steps.is_empty() {
        events.sort_by_key(position);
    }
    events.reverse();
    events
}

/// The provenance's word for a path.
fn word(path: &TreePath) -> String {
    path.as_bytes().escape_ascii().to_string()
}

/// What the step asked for where that changed nothing.
fn kept(step: &ProvenanceStep, path: &TreePath) -> Option<Event> {
    let origin = step.paths.get(&word(path))?.clone();
    Some(Event {
        step: step.name.clone(),
        layer: None,
        action: Action::Kept,
        what: Vec::new(),
        via: None,
        origin: Some(origin),
        image: None,
        note: None,
    })
}

fn event(stage: &Stage, step: Option<&ProvenanceStep>, path: &TreePath) -> Option<Event> {
    let Stage { before, after, .. } = stage;
    let (mut what, mut via, mut note) = (Vec::new(), None, None);
    let action = match (before.get(path), after.get(path)) {
        (None, None) => return None,
        (None, Some(_)) => Action::Added,
        (Some(_), None) => {
            via = Some(remover(stage, path)).filter(|via| via != path);
            Action::Removed
        }
        (Some(old), Some(new)) => {
            let (old_links, new_links) = (before.hardlinks(), after.hardlinks());
            let same_names = diff::same_names(path, (before, &old_links), (after, &new_links));
            what = diff::aspects(old, new, same_names);
            if what.is_empty() {
                return None;
            }
            Action::Changed
        }
    };
    let mut origin = None;
    if let Some(step) = step.filter(|step| !step.paths.is_empty()) {
        (origin, via, note) = ask(step, stage, path, action, &what, via);
    }
    Some(Event {
        step: stage.step.clone(),
        layer: Some(stage.digest),
        action,
        what,
        via: via.as_ref().map(text::path),
        origin,
        image: None,
        note,
    })
}

/// What removed `path`: its own whiteout or one of a directory above it, a directory that was emptied, or something
/// that took the place of a directory above it.
fn remover(stage: &Stage, path: &TreePath) -> TreePath {
    let removes = |at: &TreePath| {
        stage.layer.entries.iter().filter(|entry| entry.path == *at).any(|entry| match &entry.what {
            What::Whiteout => true,
            What::Opaque => at != path,
            What::Node(inode) => at != path && !inode.is_directory(),
            What::Link(_) => at != path,
        })
    };
    std::iter::successors(Some(path.clone()), TreePath::parent).find(|at| removes(at)).unwrap_or_else(|| path.clone())
}

type Asked = (Option<Origin>, Option<TreePath>, Option<String>);

/// What in the recipe asked for the change: the key that names the path, or the directory that went with it, or what it
/// was made for, or another of its names.
fn ask(
    step: &ProvenanceStep,
    stage: &Stage,
    path: &TreePath,
    action: Action,
    what: &[Aspect],
    via: Option<TreePath>,
) -> Asked {
    if let Some(origin) = step.paths.get(&word(path)) {
        return (Some(origin.clone()), via, None);
    }
    if action == Action::Removed {
        let above = std::iter::successors(path.parent(), TreePath::parent);
        let asked = above.filter_map(|at| Some((step.paths.get(&word(&at))?.clone(), at))).next();
        return match asked {
            Some((origin, at)) => (Some(origin), Some(at), None),
            None => (None, via, None),
        };
    }
    if what == [Aspect::Mtime] {
        return (None, None, Some("its time was limited to the recipe's `date`".into()));
    }
    let below = [word(path), "/".into()].concat();
    if stage.after.get(path).is_some_and(Inode::is_directory)
        && let Some((inner, origin)) = step.paths.range(below.clone()..).find(|(inner, _)| inner.starts_with(&below))
    {
        let note = format!("made for /{inner}");
        return (Some(origin.clone()), None, Some(note));
    }
    let links: Hardlinks<'_> = stage.after.hardlinks();
    let others = stage.after.id(path).and_then(|id| links.get(&id)).into_iter().flatten();
    for other in others {
        if let Some(origin) = step.paths.get(&word(other)) {
            return (Some(origin.clone()), Some((*other).clone()), Some("one of its other names was changed".into()));
        }
    }
    let above = std::iter::successors(path.parent(), TreePath::parent);
    match above.filter_map(|at| Some((step.paths.get(&word(&at))?.clone(), at))).next() {
        Some((origin, at)) => (Some(origin), Some(at), None),
        None => (None, via, None),
    }
}

fn show(
    inode: Option<&Inode>,
    path: &TreePath,
    reference: &str,
    history: &[Event],
    has_provenance: bool,
) -> Result<(), Failure> {
    let shown = text::path(path);
    output::line(match inode {
        Some(inode) => match inode.content() {
            Some(content) => format!("{shown}: file, {}, {}", output::size(content.size), text::mode(inode)),
            None => format!("{shown}: {}, {}", inode.kind.word(), text::mode(inode)),
        },
        None => format!("{shown}: not in {reference} any more"),
    })?;
    let mut columns = Columns::new("  ", [Side::Left, Side::Left, Side::Left, Side::Left]);
    for event in history {
        let what: Vec<&str> = event.what.iter().map(|aspect| aspect.word()).collect();
        let mut action = event.action.word().to_owned();
        match (&event.via, event.action) {
            (Some(via), Action::Removed) => action.push_str(&format!(" with {via}")),
            (Some(via), _) => action.push_str(&format!(" through {via}")),
            (None, Action::Changed) => action.push_str(&format!(" ({})", what.join(", "))),
            (None, Action::Kept) => action.push_str(" as it was"),
            (None, _) => {}
        }
        let by = match (&event.origin, &event.image) {
            (Some(origin), _) => place_of(origin),
            (None, Some(image)) => format!("in the upstream image {}, {}", image.name, image.digest),
            (None, None) => String::new(),
        };
        let by = match (&event.note, by.is_empty()) {
            (Some(note), true) => note.clone(),
            (Some(note), false) => format!("{by} ({note})"),
            (None, _) => by,
        };
        columns.row([event.step.clone(), event.layer.map(text::short).unwrap_or_default(), action, by]);
    }
    output::write(columns.render().as_bytes())?;
    if !has_provenance {
        output::line("  (the store has no provenance of this build, so nothing is known of the recipe)")?;
    }
    Ok(())
}

/// `files./etc/hostname  recipes/quickstart.yaml:12:5`
fn place_of(origin: &Origin) -> String {
    let Origin { key, file, line, column } = origin;
    match (file, line, column) {
        (Some(file), Some(line), Some(column)) => format!("{key}  {file}:{line}:{column}"),
        (Some(file), Some(line), None) => format!("{key}  {file}:{line}"),
        (Some(file), ..) => format!("{key}  {file}"),
        (None, ..) => key.clone(),
    }
}
