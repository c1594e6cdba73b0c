//! Which image is on which node, and what else decides where a pod can go.
//!
//! Enters: nodes as they change ([`NodeFacts`]), and what kubelets say themselves. Leaves: sets of nodes for decisions,
//! answers about one node, and counts for a policy's status. It must not know policies' actions, nor keep a node's facts.
//!
//! Nodes are numbered ("slots", used again after a removal), and everything is kept the other way round: for each image
//! name, label, taint the set of its nodes. A decision is then a few operations on sets, whatever the number of nodes; an
//! update touches only what differs from the node's record. The sets depend on the nodes alone and not on the order in
//! which they came: the property tests hold it to that.

pub(in crate::core) mod bits;
pub(in crate::core) mod facets;
mod labels;
mod lost;
mod names;
mod presence_on;
mod recent;
mod roster;
mod survey;
mod words;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use self::bits::{Bits, NodeSet};
use self::facets::{Facets, Shape};
use self::labels::{Label, LabelIndex};
use self::lost::Lost;
use self::names::Names;
use self::recent::Recent;
use self::roster::Roster;
use self::words::Words;
use super::eligibility::NodeView;
use super::node::{NodeFacts, Readiness, Taint};
use super::selector::{Requirement, Selector};

pub use self::facets::MAX_NAMES;
pub use self::presence_on::{Absence, Doubt, Heard, Held, Lens, Presence};
pub use self::survey::{Contradiction, Survey};
pub use self::words::{Access, MAX_WORDS, WORD_HOLDS};

/// What makes a node's state one that will pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventorySettings {
    /// Until a node is so old, its list may not have been filled.
    pub young_node: Duration,
    /// Taints whose key begins so come with starting up, trouble or going away.
    pub transient_taints: Vec<String>,
}

impl Default for InventorySettings {
    fn default() -> Self {
        let transient = [
            "node.kubernetes.io/",
            "node.cloudprovider.kubernetes.io/",
            "node.cilium.io/",
            "karpenter.sh/",
            "ToBeDeletedByClusterAutoscaler",
            "DeletionCandidateOfClusterAutoscaler",
        ];
        Self {
            young_node: Duration::from_secs(120),
            transient_taints: transient.into_iter().map(str::to_owned).collect(),
        }
    }
}

impl InventorySettings {
    pub fn is_transient(&self, taint: &Taint) -> bool {
        self.transient_taints.iter().any(|prefix| taint.key.starts_with(prefix.as_str()))
    }

    /// A node created after this is young. A span beyond all time makes every node young, not none.
    pub fn young_after(&self, now: Timestamp) -> Timestamp {
        SignedDuration::try_from(self.young_node)
            .ok()
            .and_then(|young| now.checked_sub(young).ok())
            .unwrap_or(Timestamp::MIN)
    }
}

/// All that is kept of one node: what the next update is compared with.
#[derive(Clone, Debug)]
struct Node {
    name: Arc<str>,
    /// When it was first seen.
    known: Timestamp,
    labels: Box<[Label]>,
    shape: Shape,
    /// Numbers of the names that it lists, sorted.
    names: Box<[u32]>,
}

/// What an update brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Canonical names that the node lists and did not list before.
    pub gained: Vec<Arc<str>>,
}

/// The index of all nodes. Reading needs no more than `&self`.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    settings: InventorySettings,
    synced: bool,
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    roster: Roster,
    live: Bits,
    names: Names,
    labels: LabelIndex,
    facets: Facets,
    words: Words,
    recent: Recent,
    lost: Lost,
}

impl Inventory {
    pub fn new(settings: InventorySettings) -> Self {
        Self { settings, ..Self::default() }
    }

    pub fn settings(&self) -> &InventorySettings {
        &self.settings
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.roster.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many different image names all nodes list.
    pub fn known_names(&self) -> usize {
        self.names.len()
    }

    /// Whether all nodes have been read once. Until then nothing is known, and no verdict is a denial for absence.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    pub fn set_synced(&mut self, synced: bool) {
        self.synced = synced;
    }

