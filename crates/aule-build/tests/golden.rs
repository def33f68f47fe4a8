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
        ("netboot build", "sha256:e1d2d2b6e0a3cbaeb6e9351867652c85cd659b2e8d98bcb8b029fe2ff83c5dd0"),
        ("netboot oci", "sha256:4b8f56290fee0380e0d84b631ef62701f4e67d70d004493e7796050f1f8ef2c4"),
        ("netboot boot", "sha256:8f5bc2da32e0804b177ab3923b6726d45af9fb86acaf901e8b07c354de687ae6"),
        ("netboot nfs-root", "sha256:42f9d8a0465a8bd5e33264d0a78994f7085581176dfaf20df7bdf7286d06a528"),
        ("netboot seed", "sha256:eeed88419bdaa1cc206ec4c6262c52792746ef8be095173a5d8184c6238cafcc"),
        ("netboot source", "sha256:1c6439c2bfe5c82c1e2933bb24a3c168009ad66373526a8c0be15251ef704f89"),
        ("disk build", "sha256:fe72355e6456ca19b94edabb99452d911e5e30b3207564a6275c3f84e70f5631"),
        ("disk oci", "sha256:4cd6b2d8123a10fe62f4ff9d6afb122011a40dfce7440847b814b3f552477a2b"),
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
