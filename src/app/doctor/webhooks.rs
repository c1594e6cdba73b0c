//! Whether the webhooks are reached, and what they could lock out.
//!
//! Enters: the webhook configurations, the replicas behind them, the labels of namespaces that a cluster cannot be without.
//! Leaves: lines. The classic disaster is a webhook that fails closed and blocks the pod that would answer it: each way to
//! get there is looked at.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::scene::{Reach, Scene};
use super::Line;
use crate::core::selector::{Labels, Operator, Requirement, Selector};

const CONFIGURED: &str = "webhook";
const REACH: &str = "webhook reach";
const REPLICAS: &str = "replicas";
const LOCK_OUT: &str = "lock-out";
const COST: &str = "webhook cost";
/// As we install them.
const WEBHOOKS: [&str; 3] = ["pods.pullguard.dev", "templates.pullguard.dev", "cronjobs.pullguard.dev"];
const APPLY: &str = "Apply manifests/base/webhook.yaml of this version.";

/// A webhook of ours, mutating or validating.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hook {
    pub name: String,
    /// What happens if nobody answers: the request fails, or goes on.
    pub fails_closed: bool,
    pub timeout: i32,
    pub namespaces: LabelSelector,
    pub rules: Vec<RuleWithOperations>,
    /// Names of its `matchConditions`.
    pub conditions: BTreeSet<String>,
    pub ca_bundle: Vec<u8>,
}

pub(super) fn hooks(
    validating: Option<&ValidatingWebhookConfiguration>,
    mutating: Option<&MutatingWebhookConfiguration>,
) -> Vec<Hook> {
    let validating = validating.iter().flat_map(|configuration| configuration.webhooks.iter().flatten()).map(|webhook| Hook {
        name: webhook.name.clone(),
        fails_closed: fails_closed(webhook.failure_policy.as_deref()),
        timeout: webhook.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT),
        namespaces: webhook.namespace_selector.clone().unwrap_or_default(),
        rules: webhook.rules.clone().unwrap_or_default(),
        conditions: webhook.match_conditions.iter().flatten().map(|condition| condition.name.clone()).collect(),
        ca_bundle: ca_bundle(&webhook.client_config),
    });
    let mutating = mutating.iter().flat_map(|configuration| configuration.webhooks.iter().flatten()).map(|webhook| Hook {
        name: webhook.name.clone(),
        fails_closed: fails_closed(webhook.failure_policy.as_deref()),
        timeout: webhook.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT),
        namespaces: webhook.namespace_selector.clone().unwrap_or_default(),
        rules: webhook.rules.clone().unwrap_or_default(),
        conditions: webhook.match_conditions.iter().flatten().map(|condition| condition.name.clone()).collect(),
        ca_bundle: ca_bundle(&webhook.client_config),
    });
    validating.chain(mutating).collect()
}

/// The API's own defaults.
const DEFAULT_TIMEOUT: i32 = 10;

fn fails_closed(policy: Option<&str>) -> bool {
    policy != Some("Ignore")
}

fn ca_bundle(client: &WebhookClientConfig) -> Vec<u8> {
    client.ca_bundle.as_ref().map(|bundle| bundle.0.clone()).unwrap_or_default()
}

pub(super) fn examine(scene: &Scene, lines: &mut Vec<Line>) {
    let (validating, mutating) = match (&scene.validating, &scene.mutating) {
        (Err(why), _) | (_, Err(why)) => return lines.push(Line::unread(CONFIGURED, why)),
        (Ok(validating), Ok(mutating)) => (validating.as_ref(), mutating.as_ref()),
    };
    let hooks = hooks(validating, mutating);
    lines.push(configured(&hooks));
    lines.push(reached(&scene.reach));
    let closed = hooks.iter().any(|hook| hook.fails_closed);
    match &scene.slices {
        Err(why) => lines.push(Line::unread(REPLICAS, why)),
        Ok(slices) => lines.push(replicas(slices, closed)),
    }
    for hook in &hooks {
        lines.push(lock_out(hook, &scene.namespaces, &scene.namespace));
        lines.extend(cost(hook));
    }
    if closed {
        match &scene.deployment {
            Err(why) => lines.push(Line::unread(LOCK_OUT, why)),
            Ok(deployment) => lines.extend(deployment.as_ref().and_then(priority)),
        }
        match &scene.budgets {
            Err(why) => lines.push(Line::unread(LOCK_OUT, why)),
            Ok(budgets) if budgets.is_empty() => lines.push(Line::warn(
                LOCK_OUT,
                "no PodDisruptionBudget guards the replicas: draining nodes may take all of them at once",
                "Apply manifests/base/deployment.yaml of this version.",
            )),
            Ok(_) => {}
        }
    }
}

