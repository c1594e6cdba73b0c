//! The incident, replayed on a real Kubernetes: first without Pullguard, then with it.
//!
//! `cargo run --release --example demo -- [--patience SECONDS] [--keep]`. Exits with 1 and the claim that did not happen.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a test may stop where it stands"
)]

#[path = "../real/stage.rs"]
mod stage;
mod story;
mod worker;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster::{Cluster, Node, Options, nodes_possible};
use serde_json::{Value, json};

use stage::until;
use story::{Story, ago};
use worker::{Outcome, Worker};

const NAME: &str = "demo";
const NAMESPACE: &str = "optio";
const IMAGE: &str = "optio-node:latest";
const TASK_LABEL: &str = "optio.dev/task-id";
const TASK: &str = "task-1";
const JOB: &str = "nightly";
const REMEDY: &str = "Run ./images/build.sh node to build it.";
/// How often the worker tries before we have seen enough.
const ENOUGH: usize = 5;

struct Flags {
    patience: Duration,
    keep: bool,
}

fn main() -> ExitCode {
    let flags = match flags(std::env::args().skip(1)) {
        Ok(flags) => flags,
        Err(error) => {
            eprintln!("demo: {error}; it takes --patience SECONDS and --keep");
            return ExitCode::from(2);
        }
    };
    if !nodes_possible() {
        eprintln!("demo: it takes root and the right to make network namespaces: real kubelets run in it.");
        return ExitCode::FAILURE;
    }
    match play(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn flags(mut words: impl Iterator<Item = String>) -> Result<Flags> {
    let mut flags = Flags { patience: Duration::from_secs(4), keep: false };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--keep" => flags.keep = true,
            "--patience" => {
                let seconds = words.next().context("--patience takes a number of seconds")?;
                let seconds: u64 = seconds.parse().context("--patience takes a number of seconds")?;
                ensure!((1..=120).contains(&seconds), "--patience takes 1 to 120 seconds");
                flags.patience = Duration::from_secs(seconds);
            }
            other => bail!("{other:?} is no option"),
        }
    }
    Ok(flags)
}

/// Takes the cluster down however the demo ends.
struct Curtain {
    keep: bool,
}

impl Drop for Curtain {
    fn drop(&mut self) {
        if self.keep {
            println!(
                "\nThe cluster stays: `cargo run --release -p cluster -- --name {NAME} kubectl get pods -A`, and `make clean` removes it."
            );
        } else if let Err(error) = Cluster::down(NAME) {
            eprintln!("demo: {error:#}");
        }
    }
}

/// What is compared in the end.
struct Figures {
    attempts: usize,
    pods: usize,
    job: String,
    told: String,
}

fn play(flags: &Flags) -> Result<()> {
    let _sole = stage::sole_run(NAME)?;
    let curtain = Curtain { keep: flags.keep };
    Cluster::down(NAME)?;
    let cluster = Cluster::up(&Options::named(NAME))?;
    let story = Story::new(&cluster, NAMESPACE);
    story.prepare()?;
    // The worker tries again and again, through both parts, as in the incident.
    let worker = Worker::start(&cluster, flags.patience);
    let before = without(&story, &worker, flags.patience)?;
    let after = with(&story, &worker)?;
    drop(worker);
    table(&before, &after);
    drop(curtain);
    Ok(())
}

fn without(story: &Story<'_>, worker: &Worker, patience: Duration) -> Result<Figures> {
    story.chapter("1. Without Pullguard");
    story.tell(&format!(
        "A worker creates a pod for {TASK}: image {IMAGE}, imagePullPolicy Never, on no node. It waits {} s, gives up, tries again.",
        patience.as_secs()
    ));
    story.tell(&format!("A Job named {JOB} has the same image."));
    let started = Instant::now();
    story.create(&job())?;

    story.wait(&format!("the worker has tried {ENOUGH} times"));
    let time = ENOUGH as u64 * (patience.as_secs() + 15);
    story.claim("the worker goes on trying, and knows only that it timed out", || {
        until("the worker has tried often enough", time, || Ok((worker.timeouts() >= ENOUGH).then_some(())))
    })?;
    story.wait("the kubelet has said ErrImageNeverPull of each of these pods");
    story.claim("the pods pile up in ErrImageNeverPull", || {
        until("the pods are stuck", 60, || {
            let stuck = story.task_pods()?.iter().filter(|pod| waiting(pod) == "ErrImageNeverPull").count();
            Ok((stuck >= ENOUGH).then_some(()))
        })
    })?;
    story.show(&["get", "pods"])?;
    story.show(&["get", "jobs"])?;
    let state = story.job_state(JOB)?;
    story.claim("the Job hangs: active, neither complete nor failed", || {
        ensure!(state == "active", "it is {state}");
        Ok(())
    })?;
    story.tell(
        "Nothing in Kubernetes ends any of this: the pods stay Pending, the Job stays active, nobody is told why.",
    );
    let told = format!("never (watched for {})", ago(started));
    Ok(Figures { attempts: worker.attempts(), pods: story.task_pods()?.len(), job: state, told })
}

