//! The runtime half at work: one owner of the ledger, fed by watches, asked for plans, told of outcomes.
//!
//! Enters: inputs, on a bounded queue. Leaves: effects, applied concurrently within a bound. Only the leader has a ledger:
//! with the lease it is dropped, and made anew from the API server, records before pods, and no plan is made of half of it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::applier::{Applied, Applier, Read};
use super::events::Events;
use super::metrics::Metrics;
use super::policy_status;
use super::watches::trouble::{EventReason, Input, watch_events, watch_pods, watch_records};
use super::world::World;
use crate::core::refusal::Refusals;
use crate::core::runtime::brake::BrakeReport;
use crate::core::runtime::effect::{Effect, EffectId, Outcome, Planned};
use crate::core::runtime::ledger::{Ledger, News, Settings};
use crate::core::runtime::plan::{Plan, Setting};
use crate::k8s::sight::Evidence;

/// Some 4 KiB each. The watch waits when it is full, and the API server keeps the rest.
const QUEUE: usize = 512;
/// Taken from the queue before anything else has its turn.
const AT_ONCE: usize = 256;
/// Effects under way. One takes 1 to 3 requests of some milliseconds each.
const CONCURRENCY: usize = 32;
/// What comes within this time is planned together.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// A change of nodes or policies concerns every task: looked at this seldom.
const RECONSIDER: Duration = Duration::from_millis(500);
/// Planned at least this often.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// After something has ended that never should.
const ANEW: Duration = Duration::from_secs(1);
/// While not everything is synced.
const NOT_YET: Duration = Duration::from_millis(100);

/// The runtime half of one replica, to be run.
pub struct Controller<R> {
    /// It must not retry by itself.
    pub client: Client,
    pub world: Arc<World<R>>,
    pub settings: Settings,
    pub events: Events,
    pub metrics: Arc<Metrics>,
}

impl<R> std::fmt::Debug for Controller<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<R: Refusals + Default + Send + Sync + 'static> Controller<R> {
    /// Runs until `stopping` is true: where it leads with a ledger, elsewhere only listening to kubelets for the sake of
    /// admission. An effect that is cut off is found done or undone by the next leader.
    pub async fn run(self, mut leading: watch::Receiver<bool>, mut stopping: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow_lease(&mut leading) => {}
            _ = stopping.wait_for(|stop| *stop) => tracing::debug!("controller stops"),
        }
        self.metrics.stepped_down();
    }

    /// Until there is no election any more.
    async fn follow_lease(&self, leading: &mut watch::Receiver<bool>) {
        loop {
            let leads = *leading.borrow_and_update();
            let work = async {
                if leads {
                    self.lead().await;
                    tracing::error!("a watch of the leader has ended, it begins anew");
                } else {
                    let (client, world) = (self.client.clone(), Arc::clone(&self.world));
                    watch_pods(client, world, Arc::clone(&self.metrics), None).await;
                    tracing::error!("the watch of pods has ended, it begins anew");
                }
                tokio::time::sleep(ANEW).await;
            };
            tokio::select! {
                () = work => {}
                changed = leading.wait_for(|now| *now != leads) => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            self.metrics.stepped_down();
        }
    }

    /// One lead, from an empty ledger.
    async fn lead(&self) {
        tracing::info!("leading");
        self.metrics.leads();
        let (sender, mut inputs) = mpsc::channel(QUEUE);
        let (brakes, brakes_on) = watch::channel(Vec::new());
        let mut changes = self.world.changes();
        let mut watches = JoinSet::new();
        let (client, world, metrics) = (self.client.clone(), Arc::clone(&self.world), Arc::clone(&self.metrics));
        watches.spawn(policy_status::keep(client, world, metrics, brakes_on));
        watches.spawn(watch_records(self.client.clone(), Arc::clone(&self.metrics), sender.clone()));
        let (client, world) = (self.client.clone(), Arc::clone(&self.world));
        let applier = Applier::new(client, world, self.events.clone(), Arc::clone(&self.metrics));
        let ledger = Ledger::new(self.settings.clone());
        let mut lead = Lead { controller: self, ledger, brakes, due: None, stage: Stage::Records };
        let mut waiting = Waiting::default();
        let mut under_way = FuturesUnordered::new();
        let mut ids: HashSet<EffectId> = HashSet::new();
        let mut took = Duration::ZERO;
        loop {
            while under_way.len() < CONCURRENCY
                && let Some(planned) = waiting.next()
            {
                under_way.push(applier.apply(planned));
            }
            let due = lead.due.unwrap_or_else(|| Instant::now() + HEARTBEAT);
            tokio::select! {
                Some(applied) = under_way.next(), if !under_way.is_empty() => {
                    ids.remove(&applied.planned.id);
                    lead.applied(applied, took);
                }
                input = inputs.recv() => {
                    let Some(input) = input else { return };
                    lead.take(input, took);
                    for _ in 1..AT_ONCE {
                        let Ok(input) = inputs.try_recv() else { break };
                        lead.take(input, took);
                    }
                    if lead.stage == Stage::PodsWanted {
                        lead.stage = Stage::Pods;
                        self.watch_trouble(&mut watches, &sender);
                    }
                }
                Ok(()) = changes.changed() => {
                    lead.ledger.reconsider();
                    lead.plan_within(RECONSIDER);
                }
                () = tokio::time::sleep_until(due) => {
                    let Some(plan) = lead.plan() else { continue };
                    took = plan.took;
                    let effects = plan.plan.effects.into_iter();
                    effects.filter(|planned| ids.insert(planned.id.clone())).for_each(|planned| waiting.add(planned));
                }
                // A watch ends only by a panic: begin again from nothing.
                _ = watches.join_next() => return,
            }
        }
    }

    fn watch_trouble(&self, watches: &mut JoinSet<()>, sender: &mpsc::Sender<Input>) {
        let (client, metrics) = (&self.client, &self.metrics);
        let (world, inputs) = (Arc::clone(&self.world), Some(sender.clone()));
        watches.spawn(watch_pods(client.clone(), world, Arc::clone(metrics), inputs));
        for reason in EventReason::ALL {
            watches.spawn(watch_events(client.clone(), Arc::clone(metrics), reason, sender.clone()));
        }
    }
}

