//! What a webhook that fails closed could lock out, and the safeguards that keep it from that.
//!
//! Enters: the webhooks of an installation, and the namespaces that a cluster repairs itself in. Leaves: a line a safeguard,
//! and one that says what they prove together. The classic disaster is a webhook that blocks the pods that would answer it;
//! the next one blocks what the control plane, a node or a person needs to repair the cluster (ADR 0004).
//!
//! Expressions in CEL are not evaluated: one that is word for word what this version ships is known, any other proves nothing.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::{RuleWithOperations, ValidatingWebhookConfiguration};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::ResourceExt;

use super::hook::{Hook, NAMES, names};
use super::line::{Line, Status};
use super::site::Site;
use crate::core::selector::Labels;

const SHIPPED: &str = include_str!("../../../manifests/base/webhook.yaml");
const APPLY: &str = "Apply manifests/base/webhook.yaml of this version.";

/// All that our rules may name: what holds images. Nothing of it is needed for a node to join, a lease to be renewed, or a
/// person to log in.
const JUDGED: &[(&str, &[&str])] = &[
    ("", &["pods", "pods/ephemeralcontainers"]),
    ("apps", &["deployments", "replicasets", "statefulsets", "daemonsets"]),
    ("batch", &["jobs", "cronjobs"]),
];
/// Deleting, and looking into a pod, are how people repair.
const OPERATIONS: [&str; 2] = ["CREATE", "UPDATE"];
/// Each creation of a pod may have to wait so long, and longer is an outage of its own.
const LONGEST_WAIT: i32 = 5;
/// What stands for pods that a node cannot do without.
const CRITICAL: [&str; 2] = ["system-node-critical", "system-cluster-critical"];

pub(super) fn examine(site: &Site, lines: &mut Vec<Line>) {
    lines.push(exempt_namespaces(&site.hooks, site));
    lines.push(rules(&site.hooks));
    lines.push(conditions(&site.hooks));
    lines.push(timeouts(&site.hooks));
    match &site.daemon_sets {
        // Without them a proof would have a hole; where nothing fails closed it is of no interest.
        Err(gap) if site.fails_closed() => lines.push(gap.line("node-critical pods")),
        Err(_) => {}
        Ok(sets) => lines.extend(critical(&site.hooks, sets, &site.namespaces)),
    }
}

/// What the safeguards, all of them, come to.
pub(super) fn proof(hooks: &[Hook], safeguards: &[Line]) -> Line {
    const CHECK: &str = "lock-out";
    let closed: Vec<&Hook> = hooks.iter().filter(|hook| hook.fails_closed()).collect();
    if closed.is_empty() {
        return Line::ok(CHECK, "all webhooks fail open: while no replica answers, pods pass unjudged");
    }
    let closed = names(closed);
    let worst = safeguards.iter().map(|line| line.status).max().unwrap_or(Status::Ok);
    if worst == Status::Ok {
        return Line::ok(CHECK, format!("{closed} fail closed, and cannot lock the cluster out: each safeguard holds"));
    }
    let amiss: Vec<&str> = safeguards.iter().filter(|line| line.status != Status::Ok).map(|line| line.check).collect();
    Line::new(
        CHECK,
        worst,
        format!(
            "{closed} fail closed, and it is not proven that they cannot lock the cluster out: see {}",
            amiss.join(", ")
        ),
        "Mend these, or apply manifests/ without the overlay fail-closed until they are mended.",
    )
}

/// How bad something is that some webhooks have: it may stop the cluster only where they fail closed.
fn severity<'a>(hooks: impl IntoIterator<Item = &'a Hook>) -> Status {
    if hooks.into_iter().any(Hook::fails_closed) { Status::Fail } else { Status::Warn }
}

pub(super) fn configured(hooks: &[Hook]) -> Line {
    const CHECK: &str = "webhooks";
    let missing: Vec<&str> = NAMES.into_iter().filter(|name| !hooks.iter().any(|hook| hook.name() == *name)).collect();
    if missing.is_empty() {
        return Line::ok(CHECK, format!("configured: {}", names(hooks)));
    }
    Line::fail(CHECK, format!("not configured, so that nothing is judged by them: {}", missing.join(", ")), APPLY)
}

