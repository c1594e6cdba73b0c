//! How effects went, and what that changes.
//!
//! Enters: an outcome under the id of its effect. Leaves: the steps that are done. An outcome that nobody waits for, or that
//! comes twice, changes nothing.

use std::time::Duration;

use jiff::Timestamp;

use super::effect::{EffectId, FailureState, Fence, Outcome, Record};
use super::entry::{Ending, Steps, TaskEntry};
use super::guard::Guard;
use super::ledger::{Flight, Ledger, News, Step};
use super::moment::Moment;
use super::patience::Patience;
use super::sight::RecordSight;
use super::task::TaskId;

/// A pod or Job that could not be acted upon is looked at again after this, if nothing is seen of it before.
const AGAIN: Duration = Duration::from_secs(15);

impl Ledger {
    /// How an effect of a plan went.
    pub fn outcome(&mut self, id: &EffectId, outcome: Outcome, now: Timestamp) -> News {
        let moment = self.tick(now);
        let Some(Flight { task, step, since: _ }) = self.flights.remove(id) else { return News::None };
        match step {
            Step::Read => {
                // What was read came by its own door; without it, the next plan asks again.
                let failed = match outcome {
                    Outcome::Done { .. } | Outcome::Gone | Outcome::Conflict => false,
                    Outcome::Refused(_) | Outcome::Failed(_) => true,
                };
                match task.and_then(|id| self.tasks.get_mut(&id)) {
                    Some(entry) if failed => entry.set_back(moment),
                    Some(entry) => entry.dirty = true,
                    None if failed => {
                        self.unread.entry(id.clone()).or_default().set_back(moment);
                        return News::None;
                    }
                    None => {
                        self.unread.remove(id);
                    }
                }
            }
            Step::Announce => {}
            Step::Record { record, before } => self.record_written(task, *record, before, outcome, moment),
            Step::Remove => {
                if let Some(entry) = task.and_then(|id| self.tasks.get_mut(&id)) {
                    match outcome {
                        // Forgotten when the watch says so.
                        Outcome::Done { .. } | Outcome::Gone => {
                            if let Some(sight) = &mut entry.record {
                                sight.deleting = true;
                            }
                        }
                        Outcome::Refused(_) | Outcome::Conflict | Outcome::Failed(_) => entry.set_back(moment),
                    }
                }
            }
            Step::Mark | Step::Unmark | Step::FailJob | Step::Tell { .. } => {
                if let Some(entry) = task.as_ref().and_then(|id| self.tasks.get_mut(id)) {
                    if owner_step(entry, &step, outcome, moment)
                        && let Some(owner) = entry.task.owner()
                    {
                        self.owners.remove(&owner.uid);
                    }
                    entry.dirty = true;
                }
            }
            Step::FailPod { uid } => self.pod_failed(task, &uid, outcome, moment),
            Step::Delete { uid } => self.pod_deleted(task, &uid, outcome, moment),
        }
        News::Some
    }

    fn record_written(
        &mut self,
        task: Option<TaskId>,
        record: Record,
        before: Option<(FailureState, String)>,
        outcome: Outcome,
        now: Moment,
    ) {
        let Some(entry) = task.and_then(|id| self.tasks.get_mut(&id)) else { return };
        entry.dirty = true;
        match outcome {
            Outcome::Done { fence } => {
                entry.setbacks = 0;
                entry.recorded_at = Some(now);
                let Some(Fence { uid, resource_version }) = fence else { return };
                let (state, failed) = (record.state, (record.reason, record.class));
                let another_image = before.as_ref().is_some_and(|(before, image)| {
                    (*before, state) == (FailureState::PermanentlyFailed, FailureState::PermanentlyFailed)
                        && *image != record.image
                });
                if another_image {
                    // Of the steps for it none is done.
                    entry.steps = Steps::default();
                }
                let same = before.is_some_and(|(before, _)| before == state) && !another_image;
                let written = RecordSight { uid, resource_version, deleting: false, record };
                // The watch may have been faster, and may have brought what came after this.
                if !entry.record.as_ref().is_some_and(|known| known.supersedes(&written)) {
                    entry.record = Some(written);
                }
                if same {
                    return;
                }
                match state {
                    FailureState::Retrying => {}
                    FailureState::PermanentlyFailed => {
                        let counted = &mut self.counters.tasks_failed;
                        *counted.entry((failed.0, failed.1, false)).or_default() += 1;
                    }
                    FailureState::Resolved => {
                        self.counters.tasks_resolved = self.counters.tasks_resolved.saturating_add(1);
                        let ending = if entry.over { Ending::Mended } else { Ending::Quiet };
                        entry.begin_anew(now);
                        entry.tell_resolved = Some(ending);
                    }
                }
            }
            Outcome::Gone => {
                // Deleted under our hands: the watch will say so too.
                entry.record = None;
                entry.set_back(now);
            }
            Outcome::Refused(_) | Outcome::Conflict | Outcome::Failed(_) => entry.set_back(now),
        }
    }

