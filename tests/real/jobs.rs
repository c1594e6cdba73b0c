//! Jobs of every kind: failed with the cause where all of a Job is stuck, and left to themselves where it is not.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::Node;
use serde_json::{Value, json};

use crate::props::{acting, controlled_by, name_of, waiting_reason};
use crate::stage::until;
use crate::world::{ON_BOTH, Scene, condition, cron_job, job, pod};

crate::scenarios! {
    Nodes:
        of_ten_pods_one_has_lost_its_image_and_the_nine_go_on,
        jobs_of_every_kind_fail_with_the_cause_and_without_a_second_pod,
        what_fail_owner_forbids_is_not_done,
        a_debug_container_with_a_bad_image_costs_a_job_nothing,
        a_job_that_somebody_else_manages_is_told_of_and_left_alone,
        a_cron_job_whose_runs_fail_for_one_cause_is_one_story;
}

/// A label on nodes that only this scenario has, so that the pods of its Job go where it wants. Gone with the scenario.
struct Mark<'a> {
    scene: &'a Scene<'a>,
    label: String,
}

impl Mark<'_> {
    fn on(&self, node: Node) -> Result<()> {
        for other in self.scene.cluster.nodes() {
            let word = if other == node { format!("{}=here", self.label) } else { format!("{}-", self.label) };
            self.scene.ok(&["label", "node", &other.to_string(), &word, "--overwrite"])?;
        }
        Ok(())
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        let _gone_with_the_cluster = self.scene.kubectl(&["label", "node", "--all", &format!("{}-", self.label)]);
    }
}

fn of_ten_pods_one_has_lost_its_image_and_the_nine_go_on(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("3s", json!({})))?;
    let mark = Mark { scene, label: scene.namespace.clone() };
    let image = scene.image("node");
    scene.cluster.import(Node::A, &image)?;
    mark.on(Node::A)?;
    let mut batch = job("batch", &image, "Never");
    batch["spec"]["completionMode"] = json!("Indexed");
    batch["spec"]["completions"] = json!(10);
    batch["spec"]["parallelism"] = json!(9);
    batch["spec"].as_object_mut().context("an object")?.remove("backoffLimit");
    batch["spec"]["backoffLimitPerIndex"] = json!(1);
    batch["spec"]["template"]["spec"]["nodeSelector"] = json!({(mark.label.clone()): "here"});
    scene.created(&batch)?;
    let running = || -> Result<Vec<Value>> {
        Ok(scene.pods_of("batch")?.into_iter().filter(|pod| pod["status"]["phase"] == "Running").collect())
    };
    let nine = until("nine of them run", 90, || Ok(Some(running()?).filter(|pods| pods.len() == 9)))?;
    // The tenth goes to a node that has lost the image.
    mark.on(Node::B)?;
    scene.ok(&["patch", "job", "batch", "-p", r#"{"spec":{"parallelism":10}}"#])?;
    let stuck = until("the tenth is stuck", 60, || {
        Ok(scene.pods_of("batch")?.into_iter().find(|pod| waiting_reason(pod) == "ErrImageNeverPull"))
    })?;
    // Its limit is its index's own: two tries, and then that index has failed.
    let batch = until("the index of the tenth has failed", 120, || {
        let job = scene.get("job", "batch")?;
        Ok((!job["status"]["failedIndexes"].as_str().unwrap_or_default().is_empty()).then_some(job))
    })?;
    ensure!(batch["status"]["failedIndexes"] == "9", "{}", batch["status"]);
    ensure!(condition(&batch, "FailureTarget").is_none(), "{}", batch["status"]);
    ensure!(scene.told("PodFailed", name_of(&stuck))?.len() == 1, "the stuck pod's end is not told once");
    let still: Vec<Value> = running()?;
    for pod in &nine {
        let alive = still.iter().any(|other| other["metadata"]["uid"] == pod["metadata"]["uid"]);
        ensure!(alive, "{} does not run any more", name_of(pod));
    }
    scene.unmarked("job", "batch")
}

fn a_debug_container_with_a_bad_image_costs_a_job_nothing(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("3s", json!({})))?;
    let mut batch = job("batch", ON_BOTH, "Never");
    let spec = &mut batch["spec"]["template"]["spec"];
    spec["initContainers"] =
        json!([{"name": "wait", "image": ON_BOTH, "imagePullPolicy": "Never", "command": ["sleep", "25"]}]);
    spec["containers"][0]["command"] = json!(["true"]);
    scene.created(&batch)?;
    let pod = until("its pod initializes", 60, || {
        let pods = scene.pods_of("batch")?;
        Ok(pods.into_iter().find(|pod| pod["status"]["initContainerStatuses"][0]["state"]["running"].is_object()))
    })?;
    let (target, image) = (format!("pod/{}", name_of(&pod)), format!("--image={}", scene.image("shell")));
    let how = ["--image-pull-policy=Never", "--attach=false", "--profile=general"];
    let debugged = scene.kubectl(&[["debug", target.as_str(), image.as_str()].as_slice(), how.as_slice()].concat())?;
    ensure!(debugged.accepted, "{}", debugged.err);
    until("the debug container is stuck", 20, || {
        let pod = scene.get("pod", name_of(&pod))?;
        let status = &pod["status"]["ephemeralContainerStatuses"][0];
        Ok((status["state"]["waiting"]["reason"] == "ErrImageNeverPull").then_some(()))
    })?;
    let done = until("the Job is done", 90, || {
        let job = scene.get("job", "batch")?;
        Ok((job["status"]["succeeded"] == 1 || condition(&job, "Failed").is_some()).then_some(job))
    })?;
    ensure!(condition(&done, "Complete").is_some(), "{}", done["status"]);
    ensure!(scene.list("pullfailures")?.is_empty(), "there is a record of it");
    scene.unmarked("job", "batch")
}

