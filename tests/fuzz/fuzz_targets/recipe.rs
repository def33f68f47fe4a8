//! Fuzz target: see `exercise/recipe.rs`.

#![no_main]

#[allow(dead_code, reason = "each program uses its own part")]
#[path = "../exercise/recipe.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|input: &[u8]| exercise::recipe(input));
