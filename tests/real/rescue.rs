//! The mutating half: what is changed in a pod so that it runs, and what is never changed.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::stage::until;
use crate::world::{ON_B, Scene, deployment, job, pod};

crate::scenarios! {
    Nodes:
        a_pod_that_may_pull_what_is_allowed_pulls_it_and_runs,
        a_pin_narrows_what_the_pod_asks_for_and_is_made_once;
    NodesAlone: the_mutating_webhook_is_there_while_a_policy_asks_for_it;
}

const KIND: &str = "mutatingwebhookconfiguration";

fn until_registered(scene: &Scene<'_>) -> Result<()> {
    until("the mutating webhook is there", 90, || {
        Ok(scene.kubectl(&["get", KIND, "pullguard"])?.accepted.then_some(()))
    })
}

fn a_pod_that_may_pull_what_is_allowed_pulls_it_and_runs(scene: &Scene<'_>) -> Result<()> {
    let image = scene.cluster.push(&format!("team/{}:1", scene.namespace))?;
    let host = scene.cluster.registry();
    let spec = json!({"rescue": "PullIfNotPresent", "allowedImages": [format!("{host}/team/*")]});
    scene.policy(spec)?;
    until_registered(scene)?;
    let task = pod("task", &image, "Never");
    let policy_of = |pod: &Value| pod["spec"]["containers"][0]["imagePullPolicy"].clone();
    until("the pod is let pull", 90, || {
        let answer =
            scene.kubectl_stdin(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &task.to_string())?;
        Ok(answer.accepted.then_some(()))
    })?;
    scene.created(&task)?;
    let running = scene.until_running("task")?;
    ensure!(policy_of(&running) == "IfNotPresent", "{running}");
    // What the allowlist does not name is denied as it came.
    let denied = scene.try_create(&pod("other", &format!("{host}/evil/app:1"), "Never"))?;
    denied.refused_with(&["ImageNotAllowed"])?;
    // A template keeps what its author wrote; its pods are changed.
    let web = scene.changed(&deployment("web", &image))?;
    ensure!(policy_of(&web["spec"]["template"]) == "Never", "{web}");
    let batch = scene.changed(&job("batch", &image, "Never"))?;
    ensure!(policy_of(&batch["spec"]["template"]) == "Never", "{batch}");
    // Audit and Warn promise to change nothing.
    let spec =
        json!({"rescue": "PullIfNotPresent", "allowedImages": [format!("{host}/team/*")], "enforcement": "Warn"});
    scene.policy(spec)?;
    let mut fresh = task.clone();
    fresh["metadata"]["name"] = json!("fresh");
    fresh["spec"]["containers"][0]["image"] = json!(format!("{host}/team/absent:1"));
    ensure!(policy_of(&scene.changed(&fresh)?) == "Never", "a policy that warns has changed a pod");
    Ok(())
}

fn terms(pod: &Value) -> Value {
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        .clone()
}

fn pin() -> Value {
    json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-b"]})
}

/// A second webhook that asks the same of Pullguard, after the first, for this namespace. It goes when this is dropped.
struct Twin<'a>(&'a Scene<'a>);

impl Drop for Twin<'_> {
    fn drop(&mut self) {
        let _gone_with_the_cluster = self.0.kubectl(&["delete", KIND, &self.0.namespace]);
    }
}

fn twin<'a>(scene: &'a Scene<'a>) -> Result<Twin<'a>> {
    let mut twin = scene.get(KIND, "pullguard")?;
    twin["metadata"] = json!({"name": scene.namespace});
    twin["webhooks"][0]["name"] = json!("twin.pullguard.dev");
    let selector = twin["webhooks"][0]["namespaceSelector"]["matchExpressions"].as_array_mut().context("a selector")?;
    selector.push(json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [scene.namespace]}));
    scene.created(&twin)?;
    Ok(Twin(scene))
}

