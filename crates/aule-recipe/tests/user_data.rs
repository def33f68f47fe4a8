//! Merging user-data: the rules, and that PyYAML reads from the result what it reads from the documents.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests fail by panicking")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use aule_recipe::merge_user_data;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

fn merge(parts: &[&str]) -> Result<String, String> {
    let parts: Vec<_> = parts
        .iter()
        .enumerate()
        .map(|(index, text)| (PathBuf::from(format!("part{index}.yaml")), text.as_bytes().to_vec()))
        .collect();
    merge_user_data(&parts).map(|bytes| String::from_utf8(bytes).unwrap()).map_err(|error| error.to_string())
}

/// Has PyYAML compare every case; `None`, with the reason printed, where there is no PyYAML.
fn pyyaml_agrees(cases: &[(Vec<String>, String)]) -> Option<Result<(), String>> {
    let probe = Command::new("python3").args(["-c", "import yaml"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: python3 with PyYAML (python3-yaml) is not installed");
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pyyaml.py");
    let mut child = Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let json: Vec<_> =
        cases.iter().map(|(parts, merged)| serde_json::json!({"parts": parts, "merged": merged})).collect();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(&json).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(text) })
}

#[test]
fn rules() {
    let merged = merge(&[
        "#cloud-config\npackages: [b, a]\nusers:\n  - default\n  - name: ops\n    uid: 0100\n    groups: [adm]\n\
         write_files:\n  - {path: /a, content: one, encoding: b64}\n  - {path: /a, content: two, append: true}\n  \
         - {path: /b, content: b}\nruncmd:\n  - [touch, /x]\n  - echo hi\nssh_pwauth: yes\nntp: {servers: [s1], enabled: no}\n",
        "#cloud-config\npackages: [a, c, [d, 1.0]]\nusers:\n  - ops\n  - {name: ops, shell: /bin/bash, groups: [sudo]}\n  \
         - {name: new}\nwrite_files:\n  - {path: /a, content: three}\n  - {path: /b, content: more, append: yes}\n\
         runcmd:\n  - [touch, /x]\nssh_pwauth: off\nntp: {servers: [s2]}\n",
    ])
    .unwrap();
    let expected = "\
#cloud-config
packages:
  - b
  - a
  - c
  - - d
    - 1.0
users:
  - default
  - name: ops
    uid: 0100
    groups:
      - adm
      - sudo
    shell: /bin/bash
  - name: new
write_files:
  - path: /a
    content: three
  - path: /b
    content: b
  - path: /b
    content: more
    append: yes
runcmd:
  - - touch
    - /x
  - echo hi
  - - touch
    - /x
ssh_pwauth: off
ntp:
  servers:
    - s1
    - s2
  enabled: no
";
    assert_eq!(merged, expected);
}

#[test]
fn one_document_passes_through() {
    for text in [
        "#cloud-config\n# a comment\n{users:   [a]}\n\n",
        "#!/bin/sh\necho\n",
        "## template: jinja\n#cloud-config\n{% if x %}\na: 1\n{% endif %}\n",
        "## template: jinja\n#!/bin/sh\necho {{ ds }}\n",
        "#cloud-config\n",
        "#cloud-config-archive\n- a\n",
        "#include\nhttp://x/\n",
        "Content-Type: multipart/mixed; boundary=\"x\"\n",
    ] {
        assert_eq!(merge(&[text]).as_deref(), Ok(text));
    }
    assert_eq!(merge(&[]).as_deref(), Ok(""));
}

