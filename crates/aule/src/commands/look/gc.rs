//! `aule gc`.

use super::text::count;
use crate::{
    failure::Failure,
    output::{self, Format},
};
use aule_store::{Collected, Store};

#[derive(serde::Serialize)]
struct Outcome {
    dry_run: bool,
    #[serde(flatten)]
    collected: Collected,
}

/// Removes what no name leads to, or says what would go.
pub(super) fn run(store: &Store, dry_run: bool, format: Format) -> Result<(), Failure> {
    let collected = store.collect_garbage(dry_run)?;
    match format {
        Format::Json => output::json(&Outcome { dry_run, collected }),
        Format::Text => output::line(format!(
            "{} {}, {} and {}: {}",
            if dry_run { "would remove" } else { "removed" },
            count(collected.blobs, "blob"),
            count(collected.steps, "step result"),
            count(collected.downloads, "download"),
            output::size(collected.bytes)
        )),
    }
}
