//! The policies in force, the nodes whose lists prove nothing, and whether somebody leads.
//!
//! Enters: policies, nodes, the Lease. Leaves: lines.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::scene::Scene;
use super::Line;
use crate::core::inventory::{Inventory, Lens};
use crate::core::policy::ImageLimit;
use crate::k8s;
use crate::k8s::crd::NodeImagePolicy;

const DEFINITIONS: &str = "definitions";
const POLICIES: &str = "policies";
const NODES: &str = "node lists";
const PRELOADS: &str = "preloads";
const BRAKES: &str = "brakes";
const LEADER: &str = "leader";
const MOST_NAMES: usize = 5;
/// A leader writes every few seconds.
const SILENCE: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn examine(scene: &Scene, lines: &mut Vec<Line>) {
    match (&scene.policies, &scene.records) {
        (Ok(_), Ok(_)) => lines.push(Line::ok(DEFINITIONS, "NodeImagePolicy and PullFailure are served")),
        (Err(why), _) | (_, Err(why)) => {
            lines.push(Line::fail(DEFINITIONS, why.clone(), "Apply manifests/base/crds.yaml of this version."));
        }
    }
    lines.push(match &scene.lease {
        Err(why) => Line::unread(LEADER, why),
        Ok(lease) => leader(lease.as_ref(), scene.now),
    });
    let Ok(policies) = &scene.policies else { return };
    if policies.is_empty() {
        let remedy = "Begin with one in Audit: docs/ has examples.";
        lines.push(Line::warn(POLICIES, "there is no NodeImagePolicy: nothing is judged", remedy));
    }
    for policy in policies {
        lines.push(in_force(policy));
        lines.extend(reported(policy));
    }
    match &scene.nodes {
        Err(why) => lines.push(Line::unread(NODES, why)),
        Ok(nodes) => {
            let inventory = inventory(nodes, scene.now);
            lines.extend(policies.iter().filter_map(|policy| listed(policy, &inventory)));
        }
    }
}

fn leader(lease: Option<&Lease>, now: Timestamp) -> Line {
    let remedy = "See the log of the replicas that have the role controller.";
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
    match (holder, spec.and_then(|spec| spec.renew_time.as_ref())) {
        (Some(holder), Some(renewed)) => {
            let silent = now.duration_since(renewed.0);
            if silent > SILENCE {
                let message = format!("{holder} leads, but has been silent for {} s: pull failures are not acted on", silent.as_secs());
                Line::fail(LEADER, message, remedy)
            } else {
                Line::ok(LEADER, format!("{holder} leads"))
            }
        }
        (_, _) => Line::fail(LEADER, "no replica leads: pull failures are not acted on", remedy),
    }
}

fn in_force(policy: &NodeImagePolicy) -> Line {
    let name = policy.name_any();
    if let Err(error) = k8s::policy::compile(policy) {
        let remedy = "Mend the field; until then the last generation that could be compiled is in force.";
        return Line::fail(POLICIES, format!("{name} cannot be compiled: {error}"), remedy);
    }
    let status = policy.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    if observed != policy.metadata.generation {
        let remedy = "See the log of the leading replica, if this does not pass within a minute.";
        return Line::warn(POLICIES, format!("{name}: its newest generation has not been taken up yet"), remedy);
    }
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => Line::ok(POLICIES, format!("{name} is in force")),
        Some(ready) => Line::fail(POLICIES, format!("{name} is not in force: {}", ready.message), "Mend the policy."),
        None => Line::warn(POLICIES, format!("{name} has no condition Ready"), "See the log of the leading replica."),
    }
}

/// What the controller has written on a policy's status for a person to see.
fn reported(policy: &NodeImagePolicy) -> Vec<Line> {
    let name = policy.name_any();
    let Some(status) = &policy.status else { return Vec::new() };
    let mut lines = Vec::new();
    if !status.contradicted_preloads.is_empty() {
        let preloads: Vec<String> = status
            .contradicted_preloads
            .iter()
            .take(MOST_NAMES)
            .map(|preload| format!("{} on {}", preload.image, preload.node))
            .collect();
        lines.push(Line::warn(
            PRELOADS,
            format!("{name}: a kubelet says that preloaded images are not there: {}", preloads.join(", ")),
            "Load them, or take them out of preloadedImages.",
        ));
    }
    if !status.brakes.is_empty() {
        lines.push(Line::warn(
            BRAKES,
            format!("{name}: the brake is on, nothing is declared permanent there: {}", status.brakes.join(", ")),
            "See whether these registries and nodes are well; the brake goes off by itself.",
        ));
    }
    lines
}

