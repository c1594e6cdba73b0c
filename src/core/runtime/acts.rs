//! What is found out about one task, and which way it goes.
//!
//! Enters: a task's entry, its pods, the judge's rulings. Leaves: attempts counted, and the choice: nothing yet, only stuck
//! pods, or the task as a whole. The steps of each way are in `steps`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::cause::FailureClass;
use super::super::image::ImageName;
use super::super::policy::Policy;
use super::super::reason::Reason;
use super::brake::{Failure, Level};
use super::clock::ImageClock;
use super::denied::Denied;
use super::effect::{FailureState, Record};
use super::entry::{TaskEntry, key_of};
use super::findings::{Finding, MESSAGE_LIMIT, class_of, has_had_its_try, ruling};
use super::judge::{Judged, Ruling};
use super::ledger::Ledger;
use super::moment::next_second;
use super::nodes::{Before, Reach};
use super::notes::{Conviction, cut};
use super::planner::{Cx, Desk};
use super::pods::{Fate, PodEntry, Trouble};
use super::rules::Rules;
use super::task::{Task, TaskId, TaskKey, TaskKindOf};

/// What all findings amount to.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// Nothing is failing.
    Quiet,
    Watching,
    /// Permanent for these pods where they are, not for the task: uid and image, each pod once.
    Stuck(Vec<(String, String)>),
    Permanent(Conviction),
}

impl Ledger {
    /// Takes the next step of a task. False: there is nothing left to keep of it.
    pub(super) fn advance(&mut self, entry: &mut TaskEntry, desk: &mut Desk<'_>) -> bool {
        self.digest(entry, &desk.cx);
        let owner = entry.task.owner().map_or("", |owner| &owner.uid);
        if entry.permanent().is_some() && entry.denied.is_some() {
            self.denied.forget(owner);
        }
        if !self.denied.is_convicted(owner) {
            entry.denied = None;
        }
        let policies = self.settle_rules(entry, &desk.cx);
        let Some(rules) = entry.rules.clone().filter(|_| !policies.is_empty()) else {
            return self.keep_house(entry, desk);
        };
        let findings = self.find(entry, &rules, &policies, &desk.cx);
        self.count_attempts(entry, &rules, &findings, &desk.cx);
        self.remember_findings(entry, &policies, &findings, &desk.cx);
        self.plan_waking(entry, &rules, &findings, &desk.cx);
        heed_arrival(entry, &policies, &findings, &desk.cx);
        if entry.over && self.resolve(entry, &findings, &rules, desk) {
            return true;
        }
        self.tell_failed_pods(entry, &rules, desk);
        if let Some(failed_at) = entry.permanent().and_then(|record| record.failed_at) {
            entry.moment_of_end(failed_at, &self.pace);
        }
        let verdict = self.conclude(entry, &rules, &findings, &desk.cx);
        match verdict {
            Verdict::Quiet => {}
            Verdict::Watching => self.keep_retrying(entry, &rules, &findings, desk),
            Verdict::Stuck(pods) => self.fail_stuck(entry, &rules, &findings, &pods, Reason::PodFailed, desk),
            Verdict::Permanent(conviction) => self.carry_out(entry, &rules, &findings, &conviction, desk),
        }
        self.keep_house(entry, desk)
    }

