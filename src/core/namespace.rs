//! What is known of a namespace: its labels, or that they could not be had.

use std::sync::Arc;

use super::selector::{Labels, Selector};

/// The label that the API server puts on every namespace: it is known even where nothing else is.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The namespaces that no policy ever reaches, besides Pullguard's own.
pub const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceFacts {
    pub name: String,
    /// `None`: the labels could not be had, neither from the cache nor by a bounded request.
    pub labels: Option<Arc<Labels>>,
}

/// Whether a selector matches, where that may be unknowable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Yes,
    No,
    Unknown,
}

impl NamespaceFacts {
    /// A namespace of which only the name is known.
    pub fn unlabelled(name: impl Into<String>) -> Self {
        Self { name: name.into(), labels: None }
    }

    pub fn matches(&self, selector: &Selector) -> Match {
        match &self.labels {
            Some(labels) => {
                if selector.matches(labels) {
                    Match::Yes
                } else {
                    Match::No
                }
            }
            None => {
                let mut unknown = false;
                for requirement in selector.requirements() {
                    if requirement.key != NAME_LABEL {
                        unknown = true;
                    } else if !requirement.accepts(Some(&self.name)) {
                        return Match::No;
                    }
                }
                if unknown { Match::Unknown } else { Match::Yes }
            }
        }
    }

    pub fn is_system(&self) -> bool {
        SYSTEM_NAMESPACES.contains(&self.name.as_str())
    }
}
