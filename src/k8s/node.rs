//! A node, as far as the inventory keeps it.
//!
//! Enters: a `Node` object. Leaves: `NodeFacts`. Total: whatever is missing has a meaning.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};

use super::pod::taint_effect;
use crate::core::node::{NodeFacts, Readiness, Runtime, Taint};

pub fn facts(node: Node) -> NodeFacts {
    let spec = node.spec.unwrap_or_default();
    let status = node.status.unwrap_or_default();
    let taints = spec.taints.unwrap_or_default().into_iter().filter_map(|taint| {
        let effect = taint_effect(&taint.effect)?;
        Some(Taint { key: taint.key, value: taint.value.unwrap_or_default(), effect })
    });
    NodeFacts {
        name: node.metadata.name.unwrap_or_default(),
        labels: node.metadata.labels.unwrap_or_default(),
        taints: taints.collect(),
        unschedulable: spec.unschedulable.unwrap_or_default(),
        readiness: readiness(&status),
        // A node without a time of creation is not young: only files have such.
        created: node.metadata.creation_timestamp.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        runtime: runtime(&status),
        images: status.images.unwrap_or_default().into_iter().map(|image| image.names.unwrap_or_default()).collect(),
    }
}

fn readiness(status: &NodeStatus) -> Readiness {
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    match ready.map(|condition| condition.status.as_str()) {
        Some("True") => Readiness::Ready,
        Some("False") => Readiness::NotReady,
        Some(_) | None => Readiness::Unknown,
    }
}

fn runtime(status: &NodeStatus) -> Runtime {
    let version = status.node_info.as_ref().map_or("", |info| info.container_runtime_version.as_str());
    match version.split_once("://").map(|(name, _)| name) {
        Some("containerd") => Runtime::Containerd,
        Some("docker") => Runtime::Docker,
        Some(_) | None => Runtime::Other,
    }
}