    /// What became of the task's pods since it was last looked at.
    fn digest(&mut self, entry: &mut TaskEntry, cx: &Cx<'_>) {
        for clock in entry.clocks.values_mut() {
            clock.open = false;
        }
        let keeps_dead = match entry.task.kind {
            TaskKindOf::Label { .. } | TaskKindOf::BarePod { .. } | TaskKindOf::Listed(_) => true,
            // The Job controller deletes the pods of a failed Job itself; others' are not ours.
            TaskKindOf::Job(_) | TaskKindOf::ReportOnly(_) => false,
        };
        for uid in entry.pods.clone() {
            let Some(pod) = self.pods.get_mut(&uid) else {
                entry.pods.remove(&uid);
                continue;
            };
            pod.forget_silent(cx.now);
            for trouble in pod.told().filter(|_| pod.fate == Fate::Open) {
                let clock = entry
                    .clocks
                    .entry(trouble.image_key.clone())
                    .or_insert_with(|| Box::new(ImageClock::new(trouble.since, cx.now)));
                clock.see(trouble, cx.now);
            }
            let gone = match pod.fate {
                Fate::Open => pod.troubles.is_empty(),
                Fate::Dead => !keeps_dead,
                Fate::Gone => true,
            };
            let given_up = match pod.fate {
                Fate::Open => false,
                Fate::Dead | Fate::Gone => {
                    let spared = pod.counted || pod.collected || pod.sight.disrupted || pod.ran();
                    !spared && pod.told().next().is_some()
                }
            };
            if given_up {
                let (brakes, node) = (&self.brakes, pod.sight.node.as_deref());
                let holding = |trouble: &Trouble| brakes.holding(&trouble.failure(node, cx.setting.nodes, cx.wall));
                let braked = pod.told().any(|trouble| holding(trouble) == Level::Outage);
                if !braked && entry.count(&uid, self.pace.at(pod.sight.created), cx.now) {
                    self.counters.attempts = self.counters.attempts.saturating_add(1);
                }
                pod.counted = true;
            }
            if gone {
                self.pods.remove(&uid);
                entry.pods.remove(&uid);
            }
        }
        let stuck = entry.pods.iter().any(|uid| self.pods.get(uid).is_some_and(PodEntry::is_stuck));
        if stuck {
            entry.idle_since = None;
        } else {
            entry.idle_since.get_or_insert(cx.now);
        }
    }

