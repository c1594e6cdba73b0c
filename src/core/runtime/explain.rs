//! Why a pod does not start, in the words of the runtime half.
//!
//! Enters: one pod, the policies that match it, its task's record if there is one. Leaves: class, permanence, evidence, and
//! what Pullguard will do and when. The same judgement as the ledger's, from what one look can tell.

use jiff::Timestamp;

use super::super::cause::{Diagnosis, FailureClass, Permanence, Words, classify};
use super::super::policy::{FailOwner, Policy};
use super::super::reason::Reason;
use super::effect::{FailureState, Record};
use super::judge::classify_here;
use super::moment::{Pace, elapsed, later};
use super::nodes::Nodes;
use super::pods::{PodEntry, Source, Trouble};
use super::rules::{Rules, remedy};
use super::sight::{ContainerSight, ContainerState, EventSight, PodSight};
use super::symptoms::{may_have_run, symptoms};
use super::task::{Above, Identity, TaskKindOf, identify, is_job};

/// What is said of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub pull_failure: bool,
    /// `None` where it is no pull failure. `Unknown` also where the kubelet has not told the cause.
    pub class: Option<FailureClass>,
    pub permanence: Option<Permanence>,
    pub container: Option<String>,
    pub image: Option<String>,
    pub summary: String,
    pub remedy: Option<String>,
    pub evidence: Vec<Evidence>,
    /// What Pullguard will do, and when, one sentence each.
    pub next: Vec<String>,
    /// The name of the task's record.
    pub record: Option<String>,
}

/// What the judgement rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Where it was read: `pod status`, `Event Failed`, `node a`.
    pub from: String,
    pub says: String,
}

impl Evidence {
    fn new(from: impl Into<String>, says: impl Into<String>) -> Self {
        Self { from: from.into(), says: says.into() }
    }
}

/// All that one look shows.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    pub pod: &'a PodSight,
    /// The kubelet's, about this pod, the oldest first.
    pub events: &'a [EventSight],
    /// Those that match the pod.
    pub policies: &'a [&'a Policy],
    pub record: Option<&'a Record>,
    pub nodes: &'a dyn Nodes,
    pub now: Timestamp,
}

impl std::fmt::Debug for Look<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Look").field("pod", self.pod).field("record", &self.record).finish_non_exhaustive()
    }
}

/// The record of the pod's task, among those of its namespace: by the task, or because it names the pod.
pub fn record_of<'a>(pod: &PodSight, records: &'a [Record]) -> Option<&'a Record> {
    let owner = pod.facts.owner.as_ref().map(|owner| owner.uid.as_str());
    let is_task = |record: &&Record| {
        let task = &record.task;
        let by_uid = !task.uid.is_empty() && (task.uid == pod.uid || owner == Some(task.uid.as_str()));
        let value = task.label.as_ref().and_then(|key| pod.facts.labels.get(key));
        by_uid || value == Some(&task.name)
    };
    let names_it = |record: &&Record| {
        record.counted_pods.contains(&pod.uid) || record.failures.iter().any(|failure| failure.pod == pod.name())
    };
    let mine = || records.iter().filter(|record| record.namespace == pod.namespace());
    mine().find(is_task).or_else(|| mine().find(names_it))
}

