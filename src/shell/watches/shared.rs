//! The watches of every replica: nodes, policies, namespaces, records.
//!
//! Enters: changes. Leaves: the shared world, what the leader needs for the policies' status, and a nudge for whoever
//! plans. Each function runs for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt};
use tokio::sync::Notify;

use super::{Heed, Roll, follow};
use crate::core::inventory::Inventory;
use crate::core::refusal::Refusals;
use crate::core::runtime::effect::FailureState;
use crate::core::runtime::sight::RecordSight;
use crate::core::selector::Labels;
use crate::k8s::crd::{NodeImagePolicy, NodeImagePolicyStatus, PullFailure};
use crate::k8s::{node, policy, record};
use crate::shell::metrics::Metrics;
use crate::shell::world::World;

/// A node lists up to 250 names of images: some 50 KB of JSON each.
const NODES_A_PAGE: u32 = 100;
const PAGE: u32 = 250;

/// What the watches of a replica share.
#[derive(Debug)]
pub struct Shared<R> {
    pub client: Client,
    pub world: Arc<World<R>>,
    pub metrics: Arc<Metrics>,
    pub board: Arc<Board>,
    /// Nodes, policies or namespaces have changed.
    pub changed: Arc<Notify>,
}

impl<R> Clone for Shared<R> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            metrics: Arc::clone(&self.metrics),
            board: Arc::clone(&self.board),
            changed: Arc::clone(&self.changed),
        }
    }
}

impl<R: Refusals + Default + Send + Sync + 'static> Shared<R> {
    pub async fn watch_nodes(self) {
        let api: Api<Node> = Api::all(self.client.clone());
        let metrics = Arc::clone(&self.metrics);
        follow("nodes", api, Config::default().page_size(NODES_A_PAGE), metrics, Nodes { shared: self, roll: Roll::default() })
            .await;
    }

    pub async fn watch_policies(self) {
        let api: Api<NodeImagePolicy> = Api::all(self.client.clone());
        let metrics = Arc::clone(&self.metrics);
        follow("policies", api, Config::default().page_size(PAGE), metrics, Policies { shared: self, roll: Roll::default() })
            .await;
    }

    pub async fn watch_namespaces(self) {
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(self.client.clone());
        let metrics = Arc::clone(&self.metrics);
        let heed = Namespaces { shared: self, listed: BTreeMap::new() };
        follow("namespaces", api, Config::default().page_size(PAGE), metrics, heed).await;
    }

    /// Records, for the re-creation that admission denies; `tell` takes the news.
    pub async fn watch_records(self, tell: impl Fn(RecordNews) + Send) {
        let api: Api<PullFailure> = Api::all(self.client.clone());
        let metrics = Arc::clone(&self.metrics);
        let heed = Records { metrics: Arc::clone(&metrics), tell, listed: Vec::new(), states: BTreeMap::new() };
        follow("records", api, Config::default().page_size(PAGE), metrics, heed).await;
    }
}

struct Nodes<R> {
    shared: Shared<R>,
    roll: Roll<String>,
}

impl<R: Refusals + Default + Send + Sync + 'static> Nodes<R> {
    fn apply(&mut self, node: Node) {
        let facts = node::facts(node);
        self.roll.enter(facts.name.clone());
        let news = self.shared.world.change_inventory(|inventory| inventory.apply(facts, Timestamp::now()));
        if !news.gained.is_empty() {
            self.shared.changed.notify_one();
        }
    }

    fn count(&self) {
        let (nodes, images) =
            self.shared.world.read_inventory(|inventory| (inventory.len(), inventory.known_names()));
        self.shared.metrics.set_inventory(nodes, images);
    }
}

impl<R: Refusals + Default + Send + Sync + 'static> Heed<Node> for Nodes<R> {
    async fn heed(&mut self, event: Event<Node>) {
        match event {
            Event::Init => self.roll.begin(),
            Event::InitApply(node) => self.apply(node),
            Event::InitDone => {
                let gone = self.roll.vanished();
                self.shared.world.change_inventory(|inventory: &mut Inventory| {
                    gone.iter().for_each(|name| inventory.remove(name));
                    inventory.set_synced(true);
                });
                self.shared.changed.notify_one();
                self.count();
            }
            Event::Apply(node) => {
                self.apply(node);
                self.count();
            }
            Event::Delete(node) => {
                let name = node.name_any();
                self.roll.leave(&name);
                self.shared.world.change_inventory(|inventory| inventory.remove(&name));
                self.shared.changed.notify_one();
                self.count();
            }
        }
    }
}

/// A policy as the watch shows it, for its status: which may lag behind, or name a generation that cannot be compiled.
#[derive(Clone, Debug)]
pub struct Seen {
    pub uid: String,
    pub generation: i64,
    /// Why this generation is not in force.
    pub error: Option<String>,
    pub status: NodeImagePolicyStatus,
}

/// The policies as they are in the cluster, with their status.
#[derive(Debug, Default)]
pub struct Board {
    policies: Mutex<BTreeMap<String, Seen>>,
    changed: Notify,
}

