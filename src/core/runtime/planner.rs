//! One plan: every task that asks for it is looked at, and its next step is taken.
//!
//! Enters: the ledger, the time, the snapshots of the other halves. Leaves: a `Plan`. What a step is, is in `acts`; here
//! is who gets one, and what is bounded.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::super::cause::FailureClass;
use super::super::pod::OwnerRef;
use super::super::policies::Certainty;
use super::super::policy::{FailOwner, Policy};
use super::brake::{Level, Place};
use super::braking::CAP_TOLD;
use super::caps::Hit;
use super::denied::{DeniedJobs, Next};
use super::effect::{Effect, EffectId, Planned};
use super::entry::TaskEntry;
use super::ledger::{Flight, Ledger, Step};
use super::moment::{LONGEST_STEP, Moment};
use super::plan::{Plan, Setting};
use super::pods::{Fate, SILENCE};
use super::rules::Rules;
use super::sight::{OwnerSight, PolicyMark};
use super::task::{Above, Identity, Task, TaskId, identify};

/// How often everything is looked at, changed or not.
const LOOK_THROUGH: Duration = Duration::from_secs(30);
/// After this an outcome is no longer awaited.
const LOST: Duration = Duration::from_secs(60);
/// Owners are read again before anything is concluded from what is older; the guards read them once more.
pub(super) const OWNER_FRESH: Duration = Duration::from_secs(60);
/// A plan that hit its own bound is followed by another soon.
const SOON: Duration = Duration::from_secs(1);

/// What a plan is made under.
#[derive(Clone, Copy)]
pub(super) struct Cx<'a> {
    pub setting: Setting<'a>,
    pub now: Moment,
    pub wall: Timestamp,
}

/// What a plan is made of.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub effects: Vec<Planned>,
    pub wake: Option<Moment>,
    pub hits: BTreeSet<Hit>,
}

/// A plan in the making: what it is made under, and what is in it already.
pub(super) struct Desk<'a> {
    pub cx: Cx<'a>,
    pub out: Out,
}

impl Out {
    pub fn wake(&mut self, at: Moment) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }
}

/// Which rules hold for a pod.
enum Governance {
    None,
    Unsure,
    Rules(Box<Rules>),
}

impl Ledger {
    /// What is to be done now.
    pub fn plan(&mut self, now: Timestamp, setting: &Setting<'_>) -> Plan {
        let moment = self.tick(now);
        let cx = Cx { setting: *setting, now: moment, wall: now };
        let mut desk = Desk { cx, out: Out::default() };
        self.acts.begin_plan(moment);
        self.tells.begin_plan(moment);
        self.reads.begin_plan(moment);
        self.flights.retain(|_, flight| moment.since(flight.since) < LOST);
        let everything = self.looked_through.is_none_or(|last| moment.since(last) >= LOOK_THROUGH);
        if everything {
            self.looked_through = Some(moment);
            for pod in self.pods.values_mut() {
                pod.forget_silent(moment);
            }
            self.dirty_pods.extend(self.pods.keys().cloned());
            self.tidy(moment);
        }
        self.count_waiting(moment);
        self.feed_brakes(&cx);
        self.assign_pods(&mut desk);
        self.work_brakes(everything, &mut desk);
        self.heed_starts(&cx);
        self.work_denied(&mut desk);
        self.work_tasks(everything, &mut desk);
        self.tell_caps(&mut desk);
        let stuck_pods = self.pods.values().filter(|pod| pod.is_stuck()).count();
        Plan {
            recheck_after: self.recheck(moment, &desk.out),
            effects: desk.out.effects,
            counters: std::mem::take(&mut self.counters),
            brakes: self.brakes.reports(moment),
            stuck_pods,
        }
    }

    fn recheck(&self, now: Moment, out: &Out) -> Option<Duration> {
        let longest = LONGEST_STEP / 2;
        let pending = !self.pods.is_empty() || !self.tasks.is_empty() || out.wake.is_some() || !self.flights.is_empty();
        let soonest = self.tasks.values().map(|task| task.wake).chain(out.wake).min();
        let capped = (!out.hits.is_empty()).then_some(SOON);
        let next = soonest.map_or(longest, |at| at.since(now)).min(capped.unwrap_or(longest));
        pending.then(|| next.clamp(Duration::from_millis(20), longest))
    }

    fn count_waiting(&mut self, now: Moment) {
        for pod in self.pods.values_mut() {
            if pod.is_stuck() {
                let class = pod.told().find_map(super::pods::Trouble::class);
                self.counters.wait(class, now.since(pod.waited_to));
            }
            pod.waited_to = now;
        }
    }

