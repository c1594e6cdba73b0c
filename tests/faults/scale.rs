//! Many failures at once, and the binary itself: time, writes, memory, as the API server and the kernel count them.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster::without_proxy;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use pullguard::k8s::crd::PullFailure;
use serde_json::{Value, json};

use crate::puppet::never_pull;
use crate::stage::{Scene, Stage, condition, state_of, until};

const AGENT: &str = "pullguard/";
const GRACE: Duration = Duration::from_secs(3);
/// Set: so many Jobs fail at once, in a scenario of its own that takes minutes.
const MANY: &str = "PULLGUARD_SCALE";

/// `pullguard run --role controller`, as installed but for its caps: they are what makes 500 take minutes.
struct Controller(Child);

impl Drop for Controller {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _gone_already = self.0.wait();
    }
}

impl Controller {
    fn start(stage: &Stage, caps: &str) -> Result<Self> {
        let probes = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = fs::File::create(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/faults/controller.log"))?;
        let child = without_proxy(&mut Command::new(env!("CARGO_BIN_EXE_pullguard")))
            .args(["run", "--role=controller", "--young-node=0s", &format!("--probes-address={probes}")])
            .args(
                ["--max-effects-per-cycle", "--max-effects-per-namespace", "--max-effects-per-cluster"]
                    .map(|flag| format!("{flag}={caps}")),
            )
            .env("KUBECONFIG", stage.cluster.kubeconfig())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .spawn()
            .context("pullguard")?;
        Ok(Self(child))
    }

    /// The most that it ever held in memory, in MiB.
    fn peak(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib / 1024.0)
    }
}

/// What the API server has logged of the product in a namespace.
struct Audit(Vec<Value>);

impl Audit {
    fn of(stage: &Stage, namespace: &str) -> Result<Self> {
        let all = stage.audit(AGENT)?;
        Ok(Self(all.into_iter().filter(|entry| entry["objectRef"]["namespace"] == namespace).collect()))
    }

    fn writes(&self) -> usize {
        self.0.iter().filter(|entry| matches!(entry["verb"].as_str(), Some("create" | "update" | "patch"))).count()
    }

    fn deletes(&self) -> usize {
        self.0.iter().filter(|entry| entry["verb"] == "delete").count()
    }

    /// When the first accepted `FailureTarget` had its answer.
    fn failed_at(&self, job: &str) -> Option<Timestamp> {
        let accepted = |entry: &&Value| {
            entry["verb"] == "patch"
                && entry["objectRef"]["resource"] == "jobs"
                && entry["objectRef"]["subresource"] == "status"
                && entry["objectRef"]["name"] == job
                && entry["responseStatus"]["code"] == 200
        };
        self.0.iter().find(accepted)?["stageTimestamp"].as_str()?.parse().ok()
    }
}

/// Says of every pod at once what a kubelet would say, and when it had said it of all.
async fn all_stuck(scene: &Scene<'_>) -> Result<()> {
    let pods = scene.api::<Pod>();
    let all = pods.list(&ListParams::default()).await?.items;
    stream::iter(all.into_iter().map(Ok))
        .try_for_each_concurrent(16, |pod| {
            let pods = pods.clone();
            async move {
                let image = pod.spec.and_then(|spec| spec.containers.first()?.image.clone()).unwrap_or_default();
                let status = Patch::Merge(json!({"status": never_pull(&image)}));
                let name = pod.metadata.name.unwrap_or_default();
                pods.patch_status(&name, &PatchParams::default(), &status).await.map(drop)
            }
        })
        .await?;
    Ok(())
}

async fn until_pods(scene: &Scene<'_>, count: usize) -> Result<()> {
    let bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    scene.until_count("pods are scheduled", count, 1_200, bound).await
}

async fn until_recorded(scene: &Scene<'_>, count: usize, seconds: u64) -> Result<()> {
    let failed = |record: &PullFailure| state_of(record).1 == "PermanentlyFailed";
    scene.until_count("tasks are recorded as failed", count, seconds, failed).await
}

async fn until_jobs_failed(scene: &Scene<'_>, count: usize, seconds: u64) -> Result<()> {
    let failed = |job: &Job| condition(job, "FailureTarget").is_some();
    scene.until_count("Jobs are failed", count, seconds, failed).await
}

