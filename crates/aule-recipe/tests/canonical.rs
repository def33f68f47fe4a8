//! The canonical form, the printed form and the lock: each gives back what went in, and has the bytes that it had.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;

use aule_recipe::{BaseEntry, KeptPackage, Lock, LockItem, LockedBase, LockedFile, LockedPackage, Sha256};
use aule_recipe::{canonical, from_canonical, recipe_digest, show};
use common::{files, load_files, one};
use proptest::prelude::*;

const FULL: &str = include_str!("golden/full.yaml");

#[test]
fn canonical_form_is_stable() {
    let recipe = one(FULL).unwrap().recipe;
    let expected = include_str!("golden/full.canonical.json").trim_end();
    assert_eq!(String::from_utf8(canonical(&recipe)).unwrap(), expected);
    // If this changes, so does the key of every cached step: raise the format version with it.
    assert_eq!(recipe_digest(&recipe).to_string(), GOLDEN);
}

const GOLDEN: &str = "2cfb6d879a5dc74d47e235f98bf0379167b34649e9e1de18ba96920a76bef9e6";

#[test]
fn canonical_form_says_nothing_about_places() {
    let here = one(FULL).unwrap().recipe;
    for path in ["main.yaml", "/home/somebody/recipes/main.yaml", "../../a/b/main.yaml"] {
        let text = FULL;
        let sources = |_: &Path| -> std::io::Result<Vec<u8>> { Ok(text.as_bytes().to_vec()) };
        let there = aule_recipe::load(&sources, Path::new(path)).unwrap().variant("default").unwrap().recipe;
        assert_eq!(recipe_digest(&there), recipe_digest(&here), "{path}");
    }
    // Order where it has no meaning, and how the files are cut, change nothing.
    let split = files(&[
        (
            "m.yaml",
            &FULL
                .replace("enable: [b.service, a.service], ", "")
                .replace("overlays: [../overlays/b, ../overlays/a]", "overlays: [../overlays/a]\nextends: lib/p.yaml"),
        ),
        ("lib/p.yaml", "overlays: [../../overlays/b]\nservices: {enable: [a.service, b.service]}\n"),
    ]);
    let split = load_files(&split, "m.yaml").unwrap().variant("default").unwrap().recipe;
    assert_eq!(String::from_utf8_lossy(&canonical(&split)), String::from_utf8_lossy(&canonical(&here)));
    // Order where it has one, does.
    let swapped = one(&FULL.replace("[b=1, a=1]", "[a=1, b=1]")).unwrap().recipe;
    assert_ne!(recipe_digest(&swapped), recipe_digest(&here));
}

#[test]
fn canonical_form_reads_back() {
    let recipe = one(FULL).unwrap().recipe;
    let bytes = canonical(&recipe);
    let back = from_canonical(&bytes).unwrap();
    assert_eq!(canonical(&back), bytes);
    assert_eq!(back.overlays[0].path(), Path::new("../overlays/b"));
    let absolute = one("name: t\nbase: {image: /data/pi.img}\n").unwrap().recipe;
    assert_eq!(from_canonical(&canonical(&absolute)).unwrap().base.image().unwrap().image.name(), "pi.img");
}

