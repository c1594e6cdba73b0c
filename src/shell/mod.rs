//! The rooms with sockets, clients, time and randomness; `crate::app` has them too, for the commands and the wiring.
//!
//! Enters: the API server's watches and reviews. Leaves: answers, and the effects that the core planned. It must not
//! decide anything: what is to be said or done comes from `crate::core` as a value.

pub mod applier;
pub mod certificates;
pub mod controller;
pub mod door;
pub mod events;
pub mod lease;
pub mod metrics;
pub mod owners;
pub mod policy_status;
pub mod probes;
pub mod registration;
pub mod telling;
pub mod tls;
pub mod watches;
pub mod webhook;
pub mod world;
