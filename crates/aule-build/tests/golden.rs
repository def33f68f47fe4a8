//! The digests of a tiny recipe that uses everything, pinned: they change only together with the format version.
//!
//! A change here means that every build of every user changes. When it is meant, raise [`aule_build::FORMAT_VERSION`] and
//! write the new digests down; the failing test prints them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test panics when its own set-up is wrong")]

mod common;

use aule_build::FORMAT_VERSION;
use common::Bench;

/// Format version, and per variant the build's digest and those of its artifacts.
const GOLDEN: (u32, &[(&str, &str)]) = (
    1,
    &[
        ("netboot build", "sha256:d76ee1e225c5bcda35ae6fcfe25d3b4eb6c523d1f63838ec74121a87dbe40d51"),
        ("netboot oci", "sha256:dd788bab65ff58dce9cd8a1a63aa5106f1fa035cafe08453fec2fc6dedbb7b3b"),
        ("netboot boot", "sha256:8f5bc2da32e0804b177ab3923b6726d45af9fb86acaf901e8b07c354de687ae6"),
        ("netboot nfs-root", "sha256:b261df86d843df54823de0c2a8bb318913708023f9ebe25125e067ce32fd4cb2"),
        ("netboot seed", "sha256:eeed88419bdaa1cc206ec4c6262c52792746ef8be095173a5d8184c6238cafcc"),
        ("netboot source", "sha256:1c6439c2bfe5c82c1e2933bb24a3c168009ad66373526a8c0be15251ef704f89"),
        ("disk build", "sha256:5ce9a2708c72bc5f7ff74e8f1ea46049c628cd718940045596b3f19b0d3a7f4b"),
        ("disk oci", "sha256:bd2459e9d1a30ea951657d60ea27638ecfa153da5a1063b09d68ca44526c5b59"),
        ("disk seed", "sha256:eeed88419bdaa1cc206ec4c6262c52792746ef8be095173a5d8184c6238cafcc"),
        ("disk source", "sha256:a121894c0f5d7160b23323a028411df1ec2647962798ecef627a8930f31913df"),
    ],
);

#[test]
fn the_bytes_of_a_build_are_pinned() {
    let bench = Bench::new();
    let mut found = Vec::new();
    for variant in ["netboot", "disk"] {
        let outcome = bench.build("recipe.yaml", variant).unwrap();
        found.push((format!("{variant} build"), outcome.digest.to_string()));
        found.extend(outcome.artifacts.iter().map(|it| (format!("{variant} {}", it.name), it.digest.to_string())));
    }
    let shown: String = found.iter().map(|(name, digest)| format!("    (\"{name}\", \"{digest}\"),\n")).collect();
    let same = found.len() == GOLDEN.1.len()
        && found.iter().zip(GOLDEN.1).all(|(found, wanted)| found.0 == wanted.0 && found.1 == wanted.1);
    assert!(same, "the digests differ from the golden ones; found:\n{shown}");
    assert_eq!(GOLDEN.0, FORMAT_VERSION, "the format version changed: pin it together with its digests");
}

/// A build repeated from nothing but the store's own copy of its source is the same build.
#[test]
fn a_build_can_be_repeated_from_its_source() {
    let bench = Bench::new();
    let outcome = bench.build("recipe.yaml", "netboot").unwrap();
    let again = bench.rebuild(outcome.digest).unwrap();
    assert_eq!(again.digest, outcome.digest);
    assert!(again.steps.iter().all(|step| step.cached), "nothing changed, so nothing is done again: {:?}", again.steps);
    let other = Bench::new();
    let elsewhere = other.build_with_jobs("recipe.yaml", "netboot", 5).unwrap();
    assert_eq!(elsewhere.digest, outcome.digest);
    assert!(elsewhere.steps.iter().all(|step| !step.cached));
}
