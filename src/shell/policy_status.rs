//! The status of policies: what the leader makes of them.
//!
//! Enters: the policies as the watch shows them, the inventory, the brakes. Leaves: one patch of a status where it would
//! change. A new generation is answered at once; counts, which change with every node, seldom. Our own write comes back by
//! the watch and is no change any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::applier::call;
use super::watches::shared::{Board, Seen};
use super::world::World;
use crate::core::inventory::Lens;
use crate::core::refusal::Refusals;
use crate::core::runtime::brake::{BrakeReport, Place};
use crate::k8s::crd::NodeImagePolicy;
use crate::k8s::crd::NodeImagePolicyStatus as Status;
use crate::k8s::crd::policy::ContradictedPreload;

/// As many names as the schema allows in each list.
const MOST: usize = 20;
/// Counts are brought up to date this often.
const COUNTS: Duration = Duration::from_secs(30);
/// Changes that come together are answered together.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// The writer of statuses, to be run.
#[derive(Debug)]
pub struct PolicyStatus<R> {
    pub client: Client,
    pub world: Arc<World<R>>,
    pub board: Arc<Board>,
    pub brakes: watch::Receiver<Vec<BrakeReport>>,
    pub leading: watch::Receiver<bool>,
}

impl<R: Refusals + Default + Send + Sync + 'static> PolicyStatus<R> {
    /// Runs for ever; writes only where it leads.
    pub async fn run(mut self) {
        // What was written, until the watch brings it back.
        let mut written: BTreeMap<String, (Status, Instant)> = BTreeMap::new();
        let mut counted: Option<Instant> = None;
        loop {
            if !*self.leading.borrow_and_update() {
                written.clear();
                counted = None;
                if self.leading.wait_for(|leads| *leads).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            let counts = self.world.is_synced() && counted.is_none_or(|at| at.elapsed() >= COUNTS);
            if counts {
                counted = Some(Instant::now());
            }
            self.round(counts, &mut written).await;
            let next = counted.map_or(Duration::from_secs(1), |at| COUNTS.saturating_sub(at.elapsed()));
            let brakes = async {
                if self.brakes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = self.board.changed() => {}
                () = brakes => {}
                () = tokio::time::sleep(next) => {}
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    async fn round(&self, counts: bool, written: &mut BTreeMap<String, (Status, Instant)>) {
        let board = self.board.all();
        written.retain(|name, _| board.contains_key(name));
        for (name, seen) in board {
            let is_new = seen.status.observed_generation != Some(seen.generation);
            let wanted = self.status(&name, &seen, counts || is_new);
            if wanted == seen.status {
                written.remove(&name);
                continue;
            }
            if written.get(&name).is_some_and(|(status, at)| *status == wanted && at.elapsed() < COUNTS) {
                continue;
            }
            let api: Api<NodeImagePolicy> = Api::all(self.client.clone());
            let patch = Patch::Merge(patch(&seen.uid, &wanted));
            match call(api.patch_status(&name, &PatchParams::default(), &patch)).await {
                Ok(_) => {
                    tracing::debug!(policy = name, generation = seen.generation, "policy status written");
                    written.insert(name, (wanted, Instant::now()));
                }
                Err(error) => tracing::warn!(policy = name, %error, "policy status not written"),
            }
        }
    }

    /// `counts`: look at the nodes anew; otherwise their counts stay as they are.
    fn status(&self, name: &str, seen: &Seen, counts: bool) -> Status {
        let now = Timestamp::now();
        let mut status = Status {
            observed_generation: Some(seen.generation),
            conditions: vec![ready(seen, now)],
            brakes: brakes(&self.brakes.borrow(), name),
            ..seen.status.clone()
        };
        let policies = self.world.policies();
        let Some(policy) = policies.get(name).filter(|_| counts) else { return status };
        let lens = Lens::of(policy);
        let (survey, contradictions) = self
            .world
            .read_inventory(|inventory| (inventory.survey(&lens, MOST), inventory.contradictions(&lens, now, MOST)));
        status.matched_nodes = i64::try_from(survey.matched_nodes).unwrap_or(i64::MAX);
        status.known_images = i64::try_from(survey.known_images).unwrap_or(i64::MAX);
        status.truncated_nodes = survey.truncated.iter().map(ToString::to_string).collect();
        let contradicted = contradictions.into_iter().map(|found| ContradictedPreload {
            image: found.image.to_string(),
            node: found.node.to_string(),
        });
        status.contradicted_preloads = contradicted.collect();
        status
    }
}

/// Keeps the time of its last change while its status is the same.
fn ready(seen: &Seen, now: Timestamp) -> Condition {
    let (status, reason, message) = match &seen.error {
        None => ("True", "Compiled", "This generation is in force.".to_owned()),
        Some(error) => ("False", "CompileError", format!("{error}. The last generation that could be compiled stays in force.")),
    };
    let before = seen.status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let since = before.filter(|condition| condition.status == status).map(|condition| condition.last_transition_time.clone());
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: Some(seen.generation),
        // As the API server keeps it: whole seconds, or our own word would look like another.
        last_transition_time: since
            .unwrap_or_else(|| Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
    }
}

/// Registries and nodes concern every policy; a policy's own brake that one alone.
fn brakes(reports: &[BrakeReport], policy: &str) -> Vec<String> {
    let concerned = reports.iter().filter_map(|report| {
        let level = report.level.as_str();
        match &report.place {
            Place::Registry(host) => Some(format!("registry {host}: {level}")),
            Place::Node(node) => Some(format!("node {node}: {level}")),
            Place::Policy(name) if name == policy => Some(format!("denied Jobs: {level}")),
            Place::Policy(_) => None,
        }
    });
    concerned.take(MOST).collect()
}

/// Every field, also an empty one: a merge patch leaves what it does not name.
fn patch(uid: &str, status: &Status) -> Value {
    json!({
        "metadata": { "uid": uid },
        "status": {
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
            "matchedNodes": status.matched_nodes,
            "knownImages": status.known_images,
            "truncatedNodes": status.truncated_nodes,
            "contradictedPreloads": status.contradicted_preloads,
            "brakes": status.brakes,
        },
    })
}