#[test]
fn templates() {
    let template =
        "## Template: Jinja\n#cloud-config\nhostname: \"{{ ds.meta_data.x }}\"\nruncmd: [\"echo {{ v1 }}\"]\n";
    let merged = merge(&["#cloud-config\nfqdn: a.b\nruncmd: [x]\n", template]).unwrap();
    assert_eq!(
        merged,
        "## Template: Jinja\n#cloud-config\nfqdn: a.b\nruncmd:\n  - x\n  - \"echo {{ v1 }}\"\n\
         hostname: \"{{ ds.meta_data.x }}\"\n"
    );
    for (parts, message) in [
        (["#cloud-config\na: 'x {{ y }}'\n", template], "these braces would be rendered"),
        (
            ["#cloud-config\na: 1\n", "## template: jinja\n#cloud-config\n{% if x %}\nb: 1\n{% endif %}\n"],
            "valid YAML before",
        ),
        (
            ["#cloud-config\na: 1\n", "## template: jinja\n#cloud-config\n#{% if x %}\nb: 1\n#{% endif %}\n"],
            "braces stand in values",
        ),
    ] {
        let error = merge(&parts).unwrap_err();
        assert!(error.contains(message), "{message}\n{error}");
    }
}

#[test]
fn refusals() {
    let good = "#cloud-config\na: 1\n";
    let cases: &[(&[&str], &[&str])] = &[
        (&["a: 1\n"], &["`part0.yaml` is no #cloud-config", "part0.yaml:1:1"]),
        (&["# cloud-config\na: 1\n"], &["is no #cloud-config"]),
        (&["\u{feff}#cloud-config\na: 1\n"], &["is no #cloud-config"]),
        (&[""], &["is no #cloud-config"]),
        (&[good, "#!/bin/sh\n"], &["part1.yaml", "cannot be merged with other documents"]),
        (&[good, "#cloud-config\n- a\n"], &["must be a map", "part1.yaml:2:1"]),
        (&["#cloud-config\nrun: [a\n"], &["not valid YAML"]),
        (&["#cloud-config\nruncmd: []\nruncmd: []\n"], &["`runcmd` is given twice"]),
        (&["#cloud-config\na: 1\n---\nb: 1\n"], &["second YAML document"]),
        (&[good, "#cloud-config\na: \"x\u{85}y\"\n"], &["line break in YAML 1.1", "part1.yaml:2:6"]),
        (&["x: 1\n", "y: 1\n"], &["`part0.yaml` is no", "`part1.yaml` is no"]),
    ];
    for (parts, messages) in cases {
        let error = merge(parts).unwrap_err();
        for message in *messages {
            assert!(error.contains(message), "{parts:?}\nlacks {message}\n{error}");
        }
    }
    let not_text = merge_user_data(&[(PathBuf::from("x"), vec![0x1f, 0x8b])]).unwrap_err();
    assert!(not_text.to_string().contains("not UTF-8"));
}

#[test]
fn merge_keys_and_anchors() {
    let parts = [
        "#cloud-config\nbase: &b {x: 0644, y: [1]}\nuse: {<<: *b, x: 1}\nlist: [{<<: [{a: 1, c: 3}, {a: 2, b: yes}]}]\n",
        "#cloud-config\nuse: {y: [2], <<: {z: on}}\nyes: 1\n\"yes\": 2\n",
    ];
    let merged = merge(&parts).unwrap();
    assert!(!merged.contains("<<") && !merged.contains('&'), "{merged}");
    let case = (parts.map(String::from).to_vec(), merged);
    if let Some(result) = pyyaml_agrees(&[case]) {
        result.unwrap();
    }
}

