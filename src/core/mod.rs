//! The decisions of Pullguard, pure and total.
//!
//! Enters: facts about pods, nodes, namespaces and policies, as our own small types, and the time as an argument.
//! Leaves: verdicts, plans and effects, as values. It must not know a client, a socket, a clock, a log, or the types of
//! the Kubernetes API: what comes from there is translated in `crate::k8s`.

pub mod answer;
mod blocs;
pub mod cause;
pub mod decide;
pub mod eligibility;
pub mod explanation;
pub mod image;
pub mod inventory;
mod message;
pub mod namespace;
mod nearest;
pub mod node;
mod outcome;
pub mod pod;
pub mod policies;
pub mod policy;
pub mod presence;
pub mod reason;
pub mod refusal;
pub mod rescue;
pub mod runtime;
pub mod selector;
mod sight;
pub mod verdict;
mod want;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod laws;
