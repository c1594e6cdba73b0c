//! What the runtime half asks the shell to do, as values with their own fences.
//!
//! Leaves: effects, `PartialEq`, each safe to apply twice. Enters: their outcomes. A refused or late effect is an
//! outcome, not an error. The shell applies them in the order of the plan, at most one at a time for one task.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::super::cause::{FailureClass, Permanence};
use super::super::pod::{OwnerRef, PullPolicy};
use super::super::reason::Reason;
use super::guard::Guard;

/// The label on owners and bare pods. Output, never input.
pub const STATE_LABEL: &str = "pullguard.dev/state";
pub const STATE_PERMANENTLY_FAILED: &str = "permanently-failed";
pub const CLASS_ANNOTATION: &str = "pullguard.dev/class";
pub const IMAGE_ANNOTATION: &str = "pullguard.dev/image";
pub const MESSAGE_ANNOTATION: &str = "pullguard.dev/message";
pub const REMEDY_ANNOTATION: &str = "pullguard.dev/remedy";
pub const FAILED_AT_ANNOTATION: &str = "pullguard.dev/failed-at";
pub const ANNOTATIONS: [&str; 5] =
    [CLASS_ANNOTATION, IMAGE_ANNOTATION, MESSAGE_ANNOTATION, REMEDY_ANNOTATION, FAILED_AT_ANNOTATION];

/// The `activeDeadlineSeconds` by which a pod is failed in place: the kubelet ends it at its next look.
pub const FAILED_DEADLINE: i64 = 1;

/// Names one effect of a plan; the same world gives the same id, in every replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EffectId(pub String);

impl std::fmt::Display for EffectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An effect of a plan, to be applied once; its outcome goes to `Ledger::outcome` under the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub id: EffectId,
    pub effect: Effect,
}

/// An object that is to be exactly the one that was judged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    pub uid: String,
    pub resource_version: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read an owner (of a Job, its pods too) and hand it to `Ledger::observe_owner` before the outcome. Not a write.
    LookUpOwner {
        namespace: String,
        owner: OwnerRef,
    },
    /// Read a Job, judge its template afresh and hand the ruling to `Ledger::observe_verdict` before the outcome. Not a write.
    JudgeTemplate {
        namespace: String,
        job: OwnerRef,
    },
    /// Create the record (no fence) or replace it under its fence. The whole content, in one write. Its `Done` carries the
    /// fence of what is now in the cluster.
    WriteRecord {
        fence: Option<Fence>,
        record: Box<Record>,
    },
    /// Delete the record under its fence: its time is over.
    RemoveRecord {
        namespace: String,
        name: String,
        fence: Fence,
    },
    /// Merge labels and annotations into an owner. Its uid is the fence; the resourceVersion is that of the shell's
    /// own fresh read, in which `guard::owner_may_be_marked` must hold.
    MarkOwner {
        namespace: String,
        owner: OwnerRef,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    },
    /// Take our label and annotations off a Job that goes on after all. Its uid is the fence; the resourceVersion is that
    /// of the shell's own fresh read, in which `guard::job_may_be_unmarked` must hold.
    UnmarkJob {
        namespace: String,
        job: OwnerRef,
    },
    /// Set the condition `FailureTarget` on a Job. The shell reads the Job and **its pods** afresh, asks
    /// `guard::job_may_fail`, and patches under the uid and resourceVersion of that read.
    FailJob {
        namespace: String,
        job: OwnerRef,
        reason: Reason,
        message: String,
        /// The pods that were judged, and the image that they wait for in vain.
        stuck: Vec<String>,
        image: String,
    },
    /// Set `activeDeadlineSeconds: 1`, and on bare pods of a failed task the labels and annotations, in one patch. The
    /// fence names the pod as it was judged; where a fresh read has another resourceVersion, `guard::pod_may_be_failed`
    /// judges that read, and that one is the fence of the patch.
    FailPod {
        namespace: String,
        name: String,
        fence: Fence,
        /// What it must still wait for in vain.
        image: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    },
    /// Delete under both preconditions, gracefully, after `guard::pod_may_be_collected` on a fresh read, whose
    /// resourceVersion is the precondition.
    DeletePod {
        namespace: String,
        name: String,
        fence: Fence,
        /// What it must still wait for in vain, if it is not dead.
        image: String,
    },
    EmitEvent(EventDraft),
}

