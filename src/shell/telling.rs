//! What the webhook's decisions become: numbers, a log line and an Event.
//!
//! Enters: reviews, from the webhook. Leaves: nothing that the review waits for.

use std::sync::Arc;
use std::time::Duration;

use super::events::Events;
use super::metrics::Metrics;
use super::webhook::{Decision, Rescue, Sink};
use super::world::World;
use crate::core::reason::Reason;
use crate::core::refusal::Refusals;
use crate::core::verdict::Verdict;
use crate::k8s::event::Notice;

#[derive(Debug)]
pub struct Teller<R> {
    pub world: Arc<World<R>>,
    pub events: Events,
    pub metrics: Arc<Metrics>,
}

impl<R: Refusals + Default + Send + Sync + 'static> Sink for Teller<R> {
    fn reviewed(&self, verdict: &Verdict, took: Duration) {
        self.metrics.reviewed(verdict, took);
    }

    fn decided(&self, decision: Decision) {
        let Decision { inquiry, api_version, kind, verdict } = decision;
        let policies = self.world.policies();
        for finding in verdict.told() {
            let notice = Notice::decision(&inquiry, &api_version, &kind, &verdict, finding, &policies);
            let (ns, name) = (&inquiry.pod.namespace, &inquiry.name);
            let (reason, detail) = (finding.reason.as_str(), finding.detail.map(|detail| detail.as_str()));
            let (image, policy) = (&*finding.image, &*finding.policy);
            let (verdict, action) = (verdict.action().as_str(), notice.action);
            tracing::info!(ns, kind, name, verdict, action, reason, detail, image, policy, "decision");
            self.events.tell(notice);
        }
    }
    fn rescued(&self, rescue: Rescue<'_>) {
        let Rescue { inquiry, api_version, kind, rescued, policies } = rescue;
        self.metrics.rescued(rescued);
        let (ns, name) = (&inquiry.pod.namespace, &inquiry.name);
        let (reason, action) = (Reason::Rescued.as_str(), rescued.name());
        tracing::info!(ns, kind, name, action, reason, policies = ?policies, what = rescued.told(&inquiry.pod), "rescue");
        self.events.tell(Notice::rescue(inquiry, api_version, kind, rescued, policies, &self.world.policies()));
    }
}