    /// The most cautious of the policies of all its pods.
    fn settle_rules<'a>(&self, entry: &mut TaskEntry, cx: &Cx<'a>) -> Vec<&'a Policy> {
        let names: BTreeSet<&str> = entry
            .pods
            .iter()
            .filter_map(|uid| self.pods.get(uid))
            .flat_map(|pod| pod.policies.iter().map(String::as_str))
            .collect();
        let found: Vec<&Policy> = if names.is_empty() {
            // Without pods: those of the last ones, or after a restart those that the record names.
            let names: Vec<&str> = match (&entry.rules, &entry.record) {
                (Some(rules), _) => rules.policies.iter().map(|mark| mark.name.as_str()).collect(),
                (None, Some(sight)) => sight.record.policies.iter().map(String::as_str).collect(),
                (None, None) => Vec::new(),
            };
            names.into_iter().filter_map(|name| cx.setting.policies.get(name)).map(AsRef::as_ref).collect()
        } else {
            names.into_iter().filter_map(|name| cx.setting.policies.get(name)).map(AsRef::as_ref).collect()
        };
        entry.rules = Rules::most_cautious(&found);
        found
    }

    fn plan_waking(&self, entry: &mut TaskEntry, rules: &Rules, findings: &[Finding], cx: &Cx<'_>) {
        for finding in findings {
            if let Some(Judged { ruling: Ruling::Wait { until: Some(until), .. }, .. }) = finding.judged {
                entry.wake = entry.wake.min(until);
            }
            let half = finding.since.plus(rules.grace(class_of(finding)) / 2);
            if half > cx.now {
                entry.wake = entry.wake.min(half);
            }
        }
        if !findings.is_empty() {
            entry.wake = entry.wake.max(cx.now.plus(Duration::from_millis(20)));
        }
    }

    fn conclude(&self, entry: &TaskEntry, rules: &Rules, findings: &[Finding], cx: &Cx<'_>) -> Verdict {
        let recorded = entry.permanent().filter(|record| record.reason != Reason::PodFailed);
        if let Some(record) = recorded {
            if let Some(next) = self.next_image(entry, record, rules, findings) {
                return next;
            }
            return Verdict::Permanent(Conviction {
                reason: record.reason,
                class: record.class,
                image: record.image.clone(),
                key: key_of(&record.image),
                message: record.message.clone(),
                remedy: record.remedy.clone(),
            });
        }
        if let Some(denied) = &entry.denied {
            return Verdict::Permanent(Conviction {
                reason: Reason::DeniedTooLong,
                class: None,
                image: denied.image.clone(),
                key: key_of(&denied.image),
                message: denied.message.clone(),
                remedy: denied.remedy.clone(),
            });
        }
        // A bare pod of which a container runs is never touched, so there is nothing to say that its task was ended for.
        let is_pods = match entry.task.kind {
            TaskKindOf::Label { .. } | TaskKindOf::BarePod { .. } => true,
            TaskKindOf::Job(_) | TaskKindOf::Listed(_) | TaskKindOf::ReportOnly(_) => false,
        };
        let for_task =
            findings.iter().filter(|finding| ruling(finding) == Some(Ruling::Task) && !(is_pods && finding.ran));
        if let Some(first) = for_task.min_by_key(|finding| (finding.since, &finding.key)) {
            return self.convict(entry, &first.key, Reason::PullPermanentlyFailed);
        }
        let braked = findings.iter().any(|finding| finding.braked) || self.any_out(entry, cx);
        if entry.attempts >= rules.max_attempts && !braked && !entry.failures.is_empty() {
            let key = exhausted_by(entry, rules, findings);
            if let Some(key) = key {
                return self.convict(entry, &key, Reason::PullRetriesExhausted);
            }
        }
        let mut stuck: Vec<(String, String)> = findings
            .iter()
            .filter(|finding| ruling(finding) == Some(Ruling::Node) && !finding.ran)
            .map(|finding| (finding.uid.clone(), finding.key.clone()))
            .collect();
        stuck.dedup_by(|(uid, _), (before, _)| uid == before);
        if !stuck.is_empty() {
            return Verdict::Stuck(stuck);
        }
        if findings.is_empty() { Verdict::Quiet } else { Verdict::Watching }
    }

    /// A task that has failed is tried again with another image, and that is as hopeless: it fails for that one too. Of the
    /// same pods that were ended for the first one nothing is concluded twice.
    fn next_image(&self, entry: &TaskEntry, record: &Record, rules: &Rules, findings: &[Finding]) -> Option<Verdict> {
        let (failed_for, failed_at) = (key_of(&record.image), record.failed_at?);
        let (_, failed) = entry.ended?;
        let others = findings.iter().filter(|finding| {
            // By the clock of the API server, and by our own time: where the two differ, every pod would be newer than the
            // record, and the record be written for one image and the other in turn.
            let newer = self.pods.get(&finding.uid).is_some_and(|pod| {
                let began = pod.told().filter(|trouble| trouble.image_key == finding.key).map(|trouble| trouble.since);
                pod.sight.created > failed_at && began.min().is_some_and(|began| began > failed)
            });
            finding.key != failed_for && newer && !finding.ran && !finding.healing && !finding.braked
        });
        let ruled = |finding: &Finding| match ruling(finding) {
            Some(Ruling::Task) => Some(Reason::PullPermanentlyFailed),
            Some(Ruling::Node | Ruling::Wait { .. }) | None => {
                let spent = entry.attempts >= rules.max_attempts && finding.waited >= rules.grace(class_of(finding));
                spent.then_some(Reason::PullRetriesExhausted)
            }
        };
        let (reason, first) = others
            .filter_map(|finding| Some((ruled(finding)?, finding)))
            .min_by_key(|(_, finding)| (finding.since, &finding.key))?;
        Some(self.convict(entry, &first.key, reason))
    }

    /// Whether a brake is on for an image that the task failed on, though no pod of it is there now.
    pub(super) fn any_out(&self, entry: &TaskEntry, cx: &Cx<'_>) -> bool {
        entry.failures.values().any(|failure| {
            let name = ImageName::parse(&failure.image).ok();
            let reference = name.as_ref().and_then(|name| name.reference());
            let failure = Failure {
                host: reference.map(|reference| reference.registry()),
                node: Some(&failure.node),
                image: &failure.image,
                class: Some(failure.class),
                lost: reference.is_some_and(|image| cx.setting.nodes.has_lost(&failure.node, image, cx.wall)),
            };
            self.brakes.holding(&failure) == Level::Outage
        })
    }

    fn convict(&self, entry: &TaskEntry, key: &str, reason: Reason) -> Verdict {
        let Some(failure) = entry.failures.get(key) else { return Verdict::Watching };
        Verdict::Permanent(Conviction {
            reason,
            class: Some(failure.class),
            image: failure.image.clone(),
            key: key.to_owned(),
            message: failure.message.clone(),
            remedy: failure.remedy.clone(),
        })
    }

    /// A Job that admission has denied for too long is put on its way.
    pub(super) fn fail_denied(&mut self, denied: Denied, rules: Rules, cx: &Cx<'_>) {
        let Denied { namespace, job, since, image, message, remedy, policies, pod } = denied;
        self.denied.convict(&job.uid);
        let id = TaskId { namespace, key: TaskKey::Owner { uid: job.uid.clone() } };
        let task = Task { id: id.clone(), kind: TaskKindOf::Job(job) };
        let entry = self.tasks.entry(id.clone()).or_insert_with(|| TaskEntry::new(task, cx.now));
        if entry.denied.is_some() || entry.permanent().is_some() {
            return;
        }
        let mut record =
            entry.draft(&rules, FailureState::PermanentlyFailed, Reason::DeniedTooLong, None, cx, &self.pace);
        record.image = image;
        record.message = cut(&message, MESSAGE_LIMIT);
        record.remedy = cut(&remedy, MESSAGE_LIMIT);
        record.first_seen = Some(next_second(self.pace.wall(since)));
        record.policies = policies.into_iter().map(|mark| mark.name).take(20).collect();
        entry.denied = Some(Box::new(record));
        entry.rules = Some(rules);
        entry.sample.get_or_insert(pod);
        entry.dirty = true;
        self.records.insert((id.namespace.clone(), entry.record_name.clone()), id);
    }
}

