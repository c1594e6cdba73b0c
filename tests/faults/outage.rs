//! The API server and etcd that go away and come back, and watches that come back too late.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster::Component;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use pullguard::shell::world::Clock;

use crate::puppet::Puppet;
use crate::replica::Replica;
use crate::stage::{Scene, Stage, until};
use crate::wire::Wire;

/// The controllers of Kubernetes ask an API server that was away again after up to a minute (client-go's back-off), and only
/// then fail a Job that bears its `FailureTarget`.
const AFTER_OUTAGE: u64 = 180;

async fn until_stuck(scene: &Scene<'_>, count: usize) -> Result<()> {
    let waits = |pod: &Pod| serde_json::to_string(&pod.status).is_ok_and(|text| text.contains("ErrImageNeverPull"));
    scene.until_count("pods wait for their images", count, 90, waits).await
}

async fn until_running(scene: &Scene<'_>, job: &str) -> Result<()> {
    let (jobs, name) = (scene.api::<Job>(), job.to_owned());
    until(&format!("the pod of {job} runs"), AFTER_OUTAGE, || {
        let (jobs, name) = (jobs.clone(), name.clone());
        Box::pin(async move {
            let ready = jobs.get(&name).await?.status.and_then(|status| status.ready);
            Ok((ready == Some(1)).then_some(()))
        })
    })
    .await
}

/// In the blocking part of the runtime: what stops and starts processes waits for them.
async fn restart(stage: &Stage, component: Component, away: Duration) -> Result<()> {
    let cluster = stage.cluster.clone();
    tokio::task::spawn_blocking(move || {
        cluster.kill(component)?;
        std::thread::sleep(away);
        cluster.start(component)
    })
    .await?
}

pub async fn an_api_server_and_an_etcd_that_restart_forget_nothing_and_convict_nobody_else(
    stage: &Stage,
) -> Result<()> {
    for (component, name) in [(Component::ApiServer, "api-server"), (Component::Etcd, "etcd")] {
        let scene = stage.open(&format!("restart-{name}"), "6s").await?;
        let puppet = Puppet::play(stage.client.clone(), &scene.namespace);
        let replica = Replica::start(stage.config().await?, Wire::default(), Clock::default())?;
        scene.job("hopeless", "absent:1").await?;
        scene.job("saved", "late:1").await?;
        until_stuck(&scene, 2).await?;
        // Away for longer than the grace. Meanwhile an image arrives: who counts only the time is wrong about it.
        puppet.load("late:1");
        restart(stage, component, Duration::from_secs(8)).await?;
        until_running(&scene, "saved").await?;
        scene.assert_failed_by_us("hopeless", AFTER_OUTAGE).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        scene.assert_untouched("saved").await?;
        // Until its kubelet could say otherwise it was as hopeless as the other one: it may have been marked, and is no more.
        let jobs = scene.api::<Job>();
        until("the Job that goes on has no mark of ours", 90, || {
            let jobs = jobs.clone();
            Box::pin(async move {
                let labels = jobs.get("saved").await?.metadata.labels.unwrap_or_default();
                Ok((!labels.contains_key("pullguard.dev/state")).then_some(()))
            })
        })
        .await?;
        let ended = replica.wire.calls().into_iter().find(|call| {
            call.succeeded()
                && call.path.contains(&scene.namespace)
                && call.path.contains("saved")
                && (call.fails_job() || call.deletes_pod())
        });
        replica.kill().await;
        ensure!(ended.is_none(), "{name}: {ended:?}");
        scene.close().await?;
    }
    Ok(())
}

/// Every watch is cut for as long as it takes until the API server no longer knows where it was, and says 410 Gone.
pub async fn a_watch_that_comes_back_with_410_gone_finds_out_what_has_changed_meanwhile(stage: &Stage) -> Result<()> {
    let scene = stage.open("gone", "6s").await?;
    let puppet = Puppet::play(stage.client.clone(), &scene.namespace);
    let replica = Replica::start(stage.config().await?, Wire::default(), Clock::default())?;
    scene.job("hopeless", "absent:1").await?;
    scene.job("saved", "late:1").await?;
    scene.job("deleted", "absent:2").await?;
    until_stuck(&scene, 3).await?;
    let before = scene.api::<Pod>().list(&kube::api::ListParams::default()).await?.metadata.resource_version;
    // Asleep, it hears nothing of all this; and an API server that starts anew remembers nothing from before.
    let sleeping = replica.wire.sleep();
    puppet.load("late:1");
    scene.api::<Job>().delete("deleted", &kube::api::DeleteParams::background()).await?;
    until_running(&scene, "saved").await?;
    restart(stage, Component::ApiServer, Duration::from_secs(1)).await?;
    let from = before.unwrap_or_default();
    let path = format!("/api/v1/namespaces/{}/pods?watch=1&resourceVersion={from}&timeoutSeconds=3", scene.namespace);
    let answer = stage.cluster.kubectl(&["get", "--raw", &path])?;
    let text = [answer.stdout, answer.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(text.contains("410") || text.contains("too old") || text.contains("Expired"), "no 410: {text}");
    drop(sleeping);
    scene.assert_failed_by_us("hopeless", AFTER_OUTAGE).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.assert_untouched("saved").await?;
    let records = scene.records().await?;
    replica.kill().await;
    let failed = records.iter().filter(|record| crate::stage::state_of(record).1 == "PermanentlyFailed").count();
    ensure!(failed == 1, "{records:?}");
    Ok(())
}
