//! Types of a plan (signatures first; the rules follow).

use std::sync::Arc;
use std::time::Duration;

use super::super::namespace::NamespaceFacts;
use super::super::policy::Policy;
use super::effect::Planned;

/// What a plan is made under: the snapshots of the other halves.
pub struct Setting<'a> {
    pub policies: &'a [Arc<Policy>],
    /// A namespace's labels; `NamespaceFacts::unlabelled` where they are not known.
    pub namespaces: &'a dyn Fn(&str) -> NamespaceFacts,
    /// `super::nodes::Nodes`, implemented for the inventory.
    pub nodes: &'a dyn super::nodes::Nodes,
}

/// What to do now, and when to ask again at the latest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order. Effects of one task depend on each other: one after the other, and the rest of a task's effects
    /// of this plan is dropped after one that was not `Done`.
    pub effects: Vec<Planned>,
    /// `None`: nothing is pending. Time in the ledger advances at most `ledger::LONGEST_STEP` a call, so that a clock that
    /// jumps ahead convicts nobody: do plan again after this long, even if nothing was seen.
    pub recheck_after: Option<Duration>,
    pub counters: super::waste::Counters,
}
