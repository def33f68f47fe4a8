//! Laws of diff and apply over generated trees: `old + diff(old, new) = new`, and an equal tree needs no layer.

#![allow(clippy::unwrap_used, reason = "a test panics when its own set-up is wrong")]

use aule_tree::{Change, Content, Inode, Kind, Metadata, Timestamp, Tree, TreePath, What, changes, diff};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Directory(String, u16),
    File(String, u8),
    Symlink(String),
    Remove(String),
    Link(String, String),
}

fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec("[abc]", 1..4).prop_map(|parts| parts.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (name(), 0u16..3).prop_map(|(path, mode)| Step::Directory(path, 0o700 + mode)),
        (name(), 0u8..4).prop_map(|(path, content)| Step::File(path, content)),
        name().prop_map(Step::Symlink),
        name().prop_map(Step::Remove),
        (name(), name()).prop_map(|(from, to)| Step::Link(from, to)),
    ]
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn metadata(mode: u16) -> Metadata {
    Metadata::root_owned(mode, Timestamp::default())
}

fn run(tree: &mut Tree, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Directory(name, mode) => {
                tree.insert(&path(name), Inode { metadata: metadata(*mode), kind: Kind::Directory });
            }
            Step::File(name, byte) => {
                let kind = Kind::File(Content::of(&[*byte]));
                tree.insert(&path(name), Inode { metadata: metadata(0o644), kind });
            }
            Step::Symlink(name) => {
                tree.insert(&path(name), Inode { metadata: metadata(0o777), kind: Kind::Symlink(b"x".to_vec()) });
            }
            Step::Remove(name) => {
                tree.remove(&path(name));
            }
            Step::Link(from, to) => {
                let (from, to) = (path(from), path(to));
                if let Some(id) = tree.id(&from)
                    && !tree.get(&from).is_some_and(Inode::is_directory)
                    && !to.starts_with(&from)
                {
                    tree.link(&to, id);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_diff_leads_from_old_to_new(
        before in proptest::collection::vec(step(), 0..20),
        after in proptest::collection::vec(step(), 0..10),
    ) {
        let mut old = Tree::new(metadata(0o755));
        run(&mut old, &before);
        let mut new = old.clone();
        run(&mut new, &after);
        let layer = diff(&old, &new);
        let mut merged = old.clone();
        merged.apply(&layer).unwrap();
        prop_assert_eq!(merged.digest(), new.digest());
        prop_assert!(merged == new);
        prop_assert!(diff(&merged, &new).entries.is_empty());
        prop_assert_eq!(layer.entries.is_empty(), old.digest() == new.digest());
        // Each path comes after all directories above it.
        let mut written = std::collections::HashSet::new();
        for entry in &layer.entries {
            prop_assert!(entry.path.parent().is_none_or(|parent| written.contains(&parent)), "{:?}", entry.path);
            written.insert(entry.path.clone());
        }
    }
}

#[test]
fn one_changed_name_rewrites_the_hardlink_set() {
    let mut old = Tree::new(metadata(0o755));
    let id = old.insert(&path("a"), Inode { metadata: metadata(0o644), kind: Kind::File(Content::of(b"1")) });
    old.link(&path("b"), id);
    let mut new = old.clone();
    new.link(&path("c"), new.id(&path("a")).unwrap());
    let layer = diff(&old, &new);
    let shown: Vec<_> = layer.entries.iter().map(|e| (e.path.to_string(), matches!(e.what, What::Link(_)))).collect();
    assert_eq!(shown, [("/".into(), false), ("/a".into(), false), ("/b".into(), true), ("/c".into(), true)]);
    let kinds: Vec<_> = changes(&old, &new).into_iter().map(|(_, change)| change).collect();
    assert_eq!(kinds, [Change::Changed, Change::Changed, Change::Added]);
}

#[test]
fn an_emptied_directory_is_opaque_and_a_single_loss_a_whiteout() {
    let mut old = Tree::new(metadata(0o755));
    for name in ["many/a", "many/b", "one/x", "one/y"] {
        old.insert(&path(name), Inode { metadata: metadata(0o644), kind: Kind::File(Content::of(b"1")) });
    }
    let mut new = old.clone();
    new.remove(&path("many/a"));
    new.remove(&path("many/b"));
    new.remove(&path("one/x"));
    let layer = diff(&old, &new);
    let marks: Vec<_> = layer.entries.iter().filter(|it| !matches!(it.what, What::Node(_))).collect();
    let shown: Vec<_> = marks.iter().map(|e| (e.path.to_string(), e.what.clone())).collect();
    assert_eq!(shown, [("/many".into(), What::Opaque), ("/one/x".into(), What::Whiteout)]);
    // A tool that unpacks this layer alone must not have to make up the directories.
    let others: Vec<_> = layer.entries.iter().filter(|it| matches!(it.what, What::Node(_))).collect();
    assert_eq!(others.iter().map(|it| it.path.to_string()).collect::<Vec<_>>(), ["/", "/many", "/one"]);
    assert!(others.iter().all(|it| it.what == What::Node(old.get(&it.path).unwrap().clone())));
}
