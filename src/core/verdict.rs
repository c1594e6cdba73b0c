//! What admission is asked, and what it answers.
//!
//! Enters: a pod or a template, as facts. Leaves: findings, each with one reason, and the strictest action of them. It
//! must not know how a finding is made (that is `decide`), nor how an answer is sent.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use super::explanation::Explanation;
use super::namespace::NamespaceFacts;
use super::pod::PodFacts;
use super::policy::Action;
use super::reason::{Detail, Reason};

/// What is being admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A pod that is being created, or one that no node has yet.
    Pod,
    /// A pod that runs on `placement.node_name`: its own node is the only candidate, whatever its taints and labels.
    BoundPod,
    /// The template of a workload, as the pod that it would make.
    Template,
    /// The template of a DaemonSet: its pods go to every node, so where the images are is not judged.
    DaemonSetTemplate,
}

impl Subject {
    pub const fn is_template(self) -> bool {
        match self {
            Self::Pod | Self::BoundPod => false,
            Self::Template | Self::DaemonSetTemplate => true,
        }
    }
}

/// Which containers are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// On CREATE: all of them.
    Every,
    /// On UPDATE and for ephemeral containers: those at these places of `PodFacts::containers`.
    Only(BTreeSet<usize>),
}

impl Judged {
    /// The containers whose image the old object did not have. An image is the same if it is written so, or if it is
    /// resolved so: `nginx` is not new beside `docker.io/library/nginx:latest`.
    pub fn new_against(old: &PodFacts, new: &PodFacts) -> Self {
        let written: BTreeSet<&str> = old.containers.iter().map(|container| container.image.as_str()).collect();
        let parsed: BTreeSet<_> =
            old.containers.iter().filter_map(|container| container.parsed.as_ref().ok()).collect();
        let is_new = |image: &super::pod::ContainerFacts| {
            !written.contains(image.image.as_str()) && !image.parsed.as_ref().is_ok_and(|name| parsed.contains(name))
        };
        Self::Only((0..).zip(&new.containers).filter(|(_, container)| is_new(container)).map(|(i, _)| i).collect())
    }

    pub fn contains(&self, index: usize) -> bool {
        match self {
            Self::Every => true,
            Self::Only(indexes) => indexes.contains(&index),
        }
    }
}

/// One question to the decision.
///
/// The caller has skipped what is exempt and cannot be told from these facts: mirror pods, objects of our own
/// namespace, templates with a controlling owner.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub subject: Subject,
    pub pod: &'a PodFacts,
    pub namespace: &'a NamespaceFacts,
    pub judged: &'a Judged,
}

/// What one policy has to say of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub policy: Arc<str>,
    /// "Did you mean ...?", where something near is known that this policy allows.
    pub hint: Option<Arc<str>>,
    /// What several policies may have found.
    pub found: Arc<Found>,
}

/// A finding, whoever's it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The containers and image volumes that use the image; none where the finding is about the pod as a whole.
    pub containers: Arc<[String]>,
    /// As written; empty where the finding is about the pod as a whole.
    pub image: Arc<str>,
    pub reason: Reason,
    pub detail: Option<Detail>,
    /// After the caps of enforcement and templates.
    pub action: Action,
    /// Before them.
    pub would_be: Action,
    /// As `action`, had no policy said Audit: where it is stricter, this is what would have been done.
    pub unaudited: Action,
    /// What was found, in whole sentences, without hint, remedy and policy. Several findings share one text.
    pub explanation: Explanation,
    /// What to do: the operator's own words, or ours.
    pub remedy: Option<Cow<'static, str>>,
}

impl Deref for Finding {
    type Target = Found;

    fn deref(&self) -> &Found {
        &self.found
    }
}

impl Found {
    /// Only Audit keeps it from being done.
    pub fn is_would_have(&self) -> bool {
        self.unaudited > self.action
    }
}

/// The answer: what all matching policies found. It is a value: equal questions have equal verdicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The strictest first, then in the order of policies and containers. At most [`Verdict::MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Findings left out beyond that, none of them stricter than those kept.
    pub omitted: usize,
    /// The names of the policies that matched, or may have, in order.
    pub matched_policies: Vec<Arc<str>>,
}

impl Verdict {
    /// A pod of a thousand broken images under a hundred policies must not become an answer of 50 MB.
    pub const MAX_FINDINGS: usize = 256;
    /// Each is an Event.
    pub const MAX_TOLD: usize = 5;

    /// The strictest action of all findings: `Allow` if there are none.
    pub fn action(&self) -> Action {
        self.findings.iter().map(|finding| finding.action).max().unwrap_or(Action::Allow)
    }

    /// What it would be if enforcement and templates capped nothing.
    pub fn would_be(&self) -> Action {
        self.findings.iter().map(|finding| finding.would_be).max().unwrap_or(Action::Allow)
    }

    /// The finding that speaks for the verdict.
    pub fn first(&self) -> Option<&Finding> {
        self.findings.first()
    }

    /// What is told of: the finding that speaks for the verdict, if the client hears of it, and of each policy that only
    /// audits the first of what it would have done, or a trial of one policy would be silenced by another. At most
    /// [`Verdict::MAX_TOLD`].
    pub fn told(&self) -> impl Iterator<Item = &Finding> {
        let heard = self.first().filter(|finding| finding.action > Action::Allow);
        let mut policies = BTreeSet::new();
        let would_have = self.findings.iter().filter(|finding| finding.is_would_have());
        let first_of_each = would_have.filter(move |finding| policies.insert(&*finding.policy));
        heard.into_iter().chain(first_of_each).take(Self::MAX_TOLD)
    }

    /// How many findings the one that is told of stands for, beside itself.
    pub fn more_like(&self, told: &Finding) -> usize {
        let alike = self.findings.iter().filter(|finding| {
            if told.is_would_have() {
                finding.is_would_have() && finding.policy == told.policy
            } else {
                finding.action > Action::Allow
            }
        });
        alike.count().saturating_sub(1)
    }

    /// Those that have a given action.
    pub fn with_action(&self, action: Action) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.action == action)
    }
}
