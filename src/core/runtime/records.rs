//! The record of a task: what it should say, when it is written, and when it ends.
//!
//! Enters: a task's entry. Leaves: a write, if the record in the cluster says otherwise; one at a time, under its fence.

use std::time::Duration;

use super::super::cause::FailureClass;
use super::super::pod::OwnerRef;
use super::super::reason::Reason;
use super::effect::{Effect, FailureState, Fence, ObjectRef, Record, RecordedFailure};
use super::entry::{TaskEntry, key_of};
use super::findings::Finding;
use super::ledger::{Ledger, Step};
use super::moment::{Pace, elapsed, later, next_second, whole_second};
use super::notes::Conviction;
use super::planner::{Cx, Desk};
use super::pods::PodEntry;
use super::rules::Rules;
use super::sight::OwnerSight;

/// As long as a record stays after its end.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// No pod of a task has failed for so long, or for its grace: it is no longer failing.
const QUIET: Duration = Duration::from_secs(15 * 60);
/// Between two updates of one record that only bring its numbers up to date.
const AT_MOST_EVERY: Duration = Duration::from_secs(5);
/// By how much a record's clock may differ from ours without being written again.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(5);
const MOST_POLICIES: usize = 20;

pub(super) fn quiet_after(rules: &Rules) -> Duration {
    QUIET.max(rules.longest_grace())
}

impl TaskEntry {
    /// What the task is named by in effect ids.
    pub(super) fn tag(&self) -> String {
        format!("{}/{}", self.task.id.namespace, self.record_name)
    }

    /// A conviction about one image, from what was last told of it.
    pub(super) fn about(&self, key: &str, reason: Reason) -> Option<Conviction> {
        let failure = self.failures.get(key)?;
        Some(Conviction {
            reason,
            class: Some(failure.class),
            image: failure.image.clone(),
            key: key.to_owned(),
            message: failure.message.clone(),
            remedy: failure.remedy.clone(),
        })
    }

    /// The image that has failed the longest.
    pub(super) fn suspect(&self) -> Option<Conviction> {
        let clocks = self.clocks.iter().filter(|(key, _)| self.failures.contains_key(*key));
        let (key, _) = clocks.min_by_key(|(key, clock)| (!clock.open, clock.since(), *key))?;
        self.about(key, Reason::PullRetrying)
    }

    /// What the record should say.
    pub(super) fn draft(
        &self,
        rules: &Rules,
        state: FailureState,
        reason: Reason,
        conviction: Option<&Conviction>,
        cx: &Cx<'_>,
        pace: &Pace,
    ) -> Record {
        let now = whole_second(cx.wall);
        let known = self.record.as_ref().map(|sight| &sight.record);
        let suspect = conviction.cloned().or_else(|| self.suspect());
        let first = self.clocks.values().map(|clock| clock.since()).min();
        let failures = self.failures.iter().map(|(key, failure)| {
            let since = self.clocks.get(key).map(|clock| next_second(pace.wall(clock.since())));
            RecordedFailure { first_seen: since.or(failure.first_seen), ..RecordedFailure::clone(failure) }
        });
        let failed_at = match state {
            FailureState::PermanentlyFailed => {
                let same = known.filter(|known| known.is_about(conviction));
                same.and_then(|known| known.failed_at).or(Some(now))
            }
            FailureState::Retrying | FailureState::Resolved => None,
        };
        let mut policies: Vec<String> = rules.policies.iter().map(|mark| mark.name.clone()).collect();
        policies.truncate(MOST_POLICIES);
        Record {
            namespace: self.task.id.namespace.clone(),
            name: self.record_name.clone(),
            task: self.task.task_ref(),
            maker: known.and_then(|known| known.maker.clone()),
            state,
            reason,
            class: suspect.as_ref().and_then(|suspect| suspect.class),
            image: suspect.as_ref().map(|suspect| suspect.image.clone()).unwrap_or_default(),
            message: suspect.as_ref().map(|suspect| suspect.message.clone()).unwrap_or_default(),
            remedy: suspect.map(|suspect| suspect.remedy).unwrap_or_default(),
            policies,
            first_seen: first.map(|first| next_second(pace.wall(first))),
            failed_at,
            expires_at: failed_at.map(|at| later(at, rules.expiry)),
            resolved_at: None,
            attempts: self.attempts,
            counted_pods: self.counted.iter().cloned().collect(),
            pods_collected: self.collected,
            failures: failures.collect(),
        }
    }

