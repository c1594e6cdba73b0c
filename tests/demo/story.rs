//! The story on the terminal: what is done, what is waited for, what the cluster answers, and the claims.

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use cluster::Cluster;
use serde_json::Value;

use crate::stage::until;
use crate::{TASK, TASK_LABEL};

/// How long ago, for people.
pub fn ago(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f32())
}

pub struct Story<'a> {
    pub cluster: &'a Cluster,
    namespace: &'static str,
    started: Instant,
}

impl<'a> Story<'a> {
    pub fn new(cluster: &'a Cluster, namespace: &'static str) -> Self {
        Self { cluster, namespace, started: Instant::now() }
    }

    pub fn chapter(&self, title: &str) {
        println!("\n== {title} ==");
    }

    pub fn tell(&self, what: &str) {
        println!("[{:>5.1} s] {what}", self.started.elapsed().as_secs_f32());
    }

    pub fn wait(&self, what: &str) {
        self.tell(&format!("... waiting until {what}"));
    }

    pub fn quote(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("          | {line}");
        }
    }

    /// What has to happen; the first claim that does not is the demo's end.
    pub fn claim<T>(&self, claim: &str, check: impl FnOnce() -> Result<T>) -> Result<T> {
        let answer = check().map_err(|error| anyhow!("this did not happen: {claim} ({error:#})"))?;
        self.tell(&format!("[ok] {claim}"));
        Ok(answer)
    }

    /// The namespace, ready for pods.
    pub fn prepare(&self) -> Result<()> {
        self.cluster.kubectl_ok(&["create", "namespace", self.namespace])?;
        until("the namespace has its service account", 30, || {
            let account = ["get", "serviceaccount", "default", "--namespace", self.namespace];
            Ok(self.cluster.kubectl(&account)?.status.success().then_some(()))
        })
    }

    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl_ok(&[args, &["--namespace", self.namespace, "--request-timeout=20s"]].concat())
    }

    /// kubectl where a person would look.
    pub fn show(&self, args: &[&str]) -> Result<()> {
        println!("          $ kubectl -n {} {}", self.namespace, args.join(" "));
        self.quote(&self.kubectl(args)?);
        Ok(())
    }

    pub fn create(&self, object: &Value) -> Result<()> {
        let output = self.cluster.kubectl_stdin(&["create", "-f", "-"], &object.to_string())?;
        ensure!(output.status.success(), "kubectl create: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    pub fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&self.kubectl(&["get", kind, "-o", "json"])?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The pods of the worker's task.
    pub fn task_pods(&self) -> Result<Vec<Value>> {
        let pods = self.list("pods")?;
        Ok(pods.into_iter().filter(|pod| pod["metadata"]["labels"][TASK_LABEL] == TASK).collect())
    }

    pub fn job_condition(&self, job: &str, kind: &str) -> Result<Option<Value>> {
        let job: Value = serde_json::from_str(&self.kubectl(&["get", "job", job, "-o", "json"])?)?;
        let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.into_iter().find(|condition| condition["type"] == kind && condition["status"] == "True"))
    }

    /// In one word, or two.
    pub fn job_state(&self, job: &str) -> Result<String> {
        if let Some(failed) = self.job_condition(job, "Failed")? {
            return Ok(format!("Failed, {}", failed["reason"].as_str().unwrap_or_default()));
        }
        let complete = self.job_condition(job, "Complete")?.is_some();
        Ok(if complete { "Complete" } else { "active" }.to_owned())
    }
}
