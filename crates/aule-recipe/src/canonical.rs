//! The canonical form of a recipe: the bytes that identify it and from which a build can be repeated.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256 as Hasher};

use crate::diagnostic::Diagnostics;
use crate::load::load;
use crate::recipe::{Base, Recipe};
use crate::show::to_node;
use crate::value::Sha256;
use crate::yaml::emit;

/// Version of the canonical form. A change of the form changes every recipe's digest, so it is stated.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Canonical {
    format: u32,
    recipe: Recipe,
}

/// Why bytes are no canonical recipe.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// Not JSON, or not of the right shape.
    #[error("this is no canonical recipe: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by another version.
    #[error("this canonical recipe has format {0}, this program knows format 1")]
    Format(u32),
    /// It holds what no recipe can say.
    #[error("this canonical recipe holds what a recipe cannot say:\n{0}")]
    Recipe(#[from] Diagnostics),
    /// It reads as a recipe, but that one's canonical form has other bytes.
    #[error("these bytes are not the canonical form of the recipe that they hold")]
    NotCanonical,
}

/// The canonical form: JSON without blanks, keys sorted, lists that are sets sorted, defaults filled in, local files
/// named relative to the main recipe. The same for the same recipe however its files were laid out and wherever they lay.
pub fn canonical(recipe: &Recipe) -> Vec<u8> {
    let mut recipe = recipe.clone();
    if let Base::Packages { packages } = &mut recipe.base {
        packages.include.sort_unstable();
    }
    let services = &mut recipe.services;
    for set in [
        &mut recipe.packages.install,
        &mut recipe.packages.remove,
        &mut services.enable,
        &mut services.disable,
        &mut services.mask,
        &mut recipe.boot.cmdline.remove,
    ] {
        set.sort_unstable();
    }
    recipe.outputs.sort_unstable();
    #[expect(clippy::expect_used, reason = "serde_json fails only for maps whose keys are no strings; ours all are")]
    let value = serde_json::to_value(Canonical { format: FORMAT, recipe }).expect("a recipe is JSON");
    let mut out = String::new();
    write(&value, &mut out);
    out.into_bytes()
}

/// Writes JSON with sorted keys. serde_json's own maps are sorted or not as the features of the whole program have it,
/// so the order is made here.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(value, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// SHA-256 of the canonical form: the identity of a recipe, without the bytes of the files that it names.
pub fn recipe_digest(recipe: &Recipe) -> Sha256 {
    Sha256(Hasher::digest(canonical(recipe)).into())
}

/// Reads a canonical form back. The bytes may come from anywhere: the recipe passes every check that one written by a
/// person passes. The paths of its local files are their names, relative to wherever the caller keeps them; names may
/// begin with `..`.
///
/// # Errors
/// Anything but the exact canonical form of a valid recipe.
pub fn from_canonical(bytes: &[u8]) -> Result<Recipe, CanonicalError> {
    let Canonical { format, recipe } = serde_json::from_slice(bytes)?;
    if format != FORMAT {
        return Err(CanonicalError::Format(format));
    }
    let text = emit(&to_node(&recipe), None).into_bytes();
    let sources = |_: &Path| -> std::io::Result<Vec<u8>> { Ok(text.clone()) };
    let recipe = load(&sources, Path::new("recipe.yaml"))?.variant("default")?.recipe;
    if canonical(&recipe) != bytes {
        return Err(CanonicalError::NotCanonical);
    }
    Ok(recipe)
}