    /// For Events about a task that is no object.
    pub(super) fn record_object(&self) -> ObjectRef {
        ObjectRef {
            api_version: "pullguard.dev/v1alpha1".to_owned(),
            kind: "PullFailure".to_owned(),
            namespace: self.task.id.namespace.clone(),
            name: self.record_name.clone(),
            uid: self.record.as_ref().map(|sight| sight.uid.clone()).unwrap_or_default(),
        }
    }
}

impl Record {
    /// Whether it was written for the image of a conviction. One that names none is about whatever the record is about.
    pub(super) fn is_about(&self, conviction: Option<&Conviction>) -> bool {
        self.state != FailureState::PermanentlyFailed
            || conviction.is_none_or(|conviction| key_of(&self.image) == conviction.key)
    }
}

/// Whether a record says something else than it should, of what anybody reads it for.
fn differs(known: &Record, wanted: &Record) -> bool {
    let images = |record: &Record| -> Vec<(String, FailureClass)> {
        record.failures.iter().map(|failure| (failure.image.clone(), failure.class)).collect()
    };
    let clock = match (known.first_seen, wanted.first_seen) {
        (Some(known), Some(wanted)) => elapsed(known, wanted) > CLOCK_DIFFERENCE,
        (None, Some(_)) => true,
        (_, None) => false,
    };
    clock
        || known.class != wanted.class
        || known.image != wanted.image
        || known.maker != wanted.maker
        || known.attempts != wanted.attempts
        || known.pods_collected != wanted.pods_collected
        || images(known) != images(wanted)
}

impl Ledger {
    pub(super) fn maker(&self, entry: &TaskEntry) -> Option<&OwnerRef> {
        match self.owners.get(&entry.task.owner()?.uid).map(|known| &known.sight) {
            Some(OwnerSight::Found(facts)) => facts.controller.as_ref(),
            Some(OwnerSight::NotFound { .. } | OwnerSight::Unreadable { .. }) | None => None,
        }
    }

    /// Whether the record in the cluster says this. If not, it is written.
    pub(super) fn want_record(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        state: FailureState,
        reason: Reason,
        conviction: Option<&Conviction>,
        desk: &mut Desk<'_>,
    ) -> bool {
        let said = |record: &Record| record.state == state && record.reason == reason && record.is_about(conviction);
        let known = entry.record.as_ref().filter(|sight| said(&sight.record));
        // Once it is said that the task has failed for good, the record stays what it is.
        if known.is_some() && state == FailureState::PermanentlyFailed {
            return true;
        }
        let mut wanted = match &entry.denied {
            Some(denied) => (**denied).clone(),
            None => entry.draft(rules, state, reason, conviction, &desk.cx, &self.pace),
        };
        if let Some(maker) = self.maker(entry) {
            wanted.maker = Some(format!("{}/{}", maker.kind, maker.name));
        }
        if let Some(known) = known {
            let class = wanted.class.unwrap_or(FailureClass::Unknown);
            let pause = (rules.grace(class) / 2).max(AT_MOST_EVERY);
            let recently = entry.recorded_at.is_some_and(|at| desk.cx.now.since(at) < pause);
            if recently || !differs(&known.record, &wanted) {
                return true;
            }
            // It is said already; only its numbers are behind.
            self.write_record(entry, wanted, desk);
            return true;
        }
        self.write_record(entry, wanted, desk);
        false
    }

    pub(super) fn write_record(&mut self, entry: &mut TaskEntry, record: Record, desk: &mut Desk<'_>) {
        if entry.retry_at > desk.cx.now {
            entry.wake = entry.wake.min(entry.retry_at);
            return;
        }
        if entry.record.as_ref().is_some_and(|sight| sight.deleting) {
            return;
        }
        let fence = entry
            .record
            .as_ref()
            .map(|sight| Fence { uid: sight.uid.clone(), resource_version: sight.resource_version.clone() });
        let id = entry.task.id.clone();
        // One at a time, whatever it says: the next one needs the fence that this one brings.
        let name = format!("{}/record", entry.tag());
        let before = entry.record.as_ref().map(|sight| (sight.record.state, sight.record.image.clone()));
        let step = Step::Record { record: Box::new(record.clone()), before };
        let effect = Effect::WriteRecord { fence, record: Box::new(record) };
        self.emit(name, (Some(&id), &id.namespace), step, effect, desk);
    }

