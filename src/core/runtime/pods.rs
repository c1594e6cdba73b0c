//! What is kept of a pod in trouble, and of the starts of others.
//!
//! Enters: sights of pods and Events. Leaves: for each container in trouble since when, and the last cause that was told.
//! A healthy pod leaves nothing but, for a while, the time at which its repositories were last seen to start.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::super::cause::{Cause, FailureClass, Permanence};
use super::super::image::ImageReference;
use super::brake::Failure;
use super::effect::{Fence, ObjectRef};
use super::moment::Moment;
use super::nodes::Nodes;
use super::sight::PodSight;
use super::symptoms::{Symptom, Told, may_have_run};
use super::task::TaskId;

/// Who told the cause. Anybody can write an Event, so none convicts alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Status,
    Event,
}

/// One container that waits for its image.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub symptom: Symptom,
    pub image_key: String,
    /// The last cause that was told: a bare back-off does not take it away.
    pub cause: Option<(Cause, Source)>,
    /// In this pod.
    pub since: Moment,
    /// Since when nothing but "no" was told.
    pub firm_since: Option<Moment>,
    /// When a pull was seen to fail because the image does not exist: first and last.
    pub not_found: Option<(Moment, Moment)>,
    /// The status no longer says that it waits for its image, nor that it started. Flapping, or a kubelet that restarts.
    pub silent_since: Option<Moment>,
}

impl Trouble {
    pub fn class(&self) -> Option<FailureClass> {
        self.cause.as_ref().map(|(cause, _)| cause.class)
    }

    pub fn reference(&self) -> Option<&ImageReference> {
        self.symptom.reference()
    }

    pub fn failure<'a>(&'a self, node: Option<&'a str>, nodes: &dyn Nodes, now: Timestamp) -> Failure<'a> {
        let reference = self.reference();
        Failure {
            host: reference.map(ImageReference::registry),
            node,
            image: &self.image_key,
            class: self.class(),
            lost: node.zip(reference).is_some_and(|(node, image)| nodes.has_lost(node, image, now)),
        }
    }

    fn new(symptom: Symptom, now: Moment) -> Self {
        let image_key = symptom.image_key();
        Self { symptom, image_key, cause: None, since: now, firm_since: None, not_found: None, silent_since: None }
    }

    fn hear(&mut self, cause: &Cause, source: Source, now: Moment) {
        match (source, cause.permanence) {
            (Source::Status, Permanence::Permanent | Permanence::Unclear) => {
                self.firm_since.get_or_insert(now);
            }
            (Source::Event, Permanence::Permanent | Permanence::Unclear) => {}
            (_, Permanence::Transient) => self.firm_since = None,
        }
        self.cause = Some((cause.clone(), source));
    }

    /// A pull failed at this moment because the image does not exist.
    fn pull_failed(&mut self, first: Moment, last: Moment) {
        let (known_first, known_last) = self.not_found.unwrap_or((first, last));
        self.not_found = Some((known_first.min(first), known_last.max(last)));
    }
}

/// `ErrImagePull` is the state right after a pull; what follows is the back-off until the next.
const JUST_PULLED: &str = "ErrImagePull";

/// What became of a pod in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is still there and not over.
    Open,
    /// Dead, and still there: Failed without ever having run.
    Dead,
    /// Deleted, or being deleted.
    Gone,
}

#[derive(Clone, Debug)]
pub(super) struct PodEntry {
    pub sight: PodSight,
    /// By container. Boxed, as a map of one has room for eleven.
    pub troubles: BTreeMap<String, Box<Trouble>>,
    pub fate: Fate,
    pub task: Option<TaskId>,
    /// Those that match it, by name.
    pub policies: Vec<String>,
    /// As an attempt of its task.
    pub counted: bool,
    /// When we have failed it in place.
    pub failed_at: Option<Moment>,
    /// The image for which it alone is failed, its task not.
    pub failed_for: Option<String>,
    /// A delete of ours was accepted.
    pub collected: bool,
    /// An act on it is put off until then.
    pub wait_until: Moment,
    /// What `FailedToRetrieveImagePullSecret` said.
    pub missing_secret: Option<String>,
    /// Until when its waiting was counted as waste.
    pub waited_to: Moment,
    /// To be assigned to a task, or digested by it.
    pub dirty: bool,
}

impl PodEntry {
    pub fn new(sight: PodSight, now: Moment) -> Self {
        Self {
            sight,
            troubles: BTreeMap::new(),
            fate: Fate::Open,
            task: None,
            policies: Vec::new(),
            counted: false,
            failed_at: None,
            failed_for: None,
            collected: false,
            wait_until: now,
            missing_secret: None,
            waited_to: now,
            dirty: true,
        }
    }

    pub fn ran(&self) -> bool {
        may_have_run(&self.sight)
    }

    pub fn fence(&self) -> Fence {
        Fence { uid: self.sight.uid.clone(), resource_version: self.sight.resource_version.clone() }
    }

    pub fn object(&self) -> ObjectRef {
        ObjectRef {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: self.sight.facts.namespace.clone(),
            name: self.sight.facts.name.clone(),
            uid: self.sight.uid.clone(),
        }
    }

    /// Still open, and at least one container says now that it waits for its image.
    pub fn is_stuck(&self) -> bool {
        self.fate == Fate::Open && self.told().next().is_some()
    }

    /// The troubles that the status tells of now.
    pub fn told(&self) -> impl Iterator<Item = &Trouble> {
        self.troubles.values().map(|trouble| &**trouble).filter(|trouble| trouble.silent_since.is_none())
    }

