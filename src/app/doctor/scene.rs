//! One look at an installation on a cluster.
//!
//! Enters: the current cluster, and Pullguard's namespace. Leaves: objects, or why they could not be had. Nothing is judged
//! here, and nothing is changed: the reviews and dry runs that are created are questions.

use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;

use super::certificates::no_secret;
use super::hook::{Hook, NAMES, hooks};
use super::line::{Gap, Seen};
use super::policies::is_fresh;
use super::probe::{Answer, interpret, probes};
use super::rights::{self, Right};
use super::site::{Site, namespaces, ours, pod_labels, service_account};
use crate::app::cluster::{Cluster, ClusterError};
use crate::app::replicas::{Replica, replicas};
use crate::core::selector::Labels;
use crate::k8s::crd::NodeImagePolicy;
use crate::shell::certificates::{Keyring, SECRET, SERVICE};
use crate::shell::registration::{CONFIGURATION, contents};

const APPLY: &str = "Apply manifests/ of this version: kubectl apply -k manifests/";
/// A lease that seems old is looked at once more after this, and so is a policy that was just changed.
const LATER: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 8;
/// Where dry runs go, if it is judged.
const DEFAULT_NAMESPACE: &str = "default";

#[derive(Debug)]
pub(super) struct Scene {
    pub now: Timestamp,
    pub site: Site,
    /// The webhook configurations could not be read: `site.hooks` is empty for want of rights.
    pub unread_hooks: Option<Gap>,
    pub definitions: Seen<Vec<CustomResourceDefinition>>,
    pub slices: Seen<Vec<EndpointSlice>>,
    pub secret: Seen<Keyring>,
    pub replicas: Seen<Vec<Replica>>,
    pub policies: Seen<Vec<NodeImagePolicy>>,
    pub nodes: Seen<Vec<Node>>,
    pub lease: Seen<Option<Lease>>,
    pub later: Option<Lease>,
    /// By webhook; `None`: there is no namespace to try it in.
    pub answers: Option<Vec<(&'static str, Answer)>>,
}

/// What is unreachable for one read is unreachable for all: that ends the look. All else is a gap in it.
fn seen<T>(read: Result<T, ClusterError>) -> Result<Seen<T>, ClusterError> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(error @ (ClusterError::Unreachable { .. } | ClusterError::NoConfig(_))) => Err(error),
        Err(error @ ClusterError::NotInstalled { .. }) => Ok(Err(Gap::absent(error.to_string(), APPLY))),
        Err(error @ ClusterError::Refused { .. }) => Ok(Err(Gap::refused(error.to_string()))),
    }
}

/// What must be there.
fn required<T>(seen: Seen<Option<T>>, what: impl FnOnce() -> String) -> Seen<T> {
    seen?.ok_or_else(|| Gap::absent(what(), APPLY))
}

struct Look<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
}

impl Look<'_> {
    fn own<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    fn all<K: kube::Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.cluster.client.clone())
    }

    async fn get<K>(&self, api: Api<K>, name: &str) -> Result<Seen<Option<K>>, ClusterError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug + kube::Resource<DynamicType = ()>,
    {
        seen(self.cluster.get(&api, name).await)
    }

    async fn list<K>(&self, api: Api<K>, parameters: &ListParams) -> Result<Seen<Vec<K>>, ClusterError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug + kube::Resource<DynamicType = ()>,
    {
        seen(self.cluster.list(&api, parameters).await)
    }
}

