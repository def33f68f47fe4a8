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
        ("netboot build", "sha256:e2bca4cd532e89b3a1af848e0d033a0eeeec187910729808f733a4f2e8f08d87"),
        ("netboot oci", "sha256:1067d8517940964b3d65eeeff1bb3c3eba3d87209ea25686d470d2bebf7f1aa5"),
        ("netboot boot", "sha256:8f5bc2da32e0804b177ab3923b6726d45af9fb86acaf901e8b07c354de687ae6"),
        ("netboot nfs-root", "sha256:931f82b2b51b03b5e18e0563fddadd1769c00099692df32fda7994acbba35f06"),
        ("netboot seed", "sha256:eeed88419bdaa1cc206ec4c6262c52792746ef8be095173a5d8184c6238cafcc"),
        ("netboot source", "sha256:bcde1451c50697dcba025bf67594ba5d678b44017862cbb48a2723c342d0f10d"),
        ("disk build", "sha256:b38cf93e2a20658b77fd2c35377879835594b2f1810748fbf4cdcd92266c7e17"),
        ("disk oci", "sha256:563617704189515ebffcb29e6d53df31a5736abeeb6219016d814c541fdadb9d"),
        ("disk seed", "sha256:eeed88419bdaa1cc206ec4c6262c52792746ef8be095173a5d8184c6238cafcc"),
        ("disk source", "sha256:23b4fce9e78d3a5493d11722f6a78f1e6b377f1453675ec90a7ce4a0d9c71611"),
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
