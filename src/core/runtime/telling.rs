//! The Events of a task: each once, under a name that a second leader or a restart would give it too.
//!
//! Enters: what a task has come to. Leaves: an Event, if it was not told.

use std::time::Duration;

use super::super::pod::OwnerRef;
use super::super::reason::Reason;
use super::effect::{Effect, EventAction, EventDraft, EventType, ObjectRef, Record};
use super::entry::{Ending, TaskEntry};
use super::ledger::{Ledger, Step};
use super::notes::{Conviction, note};
use super::planner::Desk;
use super::pods::PodEntry;
use super::records::quiet_after;
use super::rules::Rules;
use super::steps::{Way, for_image};
use super::task::object_of;

/// Between two Events about collected pods of one task.
const COLLECT_TOLD: Duration = Duration::from_secs(300);

/// One Event about a task.
struct Telling {
    /// It is told once.
    what: String,
    reason: Reason,
    action: EventAction,
    event_type: EventType,
    regarding: ObjectRef,
    text: String,
}

impl Ledger {
    /// Tells once. True: it is told.
    pub(super) fn tell(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        what: &str,
        (reason, action): (Reason, EventAction),
        conviction: &Conviction,
        desk: &mut Desk<'_>,
    ) -> bool {
        let regarding = self.regarding(entry);
        let text = if reason == Reason::PullRetrying {
            let class = conviction.class.map_or("no cause told", super::super::cause::FailureClass::as_str);
            format!("image {} fails to pull ({class}): {}. {}", conviction.image, conviction.message, conviction.remedy)
        } else {
            conviction.sentence(entry.attempts)
        };
        let event_type = if reason == Reason::PullResolved { EventType::Normal } else { EventType::Warning };
        let telling = Telling { what: what.to_owned(), reason, action, event_type, regarding, text };
        self.tell_about(entry, rules, telling, desk)
    }

    /// The task's object, else its record.
    fn regarding(&self, entry: &TaskEntry) -> ObjectRef {
        let pods = entry.pods.iter().filter_map(|uid| self.pods.get(uid));
        let newest = pods.max_by_key(|pod| (pod.sight.created, &pod.sight.uid)).map(PodEntry::object);
        entry.task.object(newest).unwrap_or_else(|| entry.record_object())
    }

    fn tell_about(&mut self, entry: &mut TaskEntry, rules: &Rules, telling: Telling, desk: &mut Desk<'_>) -> bool {
        let Telling { what, reason, action, event_type, regarding, text } = telling;
        let audit = rules.audits();
        // What would have been done is told once, and once more what is: a policy on trial is some day in force.
        let what = if audit { format!("{what}/audit") } else { what };
        if entry.steps.told.contains(&what) {
            return true;
        }
        if entry.telling.until > desk.cx.now {
            entry.wake = entry.wake.min(entry.telling.until);
            return false;
        }
        let id = entry.task.id.clone();
        let failed_at = entry.permanent().and_then(|record| record.failed_at).map_or(0, |at| at.as_second());
        let key = format!("{}/{what}/{}/{failed_at}", entry.tag(), reason.as_str());
        let draft = EventDraft {
            namespace: id.namespace.clone(),
            event_type,
            reason,
            action,
            regarding,
            related: entry.record.is_some().then(|| entry.record_object()),
            note: note(audit, &text),
            key: key.clone(),
        };
        let step = Step::Tell { what };
        self.emit(format!("event/{key}"), (Some(&id), &id.namespace), step, Effect::EmitEvent(draft), desk);
        false
    }

    /// That a pod was failed, or would be, and its task not. True: it is told.
    fn tell_of_pod(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        regarding: ObjectRef,
        key: &str,
        desk: &mut Desk<'_>,
    ) -> bool {
        let Some(conviction) = entry.about(key, Reason::PodFailed) else { return true };
        let action = if rules.audits() { EventAction::WouldFailPod } else { EventAction::FailPod };
        let text = format!("failed in place, its task goes on: {}", conviction.sentence(entry.attempts));
        let what = format!("pod/{}", regarding.uid);
        let telling =
            Telling { what, reason: Reason::PodFailed, action, event_type: EventType::Warning, regarding, text };
        self.tell_about(entry, rules, telling, desk)
    }

    pub(super) fn tell_would_fail(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        pods: &[(String, String)],
        desk: &mut Desk<'_>,
    ) {
        for (uid, image) in pods {
            if let Some(regarding) = self.pods.get(uid).map(PodEntry::object) {
                self.tell_of_pod(entry, rules, regarding, image, desk);
            }
        }
    }

    /// The pods that were failed alone: they may be gone from the ledger by now.
    pub(super) fn tell_failed_pods(&mut self, entry: &mut TaskEntry, rules: &Rules, desk: &mut Desk<'_>) {
        for (regarding, key) in std::mem::take(&mut entry.failed_pods) {
            if !self.tell_of_pod(entry, rules, regarding.clone(), &key, desk) {
                entry.failed_pods.push((regarding, key));
            }
        }
    }