fn configured(hooks: &[Hook]) -> Line {
    let missing: Vec<&str> =
        WEBHOOKS.into_iter().filter(|name| !hooks.iter().any(|hook| hook.name == *name)).collect();
    if missing.is_empty() {
        Line::ok(CONFIGURED, format!("all {} webhooks are configured", hooks.len()))
    } else {
        Line::fail(CONFIGURED, format!("not configured, so nothing is judged: {}", missing.join(", ")), APPLY)
    }
}

fn reached(reach: &Reach) -> Line {
    match reach {
        Reach::Answered => Line::ok(REACH, "the API server reaches the webhook through its Service"),
        Reach::Unreached(words) => Line::fail(
            REACH,
            format!("the API server does not reach the webhook: {words}"),
            "See whether replicas are ready, and whether a NetworkPolicy or a firewall keeps the control plane from port 8443 of their pods.",
        ),
        Reach::Untried(words) => Line::warn(
            REACH,
            format!("not tried: {words}"),
            "Run doctor as somebody who may get services/proxy in Pullguard's namespace.",
        ),
    }
}

fn replicas(slices: &[EndpointSlice], closed: bool) -> Line {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let ready: Vec<_> = endpoints
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true))
        .collect();
    let nodes: BTreeSet<&str> = ready.iter().filter_map(|endpoint| endpoint.node_name.as_deref()).collect();
    let remedy = "Scale the Deployment to two replicas or more, on different nodes.";
    match (ready.len(), closed) {
        (0, true) => Line::fail(REPLICAS, "no replica is ready and the webhooks fail closed: no pod can be created", "See the replicas' log; until they run, apply manifests/ without the overlay fail-closed."),
        (0, false) => Line::fail(REPLICAS, "no replica is ready: nothing is judged", "See the replicas' log."),
        (1, true) => Line::fail(REPLICAS, "one replica is ready and the webhooks fail closed: while it restarts no pod can be created", remedy),
        (1, false) => Line::warn(REPLICAS, "one replica is ready: while it restarts nothing is judged", remedy),
        (_, true) if nodes.len() == 1 => {
            Line::warn(REPLICAS, "all replicas are on one node and the webhooks fail closed: when it fails no pod can be created", remedy)
        }
        (ready, _) => Line::ok(REPLICAS, format!("{ready} replicas are ready")),
    }
}

/// Whether the webhook is called for a namespace whose pods must start for anything to work.
fn lock_out(hook: &Hook, namespaces: &BTreeMap<String, Labels>, own: &str) -> Line {
    let reached: Vec<&str> = match selector(&hook.namespaces) {
        None => Vec::new(),
        Some(selector) => {
            let reached = namespaces.iter().filter(|(_, labels)| selector.matches(labels));
            reached.map(|(name, _)| name.as_str()).collect()
        }
    };
    let name = &hook.name;
    if reached.is_empty() {
        let answers = if hook.fails_closed { "fails closed, and " } else { "" };
        return Line::ok(LOCK_OUT, format!("webhook {name} {answers}is not called for system namespaces and its own"));
    }
    let reached = reached.join(", ");
    let remedy = format!("Let its namespaceSelector exclude kube-system, kube-public, kube-node-lease and {own}. {APPLY}");
    if hook.fails_closed {
        let message = format!("webhook {name} fails closed and is called for {reached}: without a replica none can be created");
        Line::fail(LOCK_OUT, message, remedy)
    } else {
        Line::warn(LOCK_OUT, format!("webhook {name} is called for {reached}, which it always allows"), remedy)
    }
}

/// A selector of the API; `None` if it matches nothing, as one that cannot be read.
fn selector(selector: &LabelSelector) -> Option<Selector> {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| {
        Some(Requirement { key: key.clone(), operator: Operator::In(BTreeSet::from([value.clone()])) })
    });
    let expressions = selector.match_expressions.iter().flatten().map(|expression| {
        let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
        let operator = match expression.operator.as_str() {
            "In" => Operator::In(values),
            "NotIn" => Operator::NotIn(values),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => return None,
        };
        Some(Requirement { key: expression.key.clone(), operator })
    });
    Some(Selector::new(labels.chain(expressions).collect::<Option<Vec<_>>>()?))
}