fn with(story: &Story<'_>, worker: &Worker) -> Result<Figures> {
    story.chapter("2. Pullguard is installed into the same cluster");
    story.wait("its image is loaded on both nodes and `kubectl apply -k manifests/overlays/dev` is rolled out");
    let installed = Instant::now();
    stage::install(story.cluster)?;
    story.tell(&format!("Ready after {}. A policy:", ago(installed)));
    story.quote(POLICY);
    let attempts = worker.attempts();
    let before = story.task_pods()?.len();
    let policed = Instant::now();
    story.cluster.apply(POLICY)?;

    story.wait("the Job is Failed");
    let failed = story.claim("the Job is Failed, with the true cause and the remedy", || {
        let failed = until("the Job is Failed", 60, || story.job_condition(JOB, "Failed"))?;
        let message = failed["message"].as_str().unwrap_or_default();
        ensure!(failed["reason"] == "PullPermanentlyFailed", "its reason is {}", failed["reason"]);
        ensure!(message.contains(IMAGE) && message.contains(REMEDY), "its message is {message:?}");
        Ok(failed)
    })?;
    let told = ago(policed);
    story.tell(&format!("Failed, {told} after the policy was applied:"));
    story.quote(&format!("{}: {}", text(&failed["reason"]), text(&failed["message"])));

    story.wait("the worker's next create is refused");
    let sentence = story.claim("the worker's next create is refused with a sentence that says what to do", || {
        let sentence = until("a create is refused", 60, || Ok(worker.refusal()))?;
        for part in [IMAGE, REMEDY, "agents"] {
            ensure!(sentence.contains(part), "no {part:?} in: {sentence}");
        }
        Ok(sentence)
    })?;
    let attempts = worker.attempts() - attempts;
    story.tell(&format!("Refused, {} after the policy was applied. Word for word:", ago(policed)));
    story.quote(&sentence);

    story.wait("the dead pods are collected");
    story.claim("the dead pods are collected down to one, kept as evidence", || {
        until("one pod is left", 90, || {
            let pods = story.task_pods()?;
            Ok((pods.len() == 1 && pods.iter().all(|pod| pod["status"]["phase"] == "Failed")).then_some(()))
        })
    })?;
    story.tell(&format!("{before} pods have become 1, {} after the policy was applied.", ago(policed)));
    story.show(&["get", "pods"])?;
    story.show(&["get", "jobs"])?;
    story.claim("both failures have a record", || {
        until("there are records of the Job and of the task", 30, || {
            let records = story.list("pullfailures")?;
            let failed = |task: &str| {
                records.iter().any(|record| {
                    record["spec"]["task"]["name"] == task && record["status"]["state"] == "PermanentlyFailed"
                })
            };
            Ok((failed(TASK) && failed(JOB)).then_some(()))
        })
    })?;
    story.show(&["get", "pullfailures", "-A"])?;
    let told_by = ["get", "events", "--field-selector=reportingComponent=pullguard.dev/controller"];
    story.claim("each act is told in an Event", || {
        until("there are Events of the controller", 30, || {
            let events = story.kubectl(&told_by)?;
            Ok((events.contains("PullPermanentlyFailed") && events.contains("PodsCollected")).then_some(()))
        })
    })?;
    story.show(&told_by)?;
    let figures = Figures { attempts, pods: story.task_pods()?.len(), job: story.job_state(JOB)?, told };

    story.chapter("3. Somebody does what the sentence says");
    story.tell(&format!("The image is built and imported on {}.", Node::A));
    story.cluster.import(Node::A, IMAGE)?;
    let imported = Instant::now();
    story.wait("the worker's create is accepted (a node lists a new image up to 40 s late) and its pod runs");
    story.claim("the next task runs", || {
        until("the worker's pod runs", 120, || Ok(worker.outcome().filter(|outcome| *outcome == Outcome::Ran)))
    })?;
    story.tell(&format!("It runs, {} after the import.", ago(imported)));
    story.show(&["get", "pods", "-o", "wide"])?;
    Ok(figures)
}

const POLICY: &str = r#"apiVersion: pullguard.dev/v1alpha1
kind: NodeImagePolicy
metadata: { name: agents }
spec:
  match: { namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: optio } } }
  rescue: PinToHolders
  runtime:
    enforcement: Enforce
    taskLabel: optio.dev/task-id
    grace: { neverPull: 3s, notFound: 3s, unauthorized: 3s, other: 3s }
    keepPods: 1
  remedies:
    - { image: "optio-*", text: "Run ./images/build.sh node to build it." }
"#;

/// A pod that is one attempt of the task, as the worker makes it.
fn task_pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": format!("{TASK}-"), "namespace": NAMESPACE, "labels": {TASK_LABEL: TASK}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "agent", "image": IMAGE, "imagePullPolicy": "Never"}]},
    })
}

fn job() -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": JOB, "namespace": NAMESPACE},
        "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "agent", "image": IMAGE, "imagePullPolicy": "Never"}]}}},
    })
}

fn waiting(pod: &Value) -> &str {
    text(&pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn table(before: &Figures, after: &Figures) {
    let rows = [
        ("pods of the task left", before.pods.to_string(), after.pods.to_string()),
        ("pods created in vain", before.attempts.to_string(), format!("{} more", after.attempts)),
        ("the Job with the same image", before.job.clone(), after.job.clone()),
        ("until somebody knew why", before.told.clone(), after.told.clone()),
    ];
    println!("\n{:<30} {:<28} with Pullguard", "", "without");
    for (what, without, with) in rows {
        println!("{what:<30} {without:<28} {with}");
    }
}