    pub fn forget_silent(&mut self, now: Moment) {
        self.troubles.retain(|_, trouble| trouble.silent_since.is_none_or(|since| now.since(since) < SILENCE));
    }

    /// Takes over what a new sight says of containers. Tells whether anything of weight changed.
    pub fn take(&mut self, symptoms: Vec<Symptom>, born: Moment, now: Moment) -> bool {
        let mut changed = false;
        let mut silent: Vec<String> = self.troubles.keys().cloned().collect();
        for symptom in symptoms {
            silent.retain(|name| *name != symptom.container);
            let key = symptom.image_key();
            let known = self.troubles.get(&symptom.container).filter(|trouble| trouble.image_key == key);
            let (mut trouble, is_new) = match known {
                Some(trouble) => (trouble.clone(), false),
                None => (Box::new(Trouble::new(symptom.clone(), now)), true),
            };
            let pulled_again = trouble.symptom.reason != JUST_PULLED && symptom.reason == JUST_PULLED;
            let other_words = trouble.symptom.told != symptom.told || trouble.symptom.reason != symptom.reason;
            changed |= is_new || other_words || trouble.silent_since.take().is_some();
            if let Told::Cause(cause) = &symptom.told {
                trouble.hear(cause, Source::Status, now);
                if cause.class == FailureClass::NotFound {
                    if pulled_again || (is_new && symptom.reason == JUST_PULLED) {
                        trouble.pull_failed(now, now);
                    } else if is_new {
                        // It failed at some time between the pod's creation and now: as a first pull it counts from now, as
                        // a second one from then.
                        trouble.pull_failed(now, born);
                    }
                }
            }
            trouble.symptom = symptom;
            self.troubles.insert(trouble.symptom.container.clone(), trouble);
        }
        for name in silent {
            if let Some(trouble) = self.troubles.get_mut(&name)
                && trouble.silent_since.is_none()
            {
                trouble.silent_since = Some(now);
                changed = true;
            }
        }
        changed
    }

    /// A cause out of an Event. What the status says itself weighs more.
    pub fn hear_event(&mut self, container: Option<&str>, cause: &Cause, now: Moment) -> bool {
        let mut changed = false;
        for trouble in self.troubles.values_mut() {
            let names = match (container, &cause.image) {
                (Some(container), _) => container == trouble.symptom.container,
                (None, Some(image)) => *image == trouble.symptom.image || *image == trouble.image_key,
                (None, None) => true,
            };
            if !names {
                continue;
            }
            match &trouble.cause {
                None | Some((_, Source::Event)) => {
                    trouble.hear(cause, Source::Event, now);
                    changed = true;
                }
                // It repeats what the status has said: one more pull with the same answer.
                Some((known, Source::Status))
                    if known.class == cause.class && cause.class == FailureClass::NotFound =>
                {
                    trouble.pull_failed(now, now);
                    changed = true;
                }
                Some((_, Source::Status)) => {}
            }
        }
        changed
    }
}

/// How long a container may be silent before its trouble is over. A kubelet that restarts says `ContainerCreating`.
pub(super) const SILENCE: Duration = Duration::from_secs(120);

/// When containers of a repository were last seen to start. Bounded by distinct repositories; where it forgets, it says so.
#[derive(Clone, Debug, Default)]
pub(super) struct Starts {
    last: BTreeMap<String, Timestamp>,
    /// Something that started at this time or before may be forgotten.
    forgotten: Option<Timestamp>,
}

/// Some 100 bytes each.
const MOST_REPOSITORIES: usize = 4_096;

impl Starts {
    pub fn note(&mut self, image: &ImageReference, at: Timestamp) {
        if let Some(last) = self.last.get_mut(image.name()) {
            *last = at.max(*last);
            return;
        }
        if self.last.len() >= MOST_REPOSITORIES {
            // Rare and dear: half of them go, the oldest.
            let mut times: Vec<Timestamp> = self.last.values().copied().collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            self.last.retain(|_, at| *at > median);
            self.forgotten = Some(self.forgotten.map_or(median, |before| before.max(median)));
        }
        self.last.insert(image.name().to_owned(), at);
    }

    /// Whether a container of the repository may have started after a time.
    pub fn maybe_after(&self, image: &ImageReference, after: Timestamp) -> bool {
        self.forgotten.is_some_and(|forgotten| forgotten >= after)
            || self.last.get(image.name()).is_some_and(|at| *at >= after)
    }
}

/// Causes out of Events whose pod's status has not been seen yet.
#[derive(Clone, Debug, Default)]
pub(super) struct EarlyWords {
    words: VecDeque<(String, Option<String>, Cause)>,
}

const MOST_EARLY: usize = 1_024;

impl EarlyWords {
    pub fn keep(&mut self, uid: String, container: Option<String>, cause: Cause) {
        if self.words.len() >= MOST_EARLY {
            self.words.pop_front();
        }
        self.words.push_back((uid, container, cause));
    }

    pub fn take(&mut self, uid: &str) -> Vec<(Option<String>, Cause)> {
        if !self.words.iter().any(|(of, _, _)| of == uid) {
            return Vec::new();
        }
        let (mine, others) = std::mem::take(&mut self.words).into_iter().partition(|(of, _, _)| of == uid);
        self.words = others;
        let mine: VecDeque<_> = mine;
        mine.into_iter().map(|(_, container, cause)| (container, cause)).collect()
    }
}
