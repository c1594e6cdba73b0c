//! What is kept of a task in trouble.
//!
//! Enters: what its pods, its owner and its record tell. Leaves: the clocks of its images, its attempts, and which steps
//! are done. All of it can be made again from pods, owner and record, only later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;

use super::super::cause::{FailureClass, Permanence};
use super::super::image::ImageName;
use super::super::pod::PodFacts;
use super::clock::ImageClock;
use super::effect::{FailureState, ObjectRef, Record, RecordedFailure, secrets_kept};
use super::ledger::StartNote;
use super::moment::{Moment, Pace};
use super::patience::{Patience, pause};
use super::rules::Rules;
use super::sight::RecordSight;
use super::symptoms::image_key;
use super::task::Task;

/// As the record keeps.
pub(super) const MOST_FAILURES: usize = 10;
pub(super) const MOST_COUNTED: usize = 100;

#[derive(Clone, Debug)]
pub(super) struct TaskEntry {
    pub task: Task,
    pub record_name: String,
    /// Of all policies that match any of its pods; of the last ones where it has none now.
    pub rules: Option<Rules>,
    /// Uids of pods in the ledger.
    pub pods: BTreeSet<String>,
    /// By image, as are the failures. Boxed, as a map of one has room for eleven.
    pub clocks: BTreeMap<String, Box<ImageClock>>,
    /// What was last told of each image.
    pub failures: BTreeMap<String, Box<RecordedFailure>>,
    pub attempts: u32,
    pub counted: VecDeque<String>,
    /// When the last attempt was counted.
    pub tried_at: Option<Moment>,
    /// In all, also what the record does not say yet.
    pub collected: u32,
    pub collected_told: u32,
    pub record: Option<RecordSight>,
    /// When a record of `Retrying` was last written.
    pub recorded_at: Option<Moment>,
    /// One of its pods, for where the others can go.
    pub sample: Option<PodFacts>,
    pub steps: Steps,
    /// Nothing in sequence is tried before.
    pub retry_at: Moment,
    /// In a row, for the back-off.
    pub setbacks: u32,
    /// Of its Events: that they cannot be told holds up nothing else.
    pub telling: Patience,
    /// When to look at it again, if nothing changes.
    pub wake: Moment,
    pub dirty: bool,
    /// Since when no pod of it is in trouble.
    pub idle_since: Option<Moment>,
    /// An image came, or a container of it started: the failure is over.
    pub over: bool,
    /// Pods that were failed alone, and the image: to be told, though they are gone from the ledger.
    pub failed_pods: Vec<(ObjectRef, String)>,
    /// That it is over is in the record, and to be told.
    pub tell_resolved: Option<Ending>,
    /// The end that its record tells, and when that was in the ledger's own time.
    pub ended: Option<(Timestamp, Moment)>,
    /// Its Job still makes pods, which admission refuses: it goes on, whatever was done to it.
    pub makes_pods: bool,
    /// A denied Job on its way to be failed: the conviction that admission gave.
    pub denied: Option<Box<Record>>,
}

/// What was done for the present failure.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    pub marked: bool,
    /// `FailureTarget` is set, by us or by others, or the Job is over anyway.
    pub owner_failed: bool,
    /// It was found that the Job may be failed: from then on its guard decides, on the shell's own read.
    pub may_fail: bool,
    /// The Job must not be ended as a whole: a pod of it ran.
    pub only_pods: bool,
    /// Nothing can be done to the owner: it is told about only.
    pub hands_off: bool,
    /// The owner is gone.
    pub owner_gone: bool,
    /// Events that were emitted, by what they tell; those of an audit apart.
    pub told: BTreeSet<String>,
    pub counted_as_failed: bool,
    pub collect_told_at: Option<Moment>,
}

/// What is known of the end of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A container of the image started, or the image came to a node.
    Mended,
    /// No pod has waited for it for long.
    Quiet,
}

impl TaskEntry {
    pub fn new(task: Task, now: Moment) -> Self {
        let record_name = task.record_name();
        Self {
            task,
            record_name,
            rules: None,
            pods: BTreeSet::new(),
            clocks: BTreeMap::new(),
            failures: BTreeMap::new(),
            attempts: 0,
            counted: VecDeque::new(),
            tried_at: None,
            collected: 0,
            collected_told: 0,
            record: None,
            recorded_at: None,
            sample: None,
            steps: Steps::default(),
            retry_at: now,
            setbacks: 0,
            telling: Patience::default(),
            wake: now,
            dirty: true,
            idle_since: None,
            over: false,
            failed_pods: Vec::new(),
            tell_resolved: None,
            ended: None,
            makes_pods: false,
            denied: None,
        }
    }

