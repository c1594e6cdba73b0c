//! The parts of a cluster that can be stopped and started.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

use crate::node::Node;

/// One process of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The store.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager: jobs, endpoints, service accounts, garbage collection.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// kube-proxy in nftables mode, one for both nodes as they share a network namespace.
    KubeProxy,
    /// The registry that anybody may pull from and push to.
    Registry,
    /// The registry that asks for a password.
    AuthRegistry,
    /// The container runtime of a node.
    Containerd(Node),
    /// The kubelet of a node.
    Kubelet(Node),
}

impl Component {
    /// What a cluster with these nodes consists of, in the order of starting.
    pub fn of(nodes: &[Node]) -> Vec<Self> {
        let mut all = vec![Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler];
        if !nodes.is_empty() {
            all.extend([Self::KubeProxy, Self::Registry, Self::AuthRegistry]);
        }
        all.extend(nodes.iter().copied().map(Self::Containerd));
        all.extend(nodes.iter().copied().map(Self::Kubelet));
        all
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd => f.write_str("etcd"),
            Self::ApiServer => f.write_str("apiserver"),
            Self::ControllerManager => f.write_str("controller-manager"),
            Self::Scheduler => f.write_str("scheduler"),
            Self::KubeProxy => f.write_str("kube-proxy"),
            Self::Registry => f.write_str("registry"),
            Self::AuthRegistry => f.write_str("auth-registry"),
            Self::Containerd(node) => write!(f, "containerd-{}", node.letter()),
            Self::Kubelet(node) => write!(f, "kubelet-{}", node.letter()),
        }
    }
}

impl FromStr for Component {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = Self::of(&Node::ALL);
        if let Some(found) = all.iter().find(|component| component.to_string() == text) {
            return Ok(*found);
        }
        let names: Vec<_> = all.iter().map(Self::to_string).collect();
        bail!("{text:?} is no component; there are {}", names.join(", "))
    }
}
