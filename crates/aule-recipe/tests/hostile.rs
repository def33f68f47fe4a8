//! Whatever the bytes: no panic, no blow-up, and what loads can be printed, hashed and read back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../../../tests/fuzz/exercise/recipe.rs"]
#[allow(clippy::expect_used, unreachable_pub, reason = "a helper of tests is a test")]
mod exercise;

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;

fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = |directory: &str| {
        let entries = std::fs::read_dir(root.join(directory)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    let mut paths = files("recipes");
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.extend(files("tests/fuzz/regressions/recipe"));
    paths.sort();
    let mut seeds: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    seeds.push(
        b"name: a\nbase: &b {image: x}\noverlays: !replace [a, *b]\nfiles: {/a: {content: |\n}}\nvariants: {v: {date: 1}}\n".to_vec(),
    );
    seeds.push(b"name: a\nbase: {image: x}\ncloud_init: {user_data: [{a: &a [1, 'x', \"\\x07\"], b: *a}], meta_data: {n: {m: ~}}}\n".to_vec());
    seeds
}

#[test]
fn some_seeds_are_right_and_some_are_wrong() {
    let seeds = seeds();
    seeds.iter().for_each(|seed| exercise::recipe(seed));
    let right = seeds.iter().filter(|seed| exercise::loads(seed)).count();
    assert!(right >= 3 && right < seeds.len(), "{right} of {}", seeds.len());
}

/// One edit: where, how much goes, what comes.
fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, Vec<u8>)>> {
    let tokens = prop::sample::select(
        [
            ": ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            "\"",
            "'",
            "&a ",
            "*a",
            "!replace ",
            "!!str ",
            "|\n",
            ">-\n",
            "#",
            "\n",
            "\n  ",
            "\t",
            "~",
            "<<: ",
            "---\n",
            "0755",
            "true",
            "\\",
            "\u{85}",
            "\u{feff}",
            "é",
            "../",
            "/",
            "\0",
            "@",
            "%",
            ",",
        ]
        .map(|token| token.as_bytes().to_vec())
        .to_vec(),
    );
    let what = prop_oneof![3 => tokens, 1 => prop::collection::vec(any::<u8>(), 0..4)];
    prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, what), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_recipes(seed in any::<prop::sample::Index>(), edits in edits()) {
        let seeds = seeds();
        let mut bytes = seeds[seed.index(seeds.len())].clone();
        for (at, length, what) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, what);
        }
        exercise::recipe(&bytes);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        exercise::recipe(&bytes);
    }

    #[test]
    fn any_text(text in "[a-z{}\\[\\]:,&*!|>'\"#%@`~<?/\\\\ \t\n-]{0,300}") {
        exercise::recipe(text.as_bytes());
    }
}

#[test]
fn large_input_takes_bounded_time() {
    let head = "name: a\nbase: {image: x}\n";
    let long = "x".repeat(1 << 19);
    let cases = [
        format!("{head}overlays: [{}]\n", "a, ".repeat(40_000)),
        format!("{head}{}", (0..40_000).map(|n| format!("k{n}: 1\n")).collect::<String>()),
        format!("{{{}}}", (0..40_000).map(|n| format!("k{n}: 1, ")).collect::<String>()),
        format!(
            "{head}services: {{enable: [{}]}}\n",
            (0..40_000).map(|n| format!("s{n}.service, ")).collect::<String>()
        ),
        format!("{head}files: {{/a: {{content: {long}}}}}\n"),
        format!("{head}{long}: 1\n"),
        format!("{head}? {long}\n: 1\n"),
        format!("{head}files: {{{}}}\n", (0..15_000).map(|n| format!("/a{n}: {{content: x}}, ")).collect::<String>()),
        format!(
            "{head}overlays: &a [{}]\nvariants:\n{}",
            "a, ".repeat(30_000),
            (0..8).map(|n| format!("  v{n}: {{}}\n")).collect::<String>()
        ),
        "[".repeat(1 << 20),
        "{a: ".repeat(1 << 18),
        "- ".repeat(1 << 19),
        "? ".repeat(1 << 19),
        "&a ".repeat(1 << 18),
        "\"".repeat(1 << 20),
        "a: |\n".repeat(1 << 17),
        "!a ".repeat(1 << 18),
        "%TAG ! a\n".repeat(1 << 16),
        "#".repeat(1 << 20),
        format!("a: {}\n", "\\".repeat(1 << 19)),
        format!("a: \"{}\"\n", "\\n".repeat(1 << 18)),
    ];
    for text in cases {
        let start = Instant::now();
        exercise::recipe(text.as_bytes());
        // Takes well under a second; the bound is for machines that are busy with something else.
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{:?} for {:?}…",
            start.elapsed(),
            &text[..40.min(text.len())]
        );
    }
}