impl Scene {
    /// # Errors
    /// The cluster cannot be reached.
    pub async fn read(cluster: &Cluster, namespace: &str) -> Result<Self, ClusterError> {
        let look = Look { cluster, namespace };
        let every = ListParams::default();
        let of_service = every.clone().labels(&format!("kubernetes.io/service-name={SERVICE}"));
        let lease = look.get(look.own::<Lease>(), CONFIGURATION).await?;
        let (hooks, unread_hooks) = configured(&look).await?;
        let service = required(look.get(look.own::<Service>(), SERVICE).await?, || {
            format!("there is no Service {SERVICE} in namespace {namespace}")
        });
        let deployment = match look.list(look.own::<Deployment>(), &every).await? {
            Err(gap) => Err(gap),
            Ok(all) => ours(&all, service.as_ref().ok(), CONFIGURATION).cloned().ok_or_else(|| {
                Gap::absent(format!("there is no Deployment of Pullguard in namespace {namespace}"), APPLY)
            }),
        };
        let account = deployment.as_ref().map_or(CONFIGURATION, service_account).to_owned();
        let replicas = match &deployment {
            Ok(deployment) => seen(replicas(cluster, namespace, &pod_labels(deployment)).await)?,
            Err(gap) => Err(gap.clone()),
        };
        let secret = match look.get(look.own::<Secret>(), SECRET).await? {
            Err(gap) => Err(gap),
            Ok(None) => Err(no_secret(namespace)),
            Ok(Some(secret)) => Ok(contents(Some(&secret))),
        };
        let known = match look.list(look.all::<Namespace>(), &every).await? {
            Ok(all) => all.into_iter().map(|one| (one.name_any(), one.labels().clone())).collect(),
            // The label of its name is all that is known of each, and mostly all that is asked for.
            Err(_) => vec![(DEFAULT_NAMESPACE.to_owned(), Labels::new())],
        };
        let site = Site {
            namespace: namespace.to_owned(),
            namespaces: namespaces(known, namespace),
            budgets: look.list(look.own(), &every).await?,
            daemon_sets: look.list(look.all(), &every).await?,
            rights: seen(granted(cluster, namespace, &account).await)?,
            hooks,
            deployment,
            service,
        };
        let answers = match judged_namespace(&site) {
            Some(namespace) => Some(ask(cluster, namespace).await),
            None => None,
        };
        let mut policies = look.list(look.all::<NodeImagePolicy>(), &every).await?;
        let mut later = None;
        let lags = |policies: &Seen<Vec<NodeImagePolicy>>| policies.as_ref().is_ok_and(|all| all.iter().any(is_behind));
        let silent = lease.as_ref().is_ok_and(|lease| lease.is_some() && !is_fresh(lease.as_ref(), Timestamp::now()));
        if silent || lags(&policies) {
            tokio::time::sleep(LATER).await;
            later = look.get(look.own::<Lease>(), CONFIGURATION).await?.ok().flatten();
            policies = look.list(look.all(), &every).await?;
        }
        Ok(Self {
            now: Timestamp::now(),
            definitions: look.list(look.all(), &every).await?,
            slices: look.list(look.own(), &of_service).await?,
            nodes: look.list(look.all(), &every).await?,
            site,
            unread_hooks,
            secret,
            replicas,
            policies,
            lease,
            later,
            answers,
        })
    }
}

fn is_behind(policy: &NodeImagePolicy) -> bool {
    policy.status.as_ref().and_then(|status| status.observed_generation) != policy.metadata.generation
}

async fn configured(look: &Look<'_>) -> Result<(Vec<Hook>, Option<Gap>), ClusterError> {
    let validating = look.get(look.all::<ValidatingWebhookConfiguration>(), CONFIGURATION).await?;
    let mutating = look.get(look.all::<MutatingWebhookConfiguration>(), CONFIGURATION).await?;
    Ok(match (validating, mutating) {
        (Ok(validating), Ok(mutating)) => (hooks(validating.as_ref(), mutating.as_ref()), None),
        (Err(gap), _) | (_, Err(gap)) => (Vec::new(), Some(gap)),
    })
}

/// One that all our webhooks are called for.
fn judged_namespace(site: &Site) -> Option<&str> {
    let judged = |labels: &Labels| site.hooks.iter().all(|hook| hook.is_called_in(labels));
    let default = site.namespaces.get_key_value(DEFAULT_NAMESPACE).filter(|(_, labels)| judged(labels));
    default.or_else(|| site.namespaces.iter().find(|(_, labels)| judged(labels))).map(|(name, _)| name.as_str())
}

async fn ask(cluster: &Cluster, namespace: &str) -> Vec<(&'static str, Answer)> {
    let mut answers = Vec::new();
    for probe in probes(namespace).into_iter().filter(|probe| NAMES.contains(&probe.webhook)) {
        let answer = match probe.request() {
            Err(error) => Answer::Refused(error),
            Ok(request) => match cluster.said(request).await {
                Err(error) => Answer::Refused(error.to_string()),
                Ok(said) => interpret(said.accepted, &said.warnings, &said.message),
            },
        };
        answers.push((probe.webhook, answer));
    }
    answers
}

/// Asks the API server what the service account may do: roles and bindings can say it in many ways.
async fn granted(cluster: &Cluster, namespace: &str, account: &str) -> Result<Vec<(Right, bool)>, ClusterError> {
    let api: Api<SubjectAccessReview> = Api::all(cluster.client.clone());
    let ask = |right: Right| {
        let api = &api;
        async move {
            let review = review(&right, namespace, account);
            let parameters = PostParams::default();
            let answer = cluster.wait::<SubjectAccessReview, _>(api.create(&parameters, &review)).await?;
            Ok((right, answer.status.is_some_and(|status| status.allowed)))
        }
    };
    let answers: Vec<Result<(Right, bool), ClusterError>> =
        stream::iter(rights::needed()).map(ask).buffered(AT_ONCE).collect().await;
    answers.into_iter().collect()
}

fn review(right: &Right, namespace: &str, account: &str) -> SubjectAccessReview {
    let attributes = ResourceAttributes {
        group: Some(right.group.clone()),
        resource: Some(right.resource.clone()),
        subresource: Some(right.subresource.clone()).filter(|subresource| !subresource.is_empty()),
        verb: Some(right.verb.clone()),
        name: right.name.clone(),
        namespace: right.own_namespace.then(|| namespace.to_owned()),
        ..ResourceAttributes::default()
    };
    let groups = ["system:serviceaccounts", "system:authenticated"].map(str::to_owned).into_iter();
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{account}")),
            groups: Some(groups.chain([format!("system:serviceaccounts:{namespace}")]).collect()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
