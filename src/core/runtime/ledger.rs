//! The level-triggered state of the runtime half: what is failing now, since when, and how often it was tried.
//!
//! Enters: sights and outcomes. Leaves: nothing by itself; `plan` reads it. A healthy pod leaves no trace.
//!
//! After a start the shell hands in all records, then all pods, and only then asks for a plan. All that a new ledger knows
//! of the past is in the records, so it may act later than one that has watched all the time, never sooner.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::super::cause::{Diagnosis, Words, classify};
use super::super::image::ImageReference;
use super::super::namespace::SYSTEM_NAMESPACES;
use super::super::pod::{PodFacts, PullPolicy};
use super::brake::{Brakes, Limits};
use super::caps::{Caps, Meter};
use super::denied::DeniedJobs;
use super::effect::{EffectId, FAILED_DEADLINE, FailureState, Record};
use super::entry::TaskEntry;
use super::moment::{Moment, Pace, elapsed};
use super::patience::Patience;
use super::pods::{EarlyWords, Fate, PodEntry, Starts};
use super::sight::{
    ContainerState, DenialSight, EventSight, EverStarted, OwnerSight, Phase, PodSight, RecordSight, TemplateVerdict,
};
use super::symptoms::{image_key, symptoms};
use super::task::{Task, TaskId, TaskKey, TaskKindOf, is_job, task_of};
use super::waste::Counters;

/// Whether a sight changed what a plan could say: if so, plan soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum News {
    None,
    Some,
}

impl From<bool> for News {
    fn from(news: bool) -> Self {
        if news { Self::Some } else { Self::None }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Pullguard's own: never touched. Events about the cluster as a whole regard it.
    pub own_namespace: String,
    pub brakes: Limits,
    pub caps: Caps,
}

/// Some 4 KiB each: what the process may hold. A re-list brings back what was dropped.
const MOST_PODS: usize = 20_000;
/// Starts of watched images between two plans.
const MOST_NOTES: usize = 4_096;

/// A container of an image that some task fails on has started.
#[derive(Clone, Debug)]
pub(super) struct StartNote {
    pub pod: PodFacts,
    pub uid: String,
    pub image: String,
    pub at: Timestamp,
}

/// An effect whose outcome is awaited.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub task: Option<TaskId>,
    pub step: Step,
    pub since: Moment,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A read: what it brings comes by another door.
    Read,
    /// With the state that it had before, and the image that it was about.
    Record {
        record: Box<Record>,
        before: Option<(FailureState, String)>,
    },
    Remove,
    Mark,
    Unmark,
    FailJob,
    FailPod {
        uid: String,
    },
    Delete {
        uid: String,
    },
    Tell {
        what: String,
    },
    /// An Event about no task.
    Announce,
}

#[derive(Clone, Debug)]
pub(super) struct OwnerEntry {
    pub sight: OwnerSight,
    pub read_at: Moment,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub(super) settings: Settings,
    pub(super) pace: Pace,
    pub(super) pods: BTreeMap<String, PodEntry>,
    pub(super) dirty_pods: BTreeSet<String>,
    pub(super) tasks: BTreeMap<TaskId, TaskEntry>,
    pub(super) records: BTreeMap<(String, String), TaskId>,
    pub(super) owners: BTreeMap<String, OwnerEntry>,
    pub(super) starts: Starts,
    pub(super) early: EarlyWords,
    /// Images that tasks fail on, by namespace: whose starts matter.
    pub(super) watched: BTreeMap<String, BTreeSet<String>>,
    /// By namespace, image and owner (or pod): the latest of each.
    pub(super) notes: BTreeMap<(String, String, String), StartNote>,
    /// More started than could be noted.
    pub(super) notes_lost: bool,
    pub(super) brakes: Brakes,
    pub(super) denied: DeniedJobs,
    pub(super) flights: BTreeMap<EffectId, Flight>,
    /// Reads for no task that have failed.
    pub(super) unread: BTreeMap<EffectId, Patience>,
    pub(super) acts: Meter,
    pub(super) tells: Meter,
    pub(super) reads: Meter,
    pub(super) cap_told: BTreeMap<String, Moment>,
    /// Makers whose runs were said to keep failing, with the cause.
    pub(super) escalated: BTreeSet<String>,
    /// The failed runs of makers, by maker and cause: names of their records.
    pub(super) stories: BTreeMap<String, BTreeSet<String>>,
    pub(super) stories_known: bool,
    pub(super) counters: Counters,
    /// Where the last plan came to its bound: the next one begins there.
    pub(super) cursor: Option<TaskId>,
    pub(super) looked_through: Option<Moment>,
}

