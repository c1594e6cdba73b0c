//! Reads of the current cluster, for the commands that a person runs.
//!
//! Enters: the kubeconfig, or the service account of the pod that this runs in. Leaves: whole lists, or one sentence on
//! why there are none.

use std::net::IpAddr;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use kube::api::{ListParams, ObjectList};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// A person waits: longer than this, a cluster is not there.
const PATIENCE: Duration = Duration::from_secs(15);
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// A cluster of 5,000 nodes is read in ten pages.
const PAGE: u32 = 500;

/// Why the cluster could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("no cluster is configured: {0}")]
    NoConfig(String),
    #[error("the cluster at {host} cannot be reached: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("{what} cannot be read: {reason}")]
    Refused { what: String, reason: String },
    /// The resource, and what is missing.
    #[error(
        "{what} cannot be read: the cluster does not know the kind; install Pullguard's definitions (pullguard crds | kubectl apply -f -)"
    )]
    NotInstalled { what: String },
}

/// The cluster that `kubectl` would talk to.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub host: String,
    /// Of the kubeconfig's context.
    pub default_namespace: String,
}

/// What the API server says to a request.
#[derive(Clone, Debug)]
pub struct Said {
    pub accepted: bool,
    /// The `Warning` headers.
    pub warnings: Vec<String>,
    /// Why it was not accepted.
    pub message: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("host", &self.host).finish_non_exhaustive()
    }
}

/// The proxy on the way to the API server, as kubectl chooses it: that of the environment neither for what `NO_PROXY` names
/// nor for this very machine, a kubeconfig's own `proxy-url` always.
///
/// NB: kube 5.0 compares `NO_PROXY` with the proxy and not with the server.
pub fn choose_proxy(config: &mut kube::Config) {
    let of_environment = ["HTTPS_PROXY", "https_proxy"].into_iter().filter_map(|name| std::env::var(name).ok());
    let of_environment = of_environment.filter_map(|proxy| proxy.parse().ok()).any(|uri| config.proxy_url == Some(uri));
    let server = &config.cluster_url;
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if of_environment && (is_here || Matcher::from_env().intercept(server).is_none()) {
        config.proxy_url = None;
    }
}

impl Cluster {
    /// # Errors
    /// There is no usable configuration. The cluster itself is not asked yet.
    pub async fn current() -> Result<Self, ClusterError> {
        // The kubeconfig first, as kubectl has it.
        let mut config = match kube::Config::from_kubeconfig(&kube::config::KubeConfigOptions::default()).await {
            Ok(config) => config,
            Err(error) => kube::Config::incluster().map_err(|_| ClusterError::NoConfig(chain(&error)))?,
        };
        choose_proxy(&mut config);
        config.connect_timeout = Some(CONNECT_PATIENCE);
        config.read_timeout = Some(PATIENCE);
        let host = config.cluster_url.to_string();
        let host = host.trim_end_matches('/').to_owned();
        let default_namespace = config.default_namespace.clone();
        let client = Client::try_from(config)
            .map_err(|error| ClusterError::Unreachable { host: host.clone(), reason: chain(&error) })?;
        Ok(Self { client, host, default_namespace })
    }

    /// All objects of a kind, in the whole cluster or as `api` says.
    ///
    /// # Errors
    /// The cluster cannot be reached, or does not let us.
    pub async fn list<K>(&self, api: &Api<K>, parameters: &ListParams) -> Result<Vec<K>, ClusterError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug + Resource<DynamicType = ()>,
    {
        let mut all = Vec::new();
        let mut parameters = parameters.clone().limit(PAGE);
        loop {
            let page: ObjectList<K> = self.wait::<K, _>(api.list(&parameters)).await?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// One object; `None` if there is none of that name.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn get<K>(&self, api: &Api<K>, name: &str) -> Result<Option<K>, ClusterError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug + Resource<DynamicType = ()>,
    {
        self.wait::<K, _>(api.get_opt(name)).await
    }

    /// The text at a path of the API server. `what`: the right that it takes.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn text(&self, path: &str, what: &str) -> Result<String, ClusterError> {
        let refused = |reason: String| ClusterError::Refused { what: what.to_owned(), reason };
        let request = axum::http::Request::get(path).body(Vec::new()).map_err(|error| refused(error.to_string()))?;
        match tokio::time::timeout(PATIENCE, self.client.request_text(request)).await {
            Err(_) => Err(refused(format!("no answer within {} s", PATIENCE.as_secs()))),
            Ok(Ok(text)) => Ok(text),
            Ok(Err(kube::Error::Api(status))) => Err(refused(status.message.clone())),
            Ok(Err(error)) => Err(refused(chain(&error))),
        }
    }

    /// Sends a request, and hands back also what the API server warns of.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub async fn said(&self, request: axum::http::Request<Vec<u8>>) -> Result<Said, ClusterError> {
        let unreachable = |reason: String| ClusterError::Unreachable { host: self.host.clone(), reason };
        let exchange = async {
            let response = self.client.send(request.map(kube::client::Body::from)).await?;
            let accepted = response.status().is_success();
            let warnings = response.headers().get_all(axum::http::header::WARNING);
            let warnings =
                warnings.iter().map(|warning| String::from_utf8_lossy(warning.as_bytes()).into_owned()).collect();
            let body = response.into_body().collect_bytes().await?;
            let status: Option<kube::core::Status> = serde_json::from_slice(&body).ok().filter(|_| !accepted);
            Ok(Said { accepted, warnings, message: status.map(|status| status.message).unwrap_or_default() })
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Err(_) => Err(unreachable(format!("no answer within {} s", PATIENCE.as_secs()))),
            Ok(said) => said.map_err(|error: kube::Error| unreachable(chain(&error))),
        }
    }

    /// A request of ours, within a person's patience.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn wait<K: Resource<DynamicType = ()>, T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        let what = K::plural(&()).into_owned();
        let unreachable = |reason: String| ClusterError::Unreachable { host: self.host.clone(), reason };
        match tokio::time::timeout(PATIENCE, request).await {
            Err(_) => Err(unreachable(format!("no answer within {} s", PATIENCE.as_secs()))),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(ClusterError::NotInstalled { what }),
            Ok(Err(kube::Error::Api(status))) => Err(ClusterError::Refused { what, reason: status.message.clone() }),
            Ok(Err(error @ (kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::Auth(_)))) => {
                Err(unreachable(chain(&error)))
            }
            Ok(Err(error)) => Err(ClusterError::Refused { what, reason: chain(&error) }),
        }
    }
}

/// An error with its causes, each said once, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text.replace(['\n', '\r'], " ")
}
