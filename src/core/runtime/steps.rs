//! The steps of a task that fails, one after the other: record, owner's marks, owner failed, Events, pods collected.
//!
//! Enters: a verdict. Leaves: the next effect of the task, and only that: whatever depends on it waits for its outcome. What
//! was done already is read from the record, the owner and the pods, so that a ledger that begins in the middle goes on.

use std::time::Duration;

use super::super::policy::FailOwner;
use super::super::reason::Reason;
use super::effect::{Effect, EventAction, FailureState};
use super::entry::TaskEntry;
use super::findings::Finding;
use super::guard::{Guard, job_is_open};
use super::judge::Ruling;
use super::ledger::{Ledger, Step};
use super::moment::{elapsed, whole_second};
use super::notes::Conviction;
use super::planner::{Cx, Desk, OWNER_FRESH};
use super::rules::Rules;
use super::sight::OwnerSight;
use super::task::TaskKindOf;

/// A suspended Job is looked at again after this.
const LATER: Duration = Duration::from_secs(30);
/// A record so old, of a task without stuck pods, is done with: nothing of it is tried again after a restart, unless its
/// Job is seen to go on.
const SETTLED: Duration = Duration::from_secs(600);

/// What can be done for a task that is permanently failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing: the owner is over, or going.
    Leave,
    /// Record and Event.
    TellOnly,
    /// The stuck pods of a Job are failed in place, the Job goes on.
    PodsOnly,
    /// The Job is marked and failed.
    Job,
    /// The owner is marked, its pods are collected.
    Listed,
    /// Bare pods are labelled, failed in place, collected.
    Pods,
}

impl Ledger {
    pub(super) fn keep_retrying(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        findings: &[Finding],
        desk: &mut Desk<'_>,
    ) {
        let due = findings
            .iter()
            .any(|finding| desk.cx.now.since(finding.since) >= rules.grace(super::findings::class_of(finding)) / 2);
        if !due && entry.record.as_ref().is_none_or(|sight| sight.record.state != FailureState::Retrying) {
            return;
        }
        if entry.record.as_ref().is_some_and(|sight| sight.record.state == FailureState::PermanentlyFailed) {
            return;
        }
        if !self.owner_is_known(entry, desk) || entry.steps.owner_gone {
            return;
        }
        let reason = match &entry.record {
            Some(sight) if sight.record.state == FailureState::Retrying => sight.record.reason,
            Some(_) | None => Reason::PullRetrying,
        };
        let told = rules.audits() || self.want_record(entry, rules, FailureState::Retrying, reason, None, desk);
        // A bare pod has the kubelet's own Events on itself; on an owner nothing tells that it is in trouble.
        if told
            && due
            && matches!(entry.task.kind, TaskKindOf::Job(_) | TaskKindOf::ReportOnly(_))
            && let Some(conviction) = entry.suspect()
            && !self.has_failed_before(entry, &conviction)
        {
            self.tell(entry, rules, "retrying", (Reason::PullRetrying, EventAction::Report), &conviction, desk);
        }
    }

    /// Whether a Job was read once, for its maker and its state.
    fn owner_is_known(&mut self, entry: &mut TaskEntry, desk: &mut Desk<'_>) -> bool {
        let TaskKindOf::Job(job) = &entry.task.kind else { return true };
        match self.owners.get(&job.uid).map(|known| &known.sight) {
            Some(OwnerSight::NotFound { .. }) => {
                entry.steps.owner_gone = true;
                true
            }
            Some(OwnerSight::Found(_) | OwnerSight::Unreadable { .. }) => true,
            None if entry.retry_at > desk.cx.now => {
                entry.wake = entry.wake.min(entry.retry_at);
                false
            }
            None => {
                let (job, id) = (job.clone(), entry.task.id.clone());
                self.look_up(Some(&id), id.namespace.clone(), job, desk);
                false
            }
        }
    }

