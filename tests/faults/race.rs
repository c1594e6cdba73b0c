//! What changes between a decision and its effect: the fence holds, and nothing that could have started is ended.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::FutureExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use pullguard::shell::world::Clock;
use tokio::sync::oneshot;

use crate::puppet::Puppet;
use crate::replica::Replica;
use crate::stage::{Scene, Stage, until};
use crate::wire::{Call, Fate, Wire};

/// A wire that holds the first request of a kind, and says so.
fn holding(is_it: fn(&Call) -> bool) -> (Wire, oneshot::Receiver<()>, oneshot::Sender<()>) {
    let (decided, is_decided) = oneshot::channel();
    let (release, released) = oneshot::channel::<()>();
    let once = Mutex::new(Some((decided, released)));
    let wire = Wire::new(move |call| {
        let mut once = once.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_it(call) {
            return Fate::Pass;
        }
        match once.take() {
            Some((decided, released)) => {
                let _nobody_waits = decided.send(());
                Fate::Held(released.map(drop).boxed())
            }
            None => Fate::Pass,
        }
    });
    (wire, is_decided, release)
}

async fn decided(scene: &Scene<'_>, is_decided: oneshot::Receiver<()>) -> Result<()> {
    let waited = tokio::time::timeout(Duration::from_secs(30), is_decided).await;
    ensure!(matches!(waited, Ok(Ok(()))), "nothing was decided in {}", scene.namespace);
    Ok(())
}

pub async fn a_pod_that_starts_between_the_decision_and_failure_target_keeps_its_job(stage: &Stage) -> Result<()> {
    let scene = stage.open("race-job", "1s").await?;
    let puppet = Puppet::play(stage.client.clone(), &scene.namespace);
    let (wire, is_decided, release) = holding(Call::fails_job);
    let replica = Replica::start(stage.config().await?, wire, Clock::default())?;
    scene.job("batch", "late:1").await?;
    decided(&scene, is_decided).await?;
    puppet.load("late:1");
    let jobs = scene.api::<Job>();
    until("the Job knows that its pod runs", 90, || {
        let jobs = jobs.clone();
        Box::pin(async move {
            let ready = jobs.get("batch").await?.status.and_then(|status| status.ready);
            Ok((ready == Some(1)).then_some(()))
        })
    })
    .await?;
    drop(release);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let calls = replica.wire.calls();
    replica.kill().await;
    scene.assert_untouched("batch").await?;
    let tried: Vec<_> = calls.iter().filter(|call| call.fails_job()).map(|call| call.status).collect();
    ensure!(tried == [Some(409)], "{tried:?}");
    Ok(())
}

pub async fn a_pod_that_starts_between_the_decision_and_its_deletion_is_not_deleted(stage: &Stage) -> Result<()> {
    let scene = stage.open("race-pod", "1s").await?;
    let puppet = Puppet::play(stage.client.clone(), &scene.namespace);
    let (wire, is_decided, release) = holding(Call::deletes_pod);
    let replica = Replica::start(stage.config().await?, wire, Clock::default())?;
    for name in ["task-1", "task-2"] {
        scene.task_pod("task", name, "late:1").await?;
    }
    decided(&scene, is_decided).await?;
    let path = replica.wire.calls().into_iter().rfind(Call::deletes_pod).map(|call| call.path);
    let name = path.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or_default().to_owned();
    puppet.load("late:1");
    let (pods, wanted) = (scene.api::<Pod>(), name.clone());
    until(&format!("{name} runs"), 90, || {
        let (pods, name) = (pods.clone(), wanted.clone());
        Box::pin(async move {
            let phase = pods.get(&name).await?.status.and_then(|status| status.phase);
            Ok((phase.as_deref() == Some("Running")).then_some(()))
        })
    })
    .await?;
    drop(release);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let calls = replica.wire.calls();
    replica.kill().await;
    let pod = pods.get(&name).await?;
    ensure!(pod.metadata.deletion_timestamp.is_none(), "{name} is being deleted");
    let tried: Vec<_> = calls.iter().filter(|call| call.deletes_pod()).map(|call| call.status).collect();
    ensure!(tried == [Some(409)], "{tried:?}");
    Ok(())
}
