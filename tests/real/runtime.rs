//! What becomes of pods whose images cannot be pulled, once they are there.
//!
//! The policies here allow at admission what is absent: the runtime half has to end it.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::Node;
use serde_json::{Value, json};

use crate::props::metric;
use crate::stage::{until, wait_installed};
use crate::world::{Scene, condition, deployment, job, task_pod};

crate::scenarios! {
    Nodes:
        a_job_whose_image_is_nowhere_fails_with_cause_and_remedy,
        the_dead_pods_of_a_task_are_collected_down_to_keep_pods,
        a_failed_task_is_not_created_again_until_its_record_is_deleted,
        a_tag_that_the_registry_does_not_have_fails_the_job,
        a_registry_that_does_not_answer_is_never_permanent,
        a_job_with_a_running_pod_is_not_failed_as_a_whole,
        the_pods_of_a_deployment_are_never_touched,
        an_image_that_arrives_within_the_grace_changes_everything,
        audit_tells_and_writes_nothing,
        a_suspended_job_is_left_alone;
    NodesAlone: what_a_killed_controller_began_the_next_one_completes;
}

const REMEDY: &str = "Run ./images/build.sh node to build it.";

fn policy(grace: &str, enforcement: &str) -> Value {
    json!({
        "presence": {"onAbsent": "Allow", "onUnknown": "Allow"},
        "runtime": {
            "enforcement": enforcement, "taskLabel": "optio.dev/task-id",
            "grace": {"neverPull": grace, "notFound": grace, "unauthorized": grace, "other": grace},
        },
        "remedies": [{"image": "optio-*", "text": REMEDY}],
    })
}

fn a_job_whose_image_is_nowhere_fails_with_cause_and_remedy(scene: &Scene<'_>) -> Result<()> {
    scene.policy(policy("2s", "Enforce"))?;
    let image = scene.image("node");
    scene.created(&job("batch", &image, "Never"))?;
    let failed = scene.until_failed("batch", 60)?;
    ensure!(failed["reason"] == "PullPermanentlyFailed", "{failed}");
    let message = failed["message"].as_str().context("a message")?;
    ensure!(message.contains(&image) && message.contains("NeverPull") && message.contains(REMEDY), "{message}");

    let record = scene.record("batch", "PermanentlyFailed")?;
    ensure!(record["spec"]["task"]["kind"] == "Job" && record["status"]["class"] == "NeverPull", "{record}");
    ensure!(record["status"]["remedy"] == REMEDY && record["status"]["image"] == image.as_str(), "{record}");
    let batch = scene.get("job", "batch")?;
    ensure!(batch["metadata"]["labels"]["pullguard.dev/state"] == "permanently-failed", "{batch}");
    ensure!(batch["metadata"]["annotations"]["pullguard.dev/class"] == "NeverPull", "{batch}");
    ensure!(batch["metadata"]["annotations"]["pullguard.dev/remedy"] == REMEDY, "{batch}");
    let event = scene.event("controller", "PullPermanentlyFailed", "Job")?;
    ensure!(event["action"] == "FailOwner" && event["regarding"]["name"] == "batch", "{event}");
    ensure!(event["note"].as_str().is_some_and(|note| note.contains(REMEDY)), "{event}");
    Ok(())
}

/// The Failed pods of a task, once there is nothing else of it.
fn until_collected(scene: &Scene<'_>, task: &str, seconds: u64) -> Result<Vec<Value>> {
    until(&format!("one dead pod of {task} is left"), seconds, || {
        let all = scene.list("pods")?;
        let pods: Vec<Value> =
            all.into_iter().filter(|pod| pod["metadata"]["labels"]["optio.dev/task-id"] == task).collect();
        Ok((pods.len() == 1 && pods.iter().all(|pod| pod["status"]["phase"] == "Failed")).then_some(pods))
    })
}

fn the_dead_pods_of_a_task_are_collected_down_to_keep_pods(scene: &Scene<'_>) -> Result<()> {
    scene.policy(policy("3s", "Enforce"))?;
    let before = metric(scene.cluster, "pullguard_pods_collected_total", "")?;
    for _ in 0..4 {
        scene.created(&task_pod("task-1", &scene.image("node")))?;
    }
    let kept = until_collected(scene, "task-1", 60)?;
    ensure!(kept[0]["metadata"]["labels"]["pullguard.dev/state"] == "permanently-failed", "{}", kept[0]["metadata"]);
    let record = scene.record("task-1", "PermanentlyFailed")?;
    ensure!(record["spec"]["task"]["label"] == "optio.dev/task-id", "{record}");
    until("the record counts the pods collected", 90, || {
        Ok((scene.record("task-1", "PermanentlyFailed")?["status"]["podsCollected"] == 3).then_some(()))
    })?;
    let told = until("the collection is told", 90, || {
        Ok(scene.events("controller")?.into_iter().find(|event| event["reason"] == "PodsCollected"))
    })?;
    ensure!(told["action"] == "CollectPods", "{told}");
    let after = metric(scene.cluster, "pullguard_pods_collected_total", "")?;
    ensure!(after >= before + 3.0, "{before} pods collected before, {after} after");
    Ok(())
}

