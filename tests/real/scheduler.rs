//! Where a pod could run, compared with the real scheduler: random pods on random nodes, and ours says eligible exactly
//! where the scheduler's own filters do.
//!
//! One pod for each pair: it also asks for a label that only that node has, so that it is bound or stays unschedulable. The
//! scheduler knows nothing of `spec.os`, which the kubelet checks, nor of a `nodeName` that bypasses it: they are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use pullguard::core::decide::decide;
use pullguard::core::eligibility::could_run;
use pullguard::core::inventory::{Inventory, InventorySettings};
use pullguard::core::namespace::NamespaceFacts;
use pullguard::core::node::NodeFacts;
use pullguard::core::pod::PodFacts;
use pullguard::core::policies::Policies;
use pullguard::core::reason::Detail;
use pullguard::core::refusal::NoRefusals;
use pullguard::core::verdict::{Judged, Question, Subject};
use pullguard::k8s::pod::PodObject;
use pullguard::k8s::{node, policy};
use serde_json::{Map, Value, json};

use crate::simulated;
use crate::stage::until;
use crate::world::{Scene, pod};

crate::scenarios! {
    Plane: a_pod_is_eligible_exactly_where_the_scheduler_would_bind_it;
}

const NODES: usize = 8;
const PODS: usize = 40;
const IMAGE: &str = "agent:1";
const PIN: &str = "test.pullguard.dev/pin";

/// Set: a run to play again. It is named in each failure.
const SEED: &str = "PULLGUARD_TEST_SEED";

/// Random numbers that are the same for the same seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    fn of(&mut self, hundred: usize) -> bool {
        self.below(100) < hundred
    }

    fn one<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// Few keys and values, so that they meet. Numbers with leading zeros, beyond 64 bits, or none at all, for Gt and Lt.
const LABELS: [(&str, &[&str]); 5] = [
    ("kubernetes.io/os", &["linux", "windows"]),
    ("kubernetes.io/arch", &["amd64", "arm64"]),
    ("zone", &["a", "b", "c"]),
    ("cpus", &["", "4", "8", "16", "007", "many", "9223372036854775808"]),
    ("disk", &["ssd", ""]),
];
const TAINTS: [&str; 5] = [
    "gpu",
    "dedicated",
    "node.kubernetes.io/memory-pressure",
    "node.cilium.io/agent-not-ready",
    "node.kubernetes.io/unschedulable",
];
const TAINT_VALUES: [&str; 5] = ["", "true", "a", "5", "12"];
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const HARD: &[&str] = &["NoSchedule", "NoExecute"];

fn random_node(dice: &mut Dice, name: &str, set: &str) -> Value {
    let mut node = simulated::node(name, set);
    node["metadata"]["labels"][PIN] = json!(name);
    for (key, values) in LABELS {
        if dice.of(75) {
            node["metadata"]["labels"][key] = json!(dice.one(values));
        }
    }
    node["spec"]["unschedulable"] = json!(dice.of(12));
    // A taint is unique by key and effect. One of a life-cycle kind is an obstacle to us whatever its effect: the cluster
    // autoscaler marks the nodes that it will remove by a mere preference, which excludes no pod.
    let taints: BTreeMap<(&str, &str), &str> = (0..dice.below(5) / 2)
        .map(|_| {
            let key = dice.one(&TAINTS);
            let effects = if key.starts_with("node.") { HARD } else { EFFECTS.as_slice() };
            ((key, dice.one(effects)), dice.one(&TAINT_VALUES))
        })
        .collect();
    node["spec"]["taints"] =
        taints.iter().map(|((key, effect), value)| json!({"key": key, "value": value, "effect": effect})).collect();
    node["status"]["images"] = json!([{"names": [format!("docker.io/library/{IMAGE}")], "sizeBytes": 1}]);
    node
}

