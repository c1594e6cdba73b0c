//! Fresh reads of owners and of what they would make.
//!
//! Enters: a reference to an owner. Leaves: the owner as it is now, with its pods where it is a Job; and the ruling on a
//! Job's template. A kind that is not served or may not be read is unreadable, not an error: it is only reported on.

use std::collections::{BTreeMap, HashMap};
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
use crate::core::runtime::guard::any_pod_ran;
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

/// How many Jobs are remembered between the effects of one task. Beyond that they are read again.
const JOBS: usize = 4096;

/// A Job as it was at a resourceVersion. Whoever writes under that version and succeeds has proved that it still was so:
/// a kept read is as good as a fresh one, and where it is not, the write is refused.
#[derive(Clone, Debug)]
pub struct KeptJob {
    /// Without a look at its pods.
    pub sight: OwnerSight,
    pub resource_version: String,
    uid: String,
    selector: Option<Selector>,
}

impl KeptJob {
    fn of(job: &Job, owner: &OwnerRef) -> Self {
        let selector = job.spec.as_ref().and_then(|spec| spec.selector.clone());
        Self {
            sight: sight::job(job, owner, &[]),
            resource_version: job.metadata.resource_version.clone().unwrap_or_default(),
            uid: job.metadata.uid.clone().unwrap_or_default(),
            selector: selector.and_then(|selector| Selector::try_from(selector).ok()),
        }
    }
}

/// Reads owners of any kind, and remembers how kinds are served.
pub struct Owners {
    client: Client,
    kinds: Mutex<BTreeMap<(String, String), (ApiResource, bool)>>,
    jobs: Mutex<HashMap<String, KeptJob>>,
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owners").finish_non_exhaustive()
    }
}

impl Owners {
    pub fn new(client: Client) -> Self {
        Self { client, kinds: Mutex::default(), jobs: Mutex::default() }
    }

    /// An owner, and of a Job also whether its pods ran.
    pub async fn look_up(&self, namespace: &str, owner: &OwnerRef) -> Result<OwnerSight, CallError> {
        if !is_job(owner) {
            return self.read_other(namespace, owner).await;
        }
        let Some(job) = self.read_job(namespace, owner).await? else { return Ok(not_found(namespace, owner)) };
        let pods = self.pods_of(namespace, &job).await?;
        let OwnerSight::Found(mut facts) = job.sight else { return Ok(job.sight) };
        if let Some(job) = &mut facts.job {
            job.pod_ran = any_pod_ran(&pods);
        }
        Ok(OwnerSight::Found(facts))
    }

    /// A Job as it was when an effect last read or wrote it.
    pub fn kept_job(&self, owner: &OwnerRef) -> Option<KeptJob> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get(&owner.uid).cloned()
    }

    pub async fn read_job(&self, namespace: &str, owner: &OwnerRef) -> Result<Option<KeptJob>, CallError> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let job = call(api.get_opt(&owner.name)).await?;
        if job.is_none() {
            self.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&owner.uid);
        }
        Ok(job.map(|job| self.keep_job(&job, owner)))
    }

    /// Remembers what a read or a write has brought.
    pub fn keep_job(&self, job: &Job, owner: &OwnerRef) -> KeptJob {
        let kept = KeptJob::of(job, owner);
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.len() >= JOBS {
            jobs.clear();
        }
        // Of another Job with that name nothing is remembered: it is not the one that was asked for.
        if matches!(kept.sight, OwnerSight::Found(_)) {
            jobs.insert(owner.uid.clone(), kept.clone());
        } else {
            jobs.remove(&owner.uid);
        }
        kept
    }

    /// All pods that a Job controls, by its own selector (`manualSelector` may make it anything) and then by their owner.
    pub async fn pods_of(&self, namespace: &str, job: &KeptJob) -> Result<Vec<PodSight>, CallError> {
        let api: Api<WatchedPod> = Api::namespaced(self.client.clone(), namespace);
        let mut parameters = ListParams::default().limit(PAGE);
        if let Some(selector) = &job.selector {
            parameters = parameters.labels_from(selector);
        }
        let mut pods = Vec::new();
        loop {
            let page = call(api.list(&parameters)).await?;
            let ours = |pod: &PodSight| pod.facts.owner.as_ref().is_some_and(|owner| owner.uid == job.uid);
            pods.extend(page.items.into_iter().map(sight::pod).filter(ours));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(pods),
            }
        }
    }

    /// An owner of another kind.
    pub async fn read_other(&self, namespace: &str, owner: &OwnerRef) -> Result<OwnerSight, CallError> {
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
    let mut pod = Templated::parse(TemplateKind::Job, &json).ok()?.facts(namespace);
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
