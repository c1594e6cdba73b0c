//! Fresh reads of owners and of what they would make.
//!
//! Enters: a reference to an owner. Leaves: the owner as it is now, with its pods where it is a Job; and the ruling on a
//! Job's template. A kind that is not served or may not be read is unreadable, not an error: it is only reported on.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{ApiResource, ListParams};
use kube::core::{DynamicObject, GroupVersionKind, Selector};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};

use super::applier::{CallError, call};
use super::world::World;
use crate::core::pod::OwnerRef;
use crate::core::policy::Action;
use crate::core::refusal::Refusals;
use crate::core::runtime::sight::{OwnerSight, PodSight, PolicyMark, TemplateRuling, TemplateVerdict};
use crate::core::runtime::task::is_job;
use crate::core::verdict::{Finding, Judged, Question, Subject};
use crate::k8s::sight;
use crate::k8s::template::{TemplateKind, Templated};
use crate::k8s::watched::WatchedPod;

/// How many pods are listed at once.
const PAGE: u32 = 500;
/// How many kinds are remembered: those of `taskKinds` and of odd owners. Then all are asked for anew.
const KINDS: usize = 256;

/// Reads owners of any kind, and remembers how kinds are served.
pub struct Owners {
    client: Client,
    kinds: Mutex<BTreeMap<(String, String), (ApiResource, bool)>>,
}

impl Owners {
    pub fn new(client: Client) -> Self {
        Self { client, kinds: Mutex::default() }
    }

    /// An owner, and of a Job also whether its pods ran.
    pub async fn look_up(&self, namespace: &str, owner: &OwnerRef) -> Result<OwnerSight, CallError> {
        if !is_job(owner) {
            return self.read_other(namespace, owner).await;
        }
        let Some(job) = self.job(namespace, owner).await? else { return Ok(not_found(namespace, owner)) };
        let pods = pods_of(&self.client, namespace, &job).await?;
        Ok(sight::job(&job, owner, &pods))
    }

    /// An owner without a look at its pods.
    pub async fn read_alone(&self, namespace: &str, owner: &OwnerRef) -> Result<OwnerSight, CallError> {
        if !is_job(owner) {
            return self.read_other(namespace, owner).await;
        }
        let job = self.job(namespace, owner).await?;
        Ok(job.map_or_else(|| not_found(namespace, owner), |job| sight::job(&job, owner, &[])))
    }

    async fn job(&self, namespace: &str, owner: &OwnerRef) -> Result<Option<Job>, CallError> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        call(api.get_opt(&owner.name)).await
    }

    async fn read_other(&self, namespace: &str, owner: &OwnerRef) -> Result<OwnerSight, CallError> {
        let unreadable = || OwnerSight::Unreadable { namespace: namespace.to_owned(), owner: owner.clone() };
        let Some(api) = self.api(namespace, owner).await? else { return Ok(unreadable()) };
        match call(api.get_opt(&owner.name)).await {
            Ok(Some(object)) => Ok(sight::owner(&object, owner)),
            Ok(None) => Ok(not_found(namespace, owner)),
            Err(CallError::Kube(kube::Error::Api(status))) if status.code == 403 => Ok(unreadable()),
            Err(error) => Err(error),
        }
    }

    /// How a kind is served; `None`: it is not.
    pub async fn api(&self, namespace: &str, owner: &OwnerRef) -> Result<Option<Api<DynamicObject>>, CallError> {
        let key = (owner.api_version.clone(), owner.kind.clone());
        let known = self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let (resource, namespaced) = match known {
            Some(known) => known,
            None => {
                let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
                let kind = GroupVersionKind::gvk(group, version, &owner.kind);
                let found = match call(pinned_kind(&self.client, &kind)).await {
                    Ok((resource, capabilities)) => (resource, capabilities.scope == Scope::Namespaced),
                    Err(CallError::Kube(kube::Error::Discovery(_))) => return Ok(None),
                    Err(CallError::Kube(kube::Error::Api(status))) if matches!(status.code, 403 | 404) => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                };
                let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
                if kinds.len() >= KINDS {
                    kinds.clear();
                }
                kinds.insert(key, found.clone());
                found
            }
        };
        let client = self.client.clone();
        Ok(Some(if namespaced {
            Api::namespaced_with(client, namespace, &resource)
        } else {
            Api::all_with(client, &resource)
        }))
    }
}

fn not_found(namespace: &str, owner: &OwnerRef) -> OwnerSight {
    OwnerSight::NotFound { namespace: namespace.to_owned(), owner: owner.clone() }
}

/// All pods that a Job controls, by its own selector (`manualSelector` may make it anything) and then by their owner.
pub(super) async fn pods_of(client: &Client, namespace: &str, job: &Job) -> Result<Vec<PodSight>, CallError> {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.clone());
    let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    let api: Api<WatchedPod> = Api::namespaced(client.clone(), namespace);
    let mut parameters = ListParams::default().limit(PAGE);
    if let Some(selector) = &selector {
        parameters = parameters.labels_from(selector);
    }
    let mut pods = Vec::new();
    loop {
        let page = call(api.list(&parameters)).await?;
        let ours = |pod: &PodSight| pod.facts.owner.as_ref().is_some_and(|owner| owner.uid == uid);
        pods.extend(page.items.into_iter().map(sight::pod).filter(ours));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(pods),
        }
    }
}

/// Judges a Job's template as if its pod were created now.
pub(super) fn judge<R: Refusals + Default>(
    world: &World<R>,
    namespace: &str,
    asked: &OwnerRef,
    job: Option<&Job>,
    now: Timestamp,
) -> TemplateVerdict {
    let ruling = job
        .filter(|job| job.metadata.uid.as_deref() == Some(asked.uid.as_str()) && world.is_synced())
        .and_then(|job| rule(world, namespace, asked, job, now))
        .unwrap_or(TemplateRuling::Unknown);
    TemplateVerdict { namespace: namespace.to_owned(), job: asked.clone(), ruling }
}

fn rule<R: Refusals + Default>(
    world: &World<R>,
    namespace: &str,
    asked: &OwnerRef,
    job: &Job,
    now: Timestamp,
) -> Option<TemplateRuling> {
    let json = serde_json::to_string(job).ok()?;
    let mut pod = Templated::parse(TemplateKind::Job, &json).ok()?.template.facts(namespace);
    pod.owner = Some(asked.clone());
    let namespace = world.namespace(namespace);
    let question = Question { subject: Subject::Pod, pod: &pod, namespace: &namespace, judged: &Judged::Every };
    let verdict = world.decide(&question, now);
    match verdict.action() {
        Action::Allow | Action::Warn => Some(TemplateRuling::Allowed),
        Action::Deny => {
            let denials: Vec<&Finding> = verdict.with_action(Action::Deny).collect();
            let first = *denials.first()?;
            let policies = world.policies();
            let mark = |name: &str| {
                let policy = policies.get(name)?;
                Some(PolicyMark { name: policy.name.clone(), uid: policy.uid.clone(), generation: policy.generation })
            };
            let mut marks: Vec<PolicyMark> = denials.iter().filter_map(|finding| mark(&finding.policy)).collect();
            marks.sort_unstable();
            marks.dedup();
            Some(TemplateRuling::Denied {
                reason: first.reason,
                detail: first.detail,
                image: first.image.to_string(),
                message: first.explanation.to_string(),
                remedy: first.remedy.as_deref().unwrap_or_default().to_owned(),
                policies: marks,
                pod: Box::new(pod),
            })
        }
    }
}
