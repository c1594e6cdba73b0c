//! The policies in force, the nodes whose lists prove nothing, and whether somebody leads.
//!
//! Enters: policies, nodes, the Lease. Leaves: lines.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::line::{Line, Seen, Status};
use crate::core::inventory::MAX_NAMES;
use crate::core::node::NodeFacts;
use crate::core::policy::{Action, ImageLimit, Policy};
use crate::k8s;
use crate::k8s::crd::NodeImagePolicy;

const POLICIES: &str = "policies";
const NODES: &str = "node lists";
const PRELOADS: &str = "preloads";
const BRAKES: &str = "brakes";
const LEADER: &str = "leader";
/// Of nodes and preloads in one sentence.
const NAMED: usize = 5;
/// A leader writes every 2 s, and after this another takes over.
const SILENCE: SignedDuration = SignedDuration::from_secs(15);

pub(super) fn examine(policies: &Seen<Vec<NodeImagePolicy>>, nodes: &Seen<Vec<Node>>, lines: &mut Vec<Line>) {
    let policies = match policies {
        Err(gap) => return lines.push(gap.line(POLICIES)),
        Ok(policies) => policies,
    };
    if policies.is_empty() {
        lines.push(Line::ok(
            POLICIES,
            "there is no NodeImagePolicy yet: nothing is judged (docs/policy.md has a first one)",
        ));
        return;
    }
    for policy in policies {
        lines.push(in_force(policy));
        lines.extend(reported(policy));
    }
    match nodes {
        Err(gap) => lines.push(gap.line(NODES)),
        Ok(nodes) => {
            let nodes: Vec<NodeFacts> = nodes.iter().cloned().map(k8s::node::facts).collect();
            // One that cannot be compiled was told of above.
            let compiled = policies.iter().filter_map(|policy| k8s::policy::compile(policy).ok());
            lines.extend(compiled.map(|policy| listed(&policy, &nodes)));
        }
    }
}

/// `later`: the Lease some seconds after. Clocks of machines differ, so a renewal that is seen counts more than its time.
pub(super) fn leader(lease: &Seen<Option<Lease>>, later: Option<&Lease>, now: Timestamp) -> Line {
    let lease = match lease {
        Err(gap) => return gap.line(LEADER),
        Ok(lease) => lease.as_ref(),
    };
    let remedy = "See the log of the replicas that have the role controller.";
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
    let Some(holder) = holder else {
        return Line::fail(LEADER, "no replica leads: pull failures are not acted on", remedy);
    };
    let moved = |later: &Lease| {
        later.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()) != spec.and_then(|spec| spec.renew_time.as_ref())
    };
    if is_fresh(lease, now) || later.is_some_and(moved) {
        return Line::ok(LEADER, format!("{holder} leads"));
    }
    Line::fail(
        LEADER,
        format!("{holder} holds the lease, but no longer renews it: pull failures are not acted on"),
        remedy,
    )
}

/// Whether the Lease was renewed by our own clock just now.
pub(super) fn is_fresh(lease: Option<&Lease>, now: Timestamp) -> bool {
    let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref());
    renewed.is_some_and(|renewed| now.duration_since(renewed.0).abs() < SILENCE)
}

fn in_force(policy: &NodeImagePolicy) -> Line {
    let name = policy.name_any();
    if let Err(error) = k8s::policy::compile(policy) {
        let remedy = "Mend the field; until then each replica holds to the last generation that it could compile since its start.";
        return Line::fail(POLICIES, format!("{name} cannot be compiled: {error}"), remedy);
    }
    let status = policy.status.as_ref();
    let log = "See the log of the leading replica.";
    if status.and_then(|status| status.observed_generation) != policy.metadata.generation {
        return Line::fail(POLICIES, format!("{name}: its newest generation has not been taken up"), log);
    }
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => Line::ok(POLICIES, format!("{name} is in force")),
        Some(ready) => Line::fail(POLICIES, format!("{name} is not in force: {}", ready.message), "Mend the policy."),
        None => Line::fail(POLICIES, format!("{name} has no condition Ready"), log),
    }
}

