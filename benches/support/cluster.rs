//! A cluster of the size that the design names: 5,000 nodes x 50 images x 5 names, 100 policies.
//!
//! Enters: an index. Leaves: a node or a policy. Real clusters are less even than made-up ones, so: images are common and
//! rare, nodes come in pools with taints and labels of their own, some are cordoned, young or not ready, and policies
//! differ in all that makes a decision dearer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use pullguard::core::image::{ImagePattern, PatternSet};
use pullguard::core::inventory::{Inventory, InventorySettings};
use pullguard::core::node::{NodeFacts, Readiness, Runtime, Taint, TaintEffect};
use pullguard::core::policies::Policies;
use pullguard::core::policy::{
    Action, Enforcement, ImageLimit, Policy, PresenceRules, PresenceScope, Remedy, Rescue, RuntimeRules,
};
use pullguard::core::selector::{Labels, Operator, Requirement, Selector};

use super::Lots;

pub const NODES: usize = 5_000;
pub const IMAGES: usize = 50;
pub const NAMES: usize = 5;
pub const POLICIES: usize = 100;
/// Different images in the cluster.
pub const POOL: usize = 5_000;
/// Of these the first are on many nodes, as base services are.
pub const COMMON: usize = POOL / 50;
pub const POOLS_OF_NODES: usize = 20;
/// Teams that have nodes of their own, by a taint.
const DEDICATED: usize = 40;

pub fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000)
}

pub fn repository(image: usize) -> String {
    format!("registry-{}.example.com/team-{}/service-{image}", image % 7, image % 50)
}

pub fn names(image: usize, count: usize) -> Vec<String> {
    let digest = format!("{:064x}", (image as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834));
    let repository = repository(image);
    let tags = (1..count).map(|tag| format!("{repository}:v1.{tag}"));
    std::iter::once(format!("{repository}@sha256:{digest}")).chain(tags).collect()
}

pub fn common(lots: &mut Lots) -> String {
    format!("{}:v1.{}", repository(lots.next(COMMON)), 1 + lots.next(3))
}

pub fn rare(lots: &mut Lots) -> String {
    format!("{}:v1.{}", repository(COMMON + lots.next(POOL - COMMON)), 1 + lots.next(3))
}

pub fn missing(lots: &mut Lots) -> String {
    format!("missing/service-{}:v1.1", lots.next(POOL))
}

pub fn node(index: usize, names_of_image: usize, lots: &mut Lots) -> NodeFacts {
    let round = index / POOLS_OF_NODES;
    let labels = [
        ("kubernetes.io/hostname", format!("node-{index}")),
        ("kubernetes.io/os", "linux".to_owned()),
        ("kubernetes.io/arch", if round.is_multiple_of(5) { "arm64" } else { "amd64" }.to_owned()),
        ("topology.kubernetes.io/zone", format!("zone-{}", index % 3)),
        ("node.kubernetes.io/instance-type", format!("m{}.large", index % 11)),
        ("pool", format!("pool-{}", index % POOLS_OF_NODES)),
        ("cores", format!("{}", 4 << (index % 5))),
    ];
    let taint = |key: &str, value: String, effect| Taint { key: key.to_owned(), value, effect };
    let mut taints = Vec::new();
    if round.is_multiple_of(9) {
        taints.push(taint("gpu", "true".to_owned(), TaintEffect::NoSchedule));
    }
    if round % 9 == 4 {
        taints.push(taint("dedicated", format!("team-{}", index % DEDICATED), TaintEffect::NoSchedule));
    }
    if index.is_multiple_of(97) {
        taints.push(taint("node.kubernetes.io/not-ready", String::new(), TaintEffect::NoExecute));
    }
    let mut chosen = BTreeSet::new();
    while chosen.len() < IMAGES {
        let image = if chosen.len() < IMAGES / 2 { lots.next(COMMON) } else { lots.next(POOL) };
        chosen.insert(image);
    }
    NodeFacts {
        name: format!("node-{index}"),
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        taints,
        unschedulable: index.is_multiple_of(101),
        readiness: if index.is_multiple_of(97) { Readiness::NotReady } else { Readiness::Ready },
        created: if index.is_multiple_of(499) { now() } else { Timestamp::UNIX_EPOCH },
        runtime: Runtime::Containerd,
        images: chosen.into_iter().map(|image| names(image, names_of_image)).collect(),
    }
}

