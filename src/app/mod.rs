//! The wiring: commands, settings, and what runs beside what.
//!
//! Enters: the command line and the environment. Leaves: a running program and its exit status. It must not judge: it
//! hands inputs to the rooms behind it and prints what they say.

pub mod check;
pub mod cli;
mod cluster;
mod manifests;
mod output;
