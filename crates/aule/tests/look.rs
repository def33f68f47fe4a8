//! Looking at builds: the program, run on a small store, says what is in it.

#![allow(clippy::unwrap_used, reason = "a test panics when its own set-up is wrong")]

mod common;

use common::{Lab, big, run};
use serde_json::json;
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

#[test]
fn names_are_listed_given_taken_back_and_forgotten() {
    let lab = Lab::new();
    let [old, new] = lab.digests;
    let listed = lab.text(&["list"]);
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["REF", "GENERATION", "CREATED", "SIZE", "DIGEST", "ARTIFACTS"]);
    assert_eq!(lines[1][..3], ["lab:netboot", "*2", "2023-11-14T22:13:20Z"]);
    assert_eq!(lines[1][5..], [&new.to_string(), "oci", "boot", "nfs-root", "seed"]);
    assert_eq!(lines[2][..2], ["lab:netboot", "1"]);

    let text = lab.text(&["tag", "lab", "lab:stable"]);
    assert_eq!(text, format!("lab:stable is now {new} (generation 1)\n"));
    assert!(lab.text(&["tag", "lab:netboot", "lab:stable"]).contains("is already"));
    let rolled = lab.json(&["rollback", "lab:netboot"]);
    assert_eq!(rolled, json!({ "ref": "lab:netboot", "generation": 1, "digest": old.to_string(), "changed": true }));
    let refs = lab.json(&["list"])["refs"].clone();
    let shown: Vec<_> =
        refs.as_array().unwrap().iter().map(|it| (&it["ref"], &it["generation"], &it["current"])).collect();
    let (netboot, stable) = (json!("lab:netboot"), json!("lab:stable"));
    assert_eq!(
        shown,
        [(&netboot, &json!(2), &json!(false)), (&netboot, &json!(1), &json!(true)), (&stable, &json!(1), &json!(true))]
    );
    assert_eq!(refs[0]["artifacts"], json!(["oci", "boot", "nfs-root", "seed"]));

    let (code, stderr) = lab.failure(&["rm", "lab:stable", "lab:netbot"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("did you mean `lab:netboot`?"), "{stderr}");
    assert_eq!(lab.json(&["list"])["refs"].as_array().unwrap().len(), 3, "all or nothing");
    assert_eq!(
        lab.text(&["rm", "lab:netboot"]),
        "forgot lab:netboot (2 generations); `aule gc` frees what no name needs\n"
    );
    let (code, stderr) = lab.failure(&["rollback", "lab:stable"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("no older generation"), "{stderr}");
}

#[test]
fn a_wrong_reference_is_told_with_what_is_near() {
    let lab = Lab::new();
    for (arguments, code, wanted) in [
        (vec!["ls", "lab:netbot"], 1, "did you mean `lab:netboot`?"),
        (vec!["ls", "lab:netbot"], 1, "there is no `lab:netbot` in the store"),
        (vec!["inspect", "../x"], 2, "is not a reference"),
        (vec!["cat", "lab"], 2, "<PATH>"),
        (vec!["ls", "lab", "/etc/../.."], 2, "`..`"),
        (vec!["tag", "lab", "a:b:c"], 2, "cannot be a name"),
        (vec!["frobnicate"], 2, "frobnicate"),
    ] {
        let (found, stderr) = lab.failure(&arguments);
        assert_eq!(found, code, "{arguments:?}: {stderr}");
        assert!(stderr.contains(wanted), "{arguments:?}: {stderr}");
    }
    let absent = format!("lab:netboot@sha256:{}", "0".repeat(64));
    assert!(lab.failure(&["ls", &absent]).1.contains("no generation with the digest"));
    let absent = format!("sha256:{}", "0".repeat(64));
    assert!(lab.failure(&["ls", &absent]).1.contains("there is no"));
    lab.text(&["tag", "lab", "lab:stable"]);
    let (_, stderr) = lab.failure(&["ls", "lab"]);
    assert!(stderr.contains("several variants: lab:netboot, lab:stable"), "{stderr}");
}

#[test]
fn directories_are_listed() {
    let lab = Lab::new();
    assert_eq!(
        lab.text(&["ls", "lab", "/", "-r"]),
        "\
drwxr-xr-x  0  0        -  2023-11-14T22:13:20Z  /bin
-rwsr-xr-x  0  0       12  2023-11-14T22:13:20Z  /bin/ping
-rwsr-xr-x  0  0       12  2023-11-14T22:13:20Z  /bin/ping6
drwxr-xr-x  0  0        -  2023-11-14T22:13:20Z  /dev
crw-rw-rw-  0  0      1,3  2023-11-14T22:13:20Z  /dev/null
drwxr-xr-x  0  0        -  2023-11-14T22:13:20Z  /etc
-rw-r--r--  0  0        7  2023-11-14T22:13:20Z  /etc/hostname
lrwxrwxrwx  0  0       23  2023-11-14T22:13:20Z  /etc/localtime -> /usr/share/zoneinfo/UTC
-rwxr-xr-x  0  0       12  2023-11-14T22:13:20Z  /etc/motd
lrwxrwxrwx  0  0        7  2023-11-14T22:13:20Z  /lib -> usr/lib
drwxr-xr-x  0  0        -  2023-11-14T22:13:20Z  /opt
drwxr-xr-x  0  0        -  2023-11-14T22:13:20Z  /opt/k3s
-rw-------  0  0        6  2023-11-14T22:13:20Z  /opt/k3s/config
-rw-r--r--  0  0        3  2023-11-14T22:13:20Z  /opt/new
drwxr-xr-x  0  0        -  2023-11-14T22:13:20Z  /usr
drwxr-xr-x  0  0        -  2023-11-14T22:13:20Z  /usr/lib
-rw-r--r--  0  0  2621440  2023-11-14T22:13:20Z  /usr/lib/big
-rw-r--r--  0  0        3  2023-11-14T22:13:20Z  /usr/lib/n\\xf6n
drwxr-xr-x  0  0        -  2023-11-14T22:13:20Z  /usr/share
drwxr-xr-x  0  0        -  2023-11-14T22:13:20Z  /usr/share/zoneinfo
-rw-r--r--  0  0        7  2023-11-14T22:13:20Z  /usr/share/zoneinfo/UTC
"
    );
    assert_eq!(lab.text(&["ls", "lab", "/lib"]).lines().count(), 1, "the symlink itself");
    assert_eq!(lab.text(&["ls", "lab", "/lib/"]), lab.text(&["ls", "lab", "usr/lib"]));
    let listed = lab.json(&["ls", "lab", "/lib/"]);
    assert_eq!((&listed["path"], &listed["digest"]), (&json!("/usr/lib"), &json!(lab.digests[1].to_string())));
    let entries = listed["entries"].as_array().unwrap();
    assert_eq!(
        (&entries[1]["path"], &entries[1]["path_hex"]),
        (&json!("/usr/lib/n\\xf6n"), &json!("2f7573722f6c69622f6ef66e"))
    );
    let ping = lab.json(&["ls", "lab", "/bin/ping"])["entries"][0].clone();
    assert_eq!(
        (&ping["mode"], &ping["type"], &ping["hardlinks"]),
        (&json!("4755"), &json!("file"), &json!(["/bin/ping6"]))
    );
    let odd = lab.run(&[OsStr::new("cat"), OsStr::new("lab"), OsStr::from_bytes(b"/lib/n\xf6n")]);
    assert_eq!(odd.stdout, b"odd");
}

#[test]
fn files_are_written_as_they_are() {
    let lab = Lab::new();
    assert_eq!(lab.text(&["cat", "lab", "etc/hostname"]), "valar2\n");
    assert_eq!(lab.text(&["cat", &lab.old(), "/etc/hostname"]), "valar1\n");
    assert!(lab.run(&["cat", "lab", "/lib/big"]).stdout == big(), "a file of several pieces");
    assert_eq!(lab.run(&["cat", "lab", "/etc/localtime"]).stdout, b"TZif\0\xfe\xfe");
    let shown = lab.json(&["cat", "lab", "/etc/localtime"]);
    assert_eq!(
        (&shown["entry"]["path"], &shown["content_hex"]),
        (&json!("/usr/share/zoneinfo/UTC"), &json!("545a696600fefe"))
    );
    assert_eq!(lab.json(&["cat", "lab", "/etc/hostname"])["content"], "valar2\n");
    for (path, wanted) in [
        ("/etc", "/etc is a directory"),
        ("/dev/null", "character device"),
        ("/etc/hostnam", "did you mean /etc/hostname?"),
        ("/etc/hostname/x", "/etc/hostname is a file"),
        ("/opt/q/r/s", "the nearest directory that is there: /opt"),
    ] {
        let (code, stderr) = lab.failure(&["cat", "lab", path]);
        assert!(code == 1 && stderr.contains(wanted), "{path}: {stderr}");
    }
}

#[test]
fn builds_are_compared() {
    let lab = Lab::new();
    assert_eq!(
        lab.text(&["diff", &lab.old(), "lab"]),
        "\
~ /etc/hostname  content
--- a/etc/hostname
+++ b/etc/hostname
@@ -1 +1 @@
-valar1
+valar2
~ /etc/motd  content, size 14 -> 12, mode 0644 -> 0755
--- a/etc/motd
+++ b/etc/motd
@@ -1,3 +1,3 @@
 one
-two
+2
 three
+ /opt/new  -rw-r--r-- 0:0 3
- /opt/old  -rw-r--r-- 0:0 3
~ /usr/share/zoneinfo/UTC  content, size 6 -> 7
  binary files differ: 6 B and 7 B
1 added, 1 removed, 3 changed
"
    );
    assert_eq!(lab.text(&["diff", "--brief", &lab.old(), "lab"]).lines().count(), 6);
    assert_eq!(lab.text(&["diff", "lab", "lab"]), "no path differs\n");
    let compared = lab.json(&["diff", &lab.old(), "lab"]);
    assert_eq!(compared["counts"], json!({ "added": 1, "removed": 1, "changed": 3, "mtime_only": 0 }));
    let motd = &compared["changes"][1];
    assert_eq!((&motd["path"], &motd["what"]), (&json!("/etc/motd"), &json!(["content", "size", "mode"])));
    assert_eq!((&motd["old"]["mode"], &motd["new"]["mode"]), (&json!("0644"), &json!("0755")));
    assert!(motd["text"]["unified"].as_str().unwrap().contains("\n-two\n+2\n"));
}

#[test]
fn every_path_has_a_reason() {
    let lab = Lab::new();
    let image = aule_tree::Digest::of(b"image");
    let base = format!("base   LAYER  added                           in the upstream image ubuntu.img.xz, {image}");
    // Digests of layers are no business of this test.
    let why = |path: &str| -> String {
        let text = lab.text(&["why", "lab", path]);
        let words =
            text.split(' ').map(|word| if word.starts_with("sha256:") && word.len() == 19 { "LAYER" } else { word });
        words.collect::<Vec<_>>().join(" ")
    };
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (path, wanted) in [
        (
            "/etc/hostname",
            format!("/etc/hostname: file, 7 B, -rw-r--r-- files LAYER changed (content) files./etc/hostname recipes/lab.yaml:12:3 {base}"),
        ),
        (
            "/etc/update-motd.d/10-help",
            format!("/etc/update-motd.d/10-help: not in lab any more files LAYER removed with /etc/update-motd.d files./etc/update-motd.d recipes/lab.yaml:14:3 {base}"),
        ),
        (
            "/etc/update-motd.d",
            format!("/etc/update-motd.d: not in lab any more files LAYER removed files./etc/update-motd.d recipes/lab.yaml:14:3 {base}"),
        ),
        (
            "/opt/k3s",
            "/opt/k3s: directory, drwxr-xr-x files LAYER added overlays[0] recipes/lab.yaml:9:3 (made for /opt/k3s/config)".into(),
        ),
        ("/bin/ping", format!("/bin/ping: file, 12 B, -rwsr-xr-x {base}")),
        (
            "/dev/null",
            format!("/dev/null: character device, crw-rw-rw- files kept as it was files./dev/null recipes/lab.yaml:7:3 {base}"),
        ),
    ] {
        assert_eq!(squeeze(&why(path)), squeeze(&wanted), "{path}");
    }
    let answer = lab.json(&["why", "lab", "/etc/hostname"]);
    assert_eq!(answer["history"][0]["action"], "changed");
    assert_eq!(
        answer["history"][0]["origin"],
        json!({ "key": "files./etc/hostname", "file": "recipes/lab.yaml", "line": 12, "column": 3 })
    );
    assert_eq!(answer["history"][1]["image"], json!({ "name": "ubuntu.img.xz", "digest": image.to_string() }));
    let gone = lab.json(&["why", "lab", "/etc/update-motd.d/10-help"]);
    assert_eq!((&gone["entry"], &gone["history"][0]["via"]), (&json!(null), &json!("/etc/update-motd.d")));
    let (code, stderr) = lab.failure(&["why", "lab", "/etc/hostnam"]);
    assert!(code == 1 && stderr.contains("did you mean /etc/hostname?"), "{stderr}");
}

#[test]
fn sizes_are_told_by_directory_and_layer() {
    let lab = Lab::new();
    let sizes = lab.json(&["size", "lab", "--depth", "1"]);
    let shown: Vec<_> =
        sizes["directories"].as_array().unwrap().iter().map(|it| (&it["path"], &it["layers"])).collect();
    assert_eq!(shown[0], (&json!("/"), &json!([2_621_455, 7 + 12 + 6 + 3 + 7])));
    assert_eq!(shown[1], (&json!("/usr"), &json!([2_621_443, 7])));
    let visible: Vec<_> = sizes["layers"].as_array().unwrap().iter().map(|it| (&it["step"], &it["hidden"])).collect();
    // Hidden: the old hostname, motd and UTC, and the script that was removed with its directory.
    assert_eq!(visible, [(&json!("base"), &json!(7 + 14 + 6 + 10)), (&json!("files"), &json!(0))]);
    let text = lab.text(&["size", "lab", "--top", "2"]);
    let rows: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(rows, ["base", "/", "/usr", "(7", "visible", "hidden", "compressed"], "{text}");
}

#[test]
fn a_build_is_inspected() {
    let lab = Lab::new();
    let shown = lab.json(&["inspect", "lab:netboot"]);
    assert_eq!(shown["digest"], lab.digests[1].to_string());
    assert_eq!(shown["base"]["image"], "ubuntu.img.xz");
    assert_eq!(shown["layers"][1]["step"], "files");
    assert_eq!(shown["layers"][1]["key"], aule_tree::Digest::of(b"files key").to_string());
    assert_eq!(shown["artifacts"][1]["files"][0]["name"], "boot.img");
    let text = lab.text(&["inspect", "lab"]);
    for wanted in ["lab:netboot (generation 2, now)", "root.tar.zst", "templates", "boot/firmware/cmdline.txt"] {
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn garbage_is_counted_and_collected() {
    let lab = Lab::new();
    lab.store().put(b"nobody's").unwrap();
    lab.wait_until_alone();
    assert_eq!(
        lab.json(&["gc", "--dry-run"]),
        json!({ "dry_run": true, "blobs": 1, "steps": 0, "downloads": 0, "bytes": 8, "trees": 0, "trees_of_others": 0 })
    );
    assert_eq!(lab.text(&["gc"]), "removed 1 blob, 0 step results, 0 downloads and 0 unpacked trees: 8 B\n");
    assert_eq!(lab.text(&["gc"]), "removed 0 blobs, 0 step results, 0 downloads and 0 unpacked trees: 0 B\n");
    lab.text(&["verify", "lab"]);
    let held = lab.store();
    let (code, stderr) = lab.failure(&["gc"]);
    assert!(code == 1 && stderr.contains("another aule process"), "{stderr}");
    drop(held);
}

#[test]
fn an_empty_store_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let listed = run(directory.path(), &["list"]);
    assert!(listed.status.success() && listed.stdout.is_empty());
    let missing = run(directory.path(), &["ls", "lab"]);
    assert!(String::from_utf8(missing.stderr).unwrap().contains("the store is empty"));
}
