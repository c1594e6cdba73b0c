//! What admission must know of permanently failed tasks.
//!
//! Enters: a pod that is about to be created. Leaves: why its task may not have another one. The index of failed tasks is
//! elsewhere (`recreation`): this is all that a decision asks of it.

use jiff::Timestamp;

use super::cause::FailureClass;
use super::pod::PodFacts;
use super::policy::Policy;

/// Why a pod is refused: its task is permanently failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub class: FailureClass,
    /// The image that failed, as written.
    pub image: String,
    /// The cause, one line.
    pub message: String,
    pub remedy: String,
    /// The name of the `PullFailure`, in the pod's namespace.
    pub record: String,
}

/// The permanently failed tasks.
pub trait Refusals {
    /// Whether the pod would be one more of a permanently failed task. `policies` are those that match the pod, never
    /// none: whether they let the answer deny is judged by the caller.
    fn refusal(&self, pod: &PodFacts, policies: &[&Policy], now: Timestamp) -> Option<Refusal>;
}

/// Nothing has failed: for `pullguard check` without a cluster, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRefusals;

impl Refusals for NoRefusals {
    fn refusal(&self, _: &PodFacts, _: &[&Policy], _: Timestamp) -> Option<Refusal> {
        None
    }
}