/// Ways to write a scalar; `\n` is followed by the indentation of where it stands.
const SCALARS: &[&str] = &[
    "0644",
    "\"0644\"",
    "'0644'",
    "0o644",
    "0x1F",
    "0b101",
    "1_000",
    "+12",
    "-0",
    "1e3",
    "1.5e+3",
    ".5",
    "1.",
    "-.inf",
    ".NaN",
    "190:20:30",
    "190:20:30.15",
    "yes",
    "\"yes\"",
    "No",
    "on",
    "OFF",
    "y",
    "n",
    "true",
    "'true'",
    "~",
    "null",
    "NULL",
    "",
    "''",
    "\"\"",
    "2001-12-14",
    "2001-12-14t21:59:43.10-05:00",
    "2001-12-14 21:59:43.10 -5",
    "\"2001-12-14\"",
    "12:30:45",
    "plain",
    "two words",
    "a#b",
    "a:b",
    "http://x/y?z=1#f",
    "-a",
    "?x",
    ":x",
    "--- a",
    "a, b",
    "a]",
    "x{a}'y\"z",
    "'it''s'",
    "'  lead'",
    "\"tab\\there\"",
    "\"nl\\nx\"",
    "\"\\L\\P\\N\\e\\0\\x7f\"",
    "\"\\U0001F600\"",
    "é",
    "日本",
    "\"a\\\"b\\\\c\"",
    "'a\"b\\c'",
    "'# x'",
    "\"- x\"",
    "'%x'",
    "\"@x\"",
    "'!x'",
    "'&x'",
    "'*x'",
    "'|'",
    "'>'",
    "'a: b'",
    "\"a: b\"",
    "'x:'",
    "'x #y'",
    "!!str 0644",
    "!!str yes",
    "!!str",
    "!!int \"12\"",
    "!!float 3",
    "!!binary aGk=",
    "! 12",
    "\"\\u00a0\"",
    "\"\\uFEFF\"",
    "'trail '",
    "\"\\r\\n\"",
    "plain one\n  two\n\n  three",
    "'single one\n  two\n\n  three'",
    "\"double one \\\n  two\n\n  three\\n\"",
    "|\n  a\n  b\n",
    "|-\n  a\n    b",
    "|+\n  a\n\n\n",
    "|2\n    lead\n  x\n",
    "|\n  # no comment\n  key: value\n",
    ">\n  folded\n  text\n\n  para\n",
    ">-\n  folded\n    more\n  less",
    ">+\n  a\n\n",
    "|\n  tab\there\n",
    "|\n\n  first empty\n",
    "|\n  #!/bin/sh\n  set -eu\n  echo \"$x\"\n",
    ">\n\n  a\n\n    b\n\n\n  c\n",
    "|\n  \ttab first\n",
    "|\n  a\n   \n  b\n",
    "\"long {long}\"",
];

#[derive(Debug, Clone)]
enum Tree {
    Scalar(usize),
    List(Vec<Tree>),
    Map(Vec<(usize, Tree)>),
}

/// Keys as they are written; all different to a YAML 1.1 reader.
const KEYS: &[&str] =
    &["a", "b", "\"c\"", "'d e'", "yes", "\"no\"", "12", "0644", "\"é\"", "packages", "long_key", "\"a: b\"", "~"];

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = (0..SCALARS.len()).prop_map(Tree::Scalar);
    leaf.prop_recursive(3, 24, 5, |inner| {
        let key = 0..KEYS.len();
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::List),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|map| Tree::Map(map.into_iter().collect())),
        ]
    })
}

fn write(tree: &Tree, indent: usize, out: &mut String) {
    match tree {
        Tree::Scalar(index) => {
            let text = SCALARS[*index].replace("{long}", &"word ".repeat(400));
            let indented = text.replace('\n', &format!("\n{}", " ".repeat(indent)));
            out.push_str(&format!(" {}\n", indented.trim_end_matches(' ')));
        }
        Tree::List(items) if items.is_empty() => out.push_str(" []\n"),
        Tree::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Tree::List(items) => {
            out.push('\n');
            for item in items {
                out.push_str(&format!("{}-", " ".repeat(indent)));
                write(item, indent + 2, out);
            }
        }
        Tree::Map(entries) => {
            out.push('\n');
            for (key, value) in entries {
                out.push_str(&format!("{}{}:", " ".repeat(indent), KEYS[*key]));
                write(value, indent + 2, out);
            }
        }
    }
}

