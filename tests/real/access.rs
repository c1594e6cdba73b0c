//! Containers of every kind, and images that are on the node but not for everybody.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::{Node, REGISTRY_PASSWORD, REGISTRY_USER, TestImage};
use serde_json::{Value, json};

use crate::props::{TASK_LABEL, acting, name_of, next_of, on_node, pull_secret, waiting_reason};
use crate::stage::until;
use crate::world::{Scene, job, pod};

crate::scenarios! {
    Nodes:
        an_image_that_another_pod_pulled_with_a_secret_is_no_access_with_a_remedy_of_its_own,
        an_init_container_and_an_image_volume_count_as_any_container,
        a_pod_of_which_one_container_runs_is_never_touched,
        a_static_pod_is_never_touched;
}

fn an_image_that_another_pod_pulled_with_a_secret_is_no_access_with_a_remedy_of_its_own(
    scene: &Scene<'_>,
) -> Result<()> {
    scene.policy(acting("5s", json!({})))?;
    let private = TestImage::new(&format!("team/{}:1", scene.namespace));
    let image = scene.cluster.push_with_password(&private)?;
    let registry = scene.cluster.auth_registry();
    scene.created(&pull_secret("login", &registry, REGISTRY_USER, REGISTRY_PASSWORD))?;
    let mut first = pod("first", &image, "IfNotPresent");
    first["spec"]["imagePullSecrets"] = json!([{"name": "login"}]);
    first["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": Node::A.to_string()});
    scene.created(&first)?;
    scene.until_running("first")?;
    until("the node lists the image", 90, || {
        let node = scene.get("node", &Node::A.to_string())?;
        Ok(node["status"]["images"].to_string().contains(&image).then_some(()))
    })?;

    scene.created(&on_node(job("batch", &image, "Never"), Node::A))?;
    scene.until_stuck("ErrImageNeverPull")?;
    let stuck = scene.pods_of("batch")?.pop().context("a pod")?;
    let told = scene.explain(name_of(&stuck))?;
    ensure!(told["class"] == "NeverPullNoAccess" && told["permanence"] == "Unclear", "{told}");
    // The list is 80 s late at the most, and twice as old as that before it is believed against the kubelet's word.
    let failed = scene.until_failed("batch", 180)?;
    ensure!(failed["reason"] == "PullPermanentlyFailed", "{failed}");
    let record = scene.record("batch", "PermanentlyFailed")?;
    ensure!(record["status"]["class"] == "NeverPullNoAccess", "{}", record["status"]);
    let remedy = record["status"]["remedy"].as_str().context("a remedy")?;
    ensure!(remedy.contains("imagePullSecret") && remedy.contains(&image), "{remedy}");
    // The one with the secret runs on, and so does one that is told the secret.
    scene.until_running("first")?;
    let mut second = first;
    second["metadata"]["name"] = json!("second");
    second["spec"]["containers"][0]["imagePullPolicy"] = json!("Never");
    scene.created(&second)?;
    scene.until_running("second").map(drop)
}

fn an_init_container_and_an_image_volume_count_as_any_container(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("4s", json!({})))?;
    let there = scene.cluster.push(&format!("team/{}:1", scene.namespace))?;
    let missing = format!("{}2", there.trim_end_matches('1'));
    let nowhere = scene.image("init");

    let mut init = job("init", &there, "IfNotPresent");
    init["spec"]["template"]["spec"]["initContainers"] =
        json!([{"name": "first", "image": nowhere, "imagePullPolicy": "Never"}]);
    // An init container that ran does not make its pod one that did.
    let mut late = job("late", &nowhere, "Never");
    late["spec"]["template"]["spec"]["initContainers"] =
        json!([{"name": "first", "image": there, "imagePullPolicy": "IfNotPresent", "command": ["/bin/true"]}]);
    let volume = |name: &str, image: &str, pull_policy: &str| {
        let mut volume = job(name, &there, "IfNotPresent");
        let spec = &mut volume["spec"]["template"]["spec"];
        spec["volumes"] = json!([{"name": "data", "image": {"reference": image, "pullPolicy": pull_policy}}]);
        spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        volume
    };
    let cases = [
        (init, "NeverPull", nowhere.as_str(), "first"),
        (late, "NeverPull", nowhere.as_str(), "main"),
        (volume("volume", &missing, "IfNotPresent"), "NotFound", missing.as_str(), "main"),
        (volume("never-volume", &nowhere, "Never"), "NeverPull", nowhere.as_str(), "main"),
    ];
    for (job, ..) in &cases {
        scene.created(job)?;
    }
    for (job, class, image, container) in &cases {
        let name = name_of(job);
        let failed = scene.until_failed(name, 90)?;
        ensure!(failed["reason"] == "PullPermanentlyFailed", "{name}: {failed}");
        let status = &scene.record(name, "PermanentlyFailed")?["status"];
        ensure!(status["class"] == *class && status["image"] == *image, "{name}: {status}");
        ensure!(status["failures"][0]["container"] == *container, "{name}: {status}");
    }
    Ok(())
}

