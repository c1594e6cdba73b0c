//! What each running replica serves, by its own metrics.
//!
//! Enters: a cluster, and the Deployment. Leaves: the end of the certificate that each replica serves. The way is the API
//! server's proxy of pods, so that it works from wherever `kubectl` does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::cluster::{Cluster, ClusterError};
use crate::shell::metrics::CERTIFICATE_EXPIRY;

/// One pod of ours that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replica {
    pub pod: String,
    /// The end of what it serves; `None`: it serves none yet.
    pub until: Option<Timestamp>,
}

const PROBES: &str = "probes";
const PROBES_PORT: i32 = 8080;

/// # Errors
/// The pods cannot be listed or asked.
pub(super) async fn replicas(
    cluster: &Cluster,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Result<Vec<Replica>, ClusterError> {
    let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let mut replicas = Vec::new();
    for pod in cluster.list(&pods, &ListParams::default().labels(&selector.join(","))).await? {
        let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        if !runs || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let name = pod.name_any();
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{}/proxy/metrics", port(&pod));
        let metrics = cluster.text(&path, "pods/proxy").await?;
        replicas.push(Replica { pod: name, until: until(&metrics) });
    }
    Ok(replicas)
}

fn port(pod: &Pod) -> i32 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.find(|port| port.name.as_deref() == Some(PROBES)).map_or(PROBES_PORT, |port| port.container_port)
}

fn until(metrics: &str) -> Option<Timestamp> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(CERTIFICATE_EXPIRY)?.strip_prefix(' '))?;
    let seconds: i64 = line.trim().parse().ok()?;
    (seconds > 0).then(|| Timestamp::from_second(seconds).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_read_from_the_metrics_of_a_replica() {
        let metrics = "# TYPE x gauge\npullguard_certificate_expiry_timestamp_seconds 1800000000\n# EOF\n";
        assert_eq!(until(metrics), Timestamp::from_second(1_800_000_000).ok());
        assert_eq!(until("pullguard_certificate_expiry_timestamp_seconds 0\n"), None);
        assert_eq!(until("# EOF\n"), None);
    }
}
