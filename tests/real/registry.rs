//! What registries do wrong: the right class for each, and only what a registry itself has refused ends a task.

use anyhow::{Context, Result, ensure};
use cluster::{REGISTRY_PASSWORD, REGISTRY_USER, TestImage};
use serde_json::json;

use crate::props::{acting, pull_secret};
use crate::proxy::{Fault, Proxy, free_address};
use crate::stage::until;
use crate::world::{Scene, job};

crate::scenarios! {
    Nodes:
        what_a_registry_cannot_do_for_now_fails_no_job_and_they_run_once_it_can,
        what_a_registry_refuses_fails_the_job_with_the_class_of_the_refusal,
        denied_or_missing_is_not_believed_while_others_start_from_that_repository;
}

/// Somewhere that an image is pulled from in vain, until it is mended.
struct Sick<'a> {
    job: &'a str,
    class: &'a str,
    address: String,
    proxy: Option<Proxy>,
}

fn what_a_registry_cannot_do_for_now_fails_no_job_and_they_run_once_it_can(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("6s", json!({"maxAttempts": 100})))?;
    let cluster = scene.cluster;
    let mut sick = Vec::new();
    let faults = [
        ("limited", "RateLimited", Fault::Status(429)),
        ("error-500", "RegistryError", Fault::Status(500)),
        ("error-502", "RegistryError", Fault::Status(502)),
        ("error-503", "RegistryError", Fault::Status(503)),
        ("page", "CorruptImage", Fault::Page),
        ("missing-blob", "CorruptImage", Fault::MissingBlob),
        ("broken-blob", "CorruptImage", Fault::BrokenBlob),
    ];
    for (job, class, fault) in faults {
        let proxy = Proxy::open(cluster)?;
        proxy.fail(fault);
        sick.push(Sick { job, class, address: proxy.address().to_owned(), proxy: Some(proxy) });
    }
    for (job, class, proxy) in
        [("mute", "Network", Proxy::mute(cluster)?), ("unknown-ca", "Tls", Proxy::with_unknown_ca(cluster)?)]
    {
        sick.push(Sick { job, class, address: proxy.address().to_owned(), proxy: Some(proxy) });
    }
    let down = free_address(cluster)?;
    for node in cluster.nodes() {
        cluster.trust_registry(node, &down, &down)?;
    }
    sick.push(Sick { job: "down", class: "Network", address: down, proxy: None });

    for Sick { job: name, address, .. } in &sick {
        let path = format!("team/{}-{name}:1", scene.namespace);
        cluster.push(&path)?;
        scene.created(&job(name, &format!("{address}/{path}"), "IfNotPresent"))?;
    }
    for Sick { job, class, .. } in &sick {
        let record = scene.record(job, "Retrying")?;
        let status = &record["status"];
        ensure!(status["class"] == *class, "{job} is no {class}: {status}");
        ensure!(status["failures"][0]["permanence"] != "Permanent", "{job}: {status}");
    }
    // Each of them is past its grace, and has been tried twice.
    until("all have waited for long enough", 60, || {
        let records = scene.list("pullfailures")?;
        let tried = records.iter().filter(|record| record["status"]["attempts"].as_i64() >= Some(1)).count();
        Ok((tried == sick.len()).then_some(()))
    })?;
    let before = scene.uids()?;
    for Sick { job, .. } in &sick {
        scene.still_retrying(job)?;
    }

    let mut mended = Vec::new();
    for Sick { job, address, proxy, .. } in &sick {
        match proxy {
            None => mended.push(Proxy::at(cluster, address)?),
            Some(proxy) => proxy.heal(),
        }
        // What never spoke our language is replaced by one that does.
        if ["mute", "unknown-ca"].contains(job) {
            for node in cluster.nodes() {
                cluster.trust_registry(node, address, &cluster.registry())?;
            }
        }
    }
    // The kubelet's back-off was at 40 s at the most by now.
    until("all pods run", 120, || {
        let running = scene.list("pods")?.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        Ok((running == sick.len()).then_some(()))
    })?;
    ensure!(scene.uids()? == before, "other pods than those that waited");
    for Sick { job, .. } in &sick {
        scene.record(job, "Resolved")?;
        scene.unmarked("job", job)?;
    }
    Ok(())
}

