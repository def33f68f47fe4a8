//! `aule gc`.

use super::text::count;
use crate::{
    environment,
    failure::Failure,
    output::{self, Format},
    progress::Story,
};
use aule_build::{Forgotten, forget_trees};
use aule_store::{Collected, Store};

#[derive(serde::Serialize)]
struct Outcome {
    dry_run: bool,
    #[serde(flatten)]
    collected: Collected,
    /// Trees that were unpacked to install packages.
    trees: u64,
    /// Those of other users, which stay.
    trees_of_others: u64,
}

/// Removes what no name leads to, or says what would go.
pub(super) fn run(store: &Store, dry_run: bool, format: Format) -> Result<(), Failure> {
    let collected = store.collect_garbage(dry_run)?;
    // A machine that cannot install packages has none of these.
    let tools = environment::sandbox(false);
    let forgotten = tools.map_or(Ok(Forgotten::default()), |tools| forget_trees(store, &tools, dry_run))?;
    let Forgotten { removed: trees, of_others: trees_of_others } = forgotten;
    if trees_of_others > 0 {
        let trees = count(trees_of_others, "unpacked tree");
        Story::new().say(&format!("{:>9} {trees} of another user stay: run `aule gc` as that user", "note"));
    }
    match format {
        Format::Json => output::json(&Outcome { dry_run, collected, trees, trees_of_others }),
        Format::Text => output::line(format!(
            "{} {}, {}, {} and {}: {}",
            if dry_run { "would remove" } else { "removed" },
            count(collected.blobs, "blob"),
            count(collected.steps, "step result"),
            count(collected.downloads, "download"),
            count(trees, "unpacked tree"),
            output::size(collected.bytes)
        )),
    }
}
