//! The stage of the fault tests: a real control plane, with nodes that are objects only and whose kubelets are played by
//! [`crate::puppet`]. It needs no root, and everything that a kubelet would take its time for happens at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster::{Cluster, Options};
use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use pullguard::k8s::crd::{NodeImagePolicy, PullFailure};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const NAME: &str = "faults";
/// Some other image: a list that is empty proves nothing.
const ON_EVERY_NODE: &str = "docker.io/local/other:1";
pub const TASK_LABEL: &str = "example.com/task";
pub const NODES: [&str; 2] = ["puppet-a", "puppet-b"];

pub struct Stage {
    pub cluster: Cluster,
    pub client: Client,
    pub runtime: Runtime,
    /// The namespace that was opened last: where to look for why a scenario failed.
    last: Mutex<String>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = Cluster::down(NAME) {
            eprintln!("{error:#}");
        }
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/faults")
}

impl Stage {
    pub fn up() -> Result<Self> {
        Cluster::down(NAME)?;
        fs::create_dir_all(folder())?;
        let (policy, log) = (folder().join("audit-policy.json"), folder().join("audit.log"));
        // What was answered, once for each request.
        let audit = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
            "rules": [{"level": "Metadata"}]});
        fs::write(&policy, audit.to_string())?;
        let _none_yet = fs::remove_file(&log);
        let options = Options {
            nodes: 0,
            api_server_flags: vec![
                format!("--audit-policy-file={}", policy.display()),
                format!("--audit-log-path={}", log.display()),
                "--audit-log-mode=blocking".to_owned(),
            ],
            controller_manager_flags: [
                // It would find that no kubelet renews a lease.
                "--controllers=*,-node-lifecycle-controller",
                // Of 5,000 Jobs it would make some 20 pods a second.
                "--kube-api-qps=1000",
                "--kube-api-burst=2000",
                "--concurrent-job-syncs=20",
            ]
            .map(ToOwned::to_owned)
            .to_vec(),
            ..Options::named(NAME)
        };
        let cluster = Cluster::up(&options)?;
        let crds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("manifests/base/crds.yaml");
        cluster.kubectl_ok(&["apply", "--server-side", "-f", &crds.display().to_string()])?;
        cluster.kubectl_ok(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])?;
        cluster.kubectl_ok(&["create", "namespace", "pullguard"])?;
        let runtime = Runtime::new()?;
        let client =
            runtime.block_on(async { Client::try_from(config_of(&cluster).await?).map_err(anyhow::Error::from) })?;
        let stage = Self { cluster, client, runtime, last: Mutex::default() };
        stage.runtime.block_on(stage.make_nodes())?;
        Ok(stage)
    }

    /// The requests that came from somebody with this user agent, as the API server has logged them.
    pub fn audit(&self, agent: &str) -> Result<Vec<Value>> {
        let text = fs::read_to_string(folder().join("audit.log"))?;
        let lines = text.lines().filter(|line| line.contains(agent));
        let entries = lines.map(|line| serde_json::from_str(line).context("a line of the audit log"));
        entries.collect()
    }

    pub async fn config(&self) -> Result<Config> {
        config_of(&self.cluster).await
    }

    async fn make_nodes(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for name in NODES {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels":
                {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": name}}});
            nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
            let resources = json!({"cpu": "10k", "memory": "10Ti", "pods": "100k", "ephemeral-storage": "10Ti"});
            let status = json!({"status": {
                "capacity": resources, "allocatable": resources,
                "nodeInfo": {"containerRuntimeVersion": "containerd://2.4.2", "architecture": "amd64", "operatingSystem": "linux",
                    "bootID": "", "containerdVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "v1.37.2",
                    "machineID": "", "osImage": "", "systemUUID": ""},
                "conditions": [{"type": "Ready", "status": "True", "reason": "Puppet", "message": ""}],
            }});
            nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
            // The API server marks every new node as not ready, and who takes that away does not run here.
            let untaint = json!({"spec": {"taints": null}});
            nodes.patch(name, &PatchParams::default(), &Patch::Merge(&untaint)).await?;
        }
        self.list_images(&[]).await
    }

    /// Every node lists these, and one more.
    pub async fn list_images(&self, images: &[&str]) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let all = images.iter().chain([&ON_EVERY_NODE]);
        let images: Vec<Value> = all.map(|name| json!({"names": [name], "sizeBytes": 1_000})).collect();
        for name in NODES {
            let status = Patch::Merge(json!({"status": {"images": images}}));
            nodes.patch_status(name, &PatchParams::default(), &status).await?;
        }
        Ok(())
    }

    /// A namespace, and a policy for it with this grace for all classes.
    pub async fn open(&self, name: &str, grace: &str) -> Result<Scene<'_>> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(self.client.clone(), name);
        until("the namespace has its service account", 90, || {
            let accounts = accounts.clone();
            Box::pin(async move { Ok(accounts.get_opt("default").await?.map(drop)) })
        })
        .await?;
        let policy = json!({
            "apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy", "metadata": {"name": name},
            "spec": {
                "match": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}},
                "runtime": {"enforcement": "Enforce", "taskLabel": TASK_LABEL,
                    "grace": {"neverPull": grace, "notFound": grace, "unauthorized": grace, "other": grace}},
            },
        });
        self.cluster.apply(&policy.to_string())?;
        name.clone_into(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Scene { stage: self, namespace: name.to_owned() })
    }

    /// How things stand where a scenario failed, as far as the API server tells.
    pub fn aftermath(&self) -> String {
        let namespace = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let columns = "NAME:.metadata.name,UID:.metadata.uid,DELETED:.metadata.deletionTimestamp,PHASE:.status.phase,\
            DEADLINE:.spec.activeDeadlineSeconds,STATE:.status.containerStatuses[0].state,MARK:.metadata.labels.pullguard\\.dev/state,\
            CONDITIONS:.status.conditions[*].type,REASONS:.status.conditions[*].reason";
        let told = |kind: &str, output: &str| {
            let answer = self.cluster.kubectl(&["--namespace", &namespace, "get", kind, "--output", output]);
            answer.map_or_else(
                |error| format!("{error:#}"),
                |answer| {
                    [answer.stdout, answer.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
                },
            )
        };
        let objects = told("pods,jobs", &format!("custom-columns={columns}"));
        format!("namespace {namespace}:\n{objects}{}{}", told("pullfailures", "yaml"), told("events", "wide"))
    }
}

