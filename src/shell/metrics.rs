//! What Prometheus is told.
//!
//! Enters: decisions, effects, counters, states. Leaves: the text of `/metrics`. Labels come from enums alone, never from
//! names or messages of the cluster, so the number of series is bounded by this file.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::core::cause::{FailureClass, Permanence};
use crate::core::policy::Action;
use crate::core::reason::Reason;
use crate::core::rescue::Rescued;
use crate::core::runtime::brake::{BrakeReport, Level, Place};
use crate::core::runtime::effect::{Effect, FailureState, Outcome};
use crate::core::runtime::waste::Counters;
use crate::core::verdict::Verdict;

/// Seconds. A decision takes some 10 us, and a look-up of a namespace some milliseconds.
const DECISION_BUCKETS: [f64; 12] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.25, 2.0];
const EFFECT_BUCKETS: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// By which `pullguard doctor` sees what a replica serves.
pub const CERTIFICATE_EXPIRY: &str = "pullguard_certificate_expiry_timestamp_seconds";

/// What a label is where there is nothing to name.
const NONE: &str = "None";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    verdict: &'static str,
    would_be: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRescue {
    rescue: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Applied {
    effect: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfEffect {
    effect: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFailure {
    class: &'static str,
    permanence: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfClass {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailedTask {
    reason: &'static str,
    class: &'static str,
    enforcement: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Braked {
    place: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Watched {
    watch: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Told {
    result: &'static str,
}

/// How an Event went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    Created,
    /// The same was told within the last minute or is in the cluster already, or its namespace has been told of enough.
    Coalesced,
    /// The queue was full.
    Dropped,
    Refused,
}

type Seconds = Counter<f64, AtomicU64>;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    decisions: Family<Decided, Counter>,
    decision_seconds: Histogram,
    rescues: Family<OfRescue, Counter>,
    effects: Family<Applied, Counter>,
    effect_seconds: Family<OfEffect, Histogram>,
    failures: Family<OfFailure, Counter>,
    tasks_failed: Family<FailedTask, Counter>,
    tasks_resolved: Counter,
    waiting_seconds: Family<OfClass, Seconds>,
    attempts: Counter,
    pods_collected: Counter,
    pods_failed: Counter,
    capped: Counter,
    ledger_dropped: Counter,
    stuck_pods: Gauge,
    brakes: Family<Braked, Gauge>,
    events: Family<Told, Counter>,
    watch_errors: Family<Watched, Counter>,
    nodes: Gauge,
    images: Gauge,
    policies: Gauge,
    policies_broken: Gauge,
    records: Family<OfState, Gauge>,
    leader: Gauge<i64, AtomicI64>,
    plan_seconds: Histogram,
    certificate_until: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pullguard");
        let new = Self {
            decisions: Family::default(),
            decision_seconds: Histogram::new(DECISION_BUCKETS),
            rescues: Family::default(),
            effects: Family::default(),
            effect_seconds: Family::new_with_constructor(|| Histogram::new(EFFECT_BUCKETS)),
            failures: Family::default(),
            tasks_failed: Family::default(),
            tasks_resolved: Counter::default(),
            waiting_seconds: Family::default(),
            attempts: Counter::default(),
            pods_collected: Counter::default(),
            pods_failed: Counter::default(),
            capped: Counter::default(),
            ledger_dropped: Counter::default(),
            stuck_pods: Gauge::default(),
            brakes: Family::default(),
            events: Family::default(),
            watch_errors: Family::default(),
            nodes: Gauge::default(),
            images: Gauge::default(),
            policies: Gauge::default(),
            policies_broken: Gauge::default(),
            records: Family::default(),
            leader: Gauge::default(),
            plan_seconds: Histogram::new(DECISION_BUCKETS),
            certificate_until: Gauge::default(),
            registry: Registry::default(),
        };
        new.register(&mut registry);
        Self { registry, ..new }
    }
}

impl Metrics {
    fn register(&self, to: &mut Registry) {
        let s = Unit::Seconds;
        to.register("decisions", "Reviews decided, by verdict and first reason", self.decisions.clone());
        let help = "From the body read to the verdict made";
        to.register_with_unit("decision_duration", help, s.clone(), self.decision_seconds.clone());
        to.register("rescues", "Pods changed by the mutating webhook, by rescue", self.rescues.clone());
        to.register("effects", "Effects of the runtime half, by kind and outcome", self.effects.clone());
        let help = "From the start of an effect to its outcome";
        to.register_with_unit("effect_duration", help, s.clone(), self.effect_seconds.clone());
        to.register("pull_failures", "Images of tasks found to fail, by class and permanence", self.failures.clone());
        let help = "Tasks declared permanently failed, by reason, class and enforcement";
        to.register("tasks_failed", help, self.tasks_failed.clone());
        to.register("tasks_resolved", "Failures of tasks that are over", self.tasks_resolved.clone());
        let help = "Time that pods have waited for images that did not come, by class";
        to.register_with_unit("wasted_pod", help, s.clone(), self.waiting_seconds.clone());
        to.register("wasted_attempts", "Provisioning attempts that came to nothing", self.attempts.clone());
        to.register("pods_collected", "Dead pods deleted", self.pods_collected.clone());
        to.register("pods_failed", "Stuck pods failed in place", self.pods_failed.clone());
        to.register("effects_capped", "Effects put off because a cap was hit", self.capped.clone());
        let help = "Sights dropped because the ledger was full; a re-list brings them again";
        to.register("ledger_dropped", help, self.ledger_dropped.clone());
        to.register("stuck_pods", "Pods that wait for an image now", self.stuck_pods.clone());
        to.register("brakes", "Brakes that are on, by what they are of and their state", self.brakes.clone());
        to.register("events", "Events told, coalesced, dropped and refused", self.events.clone());
        to.register("watch_errors", "Errors of watches; each is followed by a new try", self.watch_errors.clone());
        to.register("inventory_nodes", "Nodes in the inventory", self.nodes.clone());
        to.register("inventory_images", "Different image names in the inventory", self.images.clone());
        to.register("policies", "Policies in force", self.policies.clone());
        let help = "Policies whose latest generation cannot be compiled";
        to.register("policies_not_compiled", help, self.policies_broken.clone());
        to.register("records", "PullFailures, by state", self.records.clone());
        to.register("leader", "1 where this replica leads", self.leader.clone());
        to.register_with_unit("plan_duration", "Time to plan what to do", s.clone(), self.plan_seconds.clone());
        let help = "When the certificate that this replica serves ends, in Unix time; 0: it serves none";
        to.register_with_unit("certificate_expiry_timestamp", help, s, self.certificate_until.clone());
    }

    /// The text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail; a metric that could not be encoded ends the text, and that shows.
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => text,
        }
    }

    pub fn reviewed(&self, verdict: &Verdict, took: Duration) {
        let reason = verdict.first().map_or(NONE, |finding| finding.reason.as_str());
        let decided = Decided { verdict: verdict.action().as_str(), would_be: verdict.would_be().as_str(), reason };
        self.decisions.get_or_create(&decided).inc();
        self.decision_seconds.observe(took.as_secs_f64());
    }

    pub fn rescued(&self, rescued: &Rescued) {
        self.rescues.get_or_create(&OfRescue { rescue: rescued.name() }).inc();
    }

    pub fn applied(&self, effect: &Effect, outcome: &Outcome, took: Duration) {
        let kind = effect_kind(effect);
        self.effects.get_or_create(&Applied { effect: kind, outcome: outcome_kind(outcome) }).inc();
        self.effect_seconds.get_or_create(&OfEffect { effect: kind }).observe(took.as_secs_f64());
    }

    /// An image of a task was found to fail, and is on its record.
    pub fn failure(&self, class: FailureClass, permanence: Permanence) {
        self.failures.get_or_create(&OfFailure { class: class.as_str(), permanence: permanence.as_str() }).inc();
    }

    pub fn planned(&self, counters: &Counters, brakes: &[BrakeReport], stuck_pods: usize, took: Duration) {
        let class = |class: Option<FailureClass>| class.map_or(NONE, FailureClass::as_str);
        for (cause, time) in &counters.waiting {
            self.waiting_seconds.get_or_create(&OfClass { class: class(*cause) }).inc_by(time.as_secs_f64());
        }
        for ((reason, cause, audit), count) in &counters.tasks_failed {
            let enforcement = if *audit { "Audit" } else { "Enforce" };
            let failed = FailedTask { reason: reason.as_str(), class: class(*cause), enforcement };
            self.tasks_failed.get_or_create(&failed).inc_by(u64::from(*count));
        }
        self.tasks_resolved.inc_by(u64::from(counters.tasks_resolved));
        self.attempts.inc_by(u64::from(counters.attempts));
        self.pods_collected.inc_by(u64::from(counters.pods_collected));
        self.pods_failed.inc_by(u64::from(counters.pods_failed));
        self.capped.inc_by(u64::from(counters.capped));
        self.ledger_dropped.inc_by(u64::from(counters.dropped));
        self.set_brakes(brakes);
        self.stuck_pods.set(gauge(stuck_pods));
        self.plan_seconds.observe(took.as_secs_f64());
    }

    fn set_brakes(&self, brakes: &[BrakeReport]) {
        for place in ["Registry", "Node", "Policy"] {
            for level in [Level::Suspect, Level::Outage] {
                let on =
                    brakes.iter().filter(|brake| brake.level == level && place_kind(&brake.place) == place).count();
                self.brakes.get_or_create(&Braked { place, state: level.as_str() }).set(gauge(on));
            }
        }
    }

    /// This replica no longer leads: what only the leader knows is nothing here.
    pub fn stepped_down(&self) {
        self.set_brakes(&[]);
        self.stuck_pods.set(0);
        self.leader.set(0);
    }

    pub fn leads(&self) {
        self.leader.set(1);
    }

    pub fn told(&self, telling: Telling) {
        let result = match telling {
            Telling::Created => "Created",
            Telling::Coalesced => "Coalesced",
            Telling::Dropped => "Dropped",
            Telling::Refused => "Refused",
        };
        self.events.get_or_create(&Told { result }).inc();
    }

    pub fn watch_failed(&self, watch: &'static str) {
        self.watch_errors.get_or_create(&Watched { watch }).inc();
    }

    pub fn set_inventory(&self, nodes: usize, images: usize) {
        self.nodes.set(gauge(nodes));
        self.images.set(gauge(images));
    }

    pub fn set_policies(&self, in_force: usize, not_compiled: usize) {
        self.policies.set(gauge(in_force));
        self.policies_broken.set(gauge(not_compiled));
    }

    pub fn set_certificate(&self, until: Option<Timestamp>) {
        self.certificate_until.set(until.map_or(0, Timestamp::as_second));
    }

    pub fn set_records(&self, state: FailureState, count: usize) {
        self.records.get_or_create(&OfState { state: state.as_str() }).set(gauge(count));
    }

    /// For the sake of those that never decide: series exist from the start.
    pub fn prime(&self) {
        for action in [Action::Allow, Action::Warn, Action::Deny] {
            let verdict = action.as_str();
            drop(self.decisions.get_or_create(&Decided { verdict, would_be: verdict, reason: NONE }));
        }
        drop(self.tasks_failed.get_or_create(&FailedTask {
            reason: Reason::PullPermanentlyFailed.as_str(),
            class: NONE,
            enforcement: "Enforce",
        }));
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

const fn place_kind(place: &Place) -> &'static str {
    match place {
        Place::Registry(_) => "Registry",
        Place::Node(_) => "Node",
        Place::Policy(_) => "Policy",
    }
}

/// The kind of an effect, for labels and log fields.
pub const fn effect_kind(effect: &Effect) -> &'static str {
    match effect {
        Effect::LookUpOwner { .. } => "LookUpOwner",
        Effect::JudgeTemplate { .. } => "JudgeTemplate",
        Effect::WriteRecord { .. } => "WriteRecord",
        Effect::RemoveRecord { .. } => "RemoveRecord",
        Effect::MarkOwner { .. } => "MarkOwner",
        Effect::UnmarkJob { .. } => "UnmarkJob",
        Effect::FailJob { .. } => "FailJob",
        Effect::FailPod { .. } => "FailPod",
        Effect::DeletePod { .. } => "DeletePod",
        Effect::EmitEvent(_) => "EmitEvent",
    }
}

pub const fn outcome_kind(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "Done",
        Outcome::Refused(_) => "Refused",
        Outcome::Gone => "Gone",
        Outcome::Conflict => "Conflict",
        Outcome::Failed(_) => "Failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_every_metric() {
        let reference = include_str!("../../docs/reference.md");
        let metrics = Metrics::default();
        metrics.prime();
        // A family without a value is not told of.
        drop(metrics.rescues.get_or_create(&OfRescue { rescue: NONE }));
        drop(metrics.effects.get_or_create(&Applied { effect: NONE, outcome: NONE }));
        drop(metrics.effect_seconds.get_or_create(&OfEffect { effect: NONE }));
        drop(metrics.failures.get_or_create(&OfFailure { class: NONE, permanence: NONE }));
        drop(metrics.waiting_seconds.get_or_create(&OfClass { class: NONE }));
        drop(metrics.events.get_or_create(&Told { result: NONE }));
        drop(metrics.watch_errors.get_or_create(&Watched { watch: NONE }));
        drop(metrics.records.get_or_create(&OfState { state: NONE }));
        metrics.set_brakes(&[]);
        let text = metrics.encode();
        let types: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert_eq!(types.len(), 26, "{types:?}");
        for line in types {
            let (name, kind) = line.split_once(' ').expect("a name and a type");
            let total = if kind == "counter" { "_total" } else { "" };
            assert!(
                reference.contains(&format!("| `{name}{total}` | {kind} |")),
                "docs/reference.md has no row {line}"
            );
        }
    }

    #[test]
    fn the_end_of_the_served_certificate_is_told_under_the_name_that_the_doctor_reads() {
        let metrics = Metrics::default();
        metrics.set_certificate(Timestamp::from_second(1_800_000_000).ok());
        let line = format!("{CERTIFICATE_EXPIRY} 1800000000");
        assert!(metrics.encode().lines().any(|told| told == line), "{}", metrics.encode());
    }
}