impl Board {
    pub fn all(&self) -> BTreeMap<String, Seen> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Until a policy has changed, in its spec or in its status.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Seen>) -> T) -> T {
        let changed = change(&mut self.policies.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
        changed
    }
}

struct Policies<R> {
    shared: Shared<R>,
    roll: Roll<String>,
}

impl<R: Refusals + Default + Send + Sync + 'static> Policies<R> {
    /// Compiles a generation once; a change of status is none.
    fn apply(&mut self, object: NodeImagePolicy) {
        let name = object.name_any();
        self.roll.enter(name.clone());
        let (uid, generation) = (object.uid().unwrap_or_default(), object.meta().generation.unwrap_or_default());
        let known = self.shared.board.change(|board| {
            let seen = board.get_mut(&name).filter(|seen| seen.uid == uid && seen.generation == generation)?;
            seen.status = object.status.clone().unwrap_or_default();
            Some(())
        });
        if known.is_some() {
            return;
        }
        let error = match policy::compile(&object) {
            Ok(compiled) => {
                tracing::info!(policy = name, generation, "policy in force");
                self.shared.world.change_policies(|policies| policies.apply(compiled));
                None
            }
            Err(error) => {
                tracing::error!(policy = name, generation, %error, "policy cannot be compiled, the last generation stays");
                self.shared.world.change_policies(|policies| {
                    // Only of the same object: one that was deleted and made anew has no last generation.
                    if policies.get(&name).is_some_and(|in_force| in_force.uid != uid) {
                        policies.remove(&name);
                    }
                });
                Some(error.to_string())
            }
        };
        let status = object.status.unwrap_or_default();
        self.shared.board.change(|board| board.insert(name, Seen { uid, generation, error, status }));
        self.shared.changed.notify_one();
    }

    fn remove(&mut self, name: &str) {
        tracing::info!(policy = name, "policy gone");
        self.shared.world.change_policies(|policies| policies.remove(name));
        self.shared.board.change(|board| board.remove(name));
        self.shared.changed.notify_one();
    }

    fn count(&self) {
        let broken = self.shared.board.all().values().filter(|seen| seen.error.is_some()).count();
        self.shared.metrics.set_policies(self.shared.world.policies().len(), broken);
    }
}

impl<R: Refusals + Default + Send + Sync + 'static> Heed<NodeImagePolicy> for Policies<R> {
    async fn heed(&mut self, event: Event<NodeImagePolicy>) {
        match event {
            Event::Init => self.roll.begin(),
            Event::InitApply(object) => self.apply(object),
            Event::InitDone => {
                for name in self.roll.vanished() {
                    self.remove(&name);
                }
                self.shared.world.set_policies_synced();
                self.count();
            }
            Event::Apply(object) => {
                self.apply(object);
                self.count();
            }
            Event::Delete(object) => {
                let name = object.name_any();
                self.roll.leave(&name);
                self.remove(&name);
                self.count();
            }
        }
    }
}

struct Namespaces<R> {
    shared: Shared<R>,
    listed: BTreeMap<String, Labels>,
}

impl<R: Refusals + Default + Send + Sync + 'static> Heed<PartialObjectMeta<Namespace>> for Namespaces<R> {
    async fn heed(&mut self, event: Event<PartialObjectMeta<Namespace>>) {
        let labels = |namespace: PartialObjectMeta<Namespace>| {
            (namespace.metadata.name.unwrap_or_default(), namespace.metadata.labels.unwrap_or_default())
        };
        let world = &self.shared.world;
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(namespace) => self.listed.extend([labels(namespace)]),
            Event::InitDone => world.replace_namespaces(std::mem::take(&mut self.listed)),
            Event::Apply(namespace) => {
                let (name, labels) = labels(namespace);
                if world.namespace(&name).labels.as_ref() == Some(&labels) {
                    return;
                }
                world.set_namespace(&name, labels);
            }
            Event::Delete(namespace) => world.forget_namespace(&labels(namespace).0),
        }
        self.shared.changed.notify_one();
    }
}

/// What has become of records.
#[derive(Clone, Debug)]
pub enum RecordNews {
    /// All there are.
    Listed(Vec<RecordSight>),
    Changed(Box<RecordSight>),
    Gone { namespace: String, name: String },
}

struct Records<F> {
    metrics: Arc<Metrics>,
    tell: F,
    listed: Vec<RecordSight>,
    states: BTreeMap<(String, String), FailureState>,
}

impl<F: Fn(RecordNews) + Send> Records<F> {
    fn gone(&mut self, namespace: String, name: String) {
        let key = (namespace, name);
        self.states.remove(&key);
        let (namespace, name) = key;
        (self.tell)(RecordNews::Gone { namespace, name });
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

impl<F: Fn(RecordNews) + Send> Heed<PullFailure> for Records<F> {
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
                (self.tell)(RecordNews::Listed(listed));
            }
            Event::Apply(failure) => {
                let (namespace, name) = key(&failure);
                match record::sight(failure) {
                    Some(sight) => {
                        self.note(&sight);
                        (self.tell)(RecordNews::Changed(Box::new(sight)));
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