/// The image that used up the attempts: one that fails now, else the one that failed last. Of a Job only one for which a pod
/// has had its try: all of a Job's pods go together when it is suspended or deleted, and that is nobody's failure.
fn exhausted_by(entry: &TaskEntry, rules: &Rules, findings: &[Finding]) -> Option<String> {
    let is_job = entry.task.is_job();
    let now = findings
        .iter()
        .filter(|finding| !finding.healing && (!is_job || has_had_its_try(finding, rules)))
        .min_by_key(|finding| (finding.since, &finding.key));
    now.map(|finding| finding.key.clone()).or_else(|| {
        if is_job || !findings.is_empty() {
            return None;
        }
        let clocks = entry.clocks.iter().filter(|(key, _)| entry.failures.contains_key(*key));
        clocks.max_by_key(|(_, clock)| clock.last).map(|(key, _)| key.clone())
    })
}

/// Where another pod of a task could go, by the one that is remembered of it; a bare pod stays where it is.
fn reach_of_task(entry: &TaskEntry) -> Option<Reach<'_>> {
    let pod = entry.sample.as_ref()?;
    match &entry.task.kind {
        TaskKindOf::BarePod { .. } => Some(Reach::Itself { pod, node: pod.placement.node_name.as_deref()? }),
        TaskKindOf::Job(_) | TaskKindOf::Listed(_) | TaskKindOf::Label { .. } | TaskKindOf::ReportOnly(_) => {
            Some(Reach::Like(pod))
        }
    }
}

/// The image of a `NeverPull` has newly come to a node that the task's pods could go to. Where they could go is not known
/// without a pod to ask for: then nothing has come.
fn heed_arrival(entry: &mut TaskEntry, policies: &[&Policy], findings: &[Finding], cx: &Cx<'_>) {
    let Some(record) = entry.permanent() else { return };
    if record.class != Some(FailureClass::NeverPull) || record.reason == Reason::PodFailed {
        return;
    }
    let key = key_of(&record.image);
    let (Some(failed_at), Ok(name)) = (record.failed_at, ImageName::parse(&record.image)) else {
        return;
    };
    let (Some(image), Some(reach)) = (name.reference(), reach_of_task(entry)) else { return };
    // A task whose attempts are used up may have failed on one node beside another that held the image.
    let proven = record.reason == Reason::PullPermanentlyFailed;
    let before = if proven { Before::Absent(policies) } else { Before::Unknown };
    let stuck = findings.iter().any(|finding| finding.key == key && !finding.healing);
    if !stuck && cx.setting.nodes.arrived(reach, image, failed_at, before, cx.wall) {
        entry.over = true;
    }
}
