//! What a plan is, and what it is made under.

use std::time::Duration;

use super::super::namespace::NamespaceFacts;
use super::super::policies::Policies;
use super::brake::BrakeReport;
use super::effect::Planned;
use super::nodes::Nodes;
use super::waste::Counters;

/// The snapshots of the other halves.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub policies: &'a Policies,
    /// A namespace's labels; `NamespaceFacts::unlabelled` where they are not known: then nothing is done there that a
    /// selector by labels might forbid.
    pub namespaces: &'a dyn Fn(&str) -> NamespaceFacts,
    /// `Inventory` implements it.
    pub nodes: &'a dyn Nodes,
}

impl std::fmt::Debug for Setting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setting").field("policies", &self.policies.len()).finish_non_exhaustive()
    }
}

/// What to do now, and when to ask again at the latest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Independent of each other: what depends on an effect comes in a later plan, after its outcome. They may be
    /// applied at once. An effect whose outcome never comes is planned again after a minute.
    pub effects: Vec<Planned>,
    /// `None`: nothing is pending. Otherwise plan again after this long, even if nothing was seen: never more than half
    /// of `moment::LONGEST_STEP`, which is all the time that the ledger believes to have passed between two looks.
    pub recheck_after: Option<Duration>,
    /// What happened since the last plan.
    pub counters: Counters,
    /// The brakes that are not `Normal`, for metrics and policy status.
    pub brakes: Vec<BrakeReport>,
    /// How many pods wait for an image now, for a gauge.
    pub stuck_pods: usize,
}
