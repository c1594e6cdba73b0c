//! A compiled `NodeImagePolicy`: what the operator asked for, with nothing left to parse.
//!
//! Enters: the translation of one generation of the custom resource. Leaves: a value that decisions read.

use std::time::Duration;

use super::image::{ImagePattern, ImageReference, PatternSet};
use super::selector::Selector;

/// How far a finding goes, from mild to strict: the strictest verdict wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    Allow,
    Warn,
    Deny,
}

impl Action {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Warn => "Warn",
            Self::Deny => "Deny",
        }
    }
}

/// The cap on every action of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Enforcement {
    /// The client hears nothing: Event, metric and audit annotation only.
    Audit,
    Warn,
    Enforce,
}

/// Which containers' presence is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PresenceScope {
    NeverOnly,
    All,
}

/// How many images the kubelets list (`nodeStatusMaxImages`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageLimit {
    AtMost(u32),
    Unlimited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PresenceRules {
    pub scope: PresenceScope,
    pub on_absent: Action,
    pub on_unknown: Action,
    /// A new node from a prepared machine image may come: absence is never proven.
    pub elastic: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rescue {
    None,
    PinToHolders,
    PullIfNotPresent,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remedy {
    pub image: ImagePattern,
    pub text: String,
}

/// What the runtime half does about failures of the pods that a policy matches. Ordered from cautious to bold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuntimeEnforcement {
    Audit,
    Enforce,
}

/// Who is failed, from the fewest acts to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailOwner {
    None,
    Pod,
    Job,
}

/// How long a failure is watched before it can be called permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grace {
    pub never_pull: Duration,
    pub not_found: Duration,
    pub unauthorized: Duration,
    pub other: Duration,
}

/// A kind that can end, besides Job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKind {
    pub group: String,
    pub kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeRules {
    pub enforcement: RuntimeEnforcement,
    /// The label whose value is the identity of a bare pod's task.
    pub task_label: Option<String>,
    pub task_kinds: Vec<TaskKind>,
    pub grace: Grace,
    pub max_attempts: u32,
    pub fail_owner: FailOwner,
    /// `None`: Jobs whose pods are denied are never failed for it.
    pub fail_denied_after: Option<Duration>,
    pub keep_pods: u32,
    pub deny_recreation: bool,
    pub expiry: Duration,
}

impl RuntimeRules {
    /// Without a `runtime` section the runtime half only observes.
    pub fn observe_only() -> Self {
        const MINUTE: u64 = 60;
        Self {
            enforcement: RuntimeEnforcement::Audit,
            task_label: None,
            task_kinds: Vec::new(),
            grace: Grace {
                never_pull: Duration::from_secs(MINUTE),
                not_found: Duration::from_secs(10 * MINUTE),
                unauthorized: Duration::from_secs(10 * MINUTE),
                other: Duration::from_secs(10 * MINUTE),
            },
            max_attempts: 5,
            fail_owner: FailOwner::Job,
            fail_denied_after: None,
            keep_pods: 1,
            deny_recreation: true,
            expiry: Duration::from_secs(60 * MINUTE),
        }
    }
}

/// One compiled generation of a `NodeImagePolicy`.
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub namespace_selector: Selector,
    pub pod_selector: Selector,
    /// Whose images count.
    pub nodes: Selector,
    /// `None`: no allowlist, only presence is judged.
    pub allowed_images: Option<PatternSet>,
    pub preloaded_images: PatternSet,
    pub node_image_limit: ImageLimit,
    pub enforcement: Enforcement,
    pub presence: PresenceRules,
    pub rescue: Rescue,
    /// The cap on what is said of templates; `Allow` is the API's `Ignore`.
    pub templates: Action,
    pub runtime: RuntimeRules,
    pub remedies: Vec<Remedy>,
}

impl Policy {
    /// The operator's own remedy for an image, the first that fits.
    pub fn remedy_for(&self, image: &ImageReference) -> Option<&str> {
        self.remedies.iter().find(|remedy| remedy.image.matches(image)).map(|remedy| remedy.text.as_str())
    }
}
