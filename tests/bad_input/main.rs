//! Bad input, at the real door: what each bad caller gets, that the next one is served, and what it costs.
//!
//! | room | what is in it |
//! | --- | --- |
//! | `laws` | what `make fuzz` searches for counterexamples of, over the seeds and their mutations |
//! | `answers` | every kind of bad request over TLS: the answer, and the next request served |
//! | `crowds` | many slow, silent and half-sent connections at a time |
//! | `memory` | what the worst of it costs |

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a test may stop where it stands"
)]

mod answers;
mod crowds;
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;
mod laws;
mod memory;
mod stage;
