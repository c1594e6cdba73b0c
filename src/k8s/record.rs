//! A `PullFailure`, both ways.
//!
//! Enters: a record of the ledger, or the custom resource. Leaves: the other of the two. What a person has written into a
//! record by hand and we cannot read is no record; what we write always has the standard conditions, for `kubectl wait`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};

use super::crd::failure::{
    FailureState as State, ImageFailure, PullFailure, PullFailureSpec, PullFailureStatus, TaskRef,
};
use crate::core::cause::{FailureClass, Permanence};
use crate::core::pod::PullPolicy;
use crate::core::reason::Reason;
use crate::core::runtime::effect::{self, FailureState, Fence, Record, RecordedFailure};
use crate::core::runtime::sight::RecordSight;

/// The condition types: `kubectl wait --for=condition=PermanentlyFailed pf/NAME`.
pub const PERMANENTLY_FAILED: &str = "PermanentlyFailed";
pub const RESOLVED: &str = "Resolved";

/// The object to create (no fence), or to put in the place of the one that the fence names.
pub fn object(record: &Record, fence: Option<&Fence>) -> PullFailure {
    PullFailure {
        metadata: ObjectMeta {
            namespace: Some(record.namespace.clone()),
            name: Some(record.name.clone()),
            uid: fence.map(|fence| fence.uid.clone()),
            resource_version: fence.map(|fence| fence.resource_version.clone()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), "pullguard".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: PullFailureSpec { task: task(&record.task), maker: record.maker.clone() },
        status: Some(status(record)),
    }
}

fn task(task: &effect::TaskRef) -> TaskRef {
    TaskRef {
        api_version: task.api_version.clone(),
        kind: task.kind.clone(),
        name: task.name.clone(),
        uid: task.uid.clone(),
        label: task.label.clone(),
    }
}

fn status(record: &Record) -> PullFailureStatus {
    PullFailureStatus {
        state: match record.state {
            FailureState::Retrying => State::Retrying,
            FailureState::PermanentlyFailed => State::PermanentlyFailed,
            FailureState::Resolved => State::Resolved,
        },
        reason: record.reason.as_str().to_owned(),
        class: record.class.map(|class| class.as_str().to_owned()).unwrap_or_default(),
        image: record.image.clone(),
        message: record.message.clone(),
        remedy: record.remedy.clone(),
        policies: record.policies.clone(),
        first_seen: record.first_seen.map(Time),
        failed_at: record.failed_at.map(Time),
        expires_at: record.expires_at.map(Time),
        resolved_at: record.resolved_at.map(Time),
        attempts: record.attempts,
        counted_pods: record.counted_pods.clone(),
        pods_collected: record.pods_collected,
        failures: record.failures.iter().map(failure).collect(),
        conditions: conditions(record),
    }
}

fn failure(failure: &RecordedFailure) -> ImageFailure {
    ImageFailure {
        image: failure.image.clone(),
        class: failure.class.as_str().to_owned(),
        permanence: failure.permanence.as_str().to_owned(),
        message: failure.message.clone(),
        remedy: failure.remedy.clone(),
        container: failure.container.clone(),
        pod: failure.pod.clone(),
        node: failure.node.clone(),
        pull_policy: failure.pull_policy.map(|policy| policy.as_str().to_owned()).unwrap_or_default(),
        pull_secrets: failure.pull_secrets.clone(),
        first_seen: failure.first_seen.map(Time),
        last_seen: failure.last_seen.map(Time),
    }
}

/// Made of the record alone, so that the same record is the same object, whoever writes it and however often.
fn conditions(record: &Record) -> Vec<Condition> {
    let begun = record.first_seen.or(record.failed_at).unwrap_or(Timestamp::UNIX_EPOCH);
    let failed = record.failed_at.unwrap_or(begun);
    let resolved = record.resolved_at.unwrap_or(failed);
    let (has_failed, is_over, since_failed, since_over) = match record.state {
        FailureState::Retrying => ("False", "False", begun, begun),
        FailureState::PermanentlyFailed => ("True", "False", failed, begun),
        FailureState::Resolved => ("False", "True", resolved, resolved),
    };
    let condition = |kind: &str, status: &str, since: Timestamp| Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: record.reason.as_str().to_owned(),
        message: record.message.clone(),
        last_transition_time: Time(since),
        observed_generation: None,
    };
    vec![condition(PERMANENTLY_FAILED, has_failed, since_failed), condition(RESOLVED, is_over, since_over)]
}

/// `None`: it holds no state, so nobody of us has written it.
pub fn sight(failure: PullFailure) -> Option<RecordSight> {
    let PullFailure { metadata, spec, status } = failure;
    let status = status?;
    let state = match status.state {
        State::Retrying => FailureState::Retrying,
        State::PermanentlyFailed => FailureState::PermanentlyFailed,
        State::Resolved => FailureState::Resolved,
    };
    let time = |time: Option<Time>| time.map(|time| time.0);
    Some(RecordSight {
        uid: metadata.uid.unwrap_or_default(),
        resource_version: metadata.resource_version.unwrap_or_default(),
        deleting: metadata.deletion_timestamp.is_some(),
        record: Record {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            task: effect::TaskRef {
                api_version: spec.task.api_version,
                kind: spec.task.kind,
                name: spec.task.name,
                uid: spec.task.uid,
                label: spec.task.label,
            },
            maker: spec.maker,
            state,
            reason: reason(&status.reason, state),
            class: if status.class.is_empty() { None } else { Some(class(&status.class)) },
            image: status.image,
            message: status.message,
            remedy: status.remedy,
            policies: status.policies,
            first_seen: time(status.first_seen),
            failed_at: time(status.failed_at),
            expires_at: time(status.expires_at),
            resolved_at: time(status.resolved_at),
            attempts: status.attempts,
            counted_pods: status.counted_pods,
            pods_collected: status.pods_collected,
            failures: status.failures.into_iter().map(recorded).collect(),
        },
    })
}

