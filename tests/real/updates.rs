//! What is judged of an object that is there already: images that are new, and nothing else.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::stage::until;
use crate::world::{ON_B, ON_BOTH, Scene, deployment, pod};

crate::scenarios! {
    Nodes:
        on_an_update_only_new_images_are_judged,
        a_bound_pods_new_image_must_be_on_its_own_node;
}

fn on_an_update_only_new_images_are_judged(scene: &Scene<'_>) -> Result<()> {
    // There before the policy is.
    let mut old = pod("old", "registry.local/evil/a:1", "IfNotPresent");
    old["spec"]["initContainers"] = json!([{"name": "first", "image": "registry.local/evil/a:1"}]);
    scene.created(&old)?;
    let mut web = deployment("web", "registry.local/evil/a:1");
    web["spec"]["replicas"] = json!(0);
    web["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    scene.created(&web)?;
    scene.policy(json!({"allowedImages": ["registry.local/good/**"], "templates": "Deny"}))?;

    for object in ["pod/old", "deployment/web"] {
        // A change of anything else concerns nobody, whatever the image is by now.
        scene.kubectl(&["label", object, "team=red"])?.accepted_in_silence()?;
        scene.kubectl(&["annotate", object, "note=read"])?.accepted_in_silence()?;
        let set = |container: &str, image: &str| {
            scene.kubectl(&["set", "image", object, &format!("{container}=registry.local/{image}")])
        };
        set("main", "evil/b:1")?.refused_with(&["registry.local/evil/b:1", "matches none of the allowed images"])?;
        // What was there is not brought up again.
        let mended = set("main", "good/b:1")?;
        mended.accepted_in_silence()?;
        if object == "pod/old" {
            set("first", "evil/b:1")?
                .refused_with(&["registry.local/evil/b:1", "matches none of the allowed images"])?;
            // The same image for another container is not new to the pod.
            set("main", "evil/a:1")?.accepted_in_silence()?;
        }
    }
    scene.kubectl(&["scale", "deployment/web", "--replicas=1"])?.accepted_in_silence()?;
    scene
        .kubectl(&["patch", "deployment", "web", "-p", r#"{"spec":{"revisionHistoryLimit":3}}"#])?
        .accepted_in_silence()
}

fn a_bound_pods_new_image_must_be_on_its_own_node(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({}))?;
    let mut bound = pod("bound", ON_BOTH, "Never");
    bound["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "node-a"});
    until("node-a lists its image", 90, || Ok(scene.try_create(&bound)?.accepted.then_some(())))?;
    scene.created(&bound)?;
    scene.until_running("bound")?;
    // Another node has it: that does not help this pod.
    let moved = scene.kubectl(&["set", "image", "pod/bound", &format!("main={ON_B}")])?;
    moved.refused_with(&["is not on node node-a, where this pod runs", "node node-b holds it"])?;
    let debug = |image: &str| {
        let image = format!("--image={image}");
        scene.kubectl(&[
            "debug",
            "pod/bound",
            &image,
            "--image-pull-policy=Never",
            "--attach=false",
            "--profile=general",
        ])
    };
    debug(ON_B)?.refused_with(&["is not on node node-a, where this pod runs"])?;
    let debugged = debug(ON_BOTH)?;
    ensure!(debugged.accepted && !debugged.err.contains("Warning"), "{}", debugged.err);
    Ok(())
}