    /// Only these pods are failed; their task goes on, and its replacements may land elsewhere.
    pub(super) fn fail_stuck(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        findings: &[Finding],
        pods: &[(String, String)],
        reason: Reason,
        desk: &mut Desk<'_>,
    ) {
        let Some(conviction) = pods.first().and_then(|(_, key)| entry.about(key, reason)) else { return };
        let way = self.way(entry, rules, desk);
        match way {
            None | Some(Way::Leave) => {}
            Some(Way::TellOnly) => self.keep_retrying(entry, rules, findings, desk),
            Some(Way::PodsOnly | Way::Job | Way::Listed | Way::Pods) => {
                self.fail_pods(entry, rules, FailureState::Retrying, pods, &conviction, desk);
            }
        }
    }

    /// The task as a whole.
    pub(super) fn carry_out(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        findings: &[Finding],
        conviction: &Conviction,
        desk: &mut Desk<'_>,
    ) {
        let Some(way) = self.way(entry, rules, desk) else { return };
        if entry.denied.is_some() && way != Way::Job {
            // Nothing else can be done about denials, and admission says so itself.
            self.denied.forget(entry.task.owner().map_or("", |owner| &owner.uid));
            entry.denied = None;
            return;
        }
        let condemned = self.condemned(entry, rules, findings, conviction);
        entry.assume_told(desk.cx.wall);
        if rules.audits() {
            return self.tell_would(entry, rules, way, &condemned, conviction, desk);
        }
        let (state, reason) = (FailureState::PermanentlyFailed, conviction.reason);
        match way {
            Way::Leave => {}
            Way::TellOnly => {
                if self.want_record(entry, rules, state, reason, Some(conviction), desk) {
                    self.tell(entry, rules, "failed", (reason, EventAction::Report), conviction, desk);
                }
            }
            Way::PodsOnly => {
                // A Job of which a pod ran is not failed; where the policy wants pods failed and no more, the cause is
                // permanent all the same.
                let state = match rules.fail_owner {
                    FailOwner::Pod => FailureState::PermanentlyFailed,
                    FailOwner::None | FailOwner::Job => FailureState::Retrying,
                };
                // The marks go first: as long as they are there, the record asks for them to be looked at.
                if !self.unmark_job(entry, desk) {
                    return;
                }
                self.fail_pods(entry, rules, state, &for_image(&condemned, conviction), conviction, desk);
            }
            Way::Job => {
                if self.want_record(entry, rules, state, reason, Some(conviction), desk)
                    && (entry.steps.owner_failed || findings.is_empty() || !condemned.is_empty())
                    && self.mark_owner(entry, conviction, desk)
                    && self.fail_job(entry, &condemned, conviction, desk)
                    && self.tell(entry, rules, "failed", (reason, EventAction::FailOwner), conviction, desk)
                {
                    self.escalate(entry, rules, conviction, desk);
                }
            }
            Way::Listed => {
                if self.want_record(entry, rules, state, reason, Some(conviction), desk)
                    && self.mark_owner(entry, conviction, desk)
                    && self.tell(entry, rules, "failed", (reason, EventAction::FailOwner), conviction, desk)
                {
                    self.escalate(entry, rules, conviction, desk);
                    self.collect(entry, rules, findings, &condemned, conviction, desk);
                }
            }
            Way::Pods => {
                if self.want_record(entry, rules, state, reason, Some(conviction), desk)
                    && self.fail_kept(entry, rules, &condemned, conviction, desk)
                    && self.tell(entry, rules, "failed", (reason, EventAction::FailPod), conviction, desk)
                {
                    self.collect(entry, rules, findings, &condemned, conviction, desk);
                }
            }
        }
    }