    fn govern(cx: &Cx<'_>, pod: &super::super::pod::PodFacts) -> Governance {
        let namespace = (cx.setting.namespaces)(&pod.namespace);
        let mut matching: Vec<&Policy> = Vec::new();
        for (entry, certainty) in cx.setting.policies.matching(&pod.labels, &namespace) {
            match certainty {
                Certainty::Certain => matching.push(&entry.policy),
                Certainty::Possible => return Governance::Unsure,
            }
        }
        Rules::most_cautious(&matching).map_or(Governance::None, |rules| Governance::Rules(Box::new(rules)))
    }

    fn above(&self, owner: &OwnerRef) -> Above {
        match self.owners.get(&owner.uid).map(|known| &known.sight) {
            None => Above::Unasked,
            Some(OwnerSight::NotFound { .. } | OwnerSight::Unreadable { .. }) => Above::Nobody,
            Some(OwnerSight::Found(facts)) => facts.controller.clone().map_or(Above::Nobody, Above::Controller),
        }
    }

    /// Finds the task of each pod that changed.
    fn assign_pods(&mut self, desk: &mut Desk<'_>) {
        for uid in std::mem::take(&mut self.dirty_pods) {
            let Some(pod) = self.pods.get(&uid) else { continue };
            let task = match Self::govern(&desk.cx, &pod.sight.facts) {
                Governance::None => None,
                Governance::Unsure => {
                    // Neither acted upon nor forgotten: it is asked again when the namespace is known.
                    self.leave_task(&uid);
                    self.drop_if_done(&uid);
                    continue;
                }
                Governance::Rules(rules) => {
                    match identify(&pod.sight.facts, &uid, &rules, &|owner| self.above(owner)) {
                        Identity::Task(task) => Some((task, rules)),
                        Identity::Ask(owner) => {
                            let namespace = pod.sight.facts.namespace.clone();
                            self.dirty_pods.insert(uid);
                            self.look_up(None, namespace, owner, desk);
                            continue;
                        }
                    }
                }
            };
            let Some((task, rules)) = task else {
                // No policy, no act: not even a memory.
                self.leave_task(&uid);
                self.drop_if_done(&uid);
                continue;
            };
            let policies = rules.policies.into_iter().map(|mark| mark.name).collect();
            self.join_task(&uid, task, policies, desk.cx.now);
        }
    }

    /// A pod of no task is only kept while it waits, to be counted.
    fn drop_if_done(&mut self, uid: &str) {
        if self.pods.get(uid).is_some_and(|pod| pod.fate != Fate::Open || pod.troubles.is_empty()) {
            self.pods.remove(uid);
        }
    }

    fn leave_task(&mut self, uid: &str) {
        let Some(id) = self.pods.get_mut(uid).and_then(|pod| pod.task.take()) else { return };
        if let Some(task) = self.tasks.get_mut(&id) {
            task.pods.remove(uid);
            task.dirty = true;
        }
    }

    fn join_task(&mut self, uid: &str, task: Task, policies: Vec<String>, now: Moment) {
        if self.pods.get(uid).is_some_and(|pod| pod.task.as_ref().is_some_and(|id| *id != task.id)) {
            self.leave_task(uid);
        }
        let Some(pod) = self.pods.get_mut(uid) else { return };
        pod.task = Some(task.id.clone());
        let record = (task.id.namespace.clone(), task.record_name());
        self.records.insert(record, task.id.clone());
        let entry = self.tasks.entry(task.id.clone()).or_insert_with(|| TaskEntry::new(task.clone(), now));
        // A record alone does not tell whether its owner's kind is listed. A pod that makes pods is not acted upon for them.
        let for_others = task.is_bare_pod() && entry.pods.iter().any(|other| other != uid);
        if !for_others {
            entry.task.kind = task.kind;
        }
        entry.pods.insert(uid.to_owned());
        entry.dirty |= pod.dirty || pod.policies != policies;
        pod.policies = policies;
        pod.dirty = false;
        if entry.sample.is_none() {
            entry.sample = Some(pod.sight.facts.clone());
        }
    }

