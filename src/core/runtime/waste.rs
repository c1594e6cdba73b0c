//! What pull failures cost, as numbers for metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::cause::FailureClass;
use super::super::reason::Reason;

/// What happened since the last plan. Sums of small numbers of small sets: never a label per pod or image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// How long pods have waited for images, added up over pods. `None`: no cause was told yet.
    pub waiting: BTreeMap<Option<FailureClass>, Duration>,
    /// Provisioning attempts of tasks that came to nothing.
    pub attempts: u32,
    pub pods_collected: u32,
    pub pods_failed: u32,
    /// Tasks declared permanently failed, by reason and class; with `true`, those of Audit.
    pub tasks_failed: BTreeMap<(Reason, Option<FailureClass>, bool), u32>,
    pub tasks_resolved: u32,
    /// Effects put off because of a cap.
    pub capped: u32,
    /// Sights dropped because the ledger is full. A re-list brings them again.
    pub dropped: u32,
}

impl Counters {
    pub(super) fn wait(&mut self, class: Option<FailureClass>, time: Duration) {
        if !time.is_zero() {
            *self.waiting.entry(class).or_default() += time;
        }
    }
}
