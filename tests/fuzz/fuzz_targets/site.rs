//! Fuzz target: site files.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| aule_serve::hostile::site_file(input));
