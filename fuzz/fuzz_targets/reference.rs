//! Image references and patterns: what is accepted is canonical, and nothing matches by prefix.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pullguard_fuzz::reference::holds(input));