    pub fn contains(&self, node: &str) -> bool {
        self.roster.slot(node).is_some()
    }

    pub fn node_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.roster.names()
    }

    /// Takes in a node, new or changed. `now` dates what it newly lists.
    pub fn apply(&mut self, node: NodeFacts, now: Timestamp) -> News {
        let (slot, old) = match self.roster.slot(&node.name) {
            Some(slot) => (slot, self.nodes.get_mut(slot as usize).and_then(Option::take)),
            None => (self.new_slot(&node.name), None),
        };
        let shape = Shape::of(&node);
        // Deleted and created again between two looks: another machine, of which no kubelet has spoken.
        let other_machine = old.as_ref().is_some_and(|old| old.shape.created != shape.created);
        if other_machine {
            self.words.forget(slot);
            self.lost.forget(slot);
        }
        let names = self.intern_names(&node);
        let gained = self.exchange_names(slot, old.as_ref(), &names, other_machine, now);
        if old.as_ref().is_none_or(|old| old.shape != shape) {
            if let Some(old) = &old {
                self.facets.remove(slot, &old.shape);
            }
            let settings = &self.settings;
            self.facets.add(slot, &shape, |taint| settings.is_transient(taint));
        }
        let (name, known) = match &old {
            Some(old) => (Arc::clone(&old.name), if other_machine { now } else { old.known }),
            None => (node.name.as_str().into(), now),
        };
        let labels = self.exchange_labels(slot, old.map(|old| old.labels), &node);
        if let Some(place) = self.nodes.get_mut(slot as usize) {
            *place = Some(Node { name, known, labels, shape, names });
        }
        News { gained }
    }

    pub fn remove(&mut self, node: &str) {
        let Some(slot) = self.roster.remove(node) else { return };
        let Some(old) = self.nodes.get_mut(slot as usize).and_then(Option::take) else { return };
        self.exchange_names(slot, Some(&old), &[], false, old.known);
        self.facets.remove(slot, &old.shape);
        old.labels.iter().for_each(|label| self.labels.remove(label, slot));
        self.words.forget(slot);
        self.lost.forget(slot);
        self.live.remove(slot);
        self.free.push(slot);
    }

    fn new_slot(&mut self, name: &str) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
        });
        self.roster.insert(name.into(), slot);
        self.live.insert(slot);
        slot
    }

    fn intern_names(&mut self, node: &NodeFacts) -> Box<[u32]> {
        let written = node.images.iter().flatten();
        let mut numbers: Vec<u32> = written.filter_map(|name| self.names.intern(name)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_boxed_slice()
    }

    /// Puts the node into the sets of the names it newly lists, and out of those of the names it no longer lists.
    fn exchange_names(
        &mut self,
        slot: u32,
        old: Option<&Node>,
        new: &[u32],
        other_machine: bool,
        now: Timestamp,
    ) -> Vec<Arc<str>> {
        let before: &[u32] = old.map_or(&[], |old| &old.names);
        let mut gained = Vec::new();
        for number in new.iter().filter(|number| before.binary_search(number).is_err()) {
            self.names.add(*number, slot);
            // What a node lists when it is first seen is dated by that sight; anything else would fill the room.
            if old.is_some() && !other_machine {
                self.recent.added(slot, *number, now);
            }
            if let Some(text) = self.names.text(*number) {
                if !self.words.is_empty() {
                    self.words.listed(slot, text);
                }
                self.lost.found(slot, text);
                gained.push(Arc::clone(text));
            }
        }
        for number in before {
            let gone = new.binary_search(number).is_err();
            if gone || other_machine {
                self.recent.removed(slot, *number);
            }
            if gone {
                if !other_machine && let Some(text) = self.names.text(*number) {
                    self.lost.note(slot, text, now);
                }
                self.names.remove(*number, slot);
            }
        }
        gained
    }

    fn exchange_labels(&mut self, slot: u32, old: Option<Box<[Label]>>, node: &NodeFacts) -> Box<[Label]> {
        let old = old.unwrap_or_default();
        let same = |((old_key, old_value), (key, value)): (&Label, (&String, &String))| {
            **old_key == **key && **old_value == **value
        };
        if old.len() == node.labels.len() && old.iter().zip(&node.labels).all(same) {
            return old;
        }
        for label in &old {
            if node.labels.get(&*label.0).is_none_or(|value| **value != *label.1) {
                self.labels.remove(label, slot);
            }
        }
        node.labels.iter().map(|(key, value)| self.labels.add(key, value, slot)).collect()
    }

    /// Whether a node listed a name until a short while ago, and does not any more.
    pub fn has_lost(&self, node: &str, lookup: &str, now: Timestamp) -> bool {
        self.slot(node).is_some_and(|slot| self.lost.is_lost(slot, lookup, now))
    }

    fn node(&self, name: &str) -> Option<(u32, &Node)> {
        let slot = self.roster.slot(name)?;
        Some((slot, self.at(slot)?))
    }

    fn at(&self, slot: u32) -> Option<&Node> {
        self.nodes.get(slot as usize)?.as_ref()
    }
}

