//! What Pullguard judges of a pod or of a pod template.
//!
//! Enters: the translation of a `Pod` or of a template. Leaves: containers with parsed images, and where the pod may go.

use super::image::{ImageName, ReferenceError};
use super::node::Toleration;
use super::selector::{Labels, Requirement};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContainerKind {
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    Main,
    Ephemeral,
    /// A volume of kind `image`: counts as a container with its own pull policy.
    ImageVolume,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFacts {
    /// The container's name, or the volume's.
    pub name: String,
    pub kind: ContainerKind,
    /// As written in the object; messages quote it.
    pub image: String,
    pub parsed: Result<ImageName, ReferenceError>,
    pub pull_policy: PullPolicy,
}

/// A node selector term: all requirements on labels and fields must hold. One without any matches no node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTerm {
    pub expressions: Vec<Requirement>,
    /// On `metadata.name` only.
    pub fields: Vec<Requirement>,
}

/// Where a pod may be scheduled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Set: the scheduler is bypassed.
    pub node_name: Option<String>,
    pub node_selector: Labels,
    /// Required node affinity: any of the terms; `None`: no such demand. An empty list matches no node.
    pub required_affinity: Option<Vec<NodeTerm>>,
    pub tolerations: Vec<Toleration>,
    /// Somebody may add tolerations before it is scheduled, so no taint keeps it from a node for good: a RuntimeClass adds
    /// those of its nodes to the pods of a template, a queue those of its machines to a pod with scheduling gates.
    pub tolerations_to_come: bool,
    /// `spec.os.name`.
    pub os: Option<String>,
}

/// A reference to an owner, as in `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerRef {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    pub namespace: String,
    /// Empty where the API server has yet to generate it.
    pub name: String,
    pub labels: Labels,
    /// The controlling owner.
    pub owner: Option<OwnerRef>,
    pub placement: Placement,
    pub containers: Vec<ContainerFacts>,
    /// Names of `imagePullSecrets`, sorted.
    pub pull_secrets: Vec<String>,
}
