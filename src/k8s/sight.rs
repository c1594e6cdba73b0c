//! What the runtime half sees: pods, Events and owners, as small values.
//!
//! Enters: API objects, from a watch or a fresh read. Leaves: the sights of `core::runtime::sight`. Nothing is judged here,
//! and what cannot be read is said to be unknown, never to be fine.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::ResourceExt;
use kube::core::DynamicObject;

use jiff::Timestamp;

use super::watched::{ContainerStatus, State, WatchedPod};
use crate::core::pod::{ContainerKind, OwnerRef};
use crate::core::runtime::effect::{STATE_LABEL, STATE_PERMANENTLY_FAILED};
use crate::core::runtime::guard::any_pod_ran;
use crate::core::runtime::sight::{
    ContainerSight, ContainerState, DenialSight, EventSight, EverStarted, JobFacts, OwnerFacts, OwnerSight, Phase,
    PodSight,
};

/// The waiting reason of a kubelet that may not pull and does not have the image.
pub const NEVER_PULL_REASON: &str = "ErrImageNeverPull";

const JOB_CONTROLLER: &str = "kubernetes.io/job-controller";

pub fn pod(pod: WatchedPod) -> PodSight {
    let WatchedPod { metadata, object, active_deadline, status } = pod;
    let mirror = object.metadata.is_mirror();
    let facts = object.facts(metadata.namespace.as_deref().unwrap_or_default());
    let statuses = [
        (&status.init_container_statuses, ContainerKind::Init),
        (&status.container_statuses, ContainerKind::Main),
        (&status.ephemeral_container_statuses, ContainerKind::Ephemeral),
    ];
    let mut containers: Vec<ContainerSight> = Vec::with_capacity(facts.containers.len());
    for (list, kind) in statuses {
        containers.extend(list.iter().map(|status| container(status, kind)));
    }
    for spec in facts.containers.iter().filter(|spec| spec.kind != ContainerKind::ImageVolume) {
        match containers.iter_mut().find(|seen| seen.name == spec.name) {
            // A sidecar is told from other init containers by its spec alone.
            Some(seen) => seen.kind = spec.kind,
            None => containers.push(ContainerSight {
                name: spec.name.clone(),
                kind: spec.kind,
                state: ContainerState::Unreported,
                ever_started: EverStarted::No,
                last_started: None,
            }),
        }
    }
    PodSight {
        node: facts.placement.node_name.clone(),
        facts,
        uid: metadata.uid.unwrap_or_default(),
        resource_version: metadata.resource_version.unwrap_or_default(),
        created: metadata.creation_timestamp.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        phase: match status.phase.as_str() {
            // A pod that no kubelet has reported on yet.
            "Pending" | "" => Phase::Pending,
            "Running" => Phase::Running,
            "Succeeded" => Phase::Succeeded,
            "Failed" => Phase::Failed,
            _ => Phase::Unknown,
        },
        deleting: metadata.deletion_timestamp.is_some(),
        mirror,
        disrupted: status.conditions.iter().any(|is| is.kind == "DisruptionTarget" && is.status == "True"),
        active_deadline,
        containers,
    }
}

fn container(status: &ContainerStatus, kind: ContainerKind) -> ContainerSight {
    let state = match &status.state {
        State { running: Some(running), .. } => ContainerState::Running { since: time(&running.started_at) },
        State { terminated: Some(ended), .. } => ContainerState::Terminated {
            reason: ended.reason.clone(),
            exit_code: ended.exit_code,
            started: time(&ended.started_at),
            finished: time(&ended.finished_at),
        },
        State { waiting: Some(waiting), .. } => {
            ContainerState::Waiting { reason: waiting.reason.clone(), message: waiting.message.clone() }
        }
        State { .. } => ContainerState::Unreported,
    };
    let starts = [started(&status.state), started(&status.last_state)].into_iter().flatten();
    ContainerSight {
        name: status.name.clone(),
        kind,
        state,
        ever_started: ever_started(status),
        last_started: starts.max(),
    }
}

fn started(state: &State) -> Option<Timestamp> {
    let running = state.running.as_ref().and_then(|running| time(&running.started_at));
    running.or_else(|| state.terminated.as_ref().and_then(|ended| time(&ended.started_at)))
}

fn ever_started(status: &ContainerStatus) -> EverStarted {
    let states = [&status.state, &status.last_state];
    if status.restart_count > 0
        || status.started
        || states.iter().any(|state| state.running.is_some() || started(state).is_some())
    {
        EverStarted::Yes
    } else if states.iter().any(|state| state.terminated.is_some()) {
        EverStarted::Unknowable
    } else {
        EverStarted::No
    }
}

/// The zero time of Go, which some runtimes report as the epoch, is no time.
fn time(time: &Option<Time>) -> Option<Timestamp> {
    time.as_ref().map(|time| time.0).filter(|at| at.as_second() > 0)
}