    /// Takes over a record: the first time all that it remembers, later only where it stands.
    pub fn remember(&mut self, sight: RecordSight, pace: &Pace) {
        let known = self.record.as_ref().is_some_and(|known| known.uid == sight.uid);
        let record = &sight.record;
        if !known {
            self.collected = self.collected.max(record.pods_collected);
            // The record counts them before it is told: whoever wrote it may have died in between, so it is told again, under
            // the name that it has already.
            if record.state != FailureState::PermanentlyFailed {
                self.collected_told = self.collected_told.max(record.pods_collected);
            }
            if record.state != FailureState::Resolved {
                if record.attempts > self.attempts {
                    self.attempts = record.attempts;
                    // Which pods stood side by side then is not known: all that are there by now.
                    self.tried_at = Some(pace.now());
                }
                for uid in &record.counted_pods {
                    self.note_counted(uid);
                }
                for failure in &record.failures {
                    self.remember_failure(failure, pace);
                }
            }
        }
        self.record = Some(sight);
        self.dirty = true;
    }

    fn remember_failure(&mut self, failure: &RecordedFailure, pace: &Pace) {
        let key = key_of(&failure.image);
        let first = failure.first_seen.map_or(pace.now(), |at| pace.at(at));
        let firm = match failure.permanence {
            Permanence::Permanent | Permanence::Unclear => failure.last_seen.map(|at| pace.at(at)),
            Permanence::Transient => None,
        };
        let clock = self.clocks.entry(key.clone()).or_insert_with(|| Box::new(ImageClock::new(first, pace.now())));
        clock.remember(first, firm);
        self.failures.entry(key).or_insert_with(|| Box::new(failure.clone()));
    }

    pub fn note_counted(&mut self, uid: &str) {
        if !self.counted.iter().any(|known| known == uid) {
            if self.counted.len() >= MOST_COUNTED {
                self.counted.pop_front();
            }
            self.counted.push_back(uid.to_owned());
        }
    }

    /// Counts a pod as an attempt, once. The pods of a Job that stand side by side are one try, however they go: all that
    /// were there when it was counted. A wide Job would otherwise be out of tries at the first outage, or when it is suspended.
    pub fn count(&mut self, uid: &str, born: Moment, now: Moment) -> bool {
        if self.counted.iter().any(|known| known == uid) {
            return false;
        }
        self.note_counted(uid);
        if self.task.is_job() && self.tried_at.is_some_and(|tried| born <= tried) {
            return false;
        }
        self.tried_at = Some(now);
        self.attempts = self.attempts.saturating_add(1);
        true
    }

    /// A container of an image that the task fails on has started.
    pub fn heed_start(&mut self, note: &StartNote, pace: &Pace) {
        let news = self.clocks.get_mut(&note.image).is_some_and(|clock| clock.start(note.at, pace.at(note.at)));
        self.dirty |= news;
        let record = self.record.as_ref().map(|sight| &sight.record);
        let over = match record.map(|record| (record, record.state)) {
            // No record tells of what fails now; under Audit none ever does.
            None | Some((_, FailureState::Resolved)) => news,
            Some((record, FailureState::Retrying)) => {
                let mut failing = record.failures.iter().map(|failure| &failure.image).chain([&record.image]);
                failing.any(|image| key_of(image) == note.image) && began_before(record.first_seen, note)
            }
            // For good it has failed on this one image: what else did not start at once says nothing of it.
            Some((record, FailureState::PermanentlyFailed)) => {
                key_of(&record.image) == note.image && began_before(record.failed_at, note)
            }
        };
        self.over |= over;
        self.dirty |= over;
    }