/// Effects that have not begun. What ends a task goes before what begins another's end: of 500 tasks at once the first is
/// failed after milliseconds, not after 500 records.
#[derive(Debug, Default)]
struct Waiting {
    acts: VecDeque<Planned>,
    others: VecDeque<Planned>,
}

impl Waiting {
    fn add(&mut self, planned: Planned) {
        let is_act = match planned.effect {
            Effect::MarkOwner { .. } | Effect::FailJob { .. } | Effect::FailPod { .. } | Effect::EmitEvent(_) => true,
            Effect::LookUpOwner { .. }
            | Effect::JudgeTemplate { .. }
            | Effect::WriteRecord { .. }
            | Effect::RemoveRecord { .. }
            | Effect::DeletePod { .. } => false,
        };
        if is_act { self.acts.push_back(planned) } else { self.others.push_back(planned) }
    }

    fn next(&mut self) -> Option<Planned> {
        self.acts.pop_front().or_else(|| self.others.pop_front())
    }
}

/// How far the ledger is made up of what is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Records,
    /// The records are known: now the pods.
    PodsWanted,
    Pods,
    Whole,
}

/// The ledger, and when it is to be asked.
struct Lead<'a, R> {
    controller: &'a Controller<R>,
    ledger: Ledger,
    /// For the policies' status.
    brakes: watch::Sender<Vec<BrakeReport>>,
    due: Option<Instant>,
    stage: Stage,
}

struct Made {
    plan: Plan,
    took: Duration,
}

impl<R: Refusals + Default + Send + Sync + 'static> Lead<'_, R> {
    fn plan_within(&mut self, within: Duration) {
        let at = Instant::now() + within;
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Planning takes at most half of the time, however much there is to plan.
    fn heed(&mut self, news: News, took: Duration) {
        match news {
            News::Some => self.plan_within(DEBOUNCE.max(took)),
            News::None => {}
        }
    }

    fn take(&mut self, input: Input, took: Duration) {
        let (ledger, now) = (&mut self.ledger, self.controller.world.now());
        let news = match input {
            Input::Pod(pod) => ledger.observe_pod(*pod, now),
            Input::PodGone { uid } => ledger.forget_pod(&uid, now),
            Input::Evidence(Evidence::Pull(event)) => ledger.observe_event(event, now),
            Input::Evidence(Evidence::Denial(denial)) => ledger.observe_denial(denial, now),
            Input::Record(record) => ledger.observe_record(*record, now),
            Input::RecordGone { namespace, name } => ledger.forget_record(&namespace, &name, now),
            Input::RecordsListed => {
                if self.stage == Stage::Records {
                    self.stage = Stage::PodsWanted;
                }
                News::None
            }
            Input::PodsListed => {
                if self.stage == Stage::Pods {
                    self.stage = Stage::Whole;
                    let (pods, tasks) = (ledger.pods_kept(), ledger.tasks_kept());
                    tracing::info!(pods, tasks, "ledger made anew");
                }
                News::Some
            }
        };
        self.heed(news, took);
    }

    fn applied(&mut self, applied: Applied, took: Duration) {
        let now = self.controller.world.now();
        let Applied { planned, read, outcome } = applied;
        // A new record: of each image that fails, once.
        if let (Effect::WriteRecord { fence: None, record }, Outcome::Done { .. }) = (&planned.effect, &outcome) {
            for failure in &record.failures {
                self.controller.metrics.failure(failure.class, failure.permanence);
            }
        }
        let read = match read {
            Some(Read::Owner(owner)) => self.ledger.observe_owner(owner, now),
            Some(Read::Verdict(verdict)) => self.ledger.observe_verdict(verdict, now),
            None => News::None,
        };
        self.heed(read, took);
        let news = self.ledger.outcome(&planned.id, outcome, now);
        self.heed(news, took);
    }

    /// `None`: there is not enough known to plan.
    fn plan(&mut self) -> Option<Made> {
        let Controller { world, metrics, .. } = self.controller;
        if self.stage != Stage::Whole || !world.is_synced() {
            self.due = Some(Instant::now() + NOT_YET);
            return None;
        }
        let (start, policies) = (Instant::now(), world.policies());
        let namespaces = |name: &str| world.namespace(name);
        let ledger = &mut self.ledger;
        let plan = world.read_inventory(|inventory| {
            ledger.plan(world.now(), &Setting { policies: &policies, namespaces: &namespaces, nodes: inventory })
        });
        let took = start.elapsed();
        metrics.planned(&plan.counters, &plan.brakes, plan.stuck_pods, took);
        self.brakes.send_if_modified(|known| {
            let changed = *known != plan.brakes;
            if changed {
                known.clone_from(&plan.brakes);
            }
            changed
        });
        self.due = Some(start + plan.recheck_after.unwrap_or(HEARTBEAT).clamp(DEBOUNCE, HEARTBEAT));
        Some(Made { plan, took })
    }
}