impl Effect {
    /// Whether it changes something in the cluster besides telling about it: what Audit never does.
    pub const fn is_write(&self) -> bool {
        match self {
            Self::LookUpOwner { .. } | Self::JudgeTemplate { .. } | Self::EmitEvent(_) => false,
            Self::WriteRecord { .. }
            | Self::RemoveRecord { .. }
            | Self::MarkOwner { .. }
            | Self::UnmarkJob { .. }
            | Self::FailJob { .. }
            | Self::FailPod { .. }
            | Self::DeletePod { .. } => true,
        }
    }
}

/// How an effect went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied, or found applied already. For a record, what is now in the cluster.
    Done { fence: Option<Fence> },
    /// The guard said no on the fresh read.
    Refused(Guard),
    /// The object is gone, or another one has its name.
    Gone,
    /// The fence did not hold: somebody changed it. Judged again with what the watch brings.
    Conflict,
    /// It did not work for now: the reason, for people.
    Failed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    Normal,
    Warning,
}

/// The object that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    pub api_version: String,
    pub kind: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
    /// Empty where it is not known.
    pub uid: String,
}

/// What is or would be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventAction {
    /// Told, and nothing done.
    Report,
    FailOwner,
    FailPod,
    CollectPods,
    Resolve,
    Brake,
    Cap,
    WouldFailOwner,
    WouldFailPod,
    WouldCollectPods,
}

impl EventAction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Report => "Report",
            Self::FailOwner => "FailOwner",
            Self::FailPod => "FailPod",
            Self::CollectPods => "CollectPods",
            Self::Resolve => "Resolve",
            Self::Brake => "Brake",
            Self::Cap => "Cap",
            Self::WouldFailOwner => "WouldFailOwner",
            Self::WouldFailPod => "WouldFailPod",
            Self::WouldCollectPods => "WouldCollectPods",
        }
    }
}

/// An `events.k8s.io/v1` Event of the reporter `pullguard.dev/controller`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDraft {
    /// Where the Event is created.
    pub namespace: String,
    pub event_type: EventType,
    pub reason: Reason,
    pub action: EventAction,
    pub regarding: ObjectRef,
    pub related: Option<ObjectRef>,
    /// At most 1 kB.
    pub note: String,
    /// Names the Event in the cluster, so that a second leader or a restart creates no twin: a stable hash of what it tells.
    pub key: String,
}

/// Where a task's failure stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureState {
    Retrying,
    PermanentlyFailed,
    Resolved,
}

impl FailureState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retrying => "Retrying",
            Self::PermanentlyFailed => "PermanentlyFailed",
            Self::Resolved => "Resolved",
        }
    }
}

/// The task, as a record names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskRef {
    /// Empty for a label's value.
    pub api_version: String,
    /// `Pod` for a label's value or one bare pod.
    pub kind: String,
    /// The owner's or pod's name, or the label's value.
    pub name: String,
    /// Empty for a label's value.
    pub uid: String,
    /// The key of the task label.
    pub label: Option<String>,
}

/// The content of a `PullFailure`, both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub namespace: String,
    pub name: String,
    pub task: TaskRef,
    /// Kind/name.
    pub maker: Option<String>,
    pub state: FailureState,
    pub reason: Reason,
    /// `None` where no container ever failed: the Job's pods were denied.
    pub class: Option<FailureClass>,
    pub image: String,
    pub message: String,
    pub remedy: String,
    /// Sorted, at most 20.
    pub policies: Vec<String>,
    pub first_seen: Option<Timestamp>,
    pub failed_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub resolved_at: Option<Timestamp>,
    pub attempts: u32,
    /// At most 100, the newest last.
    pub counted_pods: Vec<String>,
    pub pods_collected: u32,
    /// At most 10.
    pub failures: Vec<RecordedFailure>,
}

/// As the record keeps.
const MOST_SECRETS: usize = 32;

/// The names of pull secrets, as a record keeps them and as they are compared: sorted, each once, and no more than its bound.
pub(super) fn secrets_kept(names: &[String]) -> Vec<String> {
    let names: BTreeSet<&String> = names.iter().collect();
    names.into_iter().take(MOST_SECRETS).cloned().collect()
}

/// The failure of one image of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedFailure {
    pub image: String,
    pub class: FailureClass,
    pub permanence: Permanence,
    pub message: String,
    pub remedy: String,
    pub container: String,
    pub pod: String,
    pub node: String,
    /// `None`: the record does not say.
    pub pull_policy: Option<PullPolicy>,
    /// At most 32.
    pub pull_secrets: Vec<String>,
    pub first_seen: Option<Timestamp>,
    pub last_seen: Option<Timestamp>,
}