fn exempt_namespaces(hooks: &[Hook], site: &Site) -> Line {
    const CHECK: &str = "exempt namespaces";
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut reaching: Vec<&Hook> = Vec::new();
    for hook in hooks {
        let called: Vec<&str> =
            site.exempt().filter(|(_, labels)| hook.is_called_in(labels)).map(|(name, _)| name).collect();
        if !called.is_empty() {
            reaching.push(hook);
            reached.extend(called);
        }
    }
    if reaching.is_empty() {
        let all: Vec<&str> = site.exempt().map(|(name, _)| name).collect();
        return Line::ok(CHECK, format!("no webhook is called for {}", all.join(", ")));
    }
    let (reached, webhooks) = (reached.into_iter().collect::<Vec<_>>().join(", "), names(reaching.iter().copied()));
    Line::new(
        CHECK,
        severity(reaching),
        format!("{webhooks}: called for {reached}, where the cluster and Pullguard repair themselves"),
        format!(
            "Let the namespaceSelector exclude kube-system, kube-public, kube-node-lease and {}. {APPLY}",
            site.namespace
        ),
    )
}

fn rules(hooks: &[Hook]) -> Line {
    const CHECK: &str = "rules";
    let mut amiss = Vec::new();
    let mut of: Vec<&Hook> = Vec::new();
    for hook in hooks {
        let too_wide: Vec<String> = hook.rules().flat_map(too_wide).collect();
        if !too_wide.is_empty() {
            amiss.push(format!("{}: {}", hook.name(), too_wide.join(", ")));
            of.push(hook);
        }
    }
    if of.is_empty() {
        return Line::ok(CHECK, "only creations and updates of namespaced objects that hold images are judged");
    }
    let message = format!("judged beyond what holds images, so that a repair may be blocked: {}", amiss.join("; "));
    Line::new(CHECK, severity(of), message, format!("Let the rules name what is judged, and nothing else. {APPLY}"))
}

fn too_wide(rule: &RuleWithOperations) -> Vec<String> {
    let mut wide = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        let judged = JUDGED.iter().find(|(name, _)| name == group).map_or(&[][..], |(_, resources)| *resources);
        for resource in rule.resources.iter().flatten().filter(|resource| !judged.contains(&resource.as_str())) {
            wide.push(if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") });
        }
    }
    let operations = rule.operations.iter().flatten().filter(|operation| !OPERATIONS.contains(&operation.as_str()));
    wide.extend(operations.map(|operation| format!("operation {operation}")));
    if rule.scope.as_deref() != Some("Namespaced") {
        wide.push("objects of any scope".to_owned());
    }
    wide
}

/// The conditions that this version ships, by webhook.
fn shipped() -> BTreeMap<String, BTreeMap<String, String>> {
    let configuration: Option<ValidatingWebhookConfiguration> = serde_saphyr::from_str(SHIPPED).ok();
    let webhooks = configuration.and_then(|configuration| configuration.webhooks).unwrap_or_default();
    let conditions = |hook: Hook| {
        let all = hook.webhook.match_conditions.into_iter().flatten();
        all.map(|condition| (condition.name, words(&condition.expression))).collect()
    };
    let hooks = webhooks.into_iter().map(|webhook| Hook { webhook, mutating: false });
    hooks.map(|hook| (hook.name().to_owned(), conditions(hook))).collect()
}

