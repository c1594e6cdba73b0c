//! The policies in force.
//!
//! Enters: compiled policies, one generation at a time. Leaves: those that match a pod. A generation that cannot be
//! compiled never gets here, so the last one that could stays in force.

mod patterns;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use super::namespace::{Match, NamespaceFacts};
use super::policy::{Action, Enforcement, ImageLimit, Policy, PresenceRules, Remedy, Rescue};
use super::selector::{Labels, Operator, Selector};

pub(in crate::core) use self::patterns::{PolicyPatterns, Said};

/// A policy with what decisions look up often.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: Arc<str>,
    pub policy: Arc<Policy>,
    /// Its number among all policies, by name.
    pub(in crate::core) place: u32,
    /// Equal for policies with equal `nodes`: what is worked out for one of them holds for all.
    pub(in crate::core) nodes_class: usize,
    /// Equal for policies that differ in nothing but whom they match and in their patterns: where these say the same of a
    /// pod's images, so does admission.
    pub(in crate::core) kind: usize,
}

/// What makes policies of one kind.
#[derive(PartialEq, Eq, Hash)]
struct Kind<'a> {
    nodes_class: usize,
    limit: ImageLimit,
    enforcement: Enforcement,
    presence: PresenceRules,
    templates: Action,
    remedies: &'a [Remedy],
}

impl<'a> Kind<'a> {
    fn of(policy: &'a Policy, nodes_class: usize) -> Self {
        Self {
            nodes_class,
            limit: policy.node_image_limit,
            enforcement: policy.enforcement,
            presence: policy.presence,
            templates: policy.templates,
            remedies: &policy.remedies,
        }
    }
}

/// All policies, by name. A clone is cheap and independent, so that readers can hold one.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    entries: BTreeMap<Arc<str>, Entry>,
    classes: usize,
    kinds: usize,
    by_namespace: ByNamespace,
    /// Of all policies; made by the first decision after a change.
    patterns: OnceLock<Arc<PolicyPatterns>>,
}

/// Which policies may match a namespace, without asking each: of a hundred nearly all are for one team, and demand a value
/// of one and the same label.
#[derive(Clone, Debug, Default)]
struct ByNamespace {
    /// In the order of their names.
    entries: Vec<Entry>,
    /// By label and value that the selector demands: places among the entries. Each is under one of its demands.
    demanding: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    /// The places of those that demand no value.
    others: Vec<usize>,
}

impl ByNamespace {
    fn new<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut index = Self { entries: entries.cloned().collect(), ..Self::default() };
        for (place, entry) in (0..).zip(&index.entries) {
            let demand =
                entry.policy.namespace_selector.requirements().iter().find_map(|requirement| {
                    match &requirement.operator {
                        Operator::In(values) => Some((&requirement.key, values)),
                        Operator::NotIn(_)
                        | Operator::Exists
                        | Operator::DoesNotExist
                        | Operator::Gt(_)
                        | Operator::Lt(_) => None,
                    }
                });
            match demand {
                Some((key, values)) => {
                    let of_key = index.demanding.entry(key.clone()).or_default();
                    values.iter().for_each(|value| of_key.entry(value.clone()).or_default().push(place));
                }
                None => index.others.push(place),
            }
        }
        index
    }

    /// All that can match, and some that do not, in the order of their names.
    fn candidates(&self, namespace: &NamespaceFacts) -> impl Iterator<Item = &Entry> {
        let places = match &namespace.labels {
            Some(labels) => {
                let mut places = self.others.clone();
                for (key, values) in &self.demanding {
                    places.extend(labels.get(key).and_then(|value| values.get(value)).into_iter().flatten());
                }
                places.sort_unstable();
                places
            }
            // Any may match, as far as is known.
            None => (0..self.entries.len()).collect(),
        };
        places.into_iter().filter_map(|place| self.entries.get(place))
    }
}

impl Policies {
    /// Puts a generation in force.
    pub fn apply(&mut self, policy: impl Into<Arc<Policy>>) {
        let policy = policy.into();
        let name: Arc<str> = policy.name.as_str().into();
        self.entries.insert(Arc::clone(&name), Entry { name, policy, place: 0, nodes_class: 0, kind: 0 });
        self.classify();
    }

    pub fn remove(&mut self, name: &str) {
        self.entries.remove(name);
        self.classify();
    }

    fn classify(&mut self) {
        let mut classes: BTreeMap<Selector, usize> = BTreeMap::new();
        let mut kinds: HashMap<Kind<'_>, usize> = HashMap::new();
        for (place, entry) in (0..).zip(self.entries.values_mut()) {
            let next = classes.len();
            entry.place = place;
            entry.nodes_class = *classes.entry(entry.policy.nodes.clone()).or_insert(next);
            let next = kinds.len();
            entry.kind = *kinds.entry(Kind::of(&entry.policy, entry.nodes_class)).or_insert(next);
        }
        (self.classes, self.kinds) = (classes.len(), kinds.len());
        self.by_namespace = ByNamespace::new(self.entries.values());
        self.patterns.take();
    }

    /// How many different kinds there are.
    pub(in crate::core) fn kinds(&self) -> usize {
        self.kinds
    }

    pub(in crate::core) fn patterns(&self) -> &PolicyPatterns {
        self.patterns.get_or_init(|| Arc::new(PolicyPatterns::new(self.entries.values())))
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
        self.by_namespace.candidates(namespace).filter(move |_| !exempt).filter_map(move |entry| {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::fixtures::policy;
    use crate::core::selector::Requirement;

    const KEYS: [&str; 3] = ["team", "stage", "kubernetes.io/metadata.name"];

    fn requirements() -> impl Strategy<Value = Vec<Requirement>> {
        let value = || prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned);
        let values = move || prop::collection::btree_set(value(), 0..3);
        let operator = prop_oneof![
            values().prop_map(Operator::In),
            values().prop_map(Operator::NotIn),
            Just(Operator::Exists),
            Just(Operator::DoesNotExist)
        ];
        let requirement = (prop::sample::select(KEYS.to_vec()), operator);
        let requirement = requirement.prop_map(|(key, operator)| Requirement { key: key.to_owned(), operator });
        prop::collection::vec(requirement, 0..3)
    }

    proptest! {
        #[test]
        fn the_index_finds_just_the_policies_that_each_would_say_match(
            selectors in prop::collection::vec(requirements(), 0..12),
            labels in prop::option::of(prop::collection::btree_map(
                prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned),
                prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned),
                0..3,
            )),
        ) {
            let mut policies = Policies::default();
            for (index, requirements) in selectors.into_iter().enumerate() {
                let mut policy = policy(&format!("p{index:02}"));
                policy.namespace_selector = Selector::new(requirements);
                policies.apply(policy);
            }
            let namespace = NamespaceFacts { name: "a".to_owned(), labels: labels.map(Arc::new) };
            let asked = policies.iter().filter(|entry| namespace.matches(&entry.policy.namespace_selector) != Match::No);
            let asked: Vec<_> = asked.map(|entry| Arc::clone(&entry.name)).collect();
            let labels = Labels::new();
            let found: Vec<_> = policies.matching(&labels, &namespace).map(|(entry, _)| Arc::clone(&entry.name)).collect();
            prop_assert_eq!(found, asked);
        }
    }
}