impl Ledger {
    pub fn new(settings: Settings) -> Self {
        Self { brakes: Brakes::new(settings.brakes), settings, ..Self::default() }
    }

    /// Policies, namespaces or nodes have changed: at the next plan every task is looked at.
    pub fn reconsider(&mut self) {
        self.looked_through = None;
    }

    /// How many pods are kept: those in trouble, and the dead ones of failed tasks.
    pub fn pods_kept(&self) -> usize {
        self.pods.len()
    }

    /// How many tasks are kept.
    pub fn tasks_kept(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn tick(&mut self, now: Timestamp) -> Moment {
        self.pace.tick(now)
    }

    fn is_exempt(&self, pod: &PodSight) -> bool {
        pod.mirror || SYSTEM_NAMESPACES.contains(&pod.namespace()) || pod.namespace() == self.settings.own_namespace
    }

    /// Every pod, in every phase, whenever the watch shows it.
    pub fn observe_pod(&mut self, pod: PodSight, now: Timestamp) -> News {
        let moment = self.tick(now);
        if self.is_exempt(&pod) {
            return News::None;
        }
        let started = self.note_starts(&pod, now, moment);
        let over = pod.phase.is_over() || pod.deleting;
        let symptoms = if over { Vec::new() } else { symptoms(&pod) };
        if !self.pods.contains_key(&pod.uid) {
            let dead = pod.phase == Phase::Failed && !pod.deleting && self.died_of_pull(&pod);
            if symptoms.is_empty() && !dead {
                return started.into();
            }
            if self.pods.len() >= MOST_PODS {
                self.counters.dropped = self.counters.dropped.saturating_add(1);
                return started.into();
            }
        }
        let uid = pod.uid.clone();
        let early = self.early.take(&uid);
        let born = self.pace.at(pod.created);
        let entry = self.pods.entry(uid.clone()).or_insert_with(|| PodEntry::new(pod.clone(), moment));
        let mut changed = entry.dirty;
        let fate = if pod.deleting {
            Fate::Gone
        } else if pod.phase == Phase::Failed {
            Fate::Dead
        } else if pod.phase == Phase::Succeeded {
            entry.counted = true;
            Fate::Gone
        } else {
            Fate::Open
        };
        changed |= entry.fate != fate;
        entry.fate = fate;
        if !over {
            for status in &pod.containers {
                let waiting = matches!(status.state, ContainerState::Waiting { .. } | ContainerState::Unreported);
                if !waiting && status.ever_started != EverStarted::No {
                    changed |= entry.troubles.remove(&status.name).is_some();
                }
            }
            changed |= entry.take(symptoms, born, moment);
            for (container, cause) in early {
                changed |= entry.hear_event(container.as_deref(), &cause, moment);
            }
        }
        if pod.phase == Phase::Failed && super::symptoms::may_have_run(&pod) {
            // It ran after all: none of ours.
            entry.fate = Fate::Gone;
            entry.counted = true;
        }
        entry.sight = pod;
        if changed {
            entry.dirty = true;
            for trouble in entry.troubles.values() {
                let watched = self.watched.entry(entry.sight.facts.namespace.clone()).or_default();
                watched.insert(trouble.image_key.clone());
            }
            self.dirty_pods.insert(uid);
        }
        (changed || started).into()
    }

    fn tasks_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a TaskEntry> {
        let first = TaskId { namespace: namespace.to_owned(), key: TaskKey::Owner { uid: String::new() } };
        self.tasks.range(first..).take_while(move |(id, _)| id.namespace == namespace).map(|(_, task)| task)
    }

    /// A dead pod whose container states tell nothing any more: was it one that we, or a ledger before us, saw stuck? A
    /// record counts it; or it was failed in place with its task, and whoever did that died before it was counted.
    fn died_of_pull(&self, pod: &PodSight) -> bool {
        let ended = pod.active_deadline == Some(FAILED_DEADLINE);
        let knows = |task: &TaskEntry| {
            let counts = |sight: &RecordSight| sight.record.counted_pods.contains(&pod.uid);
            task.record.as_ref().is_some_and(counts) || (ended && task.permanent().is_some())
        };
        !super::symptoms::may_have_run(pod) && self.tasks_in(pod.namespace()).any(knows)
    }

    /// The starts of containers: news for brakes, for "no such image, or denied", and for tasks that fail on that image.
    fn note_starts(&mut self, pod: &PodSight, now: Timestamp, moment: Moment) -> bool {
        let mut watched_start = false;
        for status in &pod.containers {
            let Some(at) = status.last_started else { continue };
            let Some(spec) = pod.spec_of(status) else { continue };
            let parsed = spec.parsed.as_ref().ok();
            if let Some(reference) = parsed.and_then(|name| name.reference()) {
                self.note_repository(reference, spec.pull_policy, pod, at, now, moment);
            }
            let Some(watched) = self.watched.get(pod.namespace()) else { continue };
            let key = match parsed.and_then(|name| name.reference()) {
                Some(reference) if !watched.contains(reference.as_str()) => continue,
                Some(_) | None => image_key(parsed, &spec.image),
            };
            if !watched.contains(&key) {
                continue;
            }
            watched_start = true;
            let whose = pod.facts.owner.as_ref().map_or(&pod.uid, |owner| &owner.uid).clone();
            let place = (pod.namespace().to_owned(), key.clone(), whose);
            if let Some(note) = self.notes.get_mut(&place) {
                note.at = at.max(note.at);
            } else if self.notes.len() < MOST_NOTES {
                self.notes.insert(place, StartNote { pod: pod.facts.clone(), uid: pod.uid.clone(), image: key, at });
            } else {
                self.notes_lost = true;
            }
        }
        watched_start
    }

    fn note_repository(
        &mut self,
        image: &ImageReference,
        policy: PullPolicy,
        pod: &PodSight,
        at: Timestamp,
        now: Timestamp,
        moment: Moment,
    ) {
        self.starts.note(image, at);
        // What started longer ago says nothing of the registry now.
        if policy == PullPolicy::Always && elapsed(at, now) < self.settings.brakes.window {
            self.brakes.pulled(image.registry(), pod.node.as_deref(), image.as_str(), moment);
        }
    }

    /// The watch says that the pod is gone (or a re-list no longer has it).
    pub fn forget_pod(&mut self, uid: &str, now: Timestamp) -> News {
        self.tick(now);
        let Some(entry) = self.pods.get_mut(uid) else { return News::None };
        entry.fate = Fate::Gone;
        entry.dirty = true;
        self.dirty_pods.insert(uid.to_owned());
        News::Some
    }

    pub fn observe_event(&mut self, event: EventSight, now: Timestamp) -> News {
        let moment = self.tick(now);
        if event.reason == "FailedToRetrieveImagePullSecret" {
            if let Some(entry) = self.pods.get_mut(&event.pod_uid) {
                entry.missing_secret = Some(event.message);
            }
            return News::None;
        }
        let words = Words { reason: &event.reason, message: &event.message, image: None };
        let Diagnosis::PullFailure(cause) = classify(&words) else { return News::None };
        let Some(entry) = self.pods.get_mut(&event.pod_uid) else {
            self.early.keep(event.pod_uid, event.container, cause);
            return News::None;
        };
        let changed = entry.hear_event(event.container.as_deref(), &cause, moment);
        if changed {
            entry.dirty = true;
            self.dirty_pods.insert(event.pod_uid);
        }
        changed.into()
    }

    /// What `Effect::LookUpOwner` read.
    pub fn observe_owner(&mut self, owner: OwnerSight, now: Timestamp) -> News {
        let moment = self.tick(now);
        let uid = match &owner {
            OwnerSight::Found(facts) => facts.owner.uid.clone(),
            OwnerSight::NotFound { owner, .. } | OwnerSight::Unreadable { owner, .. } => owner.uid.clone(),
        };
        self.owners.insert(uid, OwnerEntry { sight: owner, read_at: moment });
        News::Some
    }

    pub fn observe_record(&mut self, sight: RecordSight, now: Timestamp) -> News {
        let moment = self.tick(now);
        let record = &sight.record;
        let Some(id) = task_of(&record.namespace, &record.task) else { return News::None };
        let task = Task { kind: kind_of_record(record, &id.key), id: id.clone() };
        if task.record_name() != record.name {
            // A copy, or somebody else's: only the one under its own name is a task's record.
            return News::None;
        }
        let watched = self.watched.entry(record.namespace.clone()).or_default();
        watched.extend(record.failures.iter().map(|failure| super::entry::key_of(&failure.image)));
        self.records.insert((record.namespace.clone(), record.name.clone()), id.clone());
        let entry = self.tasks.entry(id).or_insert_with(|| TaskEntry::new(task, moment));
        // Our own write may have been heard of before the watch shows what was there until then.
        if entry.record.as_ref().is_some_and(|known| *known == sight || known.supersedes(&sight)) {
            return News::None;
        }
        entry.remember(sight, &self.pace);
        News::Some
    }

    /// The watch says that the record is gone: by a person, who thereby lets the task be tried again, or by us.
    pub fn forget_record(&mut self, namespace: &str, name: &str, now: Timestamp) -> News {
        let moment = self.tick(now);
        let Some(id) = self.records.remove(&(namespace.to_owned(), name.to_owned())) else { return News::None };
        if let Some(entry) = self.tasks.get_mut(&id) {
            entry.forget_all(moment);
            for uid in &entry.pods {
                if let Some(pod) = self.pods.get_mut(uid) {
                    pod.counted = false;
                    pod.failed_at = None;
                }
            }
        }
        News::Some
    }

    /// A `FailedCreate` Event of a Job with our own denial in it.
    pub fn observe_denial(&mut self, denial: DenialSight, now: Timestamp) -> News {
        let moment = self.tick(now);
        if SYSTEM_NAMESPACES.contains(&denial.namespace.as_str()) || denial.namespace == self.settings.own_namespace {
            return News::None;
        }
        let id = TaskId { namespace: denial.namespace.clone(), key: TaskKey::Owner { uid: denial.job.uid.clone() } };
        if let Some(entry) = self.tasks.get_mut(&id) {
            // A Job of a failed task that still makes pods: it was suspended, and is no longer, or it was never failed.
            entry.makes_pods |= entry.permanent().is_some();
            entry.dirty |= entry.makes_pods;
        }
        self.denied.denied(denial, moment);
        News::Some
    }

    /// What `Effect::JudgeTemplate` gave.
    pub fn observe_verdict(&mut self, verdict: TemplateVerdict, now: Timestamp) -> News {
        let moment = self.tick(now);
        self.denied.judged(verdict, moment);
        News::Some
    }
}

/// What a record lets us do to its task, before a pod of it is seen again.
fn kind_of_record(record: &Record, key: &TaskKey) -> TaskKindOf {
    let task = &record.task;
    match key {
        TaskKey::Label { key, value } => return TaskKindOf::Label { key: key.clone(), value: value.clone() },
        // Else it is one of the pods that it makes that failed.
        TaskKey::Pod { uid } if record.failures.iter().all(|failure| failure.pod == task.name) => {
            return TaskKindOf::BarePod { name: task.name.clone(), uid: uid.clone() };
        }
        TaskKey::Pod { .. } | TaskKey::Owner { .. } => {}
    }
    let owner = super::super::pod::OwnerRef {
        api_version: task.api_version.clone(),
        kind: task.kind.clone(),
        name: task.name.clone(),
        uid: task.uid.clone(),
    };
    if is_job(&owner) { TaskKindOf::Job(owner) } else { TaskKindOf::ReportOnly(owner) }
}