fn a_pin_narrows_what_the_pod_asks_for_and_is_made_once(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"rescue": "PinToHolders"}))?;
    until_registered(scene)?;
    let _twin = twin(scene)?;
    let task = pod("task", ON_B, "Never");
    until("the pod is pinned", 90, || {
        let answer =
            scene.kubectl_stdin(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &task.to_string())?;
        Ok((answer.accepted && answer.out.contains("node-b")).then_some(()))
    })?;
    // Asked twice, by two webhooks, of which the first has changed the pod: the pin is there once.
    ensure!(terms(&scene.changed(&task)?) == json!([{"matchExpressions": [pin()]}]), "{}", scene.changed(&task)?);

    // What the pod asks for itself stays, in each of its terms; a term that matches nothing goes on matching nothing.
    let linux = json!({"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]});
    let other = json!({"key": "metadata.name", "operator": "NotIn", "values": ["node-z"]});
    let mut choosy = task.clone();
    choosy["spec"]["affinity"] = json!({
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
            [{"matchExpressions": [linux]}, {"matchFields": [other]}, {}]}},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm":
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}}]},
    });
    let changed = scene.changed(&choosy)?;
    let expected =
        json!([{"matchExpressions": [linux, pin()]}, {"matchFields": [other], "matchExpressions": [pin()]}, {}]);
    ensure!(terms(&changed) == expected, "{}", terms(&changed));
    ensure!(!changed["spec"]["affinity"]["podAntiAffinity"].is_null(), "{}", changed["spec"]["affinity"]);

    // Whoever wants another node does not get this one.
    choosy["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions":
            [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-a"]}]}]}}});
    scene.try_create(&choosy)?.refused_with(&["ImageAbsent", "node-a"])?;
    let mut named = task.clone();
    named["spec"]["nodeName"] = json!("node-a");
    scene.try_create(&named)?.refused_with(&["ImageAbsent", "node-a"])?;

    let web = scene.changed(&deployment("web", ON_B))?;
    ensure!(web["spec"]["template"]["spec"]["affinity"].is_null(), "a template was changed: {web}");
    // Where policies do not agree, nothing is changed.
    scene.another_policy(&format!("{}-too", scene.namespace), json!({}))?;
    ensure!(terms(&scene.changed(&task)?).is_null(), "one policy of two asked for it");
    Ok(())
}

fn the_mutating_webhook_is_there_while_a_policy_asks_for_it(scene: &Scene<'_>) -> Result<()> {
    let until_gone = || {
        until("the mutating webhook is gone", 60, || {
            Ok((!scene.kubectl(&["get", KIND, "pullguard"])?.accepted).then_some(()))
        })
    };
    // Policies of scenarios that have just ended may still ask.
    until_gone()?;
    scene.policy(json!({}))?;
    ensure!(!scene.kubectl(&["get", KIND, "pullguard"])?.accepted, "it is there, and no policy asks for it");
    scene.policy(json!({"rescue": "PinToHolders"}))?;
    until_registered(scene)?;
    let webhook = scene.get(KIND, "pullguard")?["webhooks"][0].clone();
    ensure!(webhook["reinvocationPolicy"] == "IfNeeded" && webhook["failurePolicy"] == "Ignore", "{webhook}");
    let operations = webhook["rules"].as_array().into_iter().flatten().map(|rule| &rule["operations"]);
    ensure!(operations.clone().count() > 0 && operations.clone().all(|all| *all == json!(["CREATE"])), "{webhook}");
    // The exemptions are those of the validating webhook.
    let validating = scene.get("validatingwebhookconfiguration", "pullguard")?;
    let pods = validating["webhooks"].as_array().into_iter().flatten().find(|one| one["name"] == "pods.pullguard.dev");
    let pods = pods.context("the webhook of pods")?;
    for field in ["namespaceSelector", "matchConditions"] {
        ensure!(webhook[field] == pods[field], "{field}: {} {}", webhook[field], pods[field]);
    }
    scene.policy(json!({}))?;
    until_gone()
}
