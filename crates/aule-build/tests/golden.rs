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
    3,
    &[
        ("netboot build", "sha256:08490f35569d2ccbc4b088dfa24cbdffc4c5863477112023a4f97243e09c4128"),
        ("netboot oci", "sha256:aaa7c87b36dedd0bf4c59941944a58d2c6003921dfaefc4d76436ac219948405"),
        ("netboot boot", "sha256:e118b7742bc2770eb94a23e2ab976b07e77802e3e2fb369241187c8f019f22cd"),
        ("netboot nfs-root", "sha256:c3ac8e50a3b3f13f0c4989a5c3b087015b7931a65ff97d1ee390020d300fa54f"),
        ("netboot seed", "sha256:eeed88419bdaa1cc206ec4c6262c52792746ef8be095173a5d8184c6238cafcc"),
        ("netboot source", "sha256:bcde1451c50697dcba025bf67594ba5d678b44017862cbb48a2723c342d0f10d"),
        ("disk build", "sha256:01d311fac009ac7b7dc8fc40a484b83dfcbf64257a118910aece1c529a9e1907"),
        ("disk oci", "sha256:d9ec52ceea52f8ed08bcf18db20b0ec4e4b0b9712e14ecbeea027d7b8fe92744"),
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