/// Explains a pod by its status.
pub fn explain(look: &Look<'_>) -> Explanation {
    let Look { pod, events, policies, record, nodes, now } = *look;
    let mut pace = Pace::default();
    let moment = pace.tick(now);
    let mut entry = PodEntry::new(pod.clone(), moment);
    entry.take(symptoms(pod), pace.at(pod.created), moment);
    let mut heard = Vec::new();
    for event in events {
        let words = Words { reason: &event.reason, message: &event.message, image: None };
        if let Diagnosis::PullFailure(cause) = classify(&words) {
            entry.hear_event(event.container.as_deref(), &cause, moment);
            heard.push(event);
        } else if event.reason == MISSING_SECRET {
            heard.push(event);
        }
    }
    // The one that is most certain speaks for the pod.
    let weight = |trouble: &Trouble| match trouble.cause.as_ref().map(|(cause, _)| cause.permanence) {
        Some(Permanence::Permanent) => 0,
        Some(Permanence::Unclear) => 1,
        Some(Permanence::Transient) => 2,
        None => 3,
    };
    let Some(trouble) = entry.told().min_by_key(|trouble| weight(trouble)) else {
        return Explanation {
            pull_failure: false,
            class: None,
            permanence: None,
            container: None,
            image: None,
            summary: "no container of this pod waits for an image".to_owned(),
            remedy: None,
            evidence: pod.containers.iter().filter_map(waiting).collect(),
            next: recorded(record, now),
            record: record.map(|record| record.name.clone()),
        };
    };
    let told = told_at_a_look(nodes, trouble, pod, now);
    let (class, permanence) = told.unwrap_or((FailureClass::Unknown, Permanence::Transient));
    let (summary, ours) = match &trouble.cause {
        Some((cause, _)) if cause.class == class => (cause.summary.clone(), cause.remedy.clone()),
        Some(_) => (class.summary().to_owned(), class.remedy(Some(&trouble.symptom.image))),
        None => (
            "the kubelet backs off and does not tell the cause".to_owned(),
            "Look at the pod's Events: kubelets before 1.32 tell the cause only there.".to_owned(),
        ),
    };
    let mut evidence = evidence(look, trouble, class);
    evidence.extend(heard.into_iter().rev().take(MOST_EVENTS).map(|event| {
        let from = format!("Event {}, {} s ago", event.reason, elapsed(event.at, now).as_secs());
        Evidence::new(from, &*event.message)
    }));
    let others = entry.told().filter(|other| other.symptom.container != trouble.symptom.container);
    evidence.extend(others.map(|other| {
        let class = other.class().unwrap_or(FailureClass::Unknown);
        let Trouble { symptom, .. } = other;
        Evidence::new(
            STATUS,
            format!("container {} waits for image {} too ({class})", symptom.container, symptom.image),
        )
    }));
    Explanation {
        pull_failure: true,
        class: Some(class),
        permanence: Some(permanence),
        container: Some(trouble.symptom.container.clone()),
        image: Some(trouble.symptom.image.clone()),
        summary,
        remedy: Some(remedy(policies, trouble.reference(), &ours)),
        evidence,
        next: next(look, told),
        record: record.map(|record| record.name.clone()),
    }
}

/// What it waits for instead.
fn waiting(container: &ContainerSight) -> Option<Evidence> {
    let ContainerState::Waiting { reason, .. } = &container.state else { return None };
    Some(Evidence::new(STATUS, format!("container {} waits with reason {reason}: no pull failure", container.name)))
}

const STATUS: &str = "pod status";
const MISSING_SECRET: &str = "FailedToRetrieveImagePullSecret";
const MOST_EVENTS: usize = 5;

/// What one look makes of it. For how long a node has listed an image cannot be told from one look. But a kubelet looks
/// again every few seconds, and the list is late rather than early: if it is listed and the kubelet still says no, access
/// is by far the likelier reason.
fn told_at_a_look(
    nodes: &dyn Nodes,
    trouble: &Trouble,
    pod: &PodSight,
    now: Timestamp,
) -> Option<(FailureClass, Permanence)> {
    let (class, permanence, _) = classify_here(nodes, trouble, pod.node.as_deref(), now)?;
    let listed =
        || pod.node.as_deref().zip(trouble.reference()).and_then(|(node, image)| nodes.listed_since(node, image));
    if class == FailureClass::NeverPull && listed().is_some() {
        return Some((FailureClass::NeverPullNoAccess, Permanence::Unclear));
    }
    Some((class, permanence))
}

fn evidence(look: &Look<'_>, trouble: &Trouble, class: FailureClass) -> Vec<Evidence> {
    let Look { pod, nodes, .. } = look;
    let symptom = &trouble.symptom;
    let mut evidence = vec![Evidence::new(
        STATUS,
        format!(
            "container {} waits with reason {}, pull policy {}",
            symptom.container,
            symptom.reason,
            symptom.pull_policy.as_str()
        ),
    )];
    match &trouble.cause {
        Some((cause, Source::Status)) => evidence.push(Evidence::new(STATUS, &*cause.summary)),
        Some((_, Source::Event)) => evidence.push(Evidence::new(
            STATUS,
            "the cause is not in it: only an Event tells it, and anybody can write one, so nothing is concluded from it alone",
        )),
        None => evidence.push(Evidence::new(STATUS, "the cause is not in it")),
    }
    if let Some(node) = &pod.node {
        let listed = trouble.reference().and_then(|image| nodes.listed_since(node, image));
        let says = if listed.is_some() { "lists the image" } else { "does not list the image" };
        evidence.push(Evidence::new(format!("node {node}"), says));
    }
    if class == FailureClass::NeverPullNoAccess {
        evidence.push(Evidence::new(
            "both together",
            "the kubelet hides the image from pods without the secret it was pulled with; if it came or went within the last minute, this passes",
        ));
    }
    evidence
}