/// An expression without what is blank in it for the eye alone.
fn words(expression: &str) -> String {
    expression.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn conditions(hooks: &[Hook]) -> Line {
    const CHECK: &str = "match conditions";
    let shipped = shipped();
    let mut amiss = Vec::new();
    let mut of: Vec<&Hook> = Vec::new();
    for hook in hooks {
        // The mutating webhook is made from the one of pods, and has its conditions.
        let Some(wanted) = shipped.get(if hook.mutating { "pods.pullguard.dev" } else { hook.name() }) else {
            continue;
        };
        let found = hook.webhook.match_conditions.iter().flatten();
        let found: BTreeMap<&str, String> =
            found.map(|condition| (condition.name.as_str(), words(&condition.expression))).collect();
        let unlike: Vec<String> = wanted
            .iter()
            .filter_map(|(name, expression)| match found.get(name.as_str()) {
                Some(other) if other == expression => None,
                Some(_) => Some(format!("{name} is another expression than this version's")),
                None => Some(format!("{name} is missing")),
            })
            .collect();
        if !unlike.is_empty() {
            amiss.push(format!("{}: {}", hook.name(), unlike.join(", ")));
            of.push(hook);
        }
    }
    if of.is_empty() {
        return Line::ok(
            CHECK,
            "mirrors of static pods, controlled objects and updates that change no image are not judged: a pod that ends is let go",
        );
    }
    let message = format!(
        "without them every update waits for an answer, also that by which a finished pod is let go: {}",
        amiss.join("; ")
    );
    Line::new(CHECK, severity(of), message, APPLY)
}

fn timeouts(hooks: &[Hook]) -> Line {
    const CHECK: &str = "timeout";
    let longest = hooks.iter().map(Hook::timeout).max().unwrap_or_default();
    if longest <= LONGEST_WAIT {
        return Line::ok(CHECK, format!("an answer is waited for {longest} s at most"));
    }
    let slow = names(hooks.iter().filter(|hook| hook.timeout() > LONGEST_WAIT));
    let message = format!("{slow}: so long as nobody answers, each creation waits {longest} s");
    Line::warn(CHECK, message, format!("Set timeoutSeconds to {LONGEST_WAIT}."))
}

/// The pods that give a node its network must not wait for pods that need it.
fn critical(hooks: &[Hook], sets: &[DaemonSet], namespaces: &BTreeMap<String, Labels>) -> Option<Line> {
    const CHECK: &str = "node-critical pods";
    let closed: Vec<&Hook> = hooks.iter().filter(|hook| hook.fails_closed()).collect();
    if closed.is_empty() {
        return None;
    }
    let is_critical = |set: &&DaemonSet| {
        let pod = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        pod.and_then(|pod| pod.priority_class_name.as_deref()).is_some_and(|class| CRITICAL.contains(&class))
    };
    let reached: Vec<String> = sets
        .iter()
        .filter(is_critical)
        .filter(|set| {
            let labels = set.namespace().and_then(|namespace| namespaces.get(&namespace));
            labels.is_none_or(|labels| closed.iter().any(|hook| hook.is_called_in(labels)))
        })
        .map(|set| format!("{}/{}", set.namespace().unwrap_or_default(), set.name_any()))
        .collect();
    Some(if reached.is_empty() {
        Line::ok(CHECK, "no DaemonSet that nodes depend on is judged by a webhook that fails closed")
    } else {
        Line::fail(
            CHECK,
            format!("judged by a webhook that fails closed, though nodes depend on them: {}", reached.join(", ")),
            "Exclude their namespaces in the namespaceSelector of the webhooks: no replica of ours can start on a node without network.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::fixtures::site;
    use serde_json::json;

    fn closed() -> Site {
        site(true)
    }

    /// What becomes of a line when one thing is changed, with webhooks that fail open and closed.
    fn changed(look: fn(&Site) -> Line, change: fn(&mut Hook)) -> (Status, Status) {
        let status = |closed| {
            let mut site = site(closed);
            assert_eq!(look(&site).status, Status::Ok, "{:?}", look(&site));
            site.hooks.first_mut().into_iter().for_each(change);
            look(&site).status
        };
        (status(false), status(true))
    }

    #[test]
    fn what_is_shipped_is_proven_safe_open_and_closed() {
        for closed in [false, true] {
            let site = site(closed);
            let mut lines = Vec::new();
            examine(&site, &mut lines);
            assert!(lines.iter().all(|line| line.status == Status::Ok), "{lines:#?}");
            let proof = proof(&site.hooks, &lines);
            assert_eq!((proof.status, proof.message.contains("cannot lock the cluster out")), (Status::Ok, closed));
        }
    }

    #[test]
    fn a_webhook_that_is_called_for_an_exempt_namespace_is_found() {
        let look = |site: &Site| exempt_namespaces(&site.hooks, site);
        assert_eq!(changed(look, |hook| hook.webhook.namespace_selector = None), (Status::Warn, Status::Fail));
        for name in ["kube-system", "kube-public", "kube-node-lease", "pullguard"] {
            let mut site = closed();
            for hook in &mut site.hooks {
                let others: Vec<&str> = ["kube-system", "kube-public", "kube-node-lease", "pullguard"]
                    .into_iter()
                    .filter(|other| *other != name)
                    .collect();
                let selector = json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": others}]});
                hook.webhook.namespace_selector = serde_json::from_value(selector).expect("a selector");
            }
            let line = look(&site);
            assert_eq!(line.status, Status::Fail);
            assert!(line.message.contains(&format!("called for {name},")), "{}", line.message);
        }
    }

    #[test]
    fn a_label_of_the_operator_may_exempt_too() {
        let mut site = closed();
        for (_, labels) in site.namespaces.iter_mut() {
            labels.insert("pullguard".to_owned(), "off".to_owned());
        }
        for hook in &mut site.hooks {
            let selector = json!({"matchExpressions": [{"key": "pullguard", "operator": "DoesNotExist"}]});
            hook.webhook.namespace_selector = serde_json::from_value(selector).expect("a selector");
        }
        assert_eq!(exempt_namespaces(&site.hooks, &site).status, Status::Ok);
        site.namespaces.get_mut("kube-system").expect("a namespace").remove("pullguard");
        assert_eq!(exempt_namespaces(&site.hooks, &site).status, Status::Fail);
    }

    #[test]
    fn rules_that_reach_what_repairs_the_cluster_are_found() {
        let look = |site: &Site| rules(&site.hooks);
        fn widen(hook: &mut Hook, change: impl Fn(&mut RuleWithOperations)) {
            hook.webhook.rules.iter_mut().flatten().for_each(change);
        }
        let changes: [fn(&mut Hook); 6] = [
            |hook| widen(hook, |rule| rule.resources = Some(vec!["*".into()])),
            |hook| widen(hook, |rule| rule.resources = Some(vec!["pods".into(), "nodes".into()])),
            |hook| widen(hook, |rule| rule.api_groups = Some(vec!["coordination.k8s.io".into()])),
            |hook| widen(hook, |rule| rule.operations = Some(vec!["CREATE".into(), "DELETE".into()])),
            |hook| widen(hook, |rule| rule.operations = Some(vec!["*".into()])),
            |hook| widen(hook, |rule| rule.scope = None),
        ];
        for change in changes {
            assert_eq!(changed(look, change), (Status::Warn, Status::Fail));
        }
    }

    #[test]
    fn a_condition_that_is_missing_or_rewritten_proves_nothing() {
        let look = |site: &Site| conditions(&site.hooks);
        let changes: [fn(&mut Hook); 3] = [
            |hook| hook.webhook.match_conditions = None,
            |hook| hook.webhook.match_conditions.iter_mut().for_each(|conditions| drop(conditions.pop())),
            |hook| {
                hook.webhook.match_conditions.iter_mut().flatten().for_each(|one| one.expression = "true".to_owned())
            },
        ];
        for change in changes {
            assert_eq!(changed(look, change), (Status::Warn, Status::Fail));
        }
        // One more only narrows, and other blanks are the same words.
        let narrowed = |hook: &mut Hook| {
            let conditions = hook.webhook.match_conditions.get_or_insert_default();
            conditions.iter_mut().for_each(|one| one.expression = one.expression.replace(' ', "  \n"));
            conditions
                .push(serde_json::from_value(json!({"name": "mine", "expression": "true"})).expect("a condition"));
        };
        let mut site = closed();
        site.hooks.iter_mut().for_each(narrowed);
        assert_eq!(look(&site).status, Status::Ok);
    }

    #[test]
    fn a_long_wait_is_told() {
        let look = |site: &Site| timeouts(&site.hooks);
        assert_eq!(changed(look, |hook| hook.webhook.timeout_seconds = Some(30)), (Status::Warn, Status::Warn));
        assert_eq!(changed(look, |hook| hook.webhook.timeout_seconds = None), (Status::Warn, Status::Warn));
    }

    #[test]
    fn a_network_plugin_outside_the_system_namespaces_is_found_where_webhooks_fail_closed() {
        let set = |namespace: &str, class: &str| -> DaemonSet {
            serde_json::from_value(json!({"metadata": {"name": "network", "namespace": namespace},
                "spec": {"selector": {}, "template": {"spec": {"containers": [], "priorityClassName": class}}}}))
            .expect("a DaemonSet")
        };
        let mut site = closed();
        for name in ["calico-system", "team"] {
            site.namespaces
                .insert(name.to_owned(), [("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into());
        }
        let look =
            |site: &Site, set: DaemonSet| critical(&site.hooks, &[set], &site.namespaces).map(|line| line.status);
        assert_eq!(look(&site, set("calico-system", "system-node-critical")), Some(Status::Fail));
        assert_eq!(look(&site, set("kube-system", "system-node-critical")), Some(Status::Ok));
        assert_eq!(look(&site, set("team", "batch")), Some(Status::Ok));
        let open = crate::app::doctor::fixtures::site(false);
        assert_eq!(look(&open, set("calico-system", "system-node-critical")), None);
    }

    #[test]
    fn a_webhook_that_is_not_configured_is_named() {
        let mut site = closed();
        assert_eq!(configured(&site.hooks).status, Status::Ok);
        site.hooks.retain(|hook| hook.name() != "templates.pullguard.dev");
        let line = configured(&site.hooks);
        assert!(line.status == Status::Fail && line.message.ends_with(": templates.pullguard.dev"), "{}", line.message);
    }

    #[test]
    fn one_safeguard_that_does_not_hold_undoes_the_proof() {
        let site = closed();
        let proven = proof(&site.hooks, &[Line::ok("a", "b"), Line::warn("timeout", "b", "c")]);
        assert_eq!(proven.status, Status::Warn);
        assert!(proven.message.ends_with("see timeout"), "{}", proven.message);
        assert_eq!(proof(&site.hooks, &[Line::fail("rules", "b", "c")]).status, Status::Fail);
    }
}