    /// The failure is over. True: the record is on its way to say so.
    pub(super) fn resolve(
        &mut self,
        entry: &mut TaskEntry,
        findings: &[Finding],
        rules: &Rules,
        desk: &mut Desk<'_>,
    ) -> bool {
        let failing = entry.record.as_ref().filter(|sight| sight.record.state != FailureState::Resolved);
        let permanent = failing.is_some_and(|sight| sight.record.state == FailureState::PermanentlyFailed);
        let Some(sight) = failing.filter(|_| !rules.audits()) else {
            // Nothing is to be written: what is over is over in memory.
            entry.over = false;
            if findings.is_empty() && !permanent {
                entry.begin_anew(desk.cx.now);
            }
            return false;
        };
        if !permanent && !findings.is_empty() {
            // Another pod still waits.
            entry.over = false;
            return false;
        }
        let known = sight.record.clone();
        if !self.unmark_job(entry, desk) {
            return true;
        }
        let record = Record {
            state: FailureState::Resolved,
            reason: Reason::PullResolved,
            resolved_at: Some(whole_second(desk.cx.wall)),
            expires_at: None,
            ..known
        };
        self.write_record(entry, record, desk);
        true
    }

    /// Ends what has an end: records after a day, clocks after the grace. False: nothing is left to keep.
    pub(super) fn keep_house(&mut self, entry: &mut TaskEntry, desk: &mut Desk<'_>) -> bool {
        let long = entry.rules.as_ref().map_or(QUIET, quiet_after);
        let idle = entry
            .idle_since
            .filter(|_| entry.pods.iter().all(|uid| !self.pods.get(uid).is_some_and(PodEntry::is_stuck)));
        let quiet = idle.is_some_and(|since| desk.cx.now.since(since) >= long);
        let audits = entry.rules.as_ref().is_some_and(Rules::audits);
        if let Some(ending) = entry.tell_resolved.filter(|_| !audits) {
            self.tell_resolved(entry, ending, desk);
        }
        let record = entry.record.as_ref().map(|sight| &sight.record);
        let end = record.and_then(|record| match record.state {
            FailureState::Resolved => record.resolved_at,
            FailureState::PermanentlyFailed => record.failed_at.filter(|_| idle.is_some()),
            FailureState::Retrying => None,
        });
        let outlived = end.is_some_and(|end| desk.cx.now.since(entry.moment_of_end(end, &self.pace)) >= KEPT);
        if let Some(sight) = &entry.record {
            let record = &sight.record;
            if outlived && !audits && !sight.deleting && entry.retry_at <= desk.cx.now {
                let fence = Fence { uid: sight.uid.clone(), resource_version: sight.resource_version.clone() };
                let id = entry.task.id.clone();
                let effect =
                    Effect::RemoveRecord { namespace: id.namespace.clone(), name: entry.record_name.clone(), fence };
                let name = format!("{}/remove", entry.tag());
                self.emit(name, (Some(&id), &id.namespace), Step::Remove, effect, desk);
            } else if record.state == FailureState::Retrying && quiet && !audits {
                let resolved = Record {
                    state: FailureState::Resolved,
                    reason: Reason::PullResolved,
                    resolved_at: Some(whole_second(desk.cx.wall)),
                    ..record.clone()
                };
                self.write_record(entry, resolved, desk);
            }
        } else if quiet {
            entry.clocks.retain(|_, clock| clock.open);
            let clocks = &entry.clocks;
            entry.failures.retain(|key, _| clocks.contains_key(key));
        }
        let dead_end = entry.steps.owner_gone && entry.pods.is_empty() && entry.record.is_none();
        let empty =
            entry.pods.is_empty() && entry.clocks.is_empty() && entry.record.is_none() && entry.denied.is_none();
        !(empty || dead_end) || entry.tell_resolved.is_some()
    }
}
