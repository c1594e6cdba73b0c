//! What Pullguard keeps of a node: what decides where a pod can go, and which images are there.
//!
//! Enters: the translation of a `Node` object. Leaves: small values that the inventory indexes.

use jiff::Timestamp;

use super::selector::Labels;

/// When a taint acts on a pod that does not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl TaintEffect {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }

    /// Whether the scheduler keeps a pod away that does not tolerate it.
    pub const fn excludes(self) -> bool {
        match self {
            Self::NoSchedule | Self::NoExecute => true,
            Self::PreferNoSchedule => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: TaintEffect,
}

impl std::fmt::Display for Taint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, value, effect } = self;
        let effect = effect.as_str();
        if value.is_empty() { write!(f, "{key}:{effect}") } else { write!(f, "{key}={value}:{effect}") }
    }
}

/// How a pod tolerates taints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Toleration {
    /// `None`: every key (only together with `Exists`).
    pub key: Option<String>,
    pub value: TolerationValue,
    /// `None`: every effect.
    pub effect: Option<TaintEffect>,
}

/// The operator of a toleration with its operand. `Gt` and `Lt` compare whole numbers (Kubernetes 1.35, alpha).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TolerationValue {
    Exists,
    Equal(String),
    Gt(i64),
    Lt(i64),
}

impl Toleration {
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && self.key.as_ref().is_none_or(|key| *key == taint.key)
            && match &self.value {
                TolerationValue::Exists => true,
                TolerationValue::Equal(value) => *value == taint.value,
                TolerationValue::Gt(bound) => taint.value.parse::<i64>().is_ok_and(|number| number > *bound),
                TolerationValue::Lt(bound) => taint.value.parse::<i64>().is_ok_and(|number| number < *bound),
            }
    }
}

/// The node's `Ready` condition; a node without one is `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Readiness {
    Ready,
    NotReady,
    Unknown,
}

/// The container runtime, as far as it changes what a name in `status.images` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    Containerd,
    /// Lists familiar names (`nginx:latest`), which are made canonical first.
    Docker,
    /// CRI-O and all others: short names resolve by a configuration of their own.
    Other,
}

/// One entry of `status.images`: all its names, as the node writes them.
pub type ImageEntry = Vec<String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: String,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    /// Cordoned (`spec.unschedulable`).
    pub unschedulable: bool,
    pub readiness: Readiness,
    pub created: Timestamp,
    pub runtime: Runtime,
    pub images: Vec<ImageEntry>,
}