    /// Audit: the very same Events, and nothing else.
    pub(super) fn tell_would(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        way: Way,
        condemned: &[String],
        conviction: &Conviction,
        desk: &mut Desk<'_>,
    ) {
        let action = match way {
            Way::Leave => return,
            Way::PodsOnly => {
                return self.tell_would_fail(entry, rules, &for_image(condemned, conviction), desk);
            }
            Way::TellOnly => EventAction::Report,
            Way::Job | Way::Listed => EventAction::WouldFailOwner,
            Way::Pods => EventAction::WouldFailPod,
        };
        if entry.permanent().is_some() {
            // Failed in earnest, before the policy was turned to Audit.
            return;
        }
        if !entry.steps.counted_as_failed {
            entry.steps.counted_as_failed = true;
            *self.counters.tasks_failed.entry((conviction.reason, conviction.class, true)).or_default() += 1;
        }
        if !self.tell(entry, rules, "failed", (conviction.reason, action), conviction, desk) {
            return;
        }
        self.escalate(entry, rules, conviction, desk);
        let collects = match way {
            Way::Pods | Way::Listed => true,
            Way::Leave | Way::TellOnly | Way::PodsOnly | Way::Job => false,
        };
        let count = condemned.len().saturating_sub(rules.keep_pods as usize);
        if collects && count > 0 {
            let text = format!("{count} pods that never ran would be deleted");
            let telling = Telling {
                what: "collected".to_owned(),
                reason: Reason::PodsCollected,
                action: EventAction::WouldCollectPods,
                event_type: EventType::Normal,
                regarding: self.regarding(entry),
                text,
            };
            self.tell_about(entry, rules, telling, desk);
        }
    }

    /// How many pods were collected: in the record, and in an Event.
    pub(super) fn tell_collected(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        conviction: &Conviction,
        desk: &mut Desk<'_>,
    ) {
        let recorded = entry.permanent().map(|record| record.pods_collected);
        if recorded.is_none_or(|recorded| recorded >= entry.collected) && entry.collected_told >= entry.collected {
            return;
        }
        if let Some(next) = entry.steps.collect_told_at.map(|at| at.plus(COLLECT_TOLD))
            && next > desk.cx.now
            && entry.collected_told < entry.collected
        {
            entry.wake = entry.wake.min(next);
            return;
        }
        if recorded.is_some_and(|recorded| recorded < entry.collected)
            && let Some(record) = entry.permanent().cloned()
        {
            let wanted = Record {
                pods_collected: entry.collected,
                attempts: entry.attempts,
                counted_pods: entry.counted.iter().cloned().collect(),
                ..record
            };
            self.write_record(entry, wanted, desk);
        }
        if entry.collected_told < entry.collected {
            let count = entry.collected - entry.collected_told;
            let text = format!("{count} pods that never ran were deleted; image {}", conviction.image);
            let telling = Telling {
                what: format!("collected/{}", entry.collected),
                reason: Reason::PodsCollected,
                action: EventAction::CollectPods,
                event_type: EventType::Normal,
                regarding: self.regarding(entry),
                text,
            };
            if self.tell_about(entry, rules, telling, desk) {
                entry.collected_told = entry.collected;
                entry.steps.collect_told_at = Some(desk.cx.now);
            }
        }
    }

    /// Which story of which maker a run belongs to, if it was made by one.
    fn story(&self, entry: &TaskEntry, conviction: &Conviction) -> Option<(String, OwnerRef)> {
        let maker = self.maker(entry)?;
        let class = conviction.class.map_or("", super::super::cause::FailureClass::as_str);
        let namespace = &entry.task.id.namespace;
        Some((format!("{namespace}/{}/{}/{class}/{}", maker.kind, maker.name, conviction.key), maker.clone()))
    }

    /// Whether an earlier run of the same maker failed for the same cause: that this one is in trouble is no news then.
    pub(super) fn has_failed_before(&self, entry: &TaskEntry, conviction: &Conviction) -> bool {
        self.story(entry, conviction).is_some_and(|(story, _)| self.stories.contains_key(&story))
    }

    /// One Event for a maker whose runs fail for one cause, not one a run.
    pub(super) fn escalate(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        conviction: &Conviction,
        desk: &mut Desk<'_>,
    ) {
        let Some((story, maker)) = self.story(entry, conviction) else { return };
        let runs = self.stories.entry(story.clone()).or_default();
        runs.insert(entry.record_name.clone());
        let count = runs.len();
        if count < 2 || self.escalated.contains(&story) {
            return;
        }
        let text = format!(
            "{count} runs of {}/{} failed for one cause: {}",
            maker.kind,
            maker.name,
            conviction.sentence(entry.attempts)
        );
        let telling = Telling {
            what: format!("runs/{story}"),
            reason: Reason::RunsKeepFailing,
            action: EventAction::Report,
            event_type: EventType::Warning,
            regarding: object_of(&maker, &entry.task.id.namespace),
            text,
        };
        if self.tell_about(entry, rules, telling, desk) {
            self.escalated.insert(story);
        }
    }

    pub(super) fn tell_resolved(&mut self, entry: &mut TaskEntry, ending: Ending, desk: &mut Desk<'_>) {
        let (Some(rules), Some(sight)) = (entry.rules.clone(), entry.record.as_ref()) else {
            entry.tell_resolved = None;
            return;
        };
        let image = &sight.record.image;
        let text = match ending {
            Ending::Mended => format!("image {image} can be pulled again, or the task was changed"),
            Ending::Quiet => {
                let minutes = quiet_after(&rules).as_secs() / 60;
                format!(
                    "no pod of the task has waited for image {image} for {minutes} minutes: it was mended or given up"
                )
            }
        };
        let what = format!("resolved/{}", sight.record.resolved_at.map_or(0, |at| at.as_second()));
        let telling = Telling {
            what,
            reason: Reason::PullResolved,
            action: EventAction::Resolve,
            event_type: EventType::Normal,
            regarding: self.regarding(entry),
            text,
        };
        if self.tell_about(entry, &rules, telling, desk) {
            entry.tell_resolved = None;
        }
    }
}
