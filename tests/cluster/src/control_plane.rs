//! The command lines of etcd and of the Kubernetes control plane.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use crate::network::Network;
use crate::node::Node;
use crate::options::Options;
use crate::place::Place;

pub(crate) fn etcd(place: &Place, network: Network) -> Vec<String> {
    let client = format!("https://127.0.0.1:{}", network.etcd_port());
    let peer = format!("https://127.0.0.1:{}", network.etcd_peer_port());
    let (ca, certificate, key) = (place.pki("ca.crt"), place.pki("server.crt"), place.pki("server.key"));
    vec![
        format!("--data-dir={}", place.state.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // Without root it listens on the host's own loopback, where others are.
        "--client-cert-auth".into(),
        format!("--trusted-ca-file={ca}"),
        format!("--cert-file={certificate}"),
        format!("--key-file={key}"),
        "--peer-client-cert-auth".into(),
        format!("--peer-trusted-ca-file={ca}"),
        format!("--peer-cert-file={certificate}"),
        format!("--peer-key-file={key}"),
        // Nobody's data: speed before safety.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

pub(crate) fn api_server(place: &Place, network: Network, options: &Options) -> Vec<String> {
    let mut flags = vec![
        format!("--etcd-servers=https://127.0.0.1:{}", network.etcd_port()),
        format!("--etcd-cafile={}", place.pki("ca.crt")),
        format!("--etcd-certfile={}", place.pki("client.crt")),
        format!("--etcd-keyfile={}", place.pki("client.key")),
        format!("--secure-port={}", network.api_port()),
        format!("--tls-cert-file={}", place.pki("server.crt")),
        format!("--tls-private-key-file={}", place.pki("server.key")),
        format!("--client-ca-file={}", place.pki("ca.crt")),
        format!("--token-auth-file={}", place.pki("tokens.csv")),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        format!("--service-cluster-ip-range={}", network.services()),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", place.pki("service-accounts.key")),
        format!("--service-account-signing-key-file={}", place.pki("service-accounts.key")),
        format!("--kubelet-client-certificate={}", place.pki("client.crt")),
        format!("--kubelet-client-key={}", place.pki("client.key")),
        // Without this `kubectl logs` looks the node's name up in a DNS that is not there.
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--allow-privileged=true".into(),
        "--profiling=false".into(),
        format!("--cert-dir={}", place.pki("")),
    ];
    match network {
        Network::Namespace { .. } => {
            flags.push("--bind-address=0.0.0.0".into());
            flags.push(format!("--advertise-address={}", network.address()));
        }
        Network::Loopback { .. } => {
            flags.push("--bind-address=127.0.0.1".into());
            // A loopback address cannot be an endpoint of the service `kubernetes`.
            flags.push("--endpoint-reconciler-type=none".into());
        }
    }
    flags.extend(options.api_server_flags.iter().cloned());
    flags
}

pub(crate) fn controller_manager(place: &Place, options: &Options) -> Vec<String> {
    let mut flags = vec![
        format!("--kubeconfig={}", place.pki("kube-controller-manager.kubeconfig")),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
        format!("--root-ca-file={}", place.pki("ca.crt")),
        format!("--service-account-private-key-file={}", place.pki("service-accounts.key")),
        // As everywhere: a Job's pods are created by system:serviceaccount:kube-system:job-controller.
        "--use-service-account-credentials=true".into(),
        "--allocate-node-cidrs=false".into(),
        format!("--cluster-signing-cert-file={}", place.pki("ca.crt")),
        format!("--cluster-signing-key-file={}", place.pki("ca.key")),
        format!("--cert-dir={}", place.pki("")),
    ];
    flags.extend(options.controller_manager_flags.iter().cloned());
    flags
}

pub(crate) fn scheduler(place: &Place, options: &Options) -> Vec<String> {
    let mut flags = vec![
        format!("--kubeconfig={}", place.pki("kube-scheduler.kubeconfig")),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
        format!("--cert-dir={}", place.pki("")),
    ];
    flags.extend(options.scheduler_flags.iter().cloned());
    flags
}

/// One for both nodes: they share the network namespace whose rules it writes.
pub(crate) fn kube_proxy(place: &Place, network: Network) -> Result<Vec<String>> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": place.pki("kube-proxy.kubeconfig")},
        "mode": "nftables",
        "bindAddress": network.address(),
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // It may not set the host's limits, and need not.
        "conntrack": {"maxPerCore": 0, "min": 0},
        // Two pods behind one bridge would answer each other directly, past the rules that undo the translation.
        "nftables": {"masqueradeAll": true},
        "oomScoreAdj": 0,
    });
    let path = place.state.join("kube-proxy.json");
    fs::write(&path, config.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(vec![format!("--config={}", path.display()), format!("--hostname-override={}", Node::A)])
}
