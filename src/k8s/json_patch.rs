//! A rescue as a JSON Patch (RFC 6902) against the pod as it was submitted.
//!
//! Enters: the raw pod and the change. Leaves: operations that hold for exactly this pod. Places of containers are those
//! of `PodFacts::containers`: init, main, ephemeral, then image volumes.
//!
//! NB: of the raw pod only an outline is decoded. As a whole `Value` a pod can take ninety times the memory of its text.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bounded;
use super::pod::read_object;
use crate::core::rescue::{PinTo, Rescued};
use crate::core::selector::{Operator, Requirement};

/// Of a pod what a patch depends on, and nothing else. `None`: it is no pod.
pub fn outline(pod: &str) -> Option<Value> {
    serde_json::to_value(read_object::<Outline>(pod).ok()?).ok()
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Outline {
    spec: OutlineSpec,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct OutlineSpec {
    #[serde(deserialize_with = "bounded::list")]
    init_containers: Vec<Blank>,
    #[serde(deserialize_with = "bounded::list")]
    containers: Vec<Blank>,
    #[serde(deserialize_with = "bounded::list")]
    ephemeral_containers: Vec<Blank>,
    #[serde(deserialize_with = "bounded::list")]
    volumes: Vec<OutlineVolume>,
    #[serde(skip_serializing_if = "Option::is_none")]
    affinity: Option<OutlineAffinity>,
}

/// That it is there is all that counts.
#[derive(Default, Deserialize, Serialize)]
struct Blank {}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct OutlineVolume {
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Blank>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct OutlineAffinity {
    #[serde(skip_serializing_if = "Option::is_none")]
    node_affinity: Option<OutlineNodeAffinity>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct OutlineNodeAffinity {
    #[serde(skip_serializing_if = "Option::is_none")]
    required_during_scheduling_ignored_during_execution: Option<OutlineTerms>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct OutlineTerms {
    #[serde(deserialize_with = "bounded::list")]
    node_selector_terms: Vec<OutlineTerm>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct OutlineTerm {
    #[serde(deserialize_with = "bounded::list")]
    match_expressions: Vec<Expression>,
}

/// All that the API has of one.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Expression {
    key: String,
    operator: String,
    #[serde(deserialize_with = "bounded::list", skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
}

/// The patch; `None` where the pod has not what the change speaks of.
pub fn patch(pod: &Value, rescued: &Rescued) -> Option<Patch> {
    let operations = match rescued {
        Rescued::Pin(pin) => pin_operations(pod, &pin.requirement, &pin.add_to)?,
        Rescued::Pull(places) => {
            let paths = policy_paths(pod);
            places.iter().map(|place| Some(add(paths.get(*place)?, json!("IfNotPresent")))).collect::<Option<_>>()?
        }
    };
    Some(Patch(operations))
}

/// `add` on a member of an object replaces what is there, so a patch applied twice is a patch applied once.
fn add(path: &[String], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path), value })
}

fn words(path: &[&str]) -> Vec<String> {
    path.iter().map(|&word| word.to_owned()).collect()
}

fn policy_paths(pod: &Value) -> Vec<Vec<String>> {
    let length = |field: &str| pod.pointer(&format!("/spec/{field}")).and_then(Value::as_array).map_or(0, Vec::len);
    let mut paths = Vec::new();
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for index in 0..length(field) {
            paths.push(words(&["spec", field, &index.to_string(), "imagePullPolicy"]));
        }
    }
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    for (index, volume) in volumes.into_iter().flatten().enumerate() {
        if volume.get("image").is_some_and(Value::is_object) {
            paths.push(words(&["spec", "volumes", &index.to_string(), "image", "pullPolicy"]));
        }
    }
    paths
}

fn pin_operations(pod: &Value, requirement: &Requirement, add_to: &PinTo) -> Option<Vec<PatchOperation>> {
    let requirement = requirement_json(requirement);
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    match add_to {
        PinTo::NewTerm => {
            // The nearest parent that is there; what lies below it is made with the term.
            let mut value = json!({"nodeSelectorTerms": [{"matchExpressions": [requirement]}]});
            let steps = ["spec", "affinity", "nodeAffinity", REQUIRED];
            let mut depth = steps.len();
            while depth > 2 {
                let parent = format!("/{}", steps.get(..depth - 1)?.join("/"));
                if pod.pointer(&parent).is_some_and(Value::is_object) {
                    break;
                }
                depth -= 1;
                value = json!({ *steps.get(depth)?: value });
            }
            Some(vec![add(&words(steps.get(..depth)?), value)])
        }
        PinTo::Terms(places) => places
            .iter()
            .map(|place| {
                let term =
                    words(&["spec", "affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms", &place.to_string()]);
                let at = format!("/{}/matchExpressions", term.join("/"));
                let mut expressions = pod.pointer(&at).and_then(Value::as_array).cloned().unwrap_or_default();
                expressions.push(requirement.clone());
                let path: Vec<String> = term.into_iter().chain(["matchExpressions".to_owned()]).collect();
                Some(add(&path, Value::Array(expressions)))
            })
            .collect(),
    }
}

fn requirement_json(requirement: &Requirement) -> Value {
    let key = &requirement.key;
    match &requirement.operator {
        Operator::In(values) => json!({"key": key, "operator": "In", "values": values}),
        Operator::NotIn(values) => json!({"key": key, "operator": "NotIn", "values": values}),
        Operator::Exists => json!({"key": key, "operator": "Exists"}),
        Operator::DoesNotExist => json!({"key": key, "operator": "DoesNotExist"}),
        Operator::Gt(bound) => json!({"key": key, "operator": "Gt", "values": [bound.to_string()]}),
        Operator::Lt(bound) => json!({"key": key, "operator": "Lt", "values": [bound.to_string()]}),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::core::rescue::Pin;

    fn pin(add_to: PinTo) -> Rescued {
        let operator = Operator::In(BTreeSet::from(["node-a".to_owned()]));
        let requirement = Requirement { key: "kubernetes.io/hostname".into(), operator };
        Rescued::Pin(Pin { nodes: vec!["node-a".into()], requirement, add_to })
    }

    fn applied(mut pod: Value, patch: &Patch) -> Value {
        json_patch::patch(&mut pod, patch).expect("the patch holds");
        pod
    }

    const TERMS: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

    #[test]
    fn a_pin_makes_the_parents_that_are_missing_and_is_the_same_when_applied_twice() {
        for pod in [
            json!({"spec": {}}),
            json!({"spec": {"affinity": {}}}),
            json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}}}),
        ] {
            let patch = patch(&pod, &pin(PinTo::NewTerm)).expect("a patch");
            let once = applied(pod, &patch);
            assert_eq!(once.pointer(&format!("{TERMS}/0/matchExpressions/0/values/0")), Some(&json!("node-a")));
            assert_eq!(applied(once.clone(), &patch), once);
        }
    }

    #[test]
    fn a_pin_is_added_to_what_a_term_asks_for_already() {
        let pod = json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]}}}}});
        let patch = patch(&pod, &pin(PinTo::Terms(vec![0]))).expect("a patch");
        let once = applied(pod, &patch);
        assert_eq!(once.pointer(&format!("{TERMS}/0/matchExpressions/0/key")), Some(&json!("gpu")));
        assert_eq!(once.pointer(&format!("{TERMS}/0/matchExpressions/1/values/0")), Some(&json!("node-a")));
        assert_eq!(applied(once.clone(), &patch), once);
    }

    #[test]
    fn the_outline_of_a_pod_gives_the_very_patch_that_the_whole_pod_gives() {
        let required = json!({"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "gpu", "operator": "Exists"}, {"key": "a", "operator": "In", "values": ["b", "c"]}]},
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
            {"matchExpressions": null}]});
        let node_affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": required,
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]});
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [{"name": "i"}], "containers": [{"name": "m", "env": [{"name": "A"}]}],
            "ephemeralContainers": [{"name": "e"}],
            "volumes": [{"name": "w"}, {"name": "v", "image": {"reference": "v:1"}}, {"name": "n", "image": null}],
            "affinity": {"podAffinity": {}, "nodeAffinity": node_affinity}}});
        let slim = outline(&pod.to_string()).expect("a pod");
        assert!(slim.to_string().len() < pod.to_string().len());
        for rescued in [Rescued::Pull(vec![0, 1, 2, 3]), pin(PinTo::Terms(vec![0, 1, 2])), pin(PinTo::NewTerm)] {
            assert_eq!(patch(&slim, &rescued), patch(&pod, &rescued), "{rescued:?}");
        }
        for affinity in [json!({}), json!(null), json!({"nodeAffinity": {}}), json!({"nodeAffinity": null})] {
            let pod = json!({"spec": {"affinity": affinity, "containers": null}});
            let slim = outline(&pod.to_string()).expect("a pod");
            let rescued = pin(PinTo::NewTerm);
            assert_eq!(patch(&slim, &rescued), patch(&pod, &rescued), "{pod}");
        }
    }

    #[test]
    fn pulling_is_allowed_to_the_containers_that_are_meant_image_volumes_included() {
        let pod = json!({"spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "m"}],
            "volumes": [{"name": "w"}, {"name": "v", "image": {"reference": "v:1", "pullPolicy": "Never"}}]}});
        let patch = patch(&pod, &Rescued::Pull(vec![1, 2])).expect("a patch");
        let after = applied(pod, &patch);
        assert_eq!(after.pointer("/spec/containers/0/imagePullPolicy"), Some(&json!("IfNotPresent")));
        assert_eq!(after.pointer("/spec/volumes/1/image/pullPolicy"), Some(&json!("IfNotPresent")));
        assert_eq!(after.pointer("/spec/initContainers/0/imagePullPolicy"), None);
    }
}
