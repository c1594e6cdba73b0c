//! Pullguard comes and goes, and blocks nobody when it is gone.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::stage::{install, manifests, until};
use crate::world::{Scene, pod};

crate::scenarios! {
    NodesAlone: uninstalled_it_blocks_nothing_and_installed_again_it_works;
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
    until("pods are refused again", 30, || Ok((!scene.try_create(&another)?.accepted).then_some(())))?;
    scene.create(&another)?.refused_with(&["ImageAbsent"])
}
