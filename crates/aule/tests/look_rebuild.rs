//! A true build, looked at: built again from its own source it is the same, and where it is not, the part is named.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test panics when its own set-up is wrong")]

mod common;

use aule_store::{
    ARTIFACT_NAME, Store,
    oci::{Index, Manifest, media_type},
};
use common::run;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The recipe that uses everything, with its tiny image.
fn recipe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../aule-build/tests/golden/recipe.yaml")
}

/// The object that a command writes, and whether it worked.
fn json_of(store: &Path, arguments: &[&str]) -> (bool, Value) {
    let output = run(store, &[arguments, &["--format", "json"]].concat());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let last = stdout.lines().last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), serde_json::from_str(last).unwrap())
}

#[test]
fn a_build_is_built_again_from_its_source_alone() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    let recipe = recipe();
    let (built, outcome) = json_of(&place, &["build", recipe.to_str().unwrap(), "--variant", "netboot"]);
    assert!(built, "{outcome}");
    let reference = outcome["builds"][0]["ref"].as_str().unwrap().to_owned();
    let digest = &outcome["builds"][0]["digest"];

    let (ok, report) = json_of(&place, &["verify", &reference, "--rebuild"]);
    assert!(ok, "{report}");
    assert_eq!((&report["rebuild"]["same"], &report["rebuild"]["digest"]), (&json!(true), digest));
    let steps = report["rebuild"]["steps"].as_array().unwrap();
    let cached: Vec<_> = steps.iter().filter(|step| step["cached"] == json!(true)).map(|step| &step["name"]).collect();
    assert_eq!(cached, [&json!("base")], "only the base layer is taken over: {steps:?}");
    assert_eq!(std::fs::read_dir(place.join("tmp")).unwrap().count(), 0, "nothing is left");

    // A build that says it comes from this source, and has another boot image.
    let store = Store::open(&place).unwrap();
    let mut index: Index = store.read_document(digest.as_str().unwrap().parse().unwrap()).unwrap();
    let boot = index.manifests.iter_mut().find(|it| it.annotations.get(ARTIFACT_NAME).is_some_and(|it| it == "boot"));
    let boot = boot.unwrap();
    let mut manifest: Manifest = store.read_document(boot.digest).unwrap();
    manifest.layers[0].digest = store.put(b"another image").unwrap();
    manifest.layers[0].size = 13;
    let changed = store.put_document(media_type::MANIFEST, &manifest).unwrap();
    (boot.digest, boot.size) = (changed.digest, changed.size);
    store.set_ref("forged:netboot", &store.put_document(media_type::INDEX, &index).unwrap()).unwrap();
    drop(store);
    let (ok, report) = json_of(&place, &["verify", "forged", "--rebuild"]);
    assert!(!ok);
    assert_eq!((&report["problems"], &report["rebuild"]["same"]), (&json!([]), &json!(false)));
    let differences = report["rebuild"]["differences"].as_array().unwrap();
    let named: Vec<_> = differences.iter().map(|it| (&it["part"], &it["name"])).collect();
    assert_eq!(named, [(&json!("artifact"), &json!("boot"))]);

    let (ok, answer) = json_of(&place, &["why", &reference, "/etc/hostname"]);
    assert!(ok && answer["history"][0]["origin"]["key"].is_string(), "{answer}");
    let target = directory.path().join("export");
    let (ok, exported) = json_of(&place, &["export", &reference, "--output", target.to_str().unwrap()]);
    assert!(ok && target.join("boot/cmdline.txt").is_file() && target.join("boot.img").is_file(), "{exported}");
    assert_eq!(exported["templates"][0]["values"], json!(["export", "seed", "server"]));
}
