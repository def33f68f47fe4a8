//! Fuzz target: TFTP packets, names and transfers.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| aule_serve::hostile::tftp_packet(input));
