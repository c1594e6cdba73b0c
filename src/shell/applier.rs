//! The one place that acts on tasks: an effect of a plan in, an outcome out.
//!
//! Enters: effects of a plan. Leaves: what was read on the way, and how it went. Each write carries the uid and the
//! resourceVersion of the read that was judged, so that what is changed is what was judged; each call has a time limit and
//! is tried once: the plan is made again with what is true by then, a blind retry is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::events::Events;
use super::metrics::{Metrics, effect_kind, outcome_kind};
use super::owners::{KeptJob, Owners, judge};
use super::world::World;
use crate::core::pod::OwnerRef;
use crate::core::reason::Reason;
use crate::core::refusal::Refusals;
use crate::core::runtime::effect::{
    ANNOTATIONS, Effect, FAILED_DEADLINE, Fence, Outcome, Planned, Record, STATE_LABEL,
};
use crate::core::runtime::guard::{
    Guard, job_may_be_unmarked, job_may_fail, owner_may_be_marked, pod_may_be_collected, pod_may_be_failed,
};
use crate::core::runtime::sight::{OwnerSight, TemplateVerdict};
use crate::core::runtime::task::is_job;
use crate::core::selector::Labels;
use crate::k8s::crd::PullFailure;
use crate::k8s::watched::WatchedPod;
use crate::k8s::{record, sight};

/// No answer by then is no answer: what became of it shows at the next read.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How an effect went, with what was read on the way.
#[derive(Debug)]
pub struct Applied {
    pub planned: Planned,
    pub read: Option<Read>,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub enum Read {
    Owner(OwnerSight),
    Verdict(TemplateVerdict),
}

/// Applies effects; shared by all that are under way.
pub struct Applier<R> {
    client: Client,
    world: Arc<World<R>>,
    events: Events,
    metrics: Arc<Metrics>,
    owners: Owners,
}

impl<R> std::fmt::Debug for Applier<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applier").finish_non_exhaustive()
    }
}

impl<R: Refusals + Default> Applier<R> {
    /// `client` must not retry by itself.
    pub fn new(client: Client, world: Arc<World<R>>, events: Events, metrics: Arc<Metrics>) -> Self {
        Self { owners: Owners::new(client.clone()), client, world, events, metrics }
    }

    pub async fn apply(&self, planned: Planned) -> Applied {
        let start = Instant::now();
        let (read, outcome) = match self.carry_out(&planned.effect).await {
            Ok((read, outcome)) => (read, outcome),
            Err(error) => (None, outcome_of(&error)),
        };
        self.metrics.applied(&planned.effect, &outcome, start.elapsed());
        log(&planned, &outcome);
        Applied { planned, read, outcome }
    }

    async fn carry_out(&self, effect: &Effect) -> Result<(Option<Read>, Outcome), CallError> {
        let outcome = match effect {
            Effect::LookUpOwner { namespace, owner } => {
                let sight = self.owners.look_up(namespace, owner).await?;
                return Ok((Some(Read::Owner(sight)), DONE));
            }
            Effect::JudgeTemplate { namespace, job } => {
                let found = call(self.jobs(namespace).get_opt(&job.name)).await?;
                let verdict = judge(&self.world, namespace, job, found.as_ref(), self.world.now());
                return Ok((Some(Read::Verdict(verdict)), DONE));
            }
            Effect::WriteRecord { fence, record } => self.write_record(fence.as_ref(), record).await?,
            Effect::RemoveRecord { namespace, name, fence } => {
                let api: Api<PullFailure> = Api::namespaced(self.client.clone(), namespace);
                call(api.delete(name, &preconditions(fence))).await?;
                DONE
            }
            Effect::MarkOwner { namespace, owner, labels, annotations } if is_job(owner) => {
                self.on_job(namespace, owner, JobAct::Mark { labels, annotations }).await?
            }
            Effect::MarkOwner { namespace, owner, labels, annotations } => {
                self.mark(namespace, owner, labels, annotations).await?
            }
            Effect::UnmarkJob { namespace, job } => self.on_job(namespace, job, JobAct::Unmark).await?,
            Effect::FailJob { namespace, job, reason, message, stuck, image } => {
                self.on_job(namespace, job, JobAct::Fail { reason: *reason, message, stuck, image }).await?
            }
            Effect::FailPod { namespace, name, fence, image, labels, annotations } => {
                self.fail_pod(namespace, (name, image), fence, labels, annotations).await?
            }
            Effect::DeletePod { namespace, name, fence, image } => {
                self.delete_pod(namespace, (name, image), fence).await?
            }
            Effect::EmitEvent(draft) => {
                if self.events.tell(draft.clone().into()) {
                    DONE
                } else {
                    Outcome::Failed("the queue of Events is full".to_owned())
                }
            }
        };
        Ok((None, outcome))
    }