/// What a record says.
fn recorded(record: Option<&Record>, now: Timestamp) -> Vec<String> {
    let Some(record) = record else { return Vec::new() };
    let mut said = vec![format!(
        "record {} is {} ({}) after {} attempts",
        record.name,
        record.state.as_str(),
        record.reason.as_str(),
        record.attempts
    )];
    if record.state == FailureState::PermanentlyFailed
        && let Some(at) = record.expires_at
    {
        let left = elapsed(now, at).as_secs();
        said.push(if left > 0 {
            format!("its pods may be tried again in {left} s, for a minute, or at once if the record is deleted")
        } else {
            "its pods are let through for a minute after each expiry, or at once if the record is deleted".to_owned()
        });
    }
    said
}

fn next(look: &Look<'_>, told: Option<(FailureClass, Permanence)>) -> Vec<String> {
    let Look { pod, policies, record, now, .. } = *look;
    let mut next = recorded(record, now);
    let Some(rules) = Rules::most_cautious(policies) else {
        next.push("no policy matches this pod: Pullguard does nothing about it".to_owned());
        return next;
    };
    if record
        .is_some_and(|record| record.state == FailureState::PermanentlyFailed && record.reason != Reason::PodFailed)
    {
        return next;
    }
    if may_have_run(pod) {
        next.push("a main container of this pod has run: it is never touched".to_owned());
        return next;
    }
    let audit = if rules.audits() { " (audit: it would, and only Events are written)" } else { "" };
    let attempts = record.map_or(0, |record| record.attempts);
    let waits = match &pod.facts.owner {
        Some(owner) if is_job(owner) => "; a Job's pod that waits is one attempt, however long",
        Some(_) | None => "",
    };
    let most = rules.max_attempts;
    let cap = format!("the task ends after {most} attempts, of which {attempts} are counted{waits}{audit}");
    let what = what_is_done(pod, &rules);
    match told {
        Some((class, Permanence::Permanent))
        | Some((class @ (FailureClass::NotFoundOrDenied | FailureClass::NeverPullNoAccess), Permanence::Unclear)) => {
            let grace = rules.grace(class);
            let since = record.and_then(|record| record.first_seen).map_or_else(
                || format!("{} s after it was first seen", grace.as_secs()),
                |first| later(first, grace).to_string(),
            );
            next.push(format!("{what}, no earlier than {since}, if nothing changes{audit}"));
        }
        Some((_, Permanence::Transient | Permanence::Unclear)) => {
            next.push(format!("nothing is concluded from this cause, it may pass by itself; {cap}"));
        }
        None => next.push(format!("nothing is concluded before the kubelet tells the cause; {cap}")),
    }
    next
}

fn what_is_done(pod: &PodSight, rules: &Rules) -> String {
    let acts = rules.fail_owner != FailOwner::None;
    match identify(&pod.facts, &pod.uid, rules, &|_| Above::Nobody) {
        Identity::Task(task) => match task.kind {
            TaskKindOf::Job(job) if rules.fail_owner == FailOwner::Job => {
                format!("Job {} is failed, or only this pod if another of its pods runs", job.name)
            }
            TaskKindOf::Job(_) if acts => "this pod is failed in place".to_owned(),
            TaskKindOf::Listed(owner) if acts => {
                format!("{} {} is marked and its stuck pods are deleted", owner.kind, owner.name)
            }
            TaskKindOf::Label { key, value } if acts => {
                format!("the task {key}={value} is permanently failed and its stuck pods are collected")
            }
            TaskKindOf::BarePod { .. } if acts => "this pod is labelled and failed in place".to_owned(),
            TaskKindOf::Job(_)
            | TaskKindOf::Listed(_)
            | TaskKindOf::Label { .. }
            | TaskKindOf::BarePod { .. }
            | TaskKindOf::ReportOnly(_) => "a record and an Event are written".to_owned(),
        },
        Identity::Ask(owner) => format!("{} {} is looked at for an owner that can end", owner.kind, owner.name),
    }
}
