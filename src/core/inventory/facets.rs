//! The nodes by everything but labels and images: what makes them unfit for a pod, or their lists no proof.
//!
//! Enters: the facets of one node, whole, each time that one changes. Leaves: sets of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use jiff::Timestamp;

use super::bits::{Bits, NodeSet};
use crate::core::node::{NodeFacts, Readiness, Runtime, Taint};
use crate::core::policy::ImageLimit;

/// The most names that a kubelet tells of one image (`MaxNamesPerImageInNodeStatus`): with as many, others may be hidden.
pub const MAX_NAMES: usize = 5;

/// What of a node is in [`Facets`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub taints: Box<[Taint]>,
    pub unschedulable: bool,
    pub readiness: Readiness,
    pub created: Timestamp,
    pub runtime: Runtime,
    /// The length of the list of images.
    pub entries: u32,
    /// An entry has as many names as a kubelet tells.
    pub names_cut: bool,
}

impl Shape {
    pub fn of(node: &NodeFacts) -> Self {
        let mut taints = node.taints.clone();
        taints.sort_unstable();
        taints.dedup();
        Self {
            taints: taints.into_boxed_slice(),
            unschedulable: node.unschedulable,
            readiness: node.readiness,
            created: node.created,
            runtime: node.runtime,
            entries: u32::try_from(node.images.len()).unwrap_or(u32::MAX),
            names_cut: node.images.iter().any(|names| names.len() >= MAX_NAMES),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Tainted {
    /// Of a start-up or life-cycle kind.
    pub transient: bool,
    pub nodes: NodeSet,
}

#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Facets {
    pub cordoned: NodeSet,
    pub not_ready: NodeSet,
    pub readiness_unknown: NodeSet,
    /// Runtimes that resolve short names in their own way.
    pub not_containerd: NodeSet,
    pub names_cut: NodeSet,
    pub taints: BTreeMap<Taint, Tainted>,
    lists: BTreeMap<u32, NodeSet>,
    created: BTreeSet<(Timestamp, u32)>,
    sums: OnceLock<Sums>,
}

/// What nearly every decision asks of all nodes at once: added up by the first one after a change.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Sums {
    /// Not ready, or unknown to be.
    pub unready: Bits,
    /// With a taint that keeps pods away for good. Right for the pods, nearly all, that tolerate none of these.
    pub repelling: Bits,
}

impl Facets {
    pub(super) fn add(&mut self, slot: u32, shape: &Shape, is_transient: impl Fn(&Taint) -> bool) {
        self.sums.take();
        for taint in &shape.taints {
            if let Some(tainted) = self.taints.get_mut(taint) {
                tainted.nodes.insert(slot);
            } else {
                let mut tainted = Tainted { transient: is_transient(taint), nodes: NodeSet::default() };
                tainted.nodes.insert(slot);
                self.taints.insert(taint.clone(), tainted);
            }
        }
        for set in self.flags(shape) {
            set.insert(slot);
        }
        self.lists.entry(shape.entries).or_default().insert(slot);
        self.created.insert((shape.created, slot));
    }

    pub(super) fn remove(&mut self, slot: u32, shape: &Shape) {
        self.sums.take();
        for taint in &shape.taints {
            if let Some(tainted) = self.taints.get_mut(taint) {
                tainted.nodes.remove(slot);
                if tainted.nodes.is_empty() {
                    self.taints.remove(taint);
                }
            }
        }
        for set in self.flags(shape) {
            set.remove(slot);
        }
        if let Some(nodes) = self.lists.get_mut(&shape.entries) {
            nodes.remove(slot);
            if nodes.is_empty() {
                self.lists.remove(&shape.entries);
            }
        }
        self.created.remove(&(shape.created, slot));
    }

    /// The sets that a node of this shape is in.
    fn flags(&mut self, shape: &Shape) -> impl Iterator<Item = &mut NodeSet> {
        let readiness = match shape.readiness {
            Readiness::Ready => None,
            Readiness::NotReady => Some(&mut self.not_ready),
            Readiness::Unknown => Some(&mut self.readiness_unknown),
        };
        let runtime = match shape.runtime {
            Runtime::Containerd => None,
            Runtime::Docker | Runtime::Other => Some(&mut self.not_containerd),
        };
        let cordoned = shape.unschedulable.then_some(&mut self.cordoned);
        let names_cut = shape.names_cut.then_some(&mut self.names_cut);
        [readiness, runtime, cordoned, names_cut].into_iter().flatten()
    }

    pub fn sums(&self) -> &Sums {
        self.sums.get_or_init(|| {
            let mut sums = Sums::default();
            self.not_ready.add_to(&mut sums.unready);
            self.readiness_unknown.add_to(&mut sums.unready);
            let repelling = self.taints.iter().filter(|(taint, tainted)| !tainted.transient && taint.effect.excludes());
            repelling.for_each(|(_, tainted)| tainted.nodes.add_to(&mut sums.repelling));
            sums
        })
    }

    /// The nodes that list no image.
    pub fn list_empty(&self) -> Option<&NodeSet> {
        self.lists.get(&0)
    }

    /// The sets of nodes with lists as long as the limit, or longer.
    pub fn list_cut(&self, limit: ImageLimit) -> impl Iterator<Item = &NodeSet> {
        let from = match limit {
            ImageLimit::AtMost(limit) => Some(limit),
            ImageLimit::Unlimited => None,
        };
        from.into_iter().flat_map(|from| self.lists.range(from..)).map(|(_, nodes)| nodes)
    }

    /// Adds the nodes that were created after a time.
    pub fn add_created_after(&self, after: Timestamp, nodes: &mut Bits) {
        // The last slot at that very time: a node is no longer young when it is exactly as old as it must be.
        for (_, slot) in self.created.range((std::ops::Bound::Excluded((after, u32::MAX)), std::ops::Bound::Unbounded))
        {
            nodes.insert(*slot);
        }
    }
}