/// Jobs that fail at once, each for an image of its own.
async fn many_jobs(stage: &Stage, namespace: &str, count: usize, seconds: u64) -> Result<()> {
    let scene = stage.open(namespace, "3s").await?;
    let controller = Controller::start(stage, "100000")?;
    stream::iter(0..count)
        .map(Ok::<_, anyhow::Error>)
        .try_for_each_concurrent(16, |number| {
            let scene = &scene;
            async move { scene.job(&format!("j{number}"), &format!("absent-{number}:1")).await.map(drop) }
        })
        .await?;
    until_pods(&scene, count).await?;
    let begun = Instant::now();
    all_stuck(&scene).await?;
    let told = begun.elapsed();
    until_recorded(&scene, count, seconds).await?;
    let recorded = begun.elapsed();
    until_jobs_failed(&scene, count, seconds).await?;
    let failed = begun.elapsed();
    // Events are written behind the back of the effects.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (audit, peak) = (Audit::of(stage, namespace)?, controller.peak()?);
    let each = audit.writes() as f64 / count as f64;
    println!(
        "    {count} Jobs with statuses written within {:.1} s: all recorded after {:.1} s, all with FailureTarget after {:.1} s \
         (grace {} s); {each:.2} writes each; peak {peak:.0} MiB",
        told.as_secs_f64(),
        recorded.as_secs_f64(),
        failed.as_secs_f64(),
        GRACE.as_secs()
    );
    ensure!(each <= 6.0, "{each:.2} writes for each permanent failure");
    ensure!(audit.deletes() == 0, "{} deletes: the Job controller ends the pods of a failed Job", audit.deletes());
    ensure!(peak < 128.0, "{peak:.0} MiB");
    Ok(())
}

pub async fn five_hundred_jobs_at_once_take_six_writes_each_at_most(stage: &Stage) -> Result<()> {
    many_jobs(stage, "scale-500", 500, 120).await
}

pub async fn as_many_jobs_as_the_environment_says(stage: &Stage) -> Result<()> {
    let Ok(count) = std::env::var(MANY) else {
        println!("    set {MANY}=5000 for the large one: it takes minutes");
        return Ok(());
    };
    many_jobs(stage, "scale-many", count.parse().with_context(|| MANY.to_owned())?, 1_800).await
}

pub async fn the_55_pods_of_the_incident_are_one_failure_and_54_deletions(stage: &Stage) -> Result<()> {
    let scene = stage.open("incident", "3s").await?;
    let controller = Controller::start(stage, "300")?;
    for number in 0..55 {
        scene.task_pod("task", &format!("task-{number}"), "absent:1").await?;
    }
    until_pods(&scene, 55).await?;
    let puppet = crate::puppet::Puppet::play(stage.client.clone(), &scene.namespace);
    let begun = Instant::now();
    let pods = scene.api::<Pod>();
    until("one pod is left", 120, || {
        let pods = pods.clone();
        Box::pin(async move { Ok((pods.list(&ListParams::default()).await?.items.len() == 1).then_some(())) })
    })
    .await?;
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(puppet);
    let (audit, peak) = (Audit::of(stage, "incident")?, controller.peak()?);
    println!(
        "    55 pods: one left after {:.1} s; {} writes, {} deletes; peak {peak:.0} MiB",
        took.as_secs_f64(),
        audit.writes(),
        audit.deletes()
    );
    ensure!(audit.deletes() == 54, "{} deletes", audit.deletes());
    ensure!(audit.writes() <= 6 + 1, "{} writes: six, and the record's count of pods", audit.writes());
    Ok(())
}

/// From the end of the grace to the answer of the API server, as it logs it.
pub async fn failure_target_is_accepted_within_a_second_of_the_end_of_the_grace(stage: &Stage) -> Result<()> {
    let scene = stage.open("reaction", "3s").await?;
    let _controller = Controller::start(stage, "300")?;
    let mut late = Vec::new();
    for number in 0..5 {
        let name = format!("j{number}");
        scene.job(&name, &format!("absent-{number}:1")).await?;
        until_pods(&scene, 1).await?;
        all_stuck(&scene).await?;
        let said = Timestamp::now();
        scene.until_failed(&name, 90).await?;
        let at = Audit::of(stage, "reaction")?.failed_at(&name).context("no FailureTarget in the audit log")?;
        late.push(at.duration_since(said).as_secs_f64() - GRACE.as_secs_f64());
        until("its pods are gone", 90, || {
            let pods = scene.api::<Pod>();
            Box::pin(async move { Ok(pods.list(&ListParams::default()).await?.items.is_empty().then_some(())) })
        })
        .await?;
    }
    late.sort_by(f64::total_cmp);
    println!(
        "    FailureTarget accepted {:.0} ms after the end of the grace (median of {}), {:.0} ms at most",
        late[late.len() / 2] * 1000.0,
        late.len(),
        late[late.len() - 1] * 1000.0
    );
    ensure!(late[0] > -0.5, "before the end of the grace: {late:?}");
    ensure!(late[late.len() / 2] < 1.0, "{late:?}");
    Ok(())
}