    /// A pod of the namespace, of whatever task, has started a container of the image that a registry did not give to
    /// this task: its own pods cannot show that it does now, for they are refused.
    pub fn heed_others(&mut self, notes: &BTreeMap<(String, String, String), StartNote>) {
        let Some(record) = self.permanent() else { return };
        let proof = record.class.map_or(Proof::None, proof_of);
        let Some(failed_at) = record.failed_at.filter(|_| proof != Proof::None) else { return };
        let (namespace, image) = (&self.task.id.namespace, key_of(&record.image));
        let failure = record.failures.iter().find(|failure| failure.image == record.image);
        let secrets = failure.map(|failure| secrets_kept(&failure.pull_secrets));
        let proves = |note: &StartNote| match proof {
            Proof::None => false,
            Proof::Anybody => true,
            Proof::SameSecrets => secrets.as_ref() == Some(&secrets_kept(&note.pod.pull_secrets)),
        };
        let first = (namespace.clone(), image.clone(), String::new());
        let mut started = notes
            .range(first..)
            .take_while(|((of_namespace, of_image, _), _)| of_namespace == namespace && *of_image == image)
            .map(|(_, note)| note);
        if started.any(|note| note.at > failed_at && proves(note)) {
            self.over = true;
            self.dirty = true;
        }
    }

    /// The failure is over: the next one has its own attempts and its own grace.
    pub fn begin_anew(&mut self, now: Moment) {
        let (record, collected, told) = (self.record.take(), self.collected, self.collected_told);
        self.forget_all(now);
        self.record = record;
        (self.collected, self.collected_told) = (collected, told);
    }

    /// Everything starts anew: a person deleted the record, or the failure is over.
    pub fn forget_all(&mut self, now: Moment) {
        for clock in self.clocks.values_mut() {
            clock.restart(now);
        }
        self.clocks.retain(|_, clock| clock.open);
        let clocks = &self.clocks;
        self.failures.retain(|key, _| clocks.contains_key(key));
        self.attempts = 0;
        self.counted.clear();
        self.tried_at = None;
        self.collected = 0;
        self.collected_told = 0;
        self.record = None;
        self.recorded_at = None;
        self.steps = Steps::default();
        self.over = false;
        self.denied = None;
        self.dirty = true;
    }

    /// The record that says that the task has failed for good.
    pub fn permanent(&self) -> Option<&Record> {
        let sight = self.record.as_ref()?;
        (sight.record.state == FailureState::PermanentlyFailed && !sight.deleting).then_some(&sight.record)
    }

    /// When an end was that the record tells, in the ledger's own time. The record's time is compared with the clock once,
    /// when it is first heard of: a clock that jumps ahead by a day ends nothing.
    pub fn moment_of_end(&mut self, end: Timestamp, pace: &Pace) -> Moment {
        let since = match self.ended {
            Some((known, since)) if known == end => since,
            Some(_) | None => pace.at(end),
        };
        self.ended = Some((end, since));
        since
    }

    /// The clock begins anew, and whoever takes over must know it: the record is not left as it is.
    pub fn write_clock_down(&mut self) {
        self.recorded_at = None;
        self.dirty = true;
    }

    pub fn set_back(&mut self, now: Moment) {
        self.setbacks = self.setbacks.saturating_add(1);
        self.retry_at = now.plus(pause(self.setbacks));
        self.wake = self.wake.min(self.retry_at);
    }
}

/// The key of an image as it is written.
pub(super) fn key_of(written: &str) -> String {
    image_key(ImageName::parse(written).ok().as_ref(), written)
}

/// Whether a failure began, or was found permanent, before a start.
fn began_before(failure: Option<Timestamp>, note: &StartNote) -> bool {
    failure.is_some_and(|at| note.at > at)
}

/// Whose start of an image shows that a task that failed on it may be tried again, besides the task's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// It is true of one node, of the name itself, or it passes without anybody's doing.
    None,
    /// The registry says no to whoever comes with these secrets.
    SameSecrets,
    /// The registry has it now.
    Anybody,
}

const fn proof_of(class: FailureClass) -> Proof {
    match class {
        FailureClass::NotFound | FailureClass::NotFoundOrDenied => Proof::Anybody,
        FailureClass::Unauthorized => Proof::SameSecrets,
        FailureClass::NeverPull
        | FailureClass::NeverPullNoAccess
        | FailureClass::InvalidName
        | FailureClass::RateLimited
        | FailureClass::Network
        | FailureClass::RegistryError
        | FailureClass::Tls
        | FailureClass::PlatformMismatch
        | FailureClass::DiskFull
        | FailureClass::CorruptImage
        | FailureClass::NodeThrottle
        | FailureClass::InspectFailed
        | FailureClass::SignatureInvalid
        | FailureClass::Unknown => Proof::None,
    }
}