fn a_failed_task_is_not_created_again_until_its_record_is_deleted(scene: &Scene<'_>) -> Result<()> {
    scene.policy(policy("2s", "Enforce"))?;
    let task = task_pod("task-1", &scene.image("node"));
    scene.created(&task)?;
    let record = scene.record("task-1", "PermanentlyFailed")?;
    let name = record["metadata"]["name"].as_str().context("a name")?;
    until("the next pod is refused", 60, || Ok((!scene.try_create(&task)?.accepted).then_some(())))?;
    scene.create(&task)?.refused_with(&["TaskPermanentlyFailed", name, REMEDY])?;
    // Another task is another matter.
    scene.try_create(&task_pod("task-2", &scene.image("node")))?.accepted_in_silence()?;
    scene.ok(&["delete", "pullfailure", name])?;
    until("the next pod is accepted", 90, || Ok(scene.try_create(&task)?.accepted.then_some(())))
}

fn a_tag_that_the_registry_does_not_have_fails_the_job(scene: &Scene<'_>) -> Result<()> {
    scene.policy(policy("3s", "Enforce"))?;
    let there = scene.cluster.push(&format!("team/{}:1", scene.namespace))?;
    let missing = format!("{}2", there.trim_end_matches('1'));
    scene.created(&job("batch", &missing, "IfNotPresent"))?;
    let failed = scene.until_failed("batch", 120)?;
    ensure!(failed["reason"] == "PullPermanentlyFailed", "{failed}");
    let record = scene.record("batch", "PermanentlyFailed")?;
    ensure!(record["status"]["class"] == "NotFound" && record["status"]["image"] == missing.as_str(), "{record}");
    Ok(())
}

fn a_registry_that_does_not_answer_is_never_permanent(scene: &Scene<'_>) -> Result<()> {
    scene.policy(policy("2s", "Enforce"))?;
    // Nobody listens there.
    let image = format!("{}:9/team/app:1", scene.cluster.address());
    scene.created(&job("batch", &image, "IfNotPresent"))?;
    scene.until_stuck("ImagePullBackOff")?;
    sleep(Duration::from_secs(30));
    scene.unmarked("job", "batch")?;
    for record in scene.list("pullfailures")? {
        ensure!(record["status"]["state"] == "Retrying" && record["status"]["class"] == "Network", "{record}");
    }
    Ok(())
}

