//! Reads of the cluster, over one connection a scenario. Scenarios wait by reading, and a kubectl for each look would be most of
//! what the machine does; what a person would type and be told is still typed.

use anyhow::{Context, Result};
use axum::http::Request;
use cluster::Cluster;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

pub struct Reader {
    runtime: Runtime,
    client: Client,
}

/// Where objects of a kind are served: group and version, plural, and whether they are in namespaces. `None`: kubectl knows.
fn served(kind: &str) -> Option<(&'static str, &'static str, bool)> {
    Some(match kind {
        "pod" | "pods" => ("api/v1", "pods", true),
        "node" | "nodes" => ("api/v1", "nodes", false),
        "job" | "jobs" => ("apis/batch/v1", "jobs", true),
        "cronjob" => ("apis/batch/v1", "cronjobs", true),
        "deployment" => ("apis/apps/v1", "deployments", true),
        "replicaset" => ("apis/apps/v1", "replicasets", true),
        "events.events.k8s.io" => ("apis/events.k8s.io/v1", "events", true),
        "pullfailures" => ("apis/pullguard.dev/v1alpha1", "pullfailures", true),
        "nodeimagepolicy" => ("apis/pullguard.dev/v1alpha1", "nodeimagepolicies", false),
        _ => return None,
    })
}

impl Reader {
    pub fn of(cluster: &Cluster) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
            let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            config.default_retry = false;
            config.proxy_url = None;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    /// An object, or with an empty name the list of all; `None` for a kind that is not known here.
    pub fn read(&self, kind: &str, namespace: &str, name: &str) -> Option<Result<Value>> {
        let (version, plural, namespaced) = served(kind)?;
        let namespace = if namespaced { format!("namespaces/{namespace}/") } else { String::new() };
        let path = format!("/{version}/{namespace}{plural}/{name}");
        let read = || -> Result<Value> {
            let request = Request::get(path.trim_end_matches('/')).body(Vec::new())?;
            self.runtime.block_on(self.client.request(request)).with_context(|| path.clone())
        };
        Some(read())
    }
}
