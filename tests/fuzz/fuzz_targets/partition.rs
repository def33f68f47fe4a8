//! Fuzz target: see `exercise/image.rs`, `partition`.

#![no_main]

#[allow(dead_code, reason = "each target uses its own part")]
#[path = "../exercise/image.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|input: &[u8]| exercise::partition(input));