/// Pending by its phase, and yet somebody's work runs in it.
fn a_pod_of_which_one_container_runs_is_never_touched(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("3s", json!({"maxAttempts": 1})))?;
    let there = scene.cluster.push(&format!("team/{}:1", scene.namespace))?;
    let beside = |containers: &mut Value| {
        containers[1] = json!({"name": "stuck", "image": scene.image("beside"), "imagePullPolicy": "Never"});
    };
    let mut batch = job("batch", &there, "IfNotPresent");
    let containers = &mut batch["spec"]["template"]["spec"]["containers"];
    *containers = json!([containers[0], null]);
    beside(containers);
    let mut bare = pod("bare", &there, "IfNotPresent");
    bare["metadata"]["labels"] = json!({TASK_LABEL: "task-1"});
    let containers = &mut bare["spec"]["containers"];
    *containers = json!([containers[0], null]);
    beside(containers);
    scene.created(&batch)?;
    scene.created(&bare)?;
    until("both pods run and are stuck", 60, || {
        let pods = scene.list("pods")?;
        let half = pods.iter().filter(|pod| {
            waiting_reason(pod) == "ErrImageNeverPull" && pod["status"].to_string().contains("\"running\"")
        });
        Ok((half.count() == 2).then_some(()))
    })?;
    let before = scene.uids()?;
    // Its failure is on record, and that is all.
    scene.record("batch", "Retrying")?;
    let said = next_of(&scene.explain(name_of(&scene.pods_of("batch")?[0]))?);
    ensure!(said.contains("never touched"), "{said}");
    sleep(Duration::from_secs(12));
    ensure!(scene.uids()? == before, "other pods than before");
    for pod in scene.list("pods")? {
        ensure!(pod["metadata"]["deletionTimestamp"].is_null(), "{}", pod["metadata"]);
        ensure!(pod["spec"]["activeDeadlineSeconds"].is_null() && pod["status"]["phase"] == "Pending", "{pod}");
    }
    scene.unmarked("pod", "bare")?;
    scene.unmarked("job", "batch")
}

/// The file of a static pod, gone with the scenario.
struct Manifest(std::path::PathBuf);

impl Drop for Manifest {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.0);
    }
}

fn a_static_pod_is_never_touched(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("2s", json!({})))?;
    let mut fixed = pod("fixed", &scene.image("static"), "Never");
    fixed["metadata"]["namespace"] = json!(scene.namespace);
    fixed["metadata"]["labels"] = json!({TASK_LABEL: "task-1"});
    let file = Manifest(scene.cluster.static_pods(Node::A).join(format!("{}.json", scene.namespace)));
    std::fs::write(&file.0, fixed.to_string())?;
    let mirror = format!("fixed-{}", Node::A);
    let stuck = until("the mirror pod is stuck", 90, || {
        Ok(Some(scene.get("pod", &mirror)?).filter(|pod| waiting_reason(pod) == "ErrImageNeverPull"))
    })?;
    // Another one, no static pod, comes and goes in the meantime.
    scene.created(&job("batch", &scene.image("static"), "Never"))?;
    scene.until_failed("batch", 60)?;
    sleep(Duration::from_secs(4));
    let still = scene.get("pod", &mirror)?;
    ensure!(still["metadata"]["uid"] == stuck["metadata"]["uid"] && still["status"]["phase"] == "Pending", "{still}");
    ensure!(still["spec"]["activeDeadlineSeconds"].is_null(), "{}", still["spec"]);
    scene.unmarked("pod", &mirror)?;
    ensure!(scene.any_record("task-1")?.is_none() && scene.any_record(&mirror)?.is_none(), "there is a record of it");
    Ok(())
}