    fn pod_failed(&mut self, task: Option<TaskId>, uid: &str, outcome: Outcome, now: Moment) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        match outcome {
            Outcome::Done { .. } => {
                pod.failed_at = Some(now);
                pod.counted = true;
                self.counters.pods_failed = self.counters.pods_failed.saturating_add(1);
                if let Some(entry) = task.as_ref().and_then(|id| self.tasks.get_mut(id)) {
                    if entry.count(uid, self.pace.at(pod.sight.created), now) {
                        self.counters.attempts = self.counters.attempts.saturating_add(1);
                    }
                    entry.failed_pods.extend(pod.failed_for.take().map(|key| (pod.object(), key)));
                }
            }
            Outcome::Gone => self.forget_now(uid),
            // It changed: what it changed to is on its way through the watch.
            Outcome::Refused(_) | Outcome::Failed(_) => pod.wait_until = now.plus(AGAIN),
            Outcome::Conflict => pod.wait_until = now.plus(Duration::from_secs(1)),
        }
        if let Some(entry) = task.and_then(|id| self.tasks.get_mut(&id)) {
            entry.dirty = true;
        }
    }

    fn pod_deleted(&mut self, task: Option<TaskId>, uid: &str, outcome: Outcome, now: Moment) {
        // The watch may have been faster, and the pod may be gone from here: it was collected all the same.
        let collected = matches!(outcome, Outcome::Done { .. });
        if collected {
            self.counters.pods_collected = self.counters.pods_collected.saturating_add(1);
        }
        if let Some(pod) = self.pods.get_mut(uid) {
            match outcome {
                Outcome::Done { .. } => {
                    pod.collected = true;
                    pod.counted = true;
                }
                Outcome::Gone => self.forget_now(uid),
                Outcome::Refused(_) | Outcome::Failed(_) => pod.wait_until = now.plus(AGAIN),
                Outcome::Conflict => pod.wait_until = now.plus(Duration::from_secs(1)),
            }
        }
        if let Some(entry) = task.and_then(|id| self.tasks.get_mut(&id)) {
            entry.collected = entry.collected.saturating_add(u32::from(collected));
            // Never one of a Job, so when it was made does not matter.
            if collected && entry.count(uid, now, now) {
                self.counters.attempts = self.counters.attempts.saturating_add(1);
            }
            entry.dirty = true;
        }
    }

    /// A pod that is gone without the watch having said so yet.
    fn forget_now(&mut self, uid: &str) {
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.fate = super::pods::Fate::Gone;
            pod.dirty = true;
            self.dirty_pods.insert(uid.to_owned());
        }
    }
}

/// A step on the owner, or an Event. True: what is known of the owner is out of date.
fn owner_step(entry: &mut TaskEntry, step: &Step, outcome: Outcome, now: Moment) -> bool {
    match (step, outcome) {
        (Step::Tell { what }, Outcome::Done { .. } | Outcome::Gone | Outcome::Refused(_)) => {
            entry.steps.told.insert(what.clone());
            entry.telling = Patience::default();
            false
        }
        (Step::Tell { .. }, Outcome::Conflict | Outcome::Failed(_)) => {
            entry.telling.set_back(now);
            false
        }
        (Step::Mark, Outcome::Done { .. }) => {
            entry.steps.marked = true;
            entry.setbacks = 0;
            false
        }
        (Step::Unmark, Outcome::Done { .. }) => {
            entry.steps.marked = false;
            entry.setbacks = 0;
            true
        }
        (Step::FailJob, Outcome::Done { .. }) => {
            entry.steps.owner_failed = true;
            entry.setbacks = 0;
            false
        }
        (_, Outcome::Gone) => {
            entry.steps.owner_gone = true;
            false
        }
        (_, Outcome::Refused(guard)) => {
            entry.steps.may_fail = false;
            refused(&mut entry.steps, guard);
            entry.retry_at = now.plus(match guard {
                Guard::PodStarted | Guard::PodSucceeded | Guard::FailingAlready => Duration::ZERO,
                Guard::Gone
                | Guard::Unreadable
                | Guard::NotAJob
                | Guard::Deleting
                | Guard::Finished
                | Guard::Succeeding
                | Guard::Suspended
                | Guard::ManagedElsewhere
                | Guard::NotStarted
                | Guard::NothingStuck
                | Guard::Mirror
                | Guard::NotStuck => AGAIN,
            });
            true
        }
        (_, Outcome::Conflict | Outcome::Failed(_)) => {
            entry.set_back(now);
            true
        }
        (_, Outcome::Done { .. }) => false,
    }
}

fn refused(steps: &mut Steps, guard: Guard) {
    match guard {
        Guard::FailingAlready => steps.owner_failed = true,
        Guard::PodStarted | Guard::PodSucceeded => steps.only_pods = true,
        Guard::Gone => steps.owner_gone = true,
        Guard::ManagedElsewhere | Guard::Unreadable | Guard::NotAJob => steps.hands_off = true,
        // Looked at again.
        Guard::Deleting
        | Guard::Finished
        | Guard::Succeeding
        | Guard::Suspended
        | Guard::NotStarted
        | Guard::NothingStuck
        | Guard::Mirror
        | Guard::NotStuck => {}
    }
}