#[test]
fn a_forged_canonical_form_is_refused() {
    let bytes = String::from_utf8(canonical(&one(FULL).unwrap().recipe)).unwrap();
    for (from, to, part) in [
        ("\"format\":1", "\"format\":2", "format 2"),
        ("\"format\":1", "\"format\":1,\"more\":1", "unknown field"),
        ("\"a.service\"", "\"../a.service\"", "cannot stand in `services.enable`"),
        ("\"/etc/b\"", "\"/etc/../b\"", "`..`"),
        ("\"../overlays/b\"", "\"/etc\"", "absolute path"),
        ("[\"quiet\"]", "[\"a\\nb\"]", "one kernel argument"),
        ("\"name\":\"full\"", "\"name\":\"Full\"", "name of a recipe"),
        ("\"e.conf\"", "\"x/../e.conf\"", "not the canonical form"),
        ("\"inline\":\"local-hostname: x", "\"inline\":\"local-hostname:  x", "not the canonical form"),
        ("[\"a.service\",\"b.service\"]", "[\"b.service\",\"a.service\"]", "not the canonical form"),
        ("{\"format\"", "{ \"format\"", "not the canonical form"),
        ("{\"format\"", "[", "no canonical recipe"),
    ] {
        let forged = bytes.replacen(from, to, 1);
        assert_ne!(forged, bytes, "{from}");
        let error = from_canonical(forged.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{from} -> {to}: {part}\n{error}");
    }
}

#[test]
fn what_is_shown_is_a_recipe_with_places() {
    let list = [
        (
            "r/m.yaml",
            "name: t\nextends: lib/p.yaml\nfiles:\n  /etc/motd: {content: hi}\nservices: {mask: [x.timer]}\n\
             variants: {v: {root: {over: nfs}, cloud_init: {user_data: [{a: [1]}]}}}\n",
        ),
        ("r/lib/p.yaml", "base: {image: b.img}\noverlays: [ov]\nservices: {mask: [w.timer]}\n"),
    ];
    let merged = load_files(&files(&list), "r/m.yaml").unwrap().variant("v").unwrap();
    let expected = "\
name: t  # r/m.yaml:1
base:  # r/lib/p.yaml:1
  image: lib/b.img  # r/lib/p.yaml:1
overlays:  # r/lib/p.yaml:2
  - lib/ov  # r/lib/p.yaml:2
files:  # r/m.yaml:3
  /etc/motd:  # r/m.yaml:4
    content: hi  # r/m.yaml:4
services:  # r/m.yaml:5
  mask:  # r/m.yaml:5
    - w.timer  # r/lib/p.yaml:3
    - x.timer  # r/m.yaml:5
cloud_init:  # r/m.yaml:6
  user_data:  # r/m.yaml:6
    -  # r/m.yaml:6
      a:  # r/m.yaml:6
        - 1  # r/m.yaml:6
root:  # r/m.yaml:6
  over: nfs  # r/m.yaml:6
  writes: tmpfs
outputs:
  - oci
";
    assert_eq!(show(&merged, true), expected);
    for with_origin in [false, true] {
        let text = show(&merged, with_origin);
        let again = load_files(&files(&[("r/again.yaml", &text)]), "r/again.yaml").unwrap();
        assert_eq!(again.variant("default").unwrap().recipe, merged.recipe, "{text}");
    }
}

#[test]
fn a_base_of_packages_reads_back() {
    let text = "name: t\nbase: {packages: {suite: trixie, key: k.asc, include: [bb, aa], components: [main]}}\n";
    let merged = load_files(&files(&[("r/main.yaml", text)]), "r/main.yaml").unwrap().variant("default").unwrap();
    let bytes = canonical(&merged.recipe);
    assert_eq!(canonical(&from_canonical(&bytes).unwrap()), bytes);
    let shown = show(&merged, false);
    let again = load_files(&files(&[("r/again.yaml", &shown)]), "r/again.yaml").unwrap();
    assert_eq!(again.variant("default").unwrap().recipe, merged.recipe, "{shown}");
}

#[test]
fn a_lock_of_packages_says_of_which_suite() {
    let sample = sample_lock();
    let base_packages = sample.packages.iter().take(1).cloned().collect();
    let lock = Lock { suite: Some("trixie main [arm64]".into()), base: None, base_packages, ..sample };
    // Locks once had all packages in one list.
    let once = Lock { base_packages: Vec::new(), ..lock.clone() };
    let read = Lock::parse(&once.to_bytes()).unwrap();
    assert_eq!(read.base_packages, read.packages);
    assert_eq!(read.packages.len(), once.packages.len());
    let bytes = lock.to_bytes();
    assert_eq!(Lock::parse(&bytes).unwrap().suite, lock.suite, "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(Lock::parse(&bytes).unwrap().to_bytes(), bytes);
    let recipe =
        |suite: &str| one(&format!("name: t\nbase: {{packages: {{suite: {suite}, key: k.asc}}}}\n")).unwrap().recipe;
    let same = lock.compare(&[&recipe("trixie")], BaseEntry::Compared);
    assert!(!same.missing.iter().chain(&same.unused).any(|it| matches!(it, LockItem::Suite(_))), "{same:?}");
    let other = lock.compare(&[&recipe("forky")], BaseEntry::Compared);
    assert!(other.missing.iter().chain(&other.unused).any(|it| matches!(it, LockItem::Suite(_))), "{other:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any text in any string of a recipe survives the canonical form, and with it the printed form.
    #[test]
    fn any_content_reads_back(content in any::<String>(), value in "\\PC{0,20}") {
        let content = content.replace('\0', "");
        let value: String = value.chars().filter(|c| !c.is_whitespace() && *c != '"').collect();
        let template = String::from_utf8(canonical(&one(FULL).unwrap().recipe)).unwrap();
        let content = serde_json::to_string(&content).unwrap();
        let value = serde_json::to_string(&value).unwrap();
        let bytes = template
            .replace("\"two\\nlines\\n\"", &content)
            .replace("\"tty1\"", &value)
            .replace("\"../x\"", &format!("\"t{}", &value[1..]));
        let back = from_canonical(bytes.as_bytes()).unwrap_or_else(|error| panic!("{bytes}\n{error}"));
        prop_assert_eq!(String::from_utf8(canonical(&back)).unwrap(), bytes);
    }
}

fn digest(byte: u8) -> Sha256 {
    Sha256([byte; 32])
}

fn sample_lock() -> Lock {
    Lock {
        suite: None,
        base: Some(LockedBase {
            url: "https://example.org/pi.img.xz".into(),
            size: 1_234_567,
            sha256: digest(0x11),
            verified: "signature by 8439 38DF: good".into(),
        }),
        base_packages: Vec::new(),
        packages: vec![
            LockedPackage {
                name: "zstd".into(),
                architecture: "arm64".into(),
                version: "1.5.4+dfsg2-5".into(),
                url: "https://example.org/zstd.deb".into(),
                size: 22,
                sha256: digest(0x22),
                variants: Vec::new(),
            },
            LockedPackage {
                name: "nfs-common".into(),
                architecture: "arm64".into(),
                version: "1:2.6".into(),
                url: "https://example.org/nfs.deb".into(),
                size: 33,
                sha256: digest(0x33),
                variants: Vec::new(),
            },
        ],
        kept: Vec::new(),
        files: vec![LockedFile { url: "https://example.org/a".into(), size: 9, sha256: digest(0x11) }],
    }
}

#[test]
fn kept_packages_are_a_line_each() {
    let kept = |name: &str, version: &str| KeptPackage { name: name.into(), version: version.into() };
    let lock = Lock { kept: vec![kept("vim", "2:9"), kept("nano", "8.4")], ..sample_lock() };
    let text = String::from_utf8(lock.to_bytes()).unwrap();
    assert!(text.contains("\nkept:\n  - nano 8.4\n  - vim 2:9\nfiles:\n"), "{text}");
    assert_eq!(Lock::parse(text.as_bytes()).unwrap().kept, [kept("nano", "8.4"), kept("vim", "2:9")]);
    // A lock from before there was such a list.
    assert_eq!(Lock::parse(&sample_lock().to_bytes()).unwrap().kept, []);
}

#[test]
fn lock_bytes_are_stable_and_read_back() {
    let lock = sample_lock();
    let expected = "\
# Written by `aule lock`: what the recipe's URLs and packages stood for. Commit it; do not edit it.
version: 1
base:
  url: https://example.org/pi.img.xz
  size: 1234567
  sha256: \"1111111111111111111111111111111111111111111111111111111111111111\"
  verified: \"signature by 8439 38DF: good\"
packages:
  - name: nfs-common
    version: \"1:2.6\"
    architecture: arm64
    url: https://example.org/nfs.deb
    size: 33
    sha256: \"3333333333333333333333333333333333333333333333333333333333333333\"
  - name: zstd
    version: 1.5.4+dfsg2-5
    architecture: arm64
    url: https://example.org/zstd.deb
    size: 22
    sha256: \"2222222222222222222222222222222222222222222222222222222222222222\"
files:
  - url: https://example.org/a
    size: 9
    sha256: \"1111111111111111111111111111111111111111111111111111111111111111\"
";
    assert_eq!(String::from_utf8(lock.to_bytes()).unwrap(), expected);
    let back = Lock::parse(&lock.to_bytes()).unwrap();
    assert_eq!(back.to_bytes(), lock.to_bytes());
    assert_eq!(back.base, lock.base);
    assert_eq!(Lock::parse(&Lock::default().to_bytes()).unwrap(), Lock::default());
}

#[test]
fn a_bad_lock_says_where_and_what_to_do() {
    for (text, part) in [
        ("", "is empty"),
        ("version: 2\n", "this lock has version 2"),
        ("files: []\n", "has no version"),
        ("version: 1\nfile: []\n", "did you mean `files`?"),
        ("version: 1\nfiles: [{url: \"https://x/\", size: -1, sha256: SUM}]\n", "expected a number of bytes"),
        ("version: 1\nfiles: [{url: \"https://x/\", size: 1, sha256: 12}]\n", "64 hexadecimal digits"),
        ("version: 1\nfiles: [{url: x, size: 1, sha256: SUM}]\n", "https:// or http://"),
        ("version: 1\nfiles: [{size: 1, sha256: SUM}]\n", "has no `url`"),
        (
            "version: 1\nfiles: &f [{url: \"https://x/\", size: 1, sha256: SUM}, {url: \"https://x/\", size: 1, sha256: SUM}]\n",
            "locked twice",
        ),
        ("version: 1\nbase: {url: \"a\\nb\", size: 1, sha256: SUM, verified: no}\n", "control characters"),
        ("version: 1\npackages: [{name: a}]\n", "a package has no `version`"),
        ("version: 1\nkept: [nano]\n", "`nano` is no package with its version"),
        ("version: 1\nkept: [a b c]\n", "no package with its version"),
        ("<<<<<<< HEAD\nversion: 1\n=======\n", "error"),
    ] {
        let text = text.replace("SUM", &"1".repeat(64));
        let error = Lock::parse_file(Path::new("t.lock"), text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("t.lock") && error.contains("`aule lock`"), "{text}\n{error}");
    }
}

#[test]
fn lock_and_recipe_are_compared() {
    let with = |files: &str| {
        one(&format!("name: t\nbase: {{image: \"https://example.org/pi.img.xz\", checksums: c}}\n{files}\n"))
    };
    let same =
        with("files: {/a: {url: \"https://example.org/a\"}}\npackages: {install: [zstd, nfs-common]}").unwrap().recipe;
    let mut lock = sample_lock();
    let difference = lock.compare(&[&same], BaseEntry::Compared);
    assert!(difference.is_empty(), "{difference}");

    let other = with("files: {/a: {url: \"https://example.org/b\"}}\npackages: {install: [vim]}").unwrap().recipe;
    let difference = lock.compare(&[&other], BaseEntry::Compared);
    assert_eq!(
        difference.to_string(),
        "not in the lock: file https://example.org/b\nno longer used: file https://example.org/a"
    );
    // What one variant does not use, another may.
    assert!(lock.compare(&[&other, &same], BaseEntry::Compared).unused.is_empty());

    let demanding =
        with(&format!("files: {{/a: {{url: \"https://example.org/a\", sha256: {}}}}}", "a".repeat(64))).unwrap().recipe;
    let difference = lock.compare(&[&demanding], BaseEntry::Compared);
    assert_eq!(difference.changed, [LockItem::File("https://example.org/a".into())]);
    lock.drop_stale(&difference);
    assert!(lock.files.is_empty());
    assert_eq!(lock.compare(&[&demanding], BaseEntry::Compared).missing.len(), 1);

    let moved = one("name: t\nbase: {image: local.img}\n").unwrap().recipe;
    let difference = lock.compare(&[&moved], BaseEntry::Compared);
    assert_eq!(difference.missing, [], "a local image is not locked");
    assert_eq!(difference.unused, [LockItem::Base("https://example.org/pi.img.xz".into())]);
    assert!(lock.compare(&[&moved], BaseEntry::LeftAlone).is_empty());
    lock.drop_stale(&difference);
    assert_eq!(lock.base, None);
    let pinned =
        one(&format!("name: t\nbase: {{image: \"https://example.org/pi.img.xz\", sha256: {}}}\n", "b".repeat(64)));
    let difference = sample_lock().compare(&[&pinned.unwrap().recipe], BaseEntry::Compared);
    assert_eq!(difference.changed, [LockItem::Base("https://example.org/pi.img.xz".into())]);
}
