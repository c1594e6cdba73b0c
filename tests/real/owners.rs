//! Pods of other owners than Jobs: services are told of, kinds that a policy lists are marked, and nobody else is touched.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::props::{acting, controlled_by, name_of};
use crate::stage::until;
use crate::world::{Scene, deployment, pod};

crate::scenarios! {
    Nodes:
        services_of_every_kind_are_told_of_and_nothing_of_them_is_changed,
        an_owner_of_a_listed_kind_is_marked_and_its_pods_collected_and_one_of_another_kind_is_not;
}

fn services_of_every_kind_are_told_of_and_nothing_of_them_is_changed(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("2s", json!({"maxAttempts": 1})))?;
    let image = scene.image("node");
    let like = |kind: &str, name: &str| {
        let mut service = deployment(name, &image);
        service["kind"] = json!(kind);
        service
    };
    let mut stateful = like("StatefulSet", "stateful");
    stateful["spec"]["serviceName"] = json!("stateful");
    let mut daemons = like("DaemonSet", "daemons");
    daemons["spec"].as_object_mut().context("an object")?.remove("replicas");
    let services = [like("ReplicaSet", "replicas"), stateful, daemons, like("Deployment", "web")];
    for service in &services {
        scene.created(service)?;
    }
    // A StatefulSet makes its second pod when the first is ready: 2 and 1 and one a node and 2.
    until("all their pods are there", 60, || Ok((scene.list("pods")?.len() == 7).then_some(())))?;
    let before = scene.uids()?;
    for (kind, name) in [("ReplicaSet", "replicas"), ("StatefulSet", "stateful"), ("DaemonSet", "daemons")] {
        let told = scene.until_told("PullPermanentlyFailed", name)?;
        ensure!(told["regarding"]["kind"] == kind && told["action"] == "Report", "{told}");
        let record = scene.record(name, "PermanentlyFailed")?;
        ensure!(record["spec"]["task"]["kind"] == kind, "{}", record["spec"]);
    }
    let web = until("the Deployment's ReplicaSet is told of", 60, || {
        let events = scene.events("controller")?;
        let of_web = |event: &Value| event["regarding"]["name"].as_str().is_some_and(|name| name.starts_with("web-"));
        Ok(events.into_iter().find(of_web))
    })?;
    ensure!(web["regarding"]["kind"] == "ReplicaSet", "{web}");
    sleep(Duration::from_secs(5));
    ensure!(scene.uids()? == before, "other pods than before");
    for pod in scene.list("pods")? {
        ensure!(pod["status"]["phase"] == "Pending" && pod["spec"]["activeDeadlineSeconds"].is_null(), "{pod}");
        scene.unmarked("pod", name_of(&pod))?;
    }
    for service in &services {
        scene.unmarked(service["kind"].as_str().context("a kind")?, name_of(service))?;
    }
    // And no pod of theirs is refused: who serves is never done for.
    let again = controlled_by(pod("again", &image, "Never"), &scene.get("replicaset", "replicas")?);
    scene.try_create(&again)?.accepted_in_silence()
}

const GROUP: &str = "owners.example.org";

/// Two kinds of our own, and the right to mark one of them as the overlay for task kinds gives it. Gone with the scenario.
struct Kinds<'a>(&'a Scene<'a>);

impl<'a> Kinds<'a> {
    fn define(scene: &'a Scene<'a>) -> Result<Self> {
        let this = Self(scene);
        for (kind, plural) in [("Errand", "errands"), ("Chore", "chores")] {
            let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            let definition = json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.{GROUP}")},
                "spec": {"group": GROUP, "scope": "Namespaced",
                    "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                    "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
            });
            scene.kubectl_stdin(&["apply", "-f", "-"], &definition.to_string())?;
        }
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "tests-errands",
                "labels": {"rbac.pullguard.dev/aggregate-to-task-kinds": "true"}},
            "rules": [{"apiGroups": [GROUP], "resources": ["errands"], "verbs": ["get", "patch"]}],
        });
        scene.kubectl_stdin(&["apply", "-f", "-"], &role.to_string())?;
        for plural in ["errands", "chores"] {
            let name = format!("crd/{plural}.{GROUP}");
            scene.ok(&["wait", "--for=condition=Established", &name, "--timeout=30s"])?;
        }
        until("the right is aggregated", 90, || {
            Ok(scene.get("clusterrole", "pullguard-task-kinds")?["rules"].to_string().contains(GROUP).then_some(()))
        })?;
        Ok(this)
    }
}

impl Drop for Kinds<'_> {
    fn drop(&mut self) {
        for gone in
            [format!("crd/errands.{GROUP}"), format!("crd/chores.{GROUP}"), "clusterrole/tests-errands".to_owned()]
        {
            let _gone_with_the_cluster = self.0.kubectl(&["delete", &gone, "--wait=false"]);
        }
    }
}

fn an_owner_of_a_listed_kind_is_marked_and_its_pods_collected_and_one_of_another_kind_is_not(
    scene: &Scene<'_>,
) -> Result<()> {
    let _kinds = Kinds::define(scene)?;
    scene.policy(acting("3s", json!({"taskKinds": [{"group": GROUP, "kind": "Errand"}]})))?;
    let image = scene.image("node");
    for (kind, name) in [("Errand", "errand"), ("Chore", "chore")] {
        let owner = json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": {"name": name}, "spec": {}});
        scene.created(&owner)?;
        let owner = scene.get(&format!("{name}s.{GROUP}"), name)?;
        for number in 0..3 {
            scene.created(&controlled_by(pod(&format!("{name}-{number}"), &image, "Never"), &owner))?;
        }
    }
    let record = scene.record("errand", "PermanentlyFailed")?;
    ensure!(record["spec"]["task"]["kind"] == "Errand", "{}", record["spec"]);
    let told = scene.until_told("PullPermanentlyFailed", "errand")?;
    ensure!(told["action"] == "FailOwner" && told["regarding"]["kind"] == "Errand", "{told}");
    let errand = scene.get(&format!("errands.{GROUP}"), "errand")?;
    ensure!(errand["metadata"]["labels"]["pullguard.dev/state"] == "permanently-failed", "{}", errand["metadata"]);
    ensure!(errand["metadata"]["annotations"]["pullguard.dev/class"] == "NeverPull", "{}", errand["metadata"]);
    // A Pending pod would hold CPU and quota, so none of a listed owner is kept.
    until("the pods of the errand are collected", 60, || {
        let left = scene.list("pods")?.iter().filter(|pod| name_of(pod).starts_with("errand-")).count();
        Ok((left == 0).then_some(()))
    })?;
    scene.until_told("PodsCollected", "errand")?;

    let told = scene.until_told("PullPermanentlyFailed", "chore")?;
    ensure!(told["action"] == "Report", "{told}");
    scene.record("chore", "PermanentlyFailed")?;
    sleep(Duration::from_secs(3));
    let chores: Vec<Value> = scene.list("pods")?.into_iter().filter(|pod| name_of(pod).starts_with("chore-")).collect();
    ensure!(chores.len() == 3, "{} pods of the chore are left", chores.len());
    for pod in &chores {
        ensure!(pod["status"]["phase"] == "Pending" && pod["spec"]["activeDeadlineSeconds"].is_null(), "{pod}");
        scene.unmarked("pod", name_of(pod))?;
    }
    scene.unmarked(&format!("chores.{GROUP}"), "chore")
}
