//! What the shell sees of the cluster, as small values: pods, Events, owners, records, denials.
//!
//! Enters: translations of API objects. Leaves: the only inputs of the ledger, besides outcomes and time.
//! Nothing here is a judgement: that a pod is stuck, or why, is the ledger's to say.

use jiff::Timestamp;

use super::super::pod::{ContainerFacts, ContainerKind, OwnerRef, PodFacts};
use super::super::reason::{Detail, Reason};
use super::effect::Record;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl Phase {
    /// No container of it will ever start any more.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed => true,
            Self::Pending | Self::Running | Self::Unknown => false,
        }
    }
}

/// The state in a container's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// No status, or an empty one.
    Unreported,
    Waiting {
        reason: String,
        message: String,
    },
    Running {
        since: Option<Timestamp>,
    },
    Terminated {
        reason: String,
        exit_code: i32,
        started: Option<Timestamp>,
        finished: Option<Timestamp>,
    },
}

/// Whether a container ever ran, as far as its status tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EverStarted {
    /// Waiting or unreported, no `lastState`, `restartCount` 0, `started` not true.
    No,
    /// Running; or terminated (now or in `lastState`) with a start time; or restarted; or `started` is true.
    Yes,
    /// Terminated without a start time (`ContainerStatusUnknown`: what a kubelet writes for a container it has lost as
    /// well as for one that never was).
    Unknowable,
}

/// A container's status. Its spec is the entry of the same name and kind in `PodFacts::containers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSight {
    pub name: String,
    pub kind: ContainerKind,
    pub state: ContainerState,
    pub ever_started: EverStarted,
    /// The latest start that the status tells (`state` or `lastState`).
    pub last_started: Option<Timestamp>,
}

/// A pod, as a watch shows it. The shell hands in every pod; the ledger keeps only those in trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSight {
    /// What is in its spec: namespace, name, labels, controlling owner, placement, containers, pull secrets.
    /// `placement.node_name` may be the scheduler's choice: the runtime half never takes it for a demand of the pod.
    pub facts: PodFacts,
    pub uid: String,
    pub resource_version: String,
    /// `spec.nodeName`.
    pub node: Option<String>,
    pub created: Timestamp,
    pub phase: Phase,
    /// It has a deletionTimestamp.
    pub deleting: bool,
    /// It has the annotation `kubernetes.io/config.mirror`.
    pub mirror: bool,
    /// It has the condition `DisruptionTarget`: whoever deletes it (drain, preemption) has not given it up.
    pub disrupted: bool,
    /// `spec.activeDeadlineSeconds`.
    pub active_deadline: Option<i64>,
    pub containers: Vec<ContainerSight>,
}

impl PodSight {
    pub fn namespace(&self) -> &str {
        &self.facts.namespace
    }

    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// The spec of a container, by its status. Container names are unique in a pod over all kinds but volumes.
    pub fn spec_of(&self, status: &ContainerSight) -> Option<&ContainerFacts> {
        self.facts.containers.iter().find(|facts| facts.name == status.name && facts.kind != ContainerKind::ImageVolume)
    }
}

/// An Event of a kubelet about a pod: evidence of a cause, never a trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSight {
    pub namespace: String,
    pub pod: String,
    pub pod_uid: String,
    /// `Failed`, `BackOff`, `FailedToRetrieveImagePullSecret`...
    pub reason: String,
    /// Without the `spec.containers{name}: ` prefix that new kubelets write.
    pub message: String,
    /// From `involvedObject.fieldPath` (`spec.containers{name}`).
    pub container: Option<String>,
    pub at: Timestamp,
}

/// What a fresh read of an owner gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerSight {
    Found(OwnerFacts),
    /// No such object, or one of the same name with another uid.
    NotFound {
        namespace: String,
        owner: OwnerRef,
    },
    /// Its kind is not served, or may not be read: it is only reported on.
    Unreadable {
        namespace: String,
        owner: OwnerRef,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerFacts {
    pub namespace: String,
    pub owner: OwnerRef,
    pub resource_version: String,
    pub deleting: bool,
    /// Its own controlling owner (a CronJob; a Workflow's CronWorkflow).
    pub controller: Option<OwnerRef>,
    /// It carries the label of `effect::STATE_LABEL` with the value of a permanent failure.
    pub marked: bool,
    /// For `batch/v1` Jobs.
    pub job: Option<JobFacts>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFacts {
    pub suspended: bool,
    /// `status.startTime` is set.
    pub started: bool,
    /// `spec.managedBy`, unless it is the Job controller itself (`kubernetes.io/job-controller`).
    pub managed_by: Option<String>,
    /// Condition `Complete` or `Failed` is true.
    pub finished: bool,
    pub failure_target: bool,
    pub success_criteria_met: bool,
    pub succeeded: u32,
    /// An active pod of it has a main container that started, or one has succeeded. The shell lists the Job's pods when
    /// it reads a Job, and asks `guard::any_pod_ran`.
    pub pod_ran: bool,
}

/// A `PullFailure` in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSight {
    pub uid: String,
    pub resource_version: String,
    pub deleting: bool,
    pub record: Record,
}

impl RecordSight {
    /// Whether it is a later version of the same record. Versions are numbers that grow (promised since Kubernetes 1.35,
    /// true before); what is no number is never later.
    pub fn supersedes(&self, other: &Self) -> bool {
        let number = |sight: &Self| sight.resource_version.parse::<u64>().ok();
        self.uid == other.uid && matches!((number(self), number(other)), (Some(mine), Some(theirs)) if mine > theirs)
    }
}

/// A `FailedCreate` Event of a Job that carries our own webhook's denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenialSight {
    pub namespace: String,
    pub job: OwnerRef,
    pub at: Timestamp,
}

/// A Job's template, judged afresh as if its pod were created now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateVerdict {
    pub namespace: String,
    pub job: OwnerRef,
    pub ruling: TemplateRuling,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateRuling {
    /// It would be denied: the first finding that denies, and the policies that made it.
    Denied {
        reason: Reason,
        detail: Option<Detail>,
        image: String,
        message: String,
        remedy: String,
        policies: Vec<PolicyMark>,
        /// What its pods would be: whose runtime rules hold.
        pod: Box<PodFacts>,
    },
    Allowed,
    /// It cannot be judged now (nothing synced, the Job is gone or unreadable).
    Unknown,
}

/// One generation of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyMark {
    pub name: String,
    pub uid: String,
    pub generation: i64,
}
