//! A real Kubernetes of two nodes on one plain machine: etcd, the control plane, kube-proxy, two kubelets on two
//! containerds and two registries, all inside a network namespace of its own.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use cluster::{Cluster, Component, Node, Options};
//! let cluster = Cluster::up(&Options::named("test"))?;
//! cluster.import(Node::A, "optio-node:latest")?;
//! cluster.stop(Component::ApiServer)?;
//! cluster.start(Component::ApiServer)?;
//! println!("{}", cluster.kubectl_ok(&["get", "nodes"])?);
//! Cluster::down("test")
//! # }
//! ```
//!
//! A cluster belongs to nobody: it outlives the process that brought it up, and any later process finds, uses or removes
//! it by its name. Nothing here knows the product; an error is one sentence for a person.

mod cgroup;
mod cluster;
mod component;
mod control_plane;
mod credentials;
mod down;
mod env;
mod image;
mod images;
mod mounts;
mod network;
mod node;
mod options;
mod place;
mod prerequisites;
mod process;
mod registry;
mod shell;
mod tar;
mod up;

pub use cluster::Cluster;
pub use component::Component;
pub use image::{TestImage, program_image};
pub use node::Node;
pub use options::{DEFAULT_NAME, Options};
pub use prerequisites::nodes_possible;
pub use registry::{REGISTRY_PASSWORD, REGISTRY_USER};
pub use shell::without_proxy;
