//! What admission must know of permanently failed tasks, on every replica the same.
//!
//! Enters: records, as the watch brings them. Leaves: whether a pod would be one more of a failed task. It knows nothing but
//! records, so that replicas cannot differ: an image that came and a container that started are told by the controller in
//! the record (`Resolved`), an expiry is computed from the record's own times.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::super::image::ImageName;
use super::super::pod::{PodFacts, PullPolicy};
use super::super::policy::{FailOwner, Policy};
use super::super::reason::Reason;
use super::super::refusal::{Refusal, Refusals};
use super::effect::{FailureState, Record, secrets_kept};
use super::moment::elapsed;
use super::rules::Rules;
use super::task::{TaskId, TaskKey, can_end, key_of_owner, task_of};

/// After each `expiry` admission opens for so long.
pub const WINDOW: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Failed {
    /// With the image as the runtime resolves it; else as written.
    image: Option<ImageName>,
    pull_policy: Option<PullPolicy>,
    pull_secrets: Vec<String>,
    failed_at: Timestamp,
    expiry: Duration,
    refusal: Refusal,
}

/// The index of permanently failed tasks.
#[derive(Clone, Debug, Default)]
pub struct Recreation {
    failed: HashMap<TaskId, Failed>,
    /// By namespace and name of the record, for when it is gone.
    names: HashMap<(String, String), TaskId>,
}

impl Recreation {
    /// Takes in a record, new or changed.
    pub fn observe(&mut self, record: &Record) {
        let name = (record.namespace.clone(), record.name.clone());
        match of_record(record) {
            Some((id, failed)) => {
                self.names.insert(name, id.clone());
                self.failed.insert(id, failed);
            }
            None => self.forget(&record.namespace, &record.name),
        }
    }

    pub fn forget(&mut self, namespace: &str, name: &str) {
        if let Some(id) = self.names.remove(&(namespace.to_owned(), name.to_owned())) {
            self.failed.remove(&id);
        }
    }

    /// Forgets all, before a list is read anew.
    pub fn clear(&mut self) {
        self.failed.clear();
        self.names.clear();
    }

    pub fn len(&self) -> usize {
        self.failed.len()
    }

    pub fn is_empty(&self) -> bool {
        self.failed.is_empty()
    }
}

/// What a record has against new pods of its task. Nothing, if the task goes on: a Job of which only pods were failed needs
/// their replacements, or it would never come to an end.
fn of_record(record: &Record) -> Option<(TaskId, Failed)> {
    let counts = record.state == FailureState::PermanentlyFailed
        && (record.reason == Reason::PullPermanentlyFailed || record.reason == Reason::PullRetriesExhausted);
    let failed_at = record.failed_at.filter(|_| counts)?;
    let failure = record.failures.iter().find(|failure| failure.image == record.image)?;
    let failed = Failed {
        image: ImageName::parse(&failure.image).ok(),
        pull_policy: failure.pull_policy,
        pull_secrets: secrets_kept(&failure.pull_secrets),
        failed_at,
        expiry: record.expires_at.map_or(Duration::MAX, |at| elapsed(failed_at, at)),
        refusal: Refusal {
            class: failure.class,
            image: record.image.clone(),
            message: record.message.clone(),
            remedy: record.remedy.clone(),
            record: record.name.clone(),
        },
    };
    Some((task_of(&record.namespace, &record.task)?, failed))
}

/// Whether a failed task may be tried now: from each whole number of expiries after its failure, for [`WINDOW`].
pub fn is_open(failed_at: Timestamp, expiry: Duration, now: Timestamp) -> bool {
    last_opening(failed_at, expiry, now).is_some_and(|since| since < WINDOW)
}

/// How long ago admission opened last. `None`: it has not yet.
pub fn last_opening(failed_at: Timestamp, expiry: Duration, now: Timestamp) -> Option<Duration> {
    let age = elapsed(failed_at, now);
    if expiry.is_zero() {
        return Some(Duration::ZERO);
    }
    let rest = age.as_millis().checked_rem(expiry.as_millis().max(1))?;
    (age >= expiry).then(|| Duration::from_millis(u64::try_from(rest).unwrap_or(u64::MAX)))
}

impl Failed {
    fn is_tried_again_by(&self, pod: &PodFacts) -> bool {
        secrets_kept(&pod.pull_secrets) == self.pull_secrets
            && pod.containers.iter().any(|container| {
                let same_image = match (&self.image, &container.parsed) {
                    (Some(failed), Ok(image)) => failed == image,
                    (Some(_) | None, _) => self.refusal.image == container.image,
                };
                same_image && self.pull_policy.is_none_or(|policy| policy == container.pull_policy)
            })
    }
}

impl Refusals for Recreation {
    fn refusal(&self, pod: &PodFacts, policies: &[&Policy], now: Timestamp) -> Option<Refusal> {
        if self.failed.is_empty() {
            return None;
        }
        let key = match &pod.owner {
            // Owners above the first are not known here: a task of such an owner is stopped by its pods being collected.
            Some(owner) => key_of_owner(owner),
            None => {
                let (key, value) = pod.labels.get_key_value(Rules::task_label(policies)?)?;
                TaskKey::Label { key: key.clone(), value: value.clone() }
            }
        };
        let failed = self.failed.get(&TaskId { namespace: pod.namespace.clone(), key })?;
        let rules = Rules::most_cautious(policies).filter(|rules| rules.fail_owner != FailOwner::None)?;
        // A service is only told of: its pods may start elsewhere, or from what a node still holds.
        let is_task = pod.owner.as_ref().is_none_or(|owner| can_end(owner, &rules));
        let refused = is_task && failed.is_tried_again_by(pod) && !is_open(failed.failed_at, failed.expiry, now);
        refused.then(|| failed.refusal.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    #[test]
    fn admission_opens_for_a_minute_after_each_expiry() {
        let hour = Duration::from_secs(3600);
        for (second, open) in [
            (0, false),
            (3599, false),
            (3600, true),
            (3659, true),
            (3660, false),
            (7199, false),
            (7205, true),
            (-10, false),
        ] {
            assert_eq!(is_open(at(0), hour, at(second)), open, "{second} s");
        }
        assert!(is_open(at(0), Duration::ZERO, at(5)));
        assert!(!is_open(at(0), Duration::MAX, at(1_000_000)));
    }
}
