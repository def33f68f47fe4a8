//! `aule list`, `tag`, `rm` and `rollback`: the names of builds and what they stand for.

use super::{
    blobs, open,
    text::{self, Columns, Side},
    unknown_name, wrong_reference,
};
use crate::{
    failure::Failure,
    output::{self, Format},
};
use aule_store::{ARTIFACT_NAME, Build, Generation, Reference, Store, StoreError};
use aule_tree::Digest;

/// The annotations of a build's index with the recipe's name and the variant.
const RECIPE: &str = "dev.aule.recipe";
const VARIANT: &str = "dev.aule.variant";

/// One generation of a name.
#[derive(serde::Serialize)]
struct Listed {
    #[serde(rename = "ref")]
    reference: String,
    generation: u64,
    current: bool,
    digest: Digest,
    #[serde(flatten)]
    build: Option<Summary>,
    /// Why nothing more can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// What a build is, in short.
#[derive(serde::Serialize)]
struct Summary {
    recipe: Option<String>,
    variant: Option<String>,
    created: Option<String>,
    /// Of all its blobs, each counted once, in bytes.
    size: u64,
    artifacts: Vec<String>,
}

impl Summary {
    fn of(store: &Store, generation: &Generation) -> Result<Summary, StoreError> {
        let build = Build::open(store, generation.descriptor.clone())?;
        let annotation = |key: &str| build.index.annotations.get(key).cloned();
        Ok(Summary {
            recipe: annotation(RECIPE),
            variant: annotation(VARIANT),
            created: build.config.created.clone(),
            size: blobs(store, &build)?.values().sum(),
            artifacts: build
                .index
                .manifests
                .iter()
                .filter_map(|it| it.annotations.get(ARTIFACT_NAME).cloned())
                .collect(),
        })
    }
}

/// Lists every generation of every name.
pub(super) fn list(store: &Store, format: Format) -> Result<(), Failure> {
    let mut listed = Vec::new();
    for generation in store.generations()? {
        // A damaged build must not hide the others.
        let (build, problem) = match Summary::of(store, &generation) {
            Ok(build) => (Some(build), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let Generation { name, number, current, descriptor } = generation;
        listed.push(Listed { reference: name, generation: number, current, digest: descriptor.digest, build, problem });
    }
    match format {
        Format::Json => output::json(&serde_json::json!({ "refs": listed })),
        Format::Text => {
            let mut columns =
                Columns::new("", [Side::Left, Side::Right, Side::Left, Side::Right, Side::Left, Side::Left]);
            columns.row(["REF", "GENERATION", "CREATED", "SIZE", "DIGEST", "ARTIFACTS"]);
            for it in &listed {
                let generation = format!("{}{}", if it.current { "*" } else { "" }, it.generation);
                let digest = it.digest.to_string();
                let cells = match (&it.build, &it.problem) {
                    (Some(build), _) => [
                        build.created.clone().unwrap_or_default(),
                        output::size(build.size),
                        digest,
                        build.artifacts.join(" "),
                    ],
                    (None, problem) => {
                        let problem = problem.clone().unwrap_or_default();
                        [String::new(), String::new(), digest, problem]
                    }
                };
                columns.row([it.reference.clone(), generation].into_iter().chain(cells));
            }
            match listed.as_slice() {
                [] => Ok(()),
                _ => output::write(columns.render().as_bytes()),
            }
        }
    }
}

#[derive(serde::Serialize)]
struct Named {
    #[serde(rename = "ref")]
    reference: String,
    generation: u64,
    digest: Digest,
    changed: bool,
}

/// Gives a build one more name.
pub(super) fn tag(store: &Store, reference: &str, name: &str, format: Format) -> Result<(), Failure> {
    let build = open(store, reference)?;
    if !Reference::is_valid_name(name) {
        return Err(Failure::usage(format!("`{name}` cannot be a name"))
            .hint("write letters, digits, `-`, `.`, `_` and `/`, with at most one `:` such as `lab:stable`"));
    }
    let changed = store.set_ref(name, &build.descriptor)?;
    let current = store.generations()?.into_iter().find(|it| it.name == name && it.current);
    let generation = current.map(|it| it.number).unwrap_or_default();
    show(Named { reference: name.into(), generation, digest: build.descriptor.digest, changed }, format)
}

/// Makes a name stand for its generation before the current one.
pub(super) fn roll_back(store: &Store, name: &str, format: Format) -> Result<(), Failure> {
    let generation = store.roll_back(name).map_err(|error| match error {
        StoreError::NoOlderGeneration(_) => {
            Failure::new(error.to_string()).hint("`aule list` shows the generations that are kept")
        }
        error => wrong_reference(name, error),
    })?;
    let Generation { name, number, descriptor, .. } = generation;
    show(Named { reference: name, generation: number, digest: descriptor.digest, changed: true }, format)
}

fn show(named: Named, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(&named),
        Format::Text => {
            let word = if named.changed { "is now" } else { "is already" };
            output::line(format!("{} {word} {} (generation {})", named.reference, named.digest, named.generation))
        }
    }
}

#[derive(serde::Serialize)]
struct Removed {
    #[serde(rename = "ref")]
    reference: String,
    generations: usize,
}

/// Forgets names with all their generations: all of them, or none when one is not there.
pub(super) fn remove(store: &Store, names: &[String], format: Format) -> Result<(), Failure> {
    let generations = store.generations()?;
    let mut known: Vec<String> = generations.iter().map(|it| it.name.clone()).collect();
    known.dedup();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        let failure = unknown_name(unknown, &known);
        return Err(if unknown.contains('@') { failure.hint("`rm` takes names without a digest") } else { failure });
    }
    let mut removed: Vec<Removed> = Vec::new();
    for name in names {
        if removed.iter().any(|it| it.reference == *name) {
            continue;
        }
        store.remove_ref(name)?;
        let count = generations.iter().filter(|it| it.name == *name).count();
        removed.push(Removed { reference: name.clone(), generations: count });
    }
    match format {
        Format::Json => output::json(&serde_json::json!({ "removed": removed })),
        Format::Text => removed.iter().try_for_each(|it| {
            let generations = text::count(it.generations as u64, "generation");
            output::line(format!("forgot {} ({generations}); `aule gc` frees what no name needs", it.reference))
        }),
    }
}
