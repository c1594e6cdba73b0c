//! The image comes: while its end is being decided, and after it was.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::Node;
use serde_json::{Value, json};

use crate::props::{acting, name_of};
use crate::stage::until;
use crate::world::{Scene, condition, job, task_pod};

crate::scenarios! {
    Nodes:
        an_image_that_comes_while_jobs_are_being_failed_ends_no_pod_that_has_started,
        an_image_that_comes_after_the_failure_resolves_it_and_the_task_runs;
}

const JOBS: usize = 10;

/// The ends of their graces are a second apart, and in the middle of them the image comes: some are failed before it, some
/// run because of it, and one or two are caught between the decision and the act.
fn an_image_that_comes_while_jobs_are_being_failed_ends_no_pod_that_has_started(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("14s", json!({})))?;
    let image = scene.image("node");
    let names: Vec<String> = (0..JOBS).map(|number| format!("batch-{number}")).collect();
    for name in &names {
        scene.created(&job(name, &image, "Never"))?;
        sleep(Duration::from_millis(900));
    }
    until("the first of them is being failed", 60, || {
        Ok(condition(&scene.get("job", &names[0])?, "FailureTarget").is_some().then_some(()))
    })?;
    for node in scene.cluster.nodes() {
        scene.cluster.import(node, &image)?;
    }
    // Each comes to one of the two ends.
    let is_failed = |name: &str| -> Result<Option<Value>> {
        Ok(condition(&scene.get("job", name)?, "FailureTarget").filter(|target| target["status"] == "True").cloned())
    };
    let runs =
        |name: &str| -> Result<bool> { Ok(scene.pods_of(name)?.iter().any(|pod| pod["status"]["phase"] == "Running")) };
    for name in &names {
        until(&format!("{name} runs or is failed"), 60, || {
            Ok((is_failed(name)?.is_some() || runs(name)?).then_some(()))
        })?;
    }
    sleep(Duration::from_secs(4));
    let started = started_pods(scene)?;
    let mut running = 0;
    for name in &names {
        match is_failed(name)? {
            None => {
                ensure!(runs(name)?, "{name} neither runs nor is failed");
                scene.unmarked("job", name)?;
                let record = scene.any_record(name)?;
                let ended = record.as_ref().is_some_and(|record| record["status"]["state"] == "PermanentlyFailed");
                ensure!(!ended, "{name} runs, and its record says {}", record.unwrap_or_default()["status"]);
                running += 1;
            }
            Some(target) => {
                let at = target["lastTransitionTime"].as_str().context("a time")?;
                let late: Vec<_> = started.iter().filter(|(pod, _)| pod.starts_with(&format!("{name}-"))).collect();
                // Whole seconds on both sides; what starts in the second of the act, or after it, nobody could know.
                ensure!(late.iter().all(|(_, start)| start.as_str() >= at), "{name} failed at {at}: started {late:?}");
            }
        }
    }
    ensure!(running > 0 && running < JOBS, "{running} of {JOBS} run: the image came too early or too late to tell");
    Ok(())
}

/// Pods of which the kubelet has started a container, and when.
fn started_pods(scene: &Scene<'_>) -> Result<Vec<(String, String)>> {
    let events = scene.list("events")?;
    let started = events.iter().filter(|event| event["reason"] == "Started");
    Ok(started
        .map(|event| {
            let at = event["firstTimestamp"].as_str().or(event["eventTime"].as_str()).unwrap_or_default();
            (event["involvedObject"]["name"].as_str().unwrap_or_default().to_owned(), at.to_owned())
        })
        .collect())
}

fn an_image_that_comes_after_the_failure_resolves_it_and_the_task_runs(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("2s", json!({})))?;
    let image = scene.image("node");
    let task = task_pod("task-1", &image);
    scene.created(&task)?;
    scene.record("task-1", "PermanentlyFailed")?;
    until("the next pod is refused", 60, || Ok((!scene.try_create(&task)?.accepted).then_some(())))?;
    for node in [Node::A, Node::B] {
        scene.cluster.import(node, &image)?;
    }
    // Nodes list a new image up to 40 s late.
    until("the failure is resolved", 90, || {
        let record = scene.any_record("task-1")?;
        Ok(record.filter(|record| record["status"]["state"] == "Resolved"))
    })?;
    let told = until("that is told", 90, || {
        Ok(scene.events("controller")?.into_iter().find(|event| event["reason"] == "PullResolved"))
    })?;
    ensure!(told["action"] == "Resolve" && told["type"] == "Normal", "{told}");
    until("the next pod is accepted", 60, || Ok(scene.try_create(&task)?.accepted.then_some(())))?;
    scene.created(&task)?;
    until("it runs", 60, || {
        let pods = scene.pods_of_task("task-1")?;
        let running = pods.iter().find(|pod| pod["status"]["phase"] == "Running");
        Ok(running.map(|pod| name_of(pod).to_owned()))
    })
    .map(drop)
}
