//! The one vocabulary of reasons: Event reasons, metric labels, log fields, `status.reason` and audit annotations are
//! all printed from here.

use super::cause::FailureClass;

/// Why something was decided or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    // Findings of admission, in the order in which they settle an image.
    InvalidImageReference,
    ImageNotAllowed,
    AlwaysNeedsRegistry,
    ImageAbsent,
    ImagePresenceUnknown,
    TaskPermanentlyFailed,
    /// The mutating half has changed a pod so that it can run.
    Rescued,
    // The runtime half.
    /// A task is failing to pull and is within its grace.
    PullRetrying,
    /// The cause is permanent: the task was failed.
    PullPermanentlyFailed,
    /// `maxAttempts` pods of the task were tried.
    PullRetriesExhausted,
    /// A Job whose pods our webhook has denied for `failDeniedAfter`.
    DeniedTooLong,
    /// The failure is over: the image came, or the task was changed.
    PullResolved,
    /// Dead pods were deleted.
    PodsCollected,
    /// A single stuck pod was failed in place, its task goes on.
    PodFailed,
    /// Several runs of one maker failed for the same cause.
    RunsKeepFailing,
    /// A registry or a node fails for many: nothing is declared permanent.
    BrakeEngaged,
    BrakeReleased,
    /// The bound on effects per cycle, namespace or cluster was hit.
    CapReached,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidImageReference => "InvalidImageReference",
            Self::ImageNotAllowed => "ImageNotAllowed",
            Self::AlwaysNeedsRegistry => "AlwaysNeedsRegistry",
            Self::ImageAbsent => "ImageAbsent",
            Self::ImagePresenceUnknown => "ImagePresenceUnknown",
            Self::TaskPermanentlyFailed => "TaskPermanentlyFailed",
            Self::Rescued => "Rescued",
            Self::PullRetrying => "PullRetrying",
            Self::PullPermanentlyFailed => "PullPermanentlyFailed",
            Self::PullRetriesExhausted => "PullRetriesExhausted",
            Self::DeniedTooLong => "DeniedTooLong",
            Self::PullResolved => "PullResolved",
            Self::PodsCollected => "PodsCollected",
            Self::PodFailed => "PodFailed",
            Self::RunsKeepFailing => "RunsKeepFailing",
            Self::BrakeEngaged => "BrakeEngaged",
            Self::BrakeReleased => "BrakeReleased",
            Self::CapReached => "CapReached",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What narrows a reason of admission down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Detail {
    /// No node of the policy could take the pod.
    NoEligibleNode,
    /// The policy is elastic: a new node may bring the image.
    MayScaleUp,
    /// A node's list of images is as long as the kubelet makes it, or longer than we were told.
    ListTruncated,
    /// A node lists no image at all: its kubelet has just started, or lists none.
    ListEmpty,
    /// An entry has five names, the most a kubelet tells.
    NamesTruncated,
    /// A short name on a runtime that resolves it by a configuration of its own.
    ShortName,
    /// Given as an image id: node lists hold no ids.
    ImageId,
    /// The candidates that may hold it are cordoned, not ready, too young or starting up.
    TemporaryObstacle,
    /// The nodes have not been read yet.
    InventoryNotSynced,
    /// The namespace's labels could not be had, and a selector needs them.
    NamespaceUnknown,
    /// Each image is on some node, but none holds all of them.
    NoNodeHoldsAll,
    /// A failed task's record, with its class.
    Cause(FailureClass),
}

impl Detail {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoEligibleNode => "NoEligibleNode",
            Self::MayScaleUp => "MayScaleUp",
            Self::ListTruncated => "ListTruncated",
            Self::ListEmpty => "ListEmpty",
            Self::NamesTruncated => "NamesTruncated",
            Self::ShortName => "ShortName",
            Self::ImageId => "ImageId",
            Self::TemporaryObstacle => "TemporaryObstacle",
            Self::InventoryNotSynced => "InventoryNotSynced",
            Self::NamespaceUnknown => "NamespaceUnknown",
            Self::NoNodeHoldsAll => "NoNodeHoldsAll",
            Self::Cause(class) => class.as_str(),
        }
    }
}

impl std::fmt::Display for Detail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