fn jobs_of_every_kind_fail_with_the_cause_and_without_a_second_pod(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("4s", json!({})))?;
    let image = scene.image("node");
    let with = |name: &str, fields: Value| {
        let mut job = job(name, &image, "Never");
        for (field, value) in fields.as_object().into_iter().flatten() {
            job["spec"][field] = value.clone();
        }
        job
    };
    let rules = json!({"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [0]}}]});
    let jobs = [
        with("parallel", json!({"parallelism": 3, "completions": 5})),
        with("queue", json!({"parallelism": 2})),
        with("indexed", json!({"parallelism": 2, "completions": 3, "completionMode": "Indexed"})),
        with(
            "per-index",
            json!({"parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimit": 2_147_483_647,
                "backoffLimitPerIndex": 1, "maxFailedIndexes": 2}),
        ),
        with("with-rules", json!({"podFailurePolicy": rules})),
        with("deadline", json!({"activeDeadlineSeconds": 600, "podReplacementPolicy": "Failed"})),
        with("short-lived", json!({"ttlSecondsAfterFinished": 3})),
    ];
    for job in &jobs {
        scene.created(job)?;
    }
    for job in jobs.iter().filter(|job| name_of(job) != "short-lived") {
        let name = name_of(job);
        let failed = scene.until_failed(name, 60)?;
        ensure!(failed["reason"] == "PullPermanentlyFailed", "{name}: {failed}");
        ensure!(failed["message"].as_str().is_some_and(|message| message.contains(&image)), "{name}: {failed}");
        let status = &scene.get("job", name)?["status"];
        ensure!(
            status["succeeded"].is_null() && status["active"].as_i64().unwrap_or_default() == 0,
            "{name}: {status}"
        );
        // The Job controller has deleted the first pods, and made no others in their place.
        let wanted = job["spec"]["parallelism"].as_i64().unwrap_or(1);
        ensure!(status["failed"].as_i64() <= Some(wanted), "{name}: {status}");
        scene.record(name, "PermanentlyFailed")?;
    }
    // What is gone by now has left its record, which tells it all.
    until("the short-lived one is gone", 90, || {
        Ok((!scene.kubectl(&["get", "job", "short-lived"])?.accepted).then_some(()))
    })?;
    let record = scene.record("short-lived", "PermanentlyFailed")?;
    ensure!(record["status"]["image"] == image.as_str(), "{}", record["status"]);
    until("no pod of them is left", 90, || Ok(scene.list("pods")?.is_empty().then_some(())))
}

fn what_fail_owner_forbids_is_not_done(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("3s", json!({"failOwner": "None"})))?;
    let mut batch = job("batch", &scene.image("node"), "Never");
    batch["spec"]["backoffLimit"] = json!(1);
    scene.created(&batch)?;
    // None: it is said, and that is all.
    let told = scene.until_told("PullPermanentlyFailed", "batch")?;
    ensure!(told["action"] == "Report", "{told}");
    scene.record("batch", "PermanentlyFailed")?;
    let before = scene.uids()?;
    sleep(Duration::from_secs(4));
    scene.unmarked("job", "batch")?;
    ensure!(scene.uids()? == before, "other pods than before");
    // Pod: each stuck pod is failed, and the Job itself decides when it has had enough.
    scene.policy(acting("3s", json!({"failOwner": "Pod"})))?;
    let mut other = batch.clone();
    other["metadata"]["name"] = json!("other");
    scene.created(&other)?;
    let failed = scene.until_failed("other", 90)?;
    ensure!(failed["reason"] == "BackoffLimitExceeded", "{failed}");
    let status = &scene.get("job", "other")?["status"];
    ensure!(status["failed"] == 2, "{status}");
    let other = scene.get("job", "other")?;
    ensure!(other["metadata"]["labels"]["pullguard.dev/state"].is_null(), "{}", other["metadata"]);
    ensure!(scene.events("controller")?.iter().filter(|event| event["reason"] == "PodFailed").count() >= 2, "not told");
    Ok(())
}