/// A document with random values under random keys, and with the lists that have rules of their own.
fn document() -> impl Strategy<Value = String> {
    let words = || prop::collection::vec(0..6_usize, 0..5);
    let users = prop::collection::vec((0..3_usize, any::<bool>(), 0..SCALARS.len()), 0..4);
    let files = prop::collection::vec((0..3_usize, 0..4_usize, 0..SCALARS.len()), 0..5);
    let entries = prop::collection::btree_map(0..KEYS.len(), tree(), 0..5);
    (entries, words(), users, files, words()).prop_map(|(entries, packages, users, files, commands)| {
        const WORDS: [&str; 6] = ["vim", "\"vim\"", "[x, 1.0]", "[x, '1.0']", "yes", "{snap: [y]}"];
        const APPEND: [&str; 4] = ["", "append: true", "append: no", "append: \"false\""];
        let mut text = String::from("#cloud-config\n");
        for (key, value) in entries {
            if KEYS[key] != "packages" {
                text.push_str(&format!("{}:", KEYS[key]));
                write(&value, 2, &mut text);
            }
        }
        let list = |name: &str, items: Vec<String>| format!("{name}: [{}]\n", items.join(", "));
        let word = |indices: Vec<usize>| indices.iter().map(|index| WORDS[*index].to_owned()).collect();
        text.push_str(&list("packages", word(packages)));
        text.push_str(&list("runcmd", word(commands)));
        text.push_str("users:\n  - default\n");
        for (name, bare, value) in users {
            if bare {
                text.push_str(&format!("  - u{name}\n"));
            } else {
                text.push_str(&format!("  - name: u{name}\n    groups: [g{value}]\n    k{}:", value % 3));
                write(&Tree::Scalar(value), 6, &mut text);
            }
        }
        text.push_str("write_files:\n  - {path: /always}\n");
        for (path, append, value) in files {
            text.push_str(&format!("  - path: /f{path}\n    content:"));
            write(&Tree::Scalar(value), 6, &mut text);
            if !APPEND[append].is_empty() {
                text.push_str(&format!("    {}\n", APPEND[append]));
            }
        }
        text
    })
}

#[test]
fn every_scalar_means_the_same_to_pyyaml() {
    let second = "#cloud-config\nother: 1\n";
    let mut cases = Vec::new();
    for index in 0..SCALARS.len() {
        let mut text = String::from("#cloud-config\nin_map:");
        write(&Tree::Scalar(index), 2, &mut text);
        text.push_str("in_list:\n  -");
        write(&Tree::Scalar(index), 4, &mut text);
        text.push_str("  - last\ndeep:\n  - - k:");
        write(&Tree::Scalar(index), 8, &mut text);
        text.push_str("end: 1\n");
        let merged = merge(&[&text, second]).unwrap_or_else(|error| panic!("{text}\n{error}"));
        cases.push((vec![text, second.to_owned()], merged));
    }
    if let Some(result) = pyyaml_agrees(&cases) {
        result.unwrap();
    }
}

#[test]
fn random_documents_mean_the_same_to_pyyaml() {
    let mut runner = TestRunner::deterministic();
    let strategy = prop::collection::vec(document(), 2..4);
    let mut cases = Vec::new();
    for _ in 0..300 {
        let parts = strategy.new_tree(&mut runner).unwrap().current();
        let texts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let merged = merge(&texts).unwrap_or_else(|error| panic!("{}\n{error}", parts.join("\n")));
        // What comes out is itself a document; merged with an empty one it stays as it is.
        assert_eq!(merge(&[&merged, "#cloud-config\n"]).as_ref(), Ok(&merged));
        cases.push((parts, merged));
    }
    if let Some(result) = pyyaml_agrees(&cases) {
        result.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_panics(first in ".{0,200}", second in "[a-z0-9:{}\\[\\]<&*!|>'\"#%@ \t\n-]{0,200}") {
        let _ = merge(&[&format!("#cloud-config\n{first}"), &format!("#cloud-config\n{second}")]);
        let _ = merge(&[&first, &second]);
        let _ = merge(&[&second]);
    }
}
