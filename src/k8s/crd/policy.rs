//! `NodeImagePolicy`: which pods, which nodes, which images, how strictly, and what the runtime half may do.
//!
//! The schema refuses what cannot be compiled, so that a bad policy ends at `kubectl apply` with a message that says
//! what is right. Field documentation is what `kubectl explain` prints.

#![expect(clippy::duplicated_attributes, reason = "each printer column has a type and a path")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Deserializer, Serialize};

use super::pattern::{allowlist, image_pattern, image_patterns};
use super::span;

/// Which container images pods may use, and whether they must be present on the nodes.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "pullguard.dev",
    version = "v1alpha1",
    kind = "NodeImagePolicy",
    plural = "nodeimagepolicies",
    shortname = "nip",
    category = "pullguard",
    status = "NodeImagePolicyStatus",
    derive = "PartialEq",
    doc = "NodeImagePolicy says which container images pods may use and on which nodes these must be present, how strictly that is enforced, and what may be done about pods whose images cannot be pulled.",
    printcolumn(name = "Enforcement", type_ = "string", json_path = ".spec.enforcement"),
    printcolumn(name = "Runtime", type_ = "string", json_path = ".spec.runtime.enforcement"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.matchedNodes"),
    printcolumn(name = "Images", type_ = "integer", json_path = ".status.knownImages"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.rescue) || self.rescue != 'PullIfNotPresent' || has(self.allowedImages)").message("rescue: PullIfNotPresent lets a pod pull what it was never to pull; it needs allowedImages: list what may be pulled, or use PinToHolders"),
    // To CEL a null is not there, but the names of an object's fields count it.
    validation = Rule::new("has(self.allowedImages) || !dyn(self).exists(field, field == 'allowedImages')").message("allowedImages is there and lists nothing: list what is allowed, or leave the field out to judge presence alone")
)]
pub struct NodeImagePolicySpec {
    /// Which pods the policy judges; both selectors empty: all of them.
    #[serde(rename = "match", default)]
    pub match_: PodMatch,
    /// Label selector of the nodes whose images count. Empty: all nodes.
    #[serde(default)]
    pub nodes: LabelSelector,
    /// Image patterns of which one must match every image of a pod. Absent: no allowlist, only presence is judged.
    /// A pattern without registry host means docker.io; `*` matches within a path segment, `**` any number of segments;
    /// without tag and digest it matches any. `**` alone is every image.
    // NB: `Some(None)` is a null: every item commented out. It must not open what was closed, nor may it keep the watch from
    // reading all other policies.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "even_null")]
    #[schemars(schema_with = "allowlist")]
    pub allowed_images: Option<Option<Vec<String>>>,
    /// The operator's word that images of these patterns are on every node of the policy, whether the nodes list them or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "image_patterns")]
    pub preloaded_images: Vec<String>,
    /// How many images these nodes' kubelets list (their `nodeStatusMaxImages`); -1: unlimited. A node that lists as many
    /// or more proves no absence.
    #[serde(default = "default_node_image_limit")]
    #[schemars(range(min = -1, max = 100_000))]
    #[x_kube(validation = Rule::new("self == -1 || self >= 1").message("nodeImageLimit is the kubelets' nodeStatusMaxImages: 1 or more, or -1 for unlimited; kubelets set to 0 list nothing, use preloadedImages there"))]
    pub node_image_limit: i64,
    /// Enforce: as said below; Warn: a denial becomes a warning; Audit: the client hears nothing, Events and metrics say what would have been.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// Whether images must be present on the nodes.
    #[serde(default)]
    pub presence: Presence,
    /// What the mutating webhook does for a pod with pull policy Never: pin it to the nodes that hold its images, or let it pull.
    #[serde(default)]
    pub rescue: Rescue,
    /// The most that is said of templates (Deployments, Jobs, CronJobs and so on): Deny, Warn or Ignore.
    #[serde(default)]
    pub templates: Templates,
    /// What may be done about pods whose images cannot be pulled. Absent: the runtime half only observes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// The operator's own words on what to do about an image; the first pattern that matches is quoted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub remedies: Vec<Remedy>,
}

fn even_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(input).map(Some)
}

const fn default_node_image_limit() -> i64 {
    50
}

