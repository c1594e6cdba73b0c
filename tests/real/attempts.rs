//! Makers who try again and again: what ends them, and what does not help them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::props::{TASK_LABEL, acting, graces, metric, name_of, waiting_reason};
use crate::stage::until;
use crate::world::{Scene, task_pod};

crate::scenarios! {
    Nodes:
        a_registry_that_stays_away_ends_a_task_after_max_attempts,
        a_maker_who_deletes_and_creates_again_within_the_grace_does_not_turn_back_the_clock,
        audit_tells_of_each_step_what_it_would_do_and_does_none;
}

/// One more pod of a task: its name, once it is stuck.
fn one_more(scene: &Scene<'_>, task: &Value) -> Result<Option<String>> {
    let answer = scene.create(task)?;
    if !answer.accepted {
        answer.refused_with(&["TaskPermanentlyFailed"])?;
        return Ok(None);
    }
    let name = answer.out.trim().trim_start_matches("pod/").trim_end_matches(" created").to_owned();
    until("the new pod is stuck", 60, || {
        let pod = scene.get("pod", &name)?;
        Ok(matches!(waiting_reason(&pod), "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull").then_some(()))
    })?;
    Ok(Some(name))
}

fn a_registry_that_stays_away_ends_a_task_after_max_attempts(scene: &Scene<'_>) -> Result<()> {
    // The grace is longer than anybody waits: each pod is given up by its maker before.
    scene.policy(acting("600s", json!({"maxAttempts": 3})))?;
    let before = metric(scene.cluster, "pullguard_wasted_attempts_total", "")?;
    let mut task = task_pod("task-1", &format!("{}:9/team/app:1", scene.cluster.address()));
    task["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    let mut made = 0;
    while let Some(name) = one_more(scene, &task)? {
        made += 1;
        ensure!(made <= 6, "its maker was let make a seventh pod");
        scene.ok(&["delete", "pod", &name, "--wait=false"])?;
        // What is said of it takes a moment to come to be said at admission.
        sleep(Duration::from_millis(1500));
    }
    let record = scene.record("task-1", "PermanentlyFailed")?;
    ensure!(record["status"]["reason"] == "PullRetriesExhausted" && record["status"]["class"] == "Network", "{record}");
    // One more may slip through until it is known at admission.
    let attempts = record["status"]["attempts"].as_i64().context("a number")?;
    ensure!((3..=4).contains(&attempts) && (3..=4).contains(&made), "{made} pods, {attempts} attempts");
    let told = until("that is told", 90, || {
        Ok(scene.events("controller")?.into_iter().find(|event| event["reason"] == "PullRetriesExhausted"))
    })?;
    ensure!(told["note"].as_str().is_some_and(|note| note.contains(" attempts ")), "{told}");
    let after = metric(scene.cluster, "pullguard_wasted_attempts_total", "")?;
    ensure!(after >= before + 3.0, "{before} attempts before, {after} after");
    Ok(())
}

fn a_maker_who_deletes_and_creates_again_within_the_grace_does_not_turn_back_the_clock(
    scene: &Scene<'_>,
) -> Result<()> {
    const GRACE: u64 = 20;
    scene.policy(acting("20s", json!({"maxAttempts": 100})))?;
    let task = task_pod("task-1", &scene.image("node"));
    let started = Instant::now();
    let mut made = Vec::new();
    while let Some(name) = one_more(scene, &task)? {
        made.push(name.clone());
        ensure!(started.elapsed() < Duration::from_secs(3 * GRACE), "{} pods, and it goes on", made.len());
        sleep(Duration::from_secs(4));
        scene.ok(&["delete", "pod", &name, "--wait=false"])?;
    }
    let record = scene.record("task-1", "PermanentlyFailed")?;
    ensure!(record["status"]["reason"] == "PullPermanentlyFailed", "{}", record["status"]);
    // No pod of it was as old as that.
    ensure!(made.len() >= 3, "{made:?}");
    let time =
        |field: &str| -> Result<jiff::Timestamp> { Ok(record["status"][field].as_str().context("a time")?.parse()?) };
    let waited = time("failedAt")?.duration_since(time("firstSeen")?).as_secs();
    ensure!(waited + 2 >= GRACE as i64 && waited <= 2 * GRACE as i64, "failed after {waited} s");
    Ok(())
}

fn audit_tells_of_each_step_what_it_would_do_and_does_none(scene: &Scene<'_>) -> Result<()> {
    let mut policy = acting("3s", json!({"enforcement": "Audit"}));
    policy["runtime"]["grace"] = graces("3s");
    scene.policy(policy)?;
    let labels = "enforcement=\"Audit\"";
    let before = metric(scene.cluster, "pullguard_tasks_failed_total", labels)?;
    let task = task_pod("task-1", &scene.image("node"));
    for _ in 0..3 {
        scene.created(&task)?;
    }
    let of = |reason: &str| -> Result<Value> {
        until(&format!("{reason} is told"), 60, || {
            Ok(scene.events("controller")?.into_iter().find(|event| event["reason"] == reason))
        })
    };
    for (reason, action) in [("PullPermanentlyFailed", "WouldFailPod"), ("PodsCollected", "WouldCollectPods")] {
        let event = of(reason)?;
        ensure!(event["action"] == action, "{event}");
        ensure!(event["note"].as_str().is_some_and(|note| note.starts_with("(audit) ")), "{event}");
    }
    sleep(Duration::from_secs(4));
    let pods = scene.pods_of_task("task-1")?;
    ensure!(pods.len() == 3, "{} pods are left", pods.len());
    for pod in &pods {
        ensure!(pod["spec"]["activeDeadlineSeconds"].is_null() && pod["status"]["phase"] == "Pending", "{pod}");
        ensure!(pod["metadata"]["labels"] == json!({TASK_LABEL: "task-1"}), "{}", pod["metadata"]);
        scene.unmarked("pod", name_of(pod))?;
    }
    ensure!(scene.list("pullfailures")?.is_empty(), "there is a record");
    scene.try_create(&task)?.accepted_in_silence()?;
    ensure!(metric(scene.cluster, "pullguard_tasks_failed_total", labels)? >= before + 1.0, "it is not counted");
    let waste = metric(scene.cluster, "pullguard_wasted_pod_seconds_total", "class=\"NeverPull\"")?;
    ensure!(waste >= 3.0, "{waste} s of waiting");
    Ok(())
}
