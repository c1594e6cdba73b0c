//! What the runtime half asks of the inventory.
//!
//! Enters: where the pods of a task can go, an image. Leaves: proofs, or none. No answer is ever a guess: what is not known
//! is not proven.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::eligibility::{Candidates, NodeView, Route};
use super::super::image::{ImageName, ImageReference};
use super::super::inventory::{Access, Inventory, bits::Bits};
use super::super::pod::{Placement, PodFacts};
use super::super::policy::Policy;
use super::super::presence::{self, Judgement};

/// Where the pods of a task can go.
#[derive(Clone, Copy, Debug)]
pub enum Reach<'a> {
    /// Wherever another pod like this one could be scheduled. The node that it is on is the scheduler's choice, never a
    /// demand of the pod: which of the two a `nodeName` is cannot be told, and the wider reading acts less.
    Like(&'a PodFacts),
    /// The pod is the whole task: it stays on its node.
    Itself { pod: &'a PodFacts, node: &'a str },
}

pub trait Nodes {
    /// Whether the image is proven absent from every node within reach, by each of the policies. Kubelets' own words
    /// count, if the shell has told them to the inventory. False where there is no node.
    fn absent_everywhere(&self, reach: Reach<'_>, image: &ImageName, policies: &[&Policy], now: Timestamp) -> bool;

    /// Whether there is a node within reach, and all of them are among these.
    fn are_all(&self, reach: Reach<'_>, nodes: &BTreeSet<String>, now: Timestamp) -> bool;

    /// Whether every node within reach is known to have the `kubernetes.io/os` and `/arch` of this one.
    fn share_platform(&self, reach: Reach<'_>, node: &str, now: Timestamp) -> bool;

    /// Since when at the latest the node lists the image; `None`: it does not.
    fn listed_since(&self, node: &str, image: &ImageReference) -> Option<Timestamp>;

    /// Whether the node listed the image until a short while ago, and does not any more.
    fn has_lost(&self, node: &str, image: &ImageReference, now: Timestamp) -> bool;

    /// Whether a node within reach lists the image since after a time; any node where the reach is not known.
    fn arrived(&self, reach: Option<Reach<'_>>, image: &ImageReference, after: Timestamp, now: Timestamp) -> bool;
}

const PLATFORM_LABELS: [&str; 2] = ["kubernetes.io/os", "kubernetes.io/arch"];

/// The placement without the node that the scheduler chose.
fn unbound(pod: &PodFacts) -> Placement {
    Placement { node_name: None, ..pod.placement.clone() }
}

fn within(inventory: &Inventory, reach: Reach<'_>, now: Timestamp) -> Bits {
    match reach {
        Reach::Like(pod) => Candidates::of(Route::Placed(&unbound(pod)), inventory, now).eligible,
        Reach::Itself { node, .. } => inventory.slot(node).into_iter().collect(),
    }
}

impl Nodes for Inventory {
    fn absent_everywhere(&self, reach: Reach<'_>, image: &ImageName, policies: &[&Policy], now: Timestamp) -> bool {
        let placement;
        let (route, access) = match reach {
            Reach::Like(pod) => {
                placement = unbound(pod);
                (Route::Placed(&placement), Access::of(pod))
            }
            Reach::Itself { pod, node } => (Route::Bound(node), Access::of(pod)),
        };
        !policies.is_empty()
            && policies.iter().all(|policy| {
                matches!(presence::judge(self, route, &[image], policy, &access, now), Judgement::Absent(_))
            })
    }

    fn are_all(&self, reach: Reach<'_>, nodes: &BTreeSet<String>, now: Timestamp) -> bool {
        let within = within(self, reach, now);
        let named: Bits = nodes.iter().filter_map(|node| self.slot(node)).collect();
        self.is_synced() && !within.is_empty() && within.is_subset(&named)
    }

    fn share_platform(&self, reach: Reach<'_>, node: &str, now: Timestamp) -> bool {
        let within = within(self, reach, now);
        let Some(slot) = self.slot(node) else { return false };
        let shared = |key: &&str| {
            let value = self.view(slot).and_then(|node| node.label(key));
            let same = value.and_then(|value| self.with_label(key, value));
            same.is_some_and(|nodes| within.is_subset(&nodes.to_bits()))
        };
        self.is_synced() && !within.is_empty() && PLATFORM_LABELS.iter().all(shared)
    }

    fn listed_since(&self, node: &str, image: &ImageReference) -> Option<Timestamp> {
        self.first_listed(node, image.lookup())
    }

    fn has_lost(&self, node: &str, image: &ImageReference, now: Timestamp) -> bool {
        Inventory::has_lost(self, node, image.lookup(), now)
    }

    fn arrived(&self, reach: Option<Reach<'_>>, image: &ImageReference, after: Timestamp, now: Timestamp) -> bool {
        let Some(listing) = self.listing(image.lookup()) else { return false };
        let mut nodes = listing.to_bits();
        if let Some(reach) = reach {
            nodes.and(&within(self, reach, now));
        }
        let since = |slot| self.first_listed(self.view(slot)?.name(), image.lookup());
        nodes.iter().any(|slot| since(slot).is_some_and(|at| at > after))
    }
}