    /// What can be done, by the kind of the task, the rules, and a fresh look at a Job. `None`: it is not known yet, or not
    /// the time.
    fn way(&mut self, entry: &mut TaskEntry, rules: &Rules, desk: &mut Desk<'_>) -> Option<Way> {
        if entry.retry_at > desk.cx.now {
            entry.wake = entry.wake.min(entry.retry_at);
            return None;
        }
        let acts = rules.fail_owner != FailOwner::None;
        match &entry.task.kind {
            TaskKindOf::ReportOnly(_) => Some(Way::TellOnly),
            TaskKindOf::Label { .. } | TaskKindOf::BarePod { .. } => Some(if acts { Way::Pods } else { Way::TellOnly }),
            TaskKindOf::Job(_) | TaskKindOf::Listed(_) if entry.steps.owner_gone => Some(Way::Leave),
            TaskKindOf::Job(_) | TaskKindOf::Listed(_) if !acts || entry.steps.hands_off => Some(Way::TellOnly),
            TaskKindOf::Listed(_) => Some(Way::Listed),
            // It was looked at to be told of, and nothing follows that needs another look.
            TaskKindOf::Job(_) if rules.audits() && entry.denied.is_some() && entry.steps.counted_as_failed => {
                Some(Way::Job)
            }
            TaskKindOf::Job(_) if entry.steps.owner_failed => Some(Way::Job),
            TaskKindOf::Job(_) if entry.steps.may_fail && entry.permanent().is_some() => Some(Way::Job),
            TaskKindOf::Job(job) => {
                let settled = entry.permanent().and_then(|record| record.failed_at);
                if settled.is_some_and(|at| elapsed(at, desk.cx.wall) >= SETTLED)
                    && entry.idle_since.is_some()
                    && !entry.makes_pods
                    && !self.owners.contains_key(&job.uid)
                {
                    return Some(Way::Leave);
                }
                let (job, id) = (job.clone(), entry.task.id.clone());
                let known = self.owners.get(&job.uid).filter(|known| desk.cx.now.since(known.read_at) <= OWNER_FRESH);
                match known.map(|known| known.sight.clone()) {
                    None => {
                        self.look_up(Some(&id), id.namespace.clone(), job, desk);
                        None
                    }
                    Some(sight) => self.way_of_job(entry, rules, &sight, &desk.cx),
                }
            }
        }
    }

    fn way_of_job(&self, entry: &mut TaskEntry, rules: &Rules, sight: &OwnerSight, cx: &Cx<'_>) -> Option<Way> {
        let facts = match sight {
            OwnerSight::NotFound { .. } => {
                entry.steps.owner_gone = true;
                return Some(Way::Leave);
            }
            OwnerSight::Unreadable { .. } => return Some(Way::TellOnly),
            OwnerSight::Found(facts) if facts.deleting => return Some(Way::Leave),
            OwnerSight::Found(facts) => facts,
        };
        let Some(job) = &facts.job else { return Some(Way::TellOnly) };
        if job.failure_target {
            if entry.permanent().is_none() {
                return Some(Way::Leave);
            }
            entry.steps.owner_failed = true;
            entry.steps.marked |= facts.marked;
            return Some(Way::Job);
        }
        entry.steps.marked |= facts.marked;
        match job_is_open(job) {
            Ok(()) if !job.started => {
                entry.wake = entry.wake.min(cx.now.plus(LATER));
                None
            }
            Ok(()) => {
                let whole =
                    rules.fail_owner == FailOwner::Job && !(job.pod_ran || job.succeeded > 0 || entry.steps.only_pods);
                entry.steps.may_fail = whole;
                Some(if whole { Way::Job } else { Way::PodsOnly })
            }
            Err(Guard::Suspended) => {
                entry.wake = entry.wake.min(cx.now.plus(LATER));
                None
            }
            Err(Guard::ManagedElsewhere) => Some(Way::TellOnly),
            Err(
                Guard::Finished
                | Guard::Succeeding
                | Guard::Gone
                | Guard::Unreadable
                | Guard::NotAJob
                | Guard::Deleting
                | Guard::FailingAlready
                | Guard::NotStarted
                | Guard::PodStarted
                | Guard::PodSucceeded
                | Guard::NothingStuck
                | Guard::Mirror
                | Guard::NotStuck,
            ) => Some(Way::Leave),
        }
    }

