//! What a caller may choose about a cluster.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::node::Node;

/// The cluster of `make cluster`.
pub const DEFAULT_NAME: &str = "main";

/// Settings of one cluster. A cluster that is up with other options is torn down and made anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Names the state directory, the network namespace and the cgroups.
    pub name: String,
    /// 0 to 2; 0 is a control plane only.
    pub nodes: u8,
    /// Added after our own flags of kube-apiserver, so that they win.
    pub api_server_flags: Vec<String>,
    /// Added after our own flags of kube-controller-manager.
    pub controller_manager_flags: Vec<String>,
    /// Added after our own flags of kube-scheduler.
    pub scheduler_flags: Vec<String>,
    /// Merged over our KubeletConfiguration of every node, key by key at the top level.
    pub kubelet_config: Value,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.to_owned(),
            nodes: Node::ALL.len() as u8,
            api_server_flags: Vec::new(),
            controller_manager_flags: Vec::new(),
            scheduler_flags: Vec::new(),
            kubelet_config: Value::Object(serde_json::Map::new()),
        }
    }
}

impl Options {
    /// A whole cluster of this name.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}