/// No Job controller acts on it, so a condition would be set for nobody to see; its pods are somebody else's.
fn a_job_that_somebody_else_manages_is_told_of_and_left_alone(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("3s", json!({})))?;
    let image = scene.image("node");
    let mut elsewhere = job("elsewhere", &image, "Never");
    elsewhere["spec"]["managedBy"] = json!("example.org/another-cluster");
    scene.created(&elsewhere)?;
    let made = pod("made-elsewhere", &image, "Never");
    scene.created(&controlled_by(made, &scene.get("job", "elsewhere")?))?;
    let told = scene.until_told("PullPermanentlyFailed", "elsewhere")?;
    ensure!(told["action"] == "Report", "{told}");
    sleep(Duration::from_secs(4));
    let pod = scene.get("pod", "made-elsewhere")?;
    ensure!(pod["spec"]["activeDeadlineSeconds"].is_null() && pod["status"]["phase"] == "Pending", "{pod}");
    scene.unmarked("pod", "made-elsewhere")?;
    scene.unmarked("job", "elsewhere")
}

/// The first two runs are of its own schedule, which is a minute at the least.
fn a_cron_job_whose_runs_fail_for_one_cause_is_one_story(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("2s", json!({})))?;
    let image = scene.image("node");
    let mut minutely = cron_job("minutely", &image);
    minutely["spec"]["schedule"] = json!("* * * * *");
    minutely["spec"]["failedJobsHistoryLimit"] = json!(10);
    scene.created(&minutely)?;
    let failed_runs = |count: usize| {
        until(&format!("{count} of its runs have failed"), 150, || {
            let records = scene.list("pullfailures")?;
            let ended = records.iter().filter(|record| record["status"]["state"] == "PermanentlyFailed").count();
            Ok((ended >= count).then_some(records))
        })
    };
    failed_runs(1)?;
    sleep(Duration::from_secs(2));
    ensure!(scene.told("RunsKeepFailing", "minutely")?.is_empty(), "one run is no story");
    failed_runs(2)?;
    let story = scene.until_told("RunsKeepFailing", "minutely")?;
    ensure!(story["regarding"]["kind"] == "CronJob" && story["type"] == "Warning", "{story}");
    ensure!(
        story["note"].as_str().is_some_and(|note| note.contains(&image) && note.contains("CronJob/minutely")),
        "{story}"
    );
    // Another one adds nothing to the story. By hand, as `kubectl create job --from` makes it.
    scene.ok(&["patch", "cronjob", "minutely", "-p", r#"{"spec":{"suspend":true}}"#])?;
    let minutely = scene.get("cronjob", "minutely")?;
    scene.created(&controlled_by(job("one-more", &image, "Never"), &minutely))?;
    scene.until_failed("one-more", 60)?;
    scene.until_told("PullPermanentlyFailed", "one-more")?;
    sleep(Duration::from_secs(2));
    ensure!(scene.told("RunsKeepFailing", "minutely")?.len() == 1, "it is told more than once");
    let records = failed_runs(3)?;
    ensure!(records.iter().all(|record| record["spec"]["maker"] == "CronJob/minutely"), "{records:?}");
    let table = scene.ok(&["get", "pullfailures", "-o", "wide"])?;
    let lines = table.lines().filter(|line| line.contains("CronJob/minutely") && line.contains(&image)).count();
    ensure!(lines == records.len(), "{table}");
    scene.unmarked("cronjob", "minutely")
}
