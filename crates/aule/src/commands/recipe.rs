//! `aule recipe`, and reading recipes for the other commands.

use crate::{
    arguments::RecipeCommand,
    failure::Failure,
    output::{self, Format},
};
use aule_recipe::{Merged, RecipeSet, Sources};
use std::{fs, io, path::Path};

/// Recipe files on disk.
struct Disk;

impl Sources for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // One byte more than is allowed, so that the library sees that it is too much.
        let limit = u64::try_from(aule_recipe::limits::MAX_DOCUMENT_BYTES).unwrap_or(u64::MAX) + 1;
        io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, limit), &mut bytes)?;
        Ok(bytes)
    }
}

/// Reads a recipe and gives the variants that are named, or all.
pub(super) fn load(path: &Path, variants: &[String]) -> Result<(RecipeSet, Vec<Merged>), Failure> {
    let set = aule_recipe::load(&Disk, path)?;
    let names: Vec<String> = match variants {
        [] => set.variants().into_iter().map(str::to_owned).collect(),
        named => {
            // The same one twice is one.
            let mut names: Vec<String> = Vec::new();
            for name in named {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
            names
        }
    };
    let merged = names.iter().map(|name| set.variant(name)).collect::<Result<Vec<_>, _>>()?;
    Ok((set, merged))
}

/// Runs a `recipe` command.
pub(super) fn run(command: RecipeCommand, format: Format) -> Result<(), Failure> {
    match command {
        RecipeCommand::Schema => {
            let schema = aule_recipe::json_schema();
            match format {
                Format::Text => output::write(schema.as_bytes()),
                Format::Json => {
                    let failed = |error| Failure::new(format!("the schema is no JSON: {error}"));
                    output::json(&serde_json::from_str::<serde_json::Value>(&schema).map_err(failed)?)
                }
            }
        }
        RecipeCommand::Show { recipe, variant, origin } => {
            let (set, variants) = load(&recipe, variant.as_slice())?;
            let [merged] = variants.as_slice() else {
                let names = set.variants().join(", ");
                return Err(Failure::usage(format!("the recipe has several variants: {names}"))
                    .hint("say which one with `--variant`"));
            };
            match format {
                Format::Text => output::write(aule_recipe::show(merged, origin).as_bytes()),
                Format::Json if origin => {
                    let places: std::collections::BTreeMap<&str, String> =
                        merged.origins.iter().map(|(key, place)| (key, place.to_string())).collect();
                    output::json(&serde_json::json!({ "recipe": merged.recipe, "origins": places }))
                }
                Format::Json => output::json(&merged.recipe),
            }
        }
    }
}