fn what_a_registry_refuses_fails_the_job_with_the_class_of_the_refusal(scene: &Scene<'_>) -> Result<()> {
    let mut policy = acting("5s", json!({}));
    // Or the pod whose image is no name would never come to be.
    policy["enforcement"] = json!("Warn");
    scene.policy(policy)?;
    let cluster = scene.cluster;
    let there = cluster.push(&format!("team/{}:1", scene.namespace))?;
    let private = cluster.push_with_password(&TestImage::new(&format!("team/{}:1", scene.namespace)))?;
    // Nobody has a node of that kind.
    let foreign = TestImage::new(&format!("team/{}-foreign:1", scene.namespace)).platform("linux/s390x");
    let foreign = cluster.push_index(&foreign)?;
    scene.created(&pull_secret("wrong", &cluster.auth_registry(), REGISTRY_USER, "not the password"))?;
    scene.created(&pull_secret("right", &cluster.auth_registry(), REGISTRY_USER, REGISTRY_PASSWORD))?;
    let with_secret = |name: &str, secret: &str| {
        let mut job = job(name, &private, "IfNotPresent");
        job["spec"]["template"]["spec"]["imagePullSecrets"] = json!([{ "name": secret }]);
        job
    };
    let repository = there.trim_end_matches(":1");
    let cases = [
        (job("missing-tag", &format!("{repository}:2"), "IfNotPresent"), vec!["NotFound"]),
        (job("missing-repository", &format!("{repository}-nowhere:1"), "IfNotPresent"), vec!["NotFound"]),
        (job("missing-digest", &format!("{repository}@sha256:{}", "0".repeat(64)), "IfNotPresent"), vec!["NotFound"]),
        (with_secret("wrong-secret", "wrong"), vec!["Unauthorized"]),
        // "May require authorization ... no basic auth credentials": both are true.
        (job("no-secret", &private, "IfNotPresent"), vec!["Unauthorized", "NotFoundOrDenied"]),
        (job("wrong-platform", &foreign, "IfNotPresent"), vec!["PlatformMismatch"]),
        (job("no-name", "Not/A:Name:1", "IfNotPresent"), vec!["InvalidName"]),
    ];
    for (job, _) in &cases {
        scene.created(job)?;
    }
    scene.created(&with_secret("right-secret", "right"))?;
    for (job, classes) in &cases {
        let name = job["metadata"]["name"].as_str().context("a name")?;
        let failed = scene.until_failed(name, 90)?;
        ensure!(failed["reason"] == "PullPermanentlyFailed", "{name}: {failed}");
        let record = scene.record(name, "PermanentlyFailed")?;
        let class = record["status"]["class"].as_str().context("a class")?;
        ensure!(classes.contains(&class), "{name}: {}", record["status"]);
        let said = format!("{} {}", record["status"]["message"], record["status"]["remedy"]);
        ensure!(!said.contains("null") && failed["message"].to_string().contains(class), "{name}: {said} {failed}");
    }
    // And the one with the right secret runs.
    until("the one that may pull runs", 60, || {
        let pods = scene.pods_of("right-secret")?;
        Ok(pods.iter().any(|pod| pod["status"]["phase"] == "Running").then_some(()))
    })?;
    scene.unmarked("job", "right-secret")
}

/// "Denied, or does not exist" is what a registry says of both, and also while its database is away. A container that
/// starts from the same repository after that speaks against it.
fn denied_or_missing_is_not_believed_while_others_start_from_that_repository(scene: &Scene<'_>) -> Result<()> {
    scene.policy(acting("8s", json!({"maxAttempts": 100})))?;
    let (busy, quiet) = (format!("team/{}-busy", scene.namespace), format!("team/{}-quiet", scene.namespace));
    let proxy = Proxy::open(scene.cluster)?;
    scene.cluster.push(&format!("{busy}:1"))?;
    for repository in [&busy, &quiet] {
        proxy.fail_only(&format!("{repository}/manifests/2"), Fault::Denied);
    }
    let image = |repository: &str, tag: &str| format!("{}/{repository}:{tag}", proxy.address());
    scene.created(&job("busy", &image(&busy, "2"), "IfNotPresent"))?;
    scene.created(&job("quiet", &image(&quiet, "2"), "IfNotPresent"))?;
    scene.created(&job("good", &image(&busy, "1"), "IfNotPresent"))?;
    let failed = scene.until_failed("quiet", 90)?;
    ensure!(failed["reason"] == "PullPermanentlyFailed", "{failed}");
    let record = scene.record("quiet", "PermanentlyFailed")?;
    ensure!(record["status"]["class"] == "NotFoundOrDenied", "{}", record["status"]);
    // Its record is of half the grace, and brought up to date at most every five seconds.
    until("the attempt of the other one is recorded", 60, || {
        let status = scene.record("busy", "Retrying")?["status"].clone();
        Ok((status["class"] == "NotFoundOrDenied" && status["attempts"] == 1).then_some(()))
    })?;
    scene.still_retrying("busy")
}
