//! What both halves share: the inventory, the policies, the namespaces' labels and the failed tasks, as they are now.
//!
//! Enters: what the watches bring. Leaves: short looks under a lock that is never held across an await.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::core::decide::decide;
use crate::core::inventory::{Inventory, InventorySettings};
use crate::core::namespace::NamespaceFacts;
use crate::core::policies::Policies;
use crate::core::refusal::Refusals;
use crate::core::rescue::{Rescued, rescue};
use crate::core::selector::Labels;
use crate::core::verdict::{Question, Verdict};

/// Where a replica has its time from. The machine's clock, but for tests: a clock may jump, and that must not matter.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Clock").field(&(self.0)()).finish()
    }
}

/// The shared world of one replica.
#[derive(Debug)]
pub struct World<R> {
    clock: Clock,
    inventory: RwLock<Inventory>,
    policies: ArcSwap<Policies>,
    namespaces: RwLock<BTreeMap<String, Arc<Labels>>>,
    refusals: RwLock<R>,
    policies_synced: AtomicBool,
    namespaces_synced: AtomicBool,
    refusals_synced: AtomicBool,
    reports: RwLock<BTreeMap<String, Report>>,
    changes: watch::Sender<()>,
}

/// What became of the latest generation of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub generation: i64,
    /// Why it could not be compiled, and what is in force instead.
    pub problem: Option<String>,
}

impl<R: Refusals + Default> World<R> {
    pub fn new(settings: InventorySettings) -> Self {
        Self::with_clock(settings, Clock::default())
    }

    pub fn with_clock(settings: InventorySettings, clock: Clock) -> Self {
        Self {
            clock,
            inventory: RwLock::new(Inventory::new(settings)),
            policies: ArcSwap::default(),
            namespaces: RwLock::default(),
            refusals: RwLock::default(),
            policies_synced: AtomicBool::new(false),
            namespaces_synced: AtomicBool::new(false),
            refusals_synced: AtomicBool::new(false),
            reports: RwLock::default(),
            changes: watch::Sender::new(()),
        }
    }

    /// The time, for whatever is decided or dated in this replica.
    pub fn now(&self) -> Timestamp {
        (self.clock.0)()
    }

    /// Says that nodes, policies or namespaces are not what they were.
    pub fn changed(&self) {
        self.changes.send_replace(());
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub fn report_policy(&self, name: &str, generation: i64, problem: Option<String>) {
        let report = Report { generation, problem };
        self.reports.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), report);
    }

    pub fn forget_policy(&self, name: &str) {
        self.reports.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub fn reports(&self) -> BTreeMap<String, Report> {
        self.reports.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn read_inventory<T>(&self, look: impl FnOnce(&Inventory) -> T) -> T {
        look(&self.inventory.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn change_inventory<T>(&self, change: impl FnOnce(&mut Inventory) -> T) -> T {
        change(&mut self.inventory.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn read_refusals<T>(&self, look: impl FnOnce(&R) -> T) -> T {
        look(&self.refusals.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn change_refusals<T>(&self, change: impl FnOnce(&mut R) -> T) -> T {
        change(&mut self.refusals.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The failed tasks have been listed: before that, a pod that is to be refused would be let in.
    pub fn set_refusals_synced(&self) {
        self.refusals_synced.store(true, Ordering::Release);
    }

    pub fn policies(&self) -> Arc<Policies> {
        self.policies.load_full()
    }

    /// One writer: the watch of policies.
    pub fn change_policies(&self, change: impl FnOnce(&mut Policies)) {
        let mut policies = Policies::clone(&self.policies.load());
        change(&mut policies);
        self.policies.store(Arc::new(policies));
    }

    pub fn set_policies_synced(&self) {
        self.policies_synced.store(true, Ordering::Release);
    }

    /// What the policies ask of the mutating webhook. `None`: which policies there are is not known yet, and what one of them
    /// may ask for must not be taken away.
    pub fn rescue_wanted(&self) -> Option<bool> {
        self.policies_synced.load(Ordering::Acquire).then(|| self.policies().ask_for_rescue())
    }

    pub fn set_namespace(&self, name: &str, labels: Labels) {
        self.namespaces.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::new(labels));
    }

    pub fn forget_namespace(&self, name: &str) {
        self.namespaces.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// A re-list is the whole truth.
    pub fn replace_namespaces(&self, all: BTreeMap<String, Labels>) {
        let all = all.into_iter().map(|(name, labels)| (name, Arc::new(labels))).collect();
        *self.namespaces.write().unwrap_or_else(PoisonError::into_inner) = all;
        self.namespaces_synced.store(true, Ordering::Release);
    }

    /// What the cache knows of a namespace: `labels` is `None` where it is not in it.
    pub fn namespace(&self, name: &str) -> NamespaceFacts {
        let namespaces = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        NamespaceFacts { name: name.to_owned(), labels: namespaces.get(name).cloned() }
    }

    /// Whether admission can be left to this replica: it also knows which tasks have failed.
    pub fn is_ready(&self) -> bool {
        self.is_synced() && self.refusals_synced.load(Ordering::Acquire)
    }

    /// Whether what the nodes, policies and namespaces say is known.
    pub fn is_synced(&self) -> bool {
        self.policies_synced.load(Ordering::Acquire)
            && self.namespaces_synced.load(Ordering::Acquire)
            && self.read_inventory(Inventory::is_synced)
    }

    pub fn decide(&self, question: &Question<'_>, now: Timestamp) -> Verdict {
        let policies = self.policies.load();
        self.read_refusals(|refusals| {
            self.read_inventory(|inventory| decide(question, &policies, inventory, refusals, now))
        })
    }

    /// With the names of the policies, all of which ask for it. `request`: the review's uid.
    pub fn rescue(&self, question: &Question<'_>, request: &str, now: Timestamp) -> Option<(Rescued, Vec<Arc<str>>)> {
        let policies = self.policies.load();
        let rescued = self.read_inventory(|inventory| rescue(question, request, &policies, inventory, now))?;
        let asking = policies.matching(&question.pod.labels, question.namespace);
        Some((rescued, asking.map(|(entry, _)| Arc::clone(&entry.name)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixtures::policy;
    use crate::core::policy::Rescue;
    use crate::core::refusal::NoRefusals;

    #[test]
    fn nobody_knows_what_is_asked_for_before_the_policies_are_listed() {
        let world: World<NoRefusals> = World::new(InventorySettings::default());
        assert_eq!(world.rescue_wanted(), None);
        world.change_policies(|policies| policies.apply(policy("p").rescuing(Rescue::PinToHolders)));
        assert_eq!(world.rescue_wanted(), None, "the list is not at its end");
        world.set_policies_synced();
        assert_eq!(world.rescue_wanted(), Some(true));
        world.change_policies(|policies| policies.remove("p"));
        assert_eq!(world.rescue_wanted(), Some(false));
    }

    #[test]
    fn a_replica_is_ready_when_all_that_it_judges_on_is_listed() {
        let world: World<NoRefusals> = World::new(InventorySettings::default());
        let steps: [&dyn Fn(); 4] = [
            &|| world.set_policies_synced(),
            &|| world.replace_namespaces(BTreeMap::new()),
            &|| world.change_inventory(|inventory| inventory.set_synced(true)),
            &|| world.set_refusals_synced(),
        ];
        for step in steps {
            assert!(!world.is_ready());
            step();
        }
        assert!(world.is_ready());
    }
}
