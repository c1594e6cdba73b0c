//! The world in which a scenario plays: a namespace of its own and policies for it, and what is made and looked for there.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use cluster::Cluster;
use serde_json::{Value, json};

use crate::props::replicas;
use crate::reader::Reader;
use crate::stage::until;

/// Each scenario has bad images of its own: together, within five minutes, they would be an outage, and nothing would be
/// declared permanent. The demo, and the scenario of an outage, run with the product's own bound.
pub const NO_BRAKE: &str = "PULLGUARD_BRAKE_IMAGES=500";

/// Images that are on one node and on both from the start: nodes list a new one up to 40 s late, so scenarios share these.
pub const ON_A: &str = "optio-on-a:1";
pub const ON_B: &str = "optio-on-b:1";
pub const ON_BOTH: &str = "optio-on-both:1";

/// What kubectl said.
#[derive(Debug)]
pub struct Answer {
    pub accepted: bool,
    pub out: String,
    pub err: String,
}

impl Answer {
    /// It was refused, and the reason holds all of these.
    pub fn refused_with(&self, parts: &[&str]) -> Result<()> {
        ensure!(!self.accepted, "it was accepted: {} {}", self.out, self.err);
        self.says(parts)
    }

    /// The text on standard error holds all of these.
    pub fn says(&self, parts: &[&str]) -> Result<()> {
        for part in parts {
            ensure!(self.err.contains(part), "no {part:?} in: {}", self.err);
        }
        Ok(())
    }

    /// It was accepted, without a warning of ours.
    pub fn accepted_in_silence(&self) -> Result<()> {
        ensure!(self.accepted, "it was refused: {}", self.err);
        ensure!(!self.err.contains("Warning:"), "it was warned of: {}", self.err);
        Ok(())
    }
}

/// The label of a scenario's policies.
const SCENE: &str = "test.pullguard.dev/scene";

/// One scenario's namespace, and the policies for it. They go when it ends.
pub struct Scene<'a> {
    pub cluster: &'a Cluster,
    pub namespace: String,
    reader: Reader,
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        let policies = format!("--selector={SCENE}={}", self.namespace);
        for what in [["nodeimagepolicies", policies.as_str()], ["namespace", self.namespace.as_str()]] {
            let _gone_with_the_cluster = self.cluster.kubectl(&["delete", what[0], what[1], "--wait=false"]);
        }
    }
}

impl<'a> Scene<'a> {
    pub fn open(cluster: &'a Cluster, scenario: &str) -> Result<Self> {
        // Two runs in one kept cluster must not meet.
        let run = std::process::id();
        let short: String = scenario.replace('_', "-").chars().take(40).collect();
        let namespace = format!("{}-{run}", short.trim_end_matches('-'));
        cluster.kubectl_ok(&["create", "namespace", &namespace])?;
        until("the namespace has its service account", 90, || {
            let account = cluster.kubectl(&["get", "serviceaccount", "default", "--namespace", &namespace])?;
            Ok(account.status.success().then_some(()))
        })?;
        Ok(Self { cluster, namespace, reader: Reader::of(cluster)? })
    }

    /// An image name that no other scenario has.
    pub fn image(&self, name: &str) -> String {
        format!("optio-{name}-{}:latest", self.namespace)
    }

    pub fn kubectl(&self, args: &[&str]) -> Result<Answer> {
        self.kubectl_stdin(args, "")
    }

