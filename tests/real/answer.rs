//! How an answer reaches people, programs and the audit log.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::audit_log;
use crate::stage::until;
use crate::world::{Scene, job, list, pod};

crate::scenarios! {
    Nodes:
        warnings_fit_into_256_bytes_and_begin_with_reason_and_policy,
        the_audit_log_tells_the_decision_also_where_the_client_hears_nothing,
        a_job_that_is_denied_again_and_again_leaves_one_event_a_replica;
}

/// The webhook runs twice, and each replica tells for itself.
const REPLICAS: usize = 2;

fn warnings(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("Warning: ")).collect()
}

fn warnings_fit_into_256_bytes_and_begin_with_reason_and_policy(scene: &Scene<'_>) -> Result<()> {
    let remedy = format!("Ask the owners of the images, {}.", "who know what is to be done ".repeat(8).trim());
    scene.policy(json!({"enforcement": "Warn", "allowedImages": ["registry.local/**"],
        "remedies": [{"image": "**", "text": remedy}]}))?;
    let mut many = pod("many", "bad:1", "IfNotPresent");
    let path = "a-very-long-path-of-a-repository/".repeat(5);
    many["spec"]["containers"] = (0..30)
        .map(|number| {
            json!({"name": format!("c{number}"), "image": format!("registry.example/{path}bad-{number}:1"),
                "imagePullPolicy": "IfNotPresent"})
        })
        .collect();
    let warned = scene.try_create(&many)?;
    ensure!(warned.accepted, "{}", warned.err);
    let warnings = warnings(&warned.err);
    let begin = format!("ImageNotAllowed (policy {}): image \"registry.example/", scene.namespace);
    let (last, first) = warnings.split_last().context("warnings")?;
    ensure!(first.first().is_some_and(|warning| warning.starts_with(&begin)), "{warnings:#?}");
    ensure!(
        warnings.len() <= 16 && last.starts_with("Pullguard: ") && last.ends_with(" more warnings"),
        "{warnings:#?}"
    );
    for warning in first {
        ensure!(warning.len() <= 256, "{} bytes: {warning}", warning.len());
        ensure!(warning.starts_with("ImageNotAllowed"), "{warning}");
    }
    Ok(())
}

fn the_audit_log_tells_the_decision_also_where_the_client_hears_nothing(scene: &Scene<'_>) -> Result<()> {
    let absent = pod("task", &scene.image("nowhere"), "Never");
    let annotation = |annotations: &Value, key: &str| annotations[format!("pods.pullguard.dev/{key}")].clone();
    for (enforcement, decision) in [("Enforce", "Deny"), ("Warn", "Warn"), ("Audit", "Allow")] {
        scene.policy(json!({"enforcement": enforcement}))?;
        let answer = scene.try_create(&absent)?;
        ensure!(answer.accepted == (enforcement != "Enforce"), "{enforcement}: {}", answer.err);
        let annotations = audit_log::last_annotations(&scene.namespace)?;
        let expected = [
            ("decision", decision),
            ("would-be", "Deny"),
            ("reason", "ImageAbsent"),
            ("policies", scene.namespace.as_str()),
        ];
        for (key, value) in expected {
            ensure!(annotation(&annotations, key) == value, "{enforcement}: {key} is no {value} in {annotations}");
        }
    }
    scene.policy(json!({"presence": {"elastic": true}}))?;
    scene.try_create(&absent)?;
    let annotations = audit_log::last_annotations(&scene.namespace)?;
    ensure!(annotation(&annotations, "detail") == "MayScaleUp", "{annotations}");
    // Where there is nothing to say, nothing is said.
    scene.try_create(&pod("task", "registry.local/a:1", "IfNotPresent"))?.accepted_in_silence()?;
    let annotations = audit_log::last_annotations(&scene.namespace)?;
    ensure!(!annotations.to_string().contains("pullguard"), "{annotations}");
    Ok(())
}

fn a_job_that_is_denied_again_and_again_leaves_one_event_a_replica(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({}))?;
    scene.created(&job("batch", &scene.image("nowhere"), "Never"))?;
    // And somebody who tries by hand, and does not give up.
    let bare = list((0..6).map(|_| pod("bare", &scene.image("nowhere"), "Never")));
    scene.create(&bare)?.refused_with(&["ImageAbsent"])?;
    until("the Job controller has tried five times", 90, || {
        let events = scene.list("events.events.k8s.io")?;
        let failed = events.iter().filter(|event| event["reason"] == "FailedCreate");
        let tries: u64 = failed
            .map(|event| event["deprecatedCount"].as_u64().or(event["series"]["count"].as_u64()).unwrap_or(1))
            .sum();
        Ok((tries >= 5).then_some(()))
    })?;
    let events = scene.events("webhook")?;
    for (kind, name) in [("Job", "batch"), ("Pod", "bare")] {
        let about: Vec<_> = events
            .iter()
            .filter(|event| event["action"] == "Deny" && event["regarding"]["kind"] == kind)
            .filter(|event| event["regarding"]["name"] == name)
            .collect();
        ensure!((1..=REPLICAS).contains(&about.len()), "{} Events about {kind} {name}: {about:?}", about.len());
    }
    // And one that the Job's own template was warned of.
    ensure!(events.len() <= 2 * REPLICAS + 1, "{} Events: {events:?}", events.len());
    Ok(())
}
