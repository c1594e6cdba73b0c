//! Label selectors, as both `metav1.LabelSelector` and a node selector's terms mean them.
//!
//! Enters: requirements, already checked. Leaves: whether a set of labels satisfies them.

use std::collections::{BTreeMap, BTreeSet};

/// Labels of an object, by key.
pub type Labels = BTreeMap<String, String>;

/// What a requirement asks of the value of its key.
///
/// `Gt` and `Lt` are of node selectors alone: the value must be a whole number, else the requirement is not satisfied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
}

/// One requirement on one label (or, in `matchFields`, on one field).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
}

impl Requirement {
    /// Whether a value, or the lack of one, satisfies the requirement. As in the API server, `NotIn` and
    /// `DoesNotExist` are satisfied by an absent key.
    pub fn accepts(&self, value: Option<&str>) -> bool {
        match (&self.operator, value) {
            (Operator::In(set), Some(value)) => set.contains(value),
            (Operator::NotIn(set), Some(value)) => !set.contains(value),
            (Operator::Exists, Some(_)) | (Operator::NotIn(_) | Operator::DoesNotExist, None) => true,
            (Operator::Gt(bound), Some(value)) => value.parse::<i64>().is_ok_and(|number| number > *bound),
            (Operator::Lt(bound), Some(value)) => value.parse::<i64>().is_ok_and(|number| number < *bound),
            (Operator::In(_) | Operator::Exists | Operator::Gt(_) | Operator::Lt(_), None)
            | (Operator::DoesNotExist, Some(_)) => false,
        }
    }
}

/// A conjunction of requirements; empty, it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.accepts(labels.get(&requirement.key).map(String::as_str)))
    }
}