    pub fn kubectl_stdin(&self, args: &[&str], input: &str) -> Result<Answer> {
        let args = [args, &["--namespace", &self.namespace]].concat();
        let output = self.cluster.kubectl_stdin(&args, input)?;
        Ok(Answer {
            accepted: output.status.success(),
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let answer = self.kubectl(args)?;
        ensure!(answer.accepted, "kubectl {}: {}", args.join(" "), answer.err);
        Ok(answer.out)
    }

    pub fn create(&self, object: &Value) -> Result<Answer> {
        self.kubectl_stdin(&["create", "-f", "-"], &object.to_string())
    }

    /// Judged by the API server and the webhook, and not kept.
    pub fn try_create(&self, object: &Value) -> Result<Answer> {
        self.kubectl_stdin(&["create", "--dry-run=server", "-f", "-"], &object.to_string())
    }

    /// What the API server would keep, after all that changes it on its way.
    pub fn changed(&self, object: &Value) -> Result<Value> {
        let answer =
            self.kubectl_stdin(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &object.to_string())?;
        ensure!(answer.accepted, "it was refused: {}", answer.err);
        Ok(serde_json::from_str(&answer.out)?)
    }

    pub fn created(&self, object: &Value) -> Result<()> {
        let answer = self.create(object)?;
        ensure!(answer.accepted, "it was refused: {}", answer.err);
        Ok(())
    }

    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        if let Some(read) = self.reader.read(kind, &self.namespace, name) {
            return read;
        }
        Ok(serde_json::from_str(&self.ok(&["get", kind, name, "-o", "json"])?)?)
    }

    pub fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let list = match self.reader.read(kind, &self.namespace, "") {
            Some(read) => read?,
            None => serde_json::from_str(&self.ok(&["get", kind, "-o", "json"])?)?,
        };
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Applies the policy of this namespace and waits until it is in force.
    pub fn policy(&self, spec: Value) -> Result<()> {
        self.policy_for(&[&self.namespace], spec)
    }

    pub fn policy_for(&self, namespaces: &[&str], spec: Value) -> Result<()> {
        let applied = self.apply_policy(namespaces, spec)?;
        ensure!(applied.accepted, "the policy was refused: {}", applied.err);
        self.until_in_force(&self.namespace)
    }

    /// A second policy for this namespace, in force.
    pub fn another_policy(&self, name: &str, spec: Value) -> Result<()> {
        let applied = self.apply_named(name, &[&self.namespace], spec)?;
        ensure!(applied.accepted, "the policy was refused: {}", applied.err);
        self.until_in_force(name)
    }

    /// Waits until every replica has the policy as it stands.
    pub fn until_in_force(&self, name: &str) -> Result<()> {
        // The leader says so, and on a machine with too much to do there may be none for half a minute.
        let policy = until("the policy is Ready", 90, || {
            let policy = self.get("nodeimagepolicy", name)?;
            let ready = condition(&policy, "Ready").is_some_and(|ready| ready["status"] == "True");
            let observed = policy["status"]["observedGeneration"] == policy["metadata"]["generation"];
            Ok((ready && observed).then_some(policy))
        })?;
        // That was the leader. Each replica follows by its own watch, when it comes to it, and says so.
        let generation = &policy["metadata"]["generation"];
        let said = format!(r#""message":"policy in force","policy":"{name}","generation":{generation}"#);
        until("each replica has the policy", 90, || {
            for replica in replicas(self.cluster)? {
                let log = self.cluster.kubectl_ok(&["logs", &replica, "--namespace=pullguard"])?;
                if !log.contains(&said) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    pub fn apply_policy(&self, namespaces: &[&str], spec: Value) -> Result<Answer> {
        self.apply_named(&self.namespace, namespaces, spec)
    }

    fn apply_named(&self, name: &str, namespaces: &[&str], spec: Value) -> Result<Answer> {
        let mut policy = json!({
            "apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy",
            "metadata": {"name": name, "labels": {SCENE: self.namespace}},
            "spec": {"match": {"namespaceSelector": {"matchExpressions":
                [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces}]}}},
        });
        for (field, value) in spec.as_object().context("a policy's spec is an object")? {
            policy["spec"][field] = value.clone();
        }
        self.kubectl_stdin(&["apply", "-f", "-"], &policy.to_string())
    }

    /// Events of one of our reporters (`webhook` or `controller`) in this namespace.
    pub fn events(&self, reporter: &str) -> Result<Vec<Value>> {
        let reporter = format!("pullguard.dev/{reporter}");
        let all = self.list("events.events.k8s.io")?;
        Ok(all.into_iter().filter(|event| event["reportingController"] == reporter.as_str()).collect())
    }

    pub fn event(&self, reporter: &str, reason: &str, kind: &str) -> Result<Value> {
        until(&format!("the {reporter} tells {reason} of a {kind}"), 60, || {
            let all = self.events(reporter)?;
            Ok(all.into_iter().find(|event| event["reason"] == reason && event["regarding"]["kind"] == kind))
        })
    }

    pub fn until_running(&self, pod: &str) -> Result<Value> {
        until(&format!("pod {pod} runs"), 60, || {
            let pod = self.get("pod", pod)?;
            Ok((pod["status"]["phase"] == "Running").then_some(pod))
        })
    }

    /// Waits until the kubelet has said of some pod that its image is not there.
    pub fn until_stuck(&self, reason: &str) -> Result<()> {
        until(&format!("a pod is in {reason}"), 60, || {
            let pods = self.list("pods")?;
            let stuck = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason;
            Ok(pods.iter().any(stuck).then_some(()))
        })
    }

    pub fn until_failed(&self, job: &str, seconds: u64) -> Result<Value> {
        until(&format!("job {job} is Failed"), seconds, || {
            Ok(condition(&self.get("job", job)?, "Failed").filter(|failed| failed["status"] == "True").cloned())
        })
    }

    /// The record of a task of this name, once it is in this state.
    pub fn record(&self, task: &str, state: &str) -> Result<Value> {
        until(&format!("the PullFailure of {task} is {state}"), 60, || {
            let records = self.list("pullfailures")?;
            let wanted = |record: &Value| record["spec"]["task"]["name"] == task && record["status"]["state"] == state;
            Ok(records.into_iter().find(wanted))
        })
    }

    /// Nothing of ours is on the object.
    pub fn unmarked(&self, kind: &str, name: &str) -> Result<()> {
        let object = self.get(kind, name)?;
        for part in ["labels", "annotations"] {
            let text = object["metadata"][part].to_string();
            ensure!(!text.contains("pullguard.dev/"), "{kind} {name} has {part} of ours: {text}");
        }
        if condition(&object, "FailureTarget").is_some() || condition(&object, "Failed").is_some() {
            bail!("{kind} {name} was failed: {}", object["status"]);
        }
        Ok(())
    }

    /// Uids of the pods.
    pub fn uids(&self) -> Result<Vec<String>> {
        let mut uids: Vec<String> = self
            .list("pods")?
            .iter()
            .map(|pod| pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
            .collect();
        uids.sort();
        Ok(uids)
    }

    /// For whoever reads why a scenario failed.
    pub fn account(&self) -> String {
        let mut text = String::new();
        let questions: [&[&str]; 4] = [
            &["get", "nodeimagepolicy", &self.namespace, "-o", "jsonpath={.status}"],
            &["get", "pods,jobs,pullfailures", "-o", "wide"],
            &["get", "events"],
            &[
                "logs",
                "--namespace=pullguard",
                "--selector=app.kubernetes.io/name=pullguard",
                "--tail=2000",
                "--prefix",
            ],
        ];
        for question in questions {
            let log = question.first() == Some(&"logs");
            let answer = if log { self.cluster.kubectl_ok(question) } else { self.ok(question) };
            let answer = answer.unwrap_or_else(|error| format!("{error:#}"));
            // Of the log only what is about this scenario.
            let lines: Vec<&str> = answer.lines().filter(|line| !log || line.contains(&self.namespace)).collect();
            let last = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
            let _to_a_string = writeln!(text, "--- kubectl {}\n{}", question.join(" "), last.join("\n"));
        }
        text
    }
}

/// A condition of an object.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Several objects for one kubectl.
pub fn list(objects: impl IntoIterator<Item = Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": objects.into_iter().collect::<Vec<_>>()})
}

/// A container with this image and pull policy.
fn spec(image: &str, pull_policy: &str) -> Value {
    json!({"containers": [{"name": "main", "image": image, "imagePullPolicy": pull_policy}], "terminationGracePeriodSeconds": 0})
}

pub fn pod(name: &str, image: &str, pull_policy: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec(image, pull_policy)})
}

/// A bare pod that is one attempt of a task.
pub fn task_pod(task: &str, image: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "spec": spec(image, "Never"),
        "metadata": {"generateName": format!("{task}-"), "labels": {"optio.dev/task-id": task}}})
}

fn job_template(image: &str, pull_policy: &str) -> Value {
    let mut spec = spec(image, pull_policy);
    spec["restartPolicy"] = json!("Never");
    json!({"backoffLimit": 3, "template": {"spec": spec}})
}

pub fn job(name: &str, image: &str, pull_policy: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": job_template(image, pull_policy)})
}

pub fn cron_job(name: &str, image: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job_template(image, "Never")}}})
}

pub fn deployment(name: &str, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": spec(image, "Never")}}})
}
