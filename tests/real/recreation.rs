//! A failed task is not created again: by what it is, and what lets it be tried.
//!
//! An image that comes, and a record that is deleted, have their scenarios in `arrival` and `runtime`.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::props::{TASK_LABEL, acting, asked, replicas};
use crate::stage::until;
use crate::world::{Scene, pod};

crate::scenarios! {
    Nodes:
        another_image_secret_or_pull_policy_is_another_try_and_a_start_of_that_image_ends_the_failure,
        without_a_policy_that_matches_a_record_denies_nothing,
        after_its_expiry_both_replicas_open_and_close_at_the_same_time;
}

fn task(image: &str, pull_policy: &str) -> Value {
    let mut pod = pod("next", image, pull_policy);
    pod["metadata"]["labels"] = json!({TASK_LABEL: "task-1"});
    pod
}

/// A task that has failed on an image that no node has; returns the record.
fn failed(scene: &Scene<'_>, image: &str, settings: Value) -> Result<Value> {
    scene.policy(acting("2s", settings))?;
    let mut first = task(image, "Never");
    first["metadata"]["name"] = json!("first");
    scene.created(&first)?;
    let record = scene.record("task-1", "PermanentlyFailed")?;
    until("the next pod is refused", 60, || Ok((!scene.try_create(&task(image, "Never"))?.accepted).then_some(())))?;
    Ok(record)
}

fn another_image_secret_or_pull_policy_is_another_try_and_a_start_of_that_image_ends_the_failure(
    scene: &Scene<'_>,
) -> Result<()> {
    let image = scene.cluster.push(&format!("team/{}:1", scene.namespace))?;
    failed(scene, &image, json!({}))?;
    let same = task(&image, "Never");
    scene.try_create(&same)?.refused_with(&["TaskPermanentlyFailed", "NeverPull", &image])?;
    // Its name is not what a pod is known by.
    let mut renamed = same.clone();
    renamed["metadata"]["name"] = json!("other");
    scene.try_create(&renamed)?.refused_with(&["TaskPermanentlyFailed"])?;
    scene.try_create(&task(&scene.image("other"), "Never"))?.accepted_in_silence()?;
    let mut secret = same.clone();
    secret["spec"]["imagePullSecrets"] = json!([{"name": "new"}]);
    scene.try_create(&secret)?.accepted_in_silence()?;
    let pulls = task(&image, "IfNotPresent");
    scene.try_create(&pulls)?.accepted_in_silence()?;
    // What may pull it starts, long before a node lists it.
    scene.created(&pulls)?;
    scene.until_running("next")?;
    scene.record("task-1", "Resolved")?;
    until("the same again is accepted", 90, || Ok(scene.try_create(&renamed)?.accepted.then_some(())))
}

fn without_a_policy_that_matches_a_record_denies_nothing(scene: &Scene<'_>) -> Result<()> {
    let image = scene.image("node");
    failed(scene, &image, json!({}))?;
    scene.ok(&["delete", "nodeimagepolicy", &scene.namespace])?;
    until("the next pod is accepted", 60, || Ok(scene.try_create(&task(&image, "Never"))?.accepted.then_some(())))?;
    ensure!(scene.any_record("task-1")?.is_some(), "the record is gone");
    // Nor where the policy does not ask for it.
    scene.policy(acting("2s", json!({"denyRecreation": false})))?;
    scene.try_create(&task(&image, "Never"))?.accepted_in_silence()?;
    scene.policy(acting("2s", json!({})))?;
    scene.try_create(&task(&image, "Never"))?.refused_with(&["TaskPermanentlyFailed"])
}

/// The window is computed from the record alone: moved in time, it stands for one that is so old.
fn after_its_expiry_both_replicas_open_and_close_at_the_same_time(scene: &Scene<'_>) -> Result<()> {
    let image = scene.image("node");
    let record = failed(scene, &image, json!({"expiry": "100s"}))?;
    let time =
        |field: &str| -> Result<jiff::Timestamp> { Ok(record["status"][field].as_str().context("a time")?.parse()?) };
    ensure!(time("expiresAt")?.duration_since(time("failedAt")?).as_secs() == 100, "{}", record["status"]);
    let name = record["metadata"]["name"].as_str().context("a name")?;
    let replicas = replicas(scene.cluster)?;
    ensure!(replicas.len() == 2, "{replicas:?}");
    let next = task(&image, "Never");
    let answers = || -> Result<Vec<bool>> {
        replicas.iter().map(|replica| Ok(asked(scene, replica, &next)?.is_none())).collect()
    };
    let failed_ago = |seconds: i64| -> Result<()> {
        let failed = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() - seconds)?;
        let expires = jiff::Timestamp::from_second(failed.as_second() + 100)?;
        let patch = json!({"status": {"failedAt": failed.to_string(), "expiresAt": expires.to_string()}});
        scene.ok(&["patch", "pullfailure", name, "--type=merge", "-p", &patch.to_string()]).map(drop)
    };
    let both =
        |what: &str, open: bool| until(what, 90, || Ok(answers()?.iter().all(|answer| *answer == open).then_some(())));
    both("both replicas refuse it", false)?;
    // Six seconds before the expiry: closed, and then open, on both within a moment of each other.
    failed_ago(94)?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    ensure!(answers()? == [false, false], "open before the expiry");
    both("both replicas are open", true)?;
    // The end of the window, 60 s later, and the next one.
    failed_ago(154)?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    ensure!(answers()? == [true, true], "closed within the window");
    both("both replicas are closed", false)?;
    failed_ago(205)?;
    both("both replicas are open once more", true)
}
