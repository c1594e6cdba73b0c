//! `PullFailure`: the durable record of one task's pull failure.
//!
//! It has no status subresource on purpose: Pullguard alone writes it, and one record is one write
//! (docs/adr/0003-one-record-one-write.md).

#![expect(clippy::duplicated_attributes, reason = "each printer column has a type and a path")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Which task failed.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "pullguard.dev",
    version = "v1alpha1",
    kind = "PullFailure",
    namespaced,
    shortname = "pf",
    category = "pullguard",
    derive = "PartialEq",
    doc = "PullFailure is the record of one task whose container images cannot be pulled: cause, remedy, attempts, and what Pullguard did. Deleting it lets the task's pods be created again.",
    printcolumn(name = "Task", type_ = "string", json_path = ".spec.task.name"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.task.kind"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Class", type_ = "string", json_path = ".status.class"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image"),
    printcolumn(name = "Attempts", type_ = "integer", json_path = ".status.attempts"),
    printcolumn(name = "Collected", type_ = "integer", json_path = ".status.podsCollected"),
    printcolumn(name = "Maker", type_ = "string", json_path = ".spec.maker", priority = 1),
    printcolumn(name = "Remedy", type_ = "string", json_path = ".status.remedy", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    status = "PullFailureStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct PullFailureSpec {
    /// The task: an owner, or the value of a task label.
    pub task: TaskRef,
    /// The maker of the task, as Kind/name (a CronJob), where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maker: Option<String>,
}

/// The task: an owner, or the value of a task label.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TaskRef {
    /// Empty for a task that is a label's value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 317))]
    pub api_version: String,
    /// The owner's kind; `Pod` for a task that is a label's value or a single bare pod.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// The owner's name, or the label's value.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The owner's uid; empty for a label's value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The key of the task label, where the task is its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub label: Option<String>,
}

/// Where a task's failure stands.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum FailureState {
    /// Within its grace, or transient.
    #[default]
    Retrying,
    PermanentlyFailed,
    Resolved,
}

/// What happened, why, and what to do.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PullFailureStatus {
    /// `Retrying`, `PermanentlyFailed` or `Resolved`.
    #[serde(default)]
    pub state: FailureState,
    /// `PullPermanentlyFailed`, `PullRetriesExhausted`, `DeniedTooLong`, `PodFailed`, `PullRetrying` or `PullResolved`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The failure class of the first failure.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// The image of the first failure, as the pod names it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// The cause, in the words of kubelet, runtime or registry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// The policies that were judged by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub policies: Vec<String>,
    /// When the first of these failures was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Time>,
    /// When the task was declared permanently failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Time>,
    /// When its pods may be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Time>,
    /// Distinct pods of the task that were in pull failure for the grace, or given up before by their maker.
    #[serde(default)]
    pub attempts: u32,
    /// Uids of the pods that were counted, so that a restart counts none twice. At most 100, the newest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub counted_pods: Vec<String>,
    /// How many dead pods of the task were deleted.
    #[serde(default)]
    pub pods_collected: u32,
    /// One entry an image, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub failures: Vec<ImageFailure>,
    /// For `kubectl wait`: `PermanentlyFailed` and `Resolved`, True where that is the state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
}

/// The failure of one image of a task.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ImageFailure {
    /// The image, as the pod names it.
    pub image: String,
    /// The failure class.
    pub class: String,
    /// `Permanent`, `Transient` or `Unclear`.
    pub permanence: String,
    /// The cause, in the words of kubelet, runtime or registry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// The container, or the image volume, that uses the image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// The pod in which it was seen first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The node on which it was seen first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The pull policy of that container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pull_policy: String,
    /// The names of the pod's `imagePullSecrets`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub pull_secrets: Vec<String>,
    /// When it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Time>,
    /// When it was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
}
