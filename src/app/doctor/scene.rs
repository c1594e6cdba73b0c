//! One look at an installation.
//!
//! Enters: the current cluster, and Pullguard's namespace. Leaves: objects, or why they could not be had. Nothing is
//! judged here, and nothing is changed: the reviews that are created are questions.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};

use super::rights::{self, Right};
use crate::app::cluster::{Cluster, ClusterError};
use crate::core::namespace::{NAME_LABEL, SYSTEM_NAMESPACES};
use crate::core::selector::Labels;
use crate::k8s::crd::{NodeImagePolicy, PullFailure};
use crate::shell::certificates::{SECRET, SERVICE};
use crate::shell::registration::CONFIGURATION;

/// What was read, or one sentence on why it was not.
pub(super) type Seen<T> = Result<T, String>;

#[derive(Debug)]
pub(super) struct Scene {
    pub now: Timestamp,
    pub namespace: String,
    pub deployment: Seen<Option<Deployment>>,
    pub budgets: Seen<Vec<PodDisruptionBudget>>,
    pub slices: Seen<Vec<EndpointSlice>>,
    pub secret: Seen<Option<Secret>>,
    pub validating: Seen<Option<ValidatingWebhookConfiguration>>,
    pub mutating: Seen<Option<MutatingWebhookConfiguration>>,
    /// Labels of the namespaces that must not be locked out.
    pub namespaces: BTreeMap<String, Labels>,
    pub policies: Seen<Vec<NodeImagePolicy>>,
    pub records: Seen<Vec<PullFailure>>,
    pub nodes: Seen<Vec<Node>>,
    pub lease: Seen<Option<Lease>>,
    /// Each with whether it is granted.
    pub rights: Seen<Vec<(Right, bool)>>,
    pub reach: Reach,
}

/// Whether the API server's network reaches the webhook, seen by its own service proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Answered,
    /// By whom, and with which words.
    Unreached(String),
    /// It was not allowed to try.
    Untried(String),
}

/// What is unreachable for one read is unreachable for all: that ends the look. All else is a gap in it.
fn seen<T>(read: Result<T, ClusterError>) -> Result<Seen<T>, ClusterError> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(error @ (ClusterError::Unreachable { .. } | ClusterError::NoConfig(_))) => Err(error),
        Err(error @ (ClusterError::Refused { .. } | ClusterError::NotInstalled { .. })) => Ok(Err(error.to_string())),
    }
}

impl Scene {
    pub async fn read(cluster: &Cluster, namespace: &str) -> Result<Self, ClusterError> {
        let client = || cluster.client.clone();
        let all = ListParams::default();
        let of_service = all.clone().labels(&format!("kubernetes.io/service-name={SERVICE}"));
        let deployment = seen(cluster.get(&Api::<Deployment>::namespaced(client(), namespace), CONFIGURATION).await)?;
        let account = deployment.as_ref().ok().and_then(Option::as_ref).and_then(service_account);
        Ok(Self {
            now: Timestamp::now(),
            namespace: namespace.to_owned(),
            budgets: seen(cluster.list(&Api::namespaced(client(), namespace), &all).await)?,
            slices: seen(cluster.list(&Api::namespaced(client(), namespace), &of_service).await)?,
            secret: seen(cluster.get(&Api::namespaced(client(), namespace), SECRET).await)?,
            validating: seen(cluster.get(&Api::all(client()), CONFIGURATION).await)?,
            mutating: seen(cluster.get(&Api::all(client()), CONFIGURATION).await)?,
            namespaces: namespaces(cluster, namespace).await?,
            policies: seen(cluster.list(&Api::all(client()), &all).await)?,
            records: seen(cluster.list(&Api::all(client()), &all.clone().limit(1)).await)?,
            nodes: seen(cluster.list(&Api::all(client()), &all).await)?,
            lease: seen(cluster.get(&Api::namespaced(client(), namespace), CONFIGURATION).await)?,
            rights: seen(granted(cluster, namespace, account.unwrap_or(CONFIGURATION)).await)?,
            reach: reach(&cluster.client, namespace).await,
            deployment,
        })
    }
}

fn service_account(deployment: &Deployment) -> Option<&str> {
    deployment.spec.as_ref()?.template.spec.as_ref()?.service_account_name.as_deref()
}

/// The namespaces without which a cluster does not start, and our own. One that cannot be read has its name's label.
async fn namespaces(cluster: &Cluster, own: &str) -> Result<BTreeMap<String, Labels>, ClusterError> {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(cluster.client.clone());
    let mut found = BTreeMap::new();
    for name in SYSTEM_NAMESPACES.into_iter().chain([own]) {
        let read = seen(cluster.get(&api, name).await)?;
        let mut labels = read.ok().flatten().map(|namespace| namespace.labels().clone()).unwrap_or_default();
        labels.insert(NAME_LABEL.to_owned(), name.to_owned());
        found.insert(name.to_owned(), labels);
    }
    Ok(found)
}

/// Asks the API server what the service account may do: roles and bindings can say it in many ways.
async fn granted(cluster: &Cluster, namespace: &str, account: &str) -> Result<Vec<(Right, bool)>, ClusterError> {
    const AT_ONCE: usize = 8;
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
        subresource: right.subresource.clone(),
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

/// A GET through the API server's proxy of services: it goes the way that its own calls of the webhook go, and the webhook,
/// which takes only POST, answers it with a refusal of its own.
async fn reach(client: &Client, namespace: &str) -> Reach {
    let path = format!("/api/v1/namespaces/{namespace}/services/https:{SERVICE}:443/proxy/validate");
    let request = match http::Request::get(path).body(Vec::new()) {
        Ok(request) => request,
        Err(error) => return Reach::Untried(error.to_string()),
    };
    match client.request_text(request).await {
        Ok(_) => Reach::Answered,
        Err(kube::Error::Api(status)) if status.code == 401 || status.code == 403 => Reach::Untried(status.message.clone()),
        Err(kube::Error::Api(status)) if status.code == 404 && status.message.contains("services") => {
            Reach::Unreached(status.message.clone())
        }
        Err(kube::Error::Api(status)) if status.code < 500 => Reach::Answered,
        Err(kube::Error::Api(status)) => Reach::Unreached(status.message.clone()),
        Err(error) => Reach::Untried(error.to_string()),
    }
}
