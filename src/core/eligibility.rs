//! Where a pod could run.
//!
//! Enters: a pod's placement, and nodes. Leaves: the candidates, and those of them that are only passing through a bad
//! time. It must not know images or policies. Resources and pod affinity are not considered, nor anything preferred.
//!
//! The rule is written twice: [`could_run`] for one node, as the documentation of Kubernetes puts it, and
//! [`Candidates::of`] for all nodes at once by the inventory's sets. The property tests compare them.

use jiff::Timestamp;

use super::inventory::bits::Bits;
use super::inventory::{Inventory, InventorySettings};
use super::node::{NodeFacts, Readiness, Taint, TaintEffect};
use super::pod::{NodeTerm, Placement};
use super::selector::{Operator, Requirement};

pub const OS_LABEL: &str = "kubernetes.io/os";
const CORDON: &str = "node.kubernetes.io/unschedulable";

/// Why a pod cannot run on a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Exclusion {
    /// It names another node.
    OtherNode,
    /// A label that its node selector asks for.
    NodeSelector {
        key: String,
        value: String,
    },
    NodeAffinity,
    /// `spec.os` is not the node's.
    Os,
    Taint(Taint),
}

/// A state of a node that will pass: the pod could run there later, and meanwhile the node's list proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Obstacle {
    NotReady,
    ReadinessUnknown,
    Cordoned,
    Young,
    Taint(Taint),
}

/// What of a node decides whether a pod can run there.
pub trait NodeView {
    fn name(&self) -> &str;
    fn label(&self, key: &str) -> Option<&str>;
    fn taints(&self) -> &[Taint];
    fn unschedulable(&self) -> bool;
    fn readiness(&self) -> Readiness;
    fn created(&self) -> Timestamp;
}

impl NodeView for NodeFacts {
    fn name(&self) -> &str {
        &self.name
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    fn taints(&self) -> &[Taint] {
        &self.taints
    }

    fn unschedulable(&self) -> bool {
        self.unschedulable
    }

    fn readiness(&self) -> Readiness {
        self.readiness
    }

    fn created(&self) -> Timestamp {
        self.created
    }
}

/// Whether a pod could run on one node, and what stands in its way for the time being.
///
/// # Errors
/// The first thing that excludes the node.
pub fn could_run(
    placement: &Placement,
    node: &impl NodeView,
    settings: &InventorySettings,
    now: Timestamp,
) -> Result<Option<Obstacle>, Exclusion> {
    if placement.node_name.as_deref().is_some_and(|name| name != node.name()) {
        return Err(Exclusion::OtherNode);
    }
    if let Some((key, value)) = placement.node_selector.iter().find(|(key, value)| node.label(key) != Some(value)) {
        return Err(Exclusion::NodeSelector { key: key.clone(), value: value.clone() });
    }
    if let Some(terms) = &placement.required_affinity
        && !terms.iter().any(|term| term_matches(term, node))
    {
        return Err(Exclusion::NodeAffinity);
    }
    if let Some(os) = &placement.os
        && node.label(OS_LABEL).is_some_and(|label| label != os)
    {
        return Err(Exclusion::Os);
    }
    let mut transient = None;
    for taint in node.taints().iter().filter(|taint| !is_tolerated(placement, taint)) {
        if settings.is_transient(taint) {
            transient = transient.or_else(|| Some(Obstacle::Taint(taint.clone())));
        } else if repels(placement, taint) {
            return Err(Exclusion::Taint(taint.clone()));
        }
    }
    let cordoned = node.unschedulable() && cordon_hinders(placement);
    Ok(unwell(node, settings, now).or(cordoned.then_some(Obstacle::Cordoned)).or(transient))
}

/// The state of a node that makes its list unreliable, whatever a pod tolerates: a kubelet that is not well may have a
/// frozen list, and one that has just started an unfinished one.
pub fn unwell(node: &impl NodeView, settings: &InventorySettings, now: Timestamp) -> Option<Obstacle> {
    match node.readiness() {
        Readiness::NotReady => Some(Obstacle::NotReady),
        Readiness::Unknown => Some(Obstacle::ReadinessUnknown),
        Readiness::Ready => (node.created() > settings.young_after(now)).then_some(Obstacle::Young),
    }
}

/// A term without any requirement matches no node.
fn term_matches(term: &NodeTerm, node: &impl NodeView) -> bool {
    let NodeTerm { expressions, fields } = term;
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|requirement| requirement.accepts(node.label(&requirement.key)))
        && fields.iter().all(|requirement| requirement.accepts(field(requirement, node.name())))
}

fn field<'a>(requirement: &Requirement, name: &'a str) -> Option<&'a str> {
    (requirement.key == "metadata.name").then_some(name)
}

/// Whether a taint is none to the pod: tolerated, or of a kind that only the scheduler heeds, which a `nodeName` bypasses.
/// The kubelet itself knows `NoExecute` alone.
fn is_tolerated(placement: &Placement, taint: &Taint) -> bool {
    let unheeded = placement.node_name.is_some()
        && match taint.effect {
            TaintEffect::NoSchedule | TaintEffect::PreferNoSchedule => true,
            TaintEffect::NoExecute => false,
        };
    unheeded || placement.tolerations.iter().any(|toleration| toleration.tolerates(taint))
}

/// Whether a taint, not of a transient kind, keeps the pod away for good.
fn repels(placement: &Placement, taint: &Taint) -> bool {
    taint.effect.excludes() && !placement.tolerations_to_come && !is_tolerated(placement, taint)
}