fn inventory(nodes: &[Node], now: Timestamp) -> Inventory {
    let mut inventory = Inventory::default();
    for node in nodes {
        inventory.apply(k8s::node::facts(node.clone()), now);
    }
    inventory.set_synced(true);
    inventory
}

/// `None`: the policy cannot be compiled, which is told elsewhere.
fn listed(policy: &NodeImagePolicy, inventory: &Inventory) -> Option<Line> {
    let name = policy.name_any();
    let compiled = k8s::policy::compile(policy).ok()?;
    let survey = inventory.survey(&Lens::of(&compiled), MOST_NAMES);
    Some(match (survey.matched_nodes, survey.truncated_nodes) {
        (0, _) => Line::warn(NODES, format!("{name} matches no node: presence is never known"), "Mend spec.nodes."),
        (matched, 0) => Line::ok(NODES, format!("{name}: the lists of all {matched} nodes are complete")),
        (matched, truncated) => {
            let more = truncated.saturating_sub(survey.truncated.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let limit = match compiled.node_image_limit {
                ImageLimit::AtMost(limit) => limit.to_string(),
                ImageLimit::Unlimited => "-1".to_owned(),
            };
            Line::warn(
                NODES,
                format!(
                    "{name}: {truncated} of {matched} nodes list as many images as nodeImageLimit ({limit}) or more, so they prove no absence: {}{more}",
                    survey.truncated.join(", ")
                ),
                "Set nodeStatusMaxImages: -1 in these kubelets' configuration, and nodeImageLimit: -1 in the policy.",
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::Status;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a time")
    }

    fn policy(spec: Value, status: Value) -> NodeImagePolicy {
        serde_json::from_value(json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy",
            "metadata": {"name": "agents", "generation": 2}, "spec": spec, "status": status}))
        .expect("a policy")
    }

    fn ready(status: &str) -> Value {
        json!({"observedGeneration": 2, "conditions": [{"type": "Ready", "status": status, "reason": "r", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    }

    #[test]
    fn a_policy_is_well_when_its_newest_generation_is_in_force() {
        assert_eq!(in_force(&policy(json!({}), ready("True"))).status, Status::Ok);
        assert_eq!(in_force(&policy(json!({}), ready("False"))).status, Status::Fail);
        assert_eq!(in_force(&policy(json!({}), json!({"observedGeneration": 1}))).status, Status::Warn);
        assert_eq!(in_force(&policy(json!({"allowedImages": []}), ready("True"))).status, Status::Fail);
    }

    #[test]
    fn a_list_as_long_as_the_limit_is_told_with_its_node() {
        let images: Vec<Value> = (0..3).map(|image| json!({"names": [format!("docker.io/library/i{image}:1")]})).collect();
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "a"}, "status": {"images": images}})).expect("a node");
        let inventory = inventory(&[node], now());
        let line = listed(&policy(json!({"nodeImageLimit": 3}), Value::Null), &inventory).expect("compiles");
        assert_eq!(line.status, Status::Warn);
        assert!(line.message.contains("1 of 1 nodes") && line.message.ends_with(": a"), "{}", line.message);
        let line = listed(&policy(json!({}), Value::Null), &inventory).expect("compiles");
        assert_eq!(line.status, Status::Ok);
        let nowhere = json!({"nodes": {"matchLabels": {"pool": "none"}}});
        assert_eq!(listed(&policy(nowhere, Value::Null), &inventory).expect("compiles").status, Status::Warn);
    }

    #[test]
    fn a_leader_that_is_silent_does_not_lead() {
        let lease = |renewed: &str| -> Lease {
            serde_json::from_value(json!({"spec": {"holderIdentity": "pullguard-1", "renewTime": renewed}})).expect("a lease")
        };
        assert_eq!(leader(None, now()).status, Status::Fail);
        assert_eq!(leader(Some(&lease("2027-01-15T07:59:50.000000Z")), now()).status, Status::Ok);
        assert_eq!(leader(Some(&lease("2027-01-15T07:00:00.000000Z")), now()).status, Status::Fail);
    }
}
