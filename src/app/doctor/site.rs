//! An installation as it is declared: what a cluster holds, or what manifests would make.
//!
//! Enters: objects, from either. Leaves: one value on which the same checks run with a cluster and without one.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Container, PodSpec, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;

use super::hook::{Hook, selects};
use super::line::Seen;
use super::rights::Right;
use crate::core::namespace::{NAME_LABEL, SYSTEM_NAMESPACES};
use crate::core::selector::Labels;

#[derive(Clone, Debug)]
pub(super) struct Site {
    /// Pullguard's own namespace.
    pub namespace: String,
    pub hooks: Vec<Hook>,
    /// Labels of namespaces, those that must be exempt among them.
    pub namespaces: BTreeMap<String, Labels>,
    pub deployment: Seen<Deployment>,
    pub service: Seen<Service>,
    /// Those in our own namespace.
    pub budgets: Seen<Vec<PodDisruptionBudget>>,
    /// Those of the whole cluster.
    pub daemon_sets: Seen<Vec<DaemonSet>>,
    /// What the service account needs, each with whether it is granted.
    pub rights: Seen<Vec<(Right, bool)>>,
}

impl Site {
    /// Without an answer of ours, some request of the cluster fails.
    pub fn fails_closed(&self) -> bool {
        self.hooks.iter().any(Hook::fails_closed)
    }

    /// The namespaces that a webhook of ours must not be called for, with their labels.
    pub fn exempt(&self) -> impl Iterator<Item = (&str, &Labels)> {
        let named = |name: &&str| SYSTEM_NAMESPACES.contains(name) || *name == self.namespace;
        self.namespaces.iter().map(|(name, labels)| (name.as_str(), labels)).filter(move |(name, _)| named(name))
    }
}

/// The namespaces that must be exempt: each has the label of its name, and what else is known.
pub(super) fn namespaces(known: impl IntoIterator<Item = (String, Labels)>, own: &str) -> BTreeMap<String, Labels> {
    let must = SYSTEM_NAMESPACES.into_iter().chain([own]).map(|name| (name.to_owned(), Labels::new()));
    let mut all: BTreeMap<String, Labels> = must.collect();
    all.extend(known);
    for (name, labels) in &mut all {
        labels.insert(NAME_LABEL.to_owned(), name.clone());
    }
    all
}

/// Our Deployment: the one that the Service selects, or the one of the Service's name.
pub(super) fn ours<'a>(deployments: &'a [Deployment], service: Option<&Service>, name: &str) -> Option<&'a Deployment> {
    let selected = service.and_then(|service| {
        let labels = service.spec.as_ref()?.selector.clone()?;
        let chosen = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
            match_labels: Some(labels),
            ..Default::default()
        };
        deployments.iter().find(|deployment| selects(Some(&chosen), &pod_labels(deployment)))
    });
    selected.or_else(|| deployments.iter().find(|deployment| deployment.name_any() == name))
}

pub(super) fn pod_labels(deployment: &Deployment) -> Labels {
    let metadata = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    metadata.and_then(|metadata| metadata.labels.clone()).unwrap_or_default()
}

pub(super) fn pod_spec(deployment: &Deployment) -> Option<&PodSpec> {
    deployment.spec.as_ref()?.template.spec.as_ref()
}

pub(super) fn containers(deployment: &Deployment) -> impl Iterator<Item = &Container> {
    pod_spec(deployment).into_iter().flat_map(|spec| &spec.containers)
}

/// As many as the API makes of it.
pub(super) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(super) fn service_account(deployment: &Deployment) -> &str {
    pod_spec(deployment).and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default")
}
