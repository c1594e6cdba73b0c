//! The worker of the incident, a thread: it creates a pod, waits, gives up without a look at the cause, and tries again.
//!
//! It never deletes: nor did that of the incident.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster::Cluster;

use crate::{NAMESPACE, TASK, task_pod};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    TimedOut,
    /// The create was refused, with this sentence.
    Refused(String),
    Ran,
}

#[derive(Default)]
struct Log {
    /// Pods that it created.
    created: usize,
    outcomes: Vec<Outcome>,
}

/// Ends with its owner.
pub struct Worker {
    log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(|held| held.into_inner())
}

impl Worker {
    pub fn start(cluster: &Cluster, patience: Duration) -> Self {
        let (log, stop) = (Arc::<Mutex<Log>>::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (cluster, log, stop) = (cluster.clone(), Arc::clone(&log), Arc::clone(&stop));
            spawn(move || work(&cluster, &log, &stop, patience))
        };
        Self { log, stop, thread: Some(thread) }
    }

    pub fn attempts(&self) -> usize {
        lock(&self.log).created
    }

    pub fn timeouts(&self) -> usize {
        lock(&self.log).outcomes.iter().filter(|outcome| **outcome == Outcome::TimedOut).count()
    }

    /// The last outcome.
    pub fn outcome(&self) -> Option<Outcome> {
        lock(&self.log).outcomes.last().cloned()
    }

    /// The sentence of the first create that was refused.
    pub fn refusal(&self) -> Option<String> {
        lock(&self.log).outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Refused(sentence) => Some(sentence.clone()),
            Outcome::TimedOut | Outcome::Ran => None,
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("demo: the worker ended in a panic");
        }
    }
}

fn work(cluster: &Cluster, log: &Mutex<Log>, stop: &AtomicBool, patience: Duration) {
    let say = |text: &str| println!("          worker: {text}");
    let mut refused_before = false;
    for attempt in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let outcome = match try_once(cluster, log, stop, patience) {
            Ok(outcome) => outcome,
            Err(error) => {
                say(&format!("attempt {attempt}: {error:#}"));
                sleep(patience);
                continue;
            }
        };
        match &outcome {
            Outcome::TimedOut if stop.load(Ordering::Relaxed) => return,
            Outcome::TimedOut => say(&format!("attempt {attempt} timed out after {} s", patience.as_secs())),
            Outcome::Refused(_) if !refused_before => {
                say(&format!("attempt {attempt} was refused; no pod was created"))
            }
            Outcome::Refused(_) => {}
            Outcome::Ran => say(&format!("attempt {attempt}: the pod of {TASK} runs")),
        }
        refused_before = matches!(outcome, Outcome::Refused(_));
        let ran = outcome == Outcome::Ran;
        lock(log).outcomes.push(outcome);
        if ran {
            return;
        }
    }
}

fn try_once(cluster: &Cluster, log: &Mutex<Log>, stop: &AtomicBool, patience: Duration) -> Result<Outcome> {
    let create = ["create", "-f", "-", "-o", "name", "--request-timeout=20s"];
    let output = cluster.kubectl_stdin(&create, &task_pod().to_string())?;
    let end = Instant::now() + patience;
    let pause = || sleep(Duration::from_millis(200));
    if !output.status.success() {
        let sentence = String::from_utf8(output.stderr)?.trim().to_owned();
        ensure!(sentence.contains("denied the request"), "the create failed: {sentence}");
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            pause();
        }
        return Ok(Outcome::Refused(sentence));
    }
    lock(log).created += 1;
    let name = String::from_utf8(output.stdout)?;
    let phase =
        ["get", name.trim(), "--namespace", NAMESPACE, "-o", "jsonpath={.status.phase}", "--request-timeout=20s"];
    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
        if cluster.kubectl(&phase)?.stdout == b"Running" {
            return Ok(Outcome::Ran);
        }
        pause();
    }
    Ok(Outcome::TimedOut)
}