fn requirement(dice: &mut Dice) -> Value {
    let (key, values) = LABELS[dice.below(LABELS.len())];
    match dice.below(6) {
        0 => json!({"key": key, "operator": "Exists"}),
        1 => json!({"key": key, "operator": "DoesNotExist"}),
        2 | 3 => {
            let operator = dice.one(&["In", "NotIn"]);
            let values: BTreeSet<&str> = (0..=dice.below(2)).map(|_| dice.one(values)).collect();
            json!({"key": key, "operator": operator, "values": values})
        }
        _ => {
            // Mostly on the label that holds numbers.
            let key = if dice.of(80) { "cpus" } else { key };
            json!({"key": key, "operator": dice.one(&["Gt", "Lt"]), "values": [dice.one(&["5", "8", "007", "many"])]})
        }
    }
}

fn term(dice: &mut Dice, nodes: &[String]) -> Value {
    let mut term = Map::new();
    let expressions: Vec<Value> = (0..dice.below(3)).map(|_| requirement(dice)).collect();
    if !expressions.is_empty() {
        term.insert("matchExpressions".to_owned(), json!(expressions));
    }
    if dice.of(25) {
        let node = &nodes[dice.below(nodes.len())];
        let field = json!({"key": "metadata.name", "operator": dice.one(&["In", "NotIn"]), "values": [node]});
        term.insert("matchFields".to_owned(), json!([field]));
    }
    // Without either it matches no node.
    Value::Object(term)
}

fn toleration(dice: &mut Dice) -> Value {
    let mut toleration = match dice.below(5) {
        0 => json!({"operator": "Exists"}),
        1 => json!({"key": dice.one(&TAINTS), "operator": "Exists"}),
        2 => json!({"key": dice.one(&TAINTS), "operator": "Equal", "value": dice.one(&TAINT_VALUES)}),
        3 => json!({"key": dice.one(&TAINTS), "value": dice.one(&TAINT_VALUES)}),
        _ => {
            json!({"key": dice.one(&TAINTS), "operator": dice.one(&["Gt", "Lt"]), "value": dice.one(&["4", "7", "12"])})
        }
    };
    if dice.of(50) {
        toleration["effect"] = json!(dice.one(&EFFECTS));
    }
    toleration
}

fn random_spec(dice: &mut Dice, nodes: &[String]) -> Value {
    let mut spec = pod("x", IMAGE, "Never")["spec"].clone();
    spec["nodeSelector"] = json!({});
    if dice.of(30) {
        let (key, values) = LABELS[dice.below(LABELS.len())];
        spec["nodeSelector"][key] = json!(dice.one(values));
    }
    if dice.of(60) {
        let terms: Vec<Value> = (0..=dice.below(3)).map(|_| term(dice, nodes)).collect();
        spec["affinity"] =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    }
    spec["tolerations"] = (0..dice.below(4)).map(|_| toleration(dice)).collect();
    spec
}

/// Whether the scheduler has bound the pod; `None`: it has not come to it yet.
fn bound(pod: &Value) -> Option<bool> {
    if pod["spec"]["nodeName"].is_string() {
        return Some(true);
    }
    let conditions = pod["status"]["conditions"].as_array()?;
    let refused = |condition: &Value| condition["type"] == "PodScheduled" && condition["reason"] == "Unschedulable";
    conditions.iter().any(refused).then_some(false)
}

/// Until the node is well and takes the pod: what the scheduler means by a fit.
fn ours(pod: &PodFacts, node: &NodeFacts, settings: &InventorySettings) -> (bool, Option<Detail>) {
    match could_run(&pod.placement, node, settings, Timestamp::now()) {
        Ok(None) => (true, None),
        Ok(Some(_)) => (false, Some(Detail::TemporaryObstacle)),
        Err(_) => (false, Some(Detail::NoEligibleNode)),
    }
}

fn a_pod_is_eligible_exactly_where_the_scheduler_would_bind_it(scene: &Scene<'_>) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let seed = std::env::var(SEED).ok().map_or(Ok(now), |seed| seed.parse())?;
    compare(scene, seed).with_context(|| format!("{SEED}={seed} plays it again"))
}

