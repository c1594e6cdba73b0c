//! The body of a review: whatever is posted, the answer is one that the API server can use.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pullguard_fuzz::review::holds(input));
