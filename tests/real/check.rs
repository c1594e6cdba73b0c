//! `pullguard check` against the live cluster gives the verdict that the API server gives.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cluster::without_proxy;
use serde_json::{Value, json};

use crate::stage::until;
use crate::world::{ON_B, ON_BOTH, Scene, cron_job, deployment, job, list, pod};

crate::scenarios! {
    Nodes: check_says_of_each_manifest_what_the_api_server_says;
}

/// Exit code and what was said.
pub fn check(scene: &Scene<'_>, manifests: &Value) -> Result<(Option<i32>, Vec<Value>, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pullguard"));
    // As `overlays/dev` says of the webhook.
    command.args(["check", "-f", "-", "-o", "json", "--young-node", "1s"]);
    command.env("KUBECONFIG", scene.cluster.kubeconfig());
    without_proxy(&mut command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(manifests.to_string().as_bytes()));
    let output = child.wait_with_output()?;
    written.context("standard input")??;
    let entries = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok((output.status.code(), entries, String::from_utf8(output.stderr)?))
}

/// Manifests of which each gets another answer, in the scenario's namespace.
fn manifests(scene: &Scene<'_>) -> Vec<Value> {
    let absent = scene.image("nowhere");
    let mut owned = job("owned", &absent, "Never");
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly",
        "uid": "8d1a1e5c-0000-4000-8000-000000000000", "controller": true}]);
    let mut choosy = pod("choosy", ON_BOTH, "Never");
    choosy["spec"]["nodeSelector"] = json!({"disk": "none-has-it"});
    let mut pinned = pod("pinned", ON_B, "Never");
    pinned["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "node-a"});
    let mut everywhere = deployment("everywhere", &absent);
    everywhere["kind"] = json!("DaemonSet");
    if let Some(spec) = everywhere["spec"].as_object_mut() {
        spec.remove("replicas");
    }
    let mut defaulted = pod("defaulted", &format!("registry.local/{}", scene.namespace), "Never");
    if let Some(container) = defaulted["spec"]["containers"][0].as_object_mut() {
        container.remove("imagePullPolicy");
    }
    let mut volume = pod("volume", ON_BOTH, "Never");
    volume["spec"]["volumes"] = json!([{"name": "data", "image": {"reference": absent, "pullPolicy": "Never"}}]);
    let mut all = vec![
        pod("there", ON_BOTH, "Never"),
        pod("absent", &absent, "Never"),
        pod("forbidden", "evil:1", "IfNotPresent"),
        pod("typo", "registry.local/Team/App:1", "IfNotPresent"),
        pinned,
        choosy,
        volume,
        defaulted,
        deployment("web", &absent),
        everywhere,
        job("batch", ON_BOTH, "Never"),
        owned,
        cron_job("nightly", &absent),
    ];
    for object in &mut all {
        object["metadata"]["namespace"] = json!(scene.namespace);
    }
    all
}

fn check_says_of_each_manifest_what_the_api_server_says(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"allowedImages": ["optio-*", "registry.local/**"]}))?;
    until("the nodes list the images of the scenarios", 90, || {
        let pods = list([pod("a", ON_BOTH, "Never"), pod("b", ON_B, "Never")]);
        Ok(scene.try_create(&pods)?.accepted.then_some(()))
    })?;
    let manifests = manifests(scene);
    let (code, entries, said) = check(scene, &list(manifests.iter().cloned()))?;
    ensure!(code == Some(1) && entries.len() == manifests.len(), "{code:?} {said} {entries:?}");
    let mut verdicts = Vec::new();
    for (manifest, entry) in manifests.iter().zip(&entries) {
        let name = &manifest["metadata"]["name"];
        ensure!(entry["name"] == *name && entry["kind"] == manifest["kind"], "{entry} is not about {name}");
        let answer = scene.try_create(manifest)?;
        let theirs = match (answer.accepted, answer.err.contains("Warning: ")) {
            (false, _) => "Deny",
            (true, true) => "Warn",
            (true, false) => "Allow",
        };
        ensure!(entry["verdict"] == theirs, "{name}: {entry}, the API server says {theirs}: {}", answer.err);
        // The strictest finding first, with the reason and the sentence of the answer.
        if let Some(first) = entry["findings"].get(0) {
            let reason = first["reason"].as_str().context("a reason")?;
            ensure!(answer.err.contains(reason), "{name}: {reason} is not in {}", answer.err);
            let begin: String = first["message"].as_str().context("a message")?.chars().take(60).collect();
            ensure!(answer.err.contains(&begin), "{name}: {begin:?} is not in {}", answer.err);
        }
        verdicts.push(theirs);
    }
    for verdict in ["Deny", "Warn", "Allow"] {
        ensure!(verdicts.contains(&verdict), "no manifest got {verdict}: {verdicts:?}");
    }
    Ok(())
}
