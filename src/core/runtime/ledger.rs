//! The level-triggered state of the runtime half: what is failing now, since when, and how often it was tried.
//!
//! Enters: sights and outcomes. Leaves: nothing by itself; `plan` reads it. A healthy pod leaves no trace.

use jiff::Timestamp;

use super::effect::{EffectId, Outcome};
use super::sight::{DenialSight, EventSight, OwnerSight, PodSight, RecordSight, TemplateVerdict};

/// Whether a sight changed what a plan could say: if so, plan soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum News {
    None,
    Some,
}

#[derive(Debug, Default)]
pub struct Ledger {}

impl Ledger {
    // pub fn new(settings: Settings) -> Self   (settings: own namespace, brake limits, caps; `Settings::default()`)

    /// Every pod, in every phase, whenever the watch shows it. Feed records before pods after a start.
    pub fn observe_pod(&mut self, pod: PodSight, now: Timestamp) -> News {
        let _ = (pod, now);
        News::None
    }

    /// The watch says that the pod is gone (or a re-list no longer has it).
    pub fn forget_pod(&mut self, uid: &str, now: Timestamp) -> News {
        let _ = (uid, now);
        News::None
    }

    pub fn observe_event(&mut self, event: EventSight, now: Timestamp) -> News {
        let _ = (event, now);
        News::None
    }

    /// What `Effect::LookUpOwner` read.
    pub fn observe_owner(&mut self, owner: OwnerSight, now: Timestamp) -> News {
        let _ = (owner, now);
        News::None
    }

    pub fn observe_record(&mut self, record: RecordSight, now: Timestamp) -> News {
        let _ = (record, now);
        News::None
    }

    /// The watch says that the record is gone: by a person (who thereby lets the task be tried again) or by us.
    pub fn forget_record(&mut self, namespace: &str, name: &str, now: Timestamp) -> News {
        let _ = (namespace, name, now);
        News::None
    }

    pub fn observe_denial(&mut self, denial: DenialSight, now: Timestamp) -> News {
        let _ = (denial, now);
        News::None
    }

    /// What `Effect::JudgeTemplate` gave.
    pub fn observe_verdict(&mut self, verdict: TemplateVerdict, now: Timestamp) -> News {
        let _ = (verdict, now);
        News::None
    }

    /// How an effect of a plan went.
    pub fn outcome(&mut self, id: &EffectId, outcome: Outcome, now: Timestamp) -> News {
        let _ = (id, outcome, now);
        News::None
    }

    // pub fn plan(&mut self, now: Timestamp, setting: &Setting<'_>) -> Plan   (plan.rs)
}
