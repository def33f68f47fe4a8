//! A look ahead says what the build then does, and leaves everything as it was.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test panics when its own set-up is wrong")]

mod common;

use aule_build::{BuildError, BuildOutcome, BuildRequest, Comparison, Knowledge, Preview, StepState, preview};
use aule_recipe::{Lock, Merged};
use aule_store::{Build, Store};
use aule_tree::{Change, TreePath, changes};
use common::Bench;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Everything below a directory: names, kinds, sizes, times, contents.
fn listing(directory: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        let it = fs::symlink_metadata(&path).unwrap();
        if it.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let bytes = if it.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.insert(path, (it.mode(), it.size(), it.mtime_nsec() + it.mtime(), it.ctime_nsec() + it.ctime(), bytes));
    }
    found
}

fn merged(recipe: &Path) -> Merged {
    aule_recipe::load(&|path: &Path| fs::read(path), recipe).unwrap().variant("default").unwrap()
}

/// Looks ahead, sees that nothing is changed, and gives what was found.
fn look(bench: &Bench, recipe: &Path, with: Option<&BuildOutcome>) -> Result<Preview, BuildError> {
    let before = listing(bench.path());
    let store = Store::open_to_look(bench.path().join("store")).unwrap();
    let build = with.map(|with| {
        let descriptor = store.resolve(&with.digest.to_string().parse().unwrap()).unwrap();
        Build::open(&store, descriptor).unwrap()
    });
    let request = BuildRequest { store: &store, ..bench.request(1) };
    let with = build.as_ref().map(|build| ("test:default", build));
    let comparison = Comparison { build: with, lock: &Lock::default() };
    let found = preview(&request, &merged(recipe), &comparison);
    drop(store);
    assert!(listing(bench.path()) == before, "something was written");
    found
}

#[test]
fn what_is_said_is_what_the_build_does() {
    let bench = Bench::new();
    let mut last: Option<BuildOutcome> = None;
    let outputs = "outputs: [boot, nfs-root, oci]\n";
    let all = format!("boot: {{ size: 36MiB }}\n{outputs}");
    for (text, changed) in [
        (format!("files: {{ /etc/a: {{ content: a }} }}\n{all}"), 0),
        (format!("files: {{ /etc/a: {{ content: a }} }}\n{all}"), 0),
        // The boot partition and the root.
        (
            format!(
                "files: {{ /etc/a: {{ content: a }} }}\nboot: {{ size: 36MiB, cmdline: {{ add: [debug] }} }}\n{outputs}"
            ),
            1,
        ),
        (format!("files: {{ /etc/a: {{ content: b }}, /etc/c: {{ content: c }} }}\n{all}"), 3),
        // Only the order changes, and so nothing does.
        (format!("files: {{ /etc/c: {{ content: c }}, /etc/a: {{ content: b }} }}\n{all}"), 0),
        (format!("cloud_init: {{ user_data: [{{ runcmd: [ls] }}] }}\nroot: {{ over: nfs }}\n{all}"), usize::MAX),
    ] {
        let recipe = bench.recipe(&text);
        let said = look(&bench, &recipe, last.as_ref()).unwrap();
        let done = bench.build(&recipe, "default").unwrap();
        assert_eq!(said.reference, done.reference);
        let names: Vec<_> = said.steps.iter().map(|it| &it.name).collect();
        assert_eq!(names, done.steps.iter().map(|it| &it.name).collect::<Vec<_>>(), "{text}");
        for (said, done) in said.steps.iter().zip(&done.steps) {
            match said.state {
                StepState::Cached => assert!(done.cached, "{} of {text}", said.name),
                StepState::Runs => assert!(!done.cached, "{} of {text}", said.name),
                StepState::Unknown => assert!(said.why.is_some()),
            }
            assert!(said.key.is_none_or(|key| key == done.key), "the key of {} of {text}", said.name);
        }
        if let Some(last) = &last {
            let (new, (built, _), (old, _)) = (said.tree.unwrap(), bench.tree(&done), bench.tree(last));
            assert_eq!(new.digest(), built.digest(), "{text}");
            let found = changes(&old, &new);
            assert!(changed == usize::MAX || found.len() == changed, "{found:?} of {text}");
        } else {
            assert!(said.tree.unwrap_err().contains("not imported"));
            assert!(said.steps.iter().all(|it| it.state == StepState::Runs), "{:?}", said.steps);
            assert_eq!(said.packages.state, Knowledge::Unknown);
        }
        last = Some(done);
    }
}

#[test]
fn one_file_more_is_one_path_more() {
    let bench = Bench::new();
    let first = bench.build(bench.recipe("files: { /etc/a: { content: a } }\n"), "default").unwrap();
    let recipe = bench.recipe("files: { /etc/a: { content: a }, /etc/b: { content: b } }\n");
    let said = look(&bench, &recipe, Some(&first)).unwrap();
    let found = changes(&bench.tree(&first).0, &said.tree.unwrap());
    assert_eq!(found, [(TreePath::new("etc/b").unwrap(), Change::Added)]);
    // The tiny image has no packages, which is known.
    assert_eq!((said.packages.state, said.packages.unchanged), (Knowledge::Resolved, 0));
    assert!(said.downloads.is_empty() && said.lock_unknown.is_empty());
}

#[test]
fn mistakes_are_those_of_a_build() {
    let bench = Bench::new();
    bench.build(bench.recipe(""), "default").unwrap();
    for text in
        ["services: { enable: [none.service] }\n", "files: { /etc/none: { remove: true } }\n", "overlays: [none]\n"]
    {
        let recipe = bench.recipe(text);
        let said = look(&bench, &recipe, None).unwrap_err().to_string();
        assert!(said.contains("test.yaml:3:"), "{said}");
        assert_eq!(said, bench.build(&recipe, "default").unwrap_err().to_string());
    }
}

#[test]
fn a_store_that_could_change_is_refused_and_one_that_is_not_there_is_not_made() {
    let bench = Bench::new();
    let recipe = bench.recipe("");
    let with = Comparison { build: None, lock: &Lock::default() };
    let refused = preview(&bench.request(1), &merged(&recipe), &with);
    assert!(matches!(refused, Err(BuildError::Internal(_))));
    let root = bench.path().join("none/store");
    let store = Store::open_to_look(&root).unwrap();
    let scratch = store.downloads();
    let request = BuildRequest { store: &store, ..bench.request(1) };
    assert!(preview(&request, &merged(&recipe), &with).is_ok());
    drop(store);
    assert!(!root.exists() && !scratch.exists());
}