/// Whether a sight is of a pod in trouble: whether somebody may have to be told that it vanished.
pub fn is_troubled(pod: &PodSight) -> bool {
    pod.phase == Phase::Failed
        || pod.containers.iter().any(|container| match &container.state {
            ContainerState::Waiting { reason, .. } => {
                !matches!(reason.as_str(), "" | "ContainerCreating" | "PodInitializing")
            }
            ContainerState::Unreported | ContainerState::Running { .. } | ContainerState::Terminated { .. } => false,
        })
}

/// What an Event is evidence of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    Pull(EventSight),
    Denial(DenialSight),
}

/// How the API server says that a webhook denied: `admission webhook "NAME" denied the request: ...`.
const OUR_WEBHOOK: &str = ".pullguard.dev\" denied the request";

/// `None`: the Event is about nothing that concerns us.
pub fn event(event: Event) -> Option<Evidence> {
    let at = observed(&event)?;
    let object = event.involved_object;
    let namespace = object.namespace.or(event.metadata.namespace).unwrap_or_default();
    let message = event.message.unwrap_or_default();
    let reason = event.reason.unwrap_or_default();
    let (name, uid) = (object.name.unwrap_or_default(), object.uid.unwrap_or_default());
    match object.kind.as_deref() {
        Some("Pod") => {
            let container = object.field_path.as_deref().and_then(container_of).map(str::to_owned);
            let message = match (message.split_once(": "), &object.field_path) {
                (Some((prefix, rest)), _) if container_of(prefix).is_some() => rest.to_owned(),
                _ => message,
            };
            Some(Evidence::Pull(EventSight { namespace, pod: name, pod_uid: uid, reason, message, container, at }))
        }
        Some("Job") if reason == "FailedCreate" && message.contains(OUR_WEBHOOK) => {
            let api_version = object.api_version.unwrap_or_default();
            let job = OwnerRef { api_version, kind: "Job".to_owned(), name, uid };
            Some(Evidence::Denial(DenialSight { namespace, job, at }))
        }
        Some(_) | None => None,
    }
}

fn observed(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    series
        .or_else(|| time(&event.last_timestamp))
        .or_else(|| event.event_time.as_ref().map(|time| time.0))
        .or_else(|| time(&event.first_timestamp))
        .or_else(|| time(&event.metadata.creation_timestamp))
}

/// The name in `spec.containers{name}`, or in its siblings.
fn container_of(path: &str) -> Option<&str> {
    let (list, name) = path.strip_suffix('}')?.split_once('{')?;
    matches!(list, "spec.containers" | "spec.initContainers" | "spec.ephemeralContainers").then_some(name)
}

fn controller(owners: &[OwnerReference]) -> Option<OwnerRef> {
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| OwnerRef {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    })
}

fn owner_facts(object: &impl ResourceExt, asked: &OwnerRef, job: Option<JobFacts>) -> OwnerSight {
    let namespace = object.namespace().unwrap_or_default();
    if object.uid().as_deref() != Some(asked.uid.as_str()) {
        return OwnerSight::NotFound { namespace, owner: asked.clone() };
    }
    OwnerSight::Found(OwnerFacts {
        namespace,
        owner: asked.clone(),
        resource_version: object.resource_version().unwrap_or_default(),
        deleting: object.meta().deletion_timestamp.is_some(),
        controller: controller(object.owner_references()),
        marked: object.labels().get(STATE_LABEL).is_some_and(|state| state == STATE_PERMANENTLY_FAILED),
        job,
    })
}

/// An owner of any kind but Job.
pub fn owner(object: &DynamicObject, asked: &OwnerRef) -> OwnerSight {
    owner_facts(object, asked, None)
}

