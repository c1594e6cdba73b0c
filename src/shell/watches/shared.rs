//! The watches of every replica: nodes, policies, namespaces, records.
//!
//! Enters: changes. Leaves: the shared world as it is now, and its nudge for whoever plans. Each function runs for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt};

use super::{Heed, Roll, follow};
use crate::core::inventory::Inventory;
use crate::core::policy::Policy;
use crate::core::refusal::Refusals;
use crate::core::runtime::effect::FailureState;
use crate::core::runtime::recreation::Recreation;
use crate::core::runtime::sight::RecordSight;
use crate::core::selector::Labels;
use crate::k8s::crd::PullFailure;
use crate::k8s::policy::WatchedPolicy;
use crate::k8s::{node, policy, record};
use crate::shell::metrics::Metrics;
use crate::shell::world::World;

/// A node lists up to 250 names of images: some 50 KB of JSON each.
const NODES_A_PAGE: u32 = 100;
const PAGE: u32 = 250;

pub async fn nodes<R>(client: Client, world: Arc<World<R>>, metrics: Arc<Metrics>)
where
    R: Refusals + Default + Send + Sync + 'static,
{
    let api: Api<Node> = Api::all(client);
    let config = Config::default().page_size(NODES_A_PAGE);
    follow("nodes", api, config, metrics, Nodes { world, roll: Roll::default() }).await;
}

pub async fn policies<R>(client: Client, world: Arc<World<R>>, metrics: Arc<Metrics>)
where
    R: Refusals + Default + Send + Sync + 'static,
{
    let api: Api<WatchedPolicy> = Api::all(client);
    let heed = Policies { world, known: BTreeMap::new(), standing_in: BTreeSet::new(), roll: Roll::default() };
    follow("policies", api, Config::default().page_size(PAGE), metrics, heed).await;
}

pub async fn namespaces<R>(client: Client, world: Arc<World<R>>, metrics: Arc<Metrics>)
where
    R: Refusals + Default + Send + Sync + 'static,
{
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client);
    let heed = Namespaces { world, listed: BTreeMap::new() };
    follow("namespaces", api, Config::default().page_size(PAGE), metrics, heed).await;
}

/// Records, for the re-creation that admission denies.
pub async fn records(client: Client, world: Arc<World<Recreation>>, metrics: Arc<Metrics>) {
    let api: Api<PullFailure> = Api::all(client);
    let heed = Records { world, metrics: Arc::clone(&metrics), listed: Vec::new(), states: BTreeMap::new() };
    follow("records", api, Config::default().page_size(PAGE), metrics, heed).await;
}

struct Nodes<R> {
    world: Arc<World<R>>,
    roll: Roll<String>,
}

impl<R: Refusals + Default + Send + Sync + 'static> Nodes<R> {
    fn apply(&mut self, node: Node) {
        let facts = node::facts(node);
        self.roll.enter(facts.name.clone());
        let now = self.world.now();
        let news = self.world.change_inventory(|inventory| inventory.apply(facts, now));
        if !news.gained.is_empty() {
            self.world.changed();
        }
    }
}

impl<R: Refusals + Default + Send + Sync + 'static> Heed<Node> for Nodes<R> {
    async fn heed(&mut self, event: Event<Node>) {
        match event {
            Event::Init => self.roll.begin(),
            Event::InitApply(node) => self.apply(node),
            Event::InitDone => {
                let gone = self.roll.vanished();
                self.world.change_inventory(|inventory: &mut Inventory| {
                    gone.iter().for_each(|name| inventory.remove(name));
                    inventory.set_synced(true);
                });
                self.world.changed();
            }
            Event::Apply(node) => self.apply(node),
            Event::Delete(node) => {
                let name = node.name_any();
                self.roll.leave(&name);
                self.world.change_inventory(|inventory| inventory.remove(&name));
                self.world.changed();
            }
        }
    }
}

struct Policies<R> {
    world: Arc<World<R>>,
    /// The uid and generation that was compiled, or could not be, and the one thing beside it that counts.
    known: BTreeMap<String, (String, i64, bool)>,
    /// Those of which no generation could be compiled since this replica started.
    standing_in: BTreeSet<String>,
    roll: Roll<String>,
}

