//! Fuzz target: see `exercise/nfs.rs`.

#![no_main]

#[allow(dead_code, reason = "each program uses its own part")]
#[path = "../exercise/nfs.rs"]
mod exercise;

thread_local! {
    static EXERCISE: exercise::Exercise = exercise::Exercise::new();
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| EXERCISE.with(|it| it.nfs(input)));
