//! What the fuzz target `recipe` does with its input; the tests of hostile recipes do the same with seeds and damaged
//! seeds.

use aule_recipe::{Lock, canonical, from_canonical, load, show};
use std::{io, path::Path};

/// Where the recipe stands that the bytes are.
const PATH: &str = "r/m.yaml";

/// Files of which there is but one.
fn sources(bytes: &[u8]) -> impl Fn(&Path) -> io::Result<Vec<u8>> {
    move |path: &Path| if path == Path::new(PATH) { Ok(bytes.to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Whether the bytes are a recipe that is right.
#[allow(dead_code, reason = "only the tests ask")]
pub fn loads(bytes: &[u8]) -> bool {
    load(&sources(bytes), Path::new(PATH)).is_ok()
}

/// Reads the bytes as a recipe that extends nothing but itself, as a lock, and as a recipe in canonical form. What loads
/// can be printed, and read back from its canonical form; what does not is explained in words that a terminal can show.
pub fn recipe(bytes: &[u8]) {
    match load(&sources(bytes), Path::new(PATH)) {
        Err(diagnostics) => {
            assert!(diagnostics.iter().count() > 0);
            let text = diagnostics.to_string();
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
            assert!(text.len() < 1 << 20, "{} bytes of messages", text.len());
        }
        Ok(set) => {
            for variant in set.variants() {
                let merged = set.variant(variant).expect("a variant of a recipe that loaded");
                let form = canonical(&merged.recipe);
                let back = from_canonical(&form).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(canonical(&back), form);
                let _ = show(&merged, true);
            }
        }
    }
    let _ = Lock::parse(bytes);
    let _ = from_canonical(bytes);
}
