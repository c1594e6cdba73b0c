//! A pod, or the template of one, as far as it is judged.
//!
//! Enters: the JSON of a pod or of a `PodTemplateSpec`, decoded into structs that name only what is needed: a review of
//! 300 kB is mostly fields that nobody asks for. Leaves: `PodFacts`. Fields that the API server would default are
//! defaulted here in the same way, so that a manifest judged without a cluster gets the same verdict.

use std::collections::BTreeSet;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::bounded;
use super::has_key::{HasKey, Sort};
use crate::core::image::{ImageName, ImageReference};
use crate::core::node::{TaintEffect, Toleration, TolerationValue};
use crate::core::pod::{ContainerFacts, ContainerKind, NodeTerm, OwnerRef, Placement, PodFacts, PullPolicy};
use crate::core::selector::{Labels, Operator, Requirement};

/// `null` is what is not there, as everywhere in the Kubernetes API.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(input: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// Reads an object under review. NB: serde takes a list for a struct as well, and an empty one for a struct of defaults.
///
/// # Errors
/// The JSON is no object, has a field of a wrong kind, or more entries than any real object.
pub(crate) fn read_object<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, serde_json::Error> {
    if json.trim_start().starts_with('{') {
        bounded::bounded(|| serde_json::from_str(json))
    } else {
        Err(serde::de::Error::custom("it is no JSON object"))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub generate_name: String,
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
    #[serde(deserialize_with = "bounded::map")]
    pub labels: Labels,
    #[serde(deserialize_with = "nullable")]
    pub annotations: Annotations,
    #[serde(deserialize_with = "bounded::list")]
    pub owner_references: Vec<Owner>,
}

/// Of annotations one matters.
pub type Annotations = HasKey<Mirror>;

/// The kubelet's mark on the mirror of a static pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mirror;

impl Sort for Mirror {
    const MAP: &'static str = "annotations";

    fn is(key: &str) -> bool {
        key == "kubernetes.io/config.mirror"
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    #[serde(deserialize_with = "nullable")]
    pub api_version: String,
    #[serde(deserialize_with = "nullable")]
    pub kind: String,
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub uid: String,
    #[serde(deserialize_with = "nullable")]
    pub controller: bool,
}

impl From<Owner> for OwnerRef {
    fn from(owner: Owner) -> Self {
        let Owner { api_version, kind, name, uid, controller: _ } = owner;
        Self { api_version, kind, name, uid }
    }
}

impl Meta {
    pub fn has_controller(&self) -> bool {
        self.owner_references.iter().any(|owner| owner.controller)
    }

    pub fn is_mirror(&self) -> bool {
        self.annotations.is_true()
    }
}

/// A pod, or a `PodTemplateSpec`: they differ in nothing that is judged.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodObject {
    #[serde(deserialize_with = "nullable")]
    pub metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub spec: PodSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub(super) active_deadline_seconds: Option<i64>,
    pub(super) node_name: Option<String>,
    #[serde(deserialize_with = "bounded::map")]
    node_selector: Labels,
    affinity: Option<Affinity>,
    #[serde(deserialize_with = "bounded::list")]
    tolerations: Vec<TolerationObject>,
    #[serde(deserialize_with = "nullable")]
    runtime_class_name: String,
    #[serde(deserialize_with = "bounded::list")]
    scheduling_gates: Vec<IgnoredAny>,
    os: Option<Os>,
    #[serde(deserialize_with = "bounded::list")]
    init_containers: Vec<Container>,
    #[serde(deserialize_with = "bounded::list")]
    containers: Vec<Container>,
    #[serde(deserialize_with = "bounded::list")]
    ephemeral_containers: Vec<Container>,
    #[serde(deserialize_with = "bounded::list")]
    volumes: Vec<Volume>,
    #[serde(deserialize_with = "bounded::list")]
    image_pull_secrets: Vec<SecretRef>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    image: String,
    image_pull_policy: Option<String>,
    restart_policy: Option<String>,
    #[serde(deserialize_with = "nullable")]
    resources: Resources,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    #[serde(deserialize_with = "nullable")]
    requests: HasKey<Device>,
    /// Also what is requested, where no request is written.
    #[serde(deserialize_with = "nullable")]
    limits: HasKey<Device>,
}

/// A device (`nvidia.com/gpu`): a resource of a domain that is not Kubernetes' own.
#[derive(Clone, Copy, Debug, Default)]
struct Device;

impl Sort for Device {
    const MAP: &'static str = "amounts of resources";

    fn is(key: &str) -> bool {
        key.contains('/') && !key.contains("kubernetes.io/")
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Volume {
    #[serde(deserialize_with = "nullable")]
    name: String,
    image: Option<ImageVolume>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ImageVolume {
    #[serde(deserialize_with = "nullable")]
    reference: String,
    pull_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Os {
    #[serde(deserialize_with = "nullable")]
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SecretRef {
    #[serde(deserialize_with = "nullable")]
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeAffinity {
    required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSelector {
    #[serde(deserialize_with = "bounded::list")]
    node_selector_terms: Vec<NodeSelectorTerm>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSelectorTerm {
    #[serde(deserialize_with = "bounded::list")]
    match_expressions: Vec<NodeRequirement>,
    #[serde(deserialize_with = "bounded::list")]
    match_fields: Vec<NodeRequirement>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeRequirement {
    #[serde(deserialize_with = "nullable")]
    key: String,
    #[serde(deserialize_with = "nullable")]
    operator: String,
    #[serde(deserialize_with = "bounded::list")]
    values: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TolerationObject {
    #[serde(deserialize_with = "nullable")]
    key: String,
    #[serde(deserialize_with = "nullable")]
    operator: String,
    #[serde(deserialize_with = "nullable")]
    value: String,
    #[serde(deserialize_with = "nullable")]
    effect: String,
}

impl PodObject {
    /// The facts of a pod that has not been through admission, or of a template in the namespace of the object that holds
    /// it: a RuntimeClass has not added its tolerations yet, nor has the ExtendedResourceToleration of a cluster that has it.
    pub fn facts_of_draft(self, namespace: &str) -> PodFacts {
        let has_class = !self.spec.runtime_class_name.is_empty();
        let mut containers = self.spec.init_containers.iter().chain(&self.spec.containers);
        let asks =
            containers.any(|Container { resources, .. }| resources.requests.is_true() || resources.limits.is_true());
        let mut facts = self.facts(namespace);
        facts.placement.tolerations_to_come |= has_class || asks;
        facts
    }

    /// The facts of a pod in a namespace.
    pub fn facts(self, namespace: &str) -> PodFacts {
        let Self { metadata, spec } = self;
        let tolerations_to_come = !spec.scheduling_gates.is_empty();
        let owner = metadata.owner_references.into_iter().find(|owner| owner.controller).map(OwnerRef::from);
        let PodSpec { node_name, node_selector, affinity, tolerations, os, volumes, image_pull_secrets, .. } = spec;
        let PodSpec { init_containers, containers, ephemeral_containers, .. } = spec;
        let init = init_containers.into_iter().map(|container| {
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            container_facts(container, if sidecar { ContainerKind::Sidecar } else { ContainerKind::Init })
        });
        let main = containers.into_iter().map(|container| container_facts(container, ContainerKind::Main));
        let ephemeral =
            ephemeral_containers.into_iter().map(|container| container_facts(container, ContainerKind::Ephemeral));
        let images = volumes.into_iter().filter_map(|volume| {
            let ImageVolume { reference, pull_policy } = volume.image?;
            Some(one_image(volume.name, ContainerKind::ImageVolume, reference, pull_policy.as_deref()))
        });
        let containers = init.chain(main).chain(ephemeral).chain(images).collect();
        let mut pull_secrets: Vec<String> = image_pull_secrets.into_iter().map(|secret| secret.name).collect();
        pull_secrets.sort();
        PodFacts {
            namespace: namespace.to_owned(),
            name: metadata.name,
            labels: metadata.labels,
            owner,
            placement: Placement {
                node_name: node_name.filter(|name| !name.is_empty()),
                node_selector,
                required_affinity: affinity.and_then(required),
                tolerations: tolerations.into_iter().map(toleration).collect(),
                tolerations_to_come,
                os: os.map(|os| os.name).filter(|name| !name.is_empty()),
            },
            containers,
            pull_secrets,
        }
    }
}

fn container_facts(container: Container, kind: ContainerKind) -> ContainerFacts {
    one_image(container.name, kind, container.image, container.image_pull_policy.as_deref())
}

fn one_image(name: String, kind: ContainerKind, image: String, policy: Option<&str>) -> ContainerFacts {
    let parsed = ImageName::parse(&image);
    let pull_policy = match policy {
        Some("Never") => PullPolicy::Never,
        Some("Always") => PullPolicy::Always,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        Some(_) | None => default_pull_policy(parsed.as_ref().ok()),
    };
    ContainerFacts { name, kind, image, parsed, pull_policy }
}

/// The API server's own default: `Always` for the tag `latest`, written or meant, else `IfNotPresent`.
fn default_pull_policy(image: Option<&ImageName>) -> PullPolicy {
    match image {
        Some(ImageName::Reference(reference)) if ImageReference::tag(reference) == Some("latest") => PullPolicy::Always,
        Some(ImageName::Reference(_) | ImageName::Id(_)) | None => PullPolicy::IfNotPresent,
    }
}

fn required(affinity: Affinity) -> Option<Vec<NodeTerm>> {
    let selector = affinity.node_affinity?.required_during_scheduling_ignored_during_execution?;
    Some(selector.node_selector_terms.into_iter().map(term).collect())
}

fn term(term: NodeSelectorTerm) -> NodeTerm {
    NodeTerm {
        expressions: term.match_expressions.into_iter().map(requirement).collect(),
        fields: term.match_fields.into_iter().map(requirement).collect(),
    }
}

/// What the scheduler cannot make sense of matches no node: an operator that it does not know, a bound that is no number.
fn requirement(requirement: NodeRequirement) -> Requirement {
    let NodeRequirement { key, operator, values } = requirement;
    let nothing = || Operator::In(BTreeSet::new());
    let bound = || values.first().filter(|_| values.len() == 1).and_then(|value| value.parse::<i64>().ok());
    let operator = match operator.as_str() {
        "In" => Operator::In(values.into_iter().collect()),
        "NotIn" => Operator::NotIn(values.into_iter().collect()),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => bound().map_or_else(nothing, Operator::Gt),
        "Lt" => bound().map_or_else(nothing, Operator::Lt),
        _ => nothing(),
    };
    Requirement { key, operator }
}

fn toleration(toleration: TolerationObject) -> Toleration {
    let TolerationObject { key, operator, value, effect } = toleration;
    // Bounds that are no numbers are refused by the API server; here they tolerate nothing.
    let number = value.parse::<i64>();
    let value = match operator.as_str() {
        "Exists" => TolerationValue::Exists,
        "Gt" => TolerationValue::Gt(number.unwrap_or(i64::MAX)),
        "Lt" => TolerationValue::Lt(number.unwrap_or(i64::MIN)),
        _ => TolerationValue::Equal(value),
    };
    Toleration { key: Some(key).filter(|key| !key.is_empty()), value, effect: taint_effect(&effect) }
}

/// An effect by its name in the API.
pub fn taint_effect(effect: &str) -> Option<TaintEffect> {
    match effect {
        "NoSchedule" => Some(TaintEffect::NoSchedule),
        "PreferNoSchedule" => Some(TaintEffect::PreferNoSchedule),
        "NoExecute" => Some(TaintEffect::NoExecute),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(value: serde_json::Value) -> PodFacts {
        serde_json::from_value::<PodObject>(value).expect("a pod").facts("default")
    }

    #[test]
    fn every_kind_of_container_and_every_image_volume_is_seen() {
        let pod = facts(serde_json::json!({"spec": {
            "initContainers": [{"name": "i", "image": "i:1"}, {"name": "s", "image": "s:1", "restartPolicy": "Always"}],
            "containers": [{"name": "m", "image": "m:1"}],
            "ephemeralContainers": [{"name": "e", "image": "e:1"}],
            "volumes": [{"name": "v", "image": {"reference": "v:1", "pullPolicy": "Never"}}, {"name": "w", "emptyDir": {}}],
        }}));
        let kinds: Vec<_> = pod.containers.iter().map(|container| (container.name.as_str(), container.kind)).collect();
        assert_eq!(
            kinds,
            [
                ("i", ContainerKind::Init),
                ("s", ContainerKind::Sidecar),
                ("m", ContainerKind::Main),
                ("e", ContainerKind::Ephemeral),
                ("v", ContainerKind::ImageVolume)
            ]
        );
        assert_eq!(pod.containers.last().map(|volume| volume.pull_policy), Some(PullPolicy::Never));
    }

    #[test]
    fn a_pull_policy_left_out_is_what_the_api_server_would_make_it() {
        let digest = format!("nginx@sha256:{}", "0".repeat(64));
        for (image, policy) in [
            ("nginx", PullPolicy::Always),
            ("nginx:latest", PullPolicy::Always),
            ("nginx:1", PullPolicy::IfNotPresent),
            (digest.as_str(), PullPolicy::IfNotPresent),
        ] {
            let pod = facts(serde_json::json!({"spec": {"containers": [{"name": "m", "image": image}]}}));
            assert_eq!(pod.containers.first().map(|container| container.pull_policy), Some(policy), "{image}");
        }
    }

    #[test]
    fn nulls_are_absent_fields() {
        let pod = facts(serde_json::json!({
            "metadata": {"labels": null, "ownerReferences": null},
            "spec": {"containers": [{"name": "m", "image": "m:1", "imagePullPolicy": null}], "tolerations": null, "affinity": null},
        }));
        assert!(pod.labels.is_empty() && pod.owner.is_none() && pod.placement.required_affinity.is_none());
    }

    #[test]
    fn a_mirror_pod_is_known_by_its_annotation_whatever_else_is_there() {
        let annotated = |annotations: serde_json::Value| {
            let pod = serde_json::json!({"metadata": {"annotations": annotations}, "spec": {"containers": []}});
            serde_json::from_value::<PodObject>(pod).expect("a pod").metadata.is_mirror()
        };
        assert!(annotated(serde_json::json!({"a": "b", "kubernetes.io/config.mirror": "x", "z": "y"})));
        assert!(!annotated(serde_json::json!({"kubernetes.io/config.source": "api"})));
        assert!(!annotated(serde_json::Value::Null));
    }

    #[test]
    fn tolerations_are_to_come_where_somebody_else_adds_them() {
        let of = |spec: serde_json::Value| {
            let pod: PodObject = serde_json::from_value(serde_json::json!({"spec": spec})).expect("a pod");
            let pods = [pod.clone().facts("default"), pod.facts_of_draft("default")];
            pods.map(|facts| facts.placement.tolerations_to_come)
        };
        assert_eq!(of(serde_json::json!({"runtimeClassName": null, "schedulingGates": []})), [false, false]);
        // What a RuntimeClass adds is in a pod before any webhook sees it.
        assert_eq!(of(serde_json::json!({"runtimeClassName": "kata"})), [false, true]);
        assert_eq!(of(serde_json::json!({"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]})), [true, true]);
        for (resources, to_come) in [
            (serde_json::json!({"limits": {"cpu": 1, "nvidia.com/gpu": 1}}), true),
            (serde_json::json!({"requests": {"example.com/fpga": "2"}, "limits": null}), true),
            (
                serde_json::json!({"requests": {"cpu": "1", "hugepages-2Mi": "2Mi", "kubernetes.io/batch-cpu": 1}}),
                false,
            ),
            (serde_json::Value::Null, false),
        ] {
            let container = serde_json::json!({"name": "m", "image": "m:1", "resources": resources});
            assert_eq!(of(serde_json::json!({"containers": [container]})), [false, to_come], "{container}");
        }
    }

    #[test]
    fn a_bound_that_is_no_number_matches_no_node() {
        let pod = facts(serde_json::json!({"spec": {"containers": [], "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "cpus", "operator": "Gt", "values": ["many"]}]}]}}}}}));
        let terms = pod.placement.required_affinity.expect("affinity");
        let requirement = terms.first().and_then(|term| term.expressions.first()).expect("requirement");
        assert!(!requirement.accepts(Some("8")) && !requirement.accepts(None));
    }
}
