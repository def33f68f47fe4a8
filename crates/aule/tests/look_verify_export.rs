//! Verifying and exporting builds: damage is found and named, and an export touches nothing but its own files.

#![allow(clippy::unwrap_used, reason = "a test panics when its own set-up is wrong")]

mod common;

use common::{Lab, directory, file, image, index, layer};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

/// The report of a build that is not intact.
fn problems(lab: &Lab, reference: &str) -> Vec<Value> {
    let output = lab.run(&["verify", reference, "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], json!(false));
    report["problems"].as_array().unwrap().clone()
}

#[test]
fn an_intact_build_is_intact() {
    let lab = Lab::new();
    let report = lab.json(&["verify", "lab"]);
    assert_eq!(
        (&report["ok"], &report["archives"], &report["problems"]),
        (&json!(true), &json!(3), &json!([])),
        "two layers and the boot archive"
    );
    let text = lab.text(&["verify", "lab"]);
    assert!(text.starts_with(&format!("lab {} is intact: ", lab.digests[1])), "{text}");
}

#[test]
fn damage_is_found_wherever_it_is() {
    let lab = Lab::new();
    let inspected = lab.json(&["inspect", "lab"]);
    let digest = |pointer: &str| inspected.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let index = lab.digests[1].to_string();
    let pieces = [
        ("oci: layer 2 (files)", digest("/layers/1/digest")),
        ("boot: boot.img", digest("/artifacts/1/files/0/digest")),
        ("boot: boot.tar.zst", digest("/artifacts/1/files/1/digest")),
        ("seed", digest("/artifacts/3/digest")),
        ("seed: user-data", digest("/artifacts/3/files/1/digest")),
        ("index", index),
    ];
    for (what, digest) in pieces {
        let path = lab.store().blob_path(digest.parse().unwrap());
        let bytes = fs::read(&path).unwrap();
        let mut damaged = bytes.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        let cut = bytes[..middle].to_vec();
        for (damage, content) in [("a bit", Some(damaged)), ("its end", Some(cut)), ("all of it", None)] {
            match content {
                Some(content) => fs::write(&path, content).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let found = problems(&lab, "lab:netboot");
            assert!(
                found.iter().any(|it| it["what"] == what && it["digest"] == digest),
                "{what}, {damage} lost: {found:?}"
            );
            fs::write(&path, &bytes).unwrap();
        }
    }
    assert_eq!(lab.json(&["verify", "lab"])["ok"], json!(true));
}

#[test]
fn a_layer_that_says_one_thing_and_holds_another_is_found() {
    let lab = Lab::new();
    let store = lab.store();
    let (base, _) = layer(&store, vec![directory(""), file("a", 0o644, "a")]);
    let lie = aule_tree::Digest::of(b"something else");
    let mut short = base.clone();
    short.size -= 1;
    for (name, image, wanted) in [
        ("lies:id", image(&store, &[("base", base, lie)]), "its diff id is"),
        ("lies:size", image(&store, &[("base", short, lie)]), "and what names it says"),
    ] {
        store.set_ref(name, &index(&store, vec![image])).unwrap();
        let found = problems(&lab, name);
        assert!(found[0]["problem"].as_str().unwrap().contains(wanted), "{found:?}");
    }
    let empty = index(&store, vec![]);
    store.set_ref("lies:empty", &empty).unwrap();
    assert!(problems(&lab, "lies:empty")[0]["problem"].as_str().unwrap().contains("empty"));
}

#[test]
fn a_build_without_source_cannot_be_built_again() {
    let lab = Lab::new();
    let (code, stderr) = lab.failure(&["verify", "--rebuild", "lab"]);
    assert!(code == 1 && stderr.contains("no `source` artifact"), "{stderr}");
}

#[test]
fn a_build_is_exported_beside_other_files() {
    let lab = Lab::new();
    let target = lab.beside("srv/export");
    fs::create_dir_all(target.join("boot")).unwrap();
    fs::write(target.join("boot/mine.txt"), "mine").unwrap();
    fs::write(target.join("boot/cmdline.txt"), "old").unwrap();
    fs::write(lab.beside("precious"), "precious").unwrap();
    symlink(lab.beside("precious"), target.join("boot.img")).unwrap();

    let output = lab.run(&["export", "lab", "--output", target.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let read = |name: &str| fs::read(target.join(name)).unwrap();
    assert_eq!(read("boot.img"), vec![2; 100_000]);
    assert_eq!(fs::read(lab.beside("precious")).unwrap(), b"precious", "a symlink in the way is not followed");
    assert!(read("boot/cmdline.txt").starts_with(b"root=/dev/nfs"));
    assert_eq!(read("boot/overlays/a.dtbo"), b"dtb");
    assert_eq!(read("boot/mine.txt"), b"mine");
    assert!(read("root.tar.zst").starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    assert_eq!(read("seed/user-data"), b"#cloud-config\n{}\n");
    assert_eq!(read("seed/vendor-data"), b"");
    assert_eq!(fs::metadata(target.join("seed/meta-data")).unwrap().permissions().mode() & 0o7777, 0o644);
    let mut names: Vec<_> = fs::read_dir(&target).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["boot", "boot.img", "root.tar.zst", "seed"], "nothing unfinished is left");
    for wanted in ["boot/cmdline.txt is a template", "{{ export }}, {{ seed }}, {{ server }}", "server: 192.0.2.1"] {
        assert!(stderr.contains(wanted), "{stderr}");
    }
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("srv/export/boot/ (2 files)"), "{stdout}");

    let exported = lab.json(&["export", "lab", "-o", target.to_str().unwrap()]);
    let paths: Vec<_> = exported["files"].as_array().unwrap().iter().map(|it| it["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "boot.img",
            "boot/cmdline.txt",
            "boot/overlays/a.dtbo",
            "root.tar.zst",
            "seed/meta-data",
            "seed/user-data",
            "seed/vendor-data"
        ]
    );
    assert_eq!(exported["templates"], json!([{ "path": "boot/cmdline.txt", "values": ["export", "seed", "server"] }]));
}

#[test]
fn an_export_that_cannot_be_whole_says_why() {
    let lab = Lab::new();
    let target = lab.beside("export");
    fs::create_dir_all(&target).unwrap();
    symlink(lab.beside("."), target.join("boot")).unwrap();
    let (code, stderr) = lab.failure(&["export", "lab", "--output", target.to_str().unwrap()]);
    assert!(code == 1 && stderr.contains("export/boot is in the way"), "{stderr}");
    assert!(!lab.beside("cmdline.txt").exists());

    fs::write(lab.beside("file"), "").unwrap();
    let (code, stderr) = lab.failure(&["export", "lab", "--output", lab.beside("file").to_str().unwrap()]);
    assert!(code == 1 && stderr.contains("cannot create"), "{stderr}");

    // A damaged blob must not take the place of a good file.
    let digest = lab.json(&["inspect", "lab"])["artifacts"][2]["files"][0]["digest"].as_str().unwrap().to_owned();
    fs::remove_file(target.join("boot")).unwrap();
    fs::write(target.join("root.tar.zst"), "old").unwrap();
    fs::write(lab.store().blob_path(digest.parse().unwrap()), "damaged").unwrap();
    let (code, stderr) = lab.failure(&["export", "lab", "--output", target.to_str().unwrap()]);
    assert!(code == 1 && stderr.contains("is damaged"), "{stderr}");
    assert_eq!(fs::read(target.join("root.tar.zst")).unwrap(), b"old");

    let store = lab.store();
    let (base, id) = layer(&store, vec![directory("")]);
    store.set_ref("plain", &index(&store, vec![image(&store, &[("base", base, id)])])).unwrap();
    let (code, stderr) = lab.failure(&["export", "plain", "--output", target.to_str().unwrap()]);
    assert!(code == 1 && stderr.contains("outputs: [boot, nfs-root, oci]"), "{stderr}");
}
