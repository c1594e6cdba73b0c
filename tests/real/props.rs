//! What the scenarios of the runtime half have in common: their policy, objects that belong to others, replicas asked one
//! by one.
//!
//! The policies allow at admission what is absent: the runtime half has to end it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, Node, without_proxy};
use serde_json::{Value, json};

use crate::stage::until;
use crate::world::Scene;

pub const REMEDY: &str = "Run ./images/build.sh node to build it.";
pub const TASK_LABEL: &str = "optio.dev/task-id";

/// Every grace is this long.
pub fn graces(grace: &str) -> Value {
    json!({"neverPull": grace, "notFound": grace, "unauthorized": grace, "other": grace})
}

/// A policy whose runtime half acts after this grace, with these settings beside.
pub fn acting(grace: &str, settings: Value) -> Value {
    let mut runtime = json!({"enforcement": "Enforce", "taskLabel": TASK_LABEL, "grace": graces(grace)});
    for (name, value) in settings.as_object().into_iter().flatten() {
        runtime[name] = value.clone();
    }
    json!({
        "presence": {"onAbsent": "Allow", "onUnknown": "Allow"},
        "runtime": runtime,
        "remedies": [{"image": "optio-*", "text": REMEDY}],
    })
}

/// The object, controlled by another one that is in the cluster.
pub fn controlled_by(mut object: Value, owner: &Value) -> Value {
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": true,
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
    }]);
    object
}

/// The Job, its pods on this node alone.
pub fn on_node(mut job: Value, node: Node) -> Value {
    job["spec"]["template"]["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node.to_string()});
    job
}

/// A pull secret for a registry.
pub fn pull_secret(name: &str, registry: &str, user: &str, password: &str) -> Value {
    let config = json!({"auths": {registry: {"username": user, "password": password}}});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config.to_string()}})
}

pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub fn waiting_reason(pod: &Value) -> &str {
    let statuses = pod["status"]["containerStatuses"].as_array();
    let mut reasons = statuses.into_iter().flatten().filter_map(|status| status["state"]["waiting"]["reason"].as_str());
    reasons.next_back().unwrap_or_default()
}

impl Scene<'_> {
    /// The pods of a Job.
    pub fn pods_of(&self, job: &str) -> Result<Vec<Value>> {
        let all = self.list("pods")?;
        Ok(all.into_iter().filter(|pod| pod["metadata"]["labels"]["job-name"] == job).collect())
    }

    pub fn pods_of_task(&self, task: &str) -> Result<Vec<Value>> {
        let all = self.list("pods")?;
        Ok(all.into_iter().filter(|pod| pod["metadata"]["labels"][TASK_LABEL] == task).collect())
    }

    /// What the controller has told of an object for a reason.
    pub fn told(&self, reason: &str, name: &str) -> Result<Vec<Value>> {
        let all = self.events("controller")?;
        Ok(all.into_iter().filter(|event| event["reason"] == reason && event["regarding"]["name"] == name).collect())
    }

    pub fn until_told(&self, reason: &str, name: &str) -> Result<Value> {
        until(&format!("{reason} is told of {name}"), 60, || Ok(self.told(reason, name)?.pop()))
    }

    /// The record of a task, whatever its state.
    pub fn any_record(&self, task: &str) -> Result<Option<Value>> {
        Ok(self.list("pullfailures")?.into_iter().find(|record| record["spec"]["task"]["name"] == task))
    }

    /// Fails at once where a task has come to an end that it must not come to.
    pub fn still_retrying(&self, task: &str) -> Result<()> {
        if let Some(record) = self.any_record(task)? {
            ensure!(record["status"]["state"] == "Retrying", "{}", record["status"]);
        }
        self.unmarked("job", task)
    }

    /// `pullguard explain`, for programs.
    pub fn explain(&self, pod: &str) -> Result<Value> {
        let output = without_proxy(&mut Command::new(env!("CARGO_BIN_EXE_pullguard")))
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .args(["explain", &format!("pod/{pod}"), "--namespace", &self.namespace, "--output", "json"])
            .output()
            .context("cannot run pullguard")?;
        ensure!(output.status.success(), "explain: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// The sentences of an explanation on what will be done, as one text.
pub fn next_of(explanation: &Value) -> String {
    explanation["pod"]["next"].to_string()
}

/// The names of the pods of Pullguard that are ready.
pub fn replicas(cluster: &Cluster) -> Result<Vec<String>> {
    let select = ["get", "pods", "--namespace=pullguard", "--selector=app.kubernetes.io/name=pullguard", "-o", "json"];
    let pods: Value = serde_json::from_str(&cluster.kubectl_ok(&select)?)?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let ready = |pod: &&Value| {
        pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["containerStatuses"][0]["ready"] == true
    };
    Ok(pods.iter().filter(ready).map(|pod| name_of(pod).to_owned()).collect())
}

/// A metric of all replicas, added up over those of its label sets that hold this text.
pub fn metric(cluster: &Cluster, name: &str, labels: &str) -> Result<f64> {
    let mut sum = 0.0;
    for replica in replicas(cluster)? {
        let path = format!("/api/v1/namespaces/pullguard/pods/http:{replica}:8080/proxy/metrics");
        let text = cluster.kubectl_ok(&["get", "--raw", &path])?;
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels)
        });
        for line in lines {
            sum += line.rsplit(' ').next().unwrap_or_default().parse::<f64>().with_context(|| line.to_owned())?;
        }
    }
    Ok(sum)
}

/// What one replica says to the creation of this pod: `None` where it lets it pass, else why not.
pub fn asked(scene: &Scene<'_>, replica: &str, pod: &Value) -> Result<Option<String>> {
    let mut pod = pod.clone();
    pod["metadata"]["namespace"] = json!(scene.namespace);
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "0b4f2c5e-7d1a-4c53-9d0c-3f0e6a1b2c3d", "kind": kind, "resource": resource,
        "requestKind": kind, "requestResource": resource, "namespace": scene.namespace, "operation": "CREATE",
        "name": "", "userInfo": {"username": "tests"}, "object": pod, "dryRun": true}});
    let path = format!("/api/v1/namespaces/pullguard/pods/https:{replica}:8443/proxy/validate?timeout=5s");
    let output = scene.cluster.kubectl_stdin(&["create", "--raw", &path, "-f", "-"], &review.to_string())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let response = &answer["response"];
    ensure!(response["uid"] == review["request"]["uid"], "{answer}");
    Ok((response["allowed"] != true).then(|| response["status"]["message"].to_string()))
}