#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodMatch {
    /// Namespaces by their labels. Empty: all but the system ones and Pullguard's own.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Pods by their labels; for a template, its labels. Empty: all.
    #[serde(default)]
    pub pod_selector: LabelSelector,
}

/// A label selector, as everywhere in Kubernetes, with bounds.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 32,
        "additionalProperties" = {
            "type": "string",
            "maxLength": 63,
            "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        },
    ))]
    #[x_kube(validation = Rule::new("self.all(k, k.size() <= 317 && k.matches('^([A-Za-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$'))").message("a label key is an optional DNS prefix and /, then letters, digits, - _ . (317 characters at most)"))]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements that must all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<SelectorRequirement>,
}

#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.operator in ['In', 'NotIn'] ? (has(self.values) && self.values.size() > 0) : (!has(self.values) || self.values.size() == 0)").message("operators In and NotIn need values; Exists and DoesNotExist take none")
)]
pub struct SelectorRequirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 317))]
    #[x_kube(validation = Rule::new("self.matches('^([A-Za-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')").message("a label key is an optional DNS prefix and /, then letters, digits, - _ . (317 characters at most)"))]
    pub key: String,
    /// How the label is compared: In, NotIn, Exists or DoesNotExist.
    pub operator: SelectorOperator,
    /// The values for In and NotIn; none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

#[derive(schemars::JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum SelectorOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

#[derive(schemars::JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum Enforcement {
    #[default]
    Enforce,
    Warn,
    Audit,
}

#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    /// NeverOnly: containers with pull policy Never; All: every container (air-gapped clusters).
    #[serde(default)]
    pub scope: PresenceScope,
    /// What happens to a pod whose images are proven absent from every node that it could run on.
    #[serde(default = "default_on_absent")]
    pub on_absent: PresenceAction,
    /// What happens where neither presence nor absence is proven.
    #[serde(default = "default_on_unknown")]
    pub on_unknown: PresenceAction,
    /// True where nodes are added from a machine image that may bring the images: absence is never proven then.
    #[serde(default)]
    pub elastic: bool,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            scope: PresenceScope::default(),
            on_absent: default_on_absent(),
            on_unknown: default_on_unknown(),
            elastic: false,
        }
    }
}

const fn default_on_absent() -> PresenceAction {
    PresenceAction::Deny
}

const fn default_on_unknown() -> PresenceAction {
    PresenceAction::Warn
}

#[derive(schemars::JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum PresenceScope {
    #[default]
    NeverOnly,
    All,
}

#[derive(schemars::JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum PresenceAction {
    Deny,
    Warn,
    Allow,
}

#[derive(schemars::JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum Rescue {
    #[default]
    None,
    PinToHolders,
    PullIfNotPresent,
}

#[derive(schemars::JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum Templates {
    Deny,
    #[default]
    Warn,
    Ignore,
}

#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// Enforce: act; Audit: say in Events and metrics what would have been done, and write nothing else.
    #[serde(default)]
    pub enforcement: RuntimeEnforcement,
    /// The label whose value names the task of a bare pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    #[x_kube(validation = Rule::new("self.matches('^([A-Za-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')").message("taskLabel is a label key: an optional DNS prefix and /, then letters, digits, - _ ."))]
    pub task_label: Option<String>,
    /// Further kinds of owners that can end, besides Job (Workflow, TaskRun and so on). Never makers of tasks such as CronJob.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub task_kinds: Vec<TaskKind>,
    /// How long a failure is watched before it can be called permanent.
    #[serde(default)]
    pub grace: Grace,
    /// After so many pods of one task in pull failure the task fails, whatever the cause. A Job's pod that waits is one.
    #[serde(default = "default_max_attempts")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: u32,
    /// Who is failed: nobody, only the stuck pods, or the Job.
    #[serde(default)]
    pub fail_owner: FailOwner,
    /// Fail Jobs whose pods this webhook has denied for so long. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "span::read_option")]
    #[schemars(schema_with = "duration_schema")]
    pub fail_denied_after: Option<Duration>,
    /// How many of the newest dead pods of a task are kept as evidence. A Job's waiting pods are deleted by its controller.
    #[serde(default = "default_keep_pods")]
    #[schemars(range(min = 0, max = 100))]
    pub keep_pods: u32,
    /// While a task is permanently failed, refuse its new pods with the first cause.
    #[serde(default = "default_true")]
    pub deny_recreation: bool,
    /// A permanent failure is tried again after this.
    #[serde(default = "default_expiry", deserialize_with = "span::read")]
    #[schemars(schema_with = "duration_schema")]
    pub expiry: Duration,
}

