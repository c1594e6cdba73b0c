//! `pullguard explain` on live pods: the judgement of the controller, in words, before it acts.

use anyhow::{Context, Result, ensure};
use cluster::Node;
use serde_json::{Value, json};

use crate::props::{REMEDY, acting, graces, name_of, next_of};
use crate::stage::until;
use crate::world::{Scene, job, pod};

crate::scenarios! {
    Nodes: explain_says_of_a_live_pod_what_it_is_and_what_will_be_done_and_when;
}

fn explain_says_of_a_live_pod_what_it_is_and_what_will_be_done_and_when(scene: &Scene<'_>) -> Result<()> {
    let mut policy = acting("600s", json!({"maxAttempts": 7}));
    policy["runtime"]["grace"] = graces("600s");
    scene.policy(policy.clone())?;
    let image = scene.image("node");
    let away = format!("{}:9/team/app:1", scene.cluster.address());
    scene.created(&job("never", &image, "Never"))?;
    scene.created(&job("away", &away, "IfNotPresent"))?;
    let there = scene.image("there");
    scene.cluster.import(Node::A, &there)?;
    let mut well = pod("well", &there, "Never");
    well["spec"]["nodeName"] = json!(Node::A.to_string());
    scene.created(&well)?;
    let explained = |job: &str, class: &str| -> Result<Value> {
        until(&format!("the pod of {job} is explained as {class}"), 60, || {
            let pod = scene.pods_of(job)?.pop().context("a pod")?;
            Ok(Some(scene.explain(name_of(&pod))?).filter(|told| told["class"] == class))
        })
    };
    let never = explained("never", "NeverPull")?;
    ensure!(never["pullFailure"] == true && never["permanence"] == "Permanent" && never["scope"] == "Node", "{never}");
    ensure!(never["image"] == image.as_str() && never["remedy"] == REMEDY, "{never}");
    ensure!(never["pod"]["policies"] == json!([scene.namespace]), "{never}");
    let evidence = never["pod"]["evidence"].to_string();
    ensure!(evidence.contains("ErrImageNeverPull") && evidence.contains("does not list the image"), "{evidence}");
    let next = next_of(&never);
    ensure!(next.contains("Job never is failed") && next.contains("600 s after it was first seen"), "{next}");

    let away = explained("away", "Network")?;
    ensure!(away["permanence"] == "Transient", "{away}");
    ensure!(next_of(&away).contains("the task ends after 7 attempts, of which 0 are counted"), "{away}");

    scene.until_running("well")?;
    let well = scene.explain("well")?;
    ensure!(well["pullFailure"] == false && well["class"].is_null(), "{well}");

    // In Audit it says that it would; and once it is done it says so, and for how long.
    policy["runtime"]["enforcement"] = json!("Audit");
    scene.policy(policy.clone())?;
    ensure!(next_of(&explained("never", "NeverPull")?).contains("audit: it would"), "{never}");
    policy["runtime"]["enforcement"] = json!("Enforce");
    policy["runtime"]["grace"]["neverPull"] = json!("2s");
    let mut bare = pod("bare", &image, "Never");
    bare["metadata"]["labels"] = json!({"optio.dev/task-id": "task-1"});
    scene.created(&bare)?;
    scene.policy(policy)?;
    let record = scene.record("task-1", "PermanentlyFailed")?;
    let bare = scene.explain("bare")?;
    ensure!(bare["pod"]["record"] == record["metadata"]["name"], "{bare}");
    let next = next_of(&bare);
    ensure!(next.contains("is PermanentlyFailed") && next.contains("tried again in"), "{next}");
    Ok(())
}
