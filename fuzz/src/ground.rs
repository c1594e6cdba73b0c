//! A small cluster to be judged on: three nodes, and policies of every kind.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use pullguard::core::inventory::InventorySettings;
use pullguard::core::node::{NodeFacts, Readiness, Runtime, Taint, TaintEffect};
use pullguard::core::refusal::NoRefusals;
use pullguard::core::selector::Labels;
use pullguard::core::verdict::Verdict;
use pullguard::k8s::crd::NodeImagePolicy;
use pullguard::k8s::policy::compile;
use pullguard::shell::webhook::{Decision, NamespaceLookup, Rescue, Sink, Webhook};
use pullguard::shell::world::World;
use serde_json::{Value, json};

struct Nobody;

impl Sink for Nobody {
    fn reviewed(&self, _: &Verdict, _: Duration) {}

    fn decided(&self, _: Decision) {}

    fn rescued(&self, _: Rescue<'_>) {}
}

impl NamespaceLookup for Nobody {
    fn labels<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Labels>> {
        Box::pin(async move { name.len().is_multiple_of(2).then(Labels::new) })
    }
}

fn node(name: &str, runtime: Runtime, images: &[&[&str]]) -> NodeFacts {
    let labels = [("kubernetes.io/hostname", name), ("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")];
    NodeFacts {
        name: name.to_owned(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        taints: Vec::new(),
        unschedulable: false,
        readiness: Readiness::Ready,
        created: Timestamp::UNIX_EPOCH,
        runtime,
        images: images.iter().map(|names| names.iter().map(|name| (*name).to_owned()).collect()).collect(),
    }
}

fn nodes() -> [NodeFacts; 3] {
    let agent: &[&str] = &["docker.io/library/agent:1"];
    let mut gpu = node("gpu", Runtime::Containerd, &[agent, &["docker.io/library/cuda:12"]]);
    gpu.taints.push(Taint { key: "gpu".into(), value: "true".into(), effect: TaintEffect::NoSchedule });
    let names = ["localhost/agent:latest", "registry.local/team/agent:1", "registry.local/team/agent:2"];
    [
        node("a", Runtime::Containerd, &[agent, &names]),
        node("b", Runtime::Other, &[&["docker.io/library/pause:3"]]),
        gpu,
    ]
}

pub fn policy(name: &str, spec: Value) -> NodeImagePolicy {
    let object = json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy",
        "metadata": {"name": name, "uid": name, "generation": 1}, "spec": spec});
    serde_json::from_value(object).expect("a policy")
}

/// A world with these nodes and no policy.
pub fn world() -> World<NoRefusals> {
    let world = World::new(InventorySettings::default());
    world.change_inventory(|inventory| {
        for node in nodes() {
            inventory.apply(node, Timestamp::UNIX_EPOCH);
        }
        inventory.set_synced(true);
    });
    world.set_namespace("team", [("team".to_owned(), "a".to_owned())].into());
    world
}

/// A webhook over that world, under policies that differ in all that a review depends on.
pub fn webhook() -> Arc<Webhook<NoRefusals>> {
    let world = world();
    let specs = [
        ("absent", json!({})),
        (
            "allowed",
            json!({"allowedImages": ["registry.local/**", "agent", "agent-*:1.*", "docker.io/**"],
            "preloadedImages": ["preloaded:1"], "match": {"podSelector": {"matchLabels": {"app": "agent"}}}}),
        ),
        (
            "all",
            json!({"presence": {"scope": "All", "onAbsent": "Warn", "onUnknown": "Deny"}, "templates": "Deny",
            "match": {"namespaceSelector": {"matchLabels": {"team": "a"}}}, "remedies": [{"image": "**", "text": "Build it."}]}),
        ),
        ("audit", json!({"enforcement": "Audit", "presence": {"scope": "All", "onUnknown": "Deny"}})),
    ];
    for (name, spec) in specs {
        world.change_policies(|policies| policies.apply(compile(&policy(name, spec)).expect("compiled")));
    }
    webhook_over(world)
}

/// A webhook that rescues in this way whatever it can.
pub fn rescuing(rescue: &str) -> Arc<Webhook<NoRefusals>> {
    let world = world();
    let spec = json!({"rescue": rescue, "allowedImages": ["**"]});
    world.change_policies(|policies| policies.apply(compile(&policy("rescue", spec)).expect("compiled")));
    webhook_over(world)
}

pub fn webhook_over(world: World<NoRefusals>) -> Arc<Webhook<NoRefusals>> {
    Arc::new(Webhook {
        world: Arc::new(world),
        own_namespace: "pullguard".into(),
        lookup: Box::new(Nobody),
        sink: Box::new(Nobody),
    })
}