/// What decisions work with: sets of slots.
impl Inventory {
    pub(in crate::core) fn live(&self) -> &Bits {
        &self.live
    }

    pub(in crate::core) fn facets(&self) -> &Facets {
        &self.facets
    }

    pub(in crate::core) fn slot(&self, node: &str) -> Option<u32> {
        self.roster.slot(node)
    }

    pub(in crate::core) fn select(&self, selector: &Selector) -> Bits {
        let mut nodes = self.live.clone();
        self.labels.select(selector, &mut nodes);
        nodes
    }

    pub(in crate::core) fn keep(&self, requirement: &Requirement, nodes: &mut Bits) {
        self.labels.keep(requirement, nodes);
    }

    pub(in crate::core) fn with_label(&self, key: &str, value: &str) -> Option<&NodeSet> {
        self.labels.with(key, value)
    }

    pub(in crate::core) fn with_label_key(&self, key: &str) -> Option<&NodeSet> {
        self.labels.with_key(key)
    }

    pub(in crate::core) fn listing(&self, lookup: &str) -> Option<&NodeSet> {
        self.names.nodes(lookup)
    }

    pub(in crate::core) fn listing_short(&self, short_path: &str) -> impl Iterator<Item = (&Arc<str>, &NodeSet)> {
        self.names.of_short(short_path)
    }

    /// Names whose last segment begins with a text.
    pub(in crate::core) fn ending_with_segment(&self, start: &str) -> impl Iterator<Item = (&Arc<str>, &NodeSet)> {
        self.names.ending_with_segment(start)
    }

    pub(in crate::core) fn view(&self, slot: u32) -> Option<&impl NodeView> {
        self.at(slot)
    }

    pub(in crate::core) fn denying<'a>(
        &'a self,
        lookup: &str,
        access: &'a Access,
        now: Timestamp,
    ) -> impl Iterator<Item = u32> + 'a {
        self.words.denying(lookup, access, now)
    }

    /// The first nodes of a set by name, so that a text does not depend on the order in which the nodes came.
    pub(in crate::core) fn first_named(&self, nodes: &Bits, count: usize) -> Vec<(u32, &Arc<str>)> {
        self.roster.first(nodes, count)
    }
}

impl NodeView for Node {
    fn name(&self) -> &str {
        &self.name
    }

    fn label(&self, key: &str) -> Option<&str> {
        let index = self.labels.binary_search_by(|(candidate, _)| (**candidate).cmp(key)).ok()?;
        self.labels.get(index).map(|(_, value)| &**value)
    }

    fn taints(&self) -> &[Taint] {
        &self.shape.taints
    }

    fn unschedulable(&self) -> bool {
        self.shape.unschedulable
    }

    fn readiness(&self) -> Readiness {
        self.shape.readiness
    }

    fn created(&self) -> Timestamp {
        self.shape.created
    }
}
