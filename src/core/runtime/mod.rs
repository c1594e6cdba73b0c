//! The runtime half, pure: from what is seen of pods, owners and records to the effects that end a hopeless task.
//!
//! Enters: sights (small values that the shell translates from watches and reads), outcomes of effects, and the time.
//! Leaves: plans, that is effects with their own fences, and when to plan again. It must not know a client, a clock or
//! a log; `Ledger` is its only state, and an empty ledger never acts more than a full one.

pub mod effect;
pub mod ledger;
pub mod sight;
pub mod task;