pub fn inventory(names_of_image: usize) -> Inventory {
    let mut lots = Lots(7);
    let mut inventory = Inventory::new(InventorySettings::default());
    for index in 0..NODES {
        inventory.apply(node(index, names_of_image, &mut lots), Timestamp::UNIX_EPOCH);
    }
    inventory.set_synced(true);
    inventory
}

pub fn requirement(key: &str, operator: Operator) -> Requirement {
    Requirement { key: key.to_owned(), operator }
}

pub fn is(key: &str, value: String) -> Requirement {
    requirement(key, Operator::In(BTreeSet::from([value])))
}

pub fn is_not(key: &str, value: String) -> Requirement {
    requirement(key, Operator::NotIn(BTreeSet::from([value])))
}

pub fn pattern(text: &str) -> ImagePattern {
    ImagePattern::parse(text).expect("a pattern")
}

/// Whom the policies are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Each matches every pod: the most that a decision can be asked.
    Everybody,
    /// Two for all, the others for one team each: three match a pod. What clusters look like.
    Teams,
}

/// Which nodes the policies are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All, or one of a few pools.
    Pools,
    /// Each policy another set of nodes, and limits and preloads of its own: nothing can be worked out once for many.
    AllDifferent,
}

/// Policies as a large organisation has them: with allowlists, preloads, limits and remedies of their own.
pub fn policy(index: usize, limit: u32, whom: Whom, which: Which) -> Policy {
    let mut allowed: Vec<ImagePattern> =
        (0..7).map(|host| pattern(&format!("registry-{host}.example.com/**"))).collect();
    allowed.extend(["nginx", "redis:7.*", "postgres:16"].map(pattern));
    allowed.extend([pattern(&format!("team-{index}/*")), pattern("missing/**")]);
    let nodes = match (which, index % 4) {
        (Which::AllDifferent, _) => Selector::new(vec![
            is_not("pool", format!("pool-{}", index % POOLS_OF_NODES)),
            is_not("node.kubernetes.io/instance-type", format!("m{}.large", index % 11)),
        ]),
        (Which::Pools, 0) => Selector::new(vec![is("pool", format!("pool-{}", index % POOLS_OF_NODES))]),
        (Which::Pools, _) => Selector::default(),
    };
    // One of the common services is baked into some machine images: then the nodes' lists do not matter.
    let preloaded = match which {
        Which::Pools => format!("preloaded-{index}:*"),
        Which::AllDifferent => format!("{}:*", repository(index % COMMON)),
    };
    let namespaces = match whom {
        Whom::Everybody => is("environment", "production".to_owned()),
        Whom::Teams if index.is_multiple_of(50) => is("environment", "production".to_owned()),
        Whom::Teams => is("team", format!("team-{index}")),
    };
    Policy {
        name: format!("policy-{index}"),
        uid: format!("uid-{index}"),
        generation: 1,
        namespace_selector: Selector::new(vec![namespaces]),
        pod_selector: Selector::default(),
        nodes,
        allowed_images: index.is_multiple_of(2).then(|| PatternSet::new(allowed)),
        preloaded_images: PatternSet::new([pattern(&preloaded)]),
        node_image_limit: ImageLimit::AtMost(limit),
        enforcement: Enforcement::Enforce,
        presence: PresenceRules {
            scope: if index.is_multiple_of(5) { PresenceScope::All } else { PresenceScope::NeverOnly },
            on_absent: Action::Deny,
            on_unknown: Action::Warn,
            elastic: which == Which::AllDifferent && index % 3 == 1,
        },
        rescue: Rescue::None,
        templates: Action::Warn,
        runtime: RuntimeRules { task_label: Some("task".to_owned()), ..RuntimeRules::observe_only() },
        remedies: vec![Remedy { image: pattern("missing/*"), text: "Run make images to build it.".to_owned() }],
    }
}

pub fn policies(limit: u32, whom: Whom, which: Which) -> Policies {
    let mut policies = Policies::default();
    (0..POLICIES).for_each(|index| policies.apply(policy(index, limit, whom, which)));
    policies
}

/// The labels of the namespaces whose pods are judged.
pub fn namespace_labels() -> Labels {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    BTreeMap::from([
        label("environment", "production"),
        label("kubernetes.io/metadata.name", "apps"),
        label("pod-security.kubernetes.io/enforce", "baseline"),
        label("team", "team-7"),
    ])
}