    /// Starts of containers of images that tasks fail on.
    fn heed_starts(&mut self, cx: &Cx<'_>) {
        if std::mem::take(&mut self.notes_lost) {
            for task in self.tasks.values_mut() {
                task.clocks.values_mut().for_each(|clock| clock.restart(cx.now));
                task.dirty = true;
            }
        }
        let notes = std::mem::take(&mut self.notes);
        if !notes.is_empty() {
            self.tasks.values_mut().for_each(|task| task.heed_others(&notes));
        }
        for note in notes.into_values() {
            let Governance::Rules(rules) = Self::govern(cx, &note.pod) else { continue };
            let identity = identify(&note.pod, &note.uid, &rules, &|owner| self.above(owner));
            let Identity::Task(task) = identity else { continue };
            let pace = &self.pace;
            if let Some(entry) = self.tasks.get_mut(&task.id) {
                entry.heed_start(&note, pace);
            }
        }
    }

    fn work_denied(&mut self, desk: &mut Desk<'_>) {
        let limits = desk.cx.setting.policies.iter().any(|entry| entry.policy.runtime.fail_denied_after.is_some());
        if !limits {
            self.denied = DeniedJobs::default();
            return;
        }
        let limit = |pod: &super::super::pod::PodFacts| match Self::govern(&desk.cx, pod) {
            Governance::None | Governance::Unsure => None,
            Governance::Rules(rules) => match rules.fail_owner {
                FailOwner::Job => rules.fail_denied_after,
                FailOwner::None | FailOwner::Pod => None,
            },
        };
        let brakes = &self.brakes;
        let braked = |marks: &[PolicyMark]| {
            marks.iter().any(|mark| brakes.level(&Place::Policy(mark.name.clone())) == Level::Outage)
        };
        let in_force = |mark: &PolicyMark| is_in_force(mark, &desk.cx);
        for next in self.denied.next(desk.cx.now, &limit, &braked, &in_force) {
            match next {
                Next::Wait(at) => desk.out.wake(at),
                Next::Judge { namespace, job } => self.judge_template(namespace, job, desk),
                // Ruled under a generation that is no longer in force.
                Next::Fail(denied) if !denied.policies.iter().all(|mark| is_in_force(mark, &desk.cx)) => {
                    self.judge_template(denied.namespace, denied.job, desk);
                }
                Next::Fail(denied) => {
                    let Governance::Rules(rules) = Self::govern(&desk.cx, &denied.pod) else { continue };
                    self.fail_denied(*denied, *rules, &desk.cx);
                }
            }
        }
    }

    fn judge_template(&mut self, namespace: String, job: OwnerRef, desk: &mut Desk<'_>) {
        let id = format!("judge/{}", job.uid);
        let effect = Effect::JudgeTemplate { namespace: namespace.clone(), job };
        self.emit(id, (None, &namespace), Step::Read, effect, desk);
        desk.out.wake(desk.cx.now.plus(SOON));
    }

