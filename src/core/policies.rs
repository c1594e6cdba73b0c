//! The policies in force.
//!
//! Enters: compiled policies, one generation at a time. Leaves: those that match a pod. A generation that cannot be
//! compiled never gets here, so the last one that could stays in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::namespace::{Match, NamespaceFacts};
use super::policy::{Policy, Rescue};
use super::selector::{Labels, Selector};

/// A policy with what decisions look up often.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: Arc<str>,
    pub policy: Arc<Policy>,
    /// Equal for policies with equal `nodes`: what is worked out for one of them holds for all.
    pub(in crate::core) nodes_class: usize,
}

/// All policies, by name. A clone is cheap and independent, so that readers can hold one.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    entries: BTreeMap<Arc<str>, Entry>,
    classes: usize,
}

impl Policies {
    /// Puts a generation in force.
    pub fn apply(&mut self, policy: impl Into<Arc<Policy>>) {
        let policy = policy.into();
        let name: Arc<str> = policy.name.as_str().into();
        self.entries.insert(Arc::clone(&name), Entry { name, policy, nodes_class: 0 });
        self.classify();
    }

    pub fn remove(&mut self, name: &str) {
        self.entries.remove(name);
        self.classify();
    }

    fn classify(&mut self) {
        let mut classes: BTreeMap<Selector, usize> = BTreeMap::new();
        for entry in self.entries.values_mut() {
            let next = classes.len();
            entry.nodes_class = *classes.entry(entry.policy.nodes.clone()).or_insert(next);
        }
        self.classes = classes.len();
    }

    /// How many different `nodes` there are.
    pub(in crate::core) fn nodes_classes(&self) -> usize {
        self.classes
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Policy>> {
        self.entries.get(name).map(|entry| &entry.policy)
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Those that match a pod with these labels, or may match it, in the order of their names. A system namespace has
    /// none.
    pub fn matching<'a>(
        &'a self,
        pod_labels: &'a Labels,
        namespace: &'a NamespaceFacts,
    ) -> impl Iterator<Item = (&'a Entry, Certainty)> {
        let exempt = namespace.is_system();
        self.entries.values().filter(move |_| !exempt).filter_map(move |entry| {
            if !entry.policy.pod_selector.matches(pod_labels) {
                return None;
            }
            match namespace.matches(&entry.policy.namespace_selector) {
                Match::Yes => Some((entry, Certainty::Certain)),
                Match::Unknown => Some((entry, Certainty::Possible)),
                Match::No => None,
            }
        })
    }

    /// Whether the mutating webhook has anything to do.
    pub fn ask_for_rescue(&self) -> bool {
        self.entries.values().any(|entry| entry.policy.rescue != Rescue::None)
    }
}

/// How sure it is that a policy matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Certainty {
    Certain,
    /// The namespace's labels could not be had, and the policy selects by them.
    Possible,
}