/// What makes every request of a cluster slower than it need be.
fn cost(hook: &Hook) -> Vec<Line> {
    let mut lines = Vec::new();
    let name = &hook.name;
    if hook.timeout > DEFAULT_TIMEOUT {
        let message = format!("webhook {name} waits up to {} s: so long may each creation of a pod take", hook.timeout);
        lines.push(Line::warn(COST, message, "Set timeoutSeconds to 5."));
    }
    let all = |list: &Option<Vec<String>>| list.iter().flatten().any(|word| word.starts_with('*'));
    if hook.rules.iter().any(|rule| all(&rule.resources) || all(&rule.api_groups)) {
        let message = format!("webhook {name} is called for all resources, leases and nodes among them");
        let remedy = format!("Let its rules name what is judged. {APPLY}");
        lines.push(if hook.fails_closed { Line::fail(LOCK_OUT, message, remedy) } else { Line::warn(COST, message, remedy) });
    }
    let updates = |rule: &RuleWithOperations| rule.operations.iter().flatten().any(|operation| operation == "UPDATE" || operation == "*");
    if hook.rules.iter().any(updates) && !hook.conditions.contains("images-changed") {
        lines.push(Line::warn(
            COST,
            format!("webhook {name} is called for every update, also where no image changes: the Job controller updates each pod that ends"),
            format!("Give it the matchCondition images-changed. {APPLY}"),
        ));
    }
    lines
}

fn priority(deployment: &Deployment) -> Option<Line> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let class = pod.priority_class_name.as_deref().unwrap_or_default();
    (!class.starts_with("system-")).then(|| {
        Line::warn(
            LOCK_OUT,
            "the webhooks fail closed and the replicas have no system priority class: others may take their place on a full node",
            "Set priorityClassName: system-cluster-critical.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::Status;
    use crate::core::namespace::NAME_LABEL;
    use serde_json::json;

    fn shipped() -> Vec<Hook> {
        let manifest = include_str!("../../../manifests/base/webhook.yaml");
        let configuration: ValidatingWebhookConfiguration = serde_saphyr::from_str(manifest).expect("a configuration");
        hooks(Some(&configuration), None)
    }

    fn namespaces() -> BTreeMap<String, Labels> {
        let names = ["kube-system", "kube-public", "kube-node-lease", "pullguard"];
        names.into_iter().map(|name| (name.to_owned(), Labels::from([(NAME_LABEL.to_owned(), name.to_owned())]))).collect()
    }

    fn slices(endpoints: &[(bool, &str)]) -> Vec<EndpointSlice> {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(ready, node)| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "nodeName": node}))
            .collect();
        vec![serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints})).expect("a slice")]
    }

    #[test]
    fn what_we_ship_is_well_open_and_closed() {
        let mut hooks = shipped();
        for closed in [false, true] {
            for hook in &mut hooks {
                assert_eq!(hook.fails_closed, closed && hook.fails_closed);
                hook.fails_closed = closed;
                assert_eq!(lock_out(hook, &namespaces(), "pullguard").status, Status::Ok, "{}", hook.name);
                assert_eq!(cost(hook), []);
                hook.fails_closed = true;
            }
        }
        assert_eq!(configured(&hooks).status, Status::Ok);
        assert_eq!(configured(&hooks[1..]).status, Status::Fail);
    }

    #[test]
    fn a_webhook_that_fails_closed_on_a_system_namespace_is_a_lock_out() {
        let mut hook = shipped().remove(0);
        hook.namespaces = LabelSelector::default();
        assert_eq!(lock_out(&hook, &namespaces(), "pullguard").status, Status::Warn);
        hook.fails_closed = true;
        let line = lock_out(&hook, &namespaces(), "pullguard");
        assert_eq!(line.status, Status::Fail);
        assert!(line.message.contains("kube-system") && line.message.contains("pullguard"), "{}", line.message);
    }

    #[test]
    fn replicas_are_counted_by_what_can_answer() {
        for (endpoints, closed, status) in [
            (slices(&[]), false, Status::Fail),
            (slices(&[(true, "a"), (false, "b")]), false, Status::Warn),
            (slices(&[(true, "a"), (false, "b")]), true, Status::Fail),
            (slices(&[(true, "a"), (true, "b")]), true, Status::Ok),
            (slices(&[(true, "a"), (true, "a")]), true, Status::Warn),
            (slices(&[(true, "a"), (true, "a")]), false, Status::Ok),
        ] {
            assert_eq!(replicas(&endpoints, closed).status, status, "{endpoints:?} {closed}");
        }
    }

    #[test]
    fn long_waits_wide_rules_and_idle_updates_are_told() {
        let mut hook = shipped().remove(0);
        hook.timeout = 30;
        hook.conditions.clear();
        hook.rules.push(serde_json::from_value(json!({"apiGroups": ["*"], "resources": ["*"], "operations": ["CREATE"]})).expect("a rule"));
        assert_eq!(cost(&hook).len(), 3);
        hook.fails_closed = true;
        assert!(cost(&hook).iter().any(|line| line.status == Status::Fail));
    }
}