    fn work_tasks(&mut self, everything: bool, desk: &mut Desk<'_>) {
        let mut due: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, task)| everything || task.dirty || task.wake <= desk.cx.now)
            .map(|(id, _)| id.clone())
            .collect();
        // Where the last one stopped, so that all have their turn.
        if let Some(cursor) = self.cursor.take() {
            let place = due.partition_point(|id| *id < cursor);
            due.rotate_left(place);
        }
        for id in due {
            if desk.out.hits.contains(&Hit::Plan) {
                if let Some(task) = self.tasks.get_mut(&id) {
                    task.dirty = true;
                }
                self.cursor.get_or_insert(id);
                continue;
            }
            // Taken out, so that the rest of the ledger can be asked while the task is worked on.
            let Some(mut entry) = self.tasks.remove(&id) else { continue };
            entry.dirty = false;
            entry.wake = desk.cx.now.plus(LOOK_THROUGH);
            let capped = self.counters.capped;
            let keep = self.advance(&mut entry, desk);
            if self.counters.capped != capped {
                entry.wake = entry.wake.min(desk.cx.now.plus(SOON));
            }
            if keep {
                self.tasks.insert(id, entry);
            } else {
                self.records.remove(&(id.namespace.clone(), entry.record_name.clone()));
            }
        }
    }

    /// Drops what nothing refers to any more.
    fn tidy(&mut self, now: Moment) {
        let mut watched = std::collections::BTreeMap::<String, BTreeSet<String>>::new();
        for (id, task) in &self.tasks {
            if !task.clocks.is_empty() || !task.failures.is_empty() {
                let of_namespace = watched.entry(id.namespace.clone()).or_default();
                of_namespace.extend(task.clocks.keys().chain(task.failures.keys()).cloned());
            }
        }
        for pod in self.pods.values() {
            let of_namespace = watched.entry(pod.sight.facts.namespace.clone()).or_default();
            of_namespace.extend(pod.troubles.values().map(|trouble| trouble.image_key.clone()));
        }
        watched.retain(|_, images| !images.is_empty());
        self.watched = watched;
        let owners: BTreeSet<&str> =
            self.tasks.values().filter_map(|task| task.task.owner()).map(|owner| owner.uid.as_str()).collect();
        let of_pods: BTreeSet<&str> = self
            .pods
            .values()
            .filter_map(|pod| pod.sight.facts.owner.as_ref())
            .map(|owner| owner.uid.as_str())
            .collect();
        self.owners.retain(|uid, known| {
            owners.contains(uid.as_str()) || of_pods.contains(uid.as_str()) || now.since(known.read_at) < SILENCE
        });
        self.unread.retain(|_, patience| now.since(patience.until) < LOST);
        self.cap_told.retain(|_, told| now.since(*told) < CAP_TOLD);
        self.keep_stories();
    }

    /// The failed runs of makers are known from the records; a story with two of them was told before.
    fn keep_stories(&mut self) {
        let first = !std::mem::replace(&mut self.stories_known, true);
        if first {
            for entry in self.tasks.values() {
                if let Some(story) = entry.permanent().and_then(story_of) {
                    self.stories.entry(story).or_default().insert(entry.record_name.clone());
                }
            }
            let told = self.stories.iter().filter(|(_, runs)| runs.len() > 1);
            self.escalated.extend(told.map(|(story, _)| story.clone()));
        }
        let kept: BTreeSet<&str> = self.tasks.values().map(|entry| entry.record_name.as_str()).collect();
        for runs in self.stories.values_mut() {
            runs.retain(|run| kept.contains(run.as_str()));
        }
        self.stories.retain(|_, runs| !runs.is_empty());
        let stories = &self.stories;
        self.escalated.retain(|story| stories.contains_key(story));
    }

    pub(super) fn look_up(&mut self, task: Option<&TaskId>, namespace: String, owner: OwnerRef, desk: &mut Desk<'_>) {
        let id = format!("look-up/{}", owner.uid);
        let effect = Effect::LookUpOwner { namespace: namespace.clone(), owner };
        self.emit(id, (task, &namespace), Step::Read, effect, desk);
    }

    /// Puts an effect into the plan, unless it is on its way or a cap is hit.
    pub(super) fn emit(
        &mut self,
        id: String,
        (task, namespace): (Option<&TaskId>, &str),
        step: Step,
        effect: Effect,
        desk: &mut Desk<'_>,
    ) -> bool {
        let (id, now) = (EffectId(id), desk.cx.now);
        if self.flights.contains_key(&id) {
            return false;
        }
        if let (Step::Read, Some(patience)) = (&step, self.unread.get(&id))
            && patience.until > now
        {
            desk.out.wake(patience.until);
            return false;
        }
        let caps = self.settings.caps;
        let spent = match &effect {
            Effect::FailJob { .. } | Effect::FailPod { .. } | Effect::DeletePod { .. } => {
                self.acts.spend(&caps.acts, namespace, now)
            }
            Effect::LookUpOwner { .. } | Effect::JudgeTemplate { .. } => self.reads.spend(&caps.reads, namespace, now),
            Effect::WriteRecord { .. }
            | Effect::RemoveRecord { .. }
            | Effect::MarkOwner { .. }
            | Effect::UnmarkJob { .. }
            | Effect::EmitEvent(_) => self.tells.spend(&caps.notes, namespace, now),
        };
        if let Err(hit) = spent {
            self.counters.capped = self.counters.capped.saturating_add(1);
            desk.out.hits.insert(hit);
            return false;
        }
        self.flights.insert(id.clone(), Flight { task: task.cloned(), step, since: now });
        desk.out.effects.push(Planned { id, effect });
        true
    }
}

fn is_in_force(mark: &PolicyMark, cx: &Cx<'_>) -> bool {
    let known = cx.setting.policies.get(&mark.name);
    known.is_some_and(|policy| policy.uid == mark.uid && policy.generation == mark.generation)
}

/// One cause of one maker's runs.
pub(super) fn story_of(record: &super::effect::Record) -> Option<String> {
    let maker = record.maker.as_ref()?;
    let class = record.class.map_or("", FailureClass::as_str);
    Some(format!("{}/{maker}/{class}/{}", record.namespace, super::entry::key_of(&record.image)))
}
