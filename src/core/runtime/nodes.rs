//! What the runtime half asks of the inventory.
//!
//! Enters: a pod as its task would make it again (`placement.node_name` is never taken for a demand), an image. Leaves:
//! proofs, or none. No answer is ever a guess: what is not known is not proven.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::image::{ImageName, ImageReference};
use super::super::pod::PodFacts;
use super::super::policy::Policy;

pub trait Nodes {
    /// Whether the image is proven absent from every node that the pod could be scheduled to, by every policy. `refused`
    /// are nodes whose kubelets have said so to pods with the same secrets just now. False where there is no candidate.
    fn absent_everywhere(
        &self,
        pod: &PodFacts,
        image: &ImageName,
        policies: &[&Policy],
        refused: &BTreeSet<String>,
        now: Timestamp,
    ) -> bool;

    /// Whether every node that the pod could be scheduled to is one of these.
    fn are_all_candidates(&self, pod: &PodFacts, policies: &[&Policy], nodes: &BTreeSet<String>, now: Timestamp) -> bool;

    /// Whether every node that the pod could be scheduled to has the same known `kubernetes.io/os` and `/arch` as this one.
    fn share_platform(&self, pod: &PodFacts, policies: &[&Policy], node: &str, now: Timestamp) -> bool;

    /// Since when at the latest the node lists the image; `None`: it does not.
    fn listed_since(&self, node: &str, image: &ImageReference) -> Option<Timestamp>;

    /// Whether a node lists the image since after a time: of those that the pod could be scheduled to, or of all where
    /// there is no pod to ask for.
    fn arrived(
        &self,
        pod: Option<&PodFacts>,
        image: &ImageReference,
        policies: &[&Policy],
        after: Timestamp,
        now: Timestamp,
    ) -> bool;
}
