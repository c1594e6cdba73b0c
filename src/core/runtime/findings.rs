//! The troubles of a task's pods, judged one by one.
//!
//! Enters: a task's entry and its pods. Leaves: a finding for each trouble; attempts, and what the record will say of each
//! image.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::cause::{FailureClass, Permanence};
use super::super::policy::Policy;
use super::brake::Level;
use super::effect::{RecordedFailure, secrets_kept};
use super::entry::{MOST_FAILURES, TaskEntry};
use super::judge::{Bench, Judged, Ruling, classify_here, judge};
use super::ledger::Ledger;
use super::moment::{Moment, next_second};
use super::nodes::Reach;
use super::notes::cut;
use super::planner::Cx;
use super::pods::{Fate, PodEntry, Trouble};
use super::rules::{Rules, remedy};
use super::task::TaskKindOf;

/// A record's message; conditions allow more, a terminal does not.
pub(super) const MESSAGE_LIMIT: usize = 1_000;

/// One trouble of one pod of the task, judged.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub uid: String,
    pub key: String,
    pub judged: Option<Judged>,
    /// When the image began to fail.
    pub since: Moment,
    /// How long this pod has waited for it.
    pub waited: Duration,
    pub braked: bool,
    /// A main container of the pod ran: it is told of, never touched.
    pub ran: bool,
    /// The node has begun to list the image: the kubelet looks again within seconds.
    pub healing: bool,
}

/// Where the pods of a task can go.
fn reach_of<'a>(entry: &TaskEntry, pod: &'a PodEntry) -> Reach<'a> {
    match (&entry.task.kind, pod.sight.node.as_deref()) {
        (TaskKindOf::BarePod { .. }, Some(node)) => Reach::Itself { pod: &pod.sight.facts, node },
        (
            TaskKindOf::BarePod { .. }
            | TaskKindOf::Job(_)
            | TaskKindOf::Listed(_)
            | TaskKindOf::Label { .. }
            | TaskKindOf::ReportOnly(_),
            _,
        ) => Reach::Like(&pod.sight.facts),
    }
}

impl Ledger {
    pub(super) fn find(&self, entry: &TaskEntry, rules: &Rules, policies: &[&Policy], cx: &Cx<'_>) -> Vec<Finding> {
        let open = || {
            let pods = entry.pods.iter().filter_map(|uid| self.pods.get_key_value(uid));
            pods.filter(|(_, pod)| pod.fate == Fate::Open)
        };
        let failing_on = |class: FailureClass, key: &str| -> BTreeSet<String> {
            let nodes = open().filter(|(_, pod)| {
                pod.told().any(|trouble| {
                    let told = classify_here(cx.setting.nodes, trouble, pod.sight.node.as_deref(), cx.wall);
                    trouble.image_key == key && told.is_some_and(|(told, _, _)| told == class)
                })
            });
            nodes.filter_map(|(_, pod)| pod.sight.node.clone()).collect()
        };
        let wall_of = |moment| self.pace.wall(moment);
        let bench = Bench {
            now: cx.now,
            wall: cx.wall,
            rules,
            policies,
            nodes: cx.setting.nodes,
            brakes: &self.brakes,
            starts: &self.starts,
            wall_of: &wall_of,
            failing_on: &failing_on,
        };
        open()
            .flat_map(|(uid, pod)| pod.told().map(move |trouble| (uid, pod, trouble)))
            .filter_map(|(uid, pod, trouble)| {
                let clock = entry.clocks.get(&trouble.image_key)?;
                let node = pod.sight.node.as_deref();
                let judged = judge(&bench, trouble, clock, reach_of(entry, pod), node);
                let lists = trouble.class() == Some(FailureClass::NeverPull)
                    && judged.is_some_and(|judged| judged.permanence == Permanence::Unclear)
                    && judged.is_some_and(|judged| judged.class == FailureClass::NeverPull);
                Some(Finding {
                    uid: uid.clone(),
                    key: trouble.image_key.clone(),
                    judged,
                    since: clock.since(),
                    waited: clock.waited_by(trouble, cx.now),
                    braked: self.brakes.holding(&trouble.failure(node, cx.setting.nodes, cx.wall)) == Level::Outage,
                    ran: pod.ran(),
                    healing: lists,
                })
            })
            .collect()
    }

