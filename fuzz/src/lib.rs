//! What holds for any input, in one place for the two who prove it: libFuzzer (`make fuzz`) and, on every run of
//! `cargo test`, the seeds and their mutations (`tests/bad_input/`).
//!
//! Enters: bytes. Leaves: nothing, or a panic that says what does not hold.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a test may stop where it stands"
)]

pub mod ground;
pub mod policy;
pub mod reference;
pub mod review;
pub mod words;
