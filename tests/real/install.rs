//! Pullguard comes and goes, and blocks nobody when it is gone.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::stage::{install, manifests, until, wait_installed};
use crate::world::{Scene, pod};

crate::scenarios! {
    NodesAlone:
        while_no_replica_answers_pods_pass_unjudged,
        uninstalled_it_blocks_nothing_and_installed_again_it_works;
}

fn while_no_replica_answers_pods_pass_unjudged(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({}))?;
    let absent = pod("task", &scene.image("node"), "Never");
    scene.try_create(&absent)?.refused_with(&["ImageAbsent"])?;
    let scale = |replicas: &str| {
        scene.cluster.kubectl_ok(&["scale", "deployment/pullguard", "--namespace=pullguard", replicas]).map(drop)
    };
    scale("--replicas=0")?;
    let passed = until("the webhook is called in vain", 60, || Ok(scene.try_create(&absent)?.accepted.then_some(())));
    let registered = scene.kubectl(&["get", "validatingwebhookconfiguration", "pullguard"]);
    // First of all it is there again, for the scenarios that may follow.
    scale("--replicas=2")?;
    wait_installed(scene.cluster)?;
    passed?;
    ensure!(registered?.accepted, "there was no webhook that could have been called");
    until("pods are refused again", 90, || Ok((!scene.try_create(&absent)?.accepted).then_some(())))
}

fn uninstalled_it_blocks_nothing_and_installed_again_it_works(scene: &Scene<'_>) -> Result<()> {
    // With the mutating webhook too.
    let spec = json!({"rescue": "PinToHolders"});
    scene.policy(spec.clone())?;
    let absent = pod("task", &scene.image("node"), "Never");
    scene.create(&absent)?.refused_with(&["ImageAbsent"])?;

    scene.cluster.kubectl_ok(&["delete", "--kustomize", &manifests(), "--timeout=120s"])?;
    let gone = until("no webhook configuration is left", 60, || {
        let kinds = "validatingwebhookconfigurations,mutatingwebhookconfigurations";
        let left = scene.cluster.kubectl_ok(&["get", kinds, "-o", "name"])?;
        Ok((!left.contains("pullguard")).then_some(()))
    });
    let created = scene.create(&absent);
    // First of all it is there again, for the scenarios that may follow.
    install(scene.cluster)?;
    gone?;
    let created = created?;
    ensure!(created.accepted, "a pod was refused without Pullguard: {}", created.err);

    scene.policy(spec)?;
    let another = pod("another", &scene.image("other"), "Never");
    until("pods are refused again", 90, || Ok((!scene.try_create(&another)?.accepted).then_some(())))?;
    scene.create(&another)?.refused_with(&["ImageAbsent"])
}