async fn config_of(cluster: &Cluster) -> Result<Config> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    Ok(config)
}

/// Asks until there is an answer; a question may fail while parts of the cluster come and go.
pub async fn until<T>(
    what: &str,
    seconds: u64,
    mut ask: impl FnMut() -> BoxFuture<'static, Result<Option<T>>>,
) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        let late = Instant::now() >= end;
        match tokio::time::timeout(Duration::from_secs(10), ask()).await {
            Ok(Ok(Some(answer))) => return Ok(answer),
            Ok(Ok(None)) | Err(_) if late => bail!("waited {seconds} s in vain until {what}"),
            Ok(Err(error)) if late => return Err(error.context(format!("waited {seconds} s in vain until {what}"))),
            Ok(Ok(None) | Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The namespace of one test.
pub struct Scene<'a> {
    pub stage: &'a Stage,
    pub namespace: String,
}

impl Scene<'_> {
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.stage.client.clone(), &self.namespace)
    }

    pub async fn create<K>(&self, object: Value) -> Result<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let object = serde_json::from_value(object).context("an object")?;
        Ok(self.api::<K>().create(&PostParams::default(), &object).await?)
    }

    /// Waits until so many objects of a kind are as this says.
    pub async fn until_count<K>(&self, what: &str, count: usize, seconds: u64, is: fn(&K) -> bool) -> Result<()>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
        K::DynamicType: Default,
    {
        let objects = self.api::<K>();
        until(&format!("{count} {what}"), seconds, || {
            let objects = objects.clone();
            Box::pin(async move {
                let all = objects.list(&ListParams::default()).await?.items;
                Ok((all.iter().filter(|object| is(object)).count() >= count).then_some(()))
            })
        })
        .await
    }

    pub async fn job(&self, name: &str, image: &str) -> Result<Job> {
        self.job_of(name, spec(image)).await
    }

    /// A Job whose pods are as this says.
    pub async fn job_of(&self, name: &str, spec: Value) -> Result<Job> {
        let template = json!({"spec": spec});
        self.create(json!({"metadata": {"name": name}, "spec": {"backoffLimit": 3, "template": template}})).await
    }

    /// A bare pod that is one attempt of a task.
    pub async fn task_pod(&self, task: &str, name: &str, image: &str) -> Result<Pod> {
        self.create(json!({"metadata": {"name": name, "labels": {TASK_LABEL: task}}, "spec": spec(image)})).await
    }

    pub async fn records(&self) -> Result<Vec<PullFailure>> {
        Ok(self.api::<PullFailure>().list(&ListParams::default()).await?.items)
    }

    /// How often each thing was told: reason, action and about what.
    pub async fn told(&self) -> Result<BTreeMap<String, usize>> {
        let mut told = BTreeMap::new();
        for event in self.api::<Event>().list(&ListParams::default()).await?.items {
            if event.reporting_controller.as_deref() != Some("pullguard.dev/controller") {
                continue;
            }
            let about = event.regarding.and_then(|about| about.name).unwrap_or_default();
            let what = [event.reason, event.action, Some(about)].map(Option::unwrap_or_default).join(" ");
            *told.entry(what).or_default() += 1;
        }
        Ok(told)
    }

    pub async fn until_failed(&self, job: &str, seconds: u64) -> Result<Job> {
        let (jobs, name) = (self.api::<Job>(), job.to_owned());
        until(&format!("job {job} is Failed"), seconds, || {
            let (jobs, name) = (jobs.clone(), name.clone());
            Box::pin(async move { Ok(Some(jobs.get(&name).await?).filter(|job| condition(job, "Failed").is_some())) })
        })
        .await
    }

    /// Its policy goes, so that no leader of a later scenario looks after it.
    pub async fn close(&self) -> Result<()> {
        let policies: Api<NodeImagePolicy> = Api::all(self.stage.client.clone());
        policies.delete(&self.namespace, &DeleteParams::default()).await?;
        Ok(())
    }

    /// The Job was failed by us, and is marked.
    pub async fn assert_failed_by_us(&self, job: &str, seconds: u64) -> Result<Job> {
        let failed = self.until_failed(job, seconds).await?;
        let reason = condition(&failed, "Failed");
        ensure!(reason.as_deref() == Some("PullPermanentlyFailed"), "{job}: {reason:?}");
        let state = failed.metadata.labels.as_ref().and_then(|labels| labels.get("pullguard.dev/state"));
        ensure!(state.is_some_and(|state| state == "permanently-failed"), "{job} is not marked");
        Ok(failed)
    }

    /// Nothing of ours is on the Job.
    pub async fn assert_untouched(&self, job: &str) -> Result<()> {
        let job = self.api::<Job>().get(job).await?;
        ensure!(condition(&job, "FailureTarget").is_none() && condition(&job, "Failed").is_none(), "{:?}", job.status);
        Ok(())
    }
}

/// The reason of a condition that is true.
pub fn condition(job: &Job, kind: &str) -> Option<String> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")?;
    Some(found.reason.clone().unwrap_or_default())
}

/// What a record says of its task and state.
pub fn state_of(record: &PullFailure) -> (String, String) {
    let value = serde_json::to_value(record).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&value["spec"]["task"]["name"]), text(&value["status"]["state"]))
}

pub fn spec(image: &str) -> Value {
    json!({
        "containers": [{"name": "main", "image": image, "imagePullPolicy": "Never"}],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false,
    })
}