    fn jobs(&self, namespace: &str) -> Api<Job> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn pods(&self, namespace: &str) -> Api<WatchedPod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The whole record in one write.
    async fn write_record(&self, fence: Option<&Fence>, content: &Record) -> Result<Outcome, CallError> {
        let api: Api<PullFailure> = Api::namespaced(self.client.clone(), &content.namespace);
        let object = record::object(content, fence);
        let parameters = PostParams::default();
        let written = match fence {
            None => call(api.create(&parameters, &object)).await?,
            Some(_) => call(api.replace(&content.name, &parameters, &object)).await?,
        };
        let metadata = written.metadata;
        let fence = metadata.uid.zip(metadata.resource_version);
        Ok(Outcome::Done { fence: fence.map(|(uid, resource_version)| Fence { uid, resource_version }) })
    }

    /// The mark of an owner that is no Job.
    async fn mark(
        &self,
        namespace: &str,
        owner: &OwnerRef,
        labels: &Labels,
        annotations: &Labels,
    ) -> Result<Outcome, CallError> {
        let sight = self.owners.read_other(namespace, owner).await?;
        if let Err(guard) = owner_may_be_marked(&sight) {
            return Ok(refused(guard));
        }
        let OwnerSight::Found(facts) = sight else { return Ok(Outcome::Gone) };
        let fence = Fence { uid: owner.uid.clone(), resource_version: facts.resource_version };
        let patch = Patch::Merge(marks(&fence, labels, annotations));
        match self.owners.api(namespace, owner).await? {
            Some(api) => call(api.patch(&owner.name, &PatchParams::default(), &patch)).await.map(|_| DONE),
            None => Ok(Outcome::Refused(Guard::Unreadable)),
        }
    }

    /// Acts on a Job as it was last read, and where that is not what it is any more, on a fresh read. The second is what
    /// counts: nothing is refused because of an old read.
    async fn on_job(&self, namespace: &str, owner: &OwnerRef, act: JobAct<'_>) -> Result<Outcome, CallError> {
        if let Some(job) = self.owners.kept_job(owner) {
            match self.act_on_job(namespace, owner, act, job).await {
                Ok(outcome @ Outcome::Done { .. }) => return Ok(outcome),
                Err(error) if outcome_of(&error) != Outcome::Conflict => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        match self.owners.read_job(namespace, owner).await? {
            Some(job) => self.act_on_job(namespace, owner, act, job).await,
            None => Ok(Outcome::Gone),
        }
    }

    async fn act_on_job(
        &self,
        namespace: &str,
        owner: &OwnerRef,
        act: JobAct<'_>,
        job: KeptJob,
    ) -> Result<Outcome, CallError> {
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let fence = Fence { uid: owner.uid.clone(), resource_version: job.resource_version.clone() };
        let parameters = PatchParams::default();
        let job = match act {
            JobAct::Mark { labels, annotations } => {
                if let Err(guard) = owner_may_be_marked(&job.sight) {
                    return Ok(refused(guard));
                }
                let patch = Patch::Merge(marks(&fence, labels, annotations));
                call(jobs.patch(&owner.name, &parameters, &patch)).await?
            }
            JobAct::Unmark => {
                if let Err(guard) = job_may_be_unmarked(&job.sight) {
                    return Ok(refused(guard));
                }
                call(jobs.patch(&owner.name, &parameters, &Patch::Merge(no_marks(&fence)))).await?
            }
            JobAct::Fail { reason, message, stuck, image } => {
                // Always afresh: nothing in the Job's version tells whether one of them has started.
                let pods = self.owners.pods_of(namespace, &job).await?;
                if let Err(guard) = job_may_fail(&job.sight, &pods, stuck, image) {
                    return Ok(refused(guard));
                }
                // Conditions are merged by type; a JSON merge would replace the list.
                let patch = Patch::Strategic(failure_target(&fence, reason, message, self.world.now()));
                call(jobs.patch_status(&owner.name, &parameters, &patch)).await?
            }
        };
        self.owners.keep_job(&job, owner);
        Ok(DONE)
    }

    /// The kubelet fails a pod in place that is past its deadline.
    async fn fail_pod(
        &self,
        namespace: &str,
        (name, image): (&str, &str),
        fence: &Fence,
        labels: &Labels,
        annotations: &Labels,
    ) -> Result<Outcome, CallError> {
        let pods = self.pods(namespace);
        let Some(pod) = call(pods.get_opt(name)).await?.map(sight::pod) else { return Ok(Outcome::Gone) };
        if pod.uid != fence.uid {
            return Ok(Outcome::Gone);
        }
        if let Err(guard) = pod_may_be_failed(&pod, image) {
            return Ok(refused(guard));
        }
        let mut patch = marks(&Fence { uid: pod.uid, resource_version: pod.resource_version }, labels, annotations);
        // It can only be lowered.
        if pod.active_deadline.is_none_or(|deadline| deadline > FAILED_DEADLINE)
            && let Some(object) = patch.as_object_mut()
        {
            object.insert("spec".to_owned(), json!({ "activeDeadlineSeconds": FAILED_DEADLINE }));
        }
        call(pods.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await?;
        Ok(DONE)
    }

    /// Gracefully, and never by eviction: that would look like a disruption, which Jobs forgive for ever.
    async fn delete_pod(
        &self,
        namespace: &str,
        (name, image): (&str, &str),
        fence: &Fence,
    ) -> Result<Outcome, CallError> {
        let pods = self.pods(namespace);
        let Some(pod) = call(pods.get_opt(name)).await?.map(sight::pod) else { return Ok(Outcome::Gone) };
        if pod.uid != fence.uid {
            return Ok(Outcome::Gone);
        }
        if let Err(guard) = pod_may_be_collected(&pod, image) {
            return Ok(refused(guard));
        }
        let fence = Fence { uid: pod.uid, resource_version: pod.resource_version };
        call(pods.delete(name, &preconditions(&fence))).await?;
        Ok(DONE)
    }
}

/// What is done to a Job.
#[derive(Clone, Copy)]
enum JobAct<'a> {
    Mark { labels: &'a Labels, annotations: &'a Labels },
    Unmark,
    Fail { reason: Reason, message: &'a str, stuck: &'a [String], image: &'a str },
}

fn failure_target(fence: &Fence, reason: Reason, message: &str, now: Timestamp) -> Value {
    let now = Time(now);
    json!({
        "metadata": { "uid": fence.uid, "resourceVersion": fence.resource_version },
        "status": { "conditions": [{
            "type": "FailureTarget",
            "status": "True",
            "reason": reason.as_str(),
            "message": message,
            "lastProbeTime": now,
            "lastTransitionTime": now,
        }] },
    })
}

const DONE: Outcome = Outcome::Done { fence: None };

/// What is gone is gone, whoever found it out.
const fn refused(guard: Guard) -> Outcome {
    match guard {
        Guard::Gone => Outcome::Gone,
        guard => Outcome::Refused(guard),
    }
}

fn preconditions(fence: &Fence) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(fence.uid.clone()),
            resource_version: Some(fence.resource_version.clone()),
        }),
        ..DeleteParams::default()
    }
}