    /// The pods that the conviction is about, and that may be touched. A pod that was made after it had its own try: it is
    /// given the whole grace.
    fn condemned(
        &self,
        entry: &TaskEntry,
        rules: &Rules,
        findings: &[Finding],
        conviction: &Conviction,
    ) -> Vec<String> {
        let failed_at = entry.permanent().and_then(|record| record.failed_at);
        let exhausted = conviction.reason == Reason::PullRetriesExhausted;
        findings
            .iter()
            .filter(|finding| finding.key == conviction.key && !finding.ran && !finding.healing && !finding.braked)
            .filter(|finding| {
                let Some(pod) = self.pods.get(&finding.uid) else { return false };
                let grace = rules.grace(super::findings::class_of(finding));
                let concluded = match super::findings::ruling(finding) {
                    Some(Ruling::Task | Ruling::Node) => true,
                    Some(Ruling::Wait { .. }) | None => false,
                };
                // What may pass by itself gives each pod its whole grace, however often others failed.
                let given_up = exhausted && finding.waited >= grace;
                match failed_at {
                    None => concluded || given_up,
                    Some(at) if pod.sight.created <= at => !exhausted || concluded || given_up,
                    Some(_) => given_up || (concluded && finding.waited >= grace),
                }
            })
            .map(|finding| finding.uid.clone())
            .collect()
    }

    fn mark_owner(&mut self, entry: &mut TaskEntry, conviction: &Conviction, desk: &mut Desk<'_>) -> bool {
        let Some(owner) = entry.task.owner().cloned() else { return true };
        if entry.steps.marked {
            return true;
        }
        let failed_at = entry.permanent().and_then(|record| record.failed_at).unwrap_or(whole_second(desk.cx.wall));
        let id = entry.task.id.clone();
        let effect = Effect::MarkOwner {
            namespace: id.namespace.clone(),
            owner,
            labels: Conviction::labels(),
            annotations: conviction.annotations(failed_at),
        };
        self.emit(format!("{}/mark", entry.tag()), (Some(&id), &id.namespace), Step::Mark, effect, desk);
        false
    }

    /// A Job that was marked and then found to go on, for a pod of it had started by then, must not bear the marks of a
    /// failed one. True: it does not.
    pub(super) fn unmark_job(&mut self, entry: &mut TaskEntry, desk: &mut Desk<'_>) -> bool {
        let TaskKindOf::Job(job) = &entry.task.kind else { return true };
        let steps = &entry.steps;
        if !steps.marked || steps.owner_failed || steps.owner_gone || steps.hands_off {
            return true;
        }
        if entry.retry_at > desk.cx.now {
            entry.wake = entry.wake.min(entry.retry_at);
            return false;
        }
        let id = entry.task.id.clone();
        let effect = Effect::UnmarkJob { namespace: id.namespace.clone(), job: job.clone() };
        self.emit(format!("{}/unmark", entry.tag()), (Some(&id), &id.namespace), Step::Unmark, effect, desk);
        false
    }

    fn fail_job(
        &mut self,
        entry: &mut TaskEntry,
        condemned: &[String],
        conviction: &Conviction,
        desk: &mut Desk<'_>,
    ) -> bool {
        let TaskKindOf::Job(job) = &entry.task.kind else { return true };
        if entry.steps.owner_failed {
            return true;
        }
        let id = entry.task.id.clone();
        let effect = Effect::FailJob {
            namespace: id.namespace.clone(),
            job: job.clone(),
            reason: conviction.reason,
            message: conviction.sentence(entry.attempts),
            stuck: condemned.to_vec(),
            image: conviction.key.clone(),
        };
        self.emit(format!("{}/fail", entry.tag()), (Some(&id), &id.namespace), Step::FailJob, effect, desk);
        false
    }
}

/// The pods that a conviction condemns, each with its image.
pub(super) fn for_image(condemned: &[String], conviction: &Conviction) -> Vec<(String, String)> {
    condemned.iter().map(|uid| (uid.clone(), conviction.key.clone())).collect()
}

impl TaskEntry {
    /// A record of long ago, read by a ledger that has told nothing yet, was told by the one before.
    fn assume_told(&mut self, wall: jiff::Timestamp) {
        let settled = self.permanent().and_then(|record| record.failed_at);
        if settled.is_some_and(|at| elapsed(at, wall) >= SETTLED) && self.steps.told.is_empty() {
            self.steps.told.insert("failed".to_owned());
            self.collected_told = self.collected_told.max(self.collected);
        }
    }
}
