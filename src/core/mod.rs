//! The decisions of Pullguard, pure and total.
//!
//! Enters: facts about pods, nodes, namespaces and policies, as our own small types, and the time as an argument.
//! Leaves: verdicts, plans and effects, as values. It must not know a client, a socket, a clock, a log, or the types of
//! the Kubernetes API: what comes from there is translated in `crate::k8s`.

pub mod cause;
pub mod image;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod policy;
pub mod reason;
pub mod selector;