/// A Job with the pods that it controls, both read just now.
pub fn job(job: &Job, asked: &OwnerRef, pods: &[PodSight]) -> OwnerSight {
    let spec = job.spec.as_ref();
    let status = job.status.as_ref();
    let is = |kind: &str| {
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let managed_by = spec.and_then(|spec| spec.managed_by.clone());
    let facts = JobFacts {
        suspended: spec.and_then(|spec| spec.suspend).unwrap_or(false),
        started: status.is_some_and(|status| status.start_time.is_some()),
        managed_by: managed_by.filter(|manager| manager != JOB_CONTROLLER),
        finished: is("Complete") || is("Failed"),
        failure_target: is("FailureTarget"),
        success_criteria_met: is("SuccessCriteriaMet"),
        succeeded: status.and_then(|status| status.succeeded).and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        pod_ran: any_pod_ran(pods),
    };
    owner_facts(job, asked, Some(facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(value: serde_json::Value) -> PodSight {
        pod(serde_json::from_value(value).expect("a pod"))
    }

    fn stuck() -> serde_json::Value {
        serde_json::json!({
            "metadata": {
                "name": "p", "namespace": "default", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-11-24T00:00:00Z", "managedFields": [{"fieldsV1": {"f:x": {}}}],
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "ju", "controller": true}],
            },
            "spec": {
                "activeDeadlineSeconds": 600, "nodeName": "a", "restartPolicy": "Never",
                "initContainers": [
                    {"name": "i", "image": "i:1"}, {"name": "s", "image": "s:1", "restartPolicy": "Always"}],
                "containers": [{"name": "m", "image": "m:1", "imagePullPolicy": "Never", "env": [{"name": "A"}]}],
            },
            "status": {
                "phase": "Pending",
                "conditions": [{"type": "DisruptionTarget", "status": "True"}],
                "initContainerStatuses": [
                    {"name": "i", "state": {"terminated": {"exitCode": 0, "reason": "Completed",
                        "startedAt": "2026-11-24T00:00:01Z", "finishedAt": "2026-11-24T00:00:02Z"}}},
                    {"name": "s", "started": true, "state": {"running": {"startedAt": "2026-11-24T00:00:03Z"}}}],
                "containerStatuses": [{"name": "m", "started": false, "restartCount": 0, "lastState": {},
                    "state": {"waiting": {"reason": "ErrImageNeverPull", "message": "no"}}}],
            },
        })
    }

    #[test]
    fn a_stuck_pod_is_seen_whole() {
        let pod = seen(stuck());
        assert_eq!((pod.uid.as_str(), pod.resource_version.as_str(), pod.node.as_deref()), ("u", "7", Some("a")));
        assert_eq!(
            (pod.phase, pod.active_deadline, pod.disrupted, pod.deleting),
            (Phase::Pending, Some(600), true, false)
        );
        assert_eq!(pod.facts.owner.as_ref().map(|owner| owner.uid.as_str()), Some("ju"));
        let containers: Vec<_> = pod.containers.iter().map(|is| (is.name.as_str(), is.kind, is.ever_started)).collect();
        assert_eq!(
            containers,
            [
                ("i", ContainerKind::Init, EverStarted::Yes),
                ("s", ContainerKind::Sidecar, EverStarted::Yes),
                ("m", ContainerKind::Main, EverStarted::No),
            ]
        );
        assert!(is_troubled(&pod));
    }

    #[test]
    fn a_watch_event_whose_type_comes_last_is_read_too() {
        let event = serde_json::json!({"object": stuck(), "type": "MODIFIED"}).to_string();
        let event: kube::core::WatchEvent<WatchedPod> = serde_json::from_str(&event).expect("an event");
        let kube::core::WatchEvent::Modified(object) = event else { panic!("{event:?}") };
        assert_eq!(pod(object), seen(stuck()));
    }

    #[test]
    fn a_lost_container_may_have_run_and_an_empty_pod_is_read() {
        let lost = serde_json::json!({"metadata": {"uid": "u"}, "spec": null, "status": {
            "phase": "Failed",
            "containerStatuses": [{"name": "m", "state": {"terminated": {
                "exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": null, "finishedAt": null}}}]}});
        let ever = seen(lost).containers.first().map(|container| container.ever_started);
        assert_eq!(ever, Some(EverStarted::Unknowable));
        assert_eq!(seen(serde_json::json!({"metadata": {}})).phase, Phase::Pending);
    }

    #[test]
    fn a_container_that_ran_before_and_lost_its_image_has_started() {
        let back = serde_json::json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "m", "image": "m:1"}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "m", "restartCount": 1,
                "state": {"waiting": {"reason": "ImagePullBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "startedAt": "2026-11-24T00:00:03Z"}}}]}});
        let pod = seen(back);
        let container = pod.containers.first().expect("a container");
        assert_eq!((container.ever_started, container.last_started.is_some()), (EverStarted::Yes, true));
    }

    #[test]
    fn an_event_of_a_new_kubelet_says_the_same_as_one_of_an_old() {
        let of = |message: &str| {
            let event = serde_json::json!({
                "metadata": {"namespace": "default"}, "reason": "Failed", "message": message,
                "lastTimestamp": "2026-11-24T00:00:00Z",
                "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p", "uid": "u",
                    "fieldPath": "spec.containers{m}"}});
            match event_of(event) {
                Some(Evidence::Pull(event)) => event,
                other => panic!("{other:?}"),
            }
        };
        let old = of("Failed to pull image \"m:1\": not found");
        assert_eq!(of("spec.containers{m}: Failed to pull image \"m:1\": not found"), old);
        assert_eq!(old.container.as_deref(), Some("m"));
    }

    fn event_of(value: serde_json::Value) -> Option<Evidence> {
        event(serde_json::from_value(value).expect("an event"))
    }

    #[test]
    fn only_our_own_denial_of_a_job_is_one() {
        let of = |message: &str| {
            event_of(serde_json::json!({
                "metadata": {}, "reason": "FailedCreate", "message": message, "eventTime": "2026-11-24T00:00:00.000000Z",
                "involvedObject": {"apiVersion": "batch/v1", "kind": "Job", "namespace": "default", "name": "j", "uid": "u"}}))
        };
        let denied = "Error creating: admission webhook \"pods.pullguard.dev\" denied the request: no";
        assert!(matches!(of(denied), Some(Evidence::Denial(_))));
        assert_eq!(of("Error creating: admission webhook \"other.dev\" denied the request: no"), None);
        assert_eq!(of("Error creating: ValidatingAdmissionPolicy 'x' denied request: pods.pullguard.dev"), None);
    }
}