fn marks(fence: &Fence, labels: &Labels, annotations: &Labels) -> Value {
    json!({ "metadata": {
        "uid": fence.uid,
        "resourceVersion": fence.resource_version,
        "labels": labels,
        "annotations": annotations,
    } })
}

/// In a merge patch null takes away.
fn no_marks(fence: &Fence) -> Value {
    let annotations: BTreeMap<&str, Option<&str>> = ANNOTATIONS.into_iter().map(|key| (key, None)).collect();
    json!({ "metadata": {
        "uid": fence.uid,
        "resourceVersion": fence.resource_version,
        "labels": { STATE_LABEL: null },
        "annotations": annotations,
    } })
}

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the API server did not answer within {} s", TIMEOUT.as_secs())]
    Late,
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

/// One call, once, within its time.
pub(super) async fn call<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CallError::Late),
    }
}

fn outcome_of(error: &CallError) -> Outcome {
    let CallError::Kube(kube::Error::Api(status)) = error else { return Outcome::Failed(error.to_string()) };
    match status.code {
        404 => Outcome::Gone,
        409 => Outcome::Conflict,
        // Another object has the name: a uid cannot be patched.
        422 if status.message.contains("metadata.uid") => Outcome::Gone,
        403 => Outcome::Failed(format!(
            "not permitted: {}; for the kinds of a policy's taskKinds install a ClusterRole with the label \
             rbac.pullguard.dev/aggregate-to-task-kinds (manifests/overlays/task-kinds has examples)",
            status.message
        )),
        _ => Outcome::Failed(status.message.clone()),
    }
}

/// A constant message, the facts as fields.
fn log(planned: &Planned, outcome: &Outcome) {
    let effect = effect_kind(&planned.effect);
    let (ns, name) = object_of(&planned.effect);
    let id = &planned.id;
    match outcome {
        Outcome::Failed(why) => tracing::warn!(%id, effect, ns, name, outcome = "Failed", why, "effect"),
        Outcome::Refused(guard) => {
            tracing::info!(%id, effect, ns, name, outcome = "Refused", guard = guard.as_str(), "effect");
        }
        Outcome::Done { .. } if !planned.effect.is_write() => {
            tracing::debug!(%id, effect, ns, name, outcome = "Done", "effect");
        }
        Outcome::Done { .. } | Outcome::Gone | Outcome::Conflict => {
            tracing::info!(%id, effect, ns, name, outcome = outcome_kind(outcome), "effect");
        }
    }
}

fn object_of(effect: &Effect) -> (&str, &str) {
    match effect {
        Effect::LookUpOwner { namespace, owner } | Effect::MarkOwner { namespace, owner, .. } => {
            (namespace, &owner.name)
        }
        Effect::JudgeTemplate { namespace, job }
        | Effect::UnmarkJob { namespace, job }
        | Effect::FailJob { namespace, job, .. } => (namespace, &job.name),
        Effect::WriteRecord { record, .. } => (&record.namespace, &record.name),
        Effect::RemoveRecord { namespace, name, .. }
        | Effect::FailPod { namespace, name, .. }
        | Effect::DeletePod { namespace, name, .. } => (namespace, name),
        Effect::EmitEvent(draft) => (&draft.namespace, &draft.regarding.name),
    }
}
