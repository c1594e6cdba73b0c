//! What is wrong with a pod, by its status.
//!
//! Enters: a pod. Leaves: the images that it waits for in vain, with the kubelet's words classified, and whether it may be
//! touched at all. Phase decides nothing here: a container that lost its image waits in a Running pod.

use super::super::cause::{Cause, Diagnosis, Words, classify};
use super::super::image::{ImageName, ImageReference};
use super::super::pod::{ContainerFacts, ContainerKind, PullPolicy};
use super::sight::{ContainerState, EverStarted, PodSight};

/// The cause of a pull failure, as far as the status tells now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Cause(Cause),
    /// A bare back-off: the cause was told before, or in an Event.
    Bare,
}

/// One image that a pod waits for in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symptom {
    /// The container that waits.
    pub container: String,
    /// Of the image: `ImageVolume` where the container waits for one of its volumes.
    pub kind: ContainerKind,
    /// As written in the pod.
    pub image: String,
    pub parsed: Option<ImageName>,
    pub pull_policy: PullPolicy,
    /// The waiting reason.
    pub reason: String,
    pub told: Told,
}

impl Symptom {
    /// By which failures of one image are the same: the canonical reference, or the text that is none.
    pub fn image_key(&self) -> String {
        image_key(self.parsed.as_ref(), &self.image)
    }

    pub fn reference(&self) -> Option<&ImageReference> {
        self.parsed.as_ref().and_then(ImageName::reference)
    }
}

pub fn image_key(parsed: Option<&ImageName>, written: &str) -> String {
    parsed.map_or_else(|| written.to_owned(), ToString::to_string)
}

/// The images that a pod waits for in vain. None for a pod that is over, nor for what somebody attached to look into it: a
/// pod waits for no ephemeral container.
pub fn symptoms(pod: &PodSight) -> Vec<Symptom> {
    if pod.phase.is_over() {
        return Vec::new();
    }
    pod.containers
        .iter()
        .filter(|status| status.kind != ContainerKind::Ephemeral)
        .filter_map(|status| {
            let ContainerState::Waiting { reason, message } = &status.state else { return None };
            let spec = pod.spec_of(status)?;
            let told = match classify(&Words { reason, message, image: Some(&spec.image) }) {
                Diagnosis::PullFailure(cause) => {
                    let culprit = culprit(pod, spec, cause.image.as_deref());
                    return Some(symptom(status.name.clone(), culprit, reason, Told::Cause(cause)));
                }
                Diagnosis::CauseElsewhere { image } => (Told::Bare, image),
                Diagnosis::NotAPullFailure => return None,
            };
            let (told, image) = told;
            Some(symptom(status.name.clone(), culprit(pod, spec, image.as_deref()), reason, told))
        })
        .collect()
}

fn symptom(container: String, image: &ContainerFacts, reason: &str, told: Told) -> Symptom {
    Symptom {
        container,
        kind: image.kind,
        image: image.image.clone(),
        parsed: image.parsed.as_ref().ok().cloned(),
        pull_policy: image.pull_policy,
        reason: reason.to_owned(),
        told,
    }
}

/// Whose image is meant: a container that waits for an image volume names the volume's. What names neither is the
/// container's own, for the kubelet may write it in another form.
fn culprit<'a>(pod: &'a PodSight, container: &'a ContainerFacts, named: Option<&str>) -> &'a ContainerFacts {
    let Some(named) = named else { return container };
    let same = |facts: &ContainerFacts| {
        facts.image == named || matches!((&facts.parsed, ImageName::parse(named)), (Ok(one), Ok(two)) if *one == two)
    };
    if same(container) {
        return container;
    }
    let mut volumes = pod.facts.containers.iter().filter(|facts| facts.kind == ContainerKind::ImageVolume);
    volumes.find(|facts| same(facts)).unwrap_or(container)
}

/// Whether a main container may have run: such a pod is never touched. Finished init containers and running sidecars
/// do not count.
pub fn may_have_run(pod: &PodSight) -> bool {
    pod.containers.iter().filter(|status| status.kind == ContainerKind::Main).any(|status| match status.ever_started {
        EverStarted::Yes => true,
        EverStarted::No => false,
        // What a dead pod's lost container says of itself is what it says of one that never was.
        EverStarted::Unknowable => !pod.phase.is_over(),
    })
}
