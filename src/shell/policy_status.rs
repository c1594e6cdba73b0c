//! The status of policies: what the leader makes of them.
//!
//! Enters: the policies as the watch shows them, the inventory, the brakes. Leaves: one patch of a status where it would
//! change. A new generation is answered at once; counts, which change with every node, seldom. Our own write comes back by
//! the watch and is no change any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::applier::call;
use super::metrics::Metrics;
use super::watches::{Heed, Roll, follow};
use super::world::{Report, World};
use crate::core::inventory::Lens;
use crate::core::refusal::Refusals;
use crate::core::runtime::brake::BrakeReport;
use crate::core::runtime::brake_sign::BrakeSign;
use crate::k8s::crd::NodeImagePolicyStatus as Status;
use crate::k8s::crd::policy::ContradictedPreload;
use crate::k8s::policy::WatchedPolicy;

const PAGE: u32 = 250;
/// As many names as the schema allows in each list.
const MOST: usize = 20;
/// Counts are brought up to date this often.
const COUNTS: Duration = Duration::from_secs(30);
/// Changes that come together are answered together.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// A policy as the watch shows it.
#[derive(Clone, Debug)]
struct Seen {
    uid: String,
    generation: i64,
    status: Status,
}

type Board = Arc<Mutex<BTreeMap<String, Seen>>>;

/// Keeps the statuses for ever; to be dropped when this replica no longer leads.
pub async fn keep<R: Refusals + Default + Send + Sync + 'static>(
    client: Client,
    world: Arc<World<R>>,
    metrics: Arc<Metrics>,
    brakes: watch::Receiver<Vec<BrakeReport>>,
) {
    let board = Board::default();
    let (nudge, changed) = watch::channel(());
    let api: Api<WatchedPolicy> = Api::all(client.clone());
    let heed = Look { board: Arc::clone(&board), roll: Roll::default(), nudge };
    let watch = follow("policies/status", api.clone(), Config::default().page_size(PAGE), metrics, heed);
    let writer = Writer { api, world, board, brakes, written: BTreeMap::new() };
    tokio::select! {
        () = watch => {}
        () = writer.run(changed) => {}
    }
}

struct Look {
    board: Board,
    roll: Roll<String>,
    nudge: watch::Sender<()>,
}

impl Look {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Seen>)) {
        change(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner));
        self.nudge.send_replace(());
    }
}

impl Heed<WatchedPolicy> for Look {
    async fn heed(&mut self, event: Event<WatchedPolicy>) {
        match event {
            Event::Init => self.roll.begin(),
            Event::InitApply(policy) | Event::Apply(policy) => {
                let name = policy.name_any();
                self.roll.enter(name.clone());
                let (uid, generation) =
                    (policy.uid().unwrap_or_default(), policy.metadata.generation.unwrap_or_default());
                let seen = Seen { uid, generation, status: policy.status.unwrap_or_default() };
                self.change(|board| drop(board.insert(name, seen)));
            }
            Event::InitDone => {
                let gone = self.roll.vanished();
                self.change(|board| board.retain(|name, _| !gone.contains(name)));
            }
            Event::Delete(policy) => {
                let name = policy.name_any();
                self.roll.leave(&name);
                self.change(|board| drop(board.remove(&name)));
            }
        }
    }
}

struct Writer<R> {
    api: Api<WatchedPolicy>,
    world: Arc<World<R>>,
    board: Board,
    brakes: watch::Receiver<Vec<BrakeReport>>,
    /// What was written, until the watch brings it back.
    written: BTreeMap<String, (Status, Instant)>,
}

