//! Runs what the fuzz targets run over their seeds, damaged seeds and regressions.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]
#![allow(unreachable_pub, reason = "modules that several programs include")]

#[path = "../../../tests/fuzz/exercise/image.rs"]
mod exercise;
#[path = "common/seeds.rs"]
mod seeds;

use aule_image::open;
use aule_testkit::noise::damage;
use std::sync::Arc;

fn run(target: &str, exercise: fn(&[u8])) {
    for (_, input) in seeds::regressions(target) {
        exercise(&input);
    }
    for (name, image) in seeds::seeds(target) {
        let input = exercise::pack(&image);
        assert!(input.len() < 200_000, "{target} {name}: a seed of {} bytes", input.len());
        exercise(&input);
        for input in damage(&input, std::slice::from_ref(&(0..input.len())), 200, image.len() as u64) {
            exercise(&input);
        }
    }
}

#[test]
fn partition() {
    run("partition", exercise::partition);
}

#[test]
fn fat() {
    run("fat", exercise::fat);
}

#[test]
fn ext4() {
    run("ext4", exercise::ext4);
}

/// A seed that is refused at once would test nothing.
#[test]
fn seeds_are_good_images() {
    for target in ["fat", "ext4"] {
        for (name, image) in seeds::seeds(target) {
            let entries = open(Arc::new(image)).and_then(|filesystem| filesystem.entries());
            let entries = entries.unwrap_or_else(|error| panic!("{target} {name}: {error}"));
            assert!(entries.len() >= 6, "{target} {name}: {} entries", entries.len());
        }
    }
    for (name, image) in seeds::seeds("partition") {
        assert!(aule_image::read_partitions(&image).unwrap().partitions.len() >= 2, "{name}");
    }
}
