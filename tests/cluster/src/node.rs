//! A node: one containerd and one kubelet, each with directories, addresses and a cgroup of its own, so that two of them
//! fit on one machine.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::cgroup;
use crate::network::Network;
use crate::place::Place;
use crate::registry;
use crate::shell::run;

/// A local image whose entrypoint sleeps: it holds a pod's namespaces, and nobody has to pull it.
pub(crate) const PAUSE: &str = "docker.io/local/pause:1";

/// A node of the cluster, named `node-a` or `node-b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node(u8);

impl Node {
    /// The first node.
    pub const A: Self = Self(0);
    /// The second node.
    pub const B: Self = Self(1);
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    pub(crate) fn first(count: u8) -> Vec<Self> {
        Self::ALL.into_iter().take(count.into()).collect()
    }

    pub(crate) fn index(self) -> u8 {
        self.0
    }

    pub(crate) fn letter(self) -> char {
        char::from(b'a' + self.0)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node-{}", self.letter())
    }
}

impl FromStr for Node {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|node| node.to_string() == text) {
            Some(node) => Ok(node),
            None => bail!("{text:?} is no node; there are node-a and node-b"),
        }
    }
}

/// Writes everything that the two daemons of a node read.
pub(crate) fn prepare(place: &Place, network: Network, bin: &Path, node: Node, changes: &Value) -> Result<()> {
    let home = place.node(node);
    let write = |file: &str, text: &str| {
        fs::write(home.join(file), text).with_context(|| format!("cannot write {file} of {node}"))
    };
    for directory in ["cni", "hosts", "manifests", "plugins", "pod-logs"] {
        fs::create_dir_all(home.join(directory)).with_context(|| format!("cannot make {directory} of {node}"))?;
    }
    let root = place.kubelet_root(node);
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    write("cni/10-bridge.conflist", &cni(place, network, node).to_string())?;
    write("containerd.toml", &containerd_config(place, bin, node)?)?;
    write("kubelet.json", &kubelet_config(place, network, node, changes)?.to_string())?;
    let (open, asking) = (registry::address(network, registry::PORT), registry::address(network, registry::AUTH_PORT));
    registry::trust(place, node, "registry.local", &open)?;
    registry::trust(place, node, &open, &open)?;
    registry::trust(place, node, &asking, &asking)
}

/// How pods get an address.
fn cni(place: &Place, network: Network, node: Node) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": format!("pods-{}", node.letter()),
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": place.node(node).join("cni-addresses"),
                "ranges": [[{"subnet": network.pods(node)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

pub(crate) fn containerd_args(place: &Place, node: Node) -> Vec<String> {
    vec!["--config".into(), place.node(node).join("containerd.toml").display().to_string()]
}

fn containerd_config(place: &Place, bin: &Path, node: Node) -> Result<String> {
    let home = place.node(node);
    let home = home.display();
    // An overlay on an overlay (a checkout inside a container) is refused by the kernel.
    let below = run(Command::new("stat").args(["--file-system", "--format=%T"]).arg(&place.state))?;
    let snapshotter = if below.stdout.starts_with(b"overlay") { "native" } else { "overlayfs" };
    Ok(format!(
        r#"version = 3
root = "{home}/containerd"
state = "{home}/containerd-state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  pinned_images.sandbox = "{PAUSE}"
  registry.config_path = "{home}/hosts"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  cdi_spec_dirs = []
  enable_criu = false
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  options.SystemdCgroup = false
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{bin}"]
  conf_dir = "{home}/cni"
[plugins."io.containerd.metadata.v1.bolt"]
  no_sync = true
[plugins."io.containerd.internal.v1.opt"]
  path = "{home}/opt"
[plugins."io.containerd.shim.v1.manager"]
  socket_dir = "{run}/s"
# Two containerds would fight for NRI's one socket.
[plugins."io.containerd.nri.v1.nri"]
  disable = true
"#,
        socket = place.containerd_socket(node).display(),
        run = place.run.display(),
        bin = bin.display(),
    ))
}

pub(crate) fn kubelet_args(place: &Place, network: Network, node: Node) -> Vec<String> {
    let home = place.node(node);
    vec![
        format!("--config={}", home.join("kubelet.json").display()),
        format!("--kubeconfig={}", place.pki(&format!("{node}.kubeconfig"))),
        format!("--hostname-override={node}"),
        format!("--node-ip={}", network.node(node)),
        format!("--root-dir={}", place.kubelet_root(node).display()),
        format!("--cert-dir={}", home.join("kubelet-pki").display()),
        "--v=2".into(),
    ]
}

fn kubelet_config(place: &Place, network: Network, node: Node, changes: &Value) -> Result<Value> {
    let home = place.node(node);
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", place.containerd_socket(node).display()),
        "address": network.node(node),
        "healthzBindAddress": network.node(node),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": place.pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "staticPodPath": home.join("manifests"),
        "podLogsDir": home.join("pod-logs"),
        "volumePluginDir": home.join("plugins"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup::root_of(place, node),
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "oomScoreAdj": 0,
        // The host's resolver is not reachable from pods, and would make each lookup slow.
        "resolvConf": "",
        "clusterDomain": "cluster.local",
        "clusterDNS": [network.dns()],
        "serializeImagePulls": false,
        "nodeStatusUpdateFrequency": "2s",
        // An image must never vanish, nor a pod be evicted, because a developer's disk is full.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "shutdownGracePeriod": "0s",
    });
    if let Value::Object(config) = &mut config {
        if cgroup::is_v1()? {
            config.insert("failCgroupV1".to_owned(), Value::Bool(false));
        }
        for (key, value) in changes.as_object().into_iter().flatten() {
            config.insert(key.clone(), value.clone());
        }
    }
    Ok(config)
}

/// The ctr command for the images that the kubelet of this node sees.
pub(crate) fn ctr(place: &Place, bin: &Path, node: Node) -> Command {
    let mut command = Command::new(bin.join("ctr"));
    command.arg("--address").arg(place.containerd_socket(node)).args(["--namespace", "k8s.io"]);
    command
}