impl<R: Refusals + Default + Send + Sync + 'static> Policies<R> {
    /// Compiles a generation once; a change of status is none.
    fn apply(&mut self, object: WatchedPolicy) {
        let name = object.name_any();
        self.roll.enter(name.clone());
        let (uid, generation) = (object.uid().unwrap_or_default(), object.metadata.generation.unwrap_or_default());
        let read = object.read();
        let mark = (uid, generation, read.as_ref().is_ok_and(policy::was_emptied));
        if self.known.get(&name) == Some(&mark) {
            return;
        }
        let compiled = match &read {
            Ok(object) => policy::compile(object).map_err(|error| (error, policy::stand_in(object))),
            Err(error) => Err((error.clone(), None)),
        };
        let problem = match compiled {
            Ok(compiled) => {
                tracing::info!(policy = name, generation, "policy in force");
                self.standing_in.remove(&name);
                self.world.change_policies(|policies| policies.apply(compiled));
                None
            }
            Err((error, stand_in)) => {
                let instead = self.instead(&name, &mark.0, stand_in);
                tracing::error!(policy = name, generation, %error, instead, "policy cannot be compiled");
                Some(format!("{error}. {instead}"))
            }
        };
        self.world.report_policy(&name, generation, problem);
        self.known.insert(name, mark);
        self.world.changed();
    }

    /// Puts in force what holds while a policy cannot be compiled, and says what that is.
    fn instead(&mut self, name: &str, uid: &str, stand_in: Option<Policy>) -> &'static str {
        // Only of the same object: one that was deleted and made anew has no last generation.
        let is_last = self.world.policies().get(name).is_some_and(|in_force| in_force.uid == uid);
        if is_last && !self.standing_in.contains(name) {
            return "The last generation that could be compiled stays in force.";
        }
        let stands_in = stand_in.is_some();
        self.world.change_policies(|policies| match stand_in {
            Some(stand_in) => policies.apply(stand_in),
            None => policies.remove(name),
        });
        if stands_in {
            self.standing_in.insert(name.to_owned());
            return "No earlier generation is known since Pullguard started: every image is warned of, and none is refused.";
        }
        self.standing_in.remove(name);
        "No earlier generation is known since Pullguard started: the policy is not in force."
    }

    fn remove(&mut self, name: &str) {
        tracing::info!(policy = name, "policy gone");
        self.known.remove(name);
        self.standing_in.remove(name);
        self.world.change_policies(|policies| policies.remove(name));
        self.world.forget_policy(name);
        self.world.changed();
    }
}

impl<R: Refusals + Default + Send + Sync + 'static> Heed<WatchedPolicy> for Policies<R> {
    async fn heed(&mut self, event: Event<WatchedPolicy>) {
        match event {
            Event::Init => self.roll.begin(),
            Event::InitDone => {
                for name in self.roll.vanished() {
                    self.remove(&name);
                }
                self.world.set_policies_synced();
                self.world.changed();
            }
            Event::InitApply(object) | Event::Apply(object) => self.apply(object),
            Event::Delete(object) => {
                let name = object.name_any();
                self.roll.leave(&name);
                self.remove(&name);
            }
        }
    }
}

struct Namespaces<R> {
    world: Arc<World<R>>,
    listed: BTreeMap<String, Labels>,
}

impl<R: Refusals + Default + Send + Sync + 'static> Heed<PartialObjectMeta<Namespace>> for Namespaces<R> {
    async fn heed(&mut self, event: Event<PartialObjectMeta<Namespace>>) {
        let labels = |namespace: PartialObjectMeta<Namespace>| {
            (namespace.metadata.name.unwrap_or_default(), namespace.metadata.labels.unwrap_or_default())
        };
        let world = &self.world;
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(namespace) => self.listed.extend([labels(namespace)]),
            Event::InitDone => world.replace_namespaces(std::mem::take(&mut self.listed)),
            Event::Apply(namespace) => {
                let (name, labels) = labels(namespace);
                if world.namespace(&name).labels.as_deref() == Some(&labels) {
                    return;
                }
                world.set_namespace(&name, labels);
            }
            Event::Delete(namespace) => world.forget_namespace(&labels(namespace).0),
        }
        self.world.changed();
    }
}

struct Records {
    world: Arc<World<Recreation>>,
    metrics: Arc<Metrics>,
    listed: Vec<RecordSight>,
    states: BTreeMap<(String, String), FailureState>,
}

impl Records {
    fn gone(&mut self, namespace: String, name: String) {
        self.world.change_refusals(|failed| failed.forget(&namespace, &name));
        self.states.remove(&(namespace, name));
    }

    fn note(&mut self, sight: &RecordSight) {
        let record = &sight.record;
        self.states.insert((record.namespace.clone(), record.name.clone()), record.state);
    }

    fn count(&self) {
        for state in [FailureState::Retrying, FailureState::PermanentlyFailed, FailureState::Resolved] {
            self.metrics.set_records(state, self.states.values().filter(|is| **is == state).count());
        }
    }
}

impl Heed<PullFailure> for Records {
    async fn heed(&mut self, event: Event<PullFailure>) {
        let key = |failure: &PullFailure| (failure.namespace().unwrap_or_default(), failure.name_any());
        match event {
            Event::Init => {
                self.listed.clear();
                return;
            }
            Event::InitApply(failure) => {
                self.listed.extend(record::sight(failure));
                return;
            }
            Event::InitDone => {
                self.states.clear();
                let listed = std::mem::take(&mut self.listed);
                listed.iter().for_each(|sight| self.note(sight));
                self.world.change_refusals(|failed| {
                    failed.clear();
                    listed.iter().for_each(|sight| failed.observe(&sight.record));
                });
                self.world.set_refusals_synced();
            }
            Event::Apply(failure) => {
                let (namespace, name) = key(&failure);
                match record::sight(failure) {
                    Some(sight) => {
                        self.note(&sight);
                        self.world.change_refusals(|failed| failed.observe(&sight.record));
                    }
                    None => self.gone(namespace, name),
                }
            }
            Event::Delete(failure) => {
                let (namespace, name) = key(&failure);
                self.gone(namespace, name);
            }
        }
        self.count();
    }
}
