//! Which task a pod belongs to, and what may be done to it.
//!
//! Enters: a pod's owners and labels, and the rules that hold for it. Leaves: a `TaskId`, stable over all pods of the
//! task, and the name of its record.

use super::super::pod::OwnerRef;

/// The identity of a task in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    pub namespace: String,
    pub key: TaskKey,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskKey {
    /// An owner's uid.
    Owner { uid: String },
    /// The value of a task label.
    Label { key: String, value: String },
    /// A bare pod without the label: its own uid.
    Pod { uid: String },
}

/// What kind of unit a task is: what can be done to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskKindOf {
    /// A `batch/v1` Job: labelled, annotated, failed.
    Job(OwnerRef),
    /// An owner of a kind in `taskKinds`: labelled, annotated, its pods collected.
    Listed(OwnerRef),
    /// Bare pods that share a label's value: labelled, failed in place, collected.
    Label { key: String, value: String },
    /// One bare pod.
    BarePod { name: String, uid: String },
    /// Any other owner, service controllers above all: record and Event only.
    ReportOnly(OwnerRef),
}
