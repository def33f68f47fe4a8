//! Fuzz target: DHCP packets and the answers to them.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = aule_serve::hostile::dhcp_packet(input);
});
