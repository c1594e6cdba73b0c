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
        let mut rules = rest.iter().fold(Self::of(first), |rules, policy| rules.and(Self::of(policy)));
        rules.task_label = Self::task_label(policies).map(str::to_owned);
        rules.policies.sort();
        Some(rules)
    }

    /// The one label that says of bare pods which task they are of. Admission asks it for each pod, and nothing else.
    pub fn task_label<'a>(policies: &[&'a Policy]) -> Option<&'a str> {
        let mut labels = policies.iter().filter_map(|policy| policy.runtime.task_label.as_deref());
        let label = labels.next()?;
        labels.all(|other| other == label).then_some(label)
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

    /// But for the task label, of which two and no third decide nothing.
    fn and(mut self, other: Self) -> Self {
        self.policies.extend(other.policies);
        Self {
            enforcement: self.enforcement.min(other.enforcement),
            task_label: None,
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
            policies: self.policies,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixtures::policy;

    #[test]
    fn policies_that_name_different_labels_have_none_however_many_agree() {
        let labelled = |label: Option<&str>| {
            let mut policy = policy("p");
            policy.runtime.task_label = label.map(str::to_owned);
            policy
        };
        let label = |labels: &[Option<&str>]| {
            let policies: Vec<Policy> = labels.iter().map(|label| labelled(*label)).collect();
            let policies: Vec<&Policy> = policies.iter().collect();
            Rules::most_cautious(&policies).and_then(|rules| rules.task_label)
        };
        assert_eq!(label(&[None, Some("a"), None, Some("a")]).as_deref(), Some("a"));
        assert_eq!(label(&[Some("a"), Some("b"), Some("a")]), None);
        assert_eq!(label(&[None]), None);
    }
}
