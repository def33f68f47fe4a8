//! Fuzz target: see `exercise/layer_table.rs`.

#![no_main]

#[allow(dead_code, reason = "each program uses its own part")]
#[path = "../exercise/layer_table.rs"]
mod exercise;

thread_local! {
    static EXERCISE: exercise::Exercise = exercise::Exercise::new();
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| EXERCISE.with(|it| it.layer_table(input)));
