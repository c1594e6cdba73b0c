//! The pure decision at the size that the design names: 5,000 nodes x 50 images x 5 names, 100 policies that all match.
//!
//! `cargo bench --bench decision`. Prints percentiles and fails if a figure of the design is missed. Time is the wall
//! clock of one decision each; a decision includes all texts of its findings.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pullguard::core::decide::decide;
use pullguard::core::image::{ImageName, ImagePattern, PatternSet};
use pullguard::core::inventory::{Inventory, InventorySettings};
use pullguard::core::namespace::NamespaceFacts;
use pullguard::core::node::{NodeFacts, Readiness, Runtime, Taint, TaintEffect, Toleration, TolerationValue};
use pullguard::core::pod::{ContainerFacts, ContainerKind, Placement, PodFacts, PullPolicy};
use pullguard::core::policies::Policies;
use pullguard::core::policy::{
    Action, Enforcement, ImageLimit, Policy, PresenceRules, PresenceScope, Remedy, Rescue, RuntimeRules,
};
use pullguard::core::refusal::NoRefusals;
use pullguard::core::selector::{Labels, Operator, Requirement, Selector};
use pullguard::core::verdict::{Judged, Question, Subject};

const NODES: usize = 5_000;
const IMAGES: usize = 50;
const NAMES: usize = 5;
const POLICIES: usize = 100;
/// Different images in the cluster.
const POOL: usize = 5_000;
const POOLS_OF_NODES: usize = 20;
const DECISIONS: usize = 20_000;

const DECISION_P99: Duration = Duration::from_micros(50);
const BUILD: Duration = Duration::from_secs(2);
const UPDATE_P99: Duration = Duration::from_millis(1);
const MEMORY_MIB: f64 = 64.0;

/// A small generator of our own: the same numbers in every run.
struct Lots(u64);

impl Lots {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % below
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000)
}

fn repository(image: usize) -> String {
    format!("registry-{}.example.com/team-{}/service-{image}", image % 7, image % 50)
}

fn names(image: usize, count: usize) -> Vec<String> {
    let digest = format!("{:064x}", (image as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834));
    let repository = repository(image);
    let tags = (1..count).map(|tag| format!("{repository}:v1.{tag}"));
    std::iter::once(format!("{repository}@sha256:{digest}")).chain(tags).collect()
}

