//! Which nodes have which labels.
//!
//! Enters: labels of nodes, one by one. Leaves: the nodes that satisfy a requirement, without looking at any node.

use std::collections::HashMap;
use std::sync::Arc;

use super::bits::{Bits, NodeSet};
use crate::core::selector::{Operator, Requirement, Selector};

#[derive(Clone, Debug, Default)]
struct Key {
    nodes: NodeSet,
    values: HashMap<Arc<str>, NodeSet>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct LabelIndex {
    keys: HashMap<Arc<str>, Key>,
}

/// A label as a node's record keeps it: the texts are shared with the index.
pub(super) type Label = (Arc<str>, Arc<str>);

impl LabelIndex {
    pub fn add(&mut self, key: &str, value: &str, slot: u32) -> Label {
        let shared_key = match self.keys.get_key_value(key) {
            Some((shared, _)) => Arc::clone(shared),
            None => key.into(),
        };
        let of_key = self.keys.entry(Arc::clone(&shared_key)).or_default();
        let shared_value = match of_key.values.get_key_value(value) {
            Some((shared, _)) => Arc::clone(shared),
            None => value.into(),
        };
        of_key.nodes.insert(slot);
        of_key.values.entry(Arc::clone(&shared_value)).or_default().insert(slot);
        (shared_key, shared_value)
    }

    pub fn remove(&mut self, (key, value): &Label, slot: u32) {
        let Some(of_key) = self.keys.get_mut(key) else { return };
        if let Some(nodes) = of_key.values.get_mut(value) {
            nodes.remove(slot);
            if nodes.is_empty() {
                of_key.values.remove(value);
            }
        }
        of_key.nodes.remove(slot);
        if of_key.nodes.is_empty() {
            self.keys.remove(key);
        }
    }

    /// The nodes with exactly this label.
    pub fn with(&self, key: &str, value: &str) -> Option<&NodeSet> {
        self.keys.get(key)?.values.get(value)
    }

    /// The nodes that have the key at all.
    pub fn with_key(&self, key: &str) -> Option<&NodeSet> {
        self.keys.get(key).map(|of_key| &of_key.nodes)
    }

    /// Keeps of the nodes those that satisfy the requirement.
    pub fn keep(&self, requirement: &Requirement, nodes: &mut Bits) {
        let of_key = self.keys.get(requirement.key.as_str());
        match &requirement.operator {
            Operator::In(values) => {
                let mut sets = values.iter().filter_map(|value| of_key?.values.get(value.as_str()));
                match (sets.next(), sets.next()) {
                    (None, _) => nodes.clear(),
                    (Some(only), None) => only.keep_in(nodes),
                    (Some(first), Some(second)) => {
                        let mut union = first.to_bits();
                        second.add_to(&mut union);
                        sets.for_each(|set| set.add_to(&mut union));
                        nodes.and(&union);
                    }
                }
            }
            Operator::NotIn(values) => {
                values
                    .iter()
                    .filter_map(|value| of_key?.values.get(value.as_str()))
                    .for_each(|set| set.take_from(nodes));
            }
            Operator::Exists => match of_key {
                Some(of_key) => of_key.nodes.keep_in(nodes),
                None => nodes.clear(),
            },
            Operator::DoesNotExist => {
                if let Some(of_key) = of_key {
                    of_key.nodes.take_from(nodes);
                }
            }
            // The values are few where they are numbers that somebody compares (cores, generations).
            Operator::Gt(_) | Operator::Lt(_) => {
                let mut union = Bits::default();
                for (value, set) in of_key.iter().flat_map(|of_key| &of_key.values) {
                    if requirement.accepts(Some(value)) {
                        set.add_to(&mut union);
                    }
                }
                nodes.and(&union);
            }
        }
    }

    pub fn select(&self, selector: &Selector, nodes: &mut Bits) {
        for requirement in selector.requirements() {
            self.keep(requirement, nodes);
        }
    }
}
