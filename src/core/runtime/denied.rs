//! Jobs whose pods our own webhook refuses: they would make pods for ever, with an Event each and no condition.
//!
//! Enters: denials, and fresh rulings on the Jobs' templates. Leaves: the Jobs that have been denied for so long, under one
//! unchanged generation of the policies, that they are to be failed. Never for `ImageNotAllowed` or what is unknown: a
//! policy is easily mended, a failed Job is not.
//!
//! An Event is only the trigger to look: what counts is the template, judged afresh.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::pod::{OwnerRef, PodFacts};
use super::super::reason::Reason;
use super::moment::Moment;
use super::sight::{DenialSight, PolicyMark, TemplateRuling, TemplateVerdict};

/// Without a denial for so long the Job is gone, or was let through. The Job controller tries at least every 10 minutes.
const FORGET: Duration = Duration::from_secs(30 * 60);
/// A ruling on which a Job is failed.
const FRESH: Duration = Duration::from_secs(10);
/// How often a Job that cannot be judged, or is let through, is looked at again.
const AGAIN: Duration = Duration::from_secs(60);
/// How often one of which all has been said is looked at again, to see whether it still is denied.
const SELDOM: Duration = Duration::from_secs(600);
const MOST: usize = 4_096;

#[derive(Clone, Debug)]
struct DeniedJob {
    namespace: String,
    job: OwnerRef,
    last: Moment,
    /// Since when it is denied under these generations.
    since: Moment,
    marks: Vec<PolicyMark>,
    ruling: Option<(TemplateRuling, Moment)>,
    /// It was handed over to be failed: under Audit it is only told, and goes on.
    convicted: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct DeniedJobs {
    jobs: BTreeMap<String, DeniedJob>,
}

/// What a denied Job asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Its template is to be judged.
    Judge {
        namespace: String,
        job: OwnerRef,
    },
    Wait(Moment),
    Fail(Box<Denied>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Denied {
    pub namespace: String,
    pub job: OwnerRef,
    pub since: Moment,
    pub image: String,
    pub message: String,
    pub remedy: String,
    pub policies: Vec<PolicyMark>,
    pub pod: PodFacts,
}

/// What no Job is failed for.
fn is_mendable(reason: Reason) -> bool {
    matches!(reason, Reason::ImageNotAllowed | Reason::ImagePresenceUnknown | Reason::TaskPermanentlyFailed)
}

impl DeniedJobs {
    pub fn denied(&mut self, sight: DenialSight, now: Moment) {
        let uid = sight.job.uid.clone();
        if let Some(job) = self.jobs.get_mut(&uid) {
            job.last = now;
        } else if self.jobs.len() < MOST {
            let DenialSight { namespace, job, at: _ } = sight;
            let (marks, ruling) = (Vec::new(), None);
            let job = DeniedJob { namespace, job, last: now, since: now, marks, ruling, convicted: false };
            self.jobs.insert(uid, job);
        }
    }

    pub fn judged(&mut self, verdict: TemplateVerdict, now: Moment) {
        let Some(job) = self.jobs.get_mut(&verdict.job.uid) else { return };
        match &verdict.ruling {
            TemplateRuling::Denied { policies, .. } => {
                if job.marks != *policies {
                    job.begin_anew(now);
                    job.marks.clone_from(policies);
                }
            }
            TemplateRuling::Allowed => {
                job.begin_anew(now);
                job.marks.clear();
            }
            TemplateRuling::Unknown => {}
        }
        job.ruling = Some((verdict.ruling, now));
    }

    pub fn forget(&mut self, uid: &str) {
        self.jobs.remove(uid);
    }

    pub fn convict(&mut self, uid: &str) {
        if let Some(job) = self.jobs.get_mut(uid) {
            job.convicted = true;
        }
    }

    /// Whether what it was handed over for still holds.
    pub fn is_convicted(&self, uid: &str) -> bool {
        self.jobs.get(uid).is_some_and(|job| job.convicted)
    }

    /// The clocks of those under a policy start anew: its brake was released.
    pub fn restart(&mut self, policy: &str, now: Moment) {
        for job in self.jobs.values_mut() {
            if job.marks.iter().any(|mark| mark.name == policy) {
                job.since = now;
            }
        }
    }

    /// Each policy with an image that it denies now.
    pub fn by_policy(&self) -> impl Iterator<Item = (&str, &str)> {
        self.jobs.values().flat_map(|job| {
            let image = match &job.ruling {
                Some((TemplateRuling::Denied { image, .. }, _)) => Some(image.as_str()),
                Some((TemplateRuling::Allowed | TemplateRuling::Unknown, _)) | None => None,
            };
            image.into_iter().flat_map(|image| job.marks.iter().map(move |mark| (mark.name.as_str(), image)))
        })
    }

    /// What each asks for. `limit` says after how long a pod like this is too long denied; `None`: never. `braked`: not now.
    /// A conviction under a policy that is no longer `in_force` is none.
    pub fn next(
        &mut self,
        now: Moment,
        limit: &dyn Fn(&PodFacts) -> Option<Duration>,
        braked: &dyn Fn(&[PolicyMark]) -> bool,
        in_force: &dyn Fn(&PolicyMark) -> bool,
    ) -> Vec<Next> {
        self.jobs.retain(|_, job| now.since(job.last) < FORGET);
        for job in self.jobs.values_mut().filter(|job| job.convicted && !job.marks.iter().all(in_force)) {
            job.begin_anew(now);
            job.ruling = None;
        }
        self.jobs.values().map(|job| job.next(now, limit, braked)).collect()
    }
}

impl DeniedJob {
    fn begin_anew(&mut self, now: Moment) {
        self.since = now;
        self.convicted = false;
    }

    fn next(
        &self,
        now: Moment,
        limit: &dyn Fn(&PodFacts) -> Option<Duration>,
        braked: &dyn Fn(&[PolicyMark]) -> bool,
    ) -> Next {
        let ask = || Next::Judge { namespace: self.namespace.clone(), job: self.job.clone() };
        let Some((ruling, ruled_at)) = &self.ruling else { return ask() };
        let again = ruled_at.plus(if self.convicted { SELDOM } else { AGAIN });
        let look_again = || if now >= again { ask() } else { Next::Wait(again) };
        let TemplateRuling::Denied { reason, detail: _, image, message, remedy, policies, pod } = ruling else {
            return look_again();
        };
        let Some(limit) = limit(pod).filter(|_| !is_mendable(*reason)) else { return look_again() };
        let due = self.since.plus(limit);
        if now < due {
            // In between, so that a change of policy is noticed while the clock runs.
            return if now >= again { ask() } else { Next::Wait(due.min(again)) };
        }
        if self.convicted {
            return look_again();
        }
        if braked(policies) {
            // The brake is on as long as so many are denied: whether they still are is to be seen.
            return look_again();
        }
        if now.since(*ruled_at) >= FRESH {
            return ask();
        }
        Next::Fail(Box::new(Denied {
            namespace: self.namespace.clone(),
            job: self.job.clone(),
            since: self.since,
            image: image.clone(),
            message: message.clone(),
            remedy: remedy.clone(),
            policies: policies.clone(),
            pod: (**pod).clone(),
        }))
    }
}
