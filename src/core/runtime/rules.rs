//! The runtime settings that hold for a pod: of all matching policies the most cautious.
//!
//! Enters: the policies that match. Leaves: one set of rules, or none, and then nothing is done at all.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::cause::FailureClass;
use super::super::image::ImageReference;
use super::super::policy::{FailOwner, Grace, Policy, RuntimeEnforcement, TaskKind};
use super::sight::PolicyMark;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub enforcement: RuntimeEnforcement,
    /// `None` also where policies name different labels: then each bare pod is a task of its own.
    pub task_label: Option<String>,
    /// Only the kinds that all policies name.
    pub task_kinds: BTreeSet<TaskKind>,
    pub grace: Grace,
    pub max_attempts: u32,
    pub fail_owner: FailOwner,
    pub fail_denied_after: Option<Duration>,
    pub keep_pods: u32,
    pub deny_recreation: bool,
    pub expiry: Duration,
    /// A new node may bring the image: absence is never proven for all.
    pub elastic: bool,
    /// In the order of their names.
    pub policies: Vec<PolicyMark>,
}

impl Rules {
    /// The most cautious of what all policies say. A policy without a task label has no opinion on what a task is.
    pub fn most_cautious(policies: &[&Policy]) -> Option<Self> {
        let (first, rest) = policies.split_first()?;
        let mut rules = Self::of(first);
        for policy in rest {
            rules = rules.and(Self::of(policy));
        }
        rules.policies.sort();
        Some(rules)
    }

    fn of(policy: &Policy) -> Self {
        let runtime = &policy.runtime;
        Self {
            enforcement: runtime.enforcement,
            task_label: runtime.task_label.clone(),
            task_kinds: runtime.task_kinds.iter().cloned().collect(),
            grace: runtime.grace,
            max_attempts: runtime.max_attempts.max(1),
            fail_owner: runtime.fail_owner,
            fail_denied_after: runtime.fail_denied_after,
            keep_pods: runtime.keep_pods,
            deny_recreation: runtime.deny_recreation,
            expiry: runtime.expiry,
            elastic: policy.presence.elastic,
            policies: vec![PolicyMark {
                name: policy.name.clone(),
                uid: policy.uid.clone(),
                generation: policy.generation,
            }],
        }
    }

    fn and(self, other: Self) -> Self {
        let task_label = match (self.task_label, other.task_label) {
            (None, label) | (label, None) => label,
            (Some(one), Some(two)) => (one == two).then_some(one),
        };
        Self {
            enforcement: self.enforcement.min(other.enforcement),
            task_label,
            task_kinds: self.task_kinds.intersection(&other.task_kinds).cloned().collect(),
            grace: Grace {
                never_pull: self.grace.never_pull.max(other.grace.never_pull),
                not_found: self.grace.not_found.max(other.grace.not_found),
                unauthorized: self.grace.unauthorized.max(other.grace.unauthorized),
                other: self.grace.other.max(other.grace.other),
            },
            max_attempts: self.max_attempts.max(other.max_attempts),
            fail_owner: self.fail_owner.min(other.fail_owner),
            fail_denied_after: self.fail_denied_after.and_then(|one| other.fail_denied_after.map(|two| one.max(two))),
            keep_pods: self.keep_pods.max(other.keep_pods),
            deny_recreation: self.deny_recreation && other.deny_recreation,
            expiry: self.expiry.min(other.expiry),
            elastic: self.elastic || other.elastic,
            policies: [self.policies, other.policies].concat(),
        }
    }

    /// How long a failure of a class is watched.
    pub fn grace(&self, class: FailureClass) -> Duration {
        match class {
            FailureClass::NeverPull => self.grace.never_pull,
            FailureClass::NotFound => self.grace.not_found,
            FailureClass::Unauthorized | FailureClass::NeverPullNoAccess => self.grace.unauthorized,
            FailureClass::NotFoundOrDenied => self.grace.not_found.max(self.grace.unauthorized),
            FailureClass::InvalidName
            | FailureClass::RateLimited
            | FailureClass::Network
            | FailureClass::RegistryError
            | FailureClass::Tls
            | FailureClass::PlatformMismatch
            | FailureClass::DiskFull
            | FailureClass::CorruptImage
            | FailureClass::NodeThrottle
            | FailureClass::InspectFailed
            | FailureClass::SignatureInvalid
            | FailureClass::Unknown => self.grace.other,
        }
    }

    pub fn longest_grace(&self) -> Duration {
        let Grace { never_pull, not_found, unauthorized, other } = self.grace;
        never_pull.max(not_found).max(unauthorized).max(other)
    }

    pub fn audits(&self) -> bool {
        match self.enforcement {
            RuntimeEnforcement::Audit => true,
            RuntimeEnforcement::Enforce => false,
        }
    }
}

/// The operator's own remedy, of the first policy that has one, else ours.
pub fn remedy(policies: &[&Policy], image: Option<&ImageReference>, ours: &str) -> String {
    let own = image.and_then(|image| policies.iter().find_map(|policy| policy.remedy_for(image)));
    own.unwrap_or(ours).to_owned()
}