    /// A pod that has had its try is an attempt that came to nothing.
    pub(super) fn count_attempts(&mut self, entry: &mut TaskEntry, rules: &Rules, findings: &[Finding], cx: &Cx<'_>) {
        for finding in findings {
            let grace = rules.grace(class_of(finding));
            if finding.braked || finding.ran {
                continue;
            }
            if has_had_its_try(finding, rules) {
                let Some(pod) = self.pods.get_mut(&finding.uid) else { continue };
                if entry.count(&finding.uid, self.pace.at(pod.sight.created), cx.now) {
                    self.counters.attempts = self.counters.attempts.saturating_add(1);
                }
                pod.counted = true;
            } else {
                entry.wake = entry.wake.min(cx.now.plus(grace.saturating_sub(finding.waited)));
            }
        }
    }

    /// What the record will say of each image.
    pub(super) fn remember_findings(
        &self,
        entry: &mut TaskEntry,
        policies: &[&Policy],
        findings: &[Finding],
        cx: &Cx<'_>,
    ) {
        for finding in findings {
            let Some(pod) = self.pods.get(&finding.uid) else { continue };
            let Some(trouble) = pod.told().find(|trouble| trouble.image_key == finding.key) else { continue };
            let known = entry.failures.get(&finding.key);
            let told_class = known.is_some_and(|known| known.class != FailureClass::Unknown);
            // The first pod that told a cause speaks for the image, until the cause is another one.
            if finding.judged.is_none() && (told_class || known.is_some()) {
                continue;
            }
            let class = finding.judged.map_or(FailureClass::Unknown, |judged| judged.class);
            if known.is_some_and(|known| known.class == class && known.pod != pod.sight.facts.name && told_class) {
                continue;
            }
            if known.is_none() && entry.failures.len() >= MOST_FAILURES {
                continue;
            }
            let failure = recorded(pod, trouble, finding, policies, entry, self, cx);
            entry.failures.insert(finding.key.clone(), Box::new(failure));
        }
    }
}

/// Whether a pod has waited for the whole grace, or need not, as it is failed alone.
pub(super) fn has_had_its_try(finding: &Finding, rules: &Rules) -> bool {
    let waited = finding.waited >= rules.grace(class_of(finding));
    !finding.ran && (waited || ruling(finding) == Some(Ruling::Node))
}

pub(super) fn ruling(finding: &Finding) -> Option<Ruling> {
    finding.judged.map(|judged| judged.ruling)
}

/// `Unknown` where no cause was told: the grace of all others.
pub(super) fn class_of(finding: &Finding) -> FailureClass {
    finding.judged.map_or(FailureClass::Unknown, |judged| judged.class)
}

fn recorded(
    pod: &PodEntry,
    trouble: &Trouble,
    finding: &Finding,
    policies: &[&Policy],
    entry: &TaskEntry,
    ledger: &Ledger,
    cx: &Cx<'_>,
) -> RecordedFailure {
    let class = class_of(finding);
    let permanence = finding.judged.map_or(Permanence::Transient, |judged| judged.permanence);
    let told = trouble.cause.as_ref().map(|(cause, _)| cause);
    let image = Some(trouble.symptom.image.as_str());
    let mut message = match told {
        // The inventory knows better than the kubelet's words.
        Some(cause) if cause.class == class => cause.summary.clone(),
        Some(_) => class.summary().to_owned(),
        None => "the kubelet does not tell the cause".to_owned(),
    };
    let ours = match told {
        Some(cause) if cause.class == class => cause.remedy.clone(),
        Some(_) | None => class.remedy(image),
    };
    if let Some(secret) = &pod.missing_secret {
        message = format!("{message}; {secret}");
    }
    let first = entry.clocks.get(&finding.key).map(|clock| ledger.pace.wall(clock.since()));
    RecordedFailure {
        image: trouble.symptom.image.clone(),
        class,
        permanence,
        message: cut(&message, MESSAGE_LIMIT),
        remedy: cut(&remedy(policies, trouble.reference(), &ours), MESSAGE_LIMIT),
        container: trouble.symptom.container.clone(),
        pod: pod.sight.facts.name.clone(),
        node: pod.sight.node.clone().unwrap_or_default(),
        pull_policy: Some(trouble.symptom.pull_policy),
        pull_secrets: secrets_kept(&pod.sight.facts.pull_secrets),
        first_seen: first.map(next_second),
        last_seen: Some(next_second(cx.wall)),
    }
}