impl<R: Refusals + Default + Send + Sync + 'static> Writer<R> {
    async fn run(mut self, mut changed: watch::Receiver<()>) {
        let mut compiled = self.world.changes();
        let mut brakes = self.brakes.clone();
        let mut counted: Option<Instant> = None;
        let mut reports = BTreeMap::new();
        loop {
            changed.borrow_and_update();
            let counts = self.world.is_synced() && counted.is_none_or(|at| at.elapsed() >= COUNTS);
            if counts {
                counted = Some(Instant::now());
            }
            reports = self.round(counts, reports).await;
            let next = counted.map_or(Duration::from_secs(1), |at| COUNTS.saturating_sub(at.elapsed()));
            // The world changes with every node: only another compilation is news.
            let compiled = async {
                while compiled.changed().await.is_ok() {
                    if self.world.reports() != reports {
                        return;
                    }
                }
                std::future::pending().await
            };
            tokio::select! {
                Ok(()) = changed.changed() => {}
                Ok(()) = brakes.changed() => {}
                () = compiled => {}
                () = tokio::time::sleep(next) => {}
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    /// Writes what differs; returns the compilations that it was made of.
    async fn round(&mut self, counts: bool, before: BTreeMap<String, Report>) -> BTreeMap<String, Report> {
        let reports = self.world.reports();
        let board = self.board.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.written.retain(|name, _| board.contains_key(name));
        for (name, seen) in board {
            // What we have not compiled yet we say nothing of.
            let Some(report) = reports.get(&name).filter(|report| report.generation == seen.generation) else {
                continue;
            };
            let counts = counts || before.get(&name) != Some(report);
            let wanted = self.status(&name, &seen, report, counts);
            if wanted == seen.status {
                self.written.remove(&name);
                continue;
            }
            if self.written.get(&name).is_some_and(|(status, at)| *status == wanted && at.elapsed() < COUNTS) {
                continue;
            }
            let patch = Patch::Merge(patch(&seen.uid, &wanted));
            match call(self.api.patch_status(&name, &PatchParams::default(), &patch)).await {
                Ok(_) => {
                    tracing::debug!(policy = name, generation = seen.generation, "policy status written");
                    self.written.insert(name, (wanted, Instant::now()));
                }
                Err(error) => tracing::warn!(policy = name, %error, "policy status not written"),
            }
        }
        reports
    }

    /// `counts`: look at the nodes anew; otherwise their counts stay as they are.
    fn status(&self, name: &str, seen: &Seen, report: &Report, counts: bool) -> Status {
        let now = self.world.now();
        let mut status = Status {
            observed_generation: Some(seen.generation),
            conditions: vec![ready(seen, report, now)],
            brakes: brakes(&self.brakes.borrow(), name),
            ..seen.status.clone()
        };
        let policies = self.world.policies();
        let Some(policy) = policies.get(name).filter(|_| counts && self.world.is_synced()) else { return status };
        let lens = Lens::of(policy);
        let (survey, contradictions) = self
            .world
            .read_inventory(|inventory| (inventory.survey(&lens, MOST), inventory.contradictions(&lens, now, MOST)));
        status.matched_nodes = i64::try_from(survey.matched_nodes).unwrap_or(i64::MAX);
        status.known_images = i64::try_from(survey.known_images).unwrap_or(i64::MAX);
        status.truncated_nodes = survey.truncated.iter().map(ToString::to_string).collect();
        let contradicted = contradictions
            .into_iter()
            .map(|found| ContradictedPreload { image: found.image.to_string(), node: found.node.to_string() });
        status.contradicted_preloads = contradicted.collect();
        status
    }
}

/// Keeps the time of its last change while its status is the same.
fn ready(seen: &Seen, report: &Report, now: Timestamp) -> Condition {
    let (status, reason, message) = match &report.problem {
        None => ("True", "Compiled", "This generation is in force.".to_owned()),
        Some(problem) => ("False", "CompileError", problem.clone()),
    };
    let before = seen.status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let since =
        before.filter(|condition| condition.status == status).map(|condition| condition.last_transition_time.clone());
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: Some(seen.generation),
        // As the API server keeps it: whole seconds, or our own word would look like another.
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
    }
}

/// What is said of the brakes in the status of a policy.
pub(crate) fn brakes(reports: &[BrakeReport], policy: &str) -> Vec<String> {
    let signs = reports.iter().filter_map(|report| BrakeSign::for_policy(report, policy));
    signs.take(MOST).map(|sign| sign.to_string()).collect()
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