fn node(index: usize, names_of_image: usize, lots: &mut Lots) -> NodeFacts {
    let labels = [
        ("kubernetes.io/hostname", format!("node-{index}")),
        ("kubernetes.io/os", "linux".to_owned()),
        ("kubernetes.io/arch", if (index / POOLS_OF_NODES).is_multiple_of(5) { "arm64" } else { "amd64" }.to_owned()),
        ("topology.kubernetes.io/zone", format!("zone-{}", index % 3)),
        ("node.kubernetes.io/instance-type", format!("m{}.large", index % 11)),
        ("pool", format!("pool-{}", index % POOLS_OF_NODES)),
    ];
    let taint = |key: &str, value: &str, effect| Taint { key: key.to_owned(), value: value.to_owned(), effect };
    let mut taints = Vec::new();
    if (index / POOLS_OF_NODES).is_multiple_of(9) {
        taints.push(taint("gpu", "true", TaintEffect::NoSchedule));
    }
    if index.is_multiple_of(97) {
        taints.push(taint("node.kubernetes.io/not-ready", "", TaintEffect::NoExecute));
    }
    let mut chosen = BTreeSet::new();
    while chosen.len() < IMAGES {
        // Half of the images are on many nodes, as base services are.
        let image = if chosen.len() < IMAGES / 2 { lots.next(POOL / 50) } else { lots.next(POOL) };
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

fn is(key: &str, value: String) -> Requirement {
    Requirement { key: key.to_owned(), operator: Operator::In(BTreeSet::from([value])) }
}

fn pattern(text: &str) -> ImagePattern {
    ImagePattern::parse(text).unwrap_or_else(|error| unreachable(&error.to_string()))
}

fn unreachable(what: &str) -> ! {
    eprintln!("the benchmark itself is wrong: {what}");
    std::process::exit(2)
}

/// Policies as a large organisation has them: one a team, over pools of nodes, with allowlists and remedies of their own.
fn policy(index: usize, limit: u32, all_different: bool) -> Policy {
    let mut allowed: Vec<ImagePattern> =
        (0..7).map(|host| pattern(&format!("registry-{host}.example.com/**"))).collect();
    allowed.extend(["nginx", "redis:7.*", "postgres:16"].map(pattern));
    allowed.extend([pattern(&format!("team-{index}/*")), pattern("missing/**")]);
    let nodes = match (all_different, index % 4) {
        (true, _) => Selector::new(vec![Requirement {
            key: "topology.kubernetes.io/zone".to_owned(),
            operator: Operator::NotIn(BTreeSet::from([format!("zone-x{index}")])),
        }]),
        (false, 0) => Selector::new(vec![is("pool", format!("pool-{}", index % POOLS_OF_NODES))]),
        (false, _) => Selector::default(),
    };
    Policy {
        name: format!("team-{index}"),
        uid: format!("uid-{index}"),
        generation: 1,
        namespace_selector: Selector::new(vec![is("environment", "production".to_owned())]),
        pod_selector: Selector::default(),
        nodes,
        allowed_images: index.is_multiple_of(2).then(|| PatternSet::new(allowed)),
        preloaded_images: PatternSet::new([pattern(&format!("preloaded-{index}:*"))]),
        node_image_limit: ImageLimit::AtMost(limit),
        enforcement: Enforcement::Enforce,
        presence: PresenceRules {
            scope: if index.is_multiple_of(5) { PresenceScope::All } else { PresenceScope::NeverOnly },
            on_absent: Action::Deny,
            on_unknown: Action::Warn,
            elastic: false,
        },
        rescue: Rescue::None,
        templates: Action::Warn,
        runtime: RuntimeRules::observe_only(),
        remedies: vec![Remedy { image: pattern("missing/*"), text: "Run make images to build it.".to_owned() }],
    }
}

fn container(name: &str, image: String, pull_policy: PullPolicy) -> ContainerFacts {
    let parsed = ImageName::parse(&image);
    ContainerFacts { name: name.to_owned(), kind: ContainerKind::Main, image, parsed, pull_policy }
}

#[derive(Clone, Copy)]
enum Kind {
    Present,
    Absent,
    Apart,
    Pulled,
}

fn pod(kind: Kind, lots: &mut Lots) -> PodFacts {
    let common = |lots: &mut Lots| format!("{}:v1.{}", repository(lots.next(POOL / 50)), 1 + lots.next(3));
    let rare =
        |lots: &mut Lots| format!("{}:v1.{}", repository(POOL / 50 + lots.next(POOL - POOL / 50)), 1 + lots.next(3));
    let missing = |lots: &mut Lots| format!("missing/service-{}:v1.1", lots.next(POOL));
    let never = PullPolicy::Never;
    let containers = match kind {
        Kind::Present => vec![container("main", common(lots), never), container("side", common(lots), never)],
        Kind::Absent => vec![container("main", missing(lots), never), container("side", common(lots), never)],
        // The tag that is there under a number that is not: with a did-you-mean to find.
        Kind::Apart => vec![
            container("main", rare(lots), never),
            container("side", rare(lots), never),
            container("third", format!("{}:v9", repository(lots.next(POOL))), never),
        ],
        Kind::Pulled => vec![container("main", common(lots), PullPolicy::IfNotPresent)],
    };
    let mut placement = Placement::default();
    if lots.next(2) == 0 {
        placement.node_selector.insert("kubernetes.io/arch".to_owned(), "amd64".to_owned());
    }
    if lots.next(3) == 0 {
        let terms = vec![pullguard::core::pod::NodeTerm {
            expressions: vec![is("pool", format!("pool-{}", lots.next(POOLS_OF_NODES)))],
            fields: Vec::new(),
        }];
        placement.required_affinity = Some(terms);
    }
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let (value, effect) = (TolerationValue::Exists, Some(TaintEffect::NoExecute));
        placement.tolerations.push(Toleration { key: Some(key.to_owned()), value, effect });
    }
    PodFacts {
        namespace: "apps".to_owned(),
        name: format!("pod-{}", lots.next(1_000_000)),
        labels: BTreeMap::from([("app".to_owned(), "service".to_owned())]),
        owner: None,
        placement,
        containers,
        pull_secrets: Vec::new(),
    }
}

struct Percentiles(Vec<Duration>);

impl Percentiles {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    fn at(&self, per_mille: usize) -> Duration {
        let index = (self.0.len() * per_mille / 1000).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or_default() / 1024.0
}

struct Figures {
    missed: usize,
}

impl Figures {
    fn check(&mut self, what: &str, is_met: bool) {
        if !is_met {
            println!("MISSED: {what}");
            self.missed += 1;
        }
    }
}

fn build(names_of_image: usize, figures: &mut Figures) -> Inventory {
    // What the allocator keeps of freed facts must not count as the index, so they are made and dropped one by one.
    let mut lots = Lots(7);
    let before = resident_mib();
    let mut inventory = Inventory::new(InventorySettings::default());
    let mut spent = Duration::ZERO;
    for index in 0..NODES {
        let facts = node(index, names_of_image, &mut lots);
        let start = Instant::now();
        inventory.apply(facts, Timestamp::UNIX_EPOCH);
        spent += start.elapsed();
    }
    inventory.set_synced(true);
    let memory = resident_mib() - before;
    println!(
        "index of {} nodes x {IMAGES} images x {names_of_image} names ({} different): built in {spent:.0?}, {memory:.1} MiB",
        inventory.len(),
        inventory.known_names(),
    );
    figures.check("the index is built in less than 2 s", spent < BUILD);
    figures.check("the index is smaller than 64 MiB", memory < MEMORY_MIB);
    inventory
}

fn updates(inventory: &mut Inventory, names_of_image: usize, figures: &mut Figures) {
    let mut lots = Lots(11);
    let mut times = Vec::new();
    // Every other update is a heartbeat that changes nothing; the others exchange all images of the node.
    for round in 0..4_000 {
        let index = lots.next(NODES);
        let seed = if round % 2 == 0 { 7 } else { 13 + round };
        let facts = node(index, names_of_image, &mut Lots(seed as u64));
        let again = facts.clone();
        for facts in [facts, again] {
            let start = Instant::now();
            black_box(inventory.apply(facts, now()));
            times.push(start.elapsed());
        }
    }
    let times = Percentiles::new(times);
    println!("one update: p50 {:.1?}, p99 {:.1?}, max {:.1?}", times.at(500), times.at(990), times.at(1000));
    figures.check("an update takes less than 1 ms", times.at(990) < UPDATE_P99);
}

fn decisions(what: &str, kinds: &[Kind], policies: &Policies, inventory: &Inventory) -> Percentiles {
    let mut lots = Lots(3);
    let labels: Labels = BTreeMap::from([("environment".to_owned(), "production".to_owned())]);
    let namespace = NamespaceFacts { name: "apps".to_owned(), labels: Some(labels) };
    let mut times = Vec::with_capacity(DECISIONS);
    let mut actions: BTreeMap<Action, usize> = BTreeMap::new();
    for round in 0..DECISIONS {
        let Some(kind) = kinds.get(round % kinds.len()) else { continue };
        let pod = pod(*kind, &mut lots);
        let question = Question { subject: Subject::Pod, pod: &pod, namespace: &namespace, judged: &Judged::Every };
        let start = Instant::now();
        let verdict = black_box(decide(black_box(&question), policies, inventory, &NoRefusals, now()));
        times.push(start.elapsed());
        *actions.entry(verdict.action()).or_default() += 1;
    }
    let times = Percentiles::new(times);
    println!(
        "{what:<44} p50 {:>8.1?}  p99 {:>8.1?}  p99.9 {:>8.1?}   {actions:?}",
        times.at(500),
        times.at(990),
        times.at(999)
    );
    times
}

fn main() -> ExitCode {
    let mut figures = Figures { missed: 0 };
    let all = [Kind::Present, Kind::Absent, Kind::Apart, Kind::Pulled];
    for (names_of_image, limit) in [(NAMES, 50), (NAMES - 1, 100)] {
        let mut inventory = build(names_of_image, &mut figures);
        for all_different in [false, true] {
            let mut policies = Policies::default();
            (0..POLICIES).for_each(|index| policies.apply(policy(index, limit, all_different)));
            let nodes = if all_different { "100 node selectors" } else { "6 node selectors" };
            println!("{POLICIES} policies that match, {nodes}:");
            for (what, kind) in [
                ("  present on some node", Kind::Present),
                ("  on no node", Kind::Absent),
                ("  on nodes, but not together", Kind::Apart),
                ("  nothing to judge", Kind::Pulled),
            ] {
                decisions(what, &[kind], &policies, &inventory);
            }
            let mixed = decisions("  all four in turn", &all, &policies, &inventory);
            if !all_different {
                figures.check("p99 of a decision is below 50 us", mixed.at(990) < DECISION_P99);
            }
        }
        updates(&mut inventory, names_of_image, &mut figures);
    }
    if figures.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
