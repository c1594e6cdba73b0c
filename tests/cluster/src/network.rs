//! The addresses of a cluster, and the network namespace that holds them. A slot number gives a /16 of its own, so that
//! clusters run side by side; the kernel's refusal of a second interface of one name is what makes a slot exclusive.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::node::Node;
use crate::place::Place;
use crate::shell::{run, succeeds};

/// Clusters on one machine: 10.224.0.0/16 to 10.239.0.0/16.
const SLOTS: u8 = 16;

/// Where the control plane listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Network {
    /// As root: a network namespace, reached from the host by a pair of virtual interfaces.
    Namespace { slot: u8 },
    /// Without root: three ports of the host's loopback from this one on, a control plane only.
    Loopback { port: u16 },
}

impl Network {
    fn at(slot: u8, rest: &str) -> String {
        format!("10.{}.{rest}", 224 + u16::from(slot))
    }

    /// The address of the API server, and with it of everything that is one per cluster.
    pub(crate) fn address(self) -> String {
        match self {
            Self::Namespace { slot } => Self::at(slot, "0.2"),
            Self::Loopback { .. } => "127.0.0.1".to_owned(),
        }
    }

    /// The host's end, as pods and the API server see it: a test's own webhook can listen here.
    pub(crate) fn host(self) -> String {
        match self {
            Self::Namespace { slot } => Self::at(slot, "0.1"),
            Self::Loopback { .. } => "127.0.0.1".to_owned(),
        }
    }

    pub(crate) fn node(self, node: Node) -> String {
        match self {
            Self::Namespace { slot } => Self::at(slot, &format!("0.{}", 11 + node.index())),
            Self::Loopback { .. } => "127.0.0.1".to_owned(),
        }
    }

    fn slot(self) -> u8 {
        match self {
            Self::Namespace { slot } => slot,
            Self::Loopback { .. } => 0,
        }
    }

    pub(crate) fn pods(self, node: Node) -> String {
        Self::at(self.slot(), &format!("{}.0/24", 16 + node.index()))
    }

    pub(crate) fn everything(self) -> String {
        Self::at(self.slot(), "0.0/16")
    }

    pub(crate) fn services(self) -> String {
        Self::at(self.slot(), "128.0/20")
    }

    /// The address of the service `kubernetes.default`.
    pub(crate) fn first_service(self) -> String {
        Self::at(self.slot(), "128.1")
    }

    /// Nobody answers here; without a cluster DNS address each pod would bring a warning event.
    pub(crate) fn dns(self) -> String {
        Self::at(self.slot(), "128.10")
    }

    pub(crate) fn api_port(self) -> u16 {
        match self {
            Self::Namespace { .. } => 6443,
            Self::Loopback { port } => port,
        }
    }

    pub(crate) fn etcd_port(self) -> u16 {
        match self {
            Self::Namespace { .. } => 2379,
            Self::Loopback { port } => port + 1,
        }
    }

    pub(crate) fn etcd_peer_port(self) -> u16 {
        match self {
            Self::Namespace { .. } => 2380,
            Self::Loopback { port } => port + 2,
        }
    }

    /// Runs a program where the cluster's addresses are. Not by `ip netns exec`: that remounts /sys and hides the cgroups.
    pub(crate) fn prefix(self, place: &Place) -> Vec<String> {
        match self {
            Self::Namespace { .. } => {
                vec!["nsenter".to_owned(), format!("--net={}", namespace(place).display()), "--".to_owned()]
            }
            Self::Loopback { .. } => Vec::new(),
        }
    }
}

pub(crate) fn namespace(place: &Place) -> PathBuf {
    Path::new("/run/netns").join(&place.id)
}

fn ip(words: &str) -> Result<()> {
    run(Command::new("ip").args(words.split_whitespace())).map(drop)
}

/// Makes the namespace and both ends of its link to the host.
pub(crate) fn make_namespace(place: &Place) -> Result<Network> {
    let id = &place.id;
    ip(&format!("netns add {id}"))?;
    let slot = take_slot(place)?;
    let network = Network::Namespace { slot };
    let (host, address, link) = (network.host(), network.address(), link(slot));
    // The alias finds a link whose record was lost.
    ip(&format!("link set {link} alias {id}"))?;
    ip(&format!("addr add {host}/24 dev {link}"))?;
    ip(&format!("link set {link} up"))?;
    ip(&format!("-n {id} link set lo up"))?;
    ip(&format!("-n {id} addr add {address}/24 dev up0"))?;
    for node in Node::ALL {
        ip(&format!("-n {id} addr add {}/24 dev up0", network.node(node)))?;
    }
    ip(&format!("-n {id} link set up0 up"))?;
    // To pods and services from the host, for the tests' clients.
    ip(&format!("route add {} via {address} dev {link}", network.everything()))?;
    // A packet to a service is routed before kube-proxy's rules rewrite it, so a route must exist; there is no default
    // route, so that a pull from the internet fails at once instead of hanging.
    ip(&format!("-n {id} route add {} via {host} dev up0", network.services()))?;
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    run(Command::new("nsenter").arg(format!("--net={}", namespace(place).display())).args(["sh", "-c", forward]))?;
    Ok(network)
}

fn link(slot: u8) -> String {
    format!("pullguard{slot}")
}

fn take_slot(place: &Place) -> Result<u8> {
    let routes = run(Command::new("ip").args(["-4", "route", "show", "table", "all"]))?;
    let routes = String::from_utf8_lossy(&routes.stdout).into_owned();
    for slot in 0..SLOTS {
        let ours = Network::at(slot, "");
        let taken = routes.split_whitespace().any(|word| word.starts_with(&ours));
        let words = format!("link add {} type veth peer name up0 netns {}", link(slot), place.id);
        if !taken && succeeds(Command::new("ip").args(words.split_whitespace())) {
            return Ok(slot);
        }
    }
    bail!("no free address range for a cluster: {SLOTS} of them are up, or no virtual interface can be made here")
}

/// Three free ports in a row on loopback.
pub(crate) fn free_ports() -> Result<Network> {
    (26_440..27_440)
        .step_by(10)
        .find(|port| (0..3).all(|offset| TcpListener::bind(("127.0.0.1", port + offset)).is_ok()))
        .map(|port| Network::Loopback { port })
        .context("no three free ports in a row between 26440 and 27440 on loopback")
}

/// The host's links that belong to this cluster.
pub(crate) fn links(place: &Place) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| fs::read_to_string(entry.path().join("ifalias")).is_ok_and(|alias| alias.trim() == place.id))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// With the namespace go its bridges, addresses and nftables rules. All its processes must be gone.
pub(crate) fn remove(place: &Place) -> Result<()> {
    for link in links(place) {
        // The kernel may be quicker: the link goes with the namespace.
        succeeds(Command::new("ip").args(["link", "del", &link]));
    }
    let path = namespace(place);
    if path.exists() && !succeeds(Command::new("ip").args(["netns", "del", &place.id])) {
        // A crash between making the file and mounting the namespace on it.
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
