//! Pullguard: the cluster-level answer to container images that cannot be pulled in Kubernetes.
//!
//! The rooms, and the one direction in which they may know each other:
//! `main -> app -> shell -> k8s -> core`.

pub mod app;
pub mod core;
pub mod k8s;
pub mod shell;
