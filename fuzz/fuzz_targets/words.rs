//! What a kubelet says: any words have a class, and what nobody has taught us is not permanent.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pullguard_fuzz::words::holds(input));
