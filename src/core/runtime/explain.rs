//! Why a pod does not start, in the words of the runtime half.
//!
//! Enters: one pod, the policies that match it, its task's record if there is one. Leaves: class, permanence, evidence, and
//! what Pullguard will do and when. The same judgement as the ledger's, from what one look can tell.

use jiff::Timestamp;

use super::super::cause::{FailureClass, Permanence};
use super::super::policy::{FailOwner, Policy};
use super::super::reason::Reason;
use super::effect::{FailureState, Record};
use super::judge::classify_here;
use super::moment::{Pace, elapsed, later};
use super::nodes::Nodes;
use super::pods::{PodEntry, Trouble};
use super::rules::{Rules, remedy};
use super::sight::PodSight;
use super::symptoms::{may_have_run, symptoms};
use super::task::{Above, Identity, TaskKindOf, identify};

/// What is said of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub pull_failure: bool,
    /// `None` where it is no pull failure, or the kubelet has not told the cause.
    pub class: Option<FailureClass>,
    pub permanence: Option<Permanence>,
    pub container: Option<String>,
    pub image: Option<String>,
    pub summary: String,
    pub remedy: Option<String>,
    /// What the judgement rests on, one sentence each.
    pub evidence: Vec<String>,
    /// What Pullguard will do, and when.
    pub next: Vec<String>,
    /// The name of the task's record.
    pub record: Option<String>,
}

/// Explains a pod by its status.
pub fn explain(
    pod: &PodSight,
    policies: &[&Policy],
    record: Option<&Record>,
    nodes: &dyn Nodes,
    now: Timestamp,
) -> Explanation {
    let mut pace = Pace::default();
    let moment = pace.tick(now);
    let mut entry = PodEntry::new(pod.clone(), moment);
    entry.take(symptoms(pod), pace.at(pod.created), moment);
    let Some(trouble) = entry.told().next() else {
        return Explanation {
            pull_failure: false,
            class: None,
            permanence: None,
            container: None,
            image: None,
            summary: "no container of this pod waits for an image".to_owned(),
            remedy: None,
            evidence: Vec::new(),
            next: recorded(record, now),
            record: record.map(|record| record.name.clone()),
        };
    };
    let told = classify_here(nodes, trouble, pod.node.as_deref(), now);
    let class = told.map(|(class, _, _)| class);
    let permanence = told.map(|(_, permanence, _)| permanence);
    let (summary, ours) = match (&trouble.cause, class) {
        (Some((cause, _)), Some(class)) if cause.class == class => (cause.summary.clone(), cause.remedy.clone()),
        (_, Some(class)) => (class.summary().to_owned(), class.remedy(Some(&trouble.symptom.image))),
        (_, None) => (
            "the kubelet backs off and does not tell the cause: see the pod's Events".to_owned(),
            FailureClass::Unknown.remedy(Some(&trouble.symptom.image)),
        ),
    };
    Explanation {
        pull_failure: true,
        class,
        permanence,
        container: Some(trouble.symptom.container.clone()),
        image: Some(trouble.symptom.image.clone()),
        summary,
        remedy: Some(remedy(policies, trouble.reference(), &ours)),
        evidence: evidence(pod, trouble, class, nodes, now),
        next: next(pod, policies, record, class, permanence, now),
        record: record.map(|record| record.name.clone()),
    }
}

fn evidence(
    pod: &PodSight,
    trouble: &Trouble,
    class: Option<FailureClass>,
    nodes: &dyn Nodes,
    now: Timestamp,
) -> Vec<String> {
    let mut evidence = vec![format!(
        "container {} waits with reason {}, pull policy {}",
        trouble.symptom.container,
        trouble.symptom.reason,
        trouble.symptom.pull_policy.as_str()
    )];
    if let Some(node) = &pod.node {
        let listed = trouble.reference().and_then(|image| nodes.listed_since(node, image));
        evidence.push(match listed {
            Some(since) => {
                format!("node {node} has listed the image for {} s at least", elapsed(since, now).as_secs())
            }
            None => format!("node {node} does not list the image"),
        });
    }
    if class == Some(FailureClass::NeverPullNoAccess) {
        evidence.push("the kubelet says that it is not present: it hides the image from pods without its secret".to_owned());
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

fn next(
    pod: &PodSight,
    policies: &[&Policy],
    record: Option<&Record>,
    class: Option<FailureClass>,
    permanence: Option<Permanence>,
    now: Timestamp,
) -> Vec<String> {
    let mut next = recorded(record, now);
    let Some(rules) = Rules::most_cautious(policies) else {
        next.push("no policy matches this pod: Pullguard does nothing about it".to_owned());
        return next;
    };
    if record.is_some_and(|record| record.state == FailureState::PermanentlyFailed && record.reason != Reason::PodFailed) {
        return next;
    }
    if may_have_run(pod) {
        next.push("a main container of this pod has run: it is never touched".to_owned());
        return next;
    }
    let audit = if rules.audits() { " (audit: it would, and only Events are written)" } else { "" };
    let attempts = record.map_or(0, |record| record.attempts);
    let cap = format!("the task ends after {} attempts, of which {attempts} are counted{audit}", rules.max_attempts);
    let what = what_is_done(pod, &rules);
    match (class, permanence) {
        (Some(class), Some(Permanence::Permanent))
        | (Some(class @ (FailureClass::NotFoundOrDenied | FailureClass::NeverPullNoAccess)), Some(Permanence::Unclear)) => {
            let grace = rules.grace(class);
            let since = record
                .and_then(|record| record.first_seen)
                .map_or_else(|| format!("{} s after it was first seen", grace.as_secs()), |first| later(first, grace).to_string());
            next.push(format!("{what}, no earlier than {since}, if nothing changes{audit}"));
        }
        (_, Some(Permanence::Transient | Permanence::Unclear)) => {
            next.push(format!("nothing is concluded from this cause, it may pass by itself; {cap}"));
        }
        (_, None) | (None, Some(Permanence::Permanent)) => {
            next.push(format!("nothing is concluded before the kubelet tells the cause; {cap}"));
        }
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
