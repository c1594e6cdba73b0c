//! Leaders that die between any two writes, and two of them at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use pullguard::shell::world::Clock;

use crate::puppet::Puppet;
use crate::replica::Replica;
use crate::stage::{Scene, Stage, state_of, until};
use crate::wire::{Call, Fate, Wire};

const GRACE: &str = "1s";

/// A Job, and a task of three bare pods.
async fn troubled(scene: &Scene<'_>) -> Result<()> {
    scene.job("batch", "absent:1").await?;
    for name in ["task-1", "task-2", "task-3"] {
        scene.task_pod("task", name, "absent:2").await?;
    }
    Ok(())
}

/// What is to come of it, whatever happens on the way: all of it, and nothing twice.
async fn assert_done(scene: &Scene<'_>, calls: &[Call], case: &str) -> Result<()> {
    scene.assert_failed_by_us("batch", 120).await.context(case.to_owned())?;
    let pods = scene.api::<Pod>();
    until(&format!("one dead pod of the task is left ({case})"), 120, || {
        let pods = pods.clone();
        Box::pin(async move {
            let all = pods.list(&kube::api::ListParams::default().labels(crate::stage::TASK_LABEL)).await?.items;
            let dead = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Failed");
            Ok((all.len() == 1 && all.iter().all(dead)).then_some(()))
        })
    })
    .await?;
    // The Event about collected pods is the last effect of all. How many were collected is written down after they are
    // gone: a leader that dies in between takes the number with it, and nothing else.
    let ends = ["PullPermanentlyFailed FailOwner batch", "PullPermanentlyFailed FailPod"];
    let collected = "PodsCollected CollectPods";
    let mut told = BTreeMap::new();
    for _ in 0..30 {
        told = told_of_ends(scene).await?;
        if told.contains_key(collected) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(ends.iter().all(|what| told.get(*what) == Some(&1)), "{case}: told {told:?}");
    ensure!(told.keys().all(|what| ends.contains(&what.as_str()) || what == collected), "{case}: told {told:?}");
    ensure!(told.get(collected).is_none_or(|count| *count == 1), "{case}: told {told:?}");
    let states: BTreeSet<(String, String)> = scene.records().await?.iter().map(state_of).collect();
    let both = ["batch", "task"].map(|task| (task.to_owned(), "PermanentlyFailed".to_owned()));
    ensure!(states == BTreeSet::from(both), "{case}: {states:?}");
    let mut acts: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.succeeded() && (call.fails_job() || call.deletes_pod())) {
        *acts.entry(&call.path).or_default() += 1;
    }
    ensure!(acts.values().all(|count| *count == 1), "{case}: {acts:?}");
    Ok(())
}

/// The Events about what was ended, by reason and action, and for the Job its name: which of the task's pods speaks for it
/// depends on when it is told.
async fn told_of_ends(scene: &Scene<'_>) -> Result<BTreeMap<String, usize>> {
    let mut told = BTreeMap::new();
    for (what, count) in scene.told().await? {
        let short = match what.rsplit_once(' ') {
            Some((short, about)) if about != "batch" => short.to_owned(),
            Some(_) | None => what,
        };
        if !short.starts_with("PullRetrying") {
            *told.entry(short).or_default() += count;
        }
    }
    Ok(told)
}

pub async fn killed_before_or_after_any_write_the_next_leader_completes_it_and_does_nothing_twice(
    stage: &Stage,
) -> Result<()> {
    let mut fatal = 1;
    loop {
        // Every second one dies before its write, the others after it, with the answer unheard.
        let scene = stage.open(&format!("crash-{fatal}"), GRACE).await?;
        let _puppet = Puppet::play(stage.client.clone(), &scene.namespace);
        let (count, died) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
        let (seen, dies) = (Arc::clone(&count), Arc::clone(&died));
        let here = format!("/namespaces/{}/", scene.namespace);
        let wire = Wire::new(move |call| {
            if !call.is_write() || !call.path.contains(&here) {
                return Fate::Pass;
            }
            let nth = seen.fetch_add(1, Ordering::Relaxed) + 1;
            if nth == fatal {
                dies.notify_one();
            }
            match nth.cmp(&fatal) {
                std::cmp::Ordering::Less => Fate::Pass,
                std::cmp::Ordering::Equal if nth % 2 == 0 => Fate::Unheard,
                std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => Fate::Lost,
            }
        });
        troubled(&scene).await?;
        let first = Replica::start(stage.config().await?, wire.clone(), Clock::default())?;
        let died = tokio::time::timeout(Duration::from_secs(12), died.notified()).await.is_ok();
        // An answer that is lost has been given.
        tokio::time::sleep(Duration::from_millis(200)).await;
        first.kill().await;
        let second = Replica::start(stage.config().await?, Wire::default(), Clock::default())?;
        let done = assert_done(&scene, &[], &format!("killed at write {fatal}")).await;
        let calls = [wire.calls(), second.wire.calls()].concat();
        second.kill().await;
        done?;
        assert_done(&scene, &calls, &format!("killed at write {fatal}")).await?;
        scene.close().await?;
        if !died {
            // It came to its end without so many writes.
            ensure!(fatal > 8, "only {fatal} writes");
            return Ok(());
        }
        fatal += 1;
    }
}

pub async fn two_leaders_at_once_do_it_once(stage: &Stage) -> Result<()> {
    let scene = stage.open("two-leaders", GRACE).await?;
    let _puppet = Puppet::play(stage.client.clone(), &scene.namespace);
    let one = Replica::start(stage.config().await?, Wire::default(), Clock::default())?;
    let two = Replica::start(stage.config().await?, Wire::default(), Clock::default())?;
    troubled(&scene).await?;
    let done = assert_done(&scene, &[], "two leaders").await;
    // Both had their chance to do it again.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let calls = [one.wire.calls(), two.wire.calls()].concat();
    one.kill().await;
    two.kill().await;
    done?;
    assert_done(&scene, &calls, "two leaders").await
}
