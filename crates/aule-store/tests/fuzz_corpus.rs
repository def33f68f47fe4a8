//! Runs what the fuzz target `layer_table` runs over its seeds, damaged seeds and regressions.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]
#![allow(dead_code, unreachable_pub, reason = "modules that several programs include")]

#[path = "common/everything.rs"]
mod everything;
#[path = "../../../tests/fuzz/exercise/layer_table.rs"]
mod exercise;
#[path = "common/seeds.rs"]
mod seeds;

use aule_testkit::noise::damage;

#[test]
fn hostile_layers() {
    let exercise = exercise::Exercise::new();
    seeds::regressions().iter().for_each(|input| exercise.layer_table(input));
    for (number, input) in seeds::seeds().iter().enumerate() {
        exercise.layer_table(input);
        for input in damage(input, std::slice::from_ref(&(0..input.len())), 1000, number as u64) {
            exercise.layer_table(&input);
        }
    }
}

/// A seed that is refused at once would test nothing.
#[test]
fn seeds_are_good_layers() {
    let directory = tempfile::tempdir().unwrap();
    let store = aule_store::Store::open(directory.path()).unwrap();
    for input in seeds::seeds() {
        let blob = match input.split_first().unwrap() {
            (0, blob) => blob.to_vec(),
            (_, rest) => {
                let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
                exercise::with_table(&rest[4..4 + length], &rest[4 + length..])
            }
        };
        let check = aule_store::layer::LayerCheck::run(&store, store.put(&blob).unwrap()).unwrap();
        assert!(check.entries >= 4 && check.problems.is_empty(), "{check:?}");
    }
}
