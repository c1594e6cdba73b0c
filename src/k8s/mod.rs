//! Pure translation between the Kubernetes API and the core's own types.
//!
//! Enters: objects and bytes as the API server sends them. Leaves: core facts on the way in; patches, conditions, Events
//! and reviews on the way out. It must not know a client, a socket or a clock.

pub mod answer;
mod bounded;
pub mod crd;
pub mod envelope;
pub mod event;
pub(crate) mod has_key;
pub mod json_patch;
pub mod node;
pub mod pod;
pub mod policy;
pub mod question;
pub mod record;
pub mod sight;
pub mod template;
pub mod watched;