fn compare(scene: &Scene<'_>, seed: u64) -> Result<()> {
    let mut dice = Dice(seed);
    let names: Vec<String> = (0..NODES).map(|number| format!("sim-{number}-{}", std::process::id())).collect();
    let made: Vec<Value> = names.iter().map(|name| random_node(&mut dice, name, &scene.namespace)).collect();
    let _nodes = simulated::make(scene.cluster, &scene.namespace, &made)?;
    let mut pods = Vec::new();
    for number in 0..PODS {
        let spec = random_spec(&mut dice, &names);
        for (place, name) in names.iter().enumerate() {
            let mut pod =
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{number}-{place}")}});
            pod["spec"] = spec.clone();
            pod["spec"]["nodeSelector"][PIN] = json!(name);
            pods.push(pod);
        }
    }
    let all = json!({"apiVersion": "v1", "kind": "List", "items": pods});
    scene.created(&all)?;
    let judged = until("the scheduler has come to each pod", 90, || {
        let pods = scene.list("pods")?;
        ensure!(pods.len() == NODES * PODS, "{} of {} pods are there", pods.len(), NODES * PODS);
        let open = pods.iter().find(|pod| bound(pod).is_none());
        ensure!(open.is_none(), "it has said nothing of {}", open.unwrap_or(&Value::Null));
        Ok(Some(pods))
    });
    // No kubelet would end them.
    let _with_the_cluster = scene.kubectl(&["delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false"]);
    judge(scene, judged?)
}

fn judge(scene: &Scene<'_>, pods: Vec<Value>) -> Result<()> {
    let settings = InventorySettings { young_node: Duration::ZERO, ..InventorySettings::default() };
    let mut inventory = Inventory::new(settings.clone());
    let mut nodes: BTreeMap<String, NodeFacts> = BTreeMap::new();
    for object in scene.list("nodes")? {
        let facts = node::facts(serde_json::from_value(object)?);
        inventory.apply(facts.clone(), Timestamp::now());
        nodes.insert(facts.name.clone(), facts);
    }
    inventory.set_synced(true);
    let mut policies = Policies::default();
    let everything = json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy",
        "metadata": {"name": "all"}, "spec": {}});
    policies.apply(policy::compile(&serde_json::from_value(everything)?)?);
    let namespace = NamespaceFacts { name: scene.namespace.clone(), labels: Some(Arc::default()) };

    let mut fits = 0;
    let total = pods.len();
    for mut pod in pods {
        let theirs = bound(&pod).context("judged")?;
        let shown = pod["spec"].to_string();
        // Where it was bound to is the answer, no part of the question.
        pod["spec"]["nodeName"] = Value::Null;
        let facts = serde_json::from_value::<PodObject>(pod)?.facts(&scene.namespace);
        let pinned = facts.placement.node_selector.get(PIN).context("each pod is pinned")?;
        let own = nodes.get(pinned).with_context(|| format!("node {pinned}"))?;
        let (fit, detail) = ours(&facts, own, &settings);
        ensure!(fit == theirs, "the scheduler says {theirs}, we say {detail:?}\npod: {shown}\nnode: {own:?}");
        fits += usize::from(fit);
        for other in nodes.values().filter(|other| other.name != *pinned) {
            ensure!(!ours(&facts, other, &settings).0, "a pod pinned to {pinned} fits {other:?}\npod: {shown}");
        }
        // The same by the inventory's sets, as a verdict: the image is on every node.
        let question = Question { subject: Subject::Pod, pod: &facts, namespace: &namespace, judged: &Judged::Every };
        let verdict = decide(&question, &policies, &inventory, &NoRefusals, Timestamp::now());
        let said = verdict.first().and_then(|finding| finding.detail);
        ensure!(said == detail, "the verdict says {said:?}, one by one {detail:?}\npod: {shown}\nnode: {own:?}");
    }
    // A comparison of nothing but refusals would prove little.
    ensure!(fits * 20 >= total && (total - fits) * 20 >= total, "{fits} of {total} pairs fit: a poor throw");
    eprintln!("the scheduler and Pullguard agree on {total} pairs of pods and nodes, of which {fits} fit");
    Ok(())
}