const fn default_max_attempts() -> u32 {
    5
}

const fn default_keep_pods() -> u32 {
    1
}

const fn default_true() -> bool {
    true
}

fn default_expiry() -> Duration {
    seconds(3600)
}

fn seconds(seconds: u64) -> Duration {
    std::time::Duration::from_secs(seconds).into()
}

/// Go's notation of a duration, whole and positive: `90s`, `10m`, `1h30m`.
fn duration_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string",
        "maxLength": 32,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$') && self != '' && duration(self) > duration('0s') && duration(self) <= duration('8760h')",
            "message": span::RULE,
        }],
    })
}

#[derive(schemars::JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum RuntimeEnforcement {
    Enforce,
    #[default]
    Audit,
}

#[derive(schemars::JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum FailOwner {
    None,
    Pod,
    #[default]
    Job,
}

#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.kind in ['CronJob', 'JobSet', 'PipelineRun', 'CronWorkflow', 'Deployment', 'ReplicaSet', 'StatefulSet', 'DaemonSet', 'ReplicationController', 'Pod', 'Node'])").message("taskKinds names kinds that can end by themselves (Workflow, TaskRun); makers of tasks and service controllers cannot be failed")
)]
pub struct TaskKind {
    /// API group, without version: `argoproj.io`.
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind, in the singular: `Workflow`.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Z][A-Za-z0-9]*$')").message("kind is written as in a manifest: Workflow, TaskRun"))]
    pub kind: String,
}

#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Grace {
    /// For pull policy Never with an image that is not there.
    #[serde(default = "default_never_pull", deserialize_with = "span::read")]
    #[schemars(schema_with = "duration_schema")]
    pub never_pull: Duration,
    /// For an image, tag or repository that the registry does not have.
    #[serde(default = "default_grace", deserialize_with = "span::read")]
    #[schemars(schema_with = "duration_schema")]
    pub not_found: Duration,
    /// For credentials that are missing or refused.
    #[serde(default = "default_grace", deserialize_with = "span::read")]
    #[schemars(schema_with = "duration_schema")]
    pub unauthorized: Duration,
    /// For every other cause.
    #[serde(default = "default_grace", deserialize_with = "span::read")]
    #[schemars(schema_with = "duration_schema")]
    pub other: Duration,
}

impl Default for Grace {
    fn default() -> Self {
        Self {
            never_pull: default_never_pull(),
            not_found: default_grace(),
            unauthorized: default_grace(),
            other: default_grace(),
        }
    }
}

fn default_never_pull() -> Duration {
    seconds(60)
}

fn default_grace() -> Duration {
    seconds(600)
}

#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Remedy {
    /// An image pattern.
    #[schemars(schema_with = "image_pattern")]
    pub image: String,
    /// What to do, as a sentence: it ends a denial's message.
    #[schemars(length(min = 1, max = 256))]
    pub text: String,
}

/// What the controller makes of the policy.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeImagePolicyStatus {
    /// The generation that the leading controller has compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: this generation is in force; while it is false, the last one that could be compiled is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
    /// Nodes that the policy's selector matches.
    #[serde(default)]
    pub matched_nodes: i64,
    /// Distinct image names on those nodes.
    #[serde(default)]
    pub known_images: i64,
    /// Nodes whose list of images is as long as `nodeImageLimit` or longer: they prove no absence. At most 20 names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 253)))]
    pub truncated_nodes: Vec<String>,
    /// Preloaded images that a kubelet says are not there. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub contradicted_preloads: Vec<ContradictedPreload>,
    /// Registries, nodes and `denied Jobs` on which the brake is on: nothing is declared permanent there. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 300)))]
    pub brakes: Vec<String>,
}

#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct ContradictedPreload {
    /// The image, by its canonical name.
    #[schemars(length(max = 512))]
    pub image: String,
    /// The node whose kubelet says that it is not there.
    #[schemars(length(max = 253))]
    pub node: String,
}