fn recorded(failure: ImageFailure) -> RecordedFailure {
    RecordedFailure {
        class: class(&failure.class),
        permanence: match failure.permanence.as_str() {
            "Permanent" => Permanence::Permanent,
            "Transient" => Permanence::Transient,
            _ => Permanence::Unclear,
        },
        pull_policy: match failure.pull_policy.as_str() {
            "Always" => Some(PullPolicy::Always),
            "IfNotPresent" => Some(PullPolicy::IfNotPresent),
            "Never" => Some(PullPolicy::Never),
            _ => None,
        },
        image: failure.image,
        message: failure.message,
        remedy: failure.remedy,
        container: failure.container,
        pod: failure.pod,
        node: failure.node,
        pull_secrets: failure.pull_secrets,
        first_seen: failure.first_seen.map(|time| time.0),
        last_seen: failure.last_seen.map(|time| time.0),
    }
}

/// A class of a newer version is unknown to this one, and unknown is never permanent.
fn class(name: &str) -> FailureClass {
    name.parse().unwrap_or(FailureClass::Unknown)
}

fn reason(name: &str, state: FailureState) -> Reason {
    let known = [
        Reason::PullRetrying,
        Reason::PodFailed,
        Reason::PullPermanentlyFailed,
        Reason::PullRetriesExhausted,
        Reason::DeniedTooLong,
        Reason::PullResolved,
    ];
    known.into_iter().find(|reason| reason.as_str() == name).unwrap_or(match state {
        FailureState::Retrying => Reason::PullRetrying,
        FailureState::PermanentlyFailed => Reason::PullPermanentlyFailed,
        FailureState::Resolved => Reason::PullResolved,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(1_700_000_000 + second).ok()
    }

    fn record() -> Record {
        Record {
            namespace: "default".into(),
            name: "job-j-12345678".into(),
            task: effect::TaskRef {
                api_version: "batch/v1".into(),
                kind: "Job".into(),
                name: "j".into(),
                uid: "u".into(),
                label: None,
            },
            maker: Some("CronJob/c".into()),
            state: FailureState::PermanentlyFailed,
            reason: Reason::PullRetriesExhausted,
            class: Some(FailureClass::NotFound),
            image: "m:1".into(),
            message: "not found".into(),
            remedy: "push it".into(),
            policies: vec!["agents".into()],
            first_seen: at(0),
            failed_at: at(60),
            expires_at: at(3660),
            resolved_at: None,
            attempts: 2,
            counted_pods: vec!["a".into(), "b".into()],
            pods_collected: 1,
            failures: vec![RecordedFailure {
                image: "m:1".into(),
                class: FailureClass::NotFound,
                permanence: Permanence::Permanent,
                message: "not found".into(),
                remedy: "push it".into(),
                container: "m".into(),
                pod: "j-x".into(),
                node: "a".into(),
                pull_policy: Some(PullPolicy::Always),
                pull_secrets: vec!["s".into()],
                first_seen: at(0),
                last_seen: at(50),
            }],
        }
    }

    #[test]
    fn a_record_comes_back_from_the_cluster_as_it_was_written() {
        let fence = Fence { uid: "r".into(), resource_version: "9".into() };
        let json = serde_json::to_value(object(&record(), Some(&fence))).expect("json");
        let sight = sight(serde_json::from_value(json).expect("a PullFailure")).expect("a record");
        assert_eq!((sight.uid.as_str(), sight.resource_version.as_str()), ("r", "9"));
        assert_eq!(sight.record, record());
    }

    #[test]
    fn every_reason_comes_back_from_the_cluster_as_it_was_written() {
        use FailureState::{PermanentlyFailed, Resolved, Retrying};
        for (state, reason) in [
            (Retrying, Reason::PullRetrying),
            (Retrying, Reason::PodFailed),
            (PermanentlyFailed, Reason::PodFailed),
            (PermanentlyFailed, Reason::PullPermanentlyFailed),
            (PermanentlyFailed, Reason::PullRetriesExhausted),
            (PermanentlyFailed, Reason::DeniedTooLong),
            (Resolved, Reason::PullResolved),
        ] {
            let written = Record { state, reason, ..record() };
            let read = sight(object(&written, None)).expect("a record").record;
            assert_eq!((read.state, read.reason), (state, reason));
        }
    }

    #[test]
    fn each_state_has_one_condition_that_is_true_or_none() {
        let cases = [
            (FailureState::Retrying, None),
            (FailureState::PermanentlyFailed, Some(PERMANENTLY_FAILED)),
            (FailureState::Resolved, Some(RESOLVED)),
        ];
        for (state, expected) in cases {
            let conditions = conditions(&Record { state, ..record() });
            let true_ones: Vec<_> =
                conditions.iter().filter(|is| is.status == "True").map(|is| is.type_.as_str()).collect();
            assert_eq!(true_ones, Vec::from_iter(expected));
        }
    }

    #[test]
    fn words_of_a_newer_version_are_never_permanent() {
        let mut object = object(&record(), None);
        if let Some(failure) = object.status.as_mut().and_then(|status| status.failures.first_mut()) {
            failure.class = "Moonphase".into();
            failure.permanence = "Eternal".into();
        }
        let record = sight(object).expect("a record").record;
        let failure = record.failures.first().expect("a failure");
        assert_eq!((failure.class, failure.permanence), (FailureClass::Unknown, Permanence::Unclear));
    }
}