/// What the controller has written on a policy's status for a person to see.
fn reported(policy: &NodeImagePolicy) -> Vec<Line> {
    let name = policy.name_any();
    let Some(status) = &policy.status else { return Vec::new() };
    let mut lines = Vec::new();
    if !status.contradicted_preloads.is_empty() {
        let preloads =
            status.contradicted_preloads.iter().map(|preload| format!("{} on {}", preload.image, preload.node));
        lines.push(Line::warn(
            PRELOADS,
            format!("{name}: kubelets say that preloaded images are not there: {}", some(preloads.collect())),
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

/// Whether the lists of a policy's nodes can prove that an image is absent.
fn listed(policy: &Policy, nodes: &[NodeFacts]) -> Line {
    let name = &policy.name;
    let matched: Vec<&NodeFacts> = nodes.iter().filter(|node| policy.nodes.matches(&node.labels)).collect();
    if matched.is_empty() {
        return Line::warn(NODES, format!("{name} matches no node, so presence is never known"), "Mend spec.nodes.");
    }
    let limit = match policy.node_image_limit {
        ImageLimit::AtMost(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        ImageLimit::Unlimited => usize::MAX,
    };
    let of = |is: &dyn Fn(&NodeFacts) -> bool| -> Vec<String> {
        matched.iter().filter(|node| is(node)).map(|node| node.name.clone()).collect()
    };
    let cut = of(&|node| node.images.len() >= limit);
    let named = of(&|node| node.images.iter().any(|names| names.len() >= MAX_NAMES));
    // Where nothing hangs on absence, a list that does not prove it harms nobody.
    let rules = policy.presence;
    let status = if rules.on_absent == Action::Allow || rules.elastic { Status::Warn } else { Status::Fail };
    let all = matched.len();
    if !cut.is_empty() {
        let message = format!(
            "{name}: {} of {all} nodes list {limit} images (nodeImageLimit) or more, so that what they do not list may be there all the same: {}",
            cut.len(),
            some(cut),
        );
        let remedy = "Set nodeStatusMaxImages to -1 in these kubelets' configuration and nodeImageLimit to -1 in the policy, or both to a larger number.";
        return Line::new(NODES, status, message, remedy);
    }
    if !named.is_empty() {
        let message = format!(
            "{name}: {} of {all} nodes list an image under {MAX_NAMES} names, as many as a kubelet tells, so that a name they do not list may be there all the same: {}",
            named.len(),
            some(named),
        );
        return Line::new(NODES, status, message, "Remove names of these images from the nodes that nobody needs.");
    }
    Line::ok(NODES, format!("{name}: the lists of all {all} nodes are complete"))
}

/// The first of some names, and how many more there are.
fn some(names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let first: Vec<String> = names.into_iter().take(NAMED).collect();
    if more > 0 { format!("{} and {more} more", first.join(", ")) } else { first.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::line::Gap;
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
        for (spec, status, expected) in [
            (json!({}), ready("True"), Status::Ok),
            (json!({}), ready("False"), Status::Fail),
            (json!({}), json!({"observedGeneration": 1}), Status::Fail),
            (json!({}), json!({"observedGeneration": 2}), Status::Fail),
            (json!({"allowedImages": []}), ready("True"), Status::Fail),
        ] {
            assert_eq!(in_force(&policy(spec, status)).status, expected);
        }
    }

    #[test]
    fn what_a_status_says_of_preloads_and_brakes_is_told() {
        let mut status = ready("True");
        status["contradictedPreloads"] = json!([{"image": "a:1", "node": "n1"}]);
        status["brakes"] = json!(["registry r: Outage"]);
        let told: Vec<&str> = reported(&policy(json!({}), status)).iter().map(|line| line.check).collect();
        assert_eq!(told, [PRELOADS, BRAKES]);
    }

    fn node(name: &str, images: usize, names: usize) -> NodeFacts {
        let images: Vec<Value> = (0..images)
            .map(|image| json!({"names": (0..names).map(|name| format!("docker.io/library/i{image}:{name}")).collect::<Vec<_>>()}))
            .collect();
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": name}, "status": {"images": images}})).expect("a node");
        k8s::node::facts(node)
    }

    fn of(spec: Value, nodes: &[NodeFacts]) -> Line {
        listed(&k8s::policy::compile(&policy(spec, Value::Null)).expect("compiles"), nodes)
    }

    #[test]
    fn a_list_that_proves_no_absence_is_told_with_its_node() {
        let nodes = [node("a", 3, 1), node("b", 2, 1)];
        let line = of(json!({"nodeImageLimit": 3}), &nodes);
        assert_eq!(line.status, Status::Fail);
        assert!(line.message.contains("1 of 2 nodes") && line.message.ends_with(": a"), "{}", line.message);
        assert_eq!(of(json!({"nodeImageLimit": 2}), &nodes).message.rsplit(": ").next(), Some("a, b"));
        assert_eq!(of(json!({}), &nodes).status, Status::Ok);
        assert_eq!(of(json!({"nodeImageLimit": -1}), &nodes).status, Status::Ok);
        let line = of(json!({}), &[node("a", 1, 4), node("b", 1, 5)]);
        assert!(line.status == Status::Fail && line.message.ends_with(": b"), "{}", line.message);
    }

    #[test]
    fn where_nothing_hangs_on_absence_a_short_list_only_warns() {
        let nodes = [node("a", 3, 1)];
        for presence in [json!({"elastic": true}), json!({"onAbsent": "Allow"})] {
            assert_eq!(of(json!({"nodeImageLimit": 3, "presence": presence}), &nodes).status, Status::Warn);
        }
        assert_eq!(of(json!({"nodes": {"matchLabels": {"pool": "none"}}}), &nodes).status, Status::Warn);
    }

    #[test]
    fn a_leader_is_one_that_renews_its_lease_whatever_the_clocks_say() {
        let lease = |renewed: &str| -> Lease {
            serde_json::from_value(json!({"spec": {"holderIdentity": "pullguard-1", "renewTime": renewed}}))
                .expect("a lease")
        };
        let (fresh, old, older) =
            ("2027-01-15T07:59:50.000000Z", "2027-01-15T07:00:02.000000Z", "2027-01-15T07:00:00.000000Z");
        assert_eq!(leader(&Ok(None), None, now()).status, Status::Fail);
        assert_eq!(leader(&Ok(Some(lease(fresh))), None, now()).status, Status::Ok);
        assert_eq!(leader(&Ok(Some(lease(older))), Some(&lease(older)), now()).status, Status::Fail);
        assert_eq!(leader(&Ok(Some(lease(older))), Some(&lease(old)), now()).status, Status::Ok, "its clock is late");
        assert!(!leader(&Err(Gap::refused("no")), None, now()).looked);
    }

    #[test]
    fn without_a_policy_nothing_is_amiss() {
        let mut lines = Vec::new();
        examine(&Ok(Vec::new()), &Ok(Vec::new()), &mut lines);
        assert!(matches!(lines.as_slice(), [line] if line.status == Status::Ok), "{lines:?}");
    }
}