/// The scheduler lets a pod onto a cordoned node if it tolerates the taint that a cordon sets.
fn cordon_hinders(placement: &Placement) -> bool {
    let taint = Taint { key: CORDON.to_owned(), value: String::new(), effect: TaintEffect::NoSchedule };
    !is_tolerated(placement, &taint)
}

/// How a pod comes to its node.
#[derive(Clone, Copy, Debug)]
pub enum Route<'a> {
    /// It is yet to be scheduled, or to be taken in by the kubelet that it names.
    Placed(&'a Placement),
    /// It runs there: its own node is the only candidate, whatever its labels, taints and cordon are now.
    Bound(&'a str),
}

impl Route<'_> {
    /// Whether the pod could run on a node, and what stands in its way for the time being.
    ///
    /// # Errors
    /// What excludes the node.
    pub fn to(
        self,
        node: &impl NodeView,
        settings: &InventorySettings,
        now: Timestamp,
    ) -> Result<Option<Obstacle>, Exclusion> {
        match self {
            Self::Placed(placement) => could_run(placement, node, settings, now),
            Self::Bound(own) if own == node.name() => Ok(unwell(node, settings, now)),
            Self::Bound(_) => Err(Exclusion::OtherNode),
        }
    }
}

/// The nodes that a pod could run on.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Candidates {
    pub eligible: Bits,
    /// Nodes with a temporary obstacle to this pod; also some that are not eligible.
    pub obstructed: Bits,
    /// Not eligible for their taints alone.
    pub repelling: Bits,
}

impl Candidates {
    pub fn of(route: Route<'_>, inventory: &Inventory, now: Timestamp) -> Self {
        match route {
            Route::Placed(placement) => Self::placed(placement, inventory, now),
            Route::Bound(node) => {
                let eligible = inventory.slot(node).into_iter().collect();
                Self { eligible, obstructed: unreliable(inventory, now), repelling: Bits::default() }
            }
        }
    }

    fn placed(placement: &Placement, inventory: &Inventory, now: Timestamp) -> Self {
        let mut eligible = match &placement.node_name {
            Some(name) => inventory.slot(name).into_iter().collect(),
            None => inventory.live().clone(),
        };
        for (key, value) in &placement.node_selector {
            match inventory.with_label(key, value) {
                Some(nodes) => nodes.keep_in(&mut eligible),
                None => eligible.clear(),
            }
        }
        if let Some(terms) = &placement.required_affinity {
            let mut any = Bits::default();
            for term in terms {
                any.or(&of_term(term, &eligible, inventory));
            }
            eligible = any;
        }
        if let Some(os) = &placement.os
            && let Some(labelled) = inventory.with_label_key(OS_LABEL)
        {
            let mut others = labelled.to_bits();
            if let Some(same) = inventory.with_label(OS_LABEL, os) {
                same.take_from(&mut others);
            }
            eligible.and_not(&others);
        }
        let mut obstructed = unreliable(inventory, now);
        if cordon_hinders(placement) {
            inventory.facets().cordoned.add_to(&mut obstructed);
        }
        let taints = &inventory.facets().taints;
        let mut tolerates_some = placement.tolerations_to_come;
        for (taint, tainted) in taints.iter().filter(|(taint, tainted)| tainted.transient || taint.effect.excludes()) {
            let tolerated = is_tolerated(placement, taint);
            if tainted.transient && !tolerated {
                tainted.nodes.add_to(&mut obstructed);
            }
            tolerates_some |= tolerated && !tainted.transient;
        }
        let mut repelling = eligible.clone();
        if tolerates_some {
            let repelled = taints.iter().filter(|(taint, tainted)| !tainted.transient && repels(placement, taint));
            repelled.for_each(|(_, tainted)| tainted.nodes.take_from(&mut eligible));
        } else {
            eligible.and_not(&inventory.facets().sums().repelling);
        }
        repelling.and_not(&eligible);
        Self { eligible, obstructed, repelling }
    }
}

/// The nodes that are [`unwell`].
fn unreliable(inventory: &Inventory, now: Timestamp) -> Bits {
    let mut nodes = inventory.facets().sums().unready.clone();
    inventory.facets().add_created_after(inventory.settings().young_after(now), &mut nodes);
    nodes
}

fn of_term(term: &NodeTerm, among: &Bits, inventory: &Inventory) -> Bits {
    let NodeTerm { expressions, fields } = term;
    if expressions.is_empty() && fields.is_empty() {
        return Bits::default();
    }
    let mut nodes = among.clone();
    for requirement in expressions {
        inventory.keep(requirement, &mut nodes);
    }
    for requirement in fields {
        keep_field(requirement, &mut nodes, inventory);
    }
    nodes
}

fn keep_field(requirement: &Requirement, nodes: &mut Bits, inventory: &Inventory) {
    let by_name = requirement.key == "metadata.name";
    match &requirement.operator {
        Operator::In(names) if by_name => {
            let named: Bits = names.iter().filter_map(|name| inventory.slot(name)).collect();
            nodes.and(&named);
        }
        Operator::NotIn(names) if by_name => {
            names.iter().filter_map(|name| inventory.slot(name)).for_each(|slot| nodes.remove(slot));
        }
        // The API server admits no others; they are judged node by node, for totality.
        Operator::In(_)
        | Operator::NotIn(_)
        | Operator::Exists
        | Operator::DoesNotExist
        | Operator::Gt(_)
        | Operator::Lt(_) => {
            let accepts = |slot: &u32| {
                inventory.view(*slot).is_some_and(|node| requirement.accepts(field(requirement, node.name())))
            };
            let kept: Bits = nodes.iter().filter(accepts).collect();
            *nodes = kept;
        }
    }
}
