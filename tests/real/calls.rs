//! What Pullguard costs the API server: one call at the creation of a pod or a template, and none for the rest of its life.
//!
//! Counted by the API server itself, for webhooks that have the rules and conditions of the product's and another name, so
//! that other scenarios do not count.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::stage::until;
use crate::world::{ON_BOTH, Scene, condition, cron_job, deployment, job, pod};

crate::scenarios! {
    Nodes: a_healthy_pod_costs_one_call_at_its_creation_and_none_after;
}

const KIND: &str = "validatingwebhookconfiguration";

/// Copies of the product's webhooks, for one namespace. They go when this is dropped.
struct Counted<'a>(&'a Scene<'a>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let _gone_with_the_cluster = self.0.kubectl(&["delete", KIND, &self.0.namespace]);
    }
}

/// Calls by webhook and operation.
type Calls = BTreeMap<(String, String), u64>;

impl<'a> Counted<'a> {
    fn new(scene: &'a Scene<'a>) -> Result<Self> {
        let mut copy = scene.get(KIND, "pullguard")?;
        copy["metadata"] = json!({"name": scene.namespace});
        for webhook in copy["webhooks"].as_array_mut().context("webhooks")? {
            let name = webhook["name"].as_str().context("a name")?;
            webhook["name"] = json!(format!("{}.{}.test", Self::short(name), scene.namespace));
            let selector = webhook["namespaceSelector"]["matchExpressions"].as_array_mut().context("a selector")?;
            selector.push(json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [scene.namespace]}));
        }
        scene.created(&copy)?;
        Ok(Self(scene))
    }

    /// `pods` of `pods.pullguard.dev`.
    fn short(name: &str) -> &str {
        name.split('.').next().unwrap_or(name)
    }

    fn calls(&self) -> Result<Calls> {
        let metrics = self.0.cluster.kubectl_ok(&["get", "--raw", "/metrics"])?;
        let own = format!(".{}.test", self.0.namespace);
        let mut calls = Calls::new();
        for line in metrics.lines().filter(|line| line.starts_with("apiserver_admission_webhook_request_total{")) {
            let label = |key: &str| line.split(&format!("{key}=\"")).nth(1)?.split('"').next();
            let (name, operation) = (label("name").context("a name")?, label("operation").context("an operation")?);
            if name.ends_with(&own) {
                let count = line.rsplit(' ').next().context("a number")?.parse::<f64>()? as u64;
                *calls.entry((Self::short(name).to_owned(), operation.to_owned())).or_default() += count;
            }
        }
        Ok(calls)
    }
}

fn with_command(mut object: Value, pointer: &str, command: &[&str]) -> Result<Value> {
    let spec = object.pointer_mut(pointer).context("a pod's spec")?;
    spec["containers"][0]["command"] = json!(command);
    spec["terminationGracePeriodSeconds"] = json!(0);
    Ok(object)
}

fn a_healthy_pod_costs_one_call_at_its_creation_and_none_after(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({}))?;
    until("the nodes list the image", 90, || {
        let answer = scene.try_create(&pod("probe", ON_BOTH, "Never"))?;
        Ok((answer.accepted && !answer.err.contains("Warning")).then_some(()))
    })?;
    let counted = Counted::new(scene)?;
    until("the API server calls the copies", 90, || {
        scene.try_create(&pod("probe", ON_BOTH, "Never"))?;
        Ok((!counted.calls()?.is_empty()).then_some(()))
    })?;
    // Each API server process asks by its own cache: once it has called, it calls always.
    let before = counted.calls()?;

    // Jobs that run and finish, one of them made from a CronJob; a Deployment that grows; a pod that lives and is ended.
    let mut batch = with_command(job("batch", ON_BOTH, "Never"), "/spec/template/spec", &["/bin/true"])?;
    batch["spec"]["completions"] = json!(3);
    batch["spec"]["parallelism"] = json!(2);
    scene.created(&batch)?;
    let nightly = cron_job("nightly", ON_BOTH);
    scene.created(&with_command(nightly, "/spec/jobTemplate/spec/template/spec", &["/bin/true"])?)?;
    scene.ok(&["create", "job", "tonight", "--from=cronjob/nightly"])?;
    scene.created(&deployment("web", ON_BOTH))?;
    scene.created(&pod("one", ON_BOTH, "Never"))?;

    scene.until_running("one")?;
    scene.ok(&["label", "pod", "one", "team=red"])?;
    scene.ok(&["annotate", "pod", "one", "note=read"])?;
    scene.ok(&["patch", "pod", "one", "--subresource=status", "-p", r#"{"status":{"message":"well"}}"#])?;
    scene.ok(&["patch", "pod", "one", "-p", r#"{"spec":{"activeDeadlineSeconds":3600}}"#])?;
    scene.ok(&["scale", "deployment", "web", "--replicas=3"])?;
    scene.ok(&["annotate", "deployment", "web", "note=read"])?;
    scene.ok(&["patch", "cronjob", "nightly", "-p", r#"{"spec":{"schedule":"0 1 1 1 *"}}"#])?;
    for job in ["batch", "tonight"] {
        until(&format!("job {job} is complete"), 120, || {
            Ok(condition(&scene.get("job", job)?, "Complete").is_some().then_some(()))
        })?;
    }
    until("the deployment has its three pods", 120, || {
        Ok((scene.get("deployment", "web")?["status"]["readyReplicas"] == 3).then_some(()))
    })?;
    let pods = scene.list("pods")?.len() as u64;
    ensure!(pods == 3 + 1 + 3 + 1, "{pods} pods: some were made twice");
    scene.ok(&["delete", "pod", "one"])?;
    scene.ok(&["delete", "job", "batch", "tonight"])?;
    scene.ok(&["delete", "deployment", "web", "--cascade=foreground"])?;
    until("all pods are gone", 60, || Ok(scene.list("pods")?.is_empty().then_some(())))?;

    let after = counted.calls()?;
    let new: Calls = after
        .into_iter()
        .map(|(what, count)| {
            let was = before.get(&what).copied().unwrap_or_default();
            (what, count - was)
        })
        .collect();
    // `tonight` has a controlling owner, and so has each ReplicaSet: they were judged with it.
    let expected: Calls = [("pods", pods), ("templates", 2), ("cronjobs", 1)]
        .into_iter()
        .map(|(webhook, count)| ((webhook.to_owned(), "CREATE".to_owned()), count))
        .collect();
    ensure!(new == expected, "calls: {new:?}, expected: {expected:?}");

    // The counter sees updates: a changed image is one.
    scene.created(&pod("two", ON_BOTH, "Never"))?;
    scene.ok(&["set", "image", "pod/two", "main=local/pause:1", "--dry-run=server"])?;
    let update = ("pods".to_owned(), "UPDATE".to_owned());
    ensure!(counted.calls()?.get(&update) == Some(&1), "{:?}", counted.calls()?);
    Ok(())
}
