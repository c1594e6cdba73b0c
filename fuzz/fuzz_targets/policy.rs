//! The spec of a policy, as JSON or YAML: compiled as a whole or refused with a sentence.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pullguard_fuzz::policy::holds(input));
