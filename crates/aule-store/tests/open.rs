//! Opening a store: where there is none, where others do the same at that moment, and where something else is.

#![allow(clippy::unwrap_used, reason = "a test panics when its own set-up is wrong")]

use aule_store::{Store, StoreError};
use std::{fs, sync::Barrier, thread};

#[test]
fn many_open_the_same_new_store_at_once() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..50 {
        let root = directory.path().join(round.to_string());
        let start = Barrier::new(16);
        let opened = thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        Store::open(&root).map(drop)
                    })
                })
                .collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
        });
        for result in opened {
            assert!(result.is_ok(), "round {round}: {}", result.unwrap_err());
        }
    }
}

#[test]
fn a_half_made_store_is_completed_and_other_directories_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let half = directory.path().join("half");
    fs::create_dir_all(half.join("blobs")).unwrap();
    fs::write(half.join("lock"), "").unwrap();
    drop(Store::open(&half).unwrap());
    assert!(half.join("oci-layout").is_file());

    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter.txt"), "x").unwrap();
    assert!(matches!(Store::open(&other), Err(StoreError::NotAStore { .. })));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn a_store_that_is_only_looked_at_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    let looked = Store::open_to_look(&root).unwrap();
    assert!(looked.generations().unwrap().is_empty() && !looked.remembers_steps().unwrap());
    drop(looked);
    assert!(!root.exists());

    let store = Store::open(&root).unwrap();
    let digest = store.put(b"mithril").unwrap();
    // What a crash would leave: only who may change the store removes it.
    let left = root.join("tmp/left");
    fs::write(&left, "x").unwrap();
    drop(store);
    let looked = Store::open_to_look(&root).unwrap();
    assert!(left.exists() && looked.has_intact_blob(digest));
    let target = aule_store::oci::Descriptor::new("application/octet-stream", digest, 7);
    for refused in [
        looked.put(b"gold").map(drop),
        looked.set_step_result(digest, &[], &1),
        looked.set_derived(digest, digest),
        looked.set_ref("a:b", &target).map(drop),
        looked.set_lease("a", &[digest].into()),
        looked.collect_garbage(false).map(drop),
    ] {
        assert!(matches!(refused, Err(StoreError::OnlyLookedAt(_))), "{refused:?}");
    }
    let scratch = looked.downloads();
    assert!(scratch.is_dir() && !scratch.starts_with(&root));
    drop(looked);
    assert!(!scratch.exists());

    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter.txt"), "x").unwrap();
    assert!(matches!(Store::open_to_look(&other), Err(StoreError::NotAStore { .. })));
}