fn a_job_with_a_running_pod_is_not_failed_as_a_whole(scene: &Scene<'_>) -> Result<()> {
    scene.policy(policy("3s", "Enforce"))?;
    let image = scene.image("node");
    scene.cluster.import(Node::A, &image)?;
    // One pod a node, and only one of the nodes has the image.
    let mut batch = job("batch", &image, "Never");
    batch["spec"]["parallelism"] = json!(2);
    batch["spec"]["completions"] = json!(2);
    batch["spec"]["backoffLimit"] = json!(1000);
    batch["spec"]["template"]["metadata"] = json!({"labels": {"spread": "batch"}});
    batch["spec"]["template"]["spec"]["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"spread": "batch"}}}]}});
    scene.created(&batch)?;
    let phase = |wanted: &str| -> Result<Option<Value>> {
        Ok(scene.list("pods")?.into_iter().find(|pod| pod["status"]["phase"] == wanted))
    };
    let running = until("one pod runs", 60, || phase("Running"))?;
    until("the stuck one is failed in place", 60, || phase("Failed"))?;
    sleep(Duration::from_secs(8));
    let batch = scene.get("job", "batch")?;
    ensure!(
        condition(&batch, "FailureTarget").is_none() && condition(&batch, "Failed").is_none(),
        "{}",
        batch["status"]
    );
    let still = scene.get("pod", running["metadata"]["name"].as_str().context("a name")?)?;
    ensure!(still["metadata"]["uid"] == running["metadata"]["uid"] && still["status"]["phase"] == "Running", "{still}");
    ensure!(still["metadata"]["deletionTimestamp"].is_null(), "{still}");
    Ok(())
}

fn the_pods_of_a_deployment_are_never_touched(scene: &Scene<'_>) -> Result<()> {
    scene.policy(policy("2s", "Enforce"))?;
    scene.created(&deployment("web", &scene.image("node")))?;
    scene.until_stuck("ErrImageNeverPull")?;
    let before = scene.uids()?;
    until("the controller tells of it", 60, || Ok((!scene.events("controller")?.is_empty()).then_some(())))?;
    sleep(Duration::from_secs(6));
    ensure!(before.len() == 2 && scene.uids()? == before, "other pods than before: {before:?}");
    for pod in scene.list("pods")? {
        ensure!(pod["status"]["phase"] == "Pending" && pod["spec"]["activeDeadlineSeconds"].is_null(), "{pod}");
    }
    scene.unmarked("deployment", "web")
}

fn an_image_that_arrives_within_the_grace_changes_everything(scene: &Scene<'_>) -> Result<()> {
    scene.policy(policy("60s", "Enforce"))?;
    let image = scene.image("node");
    scene.created(&job("batch", &image, "Never"))?;
    scene.until_stuck("ErrImageNeverPull")?;
    scene.cluster.import(Node::A, &image)?;
    scene.cluster.import(Node::B, &image)?;
    until("the pod runs", 50, || {
        Ok(scene.list("pods")?.iter().any(|pod| pod["status"]["phase"] == "Running").then_some(()))
    })?;
    scene.unmarked("job", "batch")?;
    ensure!(scene.list("pods")?.len() == 1, "its first pod was replaced");
    for record in scene.list("pullfailures")? {
        ensure!(record["status"]["state"] != "PermanentlyFailed", "{record}");
    }
    Ok(())
}

fn audit_tells_and_writes_nothing(scene: &Scene<'_>) -> Result<()> {
    scene.policy(policy("2s", "Audit"))?;
    scene.created(&job("batch", &scene.image("node"), "Never"))?;
    scene.until_stuck("ErrImageNeverPull")?;
    let before = scene.uids()?;
    let event = scene.event("controller", "PullPermanentlyFailed", "Job")?;
    ensure!(event["action"] == "WouldFailOwner", "{event}");
    ensure!(event["note"].as_str().is_some_and(|note| note.starts_with("(audit) ")), "{event}");
    sleep(Duration::from_secs(5));
    scene.unmarked("job", "batch")?;
    ensure!(scene.list("pullfailures")?.is_empty(), "there is a record");
    ensure!(scene.uids()? == before, "other pods than before");
    Ok(())
}

fn a_suspended_job_is_left_alone(scene: &Scene<'_>) -> Result<()> {
    scene.policy(policy("8s", "Enforce"))?;
    scene.created(&job("batch", &scene.image("node"), "Never"))?;
    scene.until_stuck("ErrImageNeverPull")?;
    let suspend =
        |suspend: bool| scene.ok(&["patch", "job", "batch", "-p", &json!({"spec": {"suspend": suspend}}).to_string()]);
    suspend(true)?;
    sleep(Duration::from_secs(15));
    scene.unmarked("job", "batch")?;
    // Resumed, it is a Job like any other.
    suspend(false)?;
    let failed = scene.until_failed("batch", 60)?;
    ensure!(failed["reason"] == "PullPermanentlyFailed", "{failed}");
    Ok(())
}

fn what_a_killed_controller_began_the_next_one_completes(scene: &Scene<'_>) -> Result<()> {
    scene.policy(policy("3s", "Enforce"))?;
    let image = scene.image("node");
    let jobs = ["batch-1", "batch-2", "batch-3"];
    for job_name in jobs {
        scene.created(&job(job_name, &image, "Never"))?;
    }
    for _ in 0..6 {
        scene.created(&task_pod("task-1", &image))?;
    }
    // As soon as the first effect is seen, and once more a moment later.
    for wait in [0, 1500] {
        until("a record is there", 60, || Ok((!scene.list("pullfailures")?.is_empty()).then_some(())))?;
        sleep(Duration::from_millis(wait));
        scene.cluster.kubectl_ok(&[
            "delete",
            "pods",
            "--all",
            "--namespace=pullguard",
            "--force",
            "--grace-period=0",
        ])?;
    }
    wait_installed(scene.cluster)?;
    for job_name in jobs {
        let failed = scene.until_failed(job_name, 90)?;
        ensure!(failed["reason"] == "PullPermanentlyFailed", "{failed}");
        scene.record(job_name, "PermanentlyFailed")?;
        let marked = scene.get("job", job_name)?;
        ensure!(marked["metadata"]["labels"]["pullguard.dev/state"] == "permanently-failed", "{marked}");
    }
    until_collected(scene, "task-1", 90)?;
    scene.record("task-1", "PermanentlyFailed")?;
    let records = scene.list("pullfailures")?.len();
    ensure!(records == 4, "{records} records of 4 tasks");
    Ok(())
}
