//! Jobs whose pods our own webhook refuses, again and again: failed after a time, and only for what a policy did not choose.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::props::{REMEDY, acting};
use crate::stage::until;
use crate::world::{Scene, condition, job};

crate::scenarios! {
    Nodes:
        a_job_that_is_denied_for_too_long_fails_and_never_for_what_a_policy_forbids_or_nobody_knows,
        a_policy_that_changes_meanwhile_starts_the_time_anew;
}

fn denying(limit: &str, more: &Value) -> Value {
    let mut policy = acting("2s", json!({"failDeniedAfter": limit}));
    policy["presence"] = json!({"onAbsent": "Deny", "onUnknown": "Deny"});
    for (field, value) in more.as_object().into_iter().flatten() {
        policy[field] = value.clone();
    }
    policy
}

fn until_denied(scene: &Scene<'_>, job: &str) -> Result<()> {
    until(&format!("the pods of {job} are denied"), 90, || {
        let events = scene.list("events")?;
        let denied =
            events.iter().any(|event| event["reason"] == "FailedCreate" && event["involvedObject"]["name"] == job);
        Ok(denied.then_some(()))
    })
}

fn a_job_that_is_denied_for_too_long_fails_and_never_for_what_a_policy_forbids_or_nobody_knows(
    scene: &Scene<'_>,
) -> Result<()> {
    scene.policy(denying("4s", &json!({"allowedImages": ["optio-*"]})))?;
    let image = scene.image("node");
    let forbidden = job("forbidden", "registry.local/other/app:1", "Never");
    // No node could take it, so that nobody knows whether one that could would have the image.
    let mut unknown = job("unknown", &image, "Never");
    unknown["spec"]["template"]["spec"]["nodeSelector"] = json!({"nobody": "has-it"});
    for job in [&forbidden, &unknown, &job("absent", &image, "Never")] {
        scene.created(job)?;
    }
    for name in ["forbidden", "unknown", "absent"] {
        until_denied(scene, name)?;
    }
    let failed = scene.until_failed("absent", 60)?;
    ensure!(failed["reason"] == "DeniedTooLong", "{failed}");
    let message = failed["message"].as_str().context("a message")?;
    ensure!(message.contains(&image) && message.contains(REMEDY), "{message}");
    let record = scene.record("absent", "PermanentlyFailed")?;
    ensure!(record["status"]["reason"] == "DeniedTooLong" && record["status"]["remedy"] == REMEDY, "{record}");
    scene.until_told("DeniedTooLong", "absent")?;
    let absent = scene.get("job", "absent")?;
    ensure!(absent["metadata"]["labels"]["pullguard.dev/state"] == "permanently-failed", "{}", absent["metadata"]);
    sleep(Duration::from_secs(6));
    for name in ["forbidden", "unknown"] {
        scene.unmarked("job", name)?;
        ensure!(scene.any_record(name)?.is_none(), "{name} has a record");
    }
    ensure!(scene.list("pods")?.is_empty(), "a pod was made");
    Ok(())
}

fn a_policy_that_changes_meanwhile_starts_the_time_anew(scene: &Scene<'_>) -> Result<()> {
    scene.policy(denying("16s", &json!({})))?;
    scene.created(&job("batch", &scene.image("node"), "Never"))?;
    until_denied(scene, "batch")?;
    sleep(Duration::from_secs(5));
    scene.unmarked("job", "batch")?;
    scene.policy(denying("16s", &json!({"nodeImageLimit": 49})))?;
    let changed = jiff::Timestamp::now();
    scene.until_failed("batch", 90)?;
    let target = scene.get("job", "batch")?;
    let target = condition(&target, "FailureTarget").context("a condition")?;
    ensure!(target["reason"] == "DeniedTooLong", "{target}");
    let failed: jiff::Timestamp = target["lastTransitionTime"].as_str().context("a time")?.parse()?;
    // The new generation was in force a moment before it was said to be; and the condition has whole seconds.
    let waited = failed.duration_since(changed).as_secs();
    ensure!(waited >= 13, "failed {waited} s after the policy was changed");
    Ok(())
}
