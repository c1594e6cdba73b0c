//! Nodes without a kubelet: objects that the API server holds and the scheduler and Pullguard take for nodes.

use anyhow::{Result, ensure};
use cluster::Cluster;
use serde_json::{Value, json};

use crate::stage::until;

const LABEL: &str = "test.pullguard.dev/simulated";

/// They go when this is dropped.
pub struct Nodes<'a> {
    cluster: &'a Cluster,
    selector: String,
}

impl Drop for Nodes<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "nodes", "--selector", &self.selector, "--wait=false"];
        let _gone_with_the_cluster = self.cluster.kubectl(&delete);
    }
}

/// A Ready node of containerd, with room for pods.
pub fn node(name: &str, set: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
    "metadata": {"name": name, "labels": {LABEL: set, "kubernetes.io/hostname": name}},
    "spec": {},
    "status": {
        "conditions": [{"type": "Ready", "status": "True", "reason": "Simulated", "message": "no kubelet"}],
        "nodeInfo": node_info("containerd://2.4.2"),
        "capacity": {"cpu": "1000", "memory": "1Ti", "pods": "10000"},
        "allocatable": {"cpu": "1000", "memory": "1Ti", "pods": "10000"},
    }})
}

/// What the API server wants to be told of a node's software.
pub fn node_info(runtime: &str) -> Value {
    let mut info = json!({"containerRuntimeVersion": runtime, "operatingSystem": "linux", "architecture": "amd64"});
    for field in ["machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "kubeletVersion", "kubeProxyVersion"]
    {
        info[field] = json!("");
    }
    info
}

/// The selector of the nodes of one set, for a policy's `nodes`.
pub fn selector(set: &str) -> Value {
    json!({"matchLabels": {LABEL: set}})
}

/// Makes the nodes as they are given: the API server itself taints a new one, so that taints are written once more.
pub fn make<'a>(cluster: &'a Cluster, set: &str, nodes: &[Value]) -> Result<Nodes<'a>> {
    let made = Nodes { cluster, selector: format!("{LABEL}={set}") };
    let all = json!({"apiVersion": "v1", "kind": "List", "items": nodes}).to_string();
    let steps: [&[&str]; 3] =
        [&["create", "-f", "-"], &["replace", "--subresource=status", "-f", "-"], &["replace", "-f", "-"]];
    for step in steps {
        // The controllers write to a new node as well, and whoever is in between makes `replace` start anew.
        until("the nodes are as they are given", 60, || {
            let output = cluster.kubectl_stdin(step, &all)?;
            ensure!(output.status.success(), "{step:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(Some(()))
        })?;
    }
    Ok(made)
}
