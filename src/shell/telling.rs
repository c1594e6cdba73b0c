//! What the webhook's decisions become: numbers, a log line and an Event.
//!
//! Enters: reviews, from the webhook. Leaves: nothing that the review waits for.

use std::sync::Arc;
use std::time::Duration;

use super::events::Events;
use super::metrics::Metrics;
use super::webhook::{Decision, Sink};
use super::world::World;
use crate::core::policy::Action;
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
        let Some(first) = verdict.first() else { return };
        if verdict.would_be() != Action::Allow {
            let (ns, name) = (&inquiry.pod.namespace, &inquiry.name);
            let (would_be, detail) = (verdict.would_be().as_str(), first.detail.map(|detail| detail.as_str()));
            let (verdict, reason) = (verdict.action().as_str(), first.reason.as_str());
            let (image, policy) = (&*first.image, &*first.policy);
            tracing::info!(ns, kind, name, verdict, would_be, reason, detail, image, policy, "decision");
        }
        let policies = self.world.policies();
        if let Some(notice) = Notice::decision(&inquiry, &api_version, &kind, &verdict, &policies) {
            self.events.tell(notice);
        }
    }
}
