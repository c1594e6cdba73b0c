//! The last look before an act: may this very object, as it was read just now, be failed, marked or deleted?
//!
//! Enters: a fresh read of an owner and of its pods. Leaves: yes, or the guard that says no. Called by the shell between
//! its read and its write, so that what is judged is what is fenced.

use super::sight::{JobFacts, OwnerFacts, OwnerSight, Phase, PodSight};
use super::symptoms::{may_have_run, symptoms};

/// Why an act is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guard {
    /// The object is gone, or another one has its name.
    Gone,
    Unreadable,
    NotAJob,
    Deleting,
    /// Complete or Failed already.
    Finished,
    /// `FailureTarget` is there already: done, by us or by others.
    FailingAlready,
    /// `SuccessCriteriaMet`.
    Succeeding,
    Suspended,
    /// `spec.managedBy` is somebody else.
    ManagedElsewhere,
    /// The controller has not started it yet.
    NotStarted,
    /// One of its pods has a main container that started.
    PodStarted,
    PodSucceeded,
    /// It has active pods, but none is stuck any more.
    NothingStuck,
    /// The pod is a static pod's mirror.
    Mirror,
    /// The pod is no longer waiting for its image.
    NotStuck,
}

impl Guard {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "Gone",
            Self::Unreadable => "Unreadable",
            Self::NotAJob => "NotAJob",
            Self::Deleting => "Deleting",
            Self::Finished => "Finished",
            Self::FailingAlready => "FailingAlready",
            Self::Succeeding => "Succeeding",
            Self::Suspended => "Suspended",
            Self::ManagedElsewhere => "ManagedElsewhere",
            Self::NotStarted => "NotStarted",
            Self::PodStarted => "PodStarted",
            Self::PodSucceeded => "PodSucceeded",
            Self::NothingStuck => "NothingStuck",
            Self::Mirror => "Mirror",
            Self::NotStuck => "NotStuck",
        }
    }
}

fn found(owner: &OwnerSight) -> Result<&OwnerFacts, Guard> {
    match owner {
        OwnerSight::Found(facts) if facts.deleting => Err(Guard::Deleting),
        OwnerSight::Found(facts) => Ok(facts),
        OwnerSight::NotFound { .. } => Err(Guard::Gone),
        OwnerSight::Unreadable { .. } => Err(Guard::Unreadable),
    }
}

/// Whether a Job itself lets us touch it, its pods aside.
pub fn job_is_open(job: &JobFacts) -> Result<(), Guard> {
    if job.finished {
        Err(Guard::Finished)
    } else if job.success_criteria_met {
        Err(Guard::Succeeding)
    } else if job.managed_by.is_some() {
        Err(Guard::ManagedElsewhere)
    } else if job.suspended {
        Err(Guard::Suspended)
    } else {
        Ok(())
    }
}

/// Whether a Job may be failed by `FailureTarget`, which ends **all** its active pods. `pods` are all pods that it controls,
/// `stuck` the uids of those that were judged, `image` the one that they wait for.
///
/// A Job without any active pod may be: its pods were denied, or its last one was just deleted, and its template cannot
/// change.
pub fn job_may_fail(owner: &OwnerSight, pods: &[PodSight], stuck: &[String], image: &str) -> Result<(), Guard> {
    let job = found(owner)?.job.as_ref().ok_or(Guard::NotAJob)?;
    job_is_open(job)?;
    if job.failure_target {
        return Err(Guard::FailingAlready);
    }
    if !job.started {
        return Err(Guard::NotStarted);
    }
    if job.succeeded > 0 || pods.iter().any(|pod| pod.phase == Phase::Succeeded) {
        return Err(Guard::PodSucceeded);
    }
    // Also one that is being deleted: to fail the Job would end it no sooner, and it may yet succeed.
    if any_pod_ran(pods) {
        return Err(Guard::PodStarted);
    }
    let active: Vec<&PodSight> = pods.iter().filter(|pod| !pod.phase.is_over() && !pod.deleting).collect();
    let is_stuck = |pod: &&PodSight| waits_for(pod, image) && (stuck.is_empty() || stuck.contains(&pod.uid));
    if !active.is_empty() && !active.iter().any(is_stuck) {
        return Err(Guard::NothingStuck);
    }
    Ok(())
}

/// Whether a pod still waits in vain for the image that it was judged for. That it waits for another one now is news: the
/// first has come.
fn waits_for(pod: &PodSight, image: &str) -> bool {
    symptoms(pod).iter().any(|symptom| symptom.image_key() == image)
}

/// Whether a pod of a Job ran: an active one has a main container that started, or one has succeeded.
pub fn any_pod_ran(pods: &[PodSight]) -> bool {
    pods.iter().any(|pod| pod.phase == Phase::Succeeded || (!pod.phase.is_over() && may_have_run(pod)))
}

/// Whether an owner may get our label and annotations. A Job that is failing or failed by us may still get them.
pub fn owner_may_be_marked(owner: &OwnerSight) -> Result<(), Guard> {
    match &found(owner)?.job {
        Some(job) if job.failure_target => Ok(()),
        Some(job) => job_is_open(job),
        None => Ok(()),
    }
}

/// Whether a pod may be failed in place for an image.
pub fn pod_may_be_failed(pod: &PodSight, image: &str) -> Result<(), Guard> {
    if pod.deleting {
        Err(Guard::Deleting)
    } else if pod.mirror {
        Err(Guard::Mirror)
    } else if pod.phase.is_over() {
        Err(Guard::Finished)
    } else if may_have_run(pod) {
        Err(Guard::PodStarted)
    } else if !waits_for(pod, image) {
        Err(Guard::NotStuck)
    } else {
        Ok(())
    }
}

/// Whether a pod may be deleted: it is stuck on an image, or it died without ever having run.
pub fn pod_may_be_collected(pod: &PodSight, image: &str) -> Result<(), Guard> {
    match pod.phase {
        Phase::Succeeded => Err(Guard::PodSucceeded),
        Phase::Failed => {
            if pod.deleting {
                Err(Guard::Deleting)
            } else if pod.mirror {
                Err(Guard::Mirror)
            } else if may_have_run(pod) {
                Err(Guard::PodStarted)
            } else {
                Ok(())
            }
        }
        Phase::Pending | Phase::Running | Phase::Unknown => pod_may_be_failed(pod, image),
    }
}
